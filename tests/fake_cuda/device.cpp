// Memory, streams and calls of the fake GPUs. A device's memory can be touched by its kernels and by copies alone:
// its pages are closed in between, and what was given back stays closed.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <mutex>
#include <set>

#include "machine.hpp"

namespace fake {
struct State;

struct Stream {
  struct Copy {
    void* host;
    std::vector<unsigned char> bytes;
  };
  int device;
  std::vector<Copy> copies;                    // to the host, done by sync
  std::unique_ptr<Recording> recording;        // where launches go; nullptr: they run
};
struct Recording {
  std::vector<std::function<Error(State&)>> work;
};
struct Graph : Recording {
  int times = 0;
};
struct Multiplier {
  int device;
};

namespace {
constexpr size_t alignment = 256, kept_closed = 1024;
constexpr int64_t at_first_many = int64_t(1) << 28;

struct Range {
  unsigned char* data;
  size_t         bytes;
  bool holds(const void* p, size_t n) const {
    const uintptr_t at = reinterpret_cast<uintptr_t>(p), from = reinterpret_cast<uintptr_t>(data);
    return at >= from && at - from <= bytes && n <= bytes - (at - from);
  }
};
// The memory lies at the end of its pages, which are NaN around it.
struct Memory {
  Range pages, all;
  int   device;
  bool  touched;                               // since it was checked
  std::vector<Range> poisoned;

  void open(bool yes) {
    if (mprotect(pages.data, pages.bytes, yes ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) abort();
    touched = touched || yes;
  }
  // Open, with all that is poisoned, while this lives.
  struct Whole {
    Memory& m;
    explicit Whole(Memory& memory) : m(memory) {
      m.open(true);
      for (const Range& r : m.poisoned) ASAN_UNPOISON_MEMORY_REGION(r.data, r.bytes);
    }
    Whole(const Whole&)            = delete;
    Whole& operator=(const Whole&) = delete;
    ~Whole() {
      for (const Range& r : m.poisoned) ASAN_POISON_MEMORY_REGION(r.data, r.bytes);
      m.open(false);
    }
  };
  std::vector<unsigned char> values() {
    const Whole whole(*this);
    return {all.data, all.data + all.bytes};
  }
  // Copies write over what is poisoned, but nothing of them stays there.
  void write(void* to, const void* from, size_t bytes) {
    const Whole whole(*this);
    if (bytes > 0) memcpy(to, from, bytes);
    for (const Range& r : poisoned) memset(r.data, 0xFF, r.bytes);
  }
  void restore(const std::vector<unsigned char>& v) {
    const Whole whole(*this);
    memcpy(all.data, v.data(), v.size());
  }
  size_t before() const { return static_cast<size_t>(all.data - pages.data); }
  size_t after() const { return pages.bytes - before() - all.bytes; }
  bool   check() {
    if (!touched) return true;
    open(true);
    bool ones = all_ones(pages.data, before()) && all_ones(all.data + all.bytes, after());
    for (const Range& r : poisoned) ones = ones && all_ones(r.data, r.bytes);
    open(false);
    touched = !ones;
    if (!ones) found("memory: written around " + std::to_string(all.bytes) + " bytes, or where poisoned");
    return ones;
  }
};

}  // namespace

struct State {
  std::mutex lock;
  int     devices = 1;
  std::set<int> used;                          // devices that have a context
  bool    overlaps = true;
  size_t  limit = SIZE_MAX;
  Order   order = Order::forward;
  uint64_t seed = 1;
  long    calls = 0, launches = 0, matmuls = 0, fail_in = 0;
  int64_t many_products = at_first_many;
  Error   fail_with = no_error;
  std::vector<Memory>  live;
  std::deque<Range>    closed;                 // pages of what was given back
  std::vector<Stream*> streams;
  std::vector<Recording*> recordings;
  std::vector<Graph*> graphs;
  std::vector<Multiplier*> multipliers;
  std::vector<std::string> findings;

  Memory* holder(const void* p, size_t bytes) {
    for (Memory& m : live)
      if (m.all.holds(p, bytes)) return &m;
    return nullptr;
  }
  bool of_a_device(const void* p) const {
    return std::any_of(live.begin(), live.end(), [&](const Memory& m) { return m.pages.holds(p, 1); });
  }
  size_t bytes_of(int device) const {
    size_t sum = 0;
    for (const Memory& m : live) sum += m.device == device || device < 0 ? m.all.bytes : 0;
    return sum;
  }
};

namespace {
State& state() {
  static State* const s = new State;
  return *s;
}
thread_local int device_now = 0;

// A program with findings that no test took has failed.
struct AtEnd {
  ~AtEnd() {
    for (const std::string& what : state().findings) std::fprintf(stderr, "fake_cuda: %s\n", what.c_str());
    if (!state().findings.empty()) std::_Exit(3);
  }
} at_end;

// A call of the interface: counted, alone, and failing where a test wants it to.
struct Call {
  State& s = state();
  std::lock_guard<std::mutex> hold{s.lock};
  Error error = 0;
  Call() {
    s.calls++;
    if (s.fail_in > 0 && --s.fail_in == 0) error = s.fail_with;
    if (error == 0 && s.devices == 0) error = no_device_error;
  }
  // Calls that CUDA refuses while a stream records.
  explicit Call(const char* name) : Call() {
    for (const Stream* stream : s.streams)
      if (stream->recording && error == 0) {
        error = recording_error;
        found(std::string(name) + ": while a stream records");
      }
  }
  bool knows(const Stream* stream) const {
    return std::find(s.streams.begin(), s.streams.end(), stream) != s.streams.end();
  }
  template <class Work>
  Error run_or_record(Stream* stream, const Work& work) const {
    if (!knows(stream)) return handle_error;
    if (!stream->recording) return work(s);
    stream->recording->work.push_back(work);
    return 0;
  }
  template <class T>
  static bool knows(const std::vector<T*>& live, const T* t) {
    return std::find(live.begin(), live.end(), t) != live.end();
  }
};

}  // namespace

#if defined(__clang__) || defined(__GNUC__)
__attribute__((no_sanitize_address))
#endif
bool all_ones(const unsigned char* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (p[i] != 0xFF) return false;
  return true;
}

void found(const std::string& what) { state().findings.push_back(what); }
std::string named(const Launch& l) {
  const std::string name = l.name;
  const size_t first = name.find("P = "), end = name.find("A = ");
  const bool   known = first < end && end < name.size();
  return "the kernel of " + (known ? name.substr(first + 4, end - first - 6) : name);
}

// ---- devices and streams
Error current_device(int& number) {
  const Call c;
  if (c.error == 0) number = device_now;
  return c.error;
}
Error use_device(int number) {
  const Call c;
  if (c.error != 0) return c.error;
  if (number < 0 || number >= c.s.devices) return device_error;
  device_now = number;
  c.s.used.insert(number);
  return 0;
}
bool is_in_use(int number) {
  const std::lock_guard<std::mutex> hold(state().lock);
  return state().used.count(number) > 0;
}
Error can_overlap(bool& can) {
  const Call c;
  can = c.error == 0 && c.s.overlaps;
  return c.error;
}
const char* text_of(Error e) {
  return e == no_device_error ? "no CUDA-capable device is detected"
         : e == device_error  ? "invalid device ordinal"
         : e == no_error      ? "no error"
                              : "unknown error";
}
Error new_stream(Stream*& s) {
  const Call c;
  if (c.error != 0) return c.error;
  c.s.streams.push_back(s = new Stream{device_now, {}, nullptr});
  return 0;
}
Error end_stream(Stream* s) {                  // CUDA, too, tells of a failure after it has done this
  const Call c;
  if (!c.knows(s)) return handle_error;
  c.s.streams.erase(std::find(c.s.streams.begin(), c.s.streams.end(), s));
  delete s;
  return c.error;
}
Error sync(Stream* s) {
  const Call c("sync");
  if (!c.knows(s)) return handle_error;
  if (c.error == 0)
    for (const Stream::Copy& copy : s->copies) memcpy(copy.host, copy.bytes.data(), copy.bytes.size());
  s->copies.clear();
  Error e = c.error;
  for (Memory& m : c.s.live)
    if (!m.check() && e == 0) e = launch_error;
  return e;
}

// ---- memory
Error take(void** memory, size_t bytes) {
  const Call c("take");
  *memory = nullptr;
  if (c.error != 0 || bytes == 0) return c.error;
  if (bytes > c.s.limit || c.s.bytes_of(device_now) > c.s.limit - bytes) return no_memory_error;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment, whole = pages(rounded);
  Memory m = {{guarded_map(whole), whole}, {}, device_now, false, {}};
  m.all    = {m.pages.data + whole - rounded, bytes};
  memset(m.pages.data, 0xFF, whole);
  ASAN_POISON_MEMORY_REGION(m.pages.data, m.before());
  ASAN_POISON_MEMORY_REGION(m.all.data + bytes, m.after());
  m.open(false);
  *memory = m.all.data;
  c.s.live.push_back(m);
  return 0;
}
Error give(void* memory) {                     // even if it is to fail
  const Call c("give");
  if (memory == nullptr) return c.error;
  for (size_t i = 0; i < c.s.live.size(); i++) {
    Memory& m = c.s.live[i];
    if (m.all.data != memory) continue;
    (void)m.check();
    c.s.closed.push_back(m.pages);
    madvise(m.pages.data, m.pages.bytes, MADV_DONTNEED);
    c.s.live.erase(c.s.live.begin() + static_cast<ptrdiff_t>(i));
    if (c.s.closed.size() > kept_closed) {
      guarded_unmap(c.s.closed.front().data, c.s.closed.front().bytes);
      c.s.closed.pop_front();
    }
    return c.error;
  }
  found("give: not what take gave");
  return value_error;
}

// ---- copies
static Error bad_range(const char* of) {
  found(std::string(of) + ": not inside of live memory of a device, or the host's end is");
  return value_error;
}
Error copy_in(Stream* s, void* device, const void* host, size_t bytes) {
  const Call c("copy_in");
  if (c.error != 0 || bytes == 0) return c.error;
  if (!c.knows(s)) return handle_error;
  Memory* const m = c.s.holder(device, bytes);
  if (m == nullptr || c.s.of_a_device(host)) return bad_range("copy_in");
  m->write(device, host, bytes);
  return 0;
}
Error copy_out(Stream* s, void* host, const void* device, size_t bytes) {
  const Call c("copy_out");
  if (c.error != 0 || bytes == 0) return c.error;
  if (!c.knows(s)) return handle_error;
  Memory* const m = c.s.holder(device, bytes);
  if (m == nullptr || c.s.of_a_device(host)) return bad_range("copy_out");
  const Memory::Whole whole(*m);
  const unsigned char* const from = static_cast<const unsigned char*>(device);
  s->copies.push_back({host, {from, from + bytes}});
  return 0;
}

// ---- launches
// The memory that a kernel may touch: what its arguments point into. (Nothing more can be said of them: the
// bytes between their members may be anything.)
static std::vector<Memory*> pointed_at(State& s, const Launch& l) {
  std::vector<Memory*> used;
  for (size_t i = 0; i + sizeof(void*) <= l.argument_bytes; i += sizeof(void*)) {
    void* p = nullptr;
    memcpy(&p, static_cast<const unsigned char*>(l.arguments.get()) + i, sizeof(p));
    Memory* const m = s.holder(p, 0);
    if (m == nullptr || m->device != device_now) continue;
    if (std::find(used.begin(), used.end(), m) == used.end()) used.push_back(m);
  }
  return used;
}
static Error run(State& s, const Launch& l) {
  const std::vector<Memory*> used = pointed_at(s, l);
  bool fine = true;
  const auto once = [&](Order order) {
    s.launches++;
    for (Memory* m : used) m->open(true);
    fine = run_blocks(l, order, s.seed) && fine;
    for (Memory* m : used) m->open(false);
  };
  if (s.order != Order::all) return once(s.order), fine ? 0 : launch_error;

  std::vector<std::vector<unsigned char>> before, first;
  for (Memory* m : used) before.push_back(m->values());
  once(Order::forward);
  for (Memory* m : used) first.push_back(m->values());
  for (Order order : {Order::backward, Order::shuffled}) {
    for (size_t i = 0; i < used.size(); i++) used[i]->restore(before[i]);
    once(order);
    for (size_t i = 0; i < used.size(); i++)
      if (fine && used[i]->values() != first[i]) {
        found("race: the order of threads or blocks changes what is computed, " + named(l));
        fine = false;
      }
  }
  return fine ? 0 : launch_error;
}
Error launch(Stream* s, const Launch& l) {
  const Call c;
  const Grid g = l.grid;
  if (c.error != 0) return c.error;
  const auto within = [](unsigned n, unsigned limit) { return n >= 1 && n <= limit; };
  if (!within(l.threads, 1024) || !within(g.x, 0x7FFFFFFF) || !within(g.y, 65535) || !within(g.z, 65535))
    return configuration_error;
  if (l.shared > size_t(48) * 1024) return value_error;
  if (c.knows(s) && s->device != device_now) return handle_error;
  return c.run_or_record(s, [l](State& all) { return run(all, l); });
}

// ---- products
// To 11 bits, of two as near the one further from zero; to 8, of two as near the even one.
static float factor(float v, int bits) {
  uint32_t word = 0;
  memcpy(&word, &v, sizeof(word));
  if ((word & 0x7F800000u) == 0x7F800000u) return v;
  word = bits == 8 ? (word + 0x7FFFu + (word >> 16 & 1u)) & 0xFFFF0000u : (word + 0x1000u) & 0xFFFFE000u;
  memcpy(&v, &word, sizeof(v));
  return v;
}
static void multiply(const Matmul& m) {
  const size_t M = static_cast<size_t>(m.M), N = static_cast<size_t>(m.N), K = static_cast<size_t>(m.K);
  const size_t a_line = static_cast<size_t>(m.a_line), b_line = static_cast<size_t>(m.b_line);
  std::vector<float> b(K * N), sum(N);
  for (size_t k = 0; k < K; k++)
    for (size_t n = 0; n < N; n++)
      b[k * N + n] = factor(m.B[m.b_transposed ? n * b_line + k : k * b_line + n], m.bits);
  for (size_t i = 0; i < M; i++) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (size_t k = 0; k < K; k++) {
      const float a = factor(m.A[m.a_transposed ? k * a_line + i : i * a_line + k], m.bits);
      for (size_t n = 0; n < N; n++) sum[n] += a * b[k * N + n];
    }
    float* const c = m.C + i * static_cast<size_t>(m.c_line);
    for (size_t n = 0; n < N; n++) {
      if (m.bias != nullptr) sum[n] += m.bias[n];
      c[n] = m.more ? c[n] + sum[n] : sum[n];
    }
  }
}
static Error run(State& s, const Matmul& m) {
  std::vector<Memory*> used;
  bool fine = true;
  const auto use = [&](const float* p, bool transposed, int rows, int columns, int64_t line) {
    if (transposed) std::swap(rows, columns);
    const int64_t floats = (rows - 1) * line + columns;
    Memory* const memory = s.holder(p, static_cast<size_t>(floats) * sizeof(float));
    fine = fine && line >= columns && memory != nullptr && memory->device == device_now &&
           reinterpret_cast<uintptr_t>(p) % 16 == 0;
    if (fine && std::find(used.begin(), used.end(), memory) == used.end()) used.push_back(memory);
  };
  use(m.A, m.a_transposed, m.M, m.K, m.a_line);
  use(m.B, m.b_transposed, m.K, m.N, m.b_line);
  use(m.C, false, m.M, m.N, m.c_line);
  if (m.bias != nullptr) use(m.bias, false, 1, m.N, m.N);
  if (!fine) {
    found("matmul: not inside of live memory of the device, or not at a multiple of 16 bytes");
    return value_error;
  }
  s.launches++, s.matmuls++;
  for (Memory* memory : used) memory->open(true);
  multiply(m);
  for (Memory* memory : used) memory->open(false);
  return 0;
}
Error new_multiplier(Multiplier*& m) {
  const Call c("new_multiplier");
  if (c.error != 0) return c.error;
  c.s.multipliers.push_back(m = new Multiplier{device_now});
  return 0;
}
Error matmul(Multiplier* with, Stream* s, const Matmul& m) {
  const Call c;
  if (c.error != 0) return c.error;
  if (!c.knows(c.s.multipliers, with) || !c.knows(s)) return handle_error;
  if (with->device != device_now || s->device != device_now) return handle_error;
  if (m.M < 1 || m.N < 1 || m.K < 1 || (m.bits != 11 && m.bits != 8)) return value_error;
  return c.run_or_record(s, [m](State& all) { return run(all, m); });
}

// ---- recordings
Error start_recording(Stream* s) {
  const Call c("start_recording");
  if (c.error != 0) return c.error;
  if (!c.knows(s)) return handle_error;
  s->recording.reset(new Recording);
  return 0;
}
Error stop_recording(Stream* s, Recording*& to) {      // the stream records no more, even if it fails
  const Call c;
  if (!c.knows(s) || !s->recording) return handle_error;
  const std::unique_ptr<Recording> made = std::move(s->recording);
  if (c.error != 0) return c.error;
  c.s.recordings.push_back(to = new Recording(*made));
  return 0;
}
Error new_graph(Recording* of, int times, Graph*& to) {
  const Call c("new_graph");
  if (c.error != 0) return c.error;
  if (!c.knows(c.s.recordings, of)) return handle_error;
  c.s.graphs.push_back(to = new Graph{*of, times});
  return 0;
}
Error run_graph(Stream* s, Graph* g) {
  const Call c("run_graph");
  if (c.error != 0) return c.error;
  if (!c.knows(s) || !c.knows(c.s.graphs, g)) return handle_error;
  Error e = 0;
  for (int i = 0; i < g->times; i++)
    for (const auto& work : g->work)
      if (e == 0) e = work(c.s);
  return e;
}
// All of them even if they are to fail.
template <class T>
static Error end(std::vector<T*>& live, T* t) {
  const Call c;
  if (!c.knows(live, t)) {
    found("ended twice, or never made: a recording, a graph or a multiplier");
    return value_error;
  }
  live.erase(std::find(live.begin(), live.end(), t));
  delete t;
  return c.error;
}
Error end_recording(Recording* r) { return end(state().recordings, r); }
Error end_graph(Graph* g) { return end(state().graphs, g); }
Error end_multiplier(Multiplier* m) { return end(state().multipliers, m); }

// ================================================================================ control
void reset() {
  State& s = state();
  s.devices = 1, s.overlaps = true, s.limit = SIZE_MAX, s.order = Order::forward, s.seed = 1, s.fail_in = 0;
  device_now = 0;
  s.used.clear();
  s.many_products = at_first_many;
}
void    set_devices(int count) { state().devices = count; }
void    set_overlaps(bool can) { state().overlaps = can; }
void    set_memory(size_t bytes) { state().limit = bytes; }
void    set_many_products(int64_t count) { state().many_products = count; }
void    set_order(Order order, uint64_t seed) { state().order = order, state().seed = seed; }
void    fail_call(long n, Error error) { state().fail_in = n, state().fail_with = error; }
long    calls() { return state().calls; }
long    launches() { return state().launches; }
long    matmuls() { return state().matmuls; }
int64_t many_products() { return state().many_products; }
size_t  live_bytes() { return state().bytes_of(-1); }
size_t  live_recordings() { return state().recordings.size() + state().graphs.size(); }
size_t  live_multipliers() { return state().multipliers.size(); }
std::vector<std::string> findings() {
  std::vector<std::string> all;
  all.swap(state().findings);
  return all;
}
void poison(void* device, size_t bytes) {
  Memory* const m = state().holder(device, bytes);
  if (m == nullptr) return found("poison: not memory of a device");
  m->poisoned.push_back({static_cast<unsigned char*>(device), bytes});
  m->write(device, nullptr, 0);
}
void unpoison(void* device, size_t bytes) {
  Memory* const m = state().holder(device, bytes);
  if (m == nullptr) return found("unpoison: not memory of a device");
  ASAN_UNPOISON_MEMORY_REGION(device, bytes);
  std::vector<Range>& all = m->poisoned;
  const auto same = [&](const Range& r) { return r.data == device && r.bytes == bytes; };
  all.erase(std::remove_if(all.begin(), all.end(), same), all.end());
}

}  // namespace fake
