// Reads a digit as a small device does: the model is an array in the program, used where it is; all memory is
// static; no heap, no file, no thread.
//
// digits_nnl.h is made when this is built. It holds the bytes of the model, how much memory it takes, and the
// ops that it needs: the linker leaves all others out. read_digit() is all that a device has.
//
//   nnlite embed ../models/lenet.nnl digits_nnl.h
//   g++ -Os -std=c++17 -I.. -I. load_from_flash.cpp -o load_from_flash && ./load_from_flash
#define NNLITE_IMPLEMENTATION
#define NNLITE_NO_STDIO
#define NNLITE_NO_THREADS
#define NNLITE_NO_TRAINING
#include "nnlite.hpp"

#include "digits_nnl.h"

#include <stdio.h>

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
  return session.build(model, options, arena);
}

// The digit that a gray picture of any size shows; -1 when something is wrong.
static int read_digit(const unsigned char* gray, int width, int height) {
  using namespace nnlite;
  Status status = session.set_image(Image{gray, width, height, 1});     // by the model's own preprocessing
  if (ok(status)) status = session.forward();
  return ok(status) ? argmax(session.output()) : -1;
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
  unsigned char picture[28 * 28];
  for (int i = 0; i < 28 * 28; i++) {
    const char ink   = drawing[i / 28][i % 28];
    picture[i] = ink == '#' ? 255 : ink == 'o' ? 190 : ink == '+' ? 120 : ink == '.' ? 60 : 0;
  }
  for (const char* line : drawing) puts(line);
  if (!nnlite::ok(start())) return puts(model.problem().what), puts(session.problem().what), 1;
  const int digit = read_digit(picture, 28, 28);
  printf("is read as %d\n", digit);
  return digit == 3 ? 0 : 1;
}
