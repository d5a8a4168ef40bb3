#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "nnlite.hpp"

namespace test_math {
using namespace nnlite;

// Restores the bit class that was in force.
struct Fusing {
  bool before = multiply_adds_fuse;
  explicit Fusing(bool fuse) { multiply_adds_fuse = fuse; }
  ~Fusing() { multiply_adds_fuse = before; }
};

static uint32_t next(uint32_t& state) { return state = state * 1664525u + 1013904223u; }

static double exact_exp(double x) { return std::exp(x); }
static double exact_expm1(double x) { return std::expm1(x); }
static double exact_log(double x) { return std::log(x); }
static double exact_log1p(double x) { return std::log1p(x); }
static double exact_tanh(double x) { return std::tanh(x); }
static double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The largest error of f against g, in units in the last place, at every 4001st float of [low, high].
static double worst_ulp(float (*f)(float), double (*g)(double), double low, double high) {
  double worst = 0;
  for (uint64_t bits = 0; bits <= 0xFFFFFFFFu; bits += 4001) {
    const float x = float_of(static_cast<uint32_t>(bits));
    if (!(double(x) >= low && double(x) <= high)) continue;
    const double exact = g(double(x));
    const float  near = std::fabs(static_cast<float>(exact));
    const double ulp = double(std::nextafter(near, std::numeric_limits<float>::infinity()) - near);
    worst = std::max(worst, std::fabs(double(f(x)) - exact) / ulp);
  }
  return worst;
}

TEST_CASE("math: fma_exact rounds once") {
  uint32_t state = 1, differ = 0;
  for (int i = 0; i < 300000; i++) {
    uint32_t a = next(state), b = next(state), c = next(state);
    if (i % 2 != 0) {                                  // products near the sum, where rounding is hard
      a = (a & 0x80FFFFFFu) | 0x3F000000u;
      b = (b & 0x80FFFFFFu) | 0x3F000000u;
      c = (c & 0x80FFFFFFu) | 0x3E000000u;
    }
    const float x = float_of(a), y = float_of(b), z = float_of(c);
    const float got = fma_exact(x, y, z), want = std::fma(x, y, z);
    differ += bits_of(got) != bits_of(want) && !(std::isnan(got) && std::isnan(want));
  }
  CHECK(differ == 0);
}

TEST_CASE("math: madd rounds once or twice as the bit class says") {
  const float a = 1.0f + 0x1p-23f, c = -1.0f - 0x1p-22f;             // a a = 1 + 2^-22 + 2^-46
  { Fusing once(true);   CHECK(madd(a, a, c) == 0x1p-46f); }
  { Fusing twice(false); CHECK(madd(a, a, c) == 0.0f); }
}

TEST_CASE("math: functions are within their stated error in both bit classes") {
  for (bool fuse : {true, false}) {
    Fusing scope(fuse);
    CHECK(worst_ulp([](float x) { return plain::exp(x); }, exact_exp, -87.3, 88.3) <= 1.1);
    CHECK(worst_ulp([](float x) { return plain::expm1(x); }, exact_expm1, -80, 10) <= 2);
    CHECK(worst_ulp([](float x) { return plain::log(x); }, exact_log, 1e-38, 50) <= 0.8);
    CHECK(worst_ulp([](float x) { return plain::log1p(x); }, exact_log1p, 0, 1) <= 1.3);
    CHECK(worst_ulp([](float x) { return plain::tanh(x); }, exact_tanh, -12, 12) <= 1.4);
    CHECK(worst_ulp([](float x) { return plain::sigmoid(x); }, exact_sigmoid, -80, 80) <= 2.6);
  }
}

TEST_CASE("math: not-a-number goes through, ends are finite where the function is") {
  const float nan = float_of(0x7FC00000u), inf = float_of(0x7F800000u);
  CHECK(std::isnan(plain::exp(nan)));
  CHECK(std::isnan(plain::expm1(nan)));
  CHECK(std::isnan(plain::log(nan)));
  CHECK(std::isnan(plain::tanh(nan)));
  CHECK(std::isnan(plain::sigmoid(nan)));
  CHECK(std::isnan(plain::log(-1.0f)));
  CHECK(plain::log(0.0f) == -inf);
  CHECK(plain::log(inf) == inf);
  CHECK(double(plain::log(1e-40f)) == doctest::Approx(-92.1034));
  CHECK(plain::tanh(inf) == 1.0f);
  CHECK(plain::tanh(-inf) == -1.0f);
  CHECK(plain::sigmoid(inf) == 1.0f);
  CHECK(plain::expm1(-inf) == -1.0f);
  CHECK(is_finite(1e38f));
  CHECK(!is_finite(inf));
  CHECK(!is_finite(nan));
}

}  // namespace test_math
