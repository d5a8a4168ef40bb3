// Adds an op of your own, from your own file: Swish with a slope, y = x / (1 + exp(-beta x)).
//
// An op is one attribute struct and three functions: which shapes, what is computed, how gradients flow back.
// From then on it is an op like any other: planned to the byte, trained through, saved, loaded. This program
// checks its gradient against a difference, then trains a network with it that follows a sine.
//
//   g++ -O2 -std=c++17 -I.. custom_op.cpp -o custom_op && ./custom_op
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

#include <math.h>
#include <stdio.h>

using namespace nnlite;

struct Swish2 {
  float beta = 2.0f;
  NNLITE_OP;
};

static Status swish2_shape(Swish2& a, OpShape& s) {
  if (!(a.beta > 0)) return Status::bad_attribute;
  s.out         = s.in[0];
  s.dx_reads_in = 1;                                         // backward reads input 0, so training keeps it
  return Status::ok;
}

static void swish2_forward(const Swish2& a, const OpRun& r) {
  for (int64_t i = 0, n = r.out_numel(); i < n; i++) {
    const real x = r.in(0)[i];
    r.out()[i] = x / (1 + expf(-a.beta * x));
  }
}

// with s = 1 / (1 + exp(-beta x)):   dx = dy (s + beta y (1 - s))
static void swish2_backward(const Swish2& a, const OpRun& r) {
  for (int64_t i = 0, n = r.out_numel(); i < n; i++) {
    const real x = r.in(0)[i], s = 1 / (1 + expf(-a.beta * x));
    r.dx(0)[i] = r.dy()[i] * (s + a.beta * x * s * (1 - s));
  }
}

// The number of a field is what a file stores, so a field can be renamed or moved, and others added.
NNLITE_DEFINE_OP(Swish2, swish2, "acme.Swish2", 1, traits::elementwise, NNLITE_FIELD(1, beta));

alignas(64) static unsigned char graph_buffer[4096], memory[1 << 16];

static int report(const Problem& problem) {
  fprintf(stderr, "custom_op: %s: %s: %s\n", to_string(problem.status), problem.where, problem.what);
  return 1;
}

// The gradient of a bias in front of the op, as backward gives it and as a difference of the loss.
static int check_gradient(float bias) {
  Model model(graph_buffer);
  model.output("y", model.chain(model.input("x", {1}), Linear{1, 1}, Swish2{}));
  if (!ok(model.finish(Seed{1}))) return report(model.problem());
  TrainerOptions options;
  options.loss           = MSELoss{};
  options.optimizer      = SGD{0};                           // looks, but changes nothing
  options.keep_gradients = true;
  Arena arena(memory, sizeof memory);
  Trainer trainer;
  if (!ok(trainer.build(model, options, arena))) return report(trainer.problem());
  const float x = 0, target = 0, h = 1e-2f, at[3] = {bias - h, bias + h, bias};
  float loss[3], gradient = 0;
  for (int i = 0; i < 3; i++) {
    if (!ok(trainer.set(1, &at[i]))) return report(trainer.problem());
    if (!ok(trainer.step(Batch{&x, &target, 1}))) return report(trainer.problem());
    loss[i] = trainer.loss();
  }
  if (!ok(trainer.get_gradient(1, &gradient))) return 1;
  const float difference = (loss[1] - loss[0]) / (2 * h);
  printf("at %4.1f  gradient %7.4f  difference %7.4f\n", double(bias), double(gradient), double(difference));
  return fabsf(gradient - difference) < 1e-3f ? 0 : 1;
}

int main() {
  for (int i = -2; i <= 2; i++)
    if (check_gradient(static_cast<float>(i)) != 0) return 1;

  static float x[128], y[128];
  for (int i = 0; i < 128; i++) {
    x[i] = static_cast<float>(i) / 127 * 2 - 1;
    y[i] = sinf(4 * x[i]);
  }
  Model model(graph_buffer);
  Tensor t = model.input("x", {1});
  t = model.chain(t, Linear{1, 16}, Swish2{}, Linear{16, 16}, Swish2{1.0f}, Linear{16, 1});
  model.output("y", t);
  if (!ok(model.finish(Seed{1}))) return report(model.problem());

  TrainerOptions options;
  options.batch     = 128;
  options.loss      = MSELoss{};
  options.optimizer = Adam{0.01f};
  Arena arena(memory, sizeof memory);
  Trainer trainer;
  if (!ok(trainer.build(model, options, arena))) return report(trainer.problem());
  for (int step = 1; step <= 1000; step++) {
    if (!ok(trainer.step(Batch{x, y, 128}))) return report(trainer.problem());
    if (step % 200 == 0) printf("step %4d  mean squared error %.6f\n", step, double(trainer.loss()));
  }
  return trainer.loss() < 1e-3f ? 0 : 1;
}
