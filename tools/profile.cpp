#include "profile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "progress.hpp"

using namespace nnlite;

namespace {

constexpr std::size_t kept = 2048;   // runs
constexpr std::int64_t element = 4;  // bytes, of f32 and i32

// What an op keeps beside its outputs, in bytes. Targets may be indices, which its shape function must know.
std::int64_t slot_bytes(const Op& op, const OpRun& run) {
  for (const DType last : {real_dtype, DType::i32}) {
    std::vector<std::max_align_t> attributes(op.attr_size / sizeof(std::max_align_t) + 1);
    std::memcpy(attributes.data(), run.attributes, op.attr_size);
    OpShape shape;
    shape.n_in = run.n_in;
    for (int k = 0; k < run.n_in; ++k) {
      shape.in[k] = run.in_shape(k);
      shape.in_dtype[k] = k > 0 && k + 1 == run.n_in ? last : real_dtype;
    }
    if (!ok(op.shape(attributes.data(), shape))) continue;
    std::int64_t bytes = 0;
    for (int s = 0; s < shape.n_slots; ++s) {
      const SlotSpec& slot = shape.slots[s];
      if (run.slot_[s])
        bytes += slot.count * (slot.per_row ? run.rows : 1) * (slot.dtype == DType::u8 ? 1 : element);
    }
    return bytes;
  }
  return 0;
}

// "conv2d+norm+relu": the row, and what it does for its neighbours.
std::string kernel_name(const StepView& step) {
  static constexpr struct {
    std::uint8_t bit;
    const char* name;
  } fusions[] = {{fusion::norm, "+norm"},
                 {fusion::relu, "+relu"},
                 {fusion::mask_dy, "+mask_dy"},
                 {fusion::mask_dx, "+mask_dx"},
                 {fusion::mask_max, "+mask_max"},
                 {fusion::update, "+update"}};
  std::string name = step.kernel ? step.kernel->name : "";
  for (const auto& f : fusions)
    if ((step.run.fused & f.bit) != 0) name += f.name;
  return name;
}

}  // namespace

Profile::Row Profile::row_of(const StepView& step) const {
  static const char* const phases[] = {"forward", "backward", "grad_input", "grad_parameter", "update", "commit"};
  static const char* const kinds[] = {"forward", "backward", "add", "update", "commit"};
  const OpRun& run = step.run;
  Row row;
  row.op = step.op ? step.op->name : "";
  row.phase = step.kernel ? phases[static_cast<int>(step.kernel->phase)] : kinds[static_cast<int>(step.kind)];
  row.kernel = kernel_name(step);
  if (!step.op) {
    row.bytes = 3 * step.count * element;
    return row;
  }
  const bool inner = run.node < model_.node_count();
  const NodeInfo node = inner ? model_.node(run.node) : NodeInfo();
  row.layer = inner ? node.name : "loss";
  if (step.kind == StepKind::update) {
    row.bytes = 3 * step.count * element;
    for (const void* slot : run.slot_) row.bytes += slot ? 2 * step.count * element : 0;
    return row;
  }
  bool dx = false, dw = false;
  std::int64_t elements = run.out_ ? run.out_numel() : 0;
  if (run.dy_) elements += run.out_numel();
  for (int k = 0; k < run.n_in; ++k) {
    if (run.in_[k]) elements += run.in_numel(k);
    if (run.dx_[k]) elements += (run.accumulate(k) ? 2 : 1) * run.in_numel(k);
    dx |= run.dx_[k] != nullptr;
  }
  for (int p = 0; p < run.n_parameters; ++p) dw |= run.dparameter_[p] != nullptr;
  int passes_of_dw = dw ? 1 : 0;
  if (run.update) {                              // weights and the optimizer's state are read and written, dw is not
    dw = true;
    passes_of_dw = 2;
    for (const void* slot : run.update->slot_) passes_of_dw += slot ? 2 : 0;
  }
  const int products = step.kind == StepKind::forward ? 1 : int{dx} + int{dw};
  row.flop = 2.0 * products * static_cast<double>(node.macs) * run.rows;
  row.bytes = elements * element + slot_bytes(*step.op, run);
  const int parameter_passes =
      int{step.kind == StepKind::commit || step.kind == StepKind::forward || dx} + passes_of_dw;
  row.bytes += parameter_passes * node.parameters * element;
  return row;
}

void Profile::begin() {
  if (step_ > 0) {
    seconds_.resize(kept * rows_.size());
    ++runs_;
  }
  step_ = 0;
}

void Profile::see(void* user, const StepView* step) {
  Profile& p = *static_cast<Profile*>(user);
  if (step && p.backend_) static_cast<void>(ok(p.backend_->wait(p.backend_->user, nullptr, nullptr)));
  const double time = now();
  if (step && p.runs_ == 0) p.rows_.push_back(p.row_of(*step));
  else if (step) p.seconds_[(p.runs_ - 1) % kept * p.rows_.size() + p.step_] = time - p.last_;
  if (step) ++p.step_;
  p.last_ = now();
}

double Profile::median_us(std::size_t row) const {
  std::vector<double> all;
  for (std::size_t r = 0; r < std::min(runs_, kept); ++r) all.push_back(seconds_[r * rows_.size() + row]);
  if (all.empty()) return 0;
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2), all.end());
  return 1e6 * all[all.size() / 2];
}

nlohmann::ordered_json Profile::json(double peak) const {
  std::vector<double> us(rows_.size());
  double sum = 0;
  for (std::size_t i = 0; i < us.size(); ++i) sum += us[i] = median_us(i);
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < us.size(); ++i) {
    const Row& row = rows_[i];
    const double gflops = us[i] > 0 ? row.flop / us[i] * 1e-3 : 0;
    list.push_back({{"layer", row.layer},
                    {"op", row.op},
                    {"phase", row.phase},
                    {"kernel", row.kernel},
                    {"us", us[i]},
                    {"percent", sum > 0 ? 100 * us[i] / sum : 0},
                    {"gflops", gflops},
                    {"percent_of_peak", peak > 0 ? 100 * gflops / peak : 0},
                    {"bytes", row.bytes}});
  }
  return list;
}

void print_profile(const nlohmann::ordered_json& profile, double peak) {
  fmt::print("\n{:24} {:18} {:15} {:22} {:>10} {:>6} {:>8} {:>7} {:>11}\n", "layer", "op", "phase", "kernel",
             "us", "%", "GFLOP/s", "% peak", "bytes moved");
  double sum = 0;
  for (const auto& row : profile) {
    const double gflops = row["gflops"].get<double>();
    sum += row["us"].get<double>();
    fmt::print("{:24} {:18} {:15} {:22} {:10.2f} {:6.1f} {:>8} {:>7} {:11}\n",
               row["layer"].get<std::string>(), row["op"].get<std::string>(), row["phase"].get<std::string>(),
               row["kernel"].get<std::string>(), row["us"].get<double>(), row["percent"].get<double>(),
               gflops > 0 ? fmt::format("{:.1f}", gflops) : "",
               gflops > 0 && peak > 0 ? fmt::format("{:.1f}", row["percent_of_peak"].get<double>()) : "",
               row["bytes"].get<std::int64_t>());
  }
  fmt::print("{} steps, {:.2f} us", profile.size(), sum);
  if (peak > 0) fmt::print("; the peak of this machine's multiply-adds is {:.1f} GFLOP/s", peak);
  fmt::print(
      "\nGFLOP/s count every product of the plain sum, of which winograd saves half and more. What a step does "
      "for its\nneighbours stands behind a +; they have no line. Other parameters have an update of their "
      "own: weights, then bias.\n");
}
