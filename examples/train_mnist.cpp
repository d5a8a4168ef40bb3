// Trains LeNet on MNIST and says how many of the 10,000 test digits it reads right.
//
// It shows a data set that the trainer draws from: the pixels stay bytes in memory, the trainer shuffles and
// scales them and makes the smaller last batch of an epoch. A thread pool makes it faster and changes no bit.
//
//   g++ -O2 -std=c++17 -I.. train_mnist.cpp -lz -lpthread -o train_mnist && ./train_mnist [EPOCHS [SAMPLES]]
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

static int report(const Problem& problem) {
  return fprintf(stderr, "train_mnist: %s: %s: %s\n", to_string(problem.status), problem.where, problem.what), 1;
}

// How many of the pictures the session reads right, a hundred at a time; -1 when something is wrong.
static int count_right(Session& session, const std::vector<uint8_t>& pixels, const std::vector<uint8_t>& answers) {
  int right = 0;
  for (size_t first = 0; first < answers.size(); first += 100) {
    for (int i = 0; i < 100 * 784; i++) session.input()[i] = real(pixels[first * 784 + size_t(i)]) / 255;
    if (!ok(session.forward(100))) return -1;
    for (int r = 0; r < 100; r++) right += argmax(session.output().row(r), 10) == answers[first + size_t(r)];
  }
  return right;
}

int main(int argc, char** argv) {
  const uint32_t epochs  = argc > 1 ? static_cast<uint32_t>(atoi(argv[1])) : 3;
  const uint32_t samples = argc > 2 ? static_cast<uint32_t>(atoi(argv[2])) : 60000;
  const auto images    = read_idx("train-images-idx3-ubyte", 16, 60000 * 784);
  const auto labels    = read_idx("train-labels-idx1-ubyte", 8, 60000);
  const auto questions = read_idx("t10k-images-idx3-ubyte", 16, 10000 * 784);
  const auto answers   = read_idx("t10k-labels-idx1-ubyte", 8, 10000);
  if (images.empty() || labels.empty() || questions.empty() || answers.empty()) {
    printf("SKIP: a file of MNIST is cut off: fetch it again with tools/get_data.sh\n");
    return 77;
  }

  static unsigned char graph_buffer[8192];
  Model model(graph_buffer);
  Tensor x = model.input("image", {28, 28, 1});
  x = model.add("conv1", Conv2d{1, 6, 5, 1, 2}, x);          // in, out, kernel_size, stride, padding
  x = model.chain(x, ReLU{}, MaxPool2d{2});
  x = model.add("conv2", Conv2d{6, 16, 5}, x);
  x = model.chain(x, ReLU{}, MaxPool2d{2}, Flatten{});
  x = model.chain(x, Linear{0, 120}, ReLU{}, Linear{0, 84}, ReLU{}, Linear{0, 10});       // 0 means infer
  model.output("logits", x);
  if (!ok(model.finish(Seed{1}))) return report(model.problem());

  ThreadPool pool(2);
  TrainerOptions options;
  options.batch     = 64;
  options.loss      = CrossEntropyLoss{};
  options.optimizer = SGD{0.05f, 0.9f};                      // lr, momentum
  options.schedule  = OneCycleLR{};
  options.epochs    = static_cast<int>(epochs);
  options.pool      = &pool;
  MemoryPlan plan;
  if (!ok(Trainer::plan(model, options, plan))) return report(plan.problem);
  printf("training takes %zu bytes\n", plan.total);
  Memory memory(plan.total);
  Trainer trainer;
  if (!ok(trainer.build(model, options, memory.arena))) return report(trainer.problem());

  Dataset data;
  data.count      = samples < 60000 ? samples : 60000;
  data.columns[0] = Column{images.data(), DType::u8, 1.0f / 255};
  data.columns[1] = Column{labels.data(), DType::u8};
  if (!ok(trainer.set_data(data))) return report(trainer.problem());
  while (trainer.epoch() < epochs) {
    if (!ok(trainer.step())) return report(trainer.problem());
    if (trainer.step_number() % 100 != 0) continue;
    printf("epoch %u  loss %.4f\n", trainer.epoch() + 1, double(trainer.loss()));
  }

  SessionOptions run;
  run.batch = 100;
  run.pool  = &pool;
  if (!ok(Session::plan(model, run, plan))) return report(plan.problem);
  Memory session_memory(plan.total);
  Session session;
  if (!ok(session.build(trainer, run, session_memory.arena))) return report(session.problem());
  const int right = count_right(session, questions, answers);
  if (right < 0) return report(session.problem());
  printf("test accuracy %.2f %%\n", right / 100.0);
  return right > 9000 ? 0 : 1;
}
