// Runs the blocks of a launch: their threads are fibers that go on until a barrier or a shuffle.
#include <algorithm>
#include <memory>

#include "machine.hpp"

namespace fake {
Here here;

namespace {
constexpr unsigned max_threads = 1024, warp = 32;
constexpr size_t   max_shared = size_t(48) * 1024, margin = 256;   // bytes before shared memory

#ifdef NNLITE_FAKE_TSAN
constexpr bool one_each = true;                // every thread of a block has a fiber of its own
#else
constexpr bool one_each = false;
#endif

enum class At { start, barrier, shuffle, end };
struct Thread {
  At       at;
  int      line, lanes;
  uint64_t value;
  const uint32_t* words;                       // of an exchange
  Fiber*   fiber;
};
constexpr int max_words = 64;                  // of an exchange, a lane

std::string at_line(const Thread& t) { return " at line " + std::to_string(t.line); }

// splitmix64
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
};

struct Machine {
  const Launch* launch = nullptr;
  Order  order = Order::forward;
  Random random = {};
  Thread threads[max_threads];
  Copies copies[max_threads];
  uint32_t exchanged[max_threads][max_words];  // of a warp together, where its first thread's are
  unsigned queue[max_threads], head = 0, queued = 0;    // threads that can go on, a ring
  unsigned living = 0, at_barrier = 0;
  unsigned living_of[max_threads / warp], shuffling_of[max_threads / warp];
  bool     broken = false;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  unsigned char* shared = guarded_map(pages(max_shared + margin));

  void put_in_order(unsigned* list, size_t n) {
    if (order == Order::backward) std::reverse(list, list + n);
    if (order == Order::shuffled)
      for (size_t i = n; i > 1; i--) std::swap(list[i - 1], list[random.next() % i]);
  }
  void enqueue(unsigned first, unsigned end) {          // those that are not at their end
    unsigned list[max_threads], n = 0;
    for (unsigned t = first; t < end; t++)
      if (threads[t].at != At::end) list[n++] = t;
    put_in_order(list, n);
    for (unsigned i = 0; i < n; i++) queue[(head + queued++) % max_threads] = list[i];
  }
  unsigned dequeue() {
    const unsigned t = queue[head];
    head = (head + 1) % max_threads, queued--;
    return t;
  }

  void fail(const std::string& what) {
    std::string at;
    for (unsigned i : {here.block.x, here.block.y, here.block.z})
      at += (at.empty() ? "" : ", ") + std::to_string(i);
    found(what + ", block (" + at + ") of " + named(*launch));
    broken = true;
  }
  void wait(At at, int line, int lanes, uint64_t value, const uint32_t* words) {
    Thread& t = threads[here.thread];
    t.at = at, t.line = line, t.lanes = lanes, t.value = value, t.words = words;
    if (at == At::barrier) at_barrier++;
    else shuffling_of[here.thread / warp]++, try_shuffle(here.thread / warp);
    happened(&threads);
    Fiber::pause();
    after(&threads);
  }

  // All threads of the warp that are not at their end have come: they swap their values.
  void try_shuffle(unsigned w) {
    if (living_of[w] == 0 || shuffling_of[w] != living_of[w]) return;
    const unsigned first = w * warp, end = std::min(first + warp, launch->threads);
    uint64_t from[warp] = {};
    for (unsigned t = first; t < end; t++) from[t - first] = threads[t].value;
    const Thread* one = nullptr;
    for (unsigned t = first; t < end; t++) {
      Thread& self = threads[t];
      if (self.at == At::end) continue;
      if (one == nullptr) one = &self;
      if (self.line != one->line || self.lanes != one->lanes)
        return fail("shuffle: lanes of a warp at different ones");
      if (self.words != nullptr) {
        if (living_of[w] != warp) return fail("exchange: missing lanes" + at_line(self));
        uint32_t* const to = exchanged[first] + (t - first) * static_cast<unsigned>(self.lanes);
        for (int i = 0; i < self.lanes; i++) to[i] = self.words[i];
        continue;
      }
      const unsigned other = (t - first) ^ static_cast<unsigned>(self.lanes);
      if (other >= warp || first + other >= end || threads[first + other].at == At::end)
        return fail("shuffle: missing lane for thread " + std::to_string(t) + at_line(self));
      self.value = from[other];
    }
    shuffling_of[w] = 0;
    enqueue(first, end);
  }

  // Nothing can go on: all wait for a barrier, or something is wrong.
  void release() {
    const Thread* first = nullptr;
    for (unsigned i = 0; i < launch->threads; i++) {
      const Thread& t = threads[i];
      if (t.at == At::shuffle) return fail("shuffle: missing lanes" + at_line(t));
      if (t.at == At::end) continue;
      if (first != nullptr && first->line != t.line)
        return fail("barrier: threads" + at_line(*first) + " and others" + at_line(t));
      if (first == nullptr) first = &t;
    }
    if (living != launch->threads)
      return fail("barrier: not all threads come" + at_line(*first));
    at_barrier = 0;
    enqueue(0, launch->threads);
  }

  // A fiber runs thread after thread, until the next one in line has a fiber of its own.
  static void run_threads();

  void resume_next() {
    Thread& t = threads[queue[head]];
    if (t.fiber == nullptr) {
      if (idle.empty()) {
        fibers.push_back(std::make_unique<Fiber>());
        idle.push_back(fibers.back().get());
      }
      Fiber* const fiber = idle.back();
      idle.pop_back();
      fiber->start(run_threads);
      fiber_now = fiber;
    } else {
      fiber_now   = t.fiber;
      here.thread = dequeue();
    }
    fiber_now->resume();
    if (fiber_now->ended && !one_each) idle.push_back(fiber_now);
  }
  Fiber* fiber_now = nullptr;

  void run_block() {
    const unsigned n = launch->threads;
    memset(here.shared, 0xFF, launch->shared);
    for (unsigned t = 0; t < n; t++) threads[t] = {At::start, 0, 0, 0, nullptr, nullptr}, copies[t].list.clear(), copies[t].group = 0;
    for (unsigned w = 0; w * warp < n; w++) living_of[w] = std::min(warp, n - w * warp), shuffling_of[w] = 0;
    living = n, at_barrier = 0, head = 0, queued = 0;
    enqueue(0, n);
    happened(&living);
    while (living > 0 && !broken)
      if (queued > 0) resume_next();
      else release();
    after(&queue), after(&threads);
    if (!broken && !one_each) return;
    idle.clear();                              // what waits will never go on
    for (const std::unique_ptr<Fiber>& f : fibers) idle.push_back(f.get());
  }
};

Machine& machine() {
  static Machine* const m = new Machine;
  return *m;
}

void Machine::run_threads() {
  Machine& m = machine();
  while (m.queued > 0 && m.threads[m.queue[m.head]].at == At::start && !m.broken) {
    const unsigned t = here.thread = m.dequeue();
    m.threads[t].fiber = m.fiber_now;
    after(&m.living);
    m.launch->run(m.launch->arguments.get());
    m.threads[t].at = At::end;
    if (!m.copies[t].list.empty()) m.fail("copy_async: nothing waits for it");
    m.living--, m.living_of[t / warp]--;
    if (m.shuffling_of[t / warp] > 0) m.try_shuffle(t / warp);
    happened(&m.queue);
    if (one_each) break;
  }
}

// Shared memory ends where its pages do, but for the bytes that align it.
struct Shared {
  Machine& m;
  size_t   all = pages(max_shared + margin), bytes;
  Shared(Machine& machine, size_t size) : m(machine), bytes(size) {
    memset(m.shared, 0xFF, all);
    here.shared = m.shared + all - (bytes + 15) / 16 * 16;
    ASAN_POISON_MEMORY_REGION(m.shared, static_cast<size_t>(here.shared - m.shared));
    ASAN_POISON_MEMORY_REGION(here.shared + bytes, static_cast<size_t>(m.shared + all - here.shared) - bytes);
  }
  Shared(const Shared&)            = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { ASAN_UNPOISON_MEMORY_REGION(m.shared, all); }
  bool whole() const {
    const size_t before = static_cast<size_t>(here.shared - m.shared);
    return all_ones(here.shared - margin, margin) && all_ones(here.shared + bytes, all - before - bytes);
  }
};
}  // namespace

void early() { machine().fail("follow: not called, so the launch before may still run"); }
void barrier(int line) { machine().wait(At::barrier, line, 0, 0, nullptr); }
uint64_t shuffle_xor(uint64_t value, int lanes, int line) {
  Machine& m = machine();
  m.wait(At::shuffle, line, lanes, value, nullptr);
  return m.threads[here.thread].value;
}
const uint32_t* exchange(const uint32_t* words, int n, int line) {
  Machine& m = machine();
  if (n > max_words) m.fail("exchange: too many words"), n = max_words;
  m.wait(At::shuffle, line, n, 0, words);
  return m.exchanged[here.thread / warp * warp];
}
Copies& copies() { return machine().copies[here.thread]; }
void misaligned_copy() { machine().fail("copy_async: an address that is no multiple of its bytes"); }

bool run_blocks(const Launch& l, Order order, uint64_t seed) {
  Machine& m = machine();
  m.launch = &l, m.order = order, m.random = {seed}, m.broken = false;
  here.threads = l.threads, here.blocks = l.grid;
  std::vector<unsigned> blocks(size_t(l.grid.x) * l.grid.y * l.grid.z);
  for (size_t i = 0; i < blocks.size(); i++) blocks[i] = static_cast<unsigned>(i);
  m.put_in_order(blocks.data(), blocks.size());
  const Shared shared(m, l.shared);
  for (unsigned b : blocks) {
    here.block = {b % l.grid.x, b / l.grid.x % l.grid.y, b / l.grid.x / l.grid.y};
    m.run_block();
    if (!shared.whole()) m.fail("shared memory: written outside of it");
    if (m.broken) return false;
  }
  return true;
}

}  // namespace fake
