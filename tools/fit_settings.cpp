// The settings of a run: from the command line, or from the checkpoint that it goes on from.
#include <fmt/format.h>

#include <cstdlib>
#include <sstream>
#include <string>

#include "attributes.hpp"
#include "augment.hpp"
#include "failure.hpp"
#include "file.hpp"
#include "fit_run.hpp"

using namespace nnlite;

namespace {

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

bool same_graph(const Model& a, const Model& b) {
  if (a.node_count() != b.node_count() || a.parameter_count() != b.parameter_count()) return false;
  for (int i = 0; i < a.node_count(); ++i)
    if (a.node(i).op != b.node(i).op || a.node(i).shape != b.node(i).shape) return false;
  for (int i = 0; i < a.parameter_count(); ++i)
    if (a.parameter(i).shape != b.parameter(i).shape) return false;
  return true;
}

std::string update_text(const TrainerOptions& t) {
  static const char* const words[] = {"all", "bias", "head"};
  if (t.trainable != Trainable::named) return words[static_cast<int>(t.trainable)];
  return fmt::format("{}", fmt::join(t.names, t.names + t.name_count, ","));
}

// An option as it was given, and what the checkpoint has, both as they would be written.
struct Setting {
  const char* option;
  std::string wanted, have;
};

[[noreturn]] void refuse_conflict(const FitOptions& o, const Setting& s) {
  throw UsageError{
      fmt::format("{} {}: the checkpoint {} has {}: leave {} out, or start anew without --resume", s.option,
                  s.wanted, o.resume, s.have, s.option)};
}

// `w` is what the command line says.
std::vector<Setting> settings_in_both(const Fit& f, const TrainerOptions& w) {
  const FitOptions& o = f.o;
  const TrainerOptions& t = f.options;
  const auto text = [](auto value) { return fmt::format("{}", value); };
  const auto of = [](const AnyOp& op, const char* name) {
    return fmt::format("{}", static_cast<float>(get_attribute(op, name)));
  };
  const std::vector<std::string> own = {"lr", "weight_decay"};  // these have options of their own
  const bool digit = preprocessing_of(f.base->model).kind == PreprocessingKind::digit;
  return {{"--augment", text_of(w.augment), text_of(t.augment)},
          {"--batch", text(w.batch), text(t.batch)},
          {"--clip-norm", text(w.clip_norm), text(t.clip_norm)},
          {"--clip-value", text(w.clip_value), text(t.clip_value)},
          {"--label-smoothing", of(w.loss, "label_smoothing"), of(t.loss, "label_smoothing")},
          {"--lr", of(w.optimizer, "lr"), of(t.optimizer, "lr")},
          {"--optimizer", text_of(w.optimizer, own), text_of(t.optimizer, own)},
          {"--others", text(o.others), text(f.settings.others)},
          {"--preprocess", o.preprocess, digit ? "digit" : "plain"},
          {"--reject", text(o.reject), text(f.settings.reject)},
          {"--replay", o.replay, f.settings.replay.empty() ? "none" : f.settings.replay},
          {"--schedule", text_of(w.schedule), text_of(t.schedule)},
          {"--seed", text(w.seed), text(t.seed)},
          {"--update", update_text(w), update_text(t)},
          {"--val", text(o.val), text(f.settings.val)},
          {"--warmup", text(w.warmup_steps), text(t.warmup_steps)},
          {"--weight-decay", of(w.optimizer, "weight_decay"), of(t.optimizer, "weight_decay")}};
}

}  // namespace

Notes notes_of(const Settings& settings, const Running& running) {
  const auto number = [](double v) { return v == 0 ? "" : fmt::format("{}", v); };
  return {{"training.base", settings.base},
          {"training.epoch.loss", number(running.loss)},
          {"training.epoch.rows", running.rows ? std::to_string(running.rows) : ""},
          {"training.epoch.seconds", number(running.seconds)},
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

Running running_of(const ModelExtras& extras) {
  return {std::atof(note(extras, "training.epoch.loss").c_str()),
          std::strtoull(note(extras, "training.epoch.rows").c_str(), nullptr, 10),
          std::atof(note(extras, "training.epoch.seconds").c_str())};
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
  check_augment(t.augment, model);
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

void options_from_checkpoint(Fit& f, const DataSource& source) {
  const FitOptions& o = f.o;
  TrainerOptions& t = f.options;
  f.names = Memory(std::size_t{1} << 20);
  Arena arena = f.names.arena();
  Problem problem;
  require(read_options(o.resume.c_str(), t, &arena, &problem), problem, o.resume,
          "give a file that --checkpoint wrote");
  UpdateNames wanted;
  const TrainerOptions w = options_from_command_line(o, f.base->model, f.settings.others, wanted);
  for (const Setting& s : settings_in_both(f, w))
    if (o.given(s.option) && s.wanted != s.have) refuse_conflict(o, s);
  if (!o.model.empty() && f.settings.base != sha256_hex(read_file(o.model, "a model")))
    fail("not the model that the run began with", o.model,
         fmt::format("give the one that {} was made from", o.resume));
  if (o.given("--arch") && !same_graph(graph_for(o, source)->model, f.base->model))
    refuse_conflict(o, {"--arch", o.arch, "another network"});
  if (o.given("--epochs")) t.epochs = o.epochs;
}
