// Labelled samples in memory, as the readers (idx, csv, folder) hand them on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

const std::int32_t no_class = -1;

// `count()` samples, all of one shape (H, W, C for pictures, features for tables), in `bytes` or in `floats`.
struct Samples {
  std::vector<int> shape;
  std::vector<std::uint8_t> bytes;
  std::vector<float> floats;
  float scale = 1.0f / 255.0f;       // value = byte * scale
  std::vector<std::int32_t> labels;  // index into label_names, or no_class
  std::vector<float> targets;        // instead of labels, where the model answers with values
  std::vector<std::uint8_t> seen;    // nnlite::Seen, of samples that a digit front end made
  std::vector<std::string> label_names;
  std::string source;  // for messages

  std::size_t count() const { return labels.size(); }
  std::size_t sample_size() const {
    std::size_t n = 1;
    for (int d : shape) n *= static_cast<std::size_t>(d);
    return n;
  }
};
