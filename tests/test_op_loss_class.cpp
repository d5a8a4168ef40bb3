#include <doctest/doctest.h>

#include <cmath>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_loss_class: the short form says what the target is") {
  const Shaped s = shape_of(CrossEntropyLoss{}, {{5, 6, 10}});
  CHECK(s.status == Status::ok);
  CHECK(s.s.in_dtype[1] == DType::i32);
  CHECK(s.s.in[1].rank == 3);
  CHECK(s.s.in[1].batched());
  CHECK(s.s.in[1].dim[1] == 5);
  CHECK(s.s.in[1].dim[2] == 6);
  CHECK(s.s.index_bound[1] == 10);
  CHECK(s.out() == Sizes{1});
  CHECK_FALSE(s.s.out.batched());
  const Shaped p = shape_of(CrossEntropyLoss{0.0f, true}, {{10}});
  CHECK(p.s.in_dtype[1] == real_dtype);
  CHECK(p.s.in[1] == p.s.in[0]);
  CHECK(p.s.index_bound[1] == 0);
}

TEST_CASE("op_loss_class: a target of another shape or type is refused") {
  OpShape s;
  s.n_in = 2;
  s.in[0].rank = 2, s.in[0].dim[0] = Shape::batch_dim, s.in[0].dim[1] = 10;
  s.in[1].rank = 1, s.in[1].dim[0] = Shape::batch_dim;
  s.in_dtype[0] = real_dtype, s.in_dtype[1] = DType::i32;
  NLLLoss loss;
  CHECK(NLLLoss::op.shape(&loss, s) == Status::ok);
  s.in_dtype[1] = real_dtype;
  CHECK(NLLLoss::op.shape(&loss, s) == Status::bad_shape);
  s.in[1] = s.in[0], s.in_dtype[1] = DType::i32;
  CHECK(NLLLoss::op.shape(&loss, s) == Status::bad_shape);
}

TEST_CASE("op_loss_class: label_smoothing is a share") {
  CHECK(status_of(CrossEntropyLoss{-0.1f}, {{10}}) == Status::bad_attribute);
  CHECK(status_of(CrossEntropyLoss{1.1f}, {{10}}) == Status::bad_attribute);
  CHECK(status_of(CrossEntropyLoss{NAN}, {{10}}) == Status::bad_attribute);
}

TEST_CASE("op_loss_class: logits of any size give a finite loss") {
  float   x[3] = {1e30f, -1e30f, 0}, y = -1, dx[3] = {};
  int32_t target = 0;
  const Shaped s = shape_of(CrossEntropyLoss{}, {{3}});
  OpRun r{};
  r.in_shapes[0] = &s.s.in[0], r.in_shapes[1] = &s.s.in[1], r.out_shape_ = &s.s.out;
  r.in_[0] = x, r.in_[1] = &target, r.out_ = &y, r.rows = 1, r.n_in = 2;
  CrossEntropyLoss::op.forward(s.op.attributes(), r);
  CHECK(y == 0);
  r.dx_[0] = dx;
  CrossEntropyLoss::op.backward(s.op.attributes(), r);
  for (float g : dx) CHECK(std::fabs(g) < 1e-30f);
}
