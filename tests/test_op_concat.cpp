#include <doctest/doctest.h>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_concat: sizes along dim are added, the others must be equal") {
  CHECK(shape_of(Concat{3}, {{4, 5, 2}, {4, 5, 7}}).out() == Sizes{4, 5, 9});
  CHECK(shape_of(Concat{1}, {{4, 5}, {2, 5}, {1, 5}}).out() == Sizes{7, 5});
  CHECK(shape_of(Concat{-1}, {{4, 5}, {4, 1}}).out() == Sizes{4, 6});
  CHECK(status_of(Concat{3}, {{4, 5, 2}, {4, 6, 7}}) == Status::bad_shape);
  CHECK(status_of(Concat{1}, {{4, 5}, {4}}) == Status::bad_shape);
}

TEST_CASE("op_concat: the batch and dimensions that are not there are refused") {
  CHECK(status_of(Concat{0}, {{4}, {4}}) == Status::bad_attribute);
  CHECK(status_of(Concat{2}, {{4}, {4}}) == Status::bad_attribute);
  CHECK(status_of(Concat{-2}, {{4}, {4}}) == Status::bad_attribute);
  CHECK(status_of(Concat{INT32_MIN}, {{4}, {4}}) == Status::bad_attribute);
}

TEST_CASE("op_concat: a sum of sizes that overflows is refused") {
  CHECK(status_of(Concat{1}, {{INT32_MAX}, {INT32_MAX}}) == Status::limit_exceeded);
  CHECK(status_of(Concat{1}, {{INT32_MAX / 2, 2}, {2, 2}}) == Status::limit_exceeded);
}
