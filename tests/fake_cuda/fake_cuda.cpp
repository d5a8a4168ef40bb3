// The device: its memory, its queue, and blocks of threads as fibers. See seams.hpp.
#include "seams.hpp"
#include <algorithm>
#include <cstdio>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include "fiber.hpp"

#if defined(__x86_64__)
asm(R"(
.text
.globl fake_switch
.type fake_switch, @function
fake_switch:
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  ret
.size fake_switch, .-fake_switch
)");
#endif

namespace fake {
Place place;

namespace {
using nnlite_gpu::Error;
using nnlite_gpu::Grid;
using nnlite_gpu::Stream;
constexpr size_t page = 4096, shared_limit = 48 * 1024, max_threads = 1024, warp = 32;
constexpr unsigned char nothing = 0xFF;        // of fresh memory: as floats not a number

std::recursive_mutex lock;                     // of all that follows
int      devices = 1;
size_t   memory_limit = 64u << 20;
Order    order = Order::forward;
uint64_t state = 1;                            // of shuffles
long     call_count = 0, launch_count = 0, fails_in = 0;
int      failing_error = 0;
std::vector<std::string> found;

void find(const std::string& what) {
  if (found.size() < 100) found.push_back(what);
}
// Counts a call of the device; its error where it is the one that fails.
Error called() {
  call_count++;
  return fails_in > 0 && --fails_in == 0 ? failing_error : 0;
}
uint64_t next_random() {                       // xorshift64
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}
void arrange(std::vector<unsigned>& list, unsigned n) {
  list.resize(n);
  for (unsigned i = 0; i < n; i++) list[i] = order == Order::backward ? n - 1 - i : i;
  for (unsigned i = n; i > 1 && order == Order::shuffled; i--) std::swap(list[i - 1], list[next_random() % i]);
}

// ---- memory: whole pages of each piece, open while the device works alone. What is behind a piece in its last
// page holds a pattern, and a page that is never open follows.
struct Piece {
  size_t bytes = 0, pages = 0;
  std::vector<unsigned char> tail() const { return std::vector<unsigned char>(pages - bytes, 0xFD); }
};
std::map<unsigned char*, Piece> pieces;
unsigned char *region = nullptr, *unused = nullptr;
constexpr size_t region_bytes = size_t(64) << 30;        // of addresses: none is used twice

void protect(bool open) {
  for (const auto& [at, piece] : pieces)
    if (mprotect(at, piece.pages, open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) std::abort();
}
// The device works for as long as one lives.
struct Working {
  Working() { protect(true); }
  ~Working() {
    for (const auto& [at, piece] : pieces)
      if (const auto tail = piece.tail(); !std::equal(tail.begin(), tail.end(), at + piece.bytes)) {
        find("written behind a piece of " + std::to_string(piece.bytes) + " bytes");
        std::fill(at + piece.bytes, at + piece.pages, 0xFD);
      }
    protect(false);
  }
};
bool inside(const void* p, size_t bytes) {
  const unsigned char* const at = static_cast<const unsigned char*>(p);
  for (const auto& [from, piece] : pieces)
    if (at >= from && at + bytes <= from + piece.bytes) return true;
  return false;
}

// ---- work that waits: by stream
struct Queue {
  std::deque<std::function<void()>> work;
  nnlite_gpu::Graph recording = nullptr;
};
std::map<Stream, Queue> queues;
int next_stream = 1;

Error put(Stream s, std::function<void()> work) {
  const auto q = queues.find(s);
  if (q == queues.end()) return other_error;
  if (q->second.recording) q->second.recording->push_back(std::move(work));
  else q->second.work.push_back(std::move(work));
  return 0;
}
// A copy may not be recorded: the host's memory would be another by the time that it runs.
Error put_copy(Stream s, const void* device, size_t bytes, std::function<void()> work) {
  const Error e = called();
  if (e != 0) return e;
  if (!inside(device, bytes)) return other_error;
  const auto q = queues.find(s);
  if (q != queues.end() && q->second.recording) {
    find("a copy while steps are recorded");
    return other_error;
  }
  return put(s, std::move(work));
}
void work_off(Queue& q) {
  if (q.work.empty()) return;
  const Working now;
  for (; !q.work.empty(); q.work.pop_front()) q.work.front()();
}

// ---- a block
struct Thread {
  Fiber*      fiber = nullptr;                 // while it waits
  bool        done = false, waits = false;
  Wait        kind = Wait::barrier;
  const void* where = nullptr;
};
std::vector<std::unique_ptr<Fiber>> all_fibers;
std::vector<Fiber*>   idle;
Fiber*                running = nullptr;
Thread                threads[max_threads];
std::vector<unsigned> turn;                    // threads in their order
size_t                started = 0;
const std::function<void()>* body = nullptr;
alignas(64) unsigned char shared_memory[shared_limit + 1024];
alignas(8) unsigned char  slots[max_threads][8];

// Takes threads that have not begun until one of them waits; then others go on with the rest.
void fiber_main() {
  running->arrive();
  for (;;) {
    while (started < turn.size()) {
      const unsigned mine = turn[started++];
      place.thread = mine;
      (*body)();
      threads[place.thread].done = true;
    }
    running->leave();
  }
}
void resume(Fiber* f) {
  running = f;
  f->enter();
  running = nullptr;
}

void release(unsigned t) {
  threads[t].waits = false;
  resume(threads[t].fiber);
}

// Lets go of those that may: warps whose threads are all at one shuffle, else a block that is all at one barrier.
void release_some() {
  const unsigned n = place.threads;
  std::vector<bool> go(n, false);
  bool any = false;
  for (unsigned first = 0; first < n; first += warp) {
    const unsigned last = std::min<unsigned>(n, first + warp);
    bool all = true;
    for (unsigned t = first; t < last; t++)
      all = all && threads[t].waits && threads[t].kind == Wait::shuffle && threads[t].where == threads[first].where;
    for (unsigned t = first; t < last && all; t++) go[t] = any = true;
  }
  if (!any) {
    const void* where = nullptr;
    bool same = true, missing = false;
    for (unsigned t = 0; t < n; t++) {
      missing |= threads[t].done || !threads[t].waits;
      if (threads[t].done) continue;
      if (!where) where = threads[t].where;
      same = same && threads[t].kind == Wait::barrier && threads[t].where == where;
    }
    if (missing) find("a barrier or shuffle that some threads of the block never reach");
    else if (!same) find("threads of one block at different barriers");
    for (unsigned t = 0; t < n; t++) go[t] = threads[t].waits;
  }
  std::vector<unsigned> list;
  arrange(list, n);
  for (unsigned t : list)
    if (go[t]) release(t);
}

void run_block(size_t shared) {
  std::fill(shared_memory, shared_memory + shared, nothing);
  std::fill(shared_memory + shared, shared_memory + sizeof shared_memory, 0xFD);
#if FAKE_ASAN
  const size_t poisoned = (shared + 7) / 8 * 8;
  ASAN_POISON_MEMORY_REGION(shared_memory + poisoned, sizeof shared_memory - poisoned);
#endif
  for (unsigned t = 0; t < place.threads; t++) threads[t] = Thread();
  arrange(turn, place.threads);
  for (started = 0; started < turn.size();) {
    if (idle.empty()) {
      all_fibers.push_back(std::make_unique<Fiber>(fiber_main));
      idle.push_back(all_fibers.back().get());
    }
    Fiber* const f = idle.back();
    idle.pop_back();
    resume(f);
  }
  const auto waiting = [] {
    for (unsigned t = 0; t < place.threads; t++)
      if (threads[t].waits) return true;
    return false;
  };
  while (waiting()) release_some();
  idle.clear();
  for (const auto& f : all_fibers) idle.push_back(f.get());
#if FAKE_ASAN
  ASAN_UNPOISON_MEMORY_REGION(shared_memory, sizeof shared_memory);
#endif
  for (size_t i = shared; i < sizeof shared_memory; i++)
    if (shared_memory[i] != 0xFD) return find("written behind shared memory of " + std::to_string(shared) + " bytes");
}

void run_kernel(Grid grid, unsigned count, size_t shared, const std::function<void()>& kernel) {
  body = &kernel;
  place.threads = count;
  place.blocks  = grid;
  place.shared  = shared_memory;
  std::vector<unsigned> list;
  arrange(list, grid.x * grid.y * grid.z);
  for (unsigned b : list) {
    place.block = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    run_block(shared);
  }
  launch_count++;
}
}  // namespace

void wait_here(Wait kind) {
  Thread& t = threads[place.thread];
  const unsigned me = place.thread;
  t.waits = true;
  t.kind  = kind;
  t.where = __builtin_return_address(0);
  t.fiber = running;
  running->leave();
  place.thread = me;
}
void* shuffle_slot(int thread) {
  if (thread < 0 || unsigned(thread) >= place.threads) {
    find("a shuffle from a lane that is not there");
    thread = 0;
  }
  return slots[thread];
}

Error enqueue(Stream s, Grid grid, unsigned count, size_t shared, std::function<void()> kernel) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  const Error e = called();
  if (e != 0) return e;
  const bool fits = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7FFFFFFF && grid.y <= 65535 &&
                    grid.z <= 65535 && count > 0 && count <= max_threads && shared <= shared_limit;
  if (!fits) {
    find("a launch that is too large or empty");
    return other_error;
  }
  return put(s, [=] { run_kernel(grid, count, shared, kernel); });
}

void reset() {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  devices = 1, memory_limit = 64u << 20, order = Order::forward, call_count = launch_count = fails_in = 0;
  found.clear();
}
void set_devices(int count) { devices = count; }
void set_memory(size_t bytes) { memory_limit = bytes; }
void set_order(Order o, uint64_t seed) { order = o, state = seed * 0x9E3779B97F4A7C15u | 1; }
void fail_call(long n, int error) { fails_in = n, failing_error = error; }
long calls() { return call_count; }
long launches() { return launch_count; }
size_t live_bytes() {
  size_t sum = 0;
  for (const auto& p : pieces) sum += p.second.bytes;
  return sum;
}
std::vector<std::string> findings() {
  std::vector<std::string> all;
  all.swap(found);
  return all;
}
}  // namespace fake

namespace nnlite_gpu {
using namespace fake;
using Hold = std::lock_guard<std::recursive_mutex>;

Error device_count(int& count) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  count = devices;
  return 0;
}
Error use_device(int number) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  return number >= 0 && number < devices ? 0 : other_error;
}
Error new_stream(Stream& s) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  s = next_stream++;
  queues[s];
  return 0;
}
Error end_stream(Stream s) {
  const Hold hold(lock);
  const Error e = called();
  queues.erase(s);
  return e;
}
Error take(void** memory, size_t bytes) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  if (bytes + live_bytes() > memory_limit) return no_memory_error;
  if (!region) {
    void* const all = mmap(nullptr, region_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) std::abort();
    region = unused = static_cast<unsigned char*>(all);
  }
  const size_t pages = bytes / page * page + page;
  if (size_t(unused - region) + pages + page > region_bytes) std::abort();
  unsigned char* const at = unused;
  unused += pages + page;
  if (mprotect(at, pages, PROT_READ | PROT_WRITE) != 0) std::abort();
  std::fill(at, at + bytes, nothing);
  std::fill(at + bytes, at + pages, 0xFD);
  if (mprotect(at, pages, PROT_NONE) != 0) std::abort();
  pieces[at] = {bytes, pages};
  *memory = at;
  return 0;
}
Error give(void* memory) {
  const Hold hold(lock);
  const Error e = called();
  for (auto& q : queues) work_off(q.second);
  unsigned char* const at = static_cast<unsigned char*>(memory);
  if (memory == nullptr) return e;
  const auto p = pieces.find(at);
  if (p == pieces.end()) {
    find("memory given back that was not taken");
    return other_error;
  }
  (void)munmap(at, p->second.pages);
  (void)mmap(at, p->second.pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  pieces.erase(p);
  return e;
}
Error copy_in(Stream s, void* device, const void* host, size_t bytes) {
  const Hold hold(lock);
  const unsigned char* const from = static_cast<const unsigned char*>(host);
  const std::vector<unsigned char> now(from, from + bytes);      // pageable memory is read at once
  return put_copy(s, device, bytes, [=] { std::memcpy(device, now.data(), bytes); });
}
Error copy_out(Stream s, void* host, const void* device, size_t bytes) {
  const Hold hold(lock);
  return put_copy(s, device, bytes, [=] { std::memcpy(host, device, bytes); });
}
Error copy_within(Stream s, void* to, const void* from, size_t bytes) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  return put(s, [=] { std::memmove(to, from, bytes); });
}
Error clear(Stream s, void* device, size_t bytes) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  return put(s, [=] { std::memset(device, 0, bytes); });
}
Error sync(Stream s) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  const auto q = queues.find(s);
  if (q == queues.end()) return other_error;
  if (q->second.recording) find("waited while steps are recorded");
  work_off(q->second);
  return 0;
}
Error start_recording(Stream s) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  const auto q = queues.find(s);
  if (q == queues.end() || q->second.recording) return other_error;
  q->second.recording = new std::vector<std::function<void()>>;
  return 0;
}
Error stop_recording(Stream s, Graph& to) {
  const Hold hold(lock);
  const Error e = called();
  const auto q = queues.find(s);
  if (q == queues.end() || !q->second.recording) return other_error;
  to = q->second.recording;
  q->second.recording = nullptr;
  if (e == 0) return 0;
  delete to;
  to = nullptr;
  return e;
}
Error run_recorded(Stream s, Graph g) {
  const Hold hold(lock);
  if (const Error e = called()) return e;
  return put(s, [work = *g] { for (const auto& f : work) f(); });
}
Error end_recorded(Graph g) {
  const Hold hold(lock);
  const Error e = called();
  delete g;
  return e;
}
}  // namespace nnlite_gpu
