// The model that training starts from: new, given, or that of a checkpoint.
#include <fmt/format.h>

#include <algorithm>

#include "arch.hpp"
#include "evaluate.hpp"
#include "failure.hpp"
#include "file.hpp"
#include "fit_data.hpp"
#include "fit_run.hpp"

using namespace nnlite;

namespace {

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

// A model built here passes through the form of a file, like one that was loaded: so a checkpoint carries
// labels, preprocessing and notes, whichever way the model came.
std::unique_ptr<Network> as_loaded(const Model& model, ModelExtras extras, const Settings& settings,
                                   const std::string& name) {
  const Notes notes = notes_of(settings, {});
  const std::vector<Metadata> metadata = metadata_with(extras, notes);
  extras = with_metadata(extras, metadata);
  extras.golden_count = 0;  // of other weights
  return load_network(serialise(model, extras), name);
}

std::unique_ptr<Network> new_network(const FitOptions& o, const DataSource& source,
                                     const Settings& settings) {
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

// The last layer alone, for a moment: quick, and the others are not forgotten.
void defaults_for_lesson(FitOptions& o, Settings& settings, const Model& model) {
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
  const bool lesson = is_lesson(loaded->model, sources);
  f.settings.base = sha256_hex(read_file(o.model, "a model"));
  f.settings.replay = o.given("--replay")                     ? o.replay
                      : lesson && reads_digits(loaded->model) ? default_replay()
                                                              : "none";
  if (f.settings.replay == "none") f.settings.replay.clear();
  if (lesson && !f.settings.replay.empty()) defaults_for_lesson(o, f.settings, loaded->model);
  if (extras.label_count > 0) {
    f.added = new_classes(loaded->model, sources.front());
    if (!f.added.empty()) loaded = grown(loaded->model, f.added, o.common.seed, o.model);
  }
  f.base = as_loaded(loaded->model, extras_of(loaded->model), f.settings, o.model);
}

bool any_test_part(const std::vector<std::string>& data) {
  return std::any_of(data.begin(), data.end(), has_test_part);
}

}  // namespace

std::unique_ptr<Network> graph_for(const FitOptions& o, const DataSource& source) {
  ArchWish wish;
  Dims own;
  const bool digit = o.preprocess == "digit";
  const bool named = named_arch(o.arch, own);
  if (source.kind == DataKind::folder || source.kind == DataKind::table)
    wish.classes = static_cast<int>(source.label_names().size());
  if (wish.classes == 1)
    fail("a single class", source.name, "give at least two, or add it to a model with nnlite finetune");
  if (source.kind != DataKind::synthetic && (!named || (o.arch == "mlp" && source.kind == DataKind::table)))
    wish.input = digit ? Dims(28, 28, 1) : data_shape(source);
  if (named && own.rank == 3 && source.kind == DataKind::table && o.arch != "mlp")
    fail(fmt::format("a table for {}, which takes pictures", o.arch), source.name,
         "choose --arch mlp or a list of layers");
  std::unique_ptr<Network> graph = build_arch(o.arch, wish, Seed{o.common.seed});
  const Dims input = dims_of(graph->model.input_shape(0));
  if (digit && (input.rank != 3 || input.dim[2] != 1 || std::min(input.dim[0], input.dim[1]) < 20))
    throw UsageError{
        "--preprocess digit, which is meant unless --preprocess plain is given, makes pictures of one "
        "channel: choose --arch lenet, mlp, cnn99 or a list of layers, or --preprocess plain"};
  return graph;
}

void prepare_model(Fit& f, const std::vector<DataSource>& sources) {
  FitOptions& o = f.o;
  const bool test = any_test_part(o.data);
  if (!o.resume.empty()) {
    f.base = load_network(o.resume);
    f.settings = settings_of(extras_of(f.base->model));
    f.running = running_of(extras_of(f.base->model));
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
