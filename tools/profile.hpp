// Where the time of a pass or a training step goes: what `nnlite bench --profile` prints.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nnlite.hpp"

// Give watch() to a session or trainer, call begin() before each run of it. What is kept of a run is its
// steps' times; the first run says what the steps are.
class Profile {
 public:
  // Where there is a backend, each step is waited for.
  Profile(const nnlite::Model& model, const nnlite::Backend* backend) : model_(model), backend_(backend) {}
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  const nnlite::Watch* watch() const { return &watch_; }
  void begin();

  // One object a step, in order: layer, op, phase, kernel, us (the median), percent (of the steps' sum),
  // gflops, percent_of_peak (of so many GFLOP/s; 0: unknown), bytes (that the step reads and writes, each once).
  nlohmann::ordered_json json(double peak) const;

 private:
  struct Row {
    std::string layer, op, phase, kernel;
    double flop = 0;
    std::int64_t bytes = 0;
  };
  static void see(void* user, const nnlite::StepView* step);
  Row row_of(const nnlite::StepView& step) const;
  double median_us(std::size_t row) const;

  const nnlite::Model& model_;
  const nnlite::Backend* backend_;
  nnlite::Watch watch_ = {see, this};
  std::vector<Row> rows_;
  std::vector<double> seconds_;  // of run r, step s: [r % kept][s]
  std::size_t runs_ = 0, step_ = 0;
  double last_ = 0;
};

// As text, a line a step, widest first column.
void print_profile(const nlohmann::ordered_json& profile, double peak);
