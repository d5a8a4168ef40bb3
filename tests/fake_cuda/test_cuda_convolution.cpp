// Convolutions of nnlite_cuda.cu against those of the CPU: outputs, gradients and weights after a step.
#include <doctest/doctest.h>

#include <cmath>
#include <type_traits>

#include "../engine.hpp"
#ifdef NNLITE_FAKE_CUDA
#include "fake_cuda.hpp"
#endif

using namespace nnlite;

namespace {

// Of kernels; 0 on a GPU, where nobody counts.
long launches_so_far() {
#ifdef NNLITE_FAKE_CUDA
  return fake::launches();
#else
  return 0;
#endif
}
bool on_cuda() {
  const bool there = *cuda_problem(0) == 0;
  if (!there) MESSAGE("SKIP: there is no CUDA device: ", std::string(cuda_problem(0)));
  return there;
}

// x -> Linear over the channels, whose gradients come of the op's dx -> the op, or both and their sum
//   -> Flatten -> Linear -> CrossEntropyLoss
struct Case {
  const char* name;
  Dims  x;
  int   batch;
  AnyOp op, other = AnyOp();
};

struct Trained {
  Status status = Status::ok;
  real   loss = 0;
  std::vector<std::vector<real>> outputs, gradients, weights;
};

// Whether the gradients of a convolution that has just run are zero where the device has no column for them.
bool padding_is_zero(const Backend& on, const real* device, int64_t lines, int64_t columns) {
  const int64_t     wide = (columns + 15) / 16 * 16;
  std::vector<real> values(static_cast<size_t>(lines * wide));
  if (!ok(on.copy(on.user, const_cast<real*>(device), values.data(), values.size() * sizeof(real),
                  Copy::from_device)))
    return false;
  for (size_t i = 0; i < values.size(); i++)
    if (int64_t(i) % wide >= columns && !(values[i] == 0)) return false;
  return true;
}
template <class A>
void look(const OpRun& r, const Backend& on) {
  const A&      a = *static_cast<const A*>(r.attributes);
  const bool    single = a.groups > 1 && a.groups == a.in_channels && a.groups == a.out_channels;
  const bool    deep = single && std::is_same<A, Conv2d>::value;
  const int64_t columns = deep ? a.groups : a.out_channels / a.groups;
  const int64_t taps = a.kernel_size.h * a.kernel_size.w, lines = taps * (deep ? 1 : a.in_channels);
  CHECK(padding_is_zero(on, r.dparameter(0), lines, columns));
  if (a.bias) CHECK(padding_is_zero(on, r.dparameter(1), 1, a.out_channels));
}
void look_at(void* backend, const StepView* step) {
  if (step == nullptr || step->kind != StepKind::backward) return;
  const Backend& on = *static_cast<const Backend*>(backend);
  if (step->op == &Conv2d::op) look<Conv2d>(step->run, on);
  if (step->op == &ConvTranspose2d::op) look<ConvTranspose2d>(step->run, on);
}

// x -> Linear over the channels -> the op -> MSELoss, for images of so many pixels that tiles are large.
// Gradients and outputs of one step.
Trained train_images(const Case& c, const Backend* backend) {
  Net          net;
  Model&       m = net.model;
  const Tensor x = m.add(Linear{0, c.x.dim[2]}, m.input("x", c.x)), y = m.add_any("op", c.op, &x, 1);
  m.output("images", y);
  REQUIRE(m.finish(Seed{7}) == Status::ok);
  REQUIRE(net.materialise() == Status::ok);
  const size_t row = size_t(c.x.dim[0] * c.x.dim[1] * c.x.dim[2]), rows = size_t(c.batch);
  const std::vector<real> xs = random_values(1, row * rows);
  const std::vector<real> targets = random_values(2, size_t(m.output_shape(0).numel(c.batch)));
  TrainerOptions o;
  o.batch          = c.batch;
  o.loss           = MSELoss{};
  o.optimizer      = SGD{0.001f};
  o.keep_gradients = true;
  o.backend        = backend;
  Trained       t;
  PlacedTrainer trainer(m, o);
  t.status = trainer.status;
  REQUIRE(ok(t.status));
  REQUIRE(trainer.it.step(Batch(xs.data(), targets.data(), c.batch)) == Status::ok);
  t.loss = trainer.it.loss();
  for (int p = 0; p < m.parameter_count(); p++) {
    t.gradients.emplace_back(size_t(m.parameter(p).count));
    REQUIRE(trainer.it.get_gradient(p, t.gradients.back().data()) == Status::ok);
  }
  SessionOptions s;
  s.batch   = c.batch;
  s.backend = backend;
  PlacedSession session(m, s);
  REQUIRE(session.status == Status::ok);
  std::memcpy(session.it.input().data, xs.data(), xs.size() * sizeof(real));
  REQUIRE(session.it.forward(c.batch) == Status::ok);
  const View<const real> v = session.it.output();
  t.outputs.emplace_back(v.data, v.data + v.size());
  return t;
}

// The rows of the device without a bit of fusion.
const Kernel* const* rows_apart(const char* op) {
  const Kernel* const* const rows = cuda_rows()->rows(op);
  const std::string name = op;
  if (name != "Conv2d" && name != "ConvTranspose2d") return rows;
  static Kernel        kernels[2][2];
  static const Kernel* lists[2][3];
  const size_t         i = name == "Conv2d" ? 0 : 1;
  for (size_t k = 0; k < 2; k++) {
    CHECK(rows[k]->fuses != 0);
    kernels[i][k]       = *rows[k];
    kernels[i][k].fuses = 0;
    lists[i][k]         = &kernels[i][k];
  }
  return lists[i];
}

// Two steps, the second one with a row less, and then the outputs of all rows.
Trained train(const Case& c, const Backend* backend) {
  Net          net;
  Model&       m = net.model;
  const Tensor x = m.add(Linear{0, c.x.dim[2]}, m.input("x", c.x));
  Tensor       y = m.add_any("op", c.op, &x, 1);
  if (c.other.op() != nullptr) y = m.add(Add{}, y, m.add_any("other", c.other, &x, 1));
  m.output("classes", m.chain(y, Flatten{}, Linear{0, 5}));
  m.output("images", y);
  REQUIRE(m.finish(Seed{7}) == Status::ok);
  REQUIRE(net.materialise() == Status::ok);

  const size_t row = size_t(c.x.dim[0] * c.x.dim[1] * c.x.dim[2]), rows = size_t(c.batch);
  const std::vector<real>    xs     = random_values(1, row * rows);
  const std::vector<int32_t> labels = random_labels(2, rows, 5);
  TrainerOptions o;
  o.batch          = c.batch;
  o.loss           = CrossEntropyLoss{};
  o.optimizer      = SGD{0.001f};
  o.keep_gradients = true;
  o.backend        = backend;
  Trained       t;
  PlacedTrainer trainer(m, o);
  t.status = trainer.status;
  if (!ok(t.status)) return t;
  const Watch watch = {look_at, const_cast<Backend*>(backend)};
  if (backend != nullptr) trainer.it.watch(&watch);
  for (int n = c.batch; n > 0 && n > c.batch - 2; n--) {
    REQUIRE(trainer.it.step(Batch(xs.data(), labels.data(), n)) == Status::ok);
    t.loss += trainer.it.loss();
    for (int p = 0; p < m.parameter_count(); p++) {
      std::vector<real> values(static_cast<size_t>(m.parameter(p).count));
      REQUIRE(trainer.it.get_gradient(p, values.data()) == Status::ok);
      t.gradients.push_back(values);
      REQUIRE(trainer.it.get(p, values.data()) == Status::ok);
      t.weights.push_back(values);
    }
  }

  SessionOptions s;
  s.batch   = c.batch;
  s.backend = backend;
  PlacedSession session(m, s);
  REQUIRE(session.status == Status::ok);
  std::memcpy(session.it.input().data, xs.data(), xs.size() * sizeof(real));
  REQUIRE(session.it.forward(c.batch) == Status::ok);
  for (int i = 0; i < m.output_count(); i++) {
    const View<const real> v = session.it.output(i);
    t.outputs.emplace_back(v.data, v.data + v.size());
  }
  return t;
}

// The largest difference, as a share of the largest value.
double error_of(const std::vector<std::vector<real>>& a, const std::vector<std::vector<real>>& b) {
  if (a.size() != b.size()) return HUGE_VAL;
  double worst = 0;
  for (size_t k = 0; k < a.size(); k++) {
    double error = 0, size = 0;
    for (size_t i = 0; i < a[k].size(); i++) {
      const double by = std::fabs(double(a[k][i]) - double(b[k][i]));
      error = by >= error ? by : std::isnan(by) ? HUGE_VAL : error;
      size  = std::fmax(size, std::fabs(double(b[k][i])));
    }
    worst = std::fmax(worst, error > 0 ? error / size : 0);
  }
  return worst;
}

void compare(const Case& c, Trained (*run)(const Case&, const Backend*) = train) {
  CAPTURE(std::string(c.name));
  const Trained cpu = run(c, nullptr), gpu = run(c, cuda_backend(0));
  REQUIRE(cpu.status == Status::ok);
  REQUIRE(gpu.status == Status::ok);
  CHECK(std::fabs(gpu.loss - cpu.loss) <= 1e-4f * cpu.loss);
  CHECK(error_of(gpu.outputs, cpu.outputs) <= 1e-4);
  CHECK(error_of(gpu.gradients, cpu.gradients) <= 1e-4);
  CHECK(error_of(gpu.weights, cpu.weights) <= 1e-4);
}

Conv2d depthwise(int channels, Pair kernel, Pair stride, Pair padding) {
  return {channels, channels, kernel, stride, padding, 1, channels};
}

const Case plain_cases[] = {
    {"1x1", {7, 5, 6}, 3, Conv2d{0, 16, 1}},
    {"1x1 to 33", {5, 5, 20}, 3, Conv2d{0, 33, 1}},
    {"1x1 stride 2", {7, 6, 3}, 2, Conv2d{0, 20, 1, 2}},
    {"3x3", {9, 7, 3}, 3, Conv2d{0, 16, 3}},
    {"3x3 padding", {9, 7, 16}, 1, Conv2d{0, 20, 3, 1, 1}},
    {"3x3 33 to 70", {5, 6, 33}, 3, Conv2d{0, 70, 3, 1, 1}},
    {"3x3 one channel", {11, 13, 1}, 3, Conv2d{0, 8, 3, 1, 1}},
    {"3x3 to one channel", {9, 9, 6}, 3, Conv2d{0, 1, 3, 1, 1}},
    {"3x3 three to six", {9, 9, 3}, 2, Conv2d{0, 6, 3, 1, 1}},
    {"3x3 no bias", {9, 7, 6}, 3, Conv2d{0, 33, 3, 1, 1, 1, 1, false}},
    {"5x5", {12, 11, 6}, 3, Conv2d{0, 16, 5}},
    {"5x5 padding", {7, 7, 20}, 1, Conv2d{0, 6, 5, 1, 2}},
    {"3x5 both ways apart", {9, 11, 6}, 2, Conv2d{0, 20, {3, 5}, {2, 1}, {0, 3}, {1, 2}}},
    {"3x3 stride 2", {9, 11, 16}, 3, Conv2d{0, 33, 3, 2, 1}},
    {"3x3 stride 3", {10, 8, 3}, 1, Conv2d{0, 16, 3, 3}},
    {"3x3 dilation 2", {9, 11, 6}, 3, Conv2d{0, 16, 3, 1, 2, 2}},
    {"3x3 stride 2 dilation 2", {11, 10, 16}, 2, Conv2d{0, 16, 3, 2, 1, 2}},
    {"padding beyond the window", {4, 5, 6}, 2, Conv2d{0, 16, 2, 1, 3}},
    {"groups 2", {7, 8, 20}, 3, Conv2d{0, 32, 3, 1, 1, 1, 2}},
    {"groups 2 of fours", {7, 8, 24}, 2, Conv2d{0, 40, 3, 2, 1, 1, 2}},
    {"groups 2 of 33 and 36", {5, 6, 66}, 2, Conv2d{0, 72, 3, 1, 1, 1, 2}},
    {"groups 3 to few", {7, 8, 6}, 3, Conv2d{0, 9, 3, 2, 1, 1, 3}},
};

const Case depthwise_cases[] = {
    {"3x3", {9, 7, 16}, 3, depthwise(16, 3, 1, 1)},
    {"3x3 of 3", {9, 7, 3}, 1, depthwise(3, 3, 1, 1)},
    {"3x3 of 33 stride 2", {9, 8, 33}, 3, depthwise(33, 3, 2, 1)},
    {"5x5 of 20", {8, 9, 20}, 2, depthwise(20, 5, 1, 2)},
    {"no bias, dilation 2", {9, 9, 6}, 2, Conv2d{6, 6, 3, 1, 2, 2, 6, false}},
    {"two outputs a channel", {8, 7, 6}, 3, Conv2d{6, 12, 3, 1, 1, 1, 6}},
};

const Case transposed_cases[] = {
    {"2x2 stride 2", {5, 4, 6}, 3, ConvTranspose2d{0, 16, 2, 2}},
    {"2x3 stride 2, 3", {5, 4, 8}, 3, ConvTranspose2d{0, 5, {2, 3}, {2, 3}}},
    {"3x1 stride 3, 1, of many pixels", {12, 30, 3}, 3, ConvTranspose2d{0, 36, {3, 1}, {3, 1}}},
    {"2x2 stride 2 output_padding 1", {5, 4, 6}, 3, ConvTranspose2d{0, 16, 2, 2, 0, 1}},
    {"3x3 stride 2 output_padding 1", {5, 6, 16}, 3, ConvTranspose2d{0, 20, 3, 2, 1, 1}},
    {"3x3 to 3", {7, 5, 33}, 2, ConvTranspose2d{0, 3, 3, 1, 1}},
    {"3x3 to 70", {5, 5, 3}, 1, ConvTranspose2d{0, 70, 3, 1}},
    {"4x4 stride 3 output_padding 2, no bias", {4, 5, 6}, 2, ConvTranspose2d{0, 33, 4, 3, 2, 2, 1, false}},
    {"groups 2 dilation 2", {5, 6, 20}, 3, ConvTranspose2d{0, 32, 3, 2, 1, 1, 2, true, 2}},
    {"groups of one", {6, 5, 6}, 3, ConvTranspose2d{0, 6, 3, 2, 1, 0, 6}},
};

const Case twice_cases[] = {
    {"3x3 and 1x1", {7, 6, 16}, 3, Conv2d{0, 20, 3, 1, 1}, Conv2d{0, 20, 1}},
    {"3x3 and depthwise", {7, 6, 6}, 2, Conv2d{0, 6, 3, 1, 1}, depthwise(6, 3, 1, 1)},
    {"transposed and not", {6, 6, 20}, 2, ConvTranspose2d{0, 16, 3, 1, 1}, Conv2d{0, 16, 3, 1, 1}},
};

// Of so many pixels that dw comes of chunks, and of the first one db of columns of the image.
const Case large_cases[] = {
    {"3x3 6 to 16", {42, 43, 6}, 3, Conv2d{0, 16, 3, 1, 1}},
    {"3x3 16 to 24", {24, 25, 16}, 2, Conv2d{0, 24, 3, 1, 1}},
    {"3x3 3 to 33", {24, 25, 3}, 2, Conv2d{0, 33, 3, 1, 1}},
    {"1x1 groups 2 to 80", {32, 33, 4}, 2, Conv2d{0, 80, 1, 1, 0, 1, 2}},
    {"3x3 to 5", {22, 23, 6}, 3, Conv2d{0, 5, 3}},
    {"depthwise", {21, 20, 20}, 3, depthwise(20, 3, 1, 1)},
    {"transposed", {12, 13, 6}, 3, ConvTranspose2d{0, 20, 3, 2, 1, 1}},
};

// Forward and dx in tiles of 128 and 64 rows by 16, 32 and 64 columns, with channels in fours and without.
const Case image_cases[] = {
    {"128 x 16, both", {130, 130, 16}, 2, Conv2d{0, 16, 1}},
    {"128 x 16, 3x3", {130, 130, 4}, 2, Conv2d{0, 12, 3, 1, 1}},
    {"128 x 32, both", {130, 130, 32}, 2, Conv2d{0, 32, 1}},
    {"128 x 64", {130, 130, 4}, 2, Conv2d{0, 64, 1}},
    {"128 x 64 in dx", {130, 130, 64}, 2, Conv2d{0, 4, 1}},
    {"64 x 32, both", {92, 92, 32}, 2, Conv2d{0, 32, 1}},
    {"64 x 64", {92, 92, 4}, 2, Conv2d{0, 60, 1}},
    {"64 x 64 in dx", {92, 92, 60}, 2, Conv2d{0, 4, 1}},
    {"64 x 32 not of fours", {92, 92, 3}, 2, Conv2d{0, 31, 1}},
    {"64 x 32 not of fours in dx", {92, 92, 31}, 2, Conv2d{0, 3, 1}},
    {"64 x 64 not of fours", {92, 92, 3}, 2, Conv2d{0, 63, 1}},
    {"64 x 64 not of fours in dx", {92, 92, 63}, 2, Conv2d{0, 3, 1}},
    {"128 x 16, from one to one", {200, 200, 1}, 1, Conv2d{0, 1, 1}},
    {"stride 2", {130, 130, 8}, 2, Conv2d{0, 8, 3, 2, 1}},
    {"transposed", {65, 65, 32}, 2, ConvTranspose2d{0, 16, 2, 2}},
};

// x -> conv -> ReLU -> conv -> ReLU -> transposed -> ReLU -> depthwise -> ReLU -> Linear, both ways.
std::vector<real> weights_after(const Backend* backend) {
  Net    net;
  Model& m = net.model;
  m.output("y", m.chain(m.input("x", {9, 8, 3}), Conv2d{0, 20, 3, 1, 1}, ReLU{}, Conv2d{0, 7, 3, 2, 1}, ReLU{},
                        ConvTranspose2d{0, 6, 2, 2}, ReLU{}, depthwise(6, 3, 1, 1), ReLU{}, Flatten{},
                        Linear{0, 5}));
  REQUIRE(m.finish(Seed{7}) == Status::ok);
  REQUIRE(net.materialise() == Status::ok);
  const std::vector<real>    xs     = random_values(1, 3 * 9 * 8 * 3);
  const std::vector<int32_t> labels = random_labels(2, 3, 5);
  TrainerOptions o;
  o.batch     = 3;
  o.loss      = CrossEntropyLoss{};
  o.optimizer = SGD{0.1f};
  o.backend   = backend;
  PlacedTrainer trainer(m, o);
  REQUIRE(trainer.status == Status::ok);
  std::vector<real> all;
  for (int i = 0; i < 3; i++) REQUIRE(trainer.it.step(Batch(xs.data(), labels.data(), 3)) == Status::ok);
  for (int p = 0; p < m.parameter_count(); p++) {
    std::vector<real> values(size_t(m.parameter(p).count));
    REQUIRE(trainer.it.get(p, values.data()) == Status::ok);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace

TEST_CASE("convolution: Conv2d of every kind is that of the CPU") {
  if (!on_cuda()) return;
  for (const Case& c : plain_cases) compare(c);
}
TEST_CASE("convolution: depthwise is that of the CPU") {
  if (!on_cuda()) return;
  for (const Case& c : depthwise_cases) compare(c);
}
TEST_CASE("convolution: ConvTranspose2d is that of the CPU") {
  if (!on_cuda()) return;
  for (const Case& c : transposed_cases) compare(c);
}
TEST_CASE("convolution: two of one input add to its gradient") {
  if (!on_cuda()) return;
  for (const Case& c : twice_cases) compare(c);
}
TEST_CASE("convolution: gradients of many pixels, by chunks, are those of the CPU") {
  if (!on_cuda()) return;
  for (const Case& c : large_cases) compare(c);
}
TEST_CASE("convolution: images of many pixels, by every kind of tile, are those of the CPU") {
  if (!on_cuda()) return;
  for (const Case& c : image_cases) compare(c, train_images);
}
TEST_CASE("convolution: the ReLUs around are done with fewer launches, and the same bits") {
  if (!on_cuda()) return;
  Backend apart = *cuda_backend(0);
  apart.rows    = rows_apart;
  const auto counted = [](const Backend* backend, long& launches) {
    const long before = launches_so_far();
    const std::vector<real> all = weights_after(backend);
    launches = launches_so_far() - before;
    return all;
  };
  long fused = 0, unfused = 0;
  const std::vector<real> one = counted(cuda_backend(0), fused), other = counted(&apart, unfused);
  CHECK(same_bytes(one, other));
  if (launches_so_far() > 0)                   // of three steps; the last ReLU's reader is no convolution
    CHECK(unfused - fused == 3 * (4 + 3));
}
#ifdef NNLITE_FAKE_CUDA
TEST_CASE("convolution: the same bits in every order of threads and blocks") {
  if (!on_cuda()) return;
  for (const Case& c : {plain_cases[5], plain_cases[20], large_cases[0], large_cases[1], large_cases[4],
                        transposed_cases[1]}) {
    CAPTURE(std::string(c.name));
    fake::set_order(fake::Order::all);
    train(c, cuda_backend(0));
    fake::set_order(fake::Order::forward);
    CHECK(fake::findings().empty());
  }
}
#endif
TEST_CASE("convolution: the same bits in every run") {
  if (!on_cuda()) return;
  for (const Case& c : {large_cases[2], large_cases[4], large_cases[5]}) {
    CAPTURE(std::string(c.name));
    const Trained a = train(c, cuda_backend(0)), b = train(c, cuda_backend(0));
    for (size_t k = 0; k < a.weights.size(); k++) CHECK(same_bytes(a.weights[k], b.weights[k]));
  }
}
TEST_CASE("convolution: a window beyond 32 bits is refused, by name") {
  if (!on_cuda()) return;
  const Case c = {"far", {3, 3, 1}, 1, Conv2d{0, 1, 2, 1, 1 << 29, 1 << 30}};
  CHECK(train(c, cuda_backend(0)).status == Status::unsupported);
}
