#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "nnlite.hpp"

// The vector functions of every instruction set, as functions over arrays, each in the region of its set.
#define NNLITE_TEST_SIMD(isa)                                                                           \
  namespace test_simd_##isa {                                                                           \
  using namespace nnlite::isa;                                                                          \
  static void apply(int which, const float* x, float* y, int n) {                                       \
    for (int i = 0; i < n; i += lanes) {                                                                \
      const int count = n - i < lanes ? n - i : lanes;                                                  \
      const vf a = load_part(x + i, count);                                                             \
      const vf r = which == 0   ? exp(a)                                                                \
                   : which == 1 ? expm1(a)                                                              \
                   : which == 2 ? log(a)                                                                \
                   : which == 3 ? log1p(abs(a))                                                         \
                   : which == 4 ? sigmoid(a)                                                            \
                   : which == 5 ? tanh(a)                                                               \
                   : which == 6 ? fma(a, a, set(-1.0f))                                                 \
                   : which == 7 ? add(mul(a, a), set(-1.0f))                                            \
                   : which == 8 ? div(set(1.0f), sqrt(abs(a)))                                          \
                   : which == 9 ? max(min(a, set(0.5f)), set(-0.5f))                                    \
                                : copy_sign(select(less(a, set(0.25f)), a, set(2.0f)), set(-1.0f));     \
      store_part(y + i, r, count);                                                                      \
    }                                                                                                   \
  }                                                                                                     \
  static float sum(const float* x, int n) {                                                             \
    vf total[parts];                                                                                    \
    for (int j = 0; j < parts; j++) total[j] = set(0.0f);                                               \
    for (int i = 0; i < n; i += 16)                                                                     \
      for (int j = 0; j < parts; j++)                                                                   \
        total[j] = add(total[j], load_part(x + i + j * lanes, within(n - i, j * lanes)));               \
    return tree_sum(total);                                                                             \
  }                                                                                                     \
  }

#ifdef NNLITE_KERNELS
#if NNLITE_FIRST_PASS == NNLITE_PASS_SCALAR
NNLITE_TEST_SIMD(isa_scalar)
#endif
#if NNLITE_FIRST_PASS == NNLITE_PASS_BASE || defined(NNLITE_X86) || defined(NNLITE_NEON)
NNLITE_TEST_SIMD(isa_base)
#endif
#ifdef NNLITE_X86
NNLITE_REGION_AVX2
NNLITE_TEST_SIMD(isa_avx2)
NNLITE_REGION_END
NNLITE_REGION_AVX512
NNLITE_TEST_SIMD(isa_avx512)
NNLITE_REGION_END
#elif defined(NNLITE_NEON)
NNLITE_TEST_SIMD(isa_neon)
#endif

namespace test_simd {
using namespace nnlite;

struct Set {
  Isa isa;
  void (*apply)(int, const float*, float*, int);
  float (*sum)(const float*, int);
};
#define NNLITE_TEST_SET(name) {Isa::name, test_simd_isa_##name::apply, test_simd_isa_##name::sum}
static const Set sets[] = {
#if NNLITE_FIRST_PASS == NNLITE_PASS_SCALAR
    NNLITE_TEST_SET(scalar),
#endif
#if NNLITE_FIRST_PASS == NNLITE_PASS_BASE || defined(NNLITE_X86) || defined(NNLITE_NEON)
    NNLITE_TEST_SET(base),
#endif
#ifdef NNLITE_X86
    NNLITE_TEST_SET(avx2), NNLITE_TEST_SET(avx512),
#elif defined(NNLITE_NEON)
    NNLITE_TEST_SET(neon),
#endif
};

static float plain(int which, float x) {
  switch (which) {
    case 0: return plain::exp(x);
    case 1: return plain::expm1(x);
    case 2: return plain::log(x);
    case 3: return plain::log1p(real_abs(x));
    case 4: return plain::sigmoid(x);
    case 5: return plain::tanh(x);
    case 6: return madd(x, x, -1.0f);
    case 7: return product(x, x) + -1.0f;
    case 8: return 1.0f / real_sqrt(real_abs(x));
    case 9: { const float low = x < 0.5f ? x : 0.5f; return low > -0.5f ? low : -0.5f; }
    default: return -real_abs(x < 0.25f ? x : 2.0f);
  }
}

static std::vector<float> inputs() {
  std::vector<float> x = {0.0f,   -0.0f,   1.0f,    -1.0f,  0.625f,  88.4f,
                          -87.4f, 200.0f, -200.0f, 1e-40f, -1e-40f, 3e38f};
  uint32_t state = 7;
  for (int i = 0; i < 20000; i++) {
    state = state * 1664525u + 1013904223u;
    const float range = i % 3 == 0 ? 0.5f : i % 3 == 1 ? 8.0f : 190.0f;
    x.push_back((static_cast<float>(state >> 8) * 0x1p-24f - 0.5f) * range);
  }
  return x;
}

TEST_CASE("simd: vector functions have the bits of the plain ones on every instruction set") {
  const Isa before = current_isa();
  const std::vector<float> x = inputs();
  std::vector<float> y(x.size());
  for (const Set& set : sets) {
    if (!set_isa(set.isa)) continue;
    MESSAGE("instruction set " << std::string(isa_name(current_isa())));
    for (int which = 0; which <= 10; which++) {
      set.apply(which, x.data(), y.data(), static_cast<int>(x.size()));
      int differ = 0;
      for (size_t i = 0; i < x.size(); i++) {
        const float want = plain(which, x[i]);
        differ += bits_of(want) != bits_of(y[i]) && !(std::isnan(want) && std::isnan(y[i]));
      }
      CAPTURE(which);
      CHECK(differ == 0);
    }
  }
  set_isa(before);
}

TEST_CASE("simd: a not-a-number stays one") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Set& set : sets) {
    if (!isa_present(set.isa)) continue;
    for (int which : {0, 1, 2, 3, 4, 5}) {
      float y = 0;
      set.apply(which, &nan, &y, 1);
      CHECK(std::isnan(y));
    }
  }
}

TEST_CASE("simd: part loads and stores leave the rest alone, sums do not depend on the set") {
  std::vector<float> x(40), y(40);
  for (size_t i = 0; i < x.size(); i++) x[i] = 1.0f / static_cast<float>(i + 3);
  for (int n = 0; n <= 37; n++) {
    uint32_t first = 0;
    for (const Set& set : sets) {
      if (!isa_present(set.isa)) continue;
      for (float& v : y) v = 77.0f;
      set.apply(9, x.data(), y.data(), n);
      for (size_t i = static_cast<size_t>(n); i < y.size(); i++) CHECK(y[i] == 77.0f);
      const uint32_t s = bits_of(set.sum(x.data(), n));
      if (first == 0) first = s;
      CHECK(s == first);
    }
  }
}
}  // namespace test_simd
#endif
