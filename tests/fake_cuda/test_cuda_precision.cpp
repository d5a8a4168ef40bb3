// Products of bf16 are those of fp32 of factors that were rounded before: on the CPU, so that what is left
// between the two is the order of sums. On a GPU this tells whether lanes hold what the instruction wants.
#include <cstring>

#include "cuda_run.hpp"
#ifdef NNLITE_FAKE_CUDA
#include "fake_cuda.hpp"
#endif

namespace {

// x -> a depthwise convolution with ones, which is exact in every precision and has the sum of x dx as its
// gradient -> the op -> L1Loss, whose gradients are all of one size.
struct Case {
  const char* name;
  Dims  x;
  int   batch;
  AnyOp op;
};
const Case cases[] = {
    {"Linear 20 to 33", {5, 7, 20}, 3, Linear{0, 33}},
    {"Linear 300 to 10", {1, 1, 300}, 7, Linear{0, 10}},
    {"Linear 3 to 17, no bias", {3, 1, 3}, 5, Linear{0, 17, false}},
    {"1x1", {7, 5, 6}, 3, Conv2d{0, 16, 1}},
    {"3x3 of fours", {9, 7, 16}, 2, Conv2d{0, 20, 3, 1, 1}},
    {"3x3 not of fours", {9, 7, 3}, 3, Conv2d{0, 33, 3, 1, 1}},
    {"3x3 stride 2 to 70", {9, 11, 33}, 2, Conv2d{0, 70, 3, 2, 1}},
    {"3x3 dilation 2, groups 2", {9, 8, 24}, 2, Conv2d{0, 40, 3, 1, 2, 2, 2}},
    {"3x3 by chunks", {24, 25, 16}, 2, Conv2d{0, 24, 3, 1, 1}},
    {"transposed 2x2 stride 2", {5, 4, 8}, 3, ConvTranspose2d{0, 16, 2, 2}},
    {"transposed 3x3 stride 2", {5, 6, 16}, 3, ConvTranspose2d{0, 20, 3, 2, 1, 1}},
    {"tiles of 128 x 32", {130, 130, 32}, 2, Conv2d{0, 32, 1}},
    {"tiles of 128 x 64", {130, 130, 4}, 2, Conv2d{0, 64, 1}},
    {"tiles of 64 x 64", {92, 92, 3}, 2, Conv2d{0, 63, 1}},
};

// To 8 bits, of two as near the even one: by other means than those of nnlite_cuda.cu.
double rounded(double v) {
  int e = 0;
  const double m = std::frexp(v, &e);
  return std::ldexp(std::nearbyint(std::ldexp(m, 8)), e - 8);
}
std::vector<real> rounded(std::vector<real> values) {
  for (real& v : values) v = real(rounded(double(v)));
  return values;
}
// Of three one that is halfway between two of 8 bits.
std::vector<real> values_of(uint64_t seed, size_t count) {
  std::vector<real> values = random_values(seed, count);
  for (size_t i = 0; i < count; i += 3) {
    uint32_t bits = 0;
    std::memcpy(&bits, &values[i], sizeof bits);
    bits = (bits & 0xFFFF0000u) | 0x8000u;
    std::memcpy(&values[i], &bits, sizeof bits);
  }
  return values;
}

Array times(Array values, double factor) {
  for (double& v : values) v *= factor;
  return values;
}

std::unique_ptr<Subject> subject_of(const Case& c) {
  auto s = std::make_unique<Subject>();
  Model& m = s->net.model;
  const int    C = c.x.dim[2];
  const Tensor h = m.add("front", Conv2d{C, C, 1, 1, 0, 1, C, false}, m.input("x", c.x));
  m.output("y", m.add_any("op", c.op, &h, 1));
  s->loss = L1Loss{};
  s->rows = c.batch;
  REQUIRE_MESSAGE(s->finish() == Status::ok, m.problem().where << ": " << m.problem().what);
  s->fill(c.batch, 0);
  s->x[0] = values_of(3, s->x[0].size());
  for (real& t : s->targets) t = t > real(0.5) ? real(100) : real(-100);       // no output is near its target
  return s;
}

// The output, and the gradients of front.weight, op.weight and op.bias, with such a weight of the op.
Arrays results(const Subject& s, const Backend* on, const std::vector<real>& weight) {
  Arrays all;
  const Model& m = s.net.model;
  TrainerOptions o = s.training(on);
  o.keep_gradients  = true;
  o.optimizer       = SGD{1e-3f};
  o.derived_weights = false;                   // sums as they are defined
  PlacedTrainer t(m, o);
  REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
  for (int p = 0; p < m.parameter_count(); p++) {
    const std::string name = m.parameter(p).name;
    const std::vector<real> ones(static_cast<size_t>(m.parameter(p).count), real(1));
    if (name == "front.weight") REQUIRE(t.it.set(p, ones.data()) == Status::ok);
    if (name == "op.weight") REQUIRE(t.it.set(p, weight.data()) == Status::ok);
  }
  SessionOptions running = s.running(on);
  running.derived_weights = false;
  PlacedSession session(m, running);
  session.build(t.it, running);
  REQUIRE_MESSAGE(session.status == Status::ok, session.problem());
  all["output"] = as_doubles(forward(session.it, s));
  REQUIRE_MESSAGE(t.it.step(s.batch()) == Status::ok, t.problem());
  for (int p = 0; p < m.parameter_count(); p++) {
    std::vector<real> values(static_cast<size_t>(m.parameter(p).count));
    CHECK(t.it.get_gradient(p, values.data()) == Status::ok);
    all[m.parameter(p).name] = as_doubles(values);
  }
  return all;
}

}  // namespace

TEST_CASE("cuda: products of bf16 have rounded factors and exact sums, forward and for all gradients") {
  NNLITE_ON_CUDA(cuda);
  const Backend* const bf16 = cuda_backend(0, Precision::bf16);
  REQUIRE(bf16 != nullptr);
  double worst = 0;
  int    between = 0;                          // cases whose gradients of outputs have more than 8 bits
  for (const Case& c : cases) {
    CAPTURE(std::string(c.name));
    const auto s = subject_of(c), near = subject_of(c);
    near->x[0] = rounded(near->x[0]);
    size_t count = 0;
    for (int p = 0; p < s->net.model.parameter_count(); p++)
      if (std::string(s->net.model.parameter(p).name) == "op.weight")
        count = static_cast<size_t>(s->net.model.parameter(p).count);
    REQUIRE(count > 0);
    const std::vector<real> weight = values_of(4, count);
    const Arrays on = results(*s, bf16, weight), fp32 = results(*s, cuda, weight);
    // dx has nothing of x, and front.weight's gradient all bits of both
    const Arrays of_x  = results(*near, nullptr, rounded(weight));
    const Arrays of_dx = results(*s, nullptr, rounded(weight));
    const double n = double(s->targets.size()), share = rounded(1 / n) * n;     // of dy, which is 1 / n
    between += std::fabs(share - 1) > 1e-3;
    const bool linear = c.op.op() == &Linear::op;               // whose bias is part of the product
    const auto check = [&](const char* name, const Array& right) {
      const double e = error_of(on.at(name), right);
      CHECK_MESSAGE(e <= 1e-4, name << ": " << e);
      if (std::string(name) != "op.bias") CHECK_MESSAGE(error_of(fp32.at(name), right) > 1e-4, name);
      worst = e > worst || e != e ? e : worst;
    };
    check("output", of_x.at("output"));
    check("front.weight", times(of_dx.at("front.weight"), share));
    check("op.weight", times(of_x.at("op.weight"), share));
    if (on.count("op.bias") > 0) check("op.bias", times(of_x.at("op.bias"), linear ? share : 1));
    CHECK((results(*s, bf16, weight) == on));
#ifdef NNLITE_FAKE_CUDA
    for (const std::string& found : fake::findings()) CHECK_MESSAGE(false, found);
#endif
    close_cuda(0);
    REQUIRE(cuda_backend(0) == cuda);
  }
  CHECK(between >= 4);
  MESSAGE("the worst error " << worst);
}

TEST_CASE("cuda: what is no number or rounds to infinity stays so in products of bf16") {
  NNLITE_ON_CUDA(cuda);
  const Backend* const bf16 = cuda_backend(0, Precision::bf16);
  REQUIRE(bf16 != nullptr);
  for (const uint32_t bits : {0x7FFFFFFFu, 0xFFFFFFFFu, 0x7F800001u, 0x7F800000u, 0xFF7FFFFFu}) {
    CAPTURE(bits);
    const auto s = std::make_unique<Subject>();
    Model& m = s->net.model;
    m.output("y", m.add(Linear{0, 2, false}, m.input("x", {5})));
    s->rows = 3;
    REQUIRE(s->finish() == Status::ok);
    s->fill(3, 0);
    std::memcpy(&s->x[0][7], &bits, sizeof bits);               // in the second row
    PlacedSession session(m, s->running(bf16));
    REQUIRE(session.status == Status::ok);
    const std::vector<real> y = forward(session.it, *s);
    REQUIRE(y.size() == 6);
    for (size_t i = 0; i < y.size(); i++) {
      const bool number = (bits & 0x7FFFFFFFu) <= 0x7F800000u;
      if (i / 2 != 1) CHECK(std::isfinite(y[i]));
      else CHECK((number ? std::isinf(y[i]) : std::isnan(y[i])));
    }
  }
}
