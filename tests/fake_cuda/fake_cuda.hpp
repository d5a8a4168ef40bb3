// A GPU made of this machine's CPU: runs kernels, keeps memory apart, and looks for what a GPU would not tell.
// README.md says what it sees and what it cannot see.
#ifndef NNLITE_FAKE_CUDA_HPP
#define NNLITE_FAKE_CUDA_HPP

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <memory>
#include <string>
#include <vector>

namespace fake {

// ================================================================================ >>seams
// The host's side of CUDA, with its numbers for errors.
using Error = int;
enum : Error {
  no_error            = 0,
  value_error         = 1,
  no_memory_error     = 2,
  other_error         = 7,                     // one that the fake itself never gives
  configuration_error = 9,
  no_device_error     = 100,
  device_error        = 101,
  handle_error        = 400,
  launch_error        = 719,
  recording_error     = 900,
};
struct Stream;
struct Recording;
struct Graph;
struct Grid { unsigned x = 1, y = 1, z = 1; };
struct Launch {
  const char* name;
  void (*run)(void*);                          // one thread
  std::shared_ptr<void> arguments;
  size_t   argument_bytes;
  Grid     grid;
  unsigned threads;
  size_t   shared;
};

Error current_device(int& number);             // of the calling thread of the host
Error use_device(int number);
bool  is_in_use(int number);                   // since a thread used it, or reset()
Error can_overlap(bool& can);
const char* text_of(Error e);
Error new_stream(Stream*& s);
Error end_stream(Stream* s);
Error take(void** memory, size_t bytes);
Error give(void* memory);
Error copy_in(Stream* s, void* device, const void* host, size_t bytes);
Error copy_out(Stream* s, void* host, const void* device, size_t bytes);   // there after sync, not before
Error sync(Stream* s);
Error launch(Stream* s, const Launch& l);
// C[m, n] = bias[n] + sum over k of A[m, k] B[k, n], in this order, of factors rounded to 11 or 8 bits.
struct Matmul {
  int          M, N, K;
  const float *A, *B;
  float*       C;
  int64_t      a_line, b_line, c_line;
  bool         a_transposed, b_transposed;
  const float* bias;                           // nullptr: zeros
  bool         more;                           // C +=
  int          bits;
};
struct Multiplier;
Error new_multiplier(Multiplier*& m);
Error end_multiplier(Multiplier* m);
Error matmul(Multiplier* with, Stream* s, const Matmul& m);
// Launches in between are kept, not run. Whatever CUDA's graphs refuse there is found.
Error start_recording(Stream* s);
Error stop_recording(Stream* s, Recording*& to);
Error end_recording(Recording* r);
Error new_graph(Recording* of, int times, Graph*& to);
Error run_graph(Stream* s, Graph* g);
Error end_graph(Graph* g);

// The thread of a kernel that runs now.
struct Here {
  unsigned       thread, threads;
  Grid           block, blocks;
  unsigned char* shared;
  bool           follows;                      // it has waited for the launches before its own
};
extern Here here;
void     early();                              // it ends and never did, though it had to
void     barrier(int line);
uint64_t shuffle_xor(uint64_t value, int lanes, int line);
const uint32_t* exchange(const uint32_t* words, int n, int line);          // those of all lanes: [32][n]
// Copies that have not arrived yet.
struct Copies {
  struct Copy { void* to; size_t bytes; unsigned char values[16]; int group; };
  std::vector<Copy> list;
  int group;                                   // of the next one
};
Copies& copies();
void misaligned_copy();                        // was found

// ================================================================================ >>control
// For tests. Settings hold until they are set anew; reset() sets all as at the start, but keeps memory.
// all: every launch runs in the three others from the same memory, and must leave the same bits.
enum class Order { forward, backward, shuffled, all };

void     reset();
void     set_devices(int count);               // 1
void     set_overlaps(bool can);               // whether launches can; true
void     set_memory(size_t bytes);             // of every device; no limit
void     set_many_products(int64_t count);     // a Linear of so many is large; 2^28
void     set_order(Order order, uint64_t seed = 1);   // of threads between barriers, and of blocks; forward
void     fail_call(long n, Error error = other_error);   // the n-th from now on, 1: the next one; 0: none
long     calls();                              // of the functions above, launches among them
long     launches();                           // of kernels, the recorded ones whenever they run
long     matmuls();                            // run so far
int64_t  many_products();
size_t   live_bytes();
size_t   live_recordings();
size_t   live_multipliers();
void     poison(void* device, size_t bytes);   // memory that no kernel may touch; NaN
void     unpoison(void* device, size_t bytes);

// What was found since the last call: a program that leaves some behind ends with an error. Faults that a
// sanitizer or closed pages see end it at once.
std::vector<std::string> findings();

// Whether f(), which returns a vector of numbers, gives the same bits in every order of threads and blocks.
template <class F>
bool same_in_every_order(F f) {
  bool same = true;
  set_order(Order::forward);
  const auto first = f();
  for (uint64_t seed = 0; seed < 4 && same; seed++) {
    set_order(seed == 0 ? Order::backward : Order::shuffled, seed);
    const auto other = f();
    same = other.size() == first.size();
    same = same && memcmp(other.data(), first.data(), first.size() * sizeof(first[0])) == 0;
  }
  set_order(Order::forward);
  return same;
}

}  // namespace fake

#endif
