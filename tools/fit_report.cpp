// What training writes and prints along the way: log, plot, checkpoints, lines on stderr.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "evaluate.hpp"
#include "failure.hpp"
#include "fit_run.hpp"
#include "plot.hpp"

using namespace nnlite;

namespace {

// Losses that grow without end have no use for their last digits.
std::string loss_text(double loss) { return fmt::format(std::fabs(loss) < 1e6 ? "{:.4f}" : "{:.4g}", loss); }

std::string cell(double value) { return std::isnan(value) ? "" : fmt::format("{:.9g}", value); }

void draw_plot(const Fit& f) {
  if (f.o.plot.empty() || f.epochs.empty()) return;
  Curve train{"training", {}, {}}, val{"validation", {}, {}}, accuracy{"validation", {}, {}};
  std::vector<Epoch> all = f.earlier;
  all.insert(all.end(), f.epochs.begin(), f.epochs.end());
  for (const Epoch& e : all) {
    train.x.push_back(e.number), train.y.push_back(e.train_loss);
    if (!std::isnan(e.val_loss)) val.x.push_back(e.number), val.y.push_back(e.val_loss);
    if (!std::isnan(e.val_accuracy)) accuracy.x.push_back(e.number), accuracy.y.push_back(e.val_accuracy);
  }
  const std::string title = f.o.arch.empty() ? f.o.model : f.o.arch;
  write_file(f.o.plot, draw_charts(title.empty() ? f.o.out : title,
                                   {{"Loss", "epoch", "loss", {train, val}, false},
                                    {"Accuracy", "epoch", "accuracy", {{"", {}, {}}, accuracy}, true}}));
}

// A row of the log; without a number where it is none.
Epoch epoch_of(const std::string& row) {
  std::istringstream cells(row);
  double values[4];
  for (double& v : values) {
    std::string text;
    v = std::getline(cells, text, ',') && !text.empty() ? std::atof(text.c_str()) : std::nan("");
  }
  Epoch e;
  if (values[0] >= 1 && values[0] <= 1e6 && !std::isnan(values[1]))
    e.number = static_cast<std::uint32_t>(values[0]);
  e.train_loss = values[1], e.val_loss = values[2], e.val_accuracy = values[3];
  return e;
}

// How it went in the epoch in hand, so far.
Epoch measured(Fit& f, std::uint32_t number) {
  Epoch e;
  e.number = number + 1;
  e.train_loss = f.running.mean();
  e.train_seconds = f.running.seconds + now() - f.started;
  if (f.val.count() > 0) {
    const Evaluation evaluation = evaluate(f.session, f.val);
    e.val_loss = evaluation.loss;
    e.val_accuracy = evaluation.accuracy;
  }
  e.seconds = f.running.seconds + now() - f.started;
  return e;
}

// A line on stderr, a row of the log, a point of the plot.
void record(Fit& f, const Epoch& e, const std::string& title) {
  f.epochs.push_back(e);
  f.progress.clear();
  std::string line = fmt::format("{}  loss {}", title, loss_text(e.train_loss));
  if (f.val.count() > 0) line += "  validation loss " + loss_text(e.val_loss);
  if (!std::isnan(e.val_accuracy)) line += fmt::format("  accuracy {:.2f} %", 100 * e.val_accuracy);
  fmt::print(stderr, "{}  {:.1f} s\n", line, e.seconds);
  if (!f.o.log.empty()) {
    f.log += fmt::format("{},{},{},{},{:.9g},{:.3f}\n", e.number, cell(e.train_loss), cell(e.val_loss),
                         cell(e.val_accuracy), static_cast<double>(f.trainer.learning_rate()), e.seconds);
    write_file(f.o.log, f.log);
  }
  draw_plot(f);
}

Json json_of(const Epoch& e) {
  return {{"epoch", e.number},      {"train_loss", e.train_loss},
          {"val_loss", e.val_loss}, {"val_accuracy", e.val_accuracy},
          {"seconds", e.seconds},   {"train_seconds", e.train_seconds}};
}

}  // namespace

void start_log(Fit& f) {
  if (f.o.log.empty()) return;
  f.log = log_kind.mark;
  if (f.o.resume.empty() || !exists(f.o.log)) return;
  const Bytes bytes = read_file(f.o.log, "a log");  // rows of the epochs that are done stay
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  for (std::string line; std::getline(lines, line);) {
    const Epoch e = epoch_of(line);
    if (e.number < 1 || e.number > f.trainer.epoch()) continue;
    f.log += line + "\n";
    f.earlier.push_back(e);
  }
}

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
  Running running = f.running;
  if (running.rows > 0) running.seconds += now() - f.started;
  const Notes notes = notes_of(f.settings, running);
  const std::vector<Metadata> metadata = metadata_with(extras_of(f.base->model), notes);
  const ModelExtras extras = with_metadata(extras_of(f.base->model), metadata);
  require(save_checkpoint(f.trainer, path.c_str(), &extras, &problem), problem, f.o.checkpoint,
          "free some space or choose another place for --checkpoint");
}

void show_progress(Fit& f, std::uint32_t number, std::size_t done) {
  const double seconds = f.running.seconds + now() - f.started;
  f.progress.show(fmt::format("epoch {}/{}", number + 1, f.options.epochs), done, f.data.count,
                  fmt::format("loss {}  {:.0f} samples/s", loss_text(f.running.mean()),
                              static_cast<double>(f.running.rows) / std::max(1e-9, seconds)));
}

void end_epoch(Fit& f, std::uint32_t number) {
  const Epoch e = measured(f, number);
  if (f.val.count() > 0)
    require(f.trainer.report(static_cast<real>(e.val_loss)), f.trainer.problem(), "validation");
  f.running = {};
  f.started = now();
  record(f, e, fmt::format("epoch {}/{}", e.number, f.options.epochs));
  save_checkpoint_file(f);
}

void end_inside_epoch(Fit& f) {
  save_checkpoint_file(f);
  record(f, measured(f, f.trainer.epoch()), fmt::format("step {}", f.trainer.step_number()));
}

int stopped(Fit& f) {
  f.progress.clear();
  save_checkpoint_file(f);
  draw_plot(f);
  const std::uint64_t step = f.trainer.step_number();
  if (f.o.checkpoint.empty())
    fmt::print(stderr, "nnlite: stopped after step {}; nothing is saved, as there is no --checkpoint\n",
               step);
  else fmt::print(stderr, "nnlite: stopped after step {}; to go on: {}\n", step, command_to_go_on(f.o));
  print_result(f, "");
  return 130;
}

void print_start(const Fit& f) {
  for (const std::string& name : f.added) fmt::print(stderr, "new class: {}\n", name);
  const double bytes = static_cast<double>(f.arena_bytes);
  fmt::print(stderr, "{} samples to train on, {} for validation; {} parameters; {} to train in\n",
             f.train.count(), f.val.count(), f.base->model.parameter_elements(),
             bytes < 1e6 ? fmt::format("{:.1f} KB", bytes / 1e3) : fmt::format("{:.1f} MB", bytes / 1e6));
}

void print_result(const Fit& f, const std::string& hash) {
  const bool saved = !hash.empty();
  if (saved) fmt::print(stderr, "{} saved, sha256 {}\n", f.o.out, hash);
  if (!f.o.common.json) return;
  Json list = Json::array(), unfinished = nullptr;
  if (f.running.rows > 0) unfinished = {{"epoch", f.trainer.epoch() + 1}, {"train_loss", f.running.mean()}};
  for (const Epoch& e : f.epochs)
    if (e.number <= f.trainer.epoch()) list.push_back(json_of(e));
    else unfinished = json_of(e);
  print_json({{"epochs", list},
              {"step", f.trainer.step_number()},
              {"unfinished", unfinished},
              {"model", saved ? Json(f.o.out) : Json(nullptr)},
              {"sha256", saved ? Json(hash) : Json(nullptr)},
              {"arena_bytes", f.arena_bytes}});
}
