// Items of a list, done by the threads of a pool, each when one is free.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>

#include "nnlite.hpp"

inline int workers_of(const nnlite::Pool* pool) { return pool ? pool->workers : 1; }

// Calls work(i, worker) for every i in [0, count). What one of the calls throws is thrown when all have ended.
template <class Work>
void for_each(nnlite::Pool* pool, std::size_t count, Work work) {
  struct Job {
    Work& work;
    std::size_t count;
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr thrown = nullptr;
  } job{work, count};
  const auto run = [](void* context, int worker) {
    Job& j = *static_cast<Job*>(context);
    for (std::size_t i; (i = j.next++) < j.count;) try {
        j.work(i, worker);
      } catch (...) {
        if (!j.failed.exchange(true)) j.thrown = std::current_exception();
        j.next = j.count;
      }
  };
  if (pool) pool->run(pool->user, pool->workers, run, &job);
  else run(&job, 0);
  if (job.thrown) std::rethrow_exception(job.thrown);
}
