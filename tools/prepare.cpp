#include "prepare.hpp"

#include <fmt/format.h>

#include "failure.hpp"

using namespace nnlite;

Preparer::Preparer(const Preprocessing& how, const Dims& input, int workers) : how_(how), input_(input) {
  if (input.rank != 3 || input.dim[2] > 4)
    fail(fmt::format("the model takes {} numbers, not pictures", size()), "the model", "give it a .csv table");
  for (int i = 0; i < workers; ++i) scratch_.emplace_back(prepare_bytes(how, largest_side, largest_side));
}

std::size_t Preparer::size() const {
  std::size_t n = 1;
  for (int i = 0; i < input_.rank; ++i) n *= static_cast<std::size_t>(input_.dim[i]);
  return n;
}

Seen Preparer::prepare(const Image& image, const std::string& name, int worker, float* to) const {
  Seen seen = Seen::one;
  const Status status = preprocess(image, how_, input_.dim[0], input_.dim[1], input_.dim[2], to,
                                   scratch_[static_cast<std::size_t>(worker)].arena(), &seen);
  if (!ok(status)) fail(describe(status), name, "give another picture");
  return seen;
}

Seen Preparer::prepare(const Picture& p, const std::string& name, int worker, float* to) const {
  return prepare(Image{p.pixels.data(), p.width, p.height, p.channels}, name, worker, to);
}

Seen Preparer::read(const std::string& path, int worker, float* to) const {
  Seen seen = Seen::one;
  with_picture(path, [&](const Picture& picture) { seen = prepare(picture, path, worker, to); });
  return seen;
}
