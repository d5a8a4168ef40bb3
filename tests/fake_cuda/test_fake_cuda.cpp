// One fault of each kind that the fake GPU is to see.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "../engine.hpp"
#include "seams.hpp"

namespace gpu = nnlite_gpu;

namespace {

#ifdef NNLITE_FAKE_TSAN
constexpr bool by_thread_sanitizer = true;
#else
constexpr bool by_thread_sanitizer = false;
#endif

// Whether f, in a process of its own, ends by a signal or a sanitizer, or leaves findings.
template <class F>
bool dies(const F& f) {
  const pid_t child = fork();
  if (child == 0) {
    for (int s : {SIGSEGV, SIGBUS, SIGABRT}) signal(s, SIG_DFL);
    const int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 1), dup2(nowhere, 2);
    f();
    _exit(fake::findings().empty() ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// A stream and memory for n floats.
struct Gpu {
  gpu::Stream stream = nullptr;
  float*      data   = nullptr;
  size_t      n;
  explicit Gpu(size_t count) : n(count) {
    fake::reset();
    void* memory = nullptr;
    REQUIRE(gpu::use_device(0) == 0);
    REQUIRE(gpu::new_stream(stream) == 0);
    REQUIRE(gpu::take(&memory, n * sizeof(float)) == 0);
    data = static_cast<float*>(memory);
  }
  Gpu(const Gpu&)            = delete;
  Gpu& operator=(const Gpu&) = delete;
  ~Gpu() {
    fake::reset();
    if (data != nullptr) CHECK(gpu::give(data) == 0);
    CHECK(gpu::end_stream(stream) == 0);
  }
  gpu::Error zero() const {
    const std::vector<float> zeros(n);
    return gpu::copy_in(stream, data, zeros.data(), n * sizeof(float));
  }
  std::vector<float> values() {
    std::vector<float> v(n);
    CHECK(gpu::copy_out(stream, v.data(), data, n * sizeof(float)) == 0);
    CHECK(gpu::sync(stream) == 0);
    return v;
  }
};

void fill(float* to, unsigned n, float value) {
  const unsigned i = gpu::block().x * gpu::threads() + gpu::thread();
  if (i < n) to[i] = value + static_cast<float>(i);
}
// to[i] = the sum of what the threads of block i hold; without its barriers where `barriers` is false.
void sums(float* to, bool barriers) {
  float* const   room = gpu::shared<float>();
  const unsigned t    = gpu::thread();
  room[t]             = static_cast<float>(t + gpu::block().x);
  for (unsigned half = gpu::threads() / 2; half > 0; half /= 2) {
    if (barriers) gpu::barrier();
    if (t < half) room[t] += room[t + half];
  }
  if (t == 0) to[gpu::block().x] = room[0];
}
void last_one_wins(float* to) { to[0] = static_cast<float>(gpu::block().x * gpu::threads() + gpu::thread()); }
void warp_sums(float* to) {
  float v = static_cast<float>(gpu::thread());
  for (int lanes = 16; lanes > 0; lanes /= 2) v += gpu::shuffle_xor(v, lanes);
  to[gpu::thread()] = v;
}
void swapped(int64_t* to) {
  const int64_t v   = gpu::shuffle_xor(int64_t(gpu::thread()) << 40, 1);
  to[gpu::thread()] = v;
}
void some_return(float* to) {
  if (gpu::thread() > 40) return;
  gpu::barrier();
  to[gpu::thread()] = 1;
}
void barrier_in_branch(float* to) {
  if (gpu::thread() % 2 == 0) {
    gpu::barrier();
    to[0] = 1;
  } else {
    gpu::barrier();
    to[1] = 2;
  }
}
void lane_returns(float* to) {
  if (gpu::thread() == 7) return;
  to[gpu::thread()] = gpu::shuffle_xor(1.0f, 1);
}
void lane_at_barrier(float* to) {
  if (gpu::thread() == 7) gpu::barrier();
  to[gpu::thread()] = gpu::shuffle_xor(1.0f, 1);
}
void other_lanes(float* to) { to[gpu::thread()] = gpu::shuffle_xor(1.0f, gpu::thread() < 8 ? 1 : 2); }
// Of all lanes the first value, doubled by the second.
void exchanged(float* to) {
  const float           mine[2] = {static_cast<float>(gpu::thread()), 2};
  const gpu::Lanes<2>   first(mine);
  float                 sum = 0;
  for (int lane = 0; lane < 32; lane++) sum += first.of(lane, 0) * first.of(lane, 1);
  const float           more[1] = {sum};
  const gpu::Lanes<1>   second(more);          // while others still read what came first
  to[gpu::thread()] = second.of(static_cast<int>(gpu::thread()) % 32 ^ 1, 0);
}
void lane_keeps_its_values(float* to) {
  if (gpu::thread() == 7) return;
  const float mine[1] = {1};
  to[gpu::thread()] = gpu::Lanes<1>(mine).of(0, 0);
}
// Two groups of copies, the second of zeros; read when no more than `left` are under way, or without a barrier.
template <int left, bool barrier>
void copied(float* to, const float* from) {
  float* const   room = gpu::shared<float>();
  const unsigned t = gpu::thread(), n = gpu::threads();
  gpu::copy_async<1>(room + t, from + t, true);
  gpu::commit_copies();
  gpu::copy_async<4>(room + n + t * 4, from, false);
  gpu::commit_copies();
  gpu::wait_for_copies<left>();
  if (barrier) gpu::barrier();
  to[t]     = room[n - 1 - t];
  to[n + t] = room[n + t];
  gpu::wait_for_copies<0>();
}
void never_waits(float* to) {
  gpu::copy_async<4>(gpu::shared<float>(), to, true);
  gpu::commit_copies();
}
void copies_from(float* to, int i) {
  gpu::copy_async<4>(gpu::shared<float>(), to + i, true);
  gpu::commit_copies();
  gpu::wait_for_copies<0>();
}
void write_at(float* to, int i) { to[i] = 1; }
void read_at(float* to, int i) { to[0] = to[i]; }
void write_shared(float* to, int i) { gpu::shared<float>()[i] = 1, to[0] = 1; }
void read_shared(float* to, int i) { to[0] = gpu::shared<float>()[i]; }
void nothing(float*) {}
void count_up(float* to) { to[0] += 1; }
void follows(float* to) {
  gpu::follow();
  gpu::barrier();
  to[gpu::thread()] = 1;
}

// How many things f has left to find.
template <class F>
size_t found_by(const F& f) {
  f();
  return fake::findings().size();
}

}  // namespace

// Every test case begins with devices that hold nothing. (With ASan no memory of the host comes twice, so that what
// nnlite_cuda.cu keeps for it would only grow.)
struct Between : doctest::IReporter {
  explicit Between(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats&) override {}
  void test_case_start(const doctest::TestCaseData&) override { nnlite::close_cuda(0); }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};
REGISTER_LISTENER("between", 1, Between);

TEST_CASE("fake_cuda: kernels see their threads and blocks, and copies their values") {
  Gpu g(1000);
  CHECK(gpu::launch(g.stream, false, fill, {8}, 128, 0, g.data, 1000u, 0.5f) == 0);
  const std::vector<float> v = g.values();
  for (size_t i = 0; i < v.size(); i++) CHECK(v[i] == 0.5f + static_cast<float>(i));
}

TEST_CASE("fake_cuda: barriers and shuffles give the same bits in every order of threads and blocks") {
  Gpu g(64);
  CHECK(fake::same_in_every_order([&] {
    CHECK(g.zero() == 0);
    CHECK(gpu::launch(g.stream, false, sums, {3}, 256, 256 * sizeof(float), g.data, true) == 0);
    return g.values();
  }));
  const std::vector<float> v = g.values();
  CHECK(std::vector<float>(v.begin(), v.begin() + 3) == std::vector<float>{32640, 32896, 33152});
  CHECK(fake::same_in_every_order([&] {
    CHECK(gpu::launch(g.stream, false, warp_sums, {}, 64, 0, g.data) == 0);
    return g.values();
  }));
  CHECK(g.values()[31] == 496);
  CHECK(g.values()[32] == 1520);
  CHECK(gpu::launch(g.stream, false, swapped, {}, 32, 0, reinterpret_cast<int64_t*>(g.data)) == 0);
  int64_t words[32];
  CHECK(gpu::copy_out(g.stream, words, g.data, sizeof(words)) == 0);
  CHECK(gpu::sync(g.stream) == 0);
  CHECK(words[4] == int64_t(5) << 40);
  CHECK(fake::findings().empty());
}

TEST_CASE("fake_cuda: lanes see the values of their warp") {
  Gpu g(64);
  CHECK(fake::same_in_every_order([&] {
    CHECK(gpu::launch(g.stream, false, exchanged, {}, 64, 0, g.data) == 0);
    return g.values();
  }));
  CHECK(g.values()[31] == 2 * 496);
  CHECK(g.values()[32] == 2 * 1520);
  CHECK(fake::findings().empty());
  CHECK(dies([&] { (void)gpu::launch(g.stream, false, lane_keeps_its_values, {}, 32, 0, g.data); }));
}

TEST_CASE("fake_cuda: copies arrive with their wait, for others behind a barrier") {
  Gpu g(64);
  const auto all = [&](void (*kernel)(float*, const float*), uint64_t seed) {
    fake::set_order(seed == 0 ? fake::Order::backward : fake::Order::shuffled, seed);
    CHECK(gpu::launch(g.stream, false, fill, {}, 64, 0, g.data, 64u, 1.0f) == 0);
    CHECK(gpu::launch(g.stream, false, kernel, {}, 32, 160 * sizeof(float), g.data, g.data) == 0);
    return g.values();
  };
  const std::vector<float> v = all(copied<0, true>, 0);
  for (size_t i = 0; i < 32; i++) CHECK((v[i] == 32 - static_cast<float>(i) && v[32 + i] == 0));
  const std::vector<float> early = all(copied<1, true>, 0);
  for (size_t i = 0; i < 32; i++) CHECK((early[i] == v[i] && early[32 + i] != early[32 + i]));
  bool same = true;
  for (uint64_t seed = 0; seed < 4; seed++) same = same && all(copied<0, false>, seed) == v;
  CHECK_FALSE(same);
  CHECK(fake::findings().empty());
  CHECK(dies([&] { (void)gpu::launch(g.stream, false, never_waits, {}, 1, 16, g.data); }));
  CHECK_FALSE(dies([&] { (void)gpu::launch(g.stream, false, copies_from, {}, 1, 16, g.data, 4); }));
  CHECK(dies([&] { (void)gpu::launch(g.stream, false, copies_from, {}, 1, 16, g.data, 2); }));
}

TEST_CASE("fake_cuda: a missing barrier or another race changes bits with the order of threads") {
  Gpu g(3);
  const auto races = [&](auto kernel, gpu::Grid grid, unsigned threads, auto... more) {
    return dies([&] {
      const bool same = fake::same_in_every_order([&] {
        (void)gpu::launch(g.stream, false, kernel, grid, threads, threads * sizeof(float), g.data, more...);
        return g.values();
      });
      if (!same) _exit(1);
    });
  };
  CHECK_FALSE(races(sums, {3}, 256, true));
  CHECK(races(sums, {3}, 256, false));
  CHECK(races(last_one_wins, {}, 32));
  CHECK(races(last_one_wins, {4}, 1));
}

// Two threads write the same value: no order shows it. In a process that is not forked but a new one.
TEST_CASE("fake_cuda alone: a race that changes no bits" * doctest::skip()) {
  Gpu g(1);
  CHECK(gpu::launch(g.stream, false, write_at, {}, 2, 0, g.data, 0) == 0);
}
TEST_CASE("fake_cuda: the thread sanitizer sees a race that changes no bits") {
  char          path[4096] = {};
  const ssize_t length     = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (length <= 0) return;
  const std::string run = "'" + std::string(path) + "' -ns -tc='fake_cuda alone*' >/dev/null 2>&1";
  CHECK((std::system(run.c_str()) != 0) == by_thread_sanitizer);
}

TEST_CASE("fake_cuda: order all finds a race in the launch that has it, and leaves others as they are") {
  Gpu g(3);
  fake::set_order(fake::Order::all);
  CHECK(g.zero() == 0);
  for (int i = 0; i < 5; i++) CHECK(gpu::launch(g.stream, false, count_up, {}, 1, 0, g.data) == 0);
  CHECK(g.values()[0] == 5);
  CHECK(gpu::launch(g.stream, false, sums, {3}, 256, 256 * sizeof(float), g.data, true) == 0);
  CHECK(fake::findings().empty());
  const auto found = [&](auto kernel, auto... more) {
    return dies([&] {
      if (gpu::launch(g.stream, false, kernel, {}, 64, 64 * sizeof(float), g.data, more...) == fake::launch_error)
        _exit(fake::findings().size() == 1 ? 1 : 0);
    });
  };
  CHECK(found(sums, false));
  CHECK(found(last_one_wins));
  CHECK_FALSE(found(sums, true));
}

TEST_CASE("fake_cuda: a barrier that some threads never reach, by a return or by another barrier") {
  Gpu g(64);
  CHECK(found_by([&] { CHECK(gpu::launch(g.stream, false, some_return, {2}, 64, 0, g.data) == fake::launch_error); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::launch(g.stream, false, barrier_in_branch, {}, 64, 0, g.data) != 0); }) == 1);
  CHECK(gpu::launch(g.stream, false, warp_sums, {}, 64, 0, g.data) == 0);      // the stacks left behind are used again
  CHECK(g.values()[31] == 496);
}

TEST_CASE("fake_cuda: a launch that overlaps the one before it and does not wait for it") {
  Gpu g(64);
  CHECK(found_by([&] { CHECK(gpu::launch(g.stream, true, count_up, {}, 1, 0, g.data) == fake::launch_error); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::launch(g.stream, true, follows, {2}, 64, 0, g.data) == 0); }) == 0);
}

TEST_CASE("fake_cuda: a shuffle with a lane missing, or with lanes that want another") {
  Gpu g(64);
  CHECK(found_by([&] { CHECK(gpu::launch(g.stream, false, lane_returns, {}, 64, 0, g.data) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::launch(g.stream, false, lane_at_barrier, {}, 64, 0, g.data) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::launch(g.stream, false, other_lanes, {}, 64, 0, g.data) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::launch(g.stream, false, warp_sums, {}, 40, 0, g.data) != 0); }) == 1);
}

TEST_CASE("fake_cuda: shared memory begins as NaN in every block and has the size it was asked for") {
  Gpu g(4);
  for (size_t floats : {1u, 3u, 4u, 100u, 12288u}) {
    const int n = static_cast<int>(floats);
    CHECK(gpu::launch(g.stream, false, write_shared, {}, 1, floats * 4, g.data, n - 1) == 0);
    CHECK(gpu::launch(g.stream, false, read_shared, {}, 1, floats * 4, g.data, n - 1) == 0);
    CHECK(std::isnan(g.values()[0]));
    for (int i : {-1, n})
      CHECK(dies([&] { (void)gpu::launch(g.stream, false, write_shared, {}, 1, floats * 4, g.data, i); }));
  }
  CHECK(dies([&] { (void)gpu::launch(g.stream, false, read_shared, {}, 1, 400, g.data, 100); }));
  CHECK(dies([&] { (void)gpu::launch(g.stream, false, write_shared, {}, 1, 0, g.data, 0); }));
  CHECK_FALSE(dies([&] { (void)gpu::launch(g.stream, false, write_shared, {}, 1, 4, g.data, 0); }));
}

TEST_CASE("fake_cuda: fresh memory is NaN, and what lies around it is not touched") {
  for (size_t n : {1u, 3u, 64u, 1000u, 1024u}) {
    Gpu g(n);
    CHECK(std::isnan(g.values()[n - 1]));
    for (int i : {-1, static_cast<int>(n)})
      CHECK(dies([&] {
        (void)gpu::launch(g.stream, false, write_at, {}, 1, 0, g.data, i);
        (void)gpu::sync(g.stream);
      }));
    CHECK(dies([&] { (void)gpu::launch(g.stream, false, read_at, {}, 1, 0, g.data, static_cast<int>(n) + 64); }));
    const int last = static_cast<int>(n) - 1;
    CHECK_FALSE(dies([&] { (void)gpu::launch(g.stream, false, read_at, {}, 1, 0, g.data, last); }));
  }
}

TEST_CASE("fake_cuda: poisoned parts of an allocation, as between the tensors of an arena") {
  Gpu g(64);
  fake::poison(g.data + 20, 12 * sizeof(float));
  const auto touch = [&](int i) {
    return dies([&] {
      (void)gpu::launch(g.stream, false, write_at, {}, 1, 0, g.data, i);
      (void)gpu::sync(g.stream);
    });
  };
  CHECK_FALSE(touch(19));
  CHECK(touch(20));
  CHECK(touch(31));
  CHECK_FALSE(touch(32));
  CHECK(g.zero() == 0);
  CHECK(g.values()[19] == 0);
  CHECK(std::isnan(g.values()[20]));
  fake::unpoison(g.data + 20, 12 * sizeof(float));
  CHECK_FALSE(touch(20));
}

TEST_CASE("fake_cuda: memory given back, the host's hand in the device's memory, and bad copies") {
  Gpu   g(16);
  float host[20] = {};
  CHECK(g.zero() == 0);
  CHECK(dies([&] { host[0] = g.data[0]; }));
  CHECK(dies([&] { g.data[15] = 1; }));
  void* gone = nullptr;
  REQUIRE(gpu::take(&gone, 400) == 0);
  CHECK(gpu::give(gone) == 0);
  CHECK(dies([&] { (void)gpu::launch(g.stream, false, write_at, {}, 1, 0, static_cast<float*>(gone), 3); }));
  CHECK(found_by([&] { CHECK(gpu::copy_in(g.stream, gone, host, 4) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::give(gone) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::give(g.data + 4) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::copy_in(g.stream, g.data, host, 17 * 4) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::copy_out(g.stream, host, g.data - 1, 8) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::copy_out(g.stream, g.data, g.data, 8) != 0); }) == 1);
}

TEST_CASE("fake_cuda: a copy to the host is there after sync") {
  Gpu   g(1);
  float host = 7;
  CHECK(g.zero() == 0);
  CHECK(gpu::copy_out(g.stream, &host, g.data, 4) == 0);
  CHECK(host == 7);
  CHECK(gpu::sync(g.stream) == 0);
  CHECK(host == 0);
}

TEST_CASE("fake_cuda: what is recorded runs when it is asked to; what graphs refuse is found") {
  Gpu   g(2);
  float host = 0;
  const size_t before = fake::live_recordings();
  CHECK(gpu::start_recording(g.stream) == 0);
  CHECK(gpu::launch(g.stream, false, fill, {}, 2, 0, g.data, 2u, 0.0f) == 0);
  for (int i = 0; i < 3; i++) CHECK(gpu::launch(g.stream, false, count_up, {}, 1, 0, g.data) == 0);
  void* memory = nullptr;
  CHECK(found_by([&] { CHECK(gpu::take(&memory, 4) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::sync(g.stream) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::copy_in(g.stream, g.data, &host, 4) != 0); }) == 1);
  CHECK(found_by([&] { CHECK(gpu::copy_out(g.stream, &host, g.data, 4) != 0); }) == 1);
  gpu::Recording made = nullptr;
  gpu::Graph     once = nullptr, twice = nullptr;
  CHECK(gpu::stop_recording(g.stream, made) == 0);
  CHECK(gpu::new_graph(made, 1, once) == 0);
  CHECK(gpu::new_graph(made, 2, twice) == 0);
  CHECK(gpu::end_recording(made) == 0);
  CHECK(std::isnan(g.values()[0]));
  for (int i = 0; i < 2; i++) CHECK(gpu::run_graph(g.stream, once) == 0);
  CHECK(g.values() == std::vector<float>{3, 1});
  const long launches = fake::launches();
  CHECK(gpu::run_graph(g.stream, twice) == 0);
  CHECK(fake::launches() == launches + 8);
  CHECK(g.values() == std::vector<float>{3, 1});
  CHECK(fake::live_recordings() == before + 2);
  CHECK(gpu::end_graph(once) == 0);
  CHECK(gpu::end_graph(twice) == 0);
  CHECK(fake::live_recordings() == before);
}

TEST_CASE("fake_cuda: products have rounded factors, are recorded and stay where they are told to") {
  Gpu g(64);
  const size_t    none = fake::live_multipliers();
  gpu::Multiplier with = nullptr;
  CHECK(gpu::new_multiplier(with) == 0);
  CHECK(fake::live_multipliers() == none + 1);
  const auto launch = [&](const gpu::Matmul& m) { return gpu::matmul(with, g.stream, m); };
  std::vector<float> v(64, NAN);
  const float a[2][3] = {{1, 2, 3}, {4, 5, 6}}, b[3][2] = {{1, -1}, {2, -2}, {3, 1}};
  for (size_t i = 0; i < 6; i++) {
    v[i / 3 * 4 + i % 3] = a[i / 3][i % 3];                    // A, lines 4 apart
    v[12 + i % 3 * 2 + i / 3] = a[i / 3][i % 3];               // transposed
    v[20 + i] = b[i / 2][i % 2];
    v[28 + i % 2 * 3 + i / 2] = b[i / 2][i % 2];
  }
  v[36] = 10, v[37] = 1;                                       // the bias
  CHECK(gpu::copy_in(g.stream, g.data, v.data(), v.size() * sizeof(float)) == 0);
  float* const d = g.data;
  const gpu::Matmul plain = {2, 2, 3, d, d + 20, d + 40, 4, 2, 3, false, false, nullptr, false, 11};
  const auto c = [&] {
    const std::vector<float> all = g.values();
    CHECK(std::isnan(all[42]));                                // between the lines of C
    CHECK(std::isnan(all[45]));
    return std::vector<float>{all[40], all[41], all[43], all[44]};
  };
  CHECK(launch(plain) == 0);
  CHECK(c() == std::vector<float>{14, -2, 32, -8});
  gpu::Matmul other = plain;
  other.A = d + 12, other.a_line = 2, other.a_transposed = true;
  other.B = d + 28, other.b_line = 3, other.b_transposed = true, other.bias = d + 36;
  CHECK(launch(other) == 0);
  CHECK(c() == std::vector<float>{24, -1, 42, -7});
  other.more = true;
  CHECK(launch(other) == 0);
  CHECK(c() == std::vector<float>{48, -2, 84, -14});

  const float near[2] = {1 + 0x1p-9f, 1 + 0x1p-11f};           // 10 bits; halfway between two of 11
  CHECK(gpu::copy_in(g.stream, d, near, sizeof near) == 0);
  const float one = 1;
  CHECK(gpu::copy_in(g.stream, d + 20, &one, sizeof one) == 0);
  gpu::Matmul small = {2, 1, 1, d, d + 20, d + 48, 1, 1, 1, false, false, nullptr, false, 11};
  CHECK(launch(small) == 0);
  CHECK((g.values()[48] == 1 + 0x1p-9f && g.values()[49] == 1 + 0x1p-10f));
  small.bits = 8;
  CHECK(launch(small) == 0);
  CHECK((g.values()[48] == 1 && g.values()[49] == 1));

  const long before = fake::matmuls();
  gpu::Recording made = nullptr;
  gpu::Graph     twice = nullptr;
  CHECK(gpu::start_recording(g.stream) == 0);
  gpu::Matmul more = small;
  more.more = true;
  CHECK(launch(more) == 0);
  CHECK(gpu::stop_recording(g.stream, made) == 0);
  CHECK(gpu::new_graph(made, 2, twice) == 0);
  CHECK(fake::matmuls() == before);
  CHECK(gpu::run_graph(g.stream, twice) == 0);
  CHECK(fake::matmuls() == before + 2);
  CHECK(g.values()[48] == 3);
  CHECK(gpu::end_recording(made) == 0);
  CHECK(gpu::end_graph(twice) == 0);

  CHECK(fake::findings().empty());
  more.C = d + 49;                             // not at a multiple of 16 bytes
  CHECK(found_by([&] { CHECK(launch(more) == fake::value_error); }) == 1);
  more.C = d + 60, more.c_line = 8;            // its second line is beyond
  CHECK(found_by([&] { CHECK(launch(more) == fake::value_error); }) == 1);
  fake::fail_call(1);
  CHECK(gpu::end_multiplier(with) == fake::other_error);       // and yet ended
  CHECK(fake::live_multipliers() == none);
  CHECK(launch(small) == fake::handle_error);
}

TEST_CASE("fake_cuda: launches have CUDA's limits") {
  Gpu g(1);
  const long before = fake::launches();
  const auto launch = [&](gpu::Grid grid, unsigned threads, size_t shared) {
    return gpu::launch(g.stream, false, nothing, grid, threads, shared, g.data);
  };
  CHECK(launch({}, 0, 0) == fake::configuration_error);
  CHECK(launch({}, 1025, 0) == fake::configuration_error);
  CHECK(launch({0}, 1, 0) == fake::configuration_error);
  CHECK(launch({1, 0}, 1, 0) == fake::configuration_error);
  CHECK(launch({1, 65536}, 1, 0) == fake::configuration_error);
  CHECK(launch({1, 1, 65536}, 1, 0) == fake::configuration_error);
  CHECK(launch({0x80000000u}, 1, 0) == fake::configuration_error);
  CHECK(launch({}, 1, 48 * 1024 + 1) == fake::value_error);
  CHECK(fake::launches() == before);
  CHECK(launch({1, 65535}, 1, 0) == 0);
  CHECK(launch({}, 1024, 48 * 1024) == 0);
  CHECK(fake::launches() == before + 2);
}

TEST_CASE("fake_cuda: devices and memory as many as wanted, and any call fails where it is told to") {
  Gpu g(10);
  int number = 7;
  fake::set_devices(2);
  CHECK(gpu::use_device(2) == fake::device_error);
  CHECK(gpu::use_device(-1) == fake::device_error);
  CHECK(gpu::use_device(1) == 0);
  CHECK(gpu::current_device(number) == 0);
  CHECK(number == 1);
  CHECK(gpu::launch(g.stream, false, write_at, {}, 1, 0, g.data, 0) == fake::handle_error);
  CHECK(gpu::use_device(0) == 0);

  void *a = nullptr, *b = nullptr;
  const size_t before = fake::live_bytes();
  fake::set_memory(before + 100);
  CHECK(gpu::no_memory(gpu::take(&a, 101)));
  CHECK(gpu::take(&a, 100) == 0);
  CHECK(gpu::no_memory(gpu::take(&b, 1)));
  CHECK(fake::live_bytes() == before + 100);
  fake::fail_call(1);
  CHECK(gpu::give(a) == fake::other_error);    // and yet given back
  CHECK(fake::live_bytes() == before);

  const long calls = fake::calls();
  fake::fail_call(3, fake::no_memory_error);
  CHECK(g.zero() == 0);
  CHECK(gpu::sync(g.stream) == 0);
  CHECK(gpu::no_memory(gpu::launch(g.stream, false, write_at, {}, 1, 0, g.data, 0)));
  CHECK(gpu::sync(g.stream) == 0);
  CHECK(fake::calls() == calls + 4);
  CHECK(g.values()[0] == 0);

  fake::set_devices(0);
  CHECK(gpu::use_device(0) == fake::no_device_error);
  CHECK(gpu::current_device(number) == fake::no_device_error);
}

TEST_CASE("fake_cuda: what no test took of the findings ends the program with an error") {
  const pid_t child = fork();
  if (child == 0) {
    fclose(stderr);
    (void)gpu::give(&errno);
    exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 3);
}
