// The course of a training run.
#include "fit.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "attributes.hpp"
#include "augment.hpp"
#include "device.hpp"
#include "evaluate.hpp"
#include "failure.hpp"
#include "file.hpp"
#include "fit_data.hpp"
#include "fit_run.hpp"
#include "interrupt.hpp"
#include "lessons.hpp"

using namespace nnlite;

namespace {

// The test parts of all data that have one.
Samples test_samples(const Fit& f, const Reading& reading) {
  std::vector<std::string> names;
  std::copy_if(f.o.data.begin(), f.o.data.end(), std::back_inserter(names), has_test_part);
  return samples_of_all(f.base->model, open_all(names, "t10k"), f.options.seed, reading);
}

// What the model knows beside what it is taught now and was taught before.
void add_replay(Fit& f, bool keep, const Reading& reading) {
  const Model& model = f.base->model;
  Samples lesson;
  if (!f.train.bytes.empty()) lesson = without_repeated(lessons_of(model), f.train);
  const std::size_t earlier = lesson.count(), now = f.train.count();
  if (earlier == 0) lesson = f.train;
  else append(lesson, f.train);
  f.train = replayed(model, f.settings.replay, f.options.seed, reading);
  const std::size_t known = f.train.count(), times = lesson_times(lesson, f.train);
  fmt::print(stderr, "a lesson of {} pictures, {} of earlier ones, each {} times beside {} of {}\n", now,
             earlier, times, known, f.settings.replay);
  for (std::size_t i = 0; i < times; ++i) append(f.train, lesson);
  if (keep && !lesson.bytes.empty()) f.lessons = newest(lesson);
}

void prepare_data(Fit& f, std::vector<DataSource>&& sources) {
  const Model& model = f.base->model;
  const std::uint64_t seed = f.options.seed;
  const Reading reading{f.pool.get(), false, true};
  const bool lesson = is_lesson(model, sources);
  f.train = samples_of_all(model, std::move(sources), seed, reading);
  if (f.hold_out_test) f.val = test_samples(f, reading);
  if (f.settings.val > 0) f.val = split(f.train, f.settings.val, seed);
  if (f.train.count() == 0)
    fail("no samples are left to train on", joined(f.o.data), "give more data or a smaller --val");
  if (f.options.schedule.op() == &ReduceLROnPlateau::op && f.val.count() == 0)
    throw UsageError{"--schedule plateau needs validation data: set --val"};
  if (f.settings.reject > 0 && (f.val.count() == 0 || answer_of(model) != Answer::softmax))
    throw UsageError{
        f.settings.val > 0 && f.val.count() == 0
            ? "--reject needs validation data, and of so few samples --val leaves none: give more"
            : "--reject needs a model of classes and validation data: set --val"};
  if (!f.settings.replay.empty()) add_replay(f, lesson, reading);
  const double others = f.settings.others * static_cast<double>(f.train.count());
  if (others >= 1) append(f.train, others_for(model, static_cast<std::size_t>(others), seed, reading));
  f.data.count = static_cast<std::uint32_t>(f.train.count());
  Column& x = f.data.columns[0];
  Column& y = f.data.columns[1];
  if (f.train.bytes.empty()) x.data = f.train.floats.data();
  else x = {f.train.bytes.data(), DType::u8, f.train.scale, 0.0f};
  if (target_of(model) == Target::classes && !is_soft(f.options)) {
    y = {f.train.labels.data(), DType::i32, 1.0f, 0.0f};
  } else {
    if (is_soft(f.options)) f.train.targets = soft_targets(f.train, output_size(model));
    else if (f.train.targets.empty()) f.train.targets.assign(f.train.labels.begin(), f.train.labels.end());
    y.data = f.train.targets.data();
  }
}

Rows first_rows(const Samples& samples, const Model& model, bool soft, int most) {
  Rows rows;
  const auto others = std::find(samples.labels.begin(), samples.labels.end(), no_class);
  rows.count = std::min(most, static_cast<int>(others - samples.labels.begin()));
  const std::size_t n = static_cast<std::size_t>(rows.count), size = samples.sample_size();
  const bool classes = target_of(model) == Target::classes;
  const std::size_t width = classes && !soft ? 0 : static_cast<std::size_t>(output_size(model));
  rows.inputs.resize(n * size);
  rows.targets.resize(n * width);
  for (std::size_t i = 0; i < n; ++i) {
    put_input(samples, i, rows.inputs.data() + i * size);
    if (width > 0) put_target(samples, i, rows.targets.data() + i * width);
    if (classes) rows.labels.push_back(samples.labels[i]);
  }
  return rows;
}

// A GPU goes on where a CPU stopped, and the other way round, as one precision does where another stopped: not
// with the same bits, so it is said.
void resume(Fit& f) {
  const char* const path = f.o.resume.c_str();
  Status status = f.trainer.resume(path);
  if (status == Status::wrong_arithmetic && std::string(f.trainer.problem().where) == "device") {
    fmt::print(stderr, "{} was not made on {}: going on there, with other bits than without a stop\n", f.o.resume,
               f.options.backend ? fmt::format("a GPU with {}", f.o.common.precision()) : "the CPU");
    status = f.trainer.resume(path, true);
  }
  require(status, f.trainer.problem(), f.o.resume);
}

void build(Fit& f) {
  const Model& model = f.base->model;
  MemoryPlan plan;
  require(Trainer::plan(model, f.options, plan), plan.problem, f.base->name);
  f.trainer_memory = Memory(plan.total);
  f.arena_bytes = plan.total;
  Arena arena = f.trainer_memory.arena();
  require(f.trainer.build(model, f.options, arena), f.trainer.problem(), f.base->name);
  require(f.trainer.set_data(f.data), f.trainer.problem(), joined(f.o.data));
  if (!f.o.resume.empty()) resume(f);
  SessionOptions s;
  s.batch = std::min(f.options.batch, 64);
  s.loss = loss_for(model);
  s.pool = f.pool.get();
  s.backend = f.options.backend;
  require(Session::plan(model, s, plan), plan.problem, f.base->name);
  f.session_memory = Memory(plan.total);
  Arena more = f.session_memory.arena();
  require(f.session.build(f.trainer, s, more), f.session.problem(), f.base->name);
  f.probe = first_rows(f.train, model, is_soft(f.options), s.batch);
}

bool done(const Fit& f) {
  return f.trainer.epoch() >= static_cast<std::uint32_t>(f.options.epochs) ||
         (f.o.steps > 0 && f.trainer.step_number() >= f.o.steps);
}

// Steps until somebody looks at how it goes: one, on a device what takes some 50 ms, but not beyond the epoch.
int steps_at_once(const Fit& f) {
  if (!f.options.backend) return 1;
  const auto batch = static_cast<std::uint32_t>(f.options.batch), left = f.data.count - f.trainer.epoch_position();
  std::uint64_t n = std::min(f.at_once, f.options.drop_last ? std::max(left / batch, 1u) : (left + batch - 1) / batch);
  if (f.o.steps > 0) n = std::min<std::uint64_t>(n, f.o.steps - f.trainer.step_number());
  if (f.o.checkpoint_every > 0) {
    const auto every = static_cast<std::uint64_t>(f.o.checkpoint_every);
    n = std::min(n, every - f.trainer.step_number() % every);
  }
  return static_cast<int>(n);
}

// Runs to the end of the epoch in hand, or to where it was told to stop. False: Ctrl-C.
bool run_epoch(Fit& f) {
  const std::uint32_t number = f.trainer.epoch();
  double last_save = now();
  while (!done(f) && f.trainer.epoch() == number) {
    const std::uint32_t before = f.trainer.epoch_position();
    const double start = now();
    const int n = steps_at_once(f);
    require(f.trainer.steps(n), f.trainer.problem(), f.base->name);
    const double took = now() - start;
    if (n == static_cast<int>(f.at_once) && took < 0.02) f.at_once = std::min(2 * f.at_once, 4096u);
    if (took > 0.08) f.at_once = std::max(f.at_once / 2, 1u);
    const std::uint32_t after = f.trainer.epoch() == number ? f.trainer.epoch_position() : f.data.count;
    f.running.loss += f.trainer.loss_sum();
    f.running.rows += after - before;
    show_progress(f, number, after);
    if (f.trainer.epoch() != number) break;
    const bool due = f.o.checkpoint_every > 0
                         ? f.trainer.step_number() % static_cast<std::uint64_t>(f.o.checkpoint_every) == 0
                         : now() - last_save > 60;
    if (due) {
      save_checkpoint_file(f);
      last_save = now();
    }
    if (interrupted()) return false;
  }
  if (f.trainer.epoch() != number) end_epoch(f, number);
  else end_inside_epoch(f);
  return !interrupted() || done(f);
}

// The threshold of a model that rejects, from the validation pictures as the front end makes them.
float calibrated(Fit& f) {
  const Model& model = f.base->model;
  const bool again = preprocessing_of(model).kind == PreprocessingKind::digit && !f.val.bytes.empty();
  const Samples pictures = again ? as_pictures(model, f.val, Reading{f.pool.get(), true}) : Samples();
  const Evaluation e = evaluate(f.session, again ? pictures : f.val);
  const float threshold = threshold_for(e.right, f.settings.reject);
  fmt::print(stderr, "rejected from now on: answers with less than {:.1f} %\n",
             100 * static_cast<double>(threshold));
  return threshold;
}

// The model with the weights of the moment, and golden vectors made from its first samples.
Bytes finished_model(Fit& f) {
  const std::vector<Metadata> metadata = metadata_with(extras_of(f.base->model), {});
  ModelExtras extras = with_metadata(extras_of(f.base->model), metadata);
  const Bytes lessons = lesson_section(f.lessons);
  const std::vector<OtherSection> sections = sections_with(extras, lessons);
  if (!lessons.empty()) {
    extras.others = sections.data();
    extras.other_count = static_cast<int>(sections.size());
  }
  if (f.settings.reject > 0) extras.threshold = calibrated(f);
  const std::unique_ptr<Network> trained = load_network(serialise(f.trainer, extras), f.o.out);
  const int rows = f.train.count() > 1 && f.train.sample_size() <= 4096 ? 2 : 1;
  std::vector<float> inputs(static_cast<std::size_t>(rows) * f.train.sample_size());
  for (int i = 0; i < rows; ++i)
    put_input(f.train, static_cast<std::size_t>(i),
              inputs.data() + static_cast<std::size_t>(i) * f.train.sample_size());
  MemoryPlan plan;
  SessionOptions s;
  s.batch = rows;
  require(Session::plan(trained->model, s, plan), plan.problem, f.o.out);
  const Memory memory(2 * plan.total + (std::size_t{1} << 20));
  Arena arena = memory.arena();
  Golden golden;
  require(make_golden(trained->model, inputs.data(), rows, 1e-4f, arena, golden), trained->model.problem(),
          f.o.out);
  extras.golden = &golden;
  extras.golden_count = 1;
  return serialise(trained->model, extras);
}

// The program draws digits as on photographs.
bool any_drawn(const std::vector<DataSource>& sources) {
  return std::any_of(sources.begin(), sources.end(),
                     [](const DataSource& source) { return source.kind == DataKind::digits; });
}

}  // namespace

int fit(const FitOptions& given) {
  Fit f(given);
  FitOptions& o = f.o;
  if (o.checkpoint.empty()) o.checkpoint = o.resume;
  check_files(o);
  const Backend* const backend = backend_for(o.common);
  if (o.resume.empty()) {  // before the data is read
    parse_optimizer(o.optimizer);
    parse_schedule(o.schedule);
    parse_augment(o.augment);
  }
  f.pool = make_pool(o.common);
  std::vector<DataSource> sources = open_all(o.data, "train");
  if (o.preprocess.empty()) o.preprocess = any_drawn(sources) ? "digit" : "plain";
  prepare_model(f, sources);
  f.options.pool = f.pool.get();
  f.options.backend = backend;
  prepare_data(f, std::move(sources));
  build(f);
  start_log(f);
  print_start(f);
  f.started = now();
  save_checkpoint_file(f);  // from here on --resume finds this run's, never an older one
  catch_interrupts();
  while (!done(f))
    if (!run_epoch(f)) return stopped(f);
  check_finite(f);
  const Bytes bytes = finished_model(f);
  write_file(o.out, bytes.data(), bytes.size());
  print_result(f, sha256_hex(bytes));
  return 0;
}
