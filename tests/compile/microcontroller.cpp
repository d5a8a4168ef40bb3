// Runs a model of Linear and ReLU from flash, on a machine without an operating system or a C library.
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

extern "C" {
// What compilers call on their own.
void* memcpy(void* to, const void* from, size_t n) {
  unsigned char* d = static_cast<unsigned char*>(to);
  const unsigned char* s = static_cast<const unsigned char*>(from);
  for (; n > 0; n--) {
    *d++ = *s++;
    asm volatile("");
  }
  return to;
}
void* memset(void* to, int value, size_t n) {
  unsigned char* d = static_cast<unsigned char*>(to);
  for (; n > 0; n--) {
    *d++ = static_cast<unsigned char>(value);
    asm volatile("");
  }
  return to;
}
int memcmp(const void* a, const void* b, size_t n) {
  const unsigned char *x = static_cast<const unsigned char*>(a), *y = static_cast<const unsigned char*>(b);
  for (; n > 0; n--, x++, y++)
    if (*x != *y) return *x < *y ? -1 : 1;
  return 0;
}

extern const unsigned char model_file[];
extern const size_t model_size;
alignas(64) static unsigned char memory[16 * 1024];

int read_model(const float* x, int count) {
  using namespace nnlite;
  static const Op* const ops[] = {&Linear::op, &ReLU::op};
  const LoadOptions options{{ops, 2}, {}, false};
  Arena arena(memory, sizeof memory);
  Model model;
  Session session;
  Status status = model.load(model_file, model_size, arena, options);
  if (ok(status)) status = session.build(model, SessionOptions(), arena);
  for (int i = 0; i < count && ok(status); i++) session.input()[i] = x[i];
  if (ok(status)) status = session.forward();
  return ok(status) ? argmax(session.output()) : -1;
}
}
