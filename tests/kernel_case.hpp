#ifndef NNLITE_TESTS_KERNEL_CASE_HPP
#define NNLITE_TESTS_KERNEL_CASE_HPP
// One call of an op on random data, through its plain loops or through its kernel rows: for tests of inner
// functions.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "nnlite.hpp"

namespace kernel_case {
using namespace nnlite;

// Memory of exactly n values, aligned like an arena, so that a sanitizer sees every access behind its end.
class Values {
 public:
  explicit Values(int64_t n = 0) : size(n), memory_(static_cast<size_t>(n) * sizeof(real) + 64) { clear(); }
  real* data() {
    const uintptr_t end = reinterpret_cast<uintptr_t>(memory_.data() + memory_.size());
    const uintptr_t first = end - static_cast<size_t>(size) * sizeof(real);
    return reinterpret_cast<real*>(first & ~uintptr_t(sizeof(real) - 1));
  }
  void clear() { std::fill(memory_.begin(), memory_.end(), static_cast<unsigned char>(0)); }
  void randomise(uint32_t seed) {
    for (int64_t i = 0; i < size; i++) {
      seed = seed * 1664525u + 1013904223u;
      data()[i] = static_cast<real>(seed >> 8) * real(0x1p-23) - real(1);
    }
  }
  bool same_bits(Values& o) {
    return size == o.size && std::memcmp(data(), o.data(), static_cast<size_t>(size) * sizeof(real)) == 0;
  }
  int64_t size;

 private:
  std::vector<unsigned char> memory_;
};

struct Call {
  AnyOp   layer;
  OpShape shape;
  OpRun   run = {};
  Values  x, y, dy, dx, scratch, derived = Values(1), parameter[max_parameters], dparameter[max_parameters];

  Call(const AnyOp& op, const Shape& in, int rows, uint32_t seed = 1, bool derive = true) : layer(op) {
    shape.n_in = 1;
    shape.in[0] = in;
    shape.in_dtype[0] = real_dtype;
    REQUIRE(layer.op()->shape(layer.attributes(), shape) == Status::ok);
    x = Values(in.numel(rows)), y = Values(shape.out.numel(rows)), dy = y, dx = x;
    x.randomise(seed), dy.randomise(seed + 1);
    run.attributes = layer.attributes();
    run.in_shapes[0] = &shape.in[0];
    run.out_shape_ = &shape.out;
    run.n_in = 1;
    run.n_parameters = static_cast<uint8_t>(shape.n_parameters);
    run.rows = rows;
    run.workers = 1;
    run.derived = derive ? reinterpret_cast<unsigned char*>(derived.data()) : nullptr;
    run.training = true;
    for (int p = shape.n_parameters; p < max_parameters; p++) run.parameter_[p] = run.dparameter_[p] = this;
    for (int p = 0; p < shape.n_parameters; p++) fill_parameter(p, seed + 2 + static_cast<uint32_t>(p));
  }
  Call(const Call&) = delete;

  void fill_parameter(int p, uint32_t seed) {
    const ParameterSpec& s = shape.parameters[p];
    dparameter[p] = parameter[p] = Values(parameter_stored(s));
    int64_t d[4] = {1, 1, 1, 1};
    for (int i = 0; i < s.shape.rank; i++) d[i] = s.shape.dim[i];
    for (int64_t a = 0; a < d[0]; a++)
      for (int64_t b = 0; b < d[1]; b++)
        for (int64_t h = 0; h < d[2]; h++)
          for (int64_t w = 0; w < d[3]; w++) {
            seed = seed * 1664525u + 1013904223u;
            real& to = parameter[p].data()[parameter_index(s, a, b, h, w)];
            to = static_cast<real>(seed >> 8) * real(0x1p-23) - real(1);
          }
  }

  // Points the run at the data; gradients start from junk, or dx from a pattern where it is added to.
  void bind(bool accumulate, bool want_dx, bool want_dw) {
    run.in_[0] = x.data(), run.out_ = y.data(), run.dy_ = dy.data();
    dx.randomise(99);
    run.accumulate_bits = accumulate ? 1u : 0u;
    run.dx_[0] = want_dx ? dx.data() : nullptr;
    for (int p = 0; p < shape.n_parameters; p++) {
      run.parameter_[p] = parameter[p].data();
      run.dparameter_[p] = want_dw ? dparameter[p].data() : nullptr;
      dparameter[p].randomise(98);
    }
  }

  void plain(bool accumulate) {
    y.randomise(97);
    bind(accumulate, true, true);
    layer.op()->forward(layer.attributes(), run);
    layer.op()->backward(layer.attributes(), run);
  }

  const Kernel* row(Phase phase, KernelPlan& plan) const {
    for (const Kernel* const* k = layer.op()->kernels; k != nullptr && *k != nullptr; k++) {
      plan = KernelPlan{};
      if ((*k)->phase == phase && (*k)->plan(run, plan)) return *k;
    }
    return nullptr;
  }

  // The tasks of a row dealt to `workers` one after another, as a pool would deal them.
  bool kernel(Phase phase, int workers) {
    run.workers = static_cast<int16_t>(workers);
    KernelPlan plan;
    const Kernel* k = row(phase, plan);
    if (k == nullptr) return false;
    const size_t bytes = plan.scratch_per_worker * static_cast<size_t>(workers) + plan.scratch_shared;
    scratch = Values(static_cast<int64_t>(bytes / sizeof(real)));
    scratch.randomise(96);
    run.scratch = reinterpret_cast<unsigned char*>(scratch.data());
    if (plan.derived > 0) {
      derived = Values(static_cast<int64_t>(plan.derived / sizeof(real)));
      derived.randomise(95);
      run.derived = reinterpret_cast<unsigned char*>(derived.data());
    }
    for (uint32_t stage = 0; stage < plan.stages; stage++) {
      const uint64_t n = plan.tasks[stage], w = static_cast<uint64_t>(workers);
      for (uint64_t i = w; i-- > 0;) {
        const auto first = static_cast<uint32_t>(n * i / w), last = static_cast<uint32_t>(n * (i + 1) / w);
        const auto run_tasks = k->run[static_cast<int>(current_isa())];
        if (first < last) run_tasks(run, stage, first, last, static_cast<uint32_t>(i));
      }
    }
    return true;
  }

  bool kernels(int workers, bool accumulate) {
    y.randomise(97);
    bind(accumulate, true, true);
    const bool all = kernel(Phase::forward, workers) && kernel(Phase::grad_input, workers);
    return kernel(Phase::grad_parameter, workers) && all;
  }
};

// The largest difference in units of the largest value.
inline double difference(Values& a, Values& b) {
  double most = 0, largest = 0;
  for (int64_t i = 0; i < a.size; i++) {
    const double x = double(a.data()[i]), y = double(b.data()[i]);
    largest = std::max(largest, std::fabs(y));
    most = x - y == x - y ? std::max(most, std::fabs(x - y)) : 1e30;
  }
  return most / std::max(largest, 1e-30);
}

// Every instruction set of a class and every number of workers give the same bits, close to the plain loops.
inline void check_rows(const AnyOp& op, const Shape& in, int rows, bool accumulate = false,
                       bool derive = true) {
  const Isa before = current_isa();
  Call want(op, in, rows);
  want.plain(accumulate);
  for (bool fused : {true, false}) {
    std::unique_ptr<Call> first;
    for (int isa = 0; isa < isa_count; isa++) {
      if ((Isa(isa) != Isa::base) != fused || !set_isa(Isa(isa))) continue;
      for (int workers : {1, 2, 3, 7}) {
        auto got = std::make_unique<Call>(op, in, rows, 1, derive);
        CAPTURE(std::string(isa_name(Isa(isa))));
        CAPTURE(workers);
        REQUIRE(got->kernels(workers, accumulate));
        CHECK(difference(got->y, want.y) < 1e-5);
        CHECK(difference(got->dx, want.dx) < 1e-5);
        for (int p = 0; p < want.shape.n_parameters; p++)
          CHECK(difference(got->dparameter[p], want.dparameter[p]) < 1e-5);
        if (!first) { first = std::move(got); continue; }
        CHECK(got->y.same_bits(first->y));
        CHECK(got->dx.same_bits(first->dx));
        for (int p = 0; p < want.shape.n_parameters; p++)
          CHECK(got->dparameter[p].same_bits(first->dparameter[p]));
      }
    }
  }
  set_isa(before);
}

inline Shape batch_of(std::initializer_list<int32_t> dims) {
  Shape s;
  s.dim[s.rank++] = Shape::batch_dim;
  for (int32_t d : dims) s.dim[s.rank++] = d;
  return s;
}
}  // namespace kernel_case
#endif
