#include "launches.hpp"

#include "device.hpp"
#include "memory.hpp"
#include "network.hpp"

using namespace nnlite;

namespace {

// "with P = {nnlite::..::Step<nnlite::..::SGD>, ..}": the first type, without its namespaces and arguments.
std::string name_of(std::string kernel) {
  const std::size_t first = kernel.find("P = {");
  if (first != std::string::npos) kernel = kernel.substr(first + 5);
  kernel = kernel.substr(0, kernel.find_first_of("<,}*; "));
  return kernel.substr(kernel.rfind(':') + 1);
}

struct Recorder {
  const Model& model;
  std::vector<Launch> steps;
  std::vector<std::string> launches;           // since the last of them

  static void launch(void* user, const CudaLaunch& l) {
    std::string text = name_of(l.kernel);
    if (l.threads > 0) text += " " + std::to_string(l.blocks) + " x " + std::to_string(l.threads);
    static_cast<Recorder*>(user)->launches.push_back(text);
  }
  static void see(void* user, const StepView* step) {
    static const char* const kinds[] = {"forward", "backward", "add", "update", "commit"};
    Recorder& r = *static_cast<Recorder*>(user);
    if (!step) return;
    const bool inner = step->run.node < r.model.node_count();
    Launch launch = {"", step->op ? step->op->name : "", kinds[static_cast<int>(step->kind)], "add", r.launches};
    if (step->op) launch.layer = inner ? r.model.node(step->run.node).name : "loss";
    if (step->kernel) launch.row = step->kernel->name;
    r.launches.clear();
    r.steps.push_back(launch);
  }
};

// Builds it where nothing is launched and runs it once.
template <class Built, class Options, class Run>
std::vector<Launch> watched(const Model& model, Options options, Precision precision, Run run) {
  Recorder recorder = {model, {}, {}};
  options.backend = backend_rows(precision, Recorder::launch, &recorder);
  MemoryPlan plan;
  require(Built::plan(model, options, plan), plan.problem, "the plan");
  const Memory memory(plan.total);
  Arena arena = memory.arena();
  Built built;
  require(built.build(model, options, arena), built.problem(), "the plan");
  const Watch watch = {Recorder::see, &recorder};
  built.watch(&watch);
  require(run(built), built.problem(), "the plan");
  for (const std::string& launch : recorder.launches)          // what waited for others, and had none behind it
    recorder.steps.back().launches.push_back(launch);
  return recorder.steps;
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

std::vector<Launch> launches_of(const Model& model, SessionOptions options, Precision precision) {
  return watched<Session>(model, options, precision,
                          [&](Session& session) { return session.forward(options.batch); });
}

std::vector<Launch> launches_of(const Model& model, TrainerOptions options, Precision precision) {
  const std::size_t rows = static_cast<std::size_t>(options.batch);
  const std::vector<float> inputs(rows * static_cast<std::size_t>(model.input_shape(0).row_numel()));
  const std::vector<float> targets(rows * static_cast<std::size_t>(model.output_shape(0).row_numel()));
  return watched<Trainer>(model, options, precision, [&](Trainer& trainer) {
    return trainer.step(Batch(inputs.data(), static_cast<const void*>(targets.data()), options.batch));
  });
}
