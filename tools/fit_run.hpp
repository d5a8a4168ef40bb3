// One training run: what it owns, and its steps, one file fit_*.cpp for each subject.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data.hpp"
#include "file.hpp"
#include "fit.hpp"
#include "notes.hpp"
#include "progress.hpp"

// What --log writes: the heading, then a row for each epoch.
inline constexpr FileKind log_kind = {"log",
                                      "epoch,train_loss,val_loss,val_accuracy,learning_rate,seconds\n"};

struct Epoch {
  std::uint32_t number = 0;
  double train_loss = 0, val_loss = std::nan(""), val_accuracy = std::nan(""), seconds = 0;
  double train_seconds = 0;  // of them, without validation
};

// The epoch in hand. A checkpoint carries it, so that the log does not show where a run was stopped.
struct Running {
  double loss = 0;  // the sum over its rows
  std::uint64_t rows = 0;
  double seconds = 0;  // of the runs before this one

  double mean() const { return loss / static_cast<double>(rows); }
};

// What TrainerOptions do not hold. A checkpoint carries it, for those who resume.
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
  Samples lessons;  // what the model will carry of them
  std::unique_ptr<nnlite::ThreadPool> pool;
  Memory names, trainer_memory, session_memory;
  UpdateNames update;
  nnlite::TrainerOptions options;
  Settings settings;
  std::vector<std::string> added;  // classes that the model did not know
  bool hold_out_test = false;      // the t10k part stands in for a share
  nnlite::Dataset data;
  nnlite::Trainer trainer;
  nnlite::Session session;
  Rows probe;
  std::size_t arena_bytes = 0;
  Running running;
  unsigned at_once = 8;  // steps that a device does before it is waited for
  double started = 0;    // when this run began with the epoch in hand
  std::vector<Epoch> epochs;
  std::vector<Epoch> earlier;  // those that the log tells of
  std::string log;             // the whole file
  Progress progress;

  explicit Fit(const FitOptions& options_given) : o(options_given) {}
};

// ---- fit_options.cpp: the command line
// Fails where files cannot be read or written, or are the same.
void check_files(const FitOptions& options);
// What to type to go on after a stop.
std::string command_to_go_on(const FitOptions& options);

// ---- fit_settings.cpp
Notes notes_of(const Settings& settings, const Running& running);
Settings settings_of(const nnlite::ModelExtras& extras);
Running running_of(const nnlite::ModelExtras& extras);
// Are the targets probabilities, though the model names classes?
bool is_soft(const nnlite::TrainerOptions& options);
nnlite::TrainerOptions options_from_command_line(const FitOptions& options, const nnlite::Model& model,
                                                 double others, UpdateNames& update);
// A setting on the command line that the checkpoint has otherwise is a UsageError.
void options_from_checkpoint(Fit& f, const DataSource& source);

// ---- fit_model.cpp: the model to start from
std::unique_ptr<Network> graph_for(const FitOptions& options, const DataSource& source);
void prepare_model(Fit& f, const std::vector<DataSource>& sources);

// ---- fit_report.cpp: what is written and printed along the way
void start_log(Fit& f);
void print_start(const Fit& f);
// Fails when weights, or the loss with them, are not finite: they must not take the place of good ones.
void check_finite(Fit& f);
void save_checkpoint_file(Fit& f);
void show_progress(Fit& f, std::uint32_t number, std::size_t done);
void end_epoch(Fit& f, std::uint32_t number);
void end_inside_epoch(Fit& f);                             // the end that --steps gives
int stopped(Fit& f);                                       // after Ctrl-C: the exit code
void print_result(const Fit& f, const std::string& hash);  // of the saved model; empty: none
