// Reads a digit as a small device does: the model is an array in the program, used where it is; all memory is
// static; no heap, no file, no thread.
//
// digits_nnl.h is made when this is built. It holds the bytes of the model, how much memory it takes, and the
// ops that it needs: the linker leaves all others out. read_digit() is all that a device has. The picture is
// as a camera gives it: any ink on any paper, any size up to max_image.
//
//   nnlite embed ../models/digits.nnl digits_nnl.h --max-image 84
//   g++ -Os -std=c++17 -I.. -I. load_from_flash.cpp -o load_from_flash && ./load_from_flash
#define NNLITE_IMPLEMENTATION
#define NNLITE_NO_STDIO
#define NNLITE_NO_THREADS
#define NNLITE_NO_TRAINING
#include "nnlite.hpp"

#include "digits_nnl.h"

#include <stdio.h>

constexpr int side = digits_max_image;                       // of the camera's pictures, in pixels
alignas(64) static unsigned char memory[digits_arena];       // to the byte what load and build take

static nnlite::Model model;
static nnlite::Session session;

static nnlite::Status start() {
  using namespace nnlite;
  Arena arena(memory, sizeof memory);
  const LoadOptions no_other_ops = {digits_ops};
  NNLITE_TRY(model.load(digits_nnl, arena, no_other_ops));   // validated, then used in place
  SessionOptions options;
  options.derived_weights = false;
  options.max_image       = side;
  return session.build(model, options, arena);
}

// The digit that a gray picture shows; -1 when it shows none, or the model is not sure enough.
static int read_digit(const unsigned char* gray, int width, int height) {
  using namespace nnlite;
  Status status = session.set_image(Image{gray, width, height, 1});     // by the model's own preprocessing
  if (ok(status)) status = session.forward();
  if (!ok(status) || session.seen() == Seen::blank || session.seen() == Seen::several) return -1;
  const View<const real> scores = session.output();
  const bool sure = confidence(scores.data, int(scores.size())) >= model.extras()->threshold;
  return sure ? argmax(scores) : -1;
}

static const char drawing[28][29] = {
    "                            ",
    "                            ",
    "                            ",
    "                            ",
    "        .+oooo+.            ",
    "      .o########o.          ",
    "      o###o++o####.         ",
    "      +o+.    .###o         ",
    "               +##o         ",
    "               +##+         ",
    "              .###.         ",
    "           .+o##o.          ",
    "         .o####o.           ",
    "         .o######o.         ",
    "           ..++o##o.        ",
    "                o##o        ",
    "                .###.       ",
    "                .###.       ",
    "                +##o        ",
    "     .o.       .o##+        ",
    "     o##o.   .+o##o         ",
    "     .o#########o+          ",
    "       +oo###oo+.           ",
    "                            ",
    "                            ",
    "                            ",
    "                            ",
    "                            "};

int main() {
  unsigned char picture[side * side];                        // ink on paper, with light from the left
  for (int i = 0; i < side * side; i++) {
    const char c    = drawing[i / side / 3][i % side / 3];
    const int  ink  = c == '#' ? 70 : c == 'o' ? 55 : c == '+' ? 35 : c == '.' ? 15 : 0;      // per cent
    picture[i] = static_cast<unsigned char>((230 - i % side) * (100 - ink) / 100);
  }
  for (const char* line : drawing) puts(line);
  if (!nnlite::ok(start())) return puts(model.problem().what), puts(session.problem().what), 1;
  const int digit = read_digit(picture, side, side);
  printf("is read as %d\n", digit);
  return digit == 3 ? 0 : 1;
}
