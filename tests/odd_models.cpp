// Writes the .nnl files of cli_bad_input.sh that hold what the library takes and the program cannot use.
#include <cstdio>

#include "nnlite.hpp"

using namespace nnlite;

namespace {

unsigned char records[65536];
alignas(64) unsigned char weights[1 << 20];

bool write(Model& model, const char* path, const ModelExtras* extras = nullptr) {
  if (!ok(model.finish(Seed{1}))) return false;
  Arena arena(weights, sizeof weights);
  return ok(model.materialise(arena)) && ok(save(model, path, extras));
}

bool input_only(const char* path, const Dims& dims, DType dtype) {
  Model model(records);
  model.output("y", model.input("x", dims, dtype));
  return write(model, path);
}

bool one_label() {
  static const char* const label[] = {"cat"};
  Model model(records);
  model.output("y", model.chain(model.input("x", {28, 28, 1}), Flatten{}, Linear{784, 1}, Sigmoid{}));
  const Preprocessing plain;
  ModelExtras extras;
  extras.preprocessing = &plain;
  extras.labels = label;
  extras.label_count = 1;
  extras.answer = Answer::threshold;
  extras.threshold = 0.5f;
  return write(model, "one_label.nnl", &extras);
}

bool huge_scale() {
  Model model(records);
  model.output("y", model.chain(model.input("x", {28, 28, 1}), Flatten{}, Linear{784, 10}));
  Preprocessing huge;
  huge.scale = 3e38f;
  ModelExtras extras;
  extras.preprocessing = &huge;
  return write(model, "huge_scale.nnl", &extras);
}

}  // namespace

int main() {
  const bool written = input_only("input_only.nnl", {1, 1, 1}, real_dtype) &&
                       input_only("input_only10.nnl", {10}, real_dtype) &&
                       input_only("whole_numbers.nnl", {5}, DType::i32) && one_label() && huge_scale();
  if (!written) std::fprintf(stderr, "odd_models: cannot write\n");
  return written ? 0 : 1;
}
