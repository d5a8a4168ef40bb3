// What nnlite_cuda.cu has of CUDA, of this machine's CPU instead: -DNNLITE_CUDA_SEAMS='"fake_cuda/seams.hpp"'.
#ifndef NNLITE_FAKE_SEAMS_HPP
#define NNLITE_FAKE_SEAMS_HPP

#include <string.h>

#include <tuple>

#include "fake_cuda.hpp"

#define NNLITE_SHARED
#define NNLITE_DEVICE
#define NNLITE_GLOBAL

namespace nnlite_gpu {
using Error  = fake::Error;
using Stream = fake::Stream*;
using Graph  = fake::Recording*;
using Grid   = fake::Grid;
using fake::clear;
using fake::copy_in;
using fake::copy_out;
using fake::copy_within;
using fake::device_count;
using fake::end_recorded;
using fake::end_stream;
using fake::give;
using fake::new_stream;
using fake::run_recorded;
using fake::start_recording;
using fake::stop_recording;
using fake::sync;
using fake::take;
using fake::use_device;

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

inline Error can_overlap(int, bool& can) {
  can = true;
  return fake::no_error;
}

// Inside a kernel. The line tells one barrier from another.
inline void     follow() { fake::here.follows = true; }
inline unsigned thread() { return fake::here.thread; }
inline unsigned threads() { return fake::here.threads; }
inline Grid     block() { return fake::here.block; }
inline Grid     blocks() { return fake::here.blocks; }
inline void     barrier(int line = __builtin_LINE()) { fake::barrier(line); }
template <class T>
inline T shuffle(T value, int lane, int line = __builtin_LINE()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles words");
  uint64_t word = 0;
  memcpy(&word, &value, sizeof(T));
  word = fake::shuffle(word, lane, line);
  memcpy(&value, &word, sizeof(T));
  return value;
}
template <class T>
inline T shuffle_xor(T value, int lanes, int line = __builtin_LINE()) {
  return shuffle(value, static_cast<int>(thread() % 32) ^ lanes, line);
}
template <class T>
inline T* shared() { return reinterpret_cast<T*>(fake::here.shared); }
}  // namespace nnlite_gpu

#endif
