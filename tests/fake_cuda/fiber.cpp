// Stacks for the threads of a block, and the switch between them.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "machine.hpp"

// nnlite_fake_switch(&old, next): pushes what a callee must keep, leaves the stack's address in old and goes on
// at next.
#if defined(__linux__) && defined(__x86_64__)
extern "C" void nnlite_fake_switch(void** old, void* next);
asm(R"(.text
.globl nnlite_fake_switch
.type nnlite_fake_switch, @function
nnlite_fake_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size nnlite_fake_switch, .-nnlite_fake_switch
)");
constexpr size_t frame_words = 8, return_word = 6;   // six registers, the return, and the caller's none
#elif defined(__linux__) && defined(__aarch64__)
extern "C" void nnlite_fake_switch(void** old, void* next);
asm(R"(.text
.globl nnlite_fake_switch
.type nnlite_fake_switch, %function
nnlite_fake_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]; stp x21, x22, [sp, #16]; stp x23, x24, [sp, #32]; stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]; stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]; stp d10, d11, [sp, #112]; stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]; ldp x21, x22, [sp, #16]; ldp x23, x24, [sp, #32]; ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]; ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]; ldp d10, d11, [sp, #112]; ldp d12, d13, [sp, #128]; ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size nnlite_fake_switch, .-nnlite_fake_switch
)");
constexpr size_t frame_words = 20, return_word = 11;
#else
#include <ucontext.h>
#define NNLITE_FAKE_UCONTEXT
#endif

namespace fake {
namespace {
constexpr size_t stack_bytes = size_t(64) * 1024;

Fiber*      running = nullptr;
void*       resumer = nullptr;                 // where resume() was left
const void* resumer_stack = nullptr;           // its stack, for the sanitizer
size_t      resumer_bytes = 0;
#ifdef NNLITE_FAKE_UCONTEXT
void nnlite_fake_switch(void** old, void* next) {
  ucontext_t here;
  *old = &here;
  swapcontext(&here, static_cast<ucontext_t*>(next));
}
#endif

void* resumer_thread = nullptr;

void switch_begins(void** fake_stack, const void* stack, size_t bytes, void* thread) {
#ifdef NNLITE_FAKE_ASAN
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#elif defined(NNLITE_FAKE_TSAN)
  __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync);
#endif
  (void)fake_stack, (void)stack, (void)bytes, (void)thread;
}
void switch_ends(void* fake_stack, const void** stack, size_t* bytes) {
#ifdef NNLITE_FAKE_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
#else
  (void)fake_stack, (void)stack, (void)bytes;
#endif
}
}  // namespace

size_t pages(size_t bytes) {
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}
unsigned char* guarded_map(size_t bytes) {
  const size_t guard = pages(1);
  void* const  map = mmap(nullptr, bytes + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) abort();
  unsigned char* const inner = static_cast<unsigned char*>(map) + guard;
  if (mprotect(inner, bytes, PROT_READ | PROT_WRITE) != 0) abort();
  return inner;
}
void guarded_unmap(unsigned char* inner, size_t bytes) {
  const size_t guard = pages(1);
  ASAN_UNPOISON_MEMORY_REGION(inner, bytes);
  munmap(inner - guard, bytes + 2 * guard);
}

#ifdef NNLITE_FAKE_TSAN
void happened(void* at) { __tsan_release(at); }
void after(void* at) { __tsan_acquire(at); }
Fiber::Fiber() : map_(guarded_map(stack_bytes)), thread_(__tsan_create_fiber(0)) {}
#else
void happened(void*) {}
void after(void*) {}
Fiber::Fiber() : map_(guarded_map(stack_bytes)) {}
#endif

void Fiber::start(void (*f)()) {
  ASAN_UNPOISON_MEMORY_REGION(map_, stack_bytes);
  function_ = f;
  ended     = false;
#ifdef NNLITE_FAKE_UCONTEXT
  ucontext_t* const first = reinterpret_cast<ucontext_t*>(map_);
  getcontext(first);
  first->uc_stack.ss_sp   = map_ + sizeof(ucontext_t);
  first->uc_stack.ss_size = stack_bytes - sizeof(ucontext_t);
  first->uc_link          = nullptr;
  makecontext(first, enter, 0);
  at_ = first;
#else
  void** const frame = reinterpret_cast<void**>(map_ + stack_bytes) - frame_words;
  for (size_t i = 0; i < frame_words; i++) frame[i] = nullptr;
  frame[return_word] = reinterpret_cast<void*>(enter);
  at_                = frame;
#endif
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  running = this;
#ifdef NNLITE_FAKE_TSAN
  resumer_thread = __tsan_get_current_fiber();
#endif
  switch_begins(&fake_stack, map_, stack_bytes, thread_);
  nnlite_fake_switch(&resumer, at_);
  switch_ends(fake_stack, nullptr, nullptr);
  running = nullptr;
}

void Fiber::enter() {
  Fiber* const self = running;
  switch_ends(nullptr, &resumer_stack, &resumer_bytes);
  self->function_();
  self->ended = true;
  self->leave();
  abort();
}

void Fiber::pause() { running->leave(); }

void Fiber::leave() {
  switch_begins(ended ? nullptr : &fake_stack_, resumer_stack, resumer_bytes, resumer_thread);
  nnlite_fake_switch(&at_, resumer);
  switch_ends(fake_stack_, &resumer_stack, &resumer_bytes);
}

}  // namespace fake
