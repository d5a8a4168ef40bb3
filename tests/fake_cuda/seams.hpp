// What nnlite_cuda.cu has of CUDA, of this machine's CPU instead: -DNNLITE_CUDA_SEAMS='"fake_cuda/seams.hpp"'.
#ifndef NNLITE_FAKE_SEAMS_HPP
#define NNLITE_FAKE_SEAMS_HPP

#include <string.h>

#include <tuple>

#include "fake_cuda.hpp"

#define NNLITE_SHARED
#define NNLITE_DEVICE
#define NNLITE_GLOBAL
#define NNLITE_THREADS(n, blocks)
#define NNLITE_UNROLL

namespace nnlite_gpu {
using namespace fake;
using Stream     = fake::Stream*;
using Graph      = fake::Graph*;
using Recording  = fake::Recording*;
using Multiplier = fake::Multiplier*;

inline bool no_memory(Error e) { return e == fake::no_memory_error; }

template <class... P>
struct Call {
  std::tuple<P...> arguments;                  // first: fake::launch looks at them
  bool overlaps;
  void (*kernel)(P...);
  static void run(void* p) {
    const Call& call = *static_cast<const Call*>(p);
    fake::here.follows = false;
    std::apply(call.kernel, call.arguments);
    if (call.overlaps && !fake::here.follows) fake::early();
  }
};
template <class... P, class... A>
inline Error launch(Stream s, bool overlaps, void (*kernel)(P...), Grid grid, unsigned threads, size_t shared,
                    A... arguments) {
  static_assert((sizeof(P) + ... + 0) <= 4096, "CUDA has no room for that many arguments");
  const std::tuple<P...> values(arguments...);
  const auto call = std::make_shared<Call<P...>>(Call<P...>{values, overlaps, kernel});
  return fake::launch(s, {__PRETTY_FUNCTION__, Call<P...>::run, call, sizeof(values), grid, threads, shared});
}

// Inside a kernel. The line tells one barrier from another.
inline void     follow() { fake::here.follows = true; }
inline unsigned thread() { return fake::here.thread; }
inline unsigned threads() { return fake::here.threads; }
inline Grid     block() { return fake::here.block; }
inline Grid     blocks() { return fake::here.blocks; }
inline void     barrier(int line = __builtin_LINE()) { fake::barrier(line); }
template <class T>
inline T shuffle_xor(T value, int lanes, int line = __builtin_LINE()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles words");
  uint64_t word = 0;
  memcpy(&word, &value, sizeof(T));
  word = fake::shuffle_xor(word, lanes, line);
  memcpy(&value, &word, sizeof(T));
  return value;
}
template <int n>
struct Lanes {
  const uint32_t* all;
  explicit Lanes(const float (&values)[size_t(n)], int line = __builtin_LINE()) {
    uint32_t words[size_t(n)];
    memcpy(words, values, sizeof(words));
    all = fake::exchange(words, n, line);
  }
  float of(int lane, int i) const {
    float value = 0;
    memcpy(&value, all + lane * n + i, sizeof(value));
    return value;
  }
};
// Until its wait a copy leaves NaN.
template <int floats>
inline void copy_async(float* to, const float* from, bool there) {
  fake::Copies& all = fake::copies();
  fake::Copies::Copy copy = {to, sizeof(float) * floats, {}, all.group};
  const auto misses = [&](const float* p) { return reinterpret_cast<uintptr_t>(p) % copy.bytes != 0; };
  if (misses(to) || (there && misses(from))) fake::misaligned_copy();
  if (there) memcpy(copy.values, from, copy.bytes);
  memset(to, 0xFF, copy.bytes);
  all.list.push_back(copy);
}
inline void commit_copies() { fake::copies().group++; }
template <int n>
inline void wait_for_copies() {
  fake::Copies& all = fake::copies();
  size_t left = 0;
  for (const fake::Copies::Copy& copy : all.list)
    if (copy.group < all.group - n) memcpy(copy.to, copy.values, copy.bytes);
    else all.list[left++] = copy;
  all.list.resize(left);
}
template <class T>
inline T* shared() { return reinterpret_cast<T*>(fake::here.shared); }
}  // namespace nnlite_gpu

#endif
