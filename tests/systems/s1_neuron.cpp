// S1: one neuron. Gradient descent finds w and b with sigmoid(w x + b) = t for x = -0.23, t = 0.74.
#include <cmath>

#include "system.hpp"

using namespace nnlite;

namespace {
constexpr real x = real(-0.23), t = real(0.74);

// E = (O - t)^2 / 2, which is the Huber loss where |O - t| < delta.
struct Neuron {
  unsigned char graph_buffer[4096];
  Model   model{graph_buffer};
  Trainer trainer;
  systems::Memory memory{8192};

  Neuron() {
    model.output("O", model.chain(model.input("x", {1}), Linear{1, 1}, Sigmoid{}));
    REQUIRE(model.finish(Seed{1}) == Status::ok);
    TrainerOptions options;
    options.loss           = HuberLoss{};
    options.optimizer      = SGD{10};
    options.keep_gradients = true;
    REQUIRE(trainer.build(model, options, memory.arena) == Status::ok);
  }
  void step() { REQUIRE(trainer.step(Batch{&x, &t, 1}) == Status::ok); }
  real get(int parameter) {
    real value = 0;
    REQUIRE(trainer.get(parameter, &value) == Status::ok);
    return value;
  }
  void set(int parameter, real value) { REQUIRE(trainer.set(parameter, &value) == Status::ok); }
};

double output(Neuron& n) { return 1 / (1 + std::exp(-(double(n.get(0)) * double(x) + double(n.get(1))))); }
}  // namespace

TEST_CASE("S1: one neuron finds w and b with sigmoid(-0.23 w + b) = 0.74") {
  Neuron n;
  for (int i = 0; i < 200; i++) n.step();
  std::printf("w %.6f  b %.6f  O %.8f\n", double(n.get(0)), double(n.get(1)), output(n));
  CHECK(std::fabs(output(n) - 0.74) < 1e-6);
}

TEST_CASE("S1: dE/dw is (O - t) O (1 - O) x, and the difference of E") {
  Neuron n;
  for (const real w : {real(-3), real(-0.5), real(0), real(1.25), real(4)}) {
    const real h = real(0.5), offsets[4] = {-2 * h, -h, h, 2 * h};
    double E[4];
    for (int i = 0; i < 4; i++) {
      n.set(0, w + offsets[i]);
      n.set(1, real(0.3));
      n.step();
      E[i] = double(n.trainer.loss());
    }
    n.set(0, w);
    n.set(1, real(0.3));
    const double O = output(n), formula = (O - double(t)) * O * (1 - O) * double(x);
    n.step();
    real gradient = 0;
    REQUIRE(n.trainer.get_gradient(0, &gradient) == Status::ok);
    const double difference = (E[0] - 8 * E[1] + 8 * E[2] - E[3]) / (12 * double(h));
    std::printf("w %5.2f  dE/dw %.8f  formula %.8f  difference %.8f\n", double(w), double(gradient), formula,
                difference);
    CHECK(double(gradient) == doctest::Approx(formula).epsilon(1e-5));
    CHECK(std::fabs(double(gradient) - difference) < 1e-6);
  }
}
