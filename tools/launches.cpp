#include "launches.hpp"

#include <cstdint>
#include <cstring>
#include <list>
#include <vector>

#include "memory.hpp"
#include "network.hpp"

using namespace nnlite;

namespace {

// A backend whose device is the CPU's memory and whose rows do nothing: the plans are those of another.
const Backend* planned_for = nullptr;

void run_nothing(const OpRun&, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t) {}

const Kernel* const* idle_rows(const char* op) {
  static std::list<Kernel> kernels;
  static std::list<std::vector<const Kernel*>> lists;
  std::vector<const Kernel*> list;
  for (const Kernel* const* row = planned_for->rows(op); row && *row; ++row) {
    kernels.push_back(**row);
    kernels.back().run[0] = run_nothing;
    list.push_back(&kernels.back());
  }
  list.push_back(nullptr);
  lists.push_back(list);
  return lists.back().data();
}
Status idle_mirror(void*, const void* host, std::size_t, void** device) {
  *device = const_cast<void*>(host);
  return Status::ok;
}
Status idle_copy(void*, void*, void* host, std::size_t bytes, Copy way) {
  if (way == Copy::from_device) std::memset(host, 0, bytes);  // a loss is a number
  return Status::ok;
}
Status idle_parameter(void*, void*, void*, const Blocks&, Copy) { return Status::ok; }
bool idle_begin(void*, void*, const std::uint32_t[3], const StepContext&) { return true; }
void idle_end(void*) {}
void idle_add(void*, real*, const real*, std::int64_t, bool) {}
bool idle_gather(void*, const Gather&) { return false; }
Status idle_wait(void*, void*, Waited* steps) {
  if (steps) *steps = {};
  return Status::ok;
}

const Backend idle = {nullptr,    1,        idle_rows, idle_mirror, idle_copy, idle_parameter,
                      idle_begin, idle_end, idle_add,  idle_gather, idle_wait};

struct Recorder {
  const Model& model;
  std::vector<Launch> launches;

  static void see(void* user, const StepView* step) {
    static const char* const kinds[] = {"forward", "backward", "add", "update", "commit"};
    if (!step) return;
    Recorder& r = *static_cast<Recorder*>(user);
    const bool inner = step->run.node < r.model.node_count();
    Launch launch = {"", step->op ? step->op->name : "", kinds[static_cast<int>(step->kind)], "add"};
    if (step->op) launch.layer = inner ? r.model.node(step->run.node).name : "loss";
    if (step->kernel) launch.row = step->kernel->name;
    r.launches.push_back(launch);
  }
};

// Builds it on the idle backend and runs it once.
template <class Built, class Options, class Run>
std::vector<Launch> watched(const Model& model, Options options, Run run) {
  planned_for = options.backend;
  options.backend = &idle;
  MemoryPlan plan;
  require(Built::plan(model, options, plan), plan.problem, "the plan");
  const Memory memory(plan.total);
  Arena arena = memory.arena();
  Built built;
  require(built.build(model, options, arena), built.problem(), "the plan");
  Recorder recorder = {model, {}};
  const Watch watch = {Recorder::see, &recorder};
  built.watch(&watch);
  require(run(built), built.problem(), "the plan");
  return recorder.launches;
}

}  // namespace

std::vector<std::string> ops_without_rows(const Backend& backend) {
  std::vector<std::string> names;
  const OpSet set = all_ops();
  for (int i = 0; i < set.count; ++i)
    if ((set.ops[i]->traits & (traits::schedule | traits::view)) == 0 && !backend.rows(set.ops[i]->name))
      names.push_back(set.ops[i]->name);
  return names;
}

std::vector<Launch> launches_of(const Model& model, SessionOptions options) {
  return watched<Session>(model, options, [&](Session& session) { return session.forward(options.batch); });
}

std::vector<Launch> launches_of(const Model& model, TrainerOptions options) {
  const std::size_t rows = static_cast<std::size_t>(options.batch);
  const std::vector<float> inputs(rows * static_cast<std::size_t>(model.input_shape(0).row_numel()));
  const std::vector<float> targets(rows * static_cast<std::size_t>(model.output_shape(0).row_numel()));
  return watched<Trainer>(model, options, [&](Trainer& trainer) {
    return trainer.step(Batch(inputs.data(), static_cast<const void*>(targets.data()), options.batch));
  });
}
