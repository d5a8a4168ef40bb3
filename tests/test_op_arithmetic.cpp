#include <doctest/doctest.h>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_arithmetic: all inputs must have one shape") {
  CHECK(shape_of(Add{}, {{3, 4}, {3, 4}}).out() == Sizes{3, 4});
  CHECK(status_of(Add{}, {{3, 4}, {4, 3}}) == Status::bad_shape);
  CHECK(status_of(Mul{}, {{3}, {3}, {3, 1}}) == Status::bad_shape);
}

TEST_CASE("op_arithmetic: the gradient of a product reads the inputs, that of a sum nothing") {
  CHECK(shape_of(Add{}, {{3}, {3}, {3}}).s.dx_reads_in == 0);
  CHECK(shape_of(Mul{}, {{3}, {3}, {3}}).s.dx_reads_in == 7);
  CHECK(Add::op.min_in == 2);
  CHECK(Add::op.max_in == max_inputs);
}

TEST_CASE("op_arithmetic: dx may lie over dy, and two inputs may be one tensor") {
  float x[2] = {3, 5}, g[2] = {10, 100};
  Shape shape;
  shape.rank = 1, shape.dim[0] = 2;
  OpRun r{};
  r.in_shapes[0] = r.in_shapes[1] = r.out_shape_ = &shape;
  r.in_[0] = r.in_[1] = x;
  r.dy_ = r.dx_[0] = r.dx_[1] = g;
  r.accumulate_bits = 2, r.rows = 1, r.n_in = 2;
  const Mul mul;
  Mul::op.backward(&mul, r);                                    // d(x x) = 2 x dy
  CHECK(g[0] == 60);
  CHECK(g[1] == 1000);
}
