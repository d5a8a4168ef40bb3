#include <doctest/doctest.h>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_upsample: every pixel is repeated") {
  CHECK(shape_of(Upsample{{2, 3}}, {{4, 5, 6}}).out() == Sizes{8, 15, 6});
  CHECK(run_row(Upsample{{1, 2}}, {1, 2, 1}, {7, 9}).y == std::vector<float>{7, 7, 9, 9});
  CHECK(run_row(Upsample{2}, {1, 1, 2}, {7, 9}).y == std::vector<float>{7, 9, 7, 9, 7, 9, 7, 9});
  CHECK(run_row(Upsample{2}, {1, 1, 1}, {7}, {1, 2, 3, 4}).dx == std::vector<float>{10});
}

TEST_CASE("op_upsample: factors out of range and sizes that overflow are refused") {
  CHECK(status_of(Upsample{0}, {{4, 5, 6}}) == Status::bad_attribute);
  CHECK(status_of(Upsample{{1, -2}}, {{4, 5, 6}}) == Status::bad_attribute);
  CHECK(status_of(Upsample{INT32_MAX}, {{4, 5, 6}}) == Status::limit_exceeded);
  CHECK(status_of(Upsample{1 << 15}, {{4, 5, 6}}) == Status::limit_exceeded);
  CHECK(status_of(Upsample{2}, {{4, 5}}) == Status::bad_shape);
}
