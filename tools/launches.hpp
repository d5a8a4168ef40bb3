// What a GPU would do for a model: what `nnlite info --cuda` prints.
#pragma once

#include <string>
#include <vector>

#include "nnlite.hpp"

// The ops of the header that a backend must have a row for, and has none, in order.
std::vector<std::string> ops_without_rows(const nnlite::Backend& backend);

// A step: the layer, or "loss", what runs for it, and what that launches, as "Window 12 x 256": for what, and so many
// blocks of threads. None: what follows does it, too. An addition of gradients has no op, and the row "add".
struct Launch {
  std::string layer, op, phase, row;
  std::vector<std::string> launches;
};

// The steps of a pass or of a training step, in order, on a GPU of this precision: the model has weights, nothing is
// computed and no device is asked.
std::vector<Launch> launches_of(const nnlite::Model& model, nnlite::SessionOptions options, nnlite::Precision p);
std::vector<Launch> launches_of(const nnlite::Model& model, nnlite::TrainerOptions options, nnlite::Precision p);
