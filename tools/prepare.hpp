// From a picture to a model's input: the same for files, folders and data sets.
#pragma once

#include <string>
#include <vector>

#include "memory.hpp"
#include "nnlite.hpp"
#include "picture.hpp"

class Preparer {
 public:
  // For as many pictures at a time as there are workers.
  Preparer(const nnlite::Preprocessing& how, const nnlite::Dims& input, int workers);

  // Writes the picture to `to` as the model wants it, and says what the digit kind saw. `name` is for messages.
  nnlite::Seen prepare(const nnlite::Image& image, const std::string& name, int worker, float* to) const;
  nnlite::Seen prepare(const Picture& picture, const std::string& name, int worker, float* to) const;
  nnlite::Seen read(const std::string& path, int worker, float* to) const;

  std::size_t size() const;  // of an input

 private:
  nnlite::Preprocessing how_;
  nnlite::Dims input_;
  std::vector<Memory> scratch_;
};
