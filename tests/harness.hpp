// Runs one op with an OpRun filled by hand: buffers of exactly the size that shape() says, so that ASan sees
// an over-read. Included after the implementation, once for the float engine and once for the double one.
#ifndef NNLITE_TESTS_HARNESS_HPP
#define NNLITE_TESTS_HARNESS_HPP

#include <cstdlib>
#include <memory>

#include "cases.hpp"
#include "support.hpp"

namespace {

// 64-byte-aligned memory of exactly this many bytes, filled with bytes that are not a number.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    if (bytes_ == 0) return;
    void* p = nullptr;
    if (posix_memalign(&p, 64, bytes_) != 0) std::abort();
    memory_.reset(static_cast<unsigned char*>(p));
    std::memset(p, 0xFF, bytes_);
  }
  template <class T>
  T* as() const { return reinterpret_cast<T*>(memory_.get()); }
  void set(int64_t i, double v, DType type) const {
    if (type == DType::i32) as<int32_t>()[i] = static_cast<int32_t>(v);
    else as<real>()[i] = static_cast<real>(v);
  }
  explicit operator bool() const { return memory_ != nullptr; }
  std::vector<unsigned char> bytes() const { return {as<unsigned char>(), as<unsigned char>() + bytes_}; }

 private:
  struct Free { void operator()(unsigned char* p) const { std::free(p); } };
  std::unique_ptr<unsigned char, Free> memory_;
  size_t bytes_ = 0;
};

// Calls f(logical place, stored place) for every element of a parameter.
template <class F>
void each_element(const ParameterSpec& p, F f) {
  int64_t d[4] = {1, 1, 1, 1}, at = 0;
  for (int i = 0; i < p.shape.rank; i++) d[i] = p.shape.dim[i];
  for (int64_t a = 0; a < d[0]; a++)
    for (int64_t b = 0; b < d[1]; b++)
      for (int64_t h = 0; h < d[2]; h++)
        for (int64_t w = 0; w < d[3]; w++) f(at++, parameter_index(p, a, b, h, w));
}

class Bench {
 public:
  Bench(const Case& c, const Way& way) : op_(c.op), way_(way), rows_(c.rows) {
    shape_.n_in = c.n_in();
    for (int i = 0; i < shape_.n_in; i++) {
      shape_.in[i].rank   = c.in[i].rank + 1;
      shape_.in[i].dim[0] = Shape::batch_dim;
      for (int d = 0; d < c.in[i].rank; d++) shape_.in[i].dim[d + 1] = c.in[i].dim[d];
      shape_.in_dtype[i] = real_dtype;
    }
    if ((op_.op()->traits & traits::loss) != 0) shape_.n_in++;
    status = op_.op()->shape(op_.attributes(), shape_);
    context.seed = 0x0123456789ABCDEF;
    context.step = 5;
    run_.context = &context;
    run_.attributes = op_.attributes();
    run_.rows     = rows_;
    run_.workers  = static_cast<int16_t>(way.workers);
    run_.n_in     = static_cast<uint8_t>(shape_.n_in);
    run_.training = c.training;
    run_.node     = 3;
    run_.derived  = &allowed_;
  }

  // Memory, filled from the given arrays.
  void prepare(const Arrays& given) {
    for (int i = 0; i < shape_.n_in; i++) {
      const int64_t n = shape_.in[i].numel(rows_);
      in_[i] = Buffer(n * int64_t(size_of(shape_.in_dtype[i])));
      fill(in_[i], given, "x" + std::to_string(i), n, shape_.in_dtype[i]);
      run_.in_shapes[i] = &shape_.in[i];
      run_.in_[i] = in_[i].as<void>();
    }
    const int64_t n_out = shape_.out.numel(rows_);
    out_ = Buffer(n_out * int64_t(sizeof(real)));
    run_.out_shape_ = &shape_.out;
    run_.out_ = out_.as<void>();
    run_.n_parameters = static_cast<uint8_t>(shape_.n_parameters);
    for (int p = 0; p < shape_.n_parameters; p++) {
      const ParameterSpec& spec = shape_.parameters[p];
      parameter_[p] = Buffer(parameter_stored(spec) * int64_t(sizeof(real)));
      for (int64_t i = 0; i < parameter_stored(spec); i++) parameter_[p].set(i, 0, real_dtype);
      const Array& values = given.at("p" + std::to_string(p));
      each_element(spec, [&](int64_t logical, int64_t stored) {
        parameter_[p].set(stored, values[static_cast<size_t>(logical)], real_dtype);
      });
      run_.parameter_[p] = parameter_[p].as<void>();
    }
    for (int s = 0; s < shape_.n_slots; s++) {
      const SlotSpec& spec = shape_.slots[s];
      slot_[s] = Buffer(spec.count * (spec.per_row ? rows_ : 1) * int64_t(size_of(spec.dtype)));
      run_.slot_[s] = slot_[s].as<void>();
    }
  }

  void forward(Outcome& o) {
    const auto before = inputs();
    phase(Phase::forward, o, [&] { op_.op()->forward(op_.attributes(), run_); });
    if (inputs() != before) o.broken += "forward changed an input; ";
    o.arrays["y"] = values(out_, shape_.out.numel(rows_));
  }

  // The planner keeps only what the shape function says that backward reads, so what it does not name is
  // hidden here.
  void backward(Outcome& o, const Arrays& given) {
    const bool loss = (op_.op()->traits & traits::loss) != 0;
    Buffer dy;
    if (!loss) {
      dy = Buffer(shape_.out.numel(rows_) * int64_t(sizeof(real)));
      fill(dy, given, "dy", shape_.out.numel(rows_), real_dtype);
    }
    run_.dy_ = dy.as<void>();
    if (!want_gradients()) return;
    const bool weights = way_.parameters && shape_.n_parameters > 0, inputs_wanted = way_.inputs;
    const uint32_t reads = (inputs_wanted ? shape_.dx_reads_in : 0) | (weights ? shape_.dw_reads_in : 0);
    for (int i = 0; i < shape_.n_in; i++) if ((reads >> i & 1u) == 0) run_.in_[i] = nullptr;
    if (!((inputs_wanted && shape_.dx_reads_out) || (weights && shape_.dw_reads_out))) run_.out_ = nullptr;
    whole_backward(o);
    collect_gradients(o);
    for (int i = 0; i < shape_.n_in; i++) run_.in_[i] = in_[i].as<void>();
    run_.out_ = out_.as<void>();
  }

  void commit(Outcome& o) {
    if (op_.op()->commit == nullptr || !run_.training) return;
    op_.op()->commit(op_.attributes(), run_);
    for (int p = 0; p < shape_.n_parameters; p++) {
      if (shape_.parameters[p].role == Role::statistic)
        o.arrays["c" + std::to_string(p)] = logical(parameter_[p], p, o);
    }
  }

  Array parameter(int p) const {
    Outcome o;
    return logical(parameter_[p], p, o);
  }

  Status      status;
  StepContext context;

 private:
  void fill(const Buffer& to, const Arrays& given, const std::string& name, int64_t n, DType type) {
    const Array& from = given.at(name);
    if (int64_t(from.size()) != n) std::abort();
    for (int64_t i = 0; i < n; i++) to.set(i, from[static_cast<size_t>(i)], type);
  }
  static Array values(const Buffer& b, int64_t n) { return Array(b.as<real>(), b.as<real>() + n); }
  std::vector<unsigned char> inputs() const {
    std::vector<unsigned char> all;
    for (int i = 0; i < shape_.n_in; i++) {
      const auto bytes = in_[i].bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }
  Array logical(const Buffer& b, int p, Outcome& o) const {
    const ParameterSpec& spec = shape_.parameters[p];
    Array values(static_cast<size_t>(spec.shape.row_numel()));
    std::vector<bool> padding(static_cast<size_t>(parameter_stored(spec)), true);
    each_element(spec, [&](int64_t at, int64_t stored) {
      values[static_cast<size_t>(at)] = double(b.as<real>()[stored]);
      padding[static_cast<size_t>(stored)] = false;
    });
    for (size_t i = 0; i < padding.size(); i++) {
      const real v = b.as<real>()[i];
      if (padding[i] && (v < 0 || v > 0 || v != v)) o.broken += "padding of a parameter is not zero; ";
    }
    return values;
  }

  bool has_real_input(int i) const { return shape_.in_dtype[i] == real_dtype; }
  bool want_gradients() {
    bool any = false;
    for (int i = 0; i < shape_.n_in && way_.inputs; i++) {
      if (!has_real_input(i)) continue;
      const int64_t n = shape_.in[i].numel(rows_);
      dx_[i] = Buffer(n * int64_t(sizeof(real)));
      run_.dx_[i] = dx_[i].as<void>();
      any = true;
      if (!way_.accumulate) continue;
      run_.accumulate_bits |= 1u << i;
      for (int64_t k = 0; k < n; k++) dx_[i].set(k, already_there(static_cast<size_t>(k)), real_dtype);
    }
    for (int p = 0; p < shape_.n_parameters && way_.parameters; p++) {
      if (shape_.parameters[p].role == Role::statistic) continue;
      dparameter_[p] = Buffer(parameter_stored(shape_.parameters[p]) * int64_t(sizeof(real)));
      run_.dparameter_[p] = dparameter_[p].as<void>();
      any = true;
    }
    return any;
  }
  void collect_gradients(Outcome& o) {
    for (int i = 0; i < shape_.n_in; i++) {
      if (!dx_[i]) continue;
      o.arrays["dx" + std::to_string(i)] = values(dx_[i], shape_.in[i].numel(rows_));
    }
    for (int p = 0; p < shape_.n_parameters; p++) {
      if (dparameter_[p]) o.arrays["dp" + std::to_string(p)] = logical(dparameter_[p], p, o);
    }
  }

  // The kernel row that this way takes for a phase of the run as it stands, or nullptr.
  const Kernel* row(Phase phase, KernelPlan& plan, int& choices) const {
    const Kernel* chosen = nullptr;
    int accepted = 0;
    for (const Kernel* const* k = op_.op()->kernels; k != nullptr && *k != nullptr && way_.isa >= 0; k++) {
      KernelPlan mine;
      if ((*k)->phase != phase || (*k)->run[way_.isa] == nullptr || !(*k)->plan(run_, mine)) continue;
      if (accepted <= way_.choice) {
        chosen = *k;
        plan   = mine;
      }
      accepted++;
    }
    if (accepted > choices) choices = accepted;
    return chosen;
  }
  // Stage by stage; every worker takes its share of the tasks, one after another.
  void run_row(const Kernel& k, const KernelPlan& plan) {
    Buffer scratch(int64_t(plan.scratch_per_worker) * way_.workers + int64_t(plan.scratch_shared));
    Buffer derived(int64_t(plan.derived));
    run_.scratch = scratch.as<unsigned char>();
    run_.derived = derived.as<unsigned char>();
    for (uint32_t stage = 0; stage < plan.stages; stage++) {
      const uint32_t tasks = plan.tasks[stage], workers = static_cast<uint32_t>(way_.workers);
      for (uint32_t w = 0; w < workers; w++) {
        const uint32_t first = static_cast<uint32_t>(uint64_t(tasks) * w / workers);
        const uint32_t last  = static_cast<uint32_t>(uint64_t(tasks) * (w + 1) / workers);
        if (first < last) k.run[way_.isa](run_, stage, first, last, w);
      }
    }
    run_.scratch = nullptr;
    run_.derived = &allowed_;
  }
  bool try_row(Phase which, Outcome& o) {
    KernelPlan plan;
    const Kernel* k = row(which, plan, o.choices);
    if (k == nullptr) return false;
    run_row(*k, plan);
    o.rows += std::string(o.rows.empty() ? "" : " ") + k->name;
    return true;
  }
  template <class F>
  void phase(Phase which, Outcome& o, F plain) {
    if (!try_row(which, o)) plain();
  }
  // A row for the whole backward pass, else one for the inputs and one for the parameters, else the plain
  // loop.
  void whole_backward(Outcome& o) {
    if (try_row(Phase::backward, o)) return;
    void* dx[max_inputs];
    void* dparameter[max_parameters];
    std::memcpy(dx, run_.dx_, sizeof dx);
    std::memcpy(dparameter, run_.dparameter_, sizeof dparameter);
    const auto plain = [&] { op_.op()->backward(op_.attributes(), run_); };
    if (dx[0] != nullptr || shape_.n_parameters == 0) {
      std::memset(run_.dparameter_, 0, sizeof dparameter);
      phase(Phase::grad_input, o, plain);
      std::memcpy(run_.dparameter_, dparameter, sizeof dparameter);
    }
    if (dparameter[0] != nullptr) {
      std::memset(run_.dx_, 0, sizeof dx);
      phase(Phase::grad_parameter, o, plain);
      std::memcpy(run_.dx_, dx, sizeof dx);
    }
  }

  AnyOp   op_;
  Way     way_;
  int     rows_;
  OpShape shape_;
  OpRun   run_ = {};
  unsigned char allowed_ = 0;                  // for plans: derived weights may be kept
  Buffer in_[max_inputs], dx_[max_inputs], out_, parameter_[max_parameters], dparameter_[max_parameters],
      slot_[max_slots];

  friend Outcome run_optimizer(const Case&, const Arrays&, const Way&);
};

// 50 updates by given gradients; the weights after the first and the last.
Outcome run_optimizer(const Case& c, const Arrays& given, const Way& way) {
  Outcome o;
  OpShape s;
  AnyOp   op = c.op;
  const int64_t count = c.in[0].dim[0], stored = round_up(count, panel);
  s.n_in = 1;
  s.in[0].rank   = 1;
  s.in[0].dim[0] = static_cast<int32_t>(stored);
  s.in_dtype[0]  = real_dtype;
  const Status status = op.op()->shape(op.attributes(), s);
  o.status = to_string(status);
  if (!ok(status)) return o;
  Case flat = c;
  flat.rows = 1;
  Bench bench(flat, way);
  bench.op_    = op;
  bench.shape_ = s;
  OpRun& run = bench.run_;
  run.attributes = bench.op_.attributes();
  run.in_shapes[0] = run.out_shape_ = &bench.shape_.in[0];
  Buffer w(stored * int64_t(sizeof(real))), g(stored * int64_t(sizeof(real)));
  for (int64_t i = 0; i < stored; i++)
    w.set(i, i < count ? given.at("p0")[static_cast<size_t>(i)] : 0, real_dtype);
  run.n_parameters  = 1;
  run.parameter_[0] = w.as<void>();
  run.dparameter_[0] = g.as<void>();
  for (int k = 0; k < s.n_slots; k++) {
    bench.slot_[k] = Buffer(s.slots[k].count * int64_t(sizeof(real)));
    std::memset(bench.slot_[k].as<void>(), 0, static_cast<size_t>(s.slots[k].count) * sizeof(real));
    run.slot_[k] = bench.slot_[k].as<void>();
  }
  float lr = 0;
  for (int i = 0; i < op.op()->n_fields; i++) {
    const Field& f = op.op()->fields[i];
    if (std::strcmp(f.name, "lr") == 0)
      std::memcpy(&lr, static_cast<const char*>(op.attributes()) + f.offset, sizeof lr);
  }
  bench.context.lr = lr;
  const auto weights = [&] { return Array(w.as<real>(), w.as<real>() + count); };
  for (int t = 0; t < c.rows; t++) {
    for (int64_t i = 0; i < stored; i++) {
      g.set(i, i < count ? given.at("g")[static_cast<size_t>(t * count + i)] : 0, real_dtype);
    }
    bench.context.update = static_cast<uint64_t>(t) + 1;
    o.rows.clear();
    bench.phase(Phase::update, o, [&] { op.op()->forward(bench.op_.attributes(), run); });
    if (t == 0) o.arrays["one"] = weights();
  }
  o.arrays["end"] = weights();
  for (int64_t i = count; i < stored; i++) {
    bool zeros = w.as<real>()[i] >= 0 && w.as<real>()[i] <= 0;
    for (int k = 0; k < s.n_slots; k++)
      zeros = zeros && bench.slot_[k].as<real>()[i] >= 0 && bench.slot_[k].as<real>()[i] <= 0;
    if (!zeros) o.broken += "padding of weights or state is not zero; ";
  }
  return o;
}

// The rate before each step: 3 steps in an epoch, 10 epochs, from 0.1.
Outcome run_schedule(const Case& c) {
  Outcome o;
  OpShape s;
  AnyOp   op = c.op;
  o.status = to_string(op.op()->shape(op.attributes(), s));
  for (int step = 0; step < c.rows; step++) {
    RateContext context;
    context.lr = 0.1f;
    context.step = static_cast<uint64_t>(step);
    context.epoch = static_cast<uint32_t>(step) / 3;
    context.steps_per_epoch = 3;
    context.epochs = 10;
    o.arrays["lr"].push_back(double(op.op()->rate(op.attributes(), context)));
  }
  return o;
}

Outcome run_one(const Case& c, const Arrays& given, const Way& way) {
  if ((c.op.op()->traits & traits::schedule) != 0) return run_schedule(c);
  if ((c.op.op()->traits & traits::optimizer) != 0) return run_optimizer(c, given, way);
  Outcome o;
  Bench bench(c, way);
  o.status = to_string(bench.status);
  if (!ok(bench.status)) return o;
  bench.prepare(given);
  bench.forward(o);
  if (c.op.op()->backward != nullptr && (way.inputs || way.parameters)) bench.backward(o, given);
  bench.commit(o);
  return o;
}

}  // namespace
#endif
