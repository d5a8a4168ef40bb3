// nnlite bench: how long one inference or one training step takes.
#include <fmt/format.h>

#include <algorithm>

#include "allocations.hpp"
#include "data.hpp"
#include "device.hpp"
#include "failure.hpp"
#include "peak.hpp"
#include "profile.hpp"
#include "progress.hpp"
#include "subject.hpp"

using namespace nnlite;

namespace {

struct Options {
  Common common;
  Subject subject;
  std::string optimizer = "sgd:momentum=0.9";
  int batch = 1;
  double seconds = 2;
  bool train = false, profile = false;
};

struct Timing {
  std::vector<double> ms;  // sorted
  std::int64_t allocations = 0;
  double at(double share) const {
    return ms[static_cast<std::size_t>(share * static_cast<double>(ms.size() - 1) + 0.5)];
  }
};

// A quarter of the time to warm up, two runs at least, then one measurement a run until the time is over, 20 at least.
// A run may be several steps, whose mean is measured. `prepare` comes before each run and is not measured.
template <class Prepare, class Run>
Timing measure(double seconds, Prepare prepare, Run run, int steps = 1) {
  const double warm = now() + seconds / 4;
  for (int runs = 0; runs < 2 || now() < warm; ++runs) prepare(), run();
  Timing timing;
  timing.ms.reserve(1 << 20);
  const double end = now() + seconds;
  const std::int64_t before = allocation_count();
  while (timing.ms.size() < 20 || (now() < end && timing.ms.size() < timing.ms.capacity())) {
    prepare();
    const double start = now();
    run();
    timing.ms.push_back(1000 * (now() - start) / steps);
  }
  timing.allocations = allocation_count() < 0 ? -1 : allocation_count() - before;
  std::sort(timing.ms.begin(), timing.ms.end());
  return timing;
}

Timing time_inference(const Options& o, const Model& model, const Samples& samples, const Place& place,
                      std::size_t& bytes, Profile& profile) {
  const SessionOptions options = session_options(place);
  MemoryPlan plan;
  require(Session::plan(model, options, plan), plan.problem, o.subject.name());
  bytes = plan.total;
  const Memory memory(plan.total);
  Arena arena = memory.arena();
  Session session;
  require(session.build(model, options, arena), session.problem(), o.subject.name());
  if (o.profile) session.watch(profile.watch());
  const auto prepare = [&] {  // anew each time, as forward uses the input's place for other values
    for (int i = 0; i < o.batch; ++i)
      put_input(samples, static_cast<std::size_t>(i) % samples.count(), session.input().row(i));
    profile.begin();
  };
  return measure(o.seconds, prepare, [&] { require(session.forward(o.batch), session.problem(), "forward"); });
}

Timing time_training(const Options& o, const Model& model, const Samples& samples, const Place& place,
                     std::size_t& bytes, Profile& profile) {
  const TrainerOptions options = training_options(model, o.optimizer, place);
  MemoryPlan plan;
  require(Trainer::plan(model, options, plan), plan.problem, o.subject.name());
  bytes = plan.total;
  const Memory memory(plan.total);
  Arena arena = memory.arena();
  Trainer trainer;
  require(trainer.build(model, options, arena), trainer.problem(), o.subject.name());
  const std::size_t size = samples.sample_size(), rows = static_cast<std::size_t>(o.batch);
  const bool classes = target_of(model) == Target::classes;
  const std::size_t width = classes ? 1 : static_cast<std::size_t>(output_size(model));
  std::vector<float> inputs(rows * size), targets(rows * width);
  std::vector<std::int32_t> labels(rows);
  for (std::size_t i = 0; i < rows; ++i) {
    put_input(samples, i % samples.count(), inputs.data() + i * size);
    put_target(samples, i % samples.count(), targets.data() + i * width);
    labels[i] = samples.labels[i % samples.count()];
  }
  const Batch batch(inputs.data(), classes ? static_cast<const void*>(labels.data()) : targets.data(),
                    o.batch);
  if (place.backend && !o.profile) {  // as in training: the data set lies on the device, steps are not waited for
    constexpr int steps = 32;
    Dataset data;
    data.count = static_cast<std::uint32_t>(o.batch);
    data.columns[0] = {inputs.data()};
    data.columns[1] = {batch.data[1], classes ? DType::i32 : DType::f32};
    require(trainer.set_data(data), trainer.problem(), "data");
    return measure(o.seconds, [] {}, [&] { require(trainer.steps(steps), trainer.problem(), "step"); }, steps);
  }
  if (o.profile) trainer.watch(profile.watch());
  return measure(o.seconds, [&] { profile.begin(); },
                 [&] { require(trainer.step(batch), trainer.problem(), "step"); });
}

void run(const Options& o) {
  const Backend* const backend = backend_for(o.common);
  const LoadedSubject subject = load_subject(o.subject, o.common.seed, true);
  const Model& model = subject.network->model;
  check_usable(model, o.subject.name());
  const std::unique_ptr<ThreadPool> pool = make_pool(o.common, 1);
  const Samples samples = samples_for(model, DataSource{}, o.common.seed);
  std::size_t bytes = 0;
  const Place place = {o.batch, pool.get(), backend};
  const char* const isa = backend ? "cuda" : isa_name(current_isa());
  Profile profile(model, backend);
  double peak = o.profile && !backend ? peak_gflops(pool.get()) : 0;
  const Timing timing = o.train ? time_training(o, model, samples, place, bytes, profile)
                                : time_inference(o, model, samples, place, bytes, profile);
  if (peak > 0) peak = std::max(peak, peak_gflops(pool.get()));
  std::int64_t macs = 0;
  for (int i = 0; i < model.node_count(); ++i) macs += model.node(i).macs;
  // A training step counts three times: forward, gradient of the input, gradient of the weights.
  const double flop = 2.0 * static_cast<double>(macs) * o.batch * (o.train ? 3 : 1);
  const double gflops = flop / timing.at(0.5) * 1e-6;
  if (!o.common.json) {
    fmt::print(
        "{}, batch {}, {} thread{}, {}, {}: median {:.4g} ms (p10 {:.4g}, p90 {:.4g}, p99 {:.4g}), {:.1f} "
        "GFLOP/s, arena of {} bytes, allocations: {}\n",
        o.subject.name(), o.batch, pool->workers, pool->workers == 1 ? "" : "s", isa,
        o.train ? "training step" : "inference", timing.at(0.5), timing.at(0.1), timing.at(0.9),
        timing.at(0.99), gflops, bytes, timing.allocations);
    if (o.profile) print_profile(profile.json(peak), peak);
    return;
  }
  Json json = {{"work", o.subject.name()},
               {"batch", o.batch},
               {"threads", pool->workers},
               {"isa", isa},
               {"mode", o.train ? "train" : "infer"},
               {"ms",
                {{"median", timing.at(0.5)},
                 {"p10", timing.at(0.1)},
                 {"p90", timing.at(0.9)},
                 {"p99", timing.at(0.99)}}},
               {"gflops", gflops},
               {"arena_bytes", bytes},
               {"allocations", timing.allocations}};
  if (o.profile) {
    json["peak_gflops"] = peak;
    json["profile"] = profile.json(peak);
  }
  print_json(json);
}

}  // namespace

void add_bench(CLI::App& program, int&) {
  auto o = std::make_shared<Options>();
  CLI::App& c = *program.add_subcommand(
      "bench", "Time inference or training steps, on one thread unless told otherwise");
  add_subject(c, o->subject);
  c.add_option("--batch", o->batch, "Samples at a time (default 1)")->check(whole_number(1, 1 << 16));
  CLI::Option* const train = c.add_flag("--train", o->train, "Training steps in place of inference");
  c.add_flag("--profile", o->profile, "Show what each step takes, beside the machine's peak");
  c.add_option("--optimizer", o->optimizer, "To train with (default sgd:momentum=0.9)")->needs(train);
  c.add_option("--seconds", o->seconds, "How long to measure (default 2)")->check(real_number(0.01, 600));
  add_cuda(c, o->common);
  add_common(c, o->common);
  c.callback([o] { run(*o); });
}
