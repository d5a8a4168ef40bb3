// A stack that can be left and entered again. One thread of the program uses them at a time.
#pragma once
#include <sys/mman.h>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define FAKE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FAKE_ASAN 1
#endif
#endif
#ifndef FAKE_ASAN
#define FAKE_ASAN 0
#endif

#if FAKE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace fake {

#if defined(__x86_64__)
extern "C" void fake_switch(void** save, void* to);      // saves rsp there and goes on at the other one
#endif

class Fiber {
 public:
  static constexpr size_t stack_bytes = FAKE_ASAN ? 256 * 1024 : 64 * 1024, page = 4096;

  explicit Fiber(void (*main)()) {
    void* const memory = mmap(nullptr, stack_bytes + page, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) std::abort();    // a guard below
    stack_ = static_cast<unsigned char*>(memory) + page;
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(stack_ + stack_bytes);
    *--top = nullptr;                          // no caller; also puts the stack where the ABI wants it
    *--top = reinterpret_cast<void*>(main);
    for (int i = 0; i < 6; i++) *--top = nullptr;        // rbx, rbp, r12 .. r15
    here_ = top;
#else
    getcontext(&here_);
    here_.uc_stack.ss_sp   = stack_;
    here_.uc_stack.ss_size = stack_bytes;
    makecontext(&here_, main, 0);
#endif
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // From the program's own stack.
  void enter() {
#if FAKE_ASAN
    void* kept = nullptr;
    __sanitizer_start_switch_fiber(&kept, stack_, stack_bytes);
#endif
#if defined(__x86_64__)
    fake_switch(&outside_, here_);
#else
    swapcontext(&outside_, &here_);
#endif
#if FAKE_ASAN
    __sanitizer_finish_switch_fiber(kept, nullptr, nullptr);
#endif
  }
  // To where enter() was called; arrive() is the first thing that main does.
  void leave() {
#if FAKE_ASAN
    void* kept = nullptr;
    __sanitizer_start_switch_fiber(&kept, from_, from_bytes_);
#endif
#if defined(__x86_64__)
    fake_switch(&here_, outside_);
#else
    swapcontext(&here_, &outside_);
#endif
    arrive(
#if FAKE_ASAN
        kept
#endif
    );
  }
  void arrive([[maybe_unused]] void* kept = nullptr) {
#if FAKE_ASAN
    __sanitizer_finish_switch_fiber(kept, &from_, &from_bytes_);
#endif
  }

 private:
  unsigned char* stack_ = nullptr;
#if defined(__x86_64__)
  void *here_ = nullptr, *outside_ = nullptr;
#else
  ucontext_t here_ = {}, outside_ = {};
#endif
#if FAKE_ASAN
  const void* from_ = nullptr;
  size_t      from_bytes_ = 0;
#endif
};
}  // namespace fake
