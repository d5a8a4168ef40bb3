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
  std::size_t rejected = 0, rejected_right = 0;  // of classes; these had a right guess
  std::vector<double> right;  // the probabilities of the right answers, ascending; of classes alone
};

// The session was built with the model's loss (loss_for).
Evaluation evaluate(nnlite::Session& session, const Samples& samples);

// What the output of a model means, from its file, else from its last layer.
nnlite::Answer answer_of(const nnlite::Model& model);

// One row of output as a probability for each of the labels.
std::vector<double> probabilities(const nnlite::Model& model, const float* row);

// Why an answer should not be believed: "blank", "several digits", "noise", or "unsure" below the model's
// threshold; nullptr: it should.
const char* why_rejected(const nnlite::Model& model, nnlite::Seen seen, const std::vector<double>& p);

// The highest threshold under which at most this share of the right answers falls.
float threshold_for(const std::vector<double>& right, double share);
