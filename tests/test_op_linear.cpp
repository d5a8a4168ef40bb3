#include <doctest/doctest.h>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_linear: the last dimension is transformed") {
  CHECK(shape_of(Linear{4, 7}, {{4}}).out() == Sizes{7});
  CHECK(shape_of(Linear{4, 7}, {{2, 3, 4}}).out() == Sizes{2, 3, 7});
  CHECK(shape_of(Linear{4, 7}, {{2, 3, 4}}).s.macs == 2 * 3 * 4 * 7);
}

TEST_CASE("op_linear: in_features = 0 is inferred and written back") {
  CHECK(shape_of(Linear{0, 7}, {{5}}).as<Linear>().in_features == 5);
  CHECK(status_of(Linear{4, 7}, {{5}}) == Status::bad_shape);
}

TEST_CASE("op_linear: weight and bias have PyTorch's shapes") {
  const Shaped s = shape_of(Linear{4, 7}, {{4}});
  REQUIRE(s.s.n_parameters == 2);
  CHECK(s.s.parameters[0].layout == Layout::linear);
  CHECK(s.s.parameters[0].shape.dim[0] == 7);
  CHECK(s.s.parameters[0].shape.dim[1] == 4);
  CHECK(s.s.parameters[0].fan_in == 4);
  CHECK(s.s.parameters[0].fan_out == 7);
  CHECK(s.s.parameters[1].fan_in == 4);
  CHECK(shape_of(Linear{4, 7, false}, {{4}}).s.n_parameters == 1);
}

TEST_CASE("op_linear: only the weight gradient reads the input") {
  const Shaped s = shape_of(Linear{4, 7}, {{4}});
  CHECK(s.s.dx_reads_in == 0);
  CHECK(s.s.dw_reads_in == 1);
  CHECK_FALSE(s.s.dx_reads_out);
  CHECK(s.s.n_slots == 0);
}

TEST_CASE("op_linear: sizes out of range are refused") {
  CHECK(status_of(Linear{4, 0}, {{4}}) == Status::bad_attribute);
  CHECK(status_of(Linear{4, -7}, {{4}}) == Status::bad_attribute);
  CHECK(status_of(Linear{-4, 7}, {{4}}) == Status::bad_shape);
  CHECK(status_of(Linear{4, INT32_MAX}, {{4}}) == Status::limit_exceeded);
  CHECK(status_of(Linear{1 << 16, 1 << 16}, {{1 << 16}}) == Status::limit_exceeded);
}
