// What a backend would do for a model: what `nnlite info --cuda` prints.
#pragma once

#include <string>
#include <vector>

#include "nnlite.hpp"

// The ops of the header that a backend must have a row for, and has none, in order.
std::vector<std::string> ops_without_rows(const nnlite::Backend& backend);

// A step: the layer, or "loss", and what runs for it. An addition of gradients has no op, and the row "add".
struct Launch {
  std::string layer, op, phase, row;
};

// The steps of a pass or of a training step, in order, from the rows of options.backend alone: the model has
// weights, nothing is computed and no device is asked.
std::vector<Launch> launches_of(const nnlite::Model& model, nnlite::SessionOptions options);
std::vector<Launch> launches_of(const nnlite::Model& model, nnlite::TrainerOptions options);
