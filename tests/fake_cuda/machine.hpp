// Between the files of the fake GPU.
#ifndef NNLITE_FAKE_MACHINE_HPP
#define NNLITE_FAKE_MACHINE_HPP

#include "fake_cuda.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define NNLITE_FAKE_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NNLITE_FAKE_ASAN
#endif
#endif
#ifdef NNLITE_FAKE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif
#ifdef NNLITE_FAKE_TSAN                        // by the build, which leaves the sanitizer out of these files
#include <sanitizer/tsan_interface.h>
#endif

namespace fake {

// A function on a stack of its own. One runs at a time, started and resumed by whoever calls resume().
struct Fiber {
  Fiber();
  Fiber(const Fiber&)            = delete;
  Fiber& operator=(const Fiber&) = delete;
  void start(void (*f)());                     // forgets what ran here; f begins with the next resume()
  void resume();                               // until pause() or the end of f
  static void pause();                         // inside: back to resume()
  bool ended = true;

 private:
  static void enter();
  void leave();
  unsigned char* map_;
  void (*function_)() = nullptr;
  void* at_           = nullptr;               // where it was left
  void* fake_stack_   = nullptr;               // of the address sanitizer
  void* thread_       = nullptr;               // of the thread sanitizer
};
// What came before happened() at an address comes before what follows after() there: all that the thread
// sanitizer knows of how threads of a block wait for each other.
void happened(void* at);
void after(void* at);

void        found(const std::string& what);
std::string named(const Launch& l);            // by the types of its arguments
bool run_blocks(const Launch& l, Order order, uint64_t seed);   // false: could not go on, see findings

// Pages that nothing may touch around `bytes` ones that all may.
unsigned char* guarded_map(size_t bytes);
void           guarded_unmap(unsigned char* inner, size_t bytes);
size_t         pages(size_t bytes);            // rounded up
bool           all_ones(const unsigned char* p, size_t bytes);    // whatever is poisoned

}  // namespace fake

#endif
