#include <doctest/doctest.h>

#include <atomic>
#include <cfenv>
#include <chrono>
#include <thread>
#include <vector>

#include "nnlite.hpp"

namespace test_threads {
using namespace nnlite;

struct Counts {
  std::atomic<int> of[2 * max_workers] = {};
  static void job(void* context, int worker) { static_cast<Counts*>(context)->of[worker]++; }
  bool all(int workers, int value) const {
    bool same = true;
    for (int i = 0; i < 2 * max_workers; i++) same = same && of[i] == (i < workers ? value : 0);
    return same;
  }
};

TEST_CASE("threads: shares cover all tasks once, whatever the counts") {
  for (uint32_t tasks : {0u, 1u, 2u, 7u, 64u, 1000003u})
    for (int workers : {1, 2, 3, 7, 64}) {
      uint32_t next = 0;
      for (int i = 0; i < workers; i++) {
        const Share s = share_of(tasks, workers, i);
        CHECK(s.first == next);
        CHECK(s.last >= s.first);
        next = s.last;
      }
      CHECK(next == tasks);
    }
}

#ifndef NNLITE_NO_THREADS
TEST_CASE("threads: every worker runs once, also with more threads than cores or more workers than threads") {
  for (int threads : {-1, 1, 2, 3, 7, 16, 1000}) {
    ThreadPool pool(threads);
    CHECK(pool.workers == (threads < 1 ? 1 : threads > max_workers ? max_workers : threads));
    for (int workers : {1, 2, pool.workers, pool.workers + 5}) {
      Counts counts;
      const int jobs = threads > 16 ? 3 : 200;
      for (int i = 0; i < jobs; i++) pool.run(pool.user, workers, Counts::job, &counts);
      CHECK(counts.all(workers, jobs));
    }
  }
}

TEST_CASE("threads: workers that fell asleep wake up for the next job") {
  ThreadPool pool(3);
  Counts     counts;
  for (int i = 1; i <= 20; i++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(i % 3));
    pool.run(pool.user, 3, Counts::job, &counts);
    CHECK(counts.all(3, i));
  }
}

TEST_CASE("threads: what a job wrote is seen after it, without atomics") {
  ThreadPool           pool(2);
  std::vector<int64_t> values(2);
  const auto add = [](void* context, int worker) {
    (*static_cast<std::vector<int64_t>*>(context))[size_t(worker)]++;
  };
  for (int i = 1; i <= 20000; i++) {
    pool.run(pool.user, 2, add, &values);
    if (values[0] != i || values[1] != i) FAIL("lost an answer at ", i);
  }
}

TEST_CASE("threads: a second caller and a job inside a job run all workers inline") {
  ThreadPool  pool(2);
  Counts      counts[3];
  const auto caller = [&](Counts& c) {
    for (int i = 0; i < 2000; i++) pool.run(pool.user, 5, Counts::job, &c);
  };
  std::thread other([&] { caller(counts[1]); });
  caller(counts[0]);
  other.join();
  CHECK(counts[0].all(5, 2000));
  CHECK(counts[1].all(5, 2000));

  struct Nested {
    ThreadPool& pool;
    Counts&     counts;
  } nested{pool, counts[2]};
  pool.run(pool.user, 2, [](void* context, int) {
    Nested& n = *static_cast<Nested*>(context);
    n.pool.run(n.pool.user, 3, Counts::job, &n.counts);
  }, &nested);
  CHECK(counts[2].all(3, 2));
}
#endif

TEST_CASE("threads: a job rounds to nearest and keeps subnormal numbers; the caller's setting comes back") {
  struct {
    float sum[4], subnormal[4];
  } seen = {};
  const auto job = [&](int worker) {
    volatile float one = 1.0f, little = 0x1p-25f, tiny = 0x1p-126f, half = 0.5f;
    seen.sum[worker]       = one + little;
    seen.subnormal[worker] = tiny * half;
  };
  std::fesetround(FE_UPWARD);
#ifndef NNLITE_NO_THREADS
  ThreadPool pool(3);
  run_workers(&pool, 4, job);
#else
  run_workers(nullptr, 4, job);
#endif
  CHECK(std::fegetround() == FE_UPWARD);
  std::fesetround(FE_TONEAREST);
  for (int i = 0; i < 4; i++) {
    CHECK(seen.sum[i] == 1.0f);
    CHECK(seen.subnormal[i] == 0x1p-127f);
  }
}

}  // namespace test_threads
