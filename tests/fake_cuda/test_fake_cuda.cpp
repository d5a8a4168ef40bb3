// The fake sees what a GPU would not forgive: one seeded fault of each kind.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <numeric>
#include "seams.hpp"

namespace {
using namespace nnlite_gpu;
using fake::Order;
constexpr Order orders[] = {Order::forward, Order::backward, Order::shuffled};

// A device of its own for a test.
struct Device {
  Stream s = 0;
  std::vector<void*> all;
  Device() {
    fake::reset();
    REQUIRE(new_stream(s) == 0);
  }
  ~Device() {
    for (void* p : all) CHECK(give(p) == 0);
    CHECK(end_stream(s) == 0);
    fake::reset();
  }
  template <class T>
  T* have(size_t count) {
    void* p = nullptr;
    REQUIRE(take(&p, count * sizeof(T)) == 0);
    all.push_back(p);
    return static_cast<T*>(p);
  }
  template <class T>
  std::vector<T> back(const T* from, size_t count) {
    std::vector<T> to(count);
    CHECK(copy_out(s, to.data(), from, count * sizeof(T)) == 0);
    CHECK(sync(s) == 0);
    return to;
  }
};

// Whether the process that does this ends by a signal or a sanitizer's report.
template <class F>
bool dies(F f) {
  const pid_t child = fork();
  if (child == 0) {
    (void)!freopen("/dev/null", "w", stderr);
    for (int signal : {SIGSEGV, SIGBUS, SIGABRT}) std::signal(signal, SIG_DFL);
    f();
    _exit(0);
  }
  int how = 0;
  REQUIRE(waitpid(child, &how, 0) == child);
  return how != 0;
}

void number(int* to) { to[block().x * threads() + thread()] = int(block().x * 1000 + thread()); }

// The sum of a block, in shared memory by halves.
template <bool with_barrier>
void sum(const float* from, float* to) {
  float* const    room = shared<float>();
  const unsigned  t = thread();
  room[t] = from[block().x * threads() + t];
  for (unsigned half = threads() / 2; half > 0; half /= 2) {
    if (with_barrier) barrier();
    if (t < half) room[t] += room[t + half];
  }
  if (t == 0) to[block().x] = room[0];
}
void sum_of_warp(const float* from, float* to) {
  float v = from[thread()];
  for (int lanes = 16; lanes > 0; lanes /= 2) v += shuffle_xor(v, lanes);
  to[thread()] = v;
}
void write_shared(int at) {
  float* const room = shared<float>();
  if (thread() == 0) room[at] = 1;
}
void write_at(float* to, int at) { to[at] = 1; }
void some_leave(float* to) {
  if (thread() % 2 == 1) return;
  barrier();
  to[thread()] = 1;
}
void two_barriers(float* to) {
  if (thread() % 2 == 1) {
    to[thread()] = 1;
    barrier();
    to[thread()] = 2;
  } else {
    to[thread()] = 3;
    barrier();
    to[thread()] = 4;
  }
}
void neighbours(float* to) { to[0] = float(thread()); }

std::vector<float> numbers(size_t n) {
  std::vector<float> v(n);
  for (size_t i = 0; i < n; i++) v[i] = 1.0f / float(i + 3);
  return v;
}
}  // namespace

TEST_CASE("fake_cuda: every thread of every block runs once, in any order") {
  for (Order o : orders) {
    Device d;
    fake::set_order(o, 5);
    int* const to = d.have<int>(6 * 70);
    CHECK(launch(d.s, number, {6}, 70, 0, to) == 0);
    const std::vector<int> all = d.back(to, 6 * 70);
    for (int i = 0; i < 6 * 70; i++) CHECK(all[size_t(i)] == i / 70 * 1000 + i % 70);
    CHECK(fake::findings().empty());
  }
}

TEST_CASE("fake_cuda: barriers and shuffles, the same bits in any order; a barrier left out shows") {
  std::vector<std::vector<float>> with, without, warps;
  for (Order o : orders) {
    Device d;
    fake::set_order(o, 9);
    float *const from = d.have<float>(512), *const to = d.have<float>(512);
    const std::vector<float> values = numbers(512);
    CHECK(copy_in(d.s, from, values.data(), 512 * sizeof(float)) == 0);
    CHECK(launch(d.s, sum<true>, {2}, 256, 256 * sizeof(float), from, to) == 0);
    with.push_back(d.back(to, 2));
    CHECK(launch(d.s, sum_of_warp, {1}, 64, 0, from, to) == 0);
    warps.push_back(d.back(to, 64));
    CHECK(fake::findings().empty());
    CHECK(launch(d.s, sum<false>, {2}, 256, 256 * sizeof(float), from, to) == 0);
    without.push_back(d.back(to, 2));
  }
  const std::vector<float> values = numbers(512);
  CHECK(std::fabs(with[0][0] - std::accumulate(values.begin(), values.begin() + 256, 0.0f)) < 1e-4f);
  CHECK(std::fabs(warps[0][40] - std::accumulate(values.begin() + 32, values.begin() + 64, 0.0f)) < 1e-5f);
  for (size_t i = 1; i < 3; i++) {
    CHECK(with[i] == with[0]);
    CHECK(warps[i] == warps[0]);
  }
  CHECK((without[1] != with[0] || without[2] != with[0] || without[0] != with[0]));
}

TEST_CASE("fake_cuda: a race shows in another order") {
  std::vector<float> last;
  for (Order o : orders) {
    Device d;
    fake::set_order(o, 3);
    float* const to = d.have<float>(1);
    CHECK(launch(d.s, neighbours, {1}, 64, 0, to) == 0);
    last.push_back(d.back(to, 1)[0]);
  }
  CHECK(last[0] != last[1]);
}

TEST_CASE("fake_cuda: barriers that not all threads reach, or not the same one") {
  Device d;
  float* const to = d.have<float>(64);
  CHECK(launch(d.s, some_leave, {1}, 64, 0, to) == 0);
  CHECK(sync(d.s) == 0);
  REQUIRE(!fake::findings().empty());
  CHECK(launch(d.s, two_barriers, {1}, 64, 0, to) == 0);
  CHECK(sync(d.s) == 0);
  REQUIRE(!fake::findings().empty());
}

TEST_CASE("fake_cuda: one behind shared memory, which begins as not a number") {
  Device d;
  CHECK(launch(d.s, write_shared, {1}, 32, 128, 31) == 0);
  CHECK(sync(d.s) == 0);
  CHECK(fake::findings().empty());
  const bool seen = dies([&] {
    (void)launch(d.s, write_shared, {1}, 32, 128, 32);
    (void)sync(d.s);
    if (!fake::findings().empty()) std::abort();
  });
  CHECK(seen);
  float* const to = d.have<float>(1);
  const auto read = [](float* out) { out[0] = shared<float>()[3]; };
  CHECK(launch(d.s, +read, {1}, 1, 16, to) == 0);
  CHECK(std::isnan(d.back(to, 1)[0]));
}

TEST_CASE("fake_cuda: one behind an allocation, after it is given back, and by the host") {
  Device d;
  float* const to = d.have<float>(100);
  CHECK(std::isnan(d.back(to, 100)[99]));
  CHECK(launch(d.s, write_at, {1}, 1, 0, to, 100) == 0);
  CHECK(sync(d.s) == 0);
  CHECK(fake::findings().size() == 1);
  CHECK(copy_in(d.s, to + 1, numbers(100).data(), 400) != 0);
  CHECK(dies([&] {
    void* gone = nullptr;
    (void)take(&gone, 400);
    (void)give(gone);
    (void)launch(d.s, write_at, {1}, 1, 0, static_cast<float*>(gone), 0);
    (void)sync(d.s);
  }));
  CHECK(dies([&] { to[0] = 1; }));
  CHECK(dies([&] { std::abort(); }));
  CHECK_FALSE(dies([&] { (void)d.s; }));
}

TEST_CASE("fake_cuda: launches have CUDA's limits") {
  Device d;
  float* const to = d.have<float>(1);
  CHECK(launch(d.s, write_at, {1}, 1025, 0, to, 0) != 0);
  CHECK(launch(d.s, write_at, {1}, 0, 0, to, 0) != 0);
  CHECK(launch(d.s, write_at, {0}, 1, 0, to, 0) != 0);
  CHECK(launch(d.s, write_at, {1, 65536}, 1, 0, to, 0) != 0);
  CHECK(launch(d.s, write_at, {1}, 1, 48 * 1024 + 1, to, 0) != 0);
  CHECK(fake::findings().size() == 5);
  CHECK(launch(d.s, write_at, {1}, 1024, 48 * 1024, to, 0) == 0);
  CHECK(sync(d.s) == 0);
}

TEST_CASE("fake_cuda: work waits for sync, and what is recorded runs when it is asked to") {
  Device d;
  float* const to = d.have<float>(4);
  std::vector<float> here(4, 0.0f);
  CHECK(clear(d.s, to, 16) == 0);
  CHECK(copy_out(d.s, here.data(), to, 16) == 0);
  here[0] = 5;
  CHECK(here[0] == 5);                         // the copy has not come yet
  CHECK(sync(d.s) == 0);
  CHECK(here[0] == 0);
  Graph g = nullptr;
  CHECK(start_recording(d.s) == 0);
  const auto count = [](float* c) { c[0] += 1; };
  CHECK(launch(d.s, +count, {1}, 1, 0, to) == 0);
  CHECK(launch(d.s, +count, {1}, 1, 0, to) == 0);
  CHECK(stop_recording(d.s, g) == 0);
  CHECK(d.back(to, 1)[0] == 0);
  for (int i = 0; i < 3; i++) CHECK(run_recorded(d.s, g) == 0);
  CHECK(d.back(to, 1)[0] == 6);
  CHECK(end_recorded(g) == 0);
  CHECK(start_recording(d.s) == 0);
  CHECK(copy_in(d.s, to, here.data(), 16) != 0);
  CHECK(fake::findings().size() == 1);
  CHECK(stop_recording(d.s, g) == 0);
  CHECK(end_recorded(g) == 0);
}

TEST_CASE("fake_cuda: memory is counted and limited, calls fail when they are told to") {
  Device d;
  const size_t before = fake::live_bytes();
  fake::set_memory(before + 1000);
  void *a = nullptr, *b = nullptr;
  CHECK(take(&a, 900) == 0);
  CHECK(fake::live_bytes() == before + 900);
  CHECK(no_memory(take(&b, 200)));
  CHECK(give(a) == 0);
  CHECK(fake::live_bytes() == before);
  fake::fail_call(2, 9);
  CHECK(sync(d.s) == 0);
  CHECK(sync(d.s) == 9);
  CHECK(sync(d.s) == 0);
  fake::set_devices(0);
  int count = 5;
  CHECK(device_count(count) == 0);
  CHECK(count == 0);
  CHECK(use_device(0) != 0);
}
