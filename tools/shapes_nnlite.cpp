#include <algorithm>
#include <memory>

#include "failure.hpp"
#include "memory.hpp"
#include "shapes.hpp"

using namespace nnlite;

namespace {

// A layer that stands alone, with the pointers of one pass, and the row that runs it.
class Call {
 public:
  Call(const Case& s, const Values& values)
      : case_(s),
        layer_(s.size == 0 ? AnyOp(Linear{s.in, s.out, false})
                           : AnyOp(Conv2d{s.in, s.out, s.kernel, 1, s.padding, 1, 1, false})) {
    OpShape& o = op_shape_;
    o.n_in = 1;
    o.in[0].rank = s.size == 0 ? 2 : 4;
    o.in[0].dim[0] = nnlite::Shape::batch_dim;
    o.in[0].dim[1] = o.in[0].dim[2] = s.size;
    o.in[0].dim[o.in[0].rank - 1] = s.in;
    o.in_dtype[0] = real_dtype;
    if (!ok(op().shape(layer_.attributes(), o))) fail("no layer", s.name, "");
    panels_ = static_cast<std::size_t>((s.out + 15) / 16) * 16;
    x_ = Memory(s.x_count() * sizeof(float));
    w_ = Memory(panels_ * s.w_count() / static_cast<std::size_t>(s.out) * sizeof(float));
    y_ = Memory(s.y_count() * sizeof(float));
    std::copy(values.x.begin(), values.x.end(), x());
    std::copy(values.y.begin(), values.y.end(), y());
    for (std::size_t i = 0; i < values.w.size(); ++i) w()[stored(i)] = values.w[i];
    fill();
    find();
  }
  const char* kernel() const { return kernel_->name; }
  void run() const {
    KernelPlan plan;
    (void)kernel_->plan(run_, plan);
    for (std::uint32_t stage = first_stage_; stage < plan.stages; ++stage)
      kernel_->run[static_cast<int>(isa_)](run_, stage, 0, plan.tasks[stage], 0);
  }
  std::vector<float> result() const {
    if (case_.pass == Phase::forward) return {y(), y() + case_.y_count()};
    if (case_.pass == Phase::grad_input) return {x(), x() + case_.x_count()};
    std::vector<float> dw(case_.w_count());
    for (std::size_t i = 0; i < dw.size(); ++i) dw[i] = w()[stored(i)];
    return dw;
  }

 private:
  const Op& op() const { return *layer_.op(); }
  float* x() const { return reinterpret_cast<float*>(x_.data()); }
  float* w() const { return reinterpret_cast<float*>(w_.data()); }
  float* y() const { return reinterpret_cast<float*>(y_.data()); }

  // Where element i of [out][in][kernel][kernel] lies in [out/16][kernel][kernel][in][16].
  std::size_t stored(std::size_t i) const {
    const std::size_t in = static_cast<std::size_t>(case_.in);
    const std::size_t taps = static_cast<std::size_t>(case_.kernel * case_.kernel);
    const std::size_t tap = i % taps, from = i / taps % in, to = i / taps / in;
    return ((to / 16 * taps + tap) * in + from) * 16 + to % 16;
  }

  void fill() {
    run_.attributes = layer_.attributes();
    run_.in_shapes[0] = &op_shape_.in[0];
    run_.out_shape_ = &op_shape_.out;
    run_.rows = case_.rows;
    run_.workers = 1;
    run_.n_in = run_.n_parameters = 1;
    run_.training = case_.pass != Phase::forward;
    run_.parameter_[0] = w();
    if (case_.pass == Phase::forward) run_.in_[0] = x(), run_.out_ = y();
    else run_.dy_ = y();
    if (case_.pass == Phase::grad_input) run_.dx_[0] = x();
    if (case_.pass == Phase::grad_parameter) run_.in_[0] = x(), run_.dparameter_[0] = w();
  }
  // The first row that takes it, as the planner chooses. What it derives from the weights is made once for
  // inference, and in every step of training.
  void find() {
    for (const Kernel* const* k = op().kernels; k && *k && !kernel_; ++k) {
      KernelPlan plan;
      run_.derived = w_.data();  // allowed
      if ((*k)->phase != case_.pass || !(*k)->plan(run_, plan)) continue;
      kernel_ = *k;
      const std::size_t scratch = plan.scratch_per_worker + plan.scratch_shared;
      scratch_ = Memory(scratch + plan.derived);
      run_.scratch = scratch_.data();
      run_.derived = scratch_.data() + scratch;
      if (plan.derived == 0 || run_.training) continue;
      kernel_->run[static_cast<int>(isa_)](run_, 0, 0, plan.tasks[0], 0);
      first_stage_ = 1;
    }
    if (!kernel_) fail("no kernel takes it", case_.name, "");
  }

  Case case_;
  AnyOp layer_;
  OpShape op_shape_;
  OpRun run_ = {};
  Isa isa_ = current_isa();
  const Kernel* kernel_ = nullptr;
  std::size_t panels_ = 0;
  std::uint32_t first_stage_ = 0;
  Memory x_, w_, y_, scratch_;
};

}  // namespace

Ways nnlite_ways(const Case& c, const Values& values) {
  auto call = std::make_shared<Call>(c, values);
  return {{"nnlite", call->kernel(), [call] { call->run(); }, [call] { return call->result(); }}};
}
