// Reads the digit in a picture file: which one it is, and how sure the model is.
//
// The picture is a binary PGM (gray) or PPM (colour) file, which is easy enough to parse here. The model says
// itself how a picture becomes its input, what its outputs are called and how they become probabilities.
//
//   g++ -O2 -std=c++17 -I.. predict_digit.cpp -lpthread -o predict_digit
//   ./predict_digit ../models/lenet.nnl three.pgm
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

#include <ctype.h>
#include <math.h>
#include <stdio.h>

#include <vector>

using namespace nnlite;

static int report(const char* where, const char* what) {
  fprintf(stderr, "predict_digit: %s: %s\n", where, what);
  return 1;
}

// An arena of that many bytes, aligned to 64.
struct Memory {
  std::vector<unsigned char> bytes;
  Arena arena;
  explicit Memory(size_t n) : bytes(n + 64) {
    arena = Arena(bytes.data() + 64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64, n);
  }
};

// The next number of a header, behind blanks and comments; -1 when there is none, or it is over 16384.
static int read_number(FILE* file) {
  int c = fgetc(file), number = 0;
  while (isspace(c) || c == '#') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = fgetc(file);
    c = fgetc(file);
  }
  if (!isdigit(c)) return -1;
  for (; isdigit(c) && number <= 16384; c = fgetc(file)) number = 10 * number + (c - '0');
  return number <= 16384 && isspace(c) ? number : -1;        // the one blank behind the last number is gone
}

// "P5" or "P6", width, height, largest value, then the pixels. Empty when it is anything else.
static std::vector<uint8_t> read_pnm(const char* path, Image& image) {
  std::vector<uint8_t> pixels;
  FILE* file = fopen(path, "rb");
  if (!file) return pixels;
  const int p = fgetc(file), kind = fgetc(file);
  image.width    = read_number(file);
  image.height   = read_number(file);
  image.channels = kind == '6' ? 3 : 1;
  const int most = read_number(file);
  const bool right = p == 'P' && (kind == '5' || kind == '6') && most > 0 && most < 256;
  if (right && image.width > 0 && image.height > 0) {
    const size_t size = static_cast<size_t>(image.width) * static_cast<size_t>(image.height * image.channels);
    pixels.resize(size);
    if (fread(pixels.data(), 1, size, file) != size) pixels.clear();
    for (uint8_t& v : pixels) v = static_cast<uint8_t>(v < most ? v * 255 / most : 255);
  }
  fclose(file);
  image.pixels = pixels.data();
  return pixels;
}

// Of output `best`, when the outputs are logits: exp(y) over the sum of all.
static double probability(View<const real> y, int best) {
  double sum = 0;
  for (int i = 0; i < int(y.size()); i++) sum += exp(double(y[i]) - double(y[best]));
  return 1 / sum;
}

int main(int argc, char** argv) {
  if (argc != 3) return fprintf(stderr, "usage: predict_digit MODEL PICTURE\n"), 2;
  Image image;
  const std::vector<uint8_t> pixels = read_pnm(argv[2], image);
  if (pixels.empty()) return report(argv[2], "not a whole binary PGM or PPM picture of 8 bits");

  MappedFile file;
  if (!ok(file.open(argv[1]))) return report(argv[1], "cannot be read");
  size_t bytes = 0;
  Problem problem;
  if (!ok(load_size(file.source(), LoadOptions(), bytes, &problem))) return report(argv[1], problem.what);
  Memory records(bytes);
  Model model;
  if (!ok(model.load(file.data(), file.size(), records.arena))) return report(argv[1], model.problem().what);

  MemoryPlan plan;
  if (!ok(Session::plan(model, SessionOptions(), plan))) return report(argv[1], plan.problem.what);
  Memory memory(plan.total);
  Session session;
  Status status = session.build(model, SessionOptions(), memory.arena);
  if (ok(status)) status = session.set_image(image);
  if (ok(status)) status = session.forward();
  if (!ok(status)) return report(argv[2], describe(status));

  const int best = argmax(session.output());
  const ModelExtras none, *extras = model.extras() ? model.extras() : &none;
  if (best < extras->label_count) printf("%s", extras->labels[best]);
  else printf("%d", best);
  if (extras->answer == Answer::softmax) printf("  %.1f %%", 100 * probability(session.output(), best));
  printf("\n");
  return 0;
}
