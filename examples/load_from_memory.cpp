// Runs a model that lies in memory as an array, as it would in the flash of a microcontroller: no file
// system, no heap, and the weights are used where they are.
//
// The file carries what is needed to use it: labels, and how a picture becomes the input. read_letter() is
// all that a device has. Here make_file() fills the array: it trains on pictures of 2 x 2 pixels.
//
//   g++ -O2 -std=c++17 -I.. load_from_memory.cpp -o load_from_memory && ./load_from_memory
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

#include <stdio.h>
#include <string.h>

using namespace nnlite;

alignas(64) static unsigned char file[8192];                 // aligned, so that it can be used in place
static size_t file_size = 0;

static int report(const Problem& problem) {
  fprintf(stderr, "load_from_memory: %s: %s: %s\n", to_string(problem.status), problem.where, problem.what);
  return 1;
}

// Which letter a gray picture of any size shows; nullptr when something is wrong.
static const char* read_letter(const uint8_t* pixels, int width, int height) {
  alignas(64) static unsigned char memory[8192];
  Arena arena(memory, sizeof memory);
  Model model;
  Session session;
  LoadOptions options;
  static const Op* const ops[] = {&Flatten::op, &Linear::op, &ReLU::op};    // by name; only these are linked
  options.ops = OpSet{ops, 3};
  Status status = model.load(file, file_size, arena, options);                // validated: any bytes are safe
  if (ok(status)) status = session.build(model, SessionOptions(), arena);
  if (ok(status)) status = session.set_image(Image{pixels, width, height, 1});
  if (ok(status)) status = session.forward();
  return ok(status) ? model.extras()->labels[argmax(session.output())] : nullptr;
}

static bool append(void*, const void* from, size_t n) {
  if (n > sizeof file - file_size) return false;
  memcpy(file + file_size, from, n);
  file_size += n;
  return true;
}

static int make_file() {
  const float pictures[3][4] = {{0, 1, 0, 1}, {1, 1, 0, 1}, {1, 0, 1, 1}};
  const int32_t letters[3]   = {0, 1, 2};
  const char* const labels[] = {"1", "7", "L"};
  static unsigned char graph_buffer[4096];
  alignas(64) static unsigned char memory[16384];
  Model model(graph_buffer);
  Tensor x = model.chain(model.input("picture", {2, 2, 1}), Flatten{}, Linear{0, 8}, ReLU{}, Linear{0, 3});
  model.output("logits", x);
  if (!ok(model.finish(Seed{1}))) return report(model.problem());
  TrainerOptions options;
  options.batch     = 3;
  options.loss      = CrossEntropyLoss{};
  options.optimizer = Adam{0.05f};
  Arena arena(memory, sizeof memory);
  Trainer trainer;
  if (!ok(trainer.build(model, options, arena))) return report(trainer.problem());
  for (int i = 0; i < 200; i++)
    if (!ok(trainer.step(Batch{pictures, letters, 3}))) return report(trainer.problem());

  Preprocessing preprocessing;                               // pixels / 255, resized to 2 x 2
  ModelExtras extras;
  extras.preprocessing = &preprocessing;
  extras.labels        = labels;
  extras.label_count   = 3;
  extras.answer        = Answer::softmax;
  Problem problem;
  if (!ok(save(trainer, Sink{append, nullptr}, &extras, &problem))) return report(problem);
  return 0;
}

int main() {
  if (make_file() != 0) return 1;
  printf("the model file has %zu bytes\n", file_size);
  const uint8_t one[] = {0, 255, 0, 255}, seven[] = {255, 255, 0, 255};
  const uint8_t large_l[] = {250, 240, 10, 0,                // four times as many pixels: resized first
                             255, 251, 3, 9,
                             249, 230, 255, 252,
                             238, 255, 244, 251};
  const char* const expected[] = {"1", "7", "L"};
  const char* const answers[]  = {read_letter(one, 2, 2), read_letter(seven, 2, 2),
                                  read_letter(large_l, 4, 4)};
  int right = 0;
  for (int i = 0; i < 3; i++) {
    printf("a picture of %s is read as %s\n", expected[i], answers[i] ? answers[i] : "nothing");
    right += answers[i] != nullptr && strcmp(answers[i], expected[i]) == 0;
  }
  return right == 3 ? 0 : 1;
}
