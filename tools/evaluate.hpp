// How good a model is on labelled samples, and what its outputs say.
#pragma once

#include <cstdint>
#include <vector>

#include "data.hpp"
#include "nnlite.hpp"

struct Evaluation {
  double loss = 0;      // mean over the samples
  double accuracy = 0;  // NaN where answers are not classes
  std::size_t count = 0;
  std::vector<std::uint32_t> confusion;  // [target][answer]
  int classes = 0;
};

// The session was built with the model's loss (loss_for).
Evaluation evaluate(nnlite::Session& session, const Samples& samples);

// What the output of a model means, from its file, else from its last layer.
nnlite::Answer answer_of(const nnlite::Model& model);

// One row of output as a probability for each of the labels.
std::vector<double> probabilities(const nnlite::Model& model, const float* row);
