#include "kernel_bits.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_optim {

TEST_CASE("kernel_optim: same bits on every instruction set and number of workers") {
  const Case cases[] = {
      {"Adagrad", Adagrad{0.1f, 0.01f, 0.05f, 0.2f}, {{4133}}, 5},
      {"Adam", Adam{0.01f, {}, 1e-8f, 0.1f}, {{8200}}, 5},
      {"AdamW", AdamW{0.01f}, {{4097}}, 5},
      {"RMSprop", RMSprop{0.01f, 0.9f, 1e-8f, 0.1f, 0.5f}, {{4099}}, 5},
      {"SGD", SGD{0.1f}, {{37}}, 5},
      {"SGD: everything", SGD{0.1f, 0.9f, 0.0f, 0.01f, true}, {{12289}}, 5},
  };
  check_bits(cases);
}

// One update of a weight 1 by gradient g, from a state of zeros or of `state`.
static float updated(const AnyOp& op, float g, float state, float scale, float clip,
                     float* state_after = nullptr) {
  OpShape s;
  AnyOp   copy = op;
  s.n_in = 1;
  s.in[0].rank   = 1;
  s.in[0].dim[0] = 16;
  s.in_dtype[0]  = real_dtype;
  REQUIRE(copy.op()->shape(copy.attributes(), s) == Status::ok);
  alignas(64) float w[16], d[16], slots[2][16];
  StepContext context;
  OpRun       r = {};
  for (int i = 0; i < 16; i++) w[i] = 1, d[i] = g, slots[0][i] = slots[1][i] = state;
  context.lr = 0.5f, context.update = 2, context.gradient_scale = scale, context.clip_value = clip;
  r.context = &context, r.attributes = copy.attributes(), r.rows = 1, r.n_in = r.n_parameters = 1;
  r.in_shapes[0] = r.out_shape_ = &s.in[0];
  r.parameter_[0] = w, r.dparameter_[0] = d;
  for (int k = 0; k < s.n_slots; k++) r.slot_[k] = slots[k];
  const Kernel* const* k = copy.op()->kernels;
  (*k)->run[static_cast<int>(current_isa())](r, 0, 0, 1, 0);
  if (state_after != nullptr) *state_after = slots[0][15];
  return w[15];
}

TEST_CASE("kernel_optim: the gradient is scaled, then clipped, before anything else") {
  CHECK(updated(SGD{}, 0.5f, 0, 1, 0) == 0.75f);
  CHECK(updated(SGD{}, 0.5f, 0, 0.5f, 0) == 0.875f);
  CHECK(updated(SGD{}, 8, 0, 0.5f, 0.25f) == 0.875f);
  CHECK(updated(SGD{}, -8, 0, 0.5f, 0.25f) == 1.125f);
  CHECK(std::isnan(updated(SGD{}, float_of(0x7FC00000u), 0, 1, 0.25f)));
}

TEST_CASE("kernel_optim: a moment below 2^-100 becomes zero") {
  float after = 1;
  (void)updated(SGD{0.5f, 0.5f}, 0, 0x1p-99f, 1, 0, &after);
  CHECK(after == 0x1p-100f);
  (void)updated(SGD{0.5f, 0.5f}, 0, 0x1p-100f, 1, 0, &after);
  CHECK(after == 0);
}

}  // namespace test_kernel_optim
#endif
