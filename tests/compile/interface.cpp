// The header alone, first in the file; with implementation.cpp a program of two translation units.
#include "nnlite.hpp"

int main() {
  alignas(64) static unsigned char memory[1 << 16];
  static unsigned char records[8192];
  nnlite::Arena arena(memory, sizeof memory);
  nnlite::Model model(records);
  nnlite::Session session;
  nnlite::Tensor x = model.input("x", {4});
  model.output("y", model.chain(x, nnlite::Linear{0, 3}, nnlite::ReLU{}));
  nnlite::Status status = model.finish(nnlite::Seed{1});
  if (ok(status)) status = model.materialise(arena);
  if (ok(status)) status = session.build(model, nnlite::SessionOptions(), arena);
  if (ok(status)) status = session.forward();
  return ok(status) ? 0 : 1;
}
