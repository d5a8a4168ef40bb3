// S14: training aids. The vanishing gradient made visible: the norm of every layer's gradient in a net of ten
// layers, as a table and a picture, and what Glorot's initialisation and batch norm do about it. Then clipping
// and dropout.
#include <algorithm>
#include <cmath>
#include <string>

#include "file.hpp"
#include "plot.hpp"
#include "system.hpp"

using namespace nnlite;

namespace {
constexpr int depth = 10, width = 64, batch = 128;

struct Kind {
  const char* name;
  bool sigmoid, batch_norm;
  Init init;
};

// 784 pixels, nine hidden layers, ten logits.
void build(Model& model, const Kind& kind) {
  Tensor x = model.add(Flatten{}, model.input("image", {28, 28, 1}));
  for (int i = 1; i < depth; i++) {
    x = model.add(Linear{0, width}, x);
    if (kind.batch_norm) x = model.add(BatchNorm1d{}, x);
    x = kind.sigmoid ? model.add(Sigmoid{}, x) : model.add(ReLU{}, x);
  }
  model.output("logits", model.add(Linear{0, 10}, x));
  REQUIRE(model.finish(Seed{1, kind.init}) == Status::ok);
}

struct Training {
  unsigned char graph_buffer[16384];
  Model   model{graph_buffer};
  Dataset data;
  std::vector<unsigned char> bytes;
  Trainer trainer;

  Training(const Kind& kind, const Samples& samples, TrainerOptions options) {
    build(model, kind);
    start(samples, options);
  }
  void start(const Samples& samples, TrainerOptions options) {
    options.batch = batch;
    options.loss  = CrossEntropyLoss{};
    options.seed  = 1;
    MemoryPlan plan;
    REQUIRE(Trainer::plan(model, options, plan) == Status::ok);
    systems::Memory memory(plan.total);
    REQUIRE(trainer.build(model, options, memory.arena) == Status::ok);
    bytes           = std::move(memory.bytes);  // the block stays where it is
    data.count      = static_cast<uint32_t>(samples.count());
    data.columns[0] = Column{samples.bytes.data(), DType::u8, 1.0f / 255, 0};
    data.columns[1] = Column{samples.labels.data(), DType::i32};
    REQUIRE(trainer.set_data(data) == Status::ok);
  }
};

// The first `count` of a set.
Samples first(const Samples& all, size_t count) {
  Samples some = all;
  some.bytes.resize(count * all.sample_size());
  some.labels.resize(count);
  return some;
}

// The 2-norm of the gradient of every Linear's weight in the first step, first layer first.
std::vector<double> gradient_norms(const Kind& kind, const Samples& samples) {
  TrainerOptions options;
  options.optimizer      = SGD{0.01f};
  options.keep_gradients = true;
  Training t(kind, samples, options);
  REQUIRE(t.trainer.step() == Status::ok);
  std::vector<double> norms;
  for (int p = 0; p < t.model.parameter_count(); p++) {
    const ParameterInfo parameter = t.model.parameter(p);
    if (parameter.role != Role::weight || parameter.shape.rank != 2) continue;
    std::vector<real> gradient(static_cast<size_t>(parameter.count));
    REQUIRE(t.trainer.get_gradient(p, gradient.data()) == Status::ok);
    double sum = 0;
    for (real g : gradient) sum += double(g) * double(g);
    norms.push_back(std::sqrt(sum));
  }
  REQUIRE(norms.size() == size_t(depth));
  return norms;
}

double mean_loss(Trainer& trainer, int steps) {
  double sum = 0;
  for (int i = 0; i < steps; i++) {
    REQUIRE(trainer.step() == Status::ok);
    sum += double(trainer.loss());
  }
  return sum / steps;
}
}  // namespace

TEST_CASE("S14: the gradient vanishes behind ten sigmoids, not behind ReLU, Glorot or batch norm") {
  systems::Mnist mnist;
  if (!systems::read_mnist(mnist)) return;
  const Kind kinds[] = {{"sigmoid", true, false, Init::pytorch},
                        {"ReLU", false, false, Init::pytorch},
                        {"Glorot", false, false, Init::glorot_uniform},      // ReLU
                        {"batch norm", true, true, Init::glorot_uniform}};   // sigmoid
  Chart chart = {"", "layer", "log10 of the norm of the weight's gradient", {}};
  std::vector<std::vector<double>> norms;
  for (const Kind& kind : kinds) {
    norms.push_back(gradient_norms(kind, mnist.train));
    Curve curve = {kind.name, {}, {}};
    for (int i = 0; i < depth; i++) {
      curve.x.push_back(i + 1);
      curve.y.push_back(std::log10(norms.back()[size_t(i)]));
    }
    chart.curves.push_back(curve);
  }
  std::printf("layer");
  for (const Kind& kind : kinds) std::printf("  %12s", kind.name);
  for (size_t i = 0; i < size_t(depth); i++) {
    std::printf("\n%5d", int(i) + 1);
    for (const auto& column : norms) std::printf("  %12.3g", column[i]);
  }
  double ratio[4];
  std::printf("\n1:10 ");
  for (size_t k = 0; k < 4; k++) std::printf("  %12.3g", ratio[k] = norms[k].front() / norms[k].back());
  write_file(NNLITE_SYSTEMS_OUT "/vanishing_gradient.svg", draw_charts("Gradients of ten layers", {chart}));
  std::printf("\n%s/vanishing_gradient.svg\n", NNLITE_SYSTEMS_OUT);
  CHECK(ratio[0] < 1e-5);
  CHECK(ratio[1] > 1000 * ratio[0]);
  CHECK(ratio[2] > 0.1);
  CHECK(ratio[2] > 3 * ratio[1]);
  CHECK(ratio[3] > 0.1);
}

TEST_CASE("S14: ten layers of sigmoids learn with batch norm and Glorot, not without") {
  systems::Mnist mnist;
  if (!systems::read_mnist(mnist)) return;
  TrainerOptions options;
  options.optimizer = SGD{0.05f, 0.9f};
  Training without({"", true, false, Init::pytorch}, mnist.train, options);
  Training with({"", true, true, Init::glorot_uniform}, mnist.train, options);
  (void)mean_loss(without.trainer, 400);
  (void)mean_loss(with.trainer, 400);
  const double chance = std::log(10.0), a = mean_loss(without.trainer, 100), b = mean_loss(with.trainer, 100);
  std::printf("steps 401 to 500: loss %.3f (chance %.3f), with batch norm and Glorot %.3f\n", a, chance, b);
  CHECK(a > 0.98 * chance);
  CHECK(b < 0.6);
}

TEST_CASE("S14: clipping by norm keeps steps small where they explode without it") {
  systems::Mnist mnist;
  if (!systems::read_mnist(mnist)) return;
  const Kind kind = {"", false, false, Init::he_normal};
  TrainerOptions options;
  options.optimizer = SGD{2.0f};
  Training wild(kind, mnist.train, options);
  Status status = Status::ok;
  for (int i = 0; i < 200 && ok(status); i++) status = wild.trainer.step();
  const double wild_loss = double(wild.trainer.loss());
  options.clip_norm = 0.05f;
  Training tame(kind, mnist.train, options);
  double largest = 0, gradient = 0;
  std::vector<real> before(10 * width), after(10 * width);
  const int head = tame.model.parameter_count() - 2;
  for (int i = 0; i < 300; i++) {
    REQUIRE(tame.trainer.get(head, before.data()) == Status::ok);
    REQUIRE(tame.trainer.step() == Status::ok);
    REQUIRE(tame.trainer.get(head, after.data()) == Status::ok);
    gradient = std::max(gradient, double(tame.trainer.gradient_norm()));
    double moved = 0;
    for (size_t k = 0; k < before.size(); k++) moved += std::pow(double(after[k]) - double(before[k]), 2.0);
    largest = std::max(largest, std::sqrt(moved));
  }
  const double loss = mean_loss(tame.trainer, 100);
  std::printf("rate 2: without clipping %s after %d steps, loss %.3g; with it %.3f, gradients up to %.2f, "
              "moves up to %.3f\n",
              to_string(status), int(wild.trainer.step_number()), wild_loss, loss, gradient, largest);
  CHECK((!ok(status) || wild_loss > 2));
  CHECK(loss < 0.5);
  CHECK(gradient > 10 * 0.05);
  CHECK(largest <= 2.0 * 0.05 * 1.0001);
}

// How many of the test digits are read right after 60 epochs on 500 digits, and the loss on those.
static double accuracy_with(float dropout, const systems::Mnist& mnist, double& train_loss) {
  unsigned char graph_buffer[8192];
  Model model(graph_buffer);
  Tensor x = model.add(Flatten{}, model.input("image", {28, 28, 1}));
  for (int i = 0; i < 2; i++) x = model.chain(x, Linear{0, 256}, ReLU{}, Dropout{dropout});
  model.output("logits", model.add(Linear{0, 10}, x));
  REQUIRE(model.finish(Seed{1}) == Status::ok);
  TrainerOptions options;
  options.batch     = 50;
  options.loss      = CrossEntropyLoss{};
  options.optimizer = Adam{1e-3f};
  options.seed      = 1;
  return systems::train_and_test(model, options, mnist, {}, 600,
                                 [&](const Trainer& t) { train_loss = double(t.loss()); });
}

TEST_CASE("S14: dropout learns less by heart and reads more of what it has not seen") {
  systems::Mnist mnist;
  if (!systems::read_mnist(mnist)) return;
  mnist.train = first(mnist.train, 500);
  double loss_without = 0, loss_with = 0;
  const double without = accuracy_with(0.0f, mnist, loss_without);
  const double with    = accuracy_with(0.5f, mnist, loss_with);
  std::printf("500 digits: loss %.4f, %.2f %% of the test digits; with dropout %.4f, %.2f %%\n", loss_without,
              100 * without, loss_with, 100 * with);
  CHECK(loss_with > loss_without);
  CHECK(with > without);
}
