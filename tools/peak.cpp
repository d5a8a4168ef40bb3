#include "peak.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "failure.hpp"
#include "progress.hpp"

namespace {

constexpr int chains = 12;  // independent sums, more than a unit's latency times the number of units
using Chains = std::make_integer_sequence<int, chains>;
constexpr int turns = 100000;
volatile float one = 1, zero = 0, sink;  // hide what is computed from the compiler

using Vector4 [[gnu::vector_size(16)]] = float;
using Vector8 [[gnu::vector_size(32)]] = float;
using Vector16 [[gnu::vector_size(64)]] = float;

// x = x * 1 + 0 for independent vectors: one instruction where the target can fuse product and sum, for this
// file is compiled so that the compiler may.
template <class Vector, int... k>
[[gnu::always_inline]] inline void multiply_add(std::integer_sequence<int, k...>) {
  Vector x[] = {(Vector{} + static_cast<float>(k))...};
  const Vector factor = x[0] + one, addend = x[0] + zero;
  for (int i = 0; i < turns; ++i) ((x[k] = x[k] * factor + addend), ...);
  ((sink = x[k][0]), ...);
}

void run4() { multiply_add<Vector4>(Chains()); }
#ifdef __x86_64__
[[gnu::target("avx2,fma")]] void run8() { multiply_add<Vector8>(Chains()); }
[[gnu::target("avx512f,fma")]] void run16() { multiply_add<Vector16>(Chains()); }
#endif

using Run = void();

double best_of(nnlite::Pool* pool, Run* run, int lanes) {
  const int workers = pool ? pool->workers : 1;
  double least = 1e9;
  for (int i = 0; i < 20; ++i) {
    const double start = now();
    if (workers == 1) run();
    else
      pool->run(pool->user, workers, [](void* work, int) { (*static_cast<Run**>(work))(); }, &run);
    least = std::min(least, now() - start);
  }
  return 2.0 * workers * chains * turns * lanes / least * 1e-9;
}

}  // namespace

double peak_gflops(nnlite::Pool* pool) {
#ifdef __x86_64__
  if (nnlite::current_isa() == nnlite::Isa::avx2) return best_of(pool, run8, 8);
  if (nnlite::current_isa() == nnlite::Isa::avx512) return best_of(pool, run16, 16);
#endif
  return best_of(pool, run4, 4);
}

void require_isa() {
  const char* isa = std::getenv("NNLITE_ISA");
  if (isa && *isa && std::string(isa) != nnlite::isa_name(nnlite::current_isa()))
    throw UsageError{fmt::format("NNLITE_ISA: '{}' is no instruction set of this machine", isa)};
}
