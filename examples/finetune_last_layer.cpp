// Teaches a finished model something new by training its last layer only, in a fraction of the memory.
//
// The model is the shipped LeNet, which reads upright digits. Here every picture lies on its side. The layers
// in front of the last one stay in the mapped file: they have no gradient, no optimizer state and keep no
// activations. The program prints both plans, and how many test digits are read right before and after.
//
//   g++ -O2 -std=c++17 -I.. finetune_last_layer.cpp -lz -lpthread -o finetune_last_layer
//   ./finetune_last_layer ../models/lenet.nnl [EPOCHS]
//
// MNIST is looked for in $NNLITE_DATA/mnist, else ../shared/data/mnist from here or from the folder above:
// four IDX files, gzipped or not. tools/get_data.sh fetches them.
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"
#include "shared.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include <string>
#include <vector>

using namespace nnlite;

// A file of MNIST, gzipped or not. Without it there is nothing to do.
static gzFile open_mnist(const std::string& name) {
  std::vector<std::string> folders = {"../shared/data", "../../shared/data"};
  if (const char* data = getenv("NNLITE_DATA")) folders = {data};
  for (const std::string& folder : folders)
    for (const char* end : {".gz", ""})
      if (gzFile file = gzopen((folder + "/mnist/" + name + end).c_str(), "rb")) return file;
  printf("SKIP: no %s[.gz] in %s/mnist: fetch it with tools/get_data.sh, or set NNLITE_DATA to the folder "
         "that holds mnist/\n", name.c_str(), folders[0].c_str());
  exit(77);
}

// The bytes behind the header of an IDX file; empty when it is too short.
static std::vector<uint8_t> read_idx(const std::string& name, unsigned header, size_t bytes) {
  gzFile file = open_mnist(name);
  std::vector<uint8_t> all(header + bytes);
  const int got = gzread(file, all.data(), static_cast<unsigned>(all.size()));
  gzclose(file);
  if (got != static_cast<int>(all.size())) return {};
  return std::vector<uint8_t>(all.begin() + header, all.end());
}

// Pictures laid on their side: rows become columns.
static std::vector<float> lay_down(const std::vector<uint8_t>& images, size_t count) {
  std::vector<float> x(count * 784);
  for (size_t i = 0; i < x.size(); i++) {
    const size_t row = i / 28 % 28, column = i % 28;
    x[i] = static_cast<float>(images[i / 784 * 784 + column * 28 + row]) / 255;
  }
  return x;
}

static int report(const Problem& problem) {
  fprintf(stderr, "finetune_last_layer: %s: %s\n", problem.where, problem.what);
  return 1;
}

// How many of the digits a session reads right; -1 when it fails.
static int count_right(Session& session, const std::vector<float>& x, const std::vector<uint8_t>& digits) {
  int right = 0;
  for (size_t i = 0; i < digits.size(); i++) {
    for (int k = 0; k < 784; k++) session.input()[k] = x[i * 784 + size_t(k)];
    if (!ok(session.forward())) return -1;
    right += argmax(session.output()) == digits[i];
  }
  return right;
}

int main(int argc, char** argv) {
  const char* path = argc > 1 ? argv[1] : "models/lenet.nnl";
  const uint32_t epochs = argc > 2 ? static_cast<uint32_t>(atoi(argv[2])) : 5;
  const auto images = read_idx("train-images-idx3-ubyte", 16, 5000 * 784);
  const auto labels = read_idx("train-labels-idx1-ubyte", 8, 5000);
  const auto t10k   = read_idx("t10k-images-idx3-ubyte", 16, 10000 * 784);
  const auto digits = read_idx("t10k-labels-idx1-ubyte", 8, 10000);
  if (images.empty() || labels.empty() || t10k.empty() || digits.empty()) {
    printf("SKIP: a file of MNIST is cut off: fetch it again with tools/get_data.sh\n");
    return 77;
  }
  const auto x = lay_down(images, 5000), questions = lay_down(t10k, 10000);

  MappedFile file;
  Model model;
  Memory records(16384);
  if (!ok(file.open(path))) return fprintf(stderr, "finetune_last_layer: %s cannot be read\n", path), 1;
  if (!ok(model.load(file.data(), file.size(), records.arena))) return report(model.problem());

  TrainerOptions options;
  options.batch     = 32;
  options.loss      = CrossEntropyLoss{};
  options.optimizer = Adam{0.003f};
  MemoryPlan all, head, run;
  if (!ok(Trainer::plan(model, options, all))) return report(all.problem);
  options.trainable = Trainable::head;                       // the last layer with parameters
  if (!ok(Trainer::plan(model, options, head))) return report(head.problem);
  if (!ok(Session::plan(model, SessionOptions(), run))) return report(run.problem);
  printf("training all layers takes %zu bytes, the last one %zu\n", all.total, head.total);

  Memory memory(head.total + run.total);
  Trainer trainer;
  Session session;
  if (!ok(trainer.build(model, options, memory.arena))) return report(trainer.problem());
  if (!ok(session.build(trainer, SessionOptions(), memory.arena))) return report(session.problem());
  Dataset data;
  data.count      = 5000;
  data.columns[0] = Column{x.data(), DType::f32};
  data.columns[1] = Column{labels.data(), DType::u8};
  if (!ok(trainer.set_data(data))) return report(trainer.problem());
  const int before = count_right(session, questions, digits);
  while (trainer.epoch() < epochs)
    if (!ok(trainer.step())) return report(trainer.problem());
  const int after = count_right(session, questions, digits);
  printf("digits on their side read right: %.2f %% before, %.2f %% after\n", before / 100.0, after / 100.0);
  return after > before ? 0 : 1;
}
