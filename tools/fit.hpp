// Training, as `train` and `finetune` do it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "command.hpp"

// The options of both. What was not given on the command line comes from the checkpoint when there is one
// to resume.
struct FitOptions {
  Common common;
  std::string arch;   // train
  std::string model;  // finetune
  std::string update = "all";
  std::vector<std::string> data;
  std::string preprocess;  // train; empty: as the data needs
  std::string replay;                // finetune
  std::string out, checkpoint, resume, log, plot;
  std::string optimizer = "adam", schedule = "onecycle", augment = "none";
  int epochs = 10, batch = 64, warmup = 0, checkpoint_every = 0;
  std::uint64_t steps = 0;
  float lr = 0, weight_decay = 0, clip_norm = 0, clip_value = 0, label_smoothing = 0;
  double val = 0, others = 0, reject = 0;
  CLI::App* command = nullptr;

  // False too where the subcommand has no such option.
  bool given(const char* name) const {
    const CLI::Option* option = command->get_option_no_throw(name);
    return option != nullptr && option->count() > 0;
  }
};

void add_fit_options(CLI::App& command, FitOptions& options);

// Returns what the program exits with: 0, or 130 after Ctrl-C.
int fit(const FitOptions& options);
