#include "fit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <sstream>

#include "arch.hpp"
#include "attributes.hpp"
#include "augment.hpp"
#include "data.hpp"
#include "evaluate.hpp"
#include "failure.hpp"
#include "file.hpp"
#include "fit_data.hpp"
#include "interrupt.hpp"
#include "plot.hpp"
#include "progress.hpp"

using namespace nnlite;

namespace {

const char* const log_heading = "epoch,train_loss,val_loss,val_accuracy,learning_rate,seconds\n";

struct Epoch {
  std::uint32_t number = 0;
  double train_loss = 0, val_loss = std::nan(""), val_accuracy = std::nan(""), seconds = 0;
};

// What TrainerOptions do not hold. A checkpoint carries it as metadata, for those who resume.
struct Settings {
  double val = 0;     // the share held out
  double others = 0;  // pictures of no digit, for each sample
  double reject = 0;  // the share of right answers that the threshold may reject; 0: the threshold stays
  std::string replay;
  std::string base;  // SHA-256 of the file that finetune began with
};

// What --update names.
struct UpdateNames {
  std::vector<std::string> names;
  std::vector<const char*> list;
};

// A few rows: labels as a session's loss wants them, targets as the trainer's does where that is not labels.
struct Rows {
  std::vector<float> inputs, targets;
  std::vector<std::int32_t> labels;
  int count = 0;
};

// Everything that one training owns. The order matters: what stands above outlives what stands below.
struct Fit {
  FitOptions o;
  std::unique_ptr<Network> base;  // the graph, frozen weights, labels and preprocessing
  Samples train, val;
  std::unique_ptr<ThreadPool> pool;
  Memory names, trainer_memory, session_memory;
  UpdateNames update;
  TrainerOptions options;
  Settings settings;
  bool hold_out_test = false;  // the t10k part stands in for a share
  bool few = false;            // a handful of pictures for a model with a digit front end
  Dataset data;
  Trainer trainer;
  Session session;
  Rows probe;
  std::size_t arena_bytes = 0;
  std::vector<Epoch> epochs;
  std::string log;  // the whole file
  Progress progress;

  explicit Fit(const FitOptions& options_given) : o(options_given) {}
};

// ---- the model to start from
std::string note(const ModelExtras& extras, const char* key) {
  for (int i = 0; i < extras.metadata_count; ++i)
    if (std::string(extras.metadata[i].key) == key) return extras.metadata[i].value;
  return "";
}

using Notes = std::vector<std::pair<std::string, std::string>>;

Notes notes_of(const Settings& settings) {
  const auto number = [](double v) { return v == 0 ? "" : fmt::format("{}", v); };
  return {{"training.base", settings.base},
          {"training.others", number(settings.others)},
          {"training.reject", number(settings.reject)},
          {"training.replay", settings.replay},
          {"training.validation", number(settings.val)}};
}

Settings settings_of(const ModelExtras& extras) {
  const auto number = [&](const char* key) { return std::atof(note(extras, key).c_str()); };
  return {number("training.validation"), number("training.others"), number("training.reject"),
          note(extras, "training.replay"), note(extras, "training.base")};
}

// The model's own metadata and those notes that are not empty.
std::vector<Metadata> metadata_with(const ModelExtras& extras, const Notes& notes) {
  std::vector<Metadata> list;
  for (int i = 0; i < extras.metadata_count; ++i)
    if (std::string(extras.metadata[i].key).rfind("training.", 0) != 0) list.push_back(extras.metadata[i]);
  for (const auto& [key, value] : notes)
    if (!value.empty()) list.push_back({key.c_str(), value.c_str()});
  std::sort(list.begin(), list.end(),
            [](const Metadata& a, const Metadata& b) { return std::string(a.key) < std::string(b.key); });
  return list;
}

// Labels of the new model: the data's names in their order. IDX has numbers for names, as many as there are
// outputs.
std::vector<std::string> new_labels(const Model& model, const DataSource& source) {
  if (target_of(model) != Target::classes) return {};
  std::vector<std::string> names = source.label_names();
  const std::size_t outputs = static_cast<std::size_t>(output_size(model));
  if (source.kind == DataKind::idx || source.kind == DataKind::synthetic) {
    names.clear();
    for (std::size_t i = 0; i < outputs; ++i) names.push_back(std::to_string(i));
  }
  if (names.size() != outputs)
    fail(fmt::format("{} classes for {} outputs", names.size(), outputs), source.name,
         fmt::format("end the list of layers with linear {}", names.size()));
  return names;
}

std::unique_ptr<Network> graph_for(const FitOptions& o, const DataSource& source) {
  ArchWish wish;
  Dims own;
  const bool digit = o.preprocess == "digit";
  const bool named = named_arch(o.arch, own);
  if (source.kind == DataKind::folder || source.kind == DataKind::table)
    wish.classes = static_cast<int>(source.label_names().size());
  if (wish.classes == 1) fail("a single class", source.name, "give at least two");
  if (source.kind != DataKind::synthetic && (!named || (o.arch == "mlp" && source.kind == DataKind::table)))
    wish.input = digit ? Dims(28, 28, 1) : data_shape(source);
  if (named && own.rank == 3 && source.kind == DataKind::table && o.arch != "mlp")
    fail(fmt::format("a table for {}, which takes pictures", o.arch), source.name,
         "choose --arch mlp or a list of layers");
  std::unique_ptr<Network> graph = build_arch(o.arch, wish, Seed{o.common.seed});
  const Dims input = dims_of(graph->model.input_shape(0));
  if (digit && (input.rank != 3 || input.dim[2] != 1 || std::min(input.dim[0], input.dim[1]) < 20))
    throw UsageError{"--preprocess digit: it makes pictures of one channel, at least 20 x 20, for --arch"};
  return graph;
}

// A model built here passes through the form of a file, like one that was loaded: so a checkpoint carries
// labels, preprocessing and notes, whichever way the model came.
std::unique_ptr<Network> as_loaded(const Model& model, ModelExtras extras, const Settings& settings,
                                   const std::string& name) {
  const Notes notes = notes_of(settings);
  const std::vector<Metadata> metadata = metadata_with(extras, notes);
  extras.metadata = metadata.data();
  extras.metadata_count = static_cast<int>(metadata.size());
  extras.golden_count = 0;  // of other weights
  return load_network(serialise(model, extras), name);
}

std::unique_ptr<Network> new_network(const FitOptions& o, const DataSource& source, const Settings& settings) {
  const std::unique_ptr<Network> graph = graph_for(o, source);
  Model& model = graph->model;
  const Memory weights(model.weight_bytes());
  Arena arena = weights.arena();
  require(model.materialise(arena), model.problem(), o.arch);
  const std::vector<std::string> labels = new_labels(model, source);
  std::vector<const char*> texts;
  for (const std::string& label : labels) texts.push_back(label.c_str());
  Preprocessing how;
  if (o.preprocess == "digit") how.kind = PreprocessingKind::digit;
  ModelExtras extras;
  if (model.input_shape(0).rank == 4) extras.preprocessing = &how;
  extras.labels = texts.data();
  extras.label_count = static_cast<int>(texts.size());
  extras.answer = answer_of(model);
  if (extras.answer == Answer::threshold) extras.threshold = 0.5f;
  return as_loaded(model, extras, settings, o.arch);
}

// ---- options
// A name in --update is that of a layer with parameters, or of a parameter.
void check_update_name(const Model& model, const std::string& name) {
  for (int i = 0; i < model.parameter_count(); ++i) {
    const std::string parameter = model.parameter(i).name;
    if (parameter == name || parameter.rfind(name + ".", 0) == 0) return;
  }
  throw UsageError{fmt::format("--update: '{}' is no layer with parameters; nnlite info shows them", name)};
}

// Samples without a class want probabilities for targets.
AnyOp training_loss(const FitOptions& o, const Model& model, double others) {
  AnyOp loss = loss_for(model);
  const bool soft = others > 0 || o.label_smoothing > 0;
  if (soft && loss.op() != &CrossEntropyLoss::op)
    throw UsageError{"--others and --label-smoothing need a model that ends with linear and names classes"};
  if (o.label_smoothing > 0) set_attribute(loss, "label_smoothing", o.label_smoothing);
  if (others > 0) set_attribute(loss, "probabilities", 1);
  return loss;
}

bool is_soft(const TrainerOptions& options) { return get_attribute(options.loss, "probabilities") == 1; }

TrainerOptions options_from_command_line(const FitOptions& o, const Model& model, double others,
                                         UpdateNames& update) {
  TrainerOptions t;
  t.batch = o.batch;
  t.epochs = o.epochs;
  t.loss = training_loss(o, model, others);
  t.optimizer = parse_optimizer(o.optimizer);
  if (o.lr > 0) set_attribute(t.optimizer, "lr", o.lr);
  if (o.given("--weight-decay")) set_attribute(t.optimizer, "weight_decay", o.weight_decay);
  t.schedule = parse_schedule(o.schedule);
  t.warmup_steps = o.warmup;
  t.clip_norm = o.clip_norm;
  t.clip_value = o.clip_value;
  t.augment = parse_augment(o.augment);
  t.seed = o.common.seed;
  if (o.update == "bias") t.trainable = Trainable::bias;
  else if (o.update == "head") t.trainable = Trainable::head;
  else if (o.update != "all") {
    t.trainable = Trainable::named;
    std::istringstream in(o.update);
    for (std::string name; std::getline(in, name, ',');) update.names.push_back(name);
    for (const std::string& name : update.names) {
      check_update_name(model, name);
      update.list.push_back(name.c_str());
    }
    t.names = update.list.data();
    t.name_count = static_cast<int>(update.list.size());
  }
  return t;
}

void refuse_conflict(const Fit& f, const char* option, bool same) {
  if (f.o.given(option) && !same)
    throw UsageError{
        fmt::format("{} differs from the checkpoint {}: leave it out, or start anew without --resume", option,
                    f.o.resume)};
}

bool same_graph(const Model& a, const Model& b) {
  if (a.node_count() != b.node_count() || a.parameter_count() != b.parameter_count()) return false;
  for (int i = 0; i < a.node_count(); ++i)
    if (a.node(i).op != b.node(i).op || a.node(i).shape != b.node(i).shape) return false;
  for (int i = 0; i < a.parameter_count(); ++i)
    if (a.parameter(i).shape != b.parameter(i).shape) return false;
  return true;
}

void options_from_checkpoint(Fit& f, const DataSource& source) {
  const FitOptions& o = f.o;
  TrainerOptions& t = f.options;
  f.names = Memory(std::size_t{1} << 20);
  Arena arena = f.names.arena();
  Problem problem;
  require(read_options(o.resume.c_str(), t, &arena, &problem), problem, o.resume);
  UpdateNames wanted;
  const TrainerOptions w = options_from_command_line(o, f.base->model, f.settings.others, wanted);
  const auto same = [&](const char* name) {
    return get_attribute(w.optimizer, name) == get_attribute(t.optimizer, name);
  };
  AnyOp optimizer = w.optimizer;  // --lr and --weight-decay are compared for themselves
  for (const char* name : {"lr", "weight_decay"})
    set_attribute(optimizer, name, static_cast<float>(get_attribute(t.optimizer, name)));
  refuse_conflict(f, "--batch", w.batch == t.batch);
  refuse_conflict(f, "--optimizer", same_attributes(optimizer, t.optimizer));
  refuse_conflict(f, "--lr", same("lr"));
  refuse_conflict(f, "--weight-decay", same("weight_decay"));
  refuse_conflict(f, "--schedule", same_attributes(w.schedule, t.schedule));
  refuse_conflict(f, "--warmup", w.warmup_steps == t.warmup_steps);
  refuse_conflict(f, "--clip-norm", w.clip_norm == t.clip_norm);
  refuse_conflict(f, "--clip-value", w.clip_value == t.clip_value);
  refuse_conflict(f, "--augment", same_augment(w.augment, t.augment));
  refuse_conflict(f, "--seed", w.seed == t.seed);
  refuse_conflict(f, "--label-smoothing", same_attributes(w.loss, t.loss));
  refuse_conflict(f, "--val", o.val == f.settings.val);
  refuse_conflict(f, "--others", o.others == f.settings.others);
  refuse_conflict(f, "--reject", o.reject == f.settings.reject);
  refuse_conflict(f, "--replay", (o.replay == "none" ? "" : o.replay) == f.settings.replay);
  const bool digit = preprocessing_of(f.base->model).kind == PreprocessingKind::digit;
  refuse_conflict(f, "--preprocess", (o.preprocess == "digit") == digit);
  if (!o.model.empty()) {
    bool same_update = w.trainable == t.trainable && w.name_count == t.name_count;
    for (int i = 0; same_update && i < w.name_count; ++i)
      same_update = std::string(w.names[i]) == t.names[i];
    refuse_conflict(f, "--update", same_update);
    if (f.settings.base != sha256_hex(read_file(o.model, "model")))
      fail("not the model that the run began with", o.model,
           fmt::format("give the one that {} was made from", o.resume));
  } else if (f.o.given("--arch")) {
    refuse_conflict(f, "--arch", same_graph(graph_for(o, source)->model, f.base->model));
  }
  if (o.given("--epochs")) t.epochs = o.epochs;
}

// ---- putting it together
// The last layer alone, for a moment: quick, and the others are not forgotten.
void defaults_for_few(FitOptions& o, Settings& settings, const Model& model) {
  if (!o.given("--augment")) o.augment = "digits";
  if (!o.given("--epochs")) o.epochs = 8;
  if (!o.given("--lr")) o.lr = 0.006f;
  if (!o.given("--update")) o.update = "head";
  if (!o.given("--others") && extras_of(model).threshold > 0) settings.others = 0.1;
  if (!o.given("--val")) settings.val = 0;
}

// The model to start from, with the classes that it does not know yet.
void prepare_base(Fit& f, const std::vector<DataSource>& sources) {
  FitOptions& o = f.o;
  std::unique_ptr<Network> loaded = load_network(o.model);
  check_usable(loaded->model, o.model);
  const ModelExtras extras = extras_of(loaded->model);
  const DataSource& first = sources.front();
  f.few = sources.size() == 1 && first.kind == DataKind::folder && first.pictures.paths.size() <= handful &&
          preprocessing_of(loaded->model).kind == PreprocessingKind::digit;
  f.settings.base = sha256_hex(read_file(o.model, "model"));
  f.settings.replay = o.given("--replay") ? o.replay : f.few ? default_replay() : "none";
  if (f.settings.replay == "none") f.settings.replay.clear();
  f.few = f.few && !f.settings.replay.empty();
  if (f.few) defaults_for_few(o, f.settings, loaded->model);
  if (!f.settings.replay.empty())
    fmt::print(stderr, "seen again, so that it is not forgotten: {} pictures of {}\n", replay_count,
               f.settings.replay);
  if (extras.label_count > 0) {
    const std::vector<std::string> added = new_classes(loaded->model, first);
    for (const std::string& name : added) fmt::print(stderr, "new class: {}\n", name);
    if (!added.empty()) loaded = grown(loaded->model, added, o.common.seed, o.model);
  }
  f.base = as_loaded(loaded->model, extras_of(loaded->model), f.settings, o.model);
}

bool any_test_part(const std::vector<std::string>& data) {
  return std::any_of(data.begin(), data.end(), has_test_part);
}

void prepare_model(Fit& f, const std::vector<DataSource>& sources) {
  FitOptions& o = f.o;
  const bool test = any_test_part(o.data);
  if (!o.resume.empty()) {
    f.base = load_network(o.resume);
    f.settings = settings_of(extras_of(f.base->model));
    options_from_checkpoint(f, sources.front());
    f.hold_out_test = f.settings.val == 0 && test;
    return;
  }
  f.hold_out_test = !o.given("--val") && test;
  f.settings.others = o.others;
  f.settings.reject = o.reject;
  const bool made_up = sources.front().kind == DataKind::synthetic;
  f.settings.val = o.given("--val") ? o.val : f.hold_out_test || made_up ? 0 : 0.1;
  if (o.model.empty()) f.base = new_network(o, sources.front(), f.settings);
  else prepare_base(f, sources);
  f.options = options_from_command_line(o, f.base->model, f.settings.others, f.update);
}

// The test parts of all data that have one.
Samples test_samples(const Fit& f, const Reading& reading) {
  std::vector<std::string> names;
  std::copy_if(f.o.data.begin(), f.o.data.end(), std::back_inserter(names), has_test_part);
  return samples_of_all(f.base->model, open_all(names, "t10k"), f.options.seed, reading);
}

void prepare_data(Fit& f, std::vector<DataSource>&& sources) {
  const Model& model = f.base->model;
  const std::uint64_t seed = f.options.seed;
  const Reading reading{f.pool.get(), false};
  f.train = samples_of_all(model, std::move(sources), seed, reading);
  if (f.hold_out_test) f.val = test_samples(f, reading);
  if (f.settings.val > 0) f.val = split(f.train, f.settings.val, seed);
  if (f.train.count() == 0)
    fail("no samples are left to train on", joined(f.o.data), "give more data or a smaller --val");
  if (f.options.schedule.op() == &ReduceLROnPlateau::op && f.val.count() == 0)
    throw UsageError{"--schedule plateau needs validation data: set --val"};
  if (f.settings.reject > 0 && (f.val.count() == 0 || answer_of(model) != Answer::softmax))
    throw UsageError{"--reject needs a model of classes and validation data: set --val"};
  if (!f.settings.replay.empty()) f.train = with_replay(model, f.train, f.settings.replay, seed, reading);
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

void build(Fit& f) {
  const Model& model = f.base->model;
  MemoryPlan plan;
  require(Trainer::plan(model, f.options, plan), plan.problem, f.base->name);
  f.trainer_memory = Memory(plan.total);
  f.arena_bytes = plan.total;
  Arena arena = f.trainer_memory.arena();
  require(f.trainer.build(model, f.options, arena), f.trainer.problem(), f.base->name);
  require(f.trainer.set_data(f.data), f.trainer.problem(), joined(f.o.data));
  if (!f.o.resume.empty()) require(f.trainer.resume(f.o.resume.c_str()), f.trainer.problem(), f.o.resume);
  SessionOptions s;
  s.batch = std::min(f.options.batch, 64);
  s.loss = loss_for(model);
  s.pool = f.pool.get();
  require(Session::plan(model, s, plan), plan.problem, f.base->name);
  f.session_memory = Memory(plan.total);
  Arena more = f.session_memory.arena();
  require(f.session.build(f.trainer, s, more), f.session.problem(), f.base->name);
  f.probe = first_rows(f.train, model, is_soft(f.options), s.batch);
}

// ---- what is written along the way
void start_log(Fit& f) {
  if (f.o.log.empty()) return;
  f.log = log_heading;
  if (f.o.resume.empty() || !exists(f.o.log)) return;
  const Bytes bytes = read_file(f.o.log, "log");  // rows of the epochs that are done stay
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  for (std::string line; std::getline(lines, line);) {
    const long number = std::atol(line.c_str());
    if (number >= 1 && number <= static_cast<long>(f.trainer.epoch())) f.log += line + "\n";
  }
}

std::string cell(double value) { return std::isnan(value) ? "" : fmt::format("{:.9g}", value); }

void draw_plot(const Fit& f) {
  if (f.o.plot.empty() || f.epochs.empty()) return;
  Curve train{"training", {}, {}}, val{"validation", {}, {}}, accuracy{"validation", {}, {}};
  for (const Epoch& e : f.epochs) {
    train.x.push_back(e.number), train.y.push_back(e.train_loss);
    if (!std::isnan(e.val_loss)) val.x.push_back(e.number), val.y.push_back(e.val_loss);
    if (!std::isnan(e.val_accuracy)) accuracy.x.push_back(e.number), accuracy.y.push_back(e.val_accuracy);
  }
  const std::string title = f.o.arch.empty() ? f.o.model : f.o.arch;
  write_file(f.o.plot, draw_charts(title.empty() ? f.o.out : title,
                                   {{"Loss", "epoch", "loss", {train, val}, false},
                                    {"Accuracy", "epoch", "accuracy", {{"", {}, {}}, accuracy}, true}}));
}

// Weights that are not finite, or whose loss is not, must not take the place of good ones.
void check_finite(Fit& f) {
  const Model& model = f.base->model;
  const Rows& rows = f.probe;
  std::vector<real> values;
  for (int i = 0; i < model.parameter_count(); ++i) {
    values.resize(static_cast<std::size_t>(model.parameter(i).count));
    if (!ok(f.trainer.get(i, values.data()))) continue;
    if (!std::all_of(values.begin(), values.end(), [](real v) { return std::isfinite(v); }))
      fail("weights became infinite or not a number",
           fmt::format("step {}, {}", f.trainer.step_number(), model.parameter(i).name),
           "lower --lr or set --clip-norm");
  }
  std::copy(rows.inputs.begin(), rows.inputs.end(), f.session.input().data);
  const int target = model.input_count();
  if (!rows.labels.empty())
    std::copy(rows.labels.begin(), rows.labels.end(), f.session.input_i32(target).data);
  else std::copy(rows.targets.begin(), rows.targets.end(), f.session.input(target).data);
  require(f.session.forward(rows.count), f.session.problem(), f.base->name);
  if (!std::isfinite(f.session.loss())) {  // a step would not be taken; it knows the layer
    const void* y = rows.targets.empty() ? static_cast<const void*>(rows.labels.data()) : rows.targets.data();
    require(f.trainer.step(Batch(rows.inputs.data(), y, rows.count)), f.trainer.problem(), f.base->name);
    const int last = model.node_count() - 1;
    fail("the loss is not finite",
         fmt::format("step {}, {}", f.trainer.step_number() - 1, model.node(last).name),
         "lower --lr or set --clip-norm");
  }
}

void save_checkpoint_file(Fit& f) {
  if (f.o.checkpoint.empty()) return;
  check_finite(f);
  Problem problem;
  const std::string path = final_path(f.o.checkpoint);
  require(save_checkpoint(f.trainer, path.c_str(), &problem), problem, f.o.checkpoint);
}

void end_epoch(Fit& f, Epoch e, double started) {
  if (f.val.count() > 0) {
    const Evaluation evaluation = evaluate(f.session, f.val);
    e.val_loss = evaluation.loss;
    e.val_accuracy = evaluation.accuracy;
    require(f.trainer.report(static_cast<real>(e.val_loss)), f.trainer.problem(), "validation");
  }
  e.seconds = now() - started;
  f.epochs.push_back(e);
  f.progress.clear();
  std::string line = fmt::format("epoch {}/{}  loss {:.4f}", e.number, f.options.epochs, e.train_loss);
  if (f.val.count() > 0) line += fmt::format("  validation loss {:.4f}", e.val_loss);
  if (!std::isnan(e.val_accuracy)) line += fmt::format("  accuracy {:.2f} %", 100 * e.val_accuracy);
  fmt::print(stderr, "{}  {:.1f} s\n", line, e.seconds);
  if (!f.o.log.empty()) {
    f.log += fmt::format("{},{},{},{},{:.9g},{:.3f}\n", e.number, cell(e.train_loss), cell(e.val_loss),
                         cell(e.val_accuracy), static_cast<double>(f.trainer.learning_rate()), e.seconds);
    write_file(f.o.log, f.log);
  }
  draw_plot(f);
  save_checkpoint_file(f);
}

// The end that --steps gives: what is reported once an epoch waits for the run that finishes it.
void end_inside_epoch(Fit& f, double loss) {
  f.progress.clear();
  fmt::print(stderr, "step {}  loss {:.4f}\n", f.trainer.step_number(), loss);
  if (!f.o.log.empty()) write_file(f.o.log, f.log);
  save_checkpoint_file(f);
}

int stopped(Fit& f) {
  f.progress.clear();
  save_checkpoint_file(f);
  draw_plot(f);
  const std::uint64_t step = f.trainer.step_number();
  if (f.o.checkpoint.empty())
    fmt::print(stderr, "nnlite: stopped after step {}; nothing is saved, as there is no --checkpoint\n",
               step);
  else
    fmt::print(
        stderr,
        "nnlite: stopped after step {}; to go on: nnlite {} --data {} --out {} --checkpoint {} --resume {}\n",
        step, f.o.model.empty() ? "train" : "finetune " + f.o.model, joined(f.o.data), f.o.out, f.o.checkpoint,
        f.o.checkpoint);
  return 130;
}

// ---- training
bool done(const Fit& f) {
  return f.trainer.epoch() >= static_cast<std::uint32_t>(f.options.epochs) ||
         (f.o.steps > 0 && f.trainer.step_number() >= f.o.steps);
}

// Runs to the end of the epoch in hand, or to where it was told to stop. False: Ctrl-C.
bool run_epoch(Fit& f) {
  const double started = now();
  const std::uint32_t number = f.trainer.epoch();
  double sum = 0, last_save = started;
  std::uint64_t rows = 0;
  while (!done(f) && f.trainer.epoch() == number) {
    const std::uint32_t before = f.trainer.epoch_position();
    require(f.trainer.step(), f.trainer.problem(), f.base->name);
    const std::uint32_t after = f.trainer.epoch() == number ? f.trainer.epoch_position() : f.data.count;
    sum += static_cast<double>(f.trainer.loss()) * (after - before);
    rows += after - before;
    f.progress.show(fmt::format("epoch {}/{}", number + 1, f.options.epochs), after, f.data.count,
                    fmt::format("loss {:.4f}  {:.0f} samples/s", sum / static_cast<double>(rows),
                                static_cast<double>(rows) / std::max(1e-9, now() - started)));
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
  if (f.trainer.epoch() != number) end_epoch(f, {number + 1, sum / static_cast<double>(rows)}, started);
  else end_inside_epoch(f, sum / static_cast<double>(rows));
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
  ModelExtras extras = extras_of(f.base->model);
  const std::vector<Metadata> metadata = metadata_with(extras, {});
  if (f.settings.reject > 0) extras.threshold = calibrated(f);
  extras.metadata = metadata.data();
  extras.metadata_count = static_cast<int>(metadata.size());
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

void print_result(const Fit& f, const std::string& hash) {
  fmt::print(stderr, "{} saved, sha256 {}\n", f.o.out, hash);
  if (!f.o.common.json) return;
  Json list = Json::array();
  for (const Epoch& e : f.epochs)
    list.push_back({{"epoch", e.number},
                    {"train_loss", e.train_loss},
                    {"val_loss", e.val_loss},
                    {"val_accuracy", e.val_accuracy},
                    {"seconds", e.seconds}});
  print_json({{"epochs", list}, {"model", f.o.out}, {"sha256", hash}, {"arena_bytes", f.arena_bytes}});
}

void check_outputs(const FitOptions& o) {
  const bool going_on = !o.resume.empty() && !o.checkpoint.empty() &&
                        final_path(o.resume) == final_path(o.checkpoint);
  std::vector<NamedFile> inputs = {{"MODEL", o.model}, {"--resume", going_on ? "" : o.resume}};
  for (const std::string& data : o.data) inputs.push_back({"--data", data});
  check_different({{"--out", o.out}, {"--checkpoint", o.checkpoint}, {"--log", o.log}, {"--plot", o.plot}},
                  inputs);
  if (o.update.empty()) throw UsageError{"--update: name what changes: all, bias, head or layers"};
  for (const std::string* path : {&o.out, &o.checkpoint, &o.log, &o.plot})
    if (!path->empty()) check_writable(*path);
  if (o.arch.empty() && o.model.empty() && o.resume.empty())
    throw UsageError{"--arch is required, unless --resume is given"};
}

}  // namespace

void add_fit_options(CLI::App& c, FitOptions& o) {
  o.command = &c;
  c.add_option("--data", o.data,
               "Folder with IDX files (train-*), folder of class folders, .csv, synthetic-digits[:COUNT], "
               "or synthetic; several are put together")
      ->required()
      ->allow_extra_args(false);
  c.add_option("--out", o.out, "Where the model goes, a .nnl file")->required();
  c.add_option("--epochs", o.epochs, "How often to go through the data (default 10)")
      ->check(CLI::Range(1, 1000000));
  c.add_option("--steps", o.steps, "Stop after this many steps, if they come first");
  c.add_option("--batch", o.batch, "Samples a step (default 64)")->check(CLI::Range(1, 1 << 20));
  c.add_option(
      "--optimizer", o.optimizer,
      "sgd, adagrad, rmsprop, adam or adamw, with settings: sgd:momentum=0.9,nesterov (default adam)");
  c.add_option("--lr", o.lr, "Learning rate (default: the optimizer's)")
      ->check(finite_number)
      ->check(CLI::PositiveNumber);
  c.add_option(
      "--schedule", o.schedule,
      "constant, step:step_size=5,gamma=0.3, exponential:gamma=0.9, cosine, onecycle or plateau:patience=3 "
      "(default onecycle)");
  c.add_option("--warmup", o.warmup, "Steps over which the learning rate grows first")
      ->check(CLI::NonNegativeNumber);
  c.add_option("--weight-decay", o.weight_decay, "Weight decay (default: the optimizer's)")
      ->check(finite_number);
  c.add_option("--clip-norm", o.clip_norm, "Largest norm of all gradients together")
      ->check(finite_number);
  c.add_option("--clip-value", o.clip_value, "Largest magnitude of a gradient")
      ->check(finite_number);
  c.add_option("--augment", o.augment,
               "Change pictures at random: digits, or settings: degrees=15,scale=0.1,shear=0.1,shift=2,thinner=0.3,"
               "thicker=0.3 (default none)");
  c.add_option("--label-smoothing", o.label_smoothing, "How much of each target is spread over all classes")
      ->check(finite_number)
      ->check(CLI::Range(0.0, 0.9));
  c.add_option("--others", o.others,
               "Learn what is no digit, from that many drawings of letters, symbols and noise for each sample")
      ->check(finite_number)
      ->check(CLI::Range(0.0, 1.0));
  c.add_option("--reject", o.reject,
               "Reject unsure answers: at most this share of the right ones on validation data")
      ->check(finite_number)
      ->check(CLI::Range(0.0, 0.5));
  c.add_option("--val", o.val,
               "Share of the data held out for validation (default: the t10k-* files, else 0.1)")
      ->check(finite_number)
      ->check(CLI::Range(0.0, 0.9));
  c.add_option("--checkpoint", o.checkpoint, "Where to keep what is needed to go on after a stop");
  c.add_option("--checkpoint-every", o.checkpoint_every,
               "Steps between checkpoints (default: every epoch and minute)")
      ->check(CLI::PositiveNumber);
  c.add_option("--resume", o.resume, "Go on from this checkpoint, with its settings");
  c.add_option("--log", o.log, "Write a row for every epoch, a .csv file");
  c.add_option("--plot", o.plot, "Draw loss and accuracy, an .svg file");
  add_common(c, o.common);
}

int fit(const FitOptions& o) {
  check_outputs(o);
  if (o.resume.empty()) {  // before the data is read
    parse_optimizer(o.optimizer);
    parse_schedule(o.schedule);
    parse_augment(o.augment);
  }
  Fit f(o);
  f.pool = make_pool(o.common);
  std::vector<DataSource> sources = open_all(o.data, "train");
  prepare_model(f, sources);
  f.options.pool = f.pool.get();
  prepare_data(f, std::move(sources));
  build(f);
  start_log(f);
  fmt::print(stderr, "{} samples to train on, {} for validation; {} parameters; {:.1f} MB to train in\n",
             f.train.count(), f.val.count(), f.base->model.parameter_elements(),
             static_cast<double>(f.arena_bytes) / 1e6);
  catch_interrupts();
  while (!done(f))
    if (!run_epoch(f)) return stopped(f);
  check_finite(f);
  const Bytes bytes = finished_model(f);
  write_file(o.out, bytes.data(), bytes.size());
  print_result(f, sha256_hex(bytes));
  return 0;
}
