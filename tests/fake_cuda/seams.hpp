// The CPU in place of CUDA: what room >>seams of nnlite_cuda.cu takes from NVIDIA, for tests. The file is
// compiled as C++ with -DNNLITE_CUDA_SEAMS='"fake_cuda/seams.hpp"'.
//
// A kernel's block runs as fibers, one for each thread that waits at a barrier. Work is queued and runs when
// its stream is waited for. Memory of the device can be touched by kernels and copies alone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#define NNLITE_SHARED
#define NNLITE_DEVICE
#define NNLITE_GLOBAL

namespace nnlite_gpu {
using Error  = int;                            // 0: none
using Stream = int;
struct Grid { unsigned x = 1, y = 1, z = 1; };
using Graph = std::vector<std::function<void()>>*;
}  // namespace nnlite_gpu

// What tests ask of the fake.
namespace fake {
enum class Order { forward, backward, shuffled };        // of blocks, of threads between two barriers

constexpr int no_memory_error = 2, other_error = 7;

void reset();                                  // one device of 64 MiB, forward, nothing fails, nothing found
void set_devices(int count);
void set_memory(size_t bytes);
void set_order(Order order, uint64_t seed = 1);
// The n-th call of the device from now (1: the next) returns this error and does nothing; 0: none does.
void fail_call(long n, int error = other_error);
long calls();                                  // since reset
long launches();
size_t live_bytes();                           // taken and not given back
// What kernels did wrong without dying of it, and forgets it: barriers not reached by all, writes behind an
// allocation or behind shared memory.
std::vector<std::string> findings();

// The rest is for the functions below.
nnlite_gpu::Error enqueue(nnlite_gpu::Stream s, nnlite_gpu::Grid grid, unsigned threads, size_t shared,
                          std::function<void()> kernel);
enum class Wait { barrier, shuffle };
void wait_here(Wait kind);                     // noinline: where it returns to says which one it is
void* shuffle_slot(int thread);
struct Place {
  unsigned         thread = 0, threads = 0;
  nnlite_gpu::Grid block, blocks;
  unsigned char*   shared = nullptr;
};
extern Place place;
}  // namespace fake

namespace nnlite_gpu {
Error device_count(int& count);
Error use_device(int number);
Error new_stream(Stream& s);
Error end_stream(Stream s);
Error take(void** memory, size_t bytes);
Error give(void* memory);
Error copy_in(Stream s, void* device, const void* host, size_t bytes);
Error copy_out(Stream s, void* host, const void* device, size_t bytes);
Error copy_within(Stream s, void* to, const void* from, size_t bytes);
Error clear(Stream s, void* device, size_t bytes);
Error sync(Stream s);
inline bool no_memory(Error e) { return e == fake::no_memory_error; }
Error start_recording(Stream s);
Error stop_recording(Stream s, Graph& to);
Error run_recorded(Stream s, Graph g);
Error end_recorded(Graph g);

template <class... P, class... A>
inline Error launch(Stream s, void (*kernel)(P...), Grid grid, unsigned threads, size_t shared, A... arguments) {
  static_assert((sizeof(P) + ... + size_t(0)) <= 4096, "CUDA's limit for the arguments of a kernel");
  return fake::enqueue(s, grid, threads, shared, [=] { kernel(arguments...); });
}

inline unsigned thread() { return fake::place.thread; }
inline unsigned threads() { return fake::place.threads; }
inline Grid block() { return fake::place.block; }
inline Grid blocks() { return fake::place.blocks; }
__attribute__((always_inline)) inline void barrier() { fake::wait_here(fake::Wait::barrier); }
template <class T>
__attribute__((always_inline)) inline T shuffle_xor(T value, int lanes) {
  static_assert(sizeof(T) <= 8, "a register or two");
  const int t = static_cast<int>(thread());
  std::memcpy(fake::shuffle_slot(t), &value, sizeof value);
  fake::wait_here(fake::Wait::shuffle);
  std::memcpy(&value, fake::shuffle_slot(t ^ lanes), sizeof value);
  fake::wait_here(fake::Wait::shuffle);
  return value;
}
template <class T>
inline T* shared() { return reinterpret_cast<T*>(fake::place.shared); }
}  // namespace nnlite_gpu
