// One fault of each kind that the fake GPU is to see.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "seams.hpp"

namespace gpu = nnlite_gpu;

namespace {

// Whether f, in a process of its own, ends by a signal or a sanitizer, or leaves findings.
template <class F>
bool dies(const F& f) {
  const pid_t child = fork();
  if (child == 0) {
    for (int s : {SIGSEGV, SIGBUS, SIGABRT}) signal(s, SIG_DFL);
    const int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 1), dup2(nowhere, 2);
    f();
    _exit(fake::take_findings().empty() ? 0 : 1);
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

}  // namespace

TEST_CASE("fake_cuda: kernels see their threads and blocks, and copies their values") {
  Gpu g(1000);
  CHECK(gpu::launch(g.stream, fill, {8}, 128, 0, g.data, 1000u, 0.5f) == 0);
  const std::vector<float> v = g.values();
  for (size_t i = 0; i < v.size(); i++) CHECK(v[i] == 0.5f + static_cast<float>(i));
}

TEST_CASE("fake_cuda: barriers, in every order of threads and blocks") {
  Gpu g(3);
  CHECK(fake::same_in_every_order([&] {
    CHECK(gpu::launch(g.stream, sums, {3}, 256, 256 * sizeof(float), g.data, true) == 0);
    return g.values();
  }));
  CHECK(g.values() == std::vector<float>{32640, 32896, 33152});
}

TEST_CASE("fake_cuda: a missing barrier is seen by the order of threads") {
  Gpu g(3);
  CHECK_FALSE(fake::same_in_every_order([&] {
    CHECK(gpu::launch(g.stream, sums, {3}, 256, 256 * sizeof(float), g.data, false) == 0);
    return g.values();
  }));
}

TEST_CASE("fake_cuda: host memory and the device's are apart") {
  Gpu g(16);
  float host = 0;
  CHECK(gpu::clear(g.stream, g.data, 16 * sizeof(float)) == 0);
  CHECK(dies([&] { host = g.data[0]; }));
  CHECK(dies([&] { g.data[15] = 1; }));
  CHECK(host == 0);
}
