#include <doctest/doctest.h>

#include <cmath>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_softmax: any dimension but the batch") {
  CHECK(shape_of(Softmax{}, {{4, 5}}).out() == Sizes{4, 5});
  CHECK(status_of(Softmax{1}, {{4, 5}}) == Status::ok);
  CHECK(status_of(Softmax{0}, {{4, 5}}) == Status::bad_attribute);
  CHECK(status_of(Softmax{3}, {{4, 5}}) == Status::bad_attribute);
  CHECK(status_of(LogSoftmax{-3}, {{4, 5}}) == Status::bad_attribute);
  CHECK(status_of(LogSoftmax{INT32_MIN}, {{4, 5}}) == Status::bad_attribute);
}

TEST_CASE("op_softmax: backward reads the output alone") {
  const Shaped s = shape_of(LogSoftmax{}, {{4}});
  CHECK(s.s.dx_reads_out);
  CHECK(s.s.dx_reads_in == 0);
}

TEST_CASE("op_softmax: values of any size give probabilities that add up to 1") {
  const Ran r = run_row(Softmax{}, {3}, {1e30f, 1e30f, -1e30f});
  CHECK(r.y[0] == 0.5f);
  CHECK(r.y[1] == 0.5f);
  CHECK(r.y[2] < 1e-37f);
  CHECK(std::isfinite(run_row(LogSoftmax{}, {2}, {-1e30f, 1e30f}).y[0]));
}
