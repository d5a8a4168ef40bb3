// First weights: the scale of every initialiser, one seed one model, the tail of panels zero.
#include <doctest/doctest.h>

#include <cmath>

#include "engine.hpp"

using namespace nnlite;

namespace {

std::vector<real> weights_of(const AnyOp& layer, const Dims& input, Seed seed, int parameter = 0) {
  Net n;
  const Tensor x = n.model.input("x", input);
  n.model.output("y", n.model.add_any(nullptr, layer, &x, 1));
  CHECK(n.model.finish(seed) == Status::ok);
  CHECK(n.materialise() == Status::ok);
  std::vector<real> w(static_cast<size_t>(n.model.parameter(parameter).count));
  CHECK(n.model.get(parameter, w.data()) == Status::ok);
  return w;
}

// Standard deviation times the square root of n / (n - 1), and the largest absolute value.
void check(const std::vector<real>& w, double deviation, double largest) {
  double sum = 0, squares = 0, top = 0;
  for (const real f : w) {
    const double v = double(f);
    sum += v, squares += v * v, top = std::fmax(top, std::fabs(v));
  }
  CHECK(std::fabs(sum / double(w.size())) < 0.05 * deviation);
  CHECK(std::sqrt(squares / double(w.size())) == doctest::Approx(deviation).epsilon(0.03));
  CHECK(top <= largest);
  CHECK(top > 0.98 * std::fmin(largest, 3 * deviation));
}

}  // namespace

TEST_CASE("init: scales of PyTorch's default, Glorot and He, uniform and normal, for [80, 120]") {
  const auto of = [](Init init) { return weights_of(Linear{0, 80}, {120}, Seed{1, init}); };
  const double third = std::sqrt(1.0 / 3.0);
  check(of(Init::pytorch), std::sqrt(1.0 / 120) * third, std::sqrt(1.0 / 120));
  check(of(Init::glorot_uniform), std::sqrt(2.0 / 200), std::sqrt(6.0 / 200));
  check(of(Init::glorot_normal), std::sqrt(2.0 / 200), HUGE_VAL);
  check(of(Init::he_uniform), std::sqrt(2.0 / 120), std::sqrt(6.0 / 120));
  check(of(Init::he_normal), std::sqrt(2.0 / 120), HUGE_VAL);
}

TEST_CASE("init: fan of a convolution counts its window and group") {
  const std::vector<real> w = weights_of(Conv2d{0, 64, 3, 1, 1, 1, 2}, {9, 9, 32}, Seed{2});
  check(w, std::sqrt(1.0 / (16 * 9) / 3.0), std::sqrt(1.0 / (16 * 9)));
}

TEST_CASE("init: biases follow PyTorch's default or are zero; normalisation begins as identity") {
  double largest = 0;
  for (const real v : weights_of(Linear{0, 80}, {120}, Seed{1}, 1))
    largest = std::fmax(largest, std::fabs(double(v)));
  CHECK(largest <= std::sqrt(1.0 / 120));
  CHECK(largest > 0.9 * std::sqrt(1.0 / 120));
  for (const real v : weights_of(Linear{0, 80}, {120}, Seed{1, Init::he_normal}, 1)) CHECK(v == 0);
  const float expected[] = {1, 0, 0, 1};       // weight, bias, running mean, running variance
  for (int p = 0; p < 4; p++)
    for (const real v : weights_of(BatchNorm1d{}, {5}, Seed{1, Init::he_normal}, p)) CHECK(v == expected[p]);
}

TEST_CASE("init: one seed gives one model, another another; a layer may have an initialiser of its own") {
  const std::vector<real> a = weights_of(Linear{0, 5}, {7}, Seed{9});
  CHECK(same_bytes(a, weights_of(Linear{0, 5}, {7}, Seed{9})));
  CHECK(!same_bytes(a, weights_of(Linear{0, 5}, {7}, Seed{10})));
  Net n;
  const Tensor x = n.model.input("x", {50});
  const Tensor y = n.model.add(Linear{0, 50}, x);
  n.model.initialise(y, Init::glorot_uniform);
  n.model.output("y", n.model.add(Linear{0, 50}, y));
  CHECK(n.model.finish(Seed{1}) == Status::ok);
  CHECK(n.materialise() == Status::ok);
  std::vector<real> w(2500);
  for (const int p : {0, 2}) {
    CHECK(n.model.get(p, w.data()) == Status::ok);
    const double limit = p == 0 ? std::sqrt(6.0 / 100) : std::sqrt(1.0 / 50);
    check(w, limit / std::sqrt(3.0), limit);
  }
}

TEST_CASE("init: materialise takes weight_bytes, the tails of panels are zero, less is out_of_memory") {
  Net n;
  const Tensor x = n.model.input("x", {3});
  n.model.output("y", n.model.add(Linear{0, 5}, x));
  CHECK(n.model.finish(Seed{1}) == Status::ok);
  CHECK(!n.model.has_weights());
  CHECK(n.model.weight_bytes() == (3 * 16 + 16) * sizeof(real));
  Guarded small(n.model.weight_bytes() - 64), crooked(n.model.weight_bytes() + 64);
  Arena a = small.arena(), b(crooked.data() + 16, n.model.weight_bytes());
  CHECK(n.model.materialise(a) == Status::out_of_memory);
  CHECK(n.model.materialise(b) == Status::misaligned);
  CHECK(small.untouched());
  CHECK(crooked.untouched());
}

TEST_CASE("init: stored tails are zero") {
  Net n;
  const Tensor x = n.model.input("x", {3});
  n.model.output("y", n.model.add(Linear{0, 5}, x));
  CHECK(n.model.finish(Seed{1}) == Status::ok);
  CHECK(n.materialise() == Status::ok);
  const real* stored = reinterpret_cast<const real*>(n.weights.data());
  for (int i = 0; i < 3; i++)
    for (int o = 0; o < 16; o++) CHECK((stored[i * 16 + o] != 0) == (o < 5));
  CHECK(n.weights.intact());
}
