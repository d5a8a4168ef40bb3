#include <doctest/doctest.h>

#include <cmath>

#include "op_shape.hpp"

using namespace nnlite;

namespace {
template <class L>
float loss_of_one(const L& loss, float x, float t, float* dx = nullptr) {
  const Shaped s = shape_of(loss, {{1}});
  float y = NAN;
  OpRun r{};
  r.in_shapes[0] = &s.s.in[0], r.in_shapes[1] = &s.s.in[1], r.out_shape_ = &s.s.out;
  r.in_[0] = &x, r.in_[1] = &t, r.out_ = &y, r.rows = 1, r.n_in = 2;
  L::op.forward(s.op.attributes(), r);
  r.dx_[0] = dx;
  if (dx != nullptr) L::op.backward(s.op.attributes(), r);
  return y;
}
}  // namespace

TEST_CASE("op_loss_elementwise: the target looks like the input") {
  const Shaped s = shape_of(MSELoss{}, {{4, 3}});
  CHECK(s.s.in[1] == s.s.in[0]);
  CHECK(s.s.in_dtype[1] == real_dtype);
  CHECK(s.out() == Sizes{1});
  CHECK(s.s.dx_reads_in == 3);
  CHECK(status_of(MSELoss{}, {{4, 3}, {3, 4}}) == Status::bad_shape);
}

TEST_CASE("op_loss_elementwise: logarithms of BCELoss stop at -100") {
  float dx = 0;
  CHECK(loss_of_one(BCELoss{}, 0, 1, &dx) == 100);
  CHECK(dx == doctest::Approx(-1e12));
  CHECK(loss_of_one(BCELoss{}, 1, 0) == 100);
  CHECK(loss_of_one(BCELoss{}, 0, 0) == 0);
  CHECK(std::isnan(loss_of_one(BCELoss{}, -0.5f, 1)));
}

TEST_CASE("op_loss_elementwise: BCEWithLogitsLoss neither overflows nor loses small values") {
  CHECK(loss_of_one(BCEWithLogitsLoss{}, 1e4f, 1) < 1e-37f);
  CHECK(loss_of_one(BCEWithLogitsLoss{}, 1e4f, 0) == 1e4f);
  CHECK(loss_of_one(BCEWithLogitsLoss{}, 12, 1) ==
        doctest::Approx(std::log1p(std::exp(-12.0))).epsilon(1e-6));
}

TEST_CASE("op_loss_elementwise: HuberLoss needs a positive delta and joins smoothly") {
  CHECK(status_of(HuberLoss{0.0f}, {{3}}) == Status::bad_attribute);
  CHECK(status_of(HuberLoss{-1.0f}, {{3}}) == Status::bad_attribute);
  CHECK(status_of(HuberLoss{NAN}, {{3}}) == Status::bad_attribute);
  CHECK(loss_of_one(HuberLoss{2}, 2, 0) == 2);
  CHECK(loss_of_one(HuberLoss{2}, 3, 0) == 4);
}

TEST_CASE("op_loss_elementwise: equal values cost nothing and pull nowhere") {
  float dx = 1;
  CHECK(loss_of_one(L1Loss{}, 3, 3, &dx) == 0);
  CHECK(dx == 0);
  CHECK(loss_of_one(MSELoss{}, 3, 3, &dx) == 0);
  CHECK(dx == 0);
}
