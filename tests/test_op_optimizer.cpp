#include <doctest/doctest.h>

#include "harness.hpp"

namespace test_op_optimizer {

template <class L>
static OpShape slots_of(const L& optimizer, Status& status) {
  OpShape s;
  AnyOp   op(optimizer);
  s.n_in = 1, s.in[0].rank = 1, s.in[0].dim[0] = 48, s.in_dtype[0] = real_dtype;
  status = L::op.shape(op.attributes(), s);
  return s;
}
template <class L>
static int slots(const L& optimizer) {
  Status status;
  const OpShape s = slots_of(optimizer, status);
  CHECK(status == Status::ok);
  for (int i = 0; i < s.n_slots; i++) CHECK(s.slots[i].count == 48);
  return s.n_slots;
}
template <class L>
static Status status_of(const L& optimizer) {
  Status status;
  (void)slots_of(optimizer, status);
  return status;
}

// One update of one weight of value 1 by the gradient g.
static double update(const AnyOp& op, double g, const StepContext& context) {
  float w = 1, dw = static_cast<float>(g), state[2] = {};
  Shape shape;
  shape.rank = 1, shape.dim[0] = 1;
  OpRun r = {};
  r.context = &context;
  r.in_shapes[0] = r.out_shape_ = &shape;
  r.parameter_[0] = &w, r.dparameter_[0] = &dw, r.slot_[0] = &state[0], r.slot_[1] = &state[1];
  r.rows = 1, r.n_in = 1, r.n_parameters = 1;
  op.op()->forward(op.attributes(), r);
  return double(w);
}

TEST_CASE("op_optimizer: state is kept for what the attributes need") {
  CHECK(slots(SGD{0.1f}) == 0);
  CHECK(slots(SGD{0.1f, 0.9f}) == 1);
  CHECK(slots(Adagrad{}) == 1);
  CHECK(slots(RMSprop{}) == 1);
  CHECK(slots(RMSprop{1e-2f, 0.99f, 1e-8f, 0, 0.9f}) == 2);
  CHECK(slots(Adam{}) == 2);
  CHECK(slots(AdamW{}) == 2);
}

TEST_CASE("op_optimizer: attributes out of range are refused") {
  CHECK(status_of(SGD{-0.1f}) == Status::bad_attribute);
  CHECK(status_of(SGD{NAN}) == Status::bad_attribute);
  CHECK(status_of(SGD{INFINITY}) == Status::bad_attribute);
  CHECK(status_of(SGD{0.1f, -0.9f}) == Status::bad_attribute);
  CHECK(status_of(SGD{0.1f, 0.9f, 0, -1}) == Status::bad_attribute);
  CHECK(status_of(SGD{0.1f, 0, 0, 0, true}) == Status::bad_attribute);
  CHECK(status_of(SGD{0.1f, 0.9f, 0.1f, 0, true}) == Status::bad_attribute);
  CHECK(status_of(Adagrad{0.1f, 0, 0, 0, 0}) == Status::bad_attribute);
  CHECK(status_of(Adagrad{0.1f, -1}) == Status::bad_attribute);
  CHECK(status_of(RMSprop{0.1f, -0.5f}) == Status::bad_attribute);
  CHECK(status_of(Adam{0.1f, {1.0f, 0.999f}}) == Status::bad_attribute);
  CHECK(status_of(Adam{0.1f, {0.9f, -0.1f}}) == Status::bad_attribute);
  CHECK(status_of(AdamW{0.1f, {}, 0.0f}) == Status::bad_attribute);
}

TEST_CASE("op_optimizer: the rate is the schedule's, and clipping comes before everything") {
  StepContext c;
  c.lr = 0.5f;
  CHECK(update(SGD{0.1f}, 2, c) == 0);
  c.clip_value = 0.5f;
  CHECK(update(SGD{0.1f}, 2, c) == 0.75);
  CHECK(update(SGD{0.1f}, -2, c) == 1.25);
  c.clip_value = 0, c.gradient_scale = 0.25f;
  CHECK(update(SGD{0.1f}, 2, c) == 0.75);
}

TEST_CASE("op_optimizer: moments below 2^-100 become zero") {
  CHECK(plain::moment(real(0x1p-101f)) == 0);
  CHECK(plain::moment(real(-0x1p-101f)) == 0);
  CHECK(plain::moment(real(0x1p-100f)) == real(0x1p-100f));
  CHECK(std::isnan(plain::moment(real(NAN))));
}

TEST_CASE("op_optimizer: power is exact where it can be") {
  CHECK(power(0.5, 0) == 1);
  CHECK(power(0.5, 10) == 1.0 / 1024);
  CHECK(power(0.999, 1000) == doctest::Approx(std::pow(0.999, 1000)).epsilon(1e-12));
  CHECK(power(0.9, uint64_t(1) << 40) == 0);
}

}  // namespace test_op_optimizer
