// A Linear of many products of rounded factors, which are the library's: cuBLASLt, or device.cpp of the fake.
#include "cuda_run.hpp"
#ifdef NNLITE_FAKE_CUDA
#include "fake_cuda.hpp"
#endif

namespace {

struct Kind {
  Precision precision;
  int    bits;                                 // of the values
  double tolerance;
  bool   bias, more;                           // as Linear's; dx +=
};
// On a GPU the library may cut factors off where we round them, and take tf32 for bf16: a product then is
// some 2^-11 less on average, or 2^-10 off. Values that tf32 or bf16 have leave but the order of sums.
const Kind kinds[] = {
    {Precision::tf32, 24, 2e-3, true, true},
    {Precision::tf32, 11, 1e-4, true, false},
    {Precision::bf16, 24, 3e-3, false, false},
    {Precision::bf16, 8, 1e-4, false, true},
};

struct Size { int rows, in, out; };
#ifdef NNLITE_FAKE_CUDA
constexpr double most = 1e-4;                  // of any tolerance
const Size sizes[] = {{5, 48, 32}, {1, 16, 64}, {37, 16, 16}, {2, 80, 16}};
struct Few {                                   // are many, while this lives
  Few() { fake::set_many_products(256); }
  ~Few() {
    fake::reset();
    for (const std::string& found : fake::findings()) CHECK_MESSAGE(false, found);
  }
};
#else
constexpr double most = 1;
const Size sizes[] = {{513, 1024, 512}, {4097, 16, 4096}};
struct Few { Few() {} };
#endif

std::vector<float> values_of(uint64_t seed, size_t count, int bits) {
  std::vector<float> values = random_values(seed, count);
  for (float& v : values) {
    uint32_t word = 0;
    std::memcpy(&word, &v, sizeof word);
    word &= ~uint32_t(0) << (24 - bits);
    std::memcpy(&v, &word, sizeof word);
  }
  return values;
}
Array rounded(const std::vector<float>& values, Precision p) {
  const int bits = p == Precision::tf32 ? 11 : 8;
  Array all;
  for (const float v : values) {
    int e = 0;
    const double m = std::frexp(double(v), &e);
    all.push_back(std::ldexp(std::nearbyint(std::ldexp(m, bits)), e - bits));
  }
  return all;
}
Array transposed(const Array& a, int lines, int columns) {
  Array t(a.size());
  for (size_t i = 0; i < a.size(); i++) t[i % size_t(columns) * size_t(lines) + i / size_t(columns)] = a[i];
  return t;
}
// a [M, K] b [K, N]
Array product(const Array& a, const Array& b, int M, int N, int K) {
  Array c(size_t(M) * size_t(N), 0.0);
  for (int m = 0; m < M; m++)
    for (int k = 0; k < K; k++) {
      const double factor = a[size_t(m) * size_t(K) + size_t(k)];
      double* const       to = c.data() + size_t(m) * size_t(N);
      const double* const of = b.data() + size_t(k) * size_t(N);
      for (int n = 0; n < N; n++) to[n] += factor * of[n];
    }
  return c;
}

// A Linear's rows of a backend, on memory of their own, launched without the engine.
struct OnDevice {
  const Backend& on;
  Linear         a;
  Shape          x_shape, y_shape;
  int            rows;
  Guarded        memory;
  size_t         used = 0;
  void*          device = nullptr;
  OpRun          run = OpRun();

  OnDevice(const Backend& backend, const Size& s, bool bias)
      : on(backend), a{s.in, s.out, bias}, rows(s.rows) {
    x_shape.rank = y_shape.rank = 2;
    x_shape.dim[0] = y_shape.dim[0] = Shape::batch_dim;
    x_shape.dim[1] = s.in, y_shape.dim[1] = s.out;
    const size_t I = size_t(s.in), O = size_t(s.out), N = size_t(s.rows);
    memory = Guarded((N * I * 2 + N * O * 2 + I * O * 2 + O * 2) * sizeof(float) + (size_t(1) << 24));
    REQUIRE(on.mirror(on.user, memory.data(), memory.size(), &device) == Status::ok);
    run.attributes = &a, run.in_shapes[0] = &x_shape, run.out_shape_ = &y_shape;
    run.rows = rows, run.workers = 1, run.n_in = 1, run.n_parameters = bias ? 2 : 1, run.training = true;
  }
  // Room on the device, with such values or as it is.
  void* place(size_t count, const std::vector<float>& values = {}) {
    unsigned char* const to = static_cast<unsigned char*>(device) + used;
    used += (count * sizeof(float) + 63) / 64 * 64;
    REQUIRE(used <= memory.size());
    std::vector<float> all(count, NAN);
    if (!values.empty()) all = values;
    REQUIRE(on.copy(on.user, to, all.data(), count * sizeof(float), Copy::to_device) == Status::ok);
    return to;
  }
  std::vector<float> at(void* from, size_t count) const {
    std::vector<float> values(count);
    REQUIRE(on.copy(on.user, from, values.data(), count * sizeof(float), Copy::from_device) == Status::ok);
    return values;
  }
  // The first row that accepts; its place in the list.
  int accepted(Phase phase, KernelPlan& plan) const {
    const Kernel* const* const list = on.rows("Linear");
    for (int i = 0; list[i] != nullptr; i++) {
      plan = KernelPlan();
      if (list[i]->phase == phase && list[i]->plan(run, plan)) return i;
    }
    return -1;
  }
  int go(Phase phase) {
    KernelPlan plan;
    const int chosen = accepted(phase, plan);
    REQUIRE(chosen >= 0);
    run.scratch = static_cast<unsigned char*>(place(plan.scratch_shared / sizeof(float) + 1));
    const uint32_t key[3] = {0, 1, 0};
    alignas(16) static const unsigned char zeros[256] = {};    // a context: nothing of it is looked at
    REQUIRE(on.begin(on.user, device, key, *reinterpret_cast<const StepContext*>(zeros)));
    on.rows("Linear")[chosen]->run[0](run, 0, 0, 0, 0);
    on.end(on.user);
    return chosen;
  }
};

using Results = std::map<std::string, std::vector<float>>;
struct Values { std::vector<float> x, w, b, dy, before; };
Results results(const Backend& on, const Size& s, const Kind& kind, const Values& v) {
  OnDevice   r(on, s, kind.bias);
  OpRun& run = r.run;
  run.in_[0] = r.place(v.x.size(), v.x);
  run.out_   = r.place(v.dy.size());
  run.parameter_[0] = r.place(v.w.size(), v.w);
  if (kind.bias) run.parameter_[1] = r.place(v.b.size(), v.b);
  CHECK(r.go(Phase::forward) == 0);            // the library's
  run.dy_    = r.place(v.dy.size(), v.dy);
  run.dx_[0] = r.place(v.x.size(), kind.more ? v.before : std::vector<float>());
  run.accumulate_bits = kind.more ? 1 : 0;
  run.dparameter_[0]  = r.place(v.w.size());
  if (kind.bias) run.dparameter_[1] = r.place(v.b.size());
  CHECK(r.go(Phase::backward) == 1);
  Results all;
  all["y"]  = r.at(run.out_, v.dy.size());
  all["dx"] = r.at(run.dx_[0], v.x.size());
  all["dw"] = r.at(run.dparameter_[0], v.w.size());
  if (kind.bias) all["db"] = r.at(run.dparameter_[1], v.b.size());
  return all;
}

// The worst error.
double compare(const Size& s, const Kind& kind) {
  CAPTURE(s.rows);
  CAPTURE(s.in);
  CAPTURE(s.out);
  CAPTURE(kind.bits);
  close_cuda(0);                               // with the memory of the one before
  const Backend* const on = cuda_backend(0, kind.precision);
  REQUIRE(on != nullptr);
  const size_t I = size_t(s.in), O = size_t(s.out), N = size_t(s.rows);
  const auto   some = [&](uint64_t seed, size_t count) { return values_of(seed, count, kind.bits); };
  const Values v = {some(1, N * I), some(2, I * O), some(3, O), some(4, N * O), some(5, N * I)};
  const Results one = results(*on, s, kind, v);
  CHECK((results(*on, s, kind, v) == one));

  const Precision p = kind.precision;
  const Array x = rounded(v.x, p), w = rounded(v.w, p), dy = rounded(v.dy, p);
  Arrays right;
  right["y"]  = product(x, w, s.rows, s.out, s.in);
  right["dx"] = product(dy, transposed(w, s.in, s.out), s.rows, s.in, s.out);
  right["dw"] = product(transposed(x, s.rows, s.in), dy, s.in, s.out, s.rows);
  Array& y = right["y"];
  for (size_t i = 0; i < y.size(); i++) {
    if (kind.bias) y[i] += double(v.b[i % O]);
  }
  for (size_t i = 0; i < v.x.size() && kind.more; i++) right["dx"][i] += double(v.before[i]);
  if (kind.bias) {
    right["db"] = Array(O, 0.0);
    for (size_t i = 0; i < v.dy.size(); i++) right["db"][i % O] += double(v.dy[i]);
  }
  double worst = 0;
  for (const auto& [name, values] : right) {
    const double e = error_of(as_doubles(one.at(name)), values);
    CHECK_MESSAGE(e <= std::min(most, name == "db" ? 1e-5 : kind.tolerance), name << ": " << e);
    worst = std::max(worst, e);
  }
  return worst;
}

// Two large layers and a small one, with ReLU between them.
std::unique_ptr<Subject> large_mlp() {
  auto s = std::make_unique<Subject>();
#ifdef NNLITE_FAKE_CUDA
  const int wide = 32, rows = 16;
#else
  const int wide = 1024, rows = 256;
#endif
  Model& m = s->net.model;
  const Tensor h = m.chain(m.input("x", {wide}), Linear{0, wide}, ReLU{}, Linear{0, wide}, ReLU{});
  m.output("y", m.add(Linear{0, 10}, h));
  s->loss = CrossEntropyLoss{};
  s->optimizer = SGD{0.01f, 0.9f};
  s->rows = rows;
  REQUIRE(s->finish() == Status::ok);
  s->fill(3 * rows - 3, 10);                   // of an epoch the last batch is smaller
  return s;
}
struct Training {
  Array losses;
  std::vector<real> parameters;
  Training(const Subject& s, const Backend* on) {
    const Dataset data = s.data();
    PlacedTrainer t(s.net.model, s.training(on));
    REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
    REQUIRE(t.it.set_data(data) == Status::ok);
    for (int i = 0; i < 7; i++) {
      REQUIRE_MESSAGE(t.it.step() == Status::ok, t.problem());
      losses.push_back(double(t.it.loss()));
    }
    REQUIRE(t.it.steps(5) == Status::ok);
    losses.push_back(double(t.it.loss()));
    parameters = all_parameters(s.net.model, t.it);
  }
};

}  // namespace

TEST_CASE("cuda: a large Linear of tf32 and bf16 has products of rounded factors, the same in every run") {
  NNLITE_ON_CUDA(cuda);
  const Few few;
  for (const Kind& kind : kinds) {
    double worst = 0;
    for (const Size& s : sizes) worst = std::max(worst, compare(s, kind));
    const std::string name = kind.precision == Precision::tf32 ? "tf32" : "bf16";
    MESSAGE(name << ", values of " << kind.bits << " bits: " << worst);
  }
#ifdef NNLITE_FAKE_CUDA
  fake::reset();
  (void)compare({513, 1024, 512}, kinds[0]);   // just above what is large on a GPU
#endif
  KernelPlan plan;
  const Size first = sizes[0];
  const OnDevice exact(*cuda, first, true);
  const int  place = exact.accepted(Phase::forward, plan);
  REQUIRE(place >= 0);
  for (const Precision p : {Precision::tf32, Precision::bf16}) {
    const Backend* const on = cuda_backend(0, p);
    CHECK(on->rows("Linear")[0] != exact.on.rows("Linear")[place]);            // not the library's
    const OnDevice small(*on, {1, 16, 16}, true), odd(*on, {first.rows, first.in + 8, first.out}, true);
    for (const Phase phase : {Phase::forward, Phase::backward}) {
#ifndef NNLITE_FAKE_CUDA
      CHECK(small.accepted(phase, plan) > 1);
#endif
      CHECK(odd.accepted(phase, plan) > 1);
    }
  }
}

TEST_CASE("cuda: what is no number stays so in large products") {
  NNLITE_ON_CUDA(cuda);
  const Few  few;
  const Size s = sizes[0];
  const size_t I = size_t(s.in), O = size_t(s.out), N = size_t(s.rows);
  for (const Precision p : {Precision::tf32, Precision::bf16})
    for (const bool bias : {false, true}) {
      CAPTURE(bias);
      Values v = {values_of(1, N * I, 8), values_of(2, I * O, 8), values_of(3, O, 8),
                  values_of(4, N * O, 8), {}};
      const size_t row = N / 2;
      v.x[row * I + 3] = NAN;
      const Results all = results(*cuda_backend(0, p), s, {p, 8, 0, bias, false}, v);
      size_t wrong = 0;
      for (size_t i = 0; i < N * O; i++) wrong += std::isnan(all.at("y")[i]) != (i / O == row);
      CHECK(wrong == 0);
      for (size_t i = 0; i < I * O; i++) wrong += std::isnan(all.at("dw")[i]) != (i / O == 3);
      CHECK(wrong == 0);
    }
}

TEST_CASE("cuda: networks of large layers train in tf32 and bf16 as in fp32, the same in every run") {
  NNLITE_ON_CUDA(cuda);
  const Few  few;
  const auto s = large_mlp();
  const Training exact(*s, cuda);
#ifdef NNLITE_FAKE_CUDA
  const long none = fake::matmuls();
#endif
  for (const Precision p : {Precision::tf32, Precision::bf16}) {
    const Training one(*s, cuda_backend(0, p)), other(*s, cuda_backend(0, p));
    CHECK(same_bytes(one.losses, other.losses));
    CHECK(same_bytes(one.parameters, other.parameters));
    CHECK_FALSE(same_bytes(one.losses, exact.losses));
    for (size_t i = 0; i < exact.losses.size(); i++)
      CHECK(std::fabs(one.losses[i] - exact.losses[i]) <= 1e-2);
  }
#ifdef NNLITE_FAKE_CUDA
  CHECK(fake::matmuls() - none == 4 * 12 * 5);               // forward 2, dw 2, dx 1, of 12 steps
#endif
}
