#include <doctest/doctest.h>

#include <cmath>

#include "nnlite.hpp"

namespace test_rng {
using namespace nnlite;

static bool same(const Words& w, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return w.word[0] == a && w.word[1] == b && w.word[2] == c && w.word[3] == d;
}

TEST_CASE("rng: Philox4x32-10 gives the known answers of Random123") {
  CHECK(same(philox({{0, 0, 0, 0}}, 0, 0), 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  CHECK(same(philox({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u), 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  CHECK(same(philox({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, 0xa4093822u, 0x299f31d0u),
             0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST_CASE("rng: a block is keyed by seed, step, purpose, node and place") {
  const Words w =
      random_block(0x299f31d0a4093822u, 0x13198a2e85a308d3u, Purpose::shuffle, 0x707344u, 0x243f6a88u);
  const Words v = philox({{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x02707344u}}, 0xa4093822u, 0x299f31d0u);
  CHECK(same(w, v.word[0], v.word[1], v.word[2], v.word[3]));
}

TEST_CASE("rng: uniform numbers start at 0 and end below 1") {
  CHECK(uniform_of(0) == 0.0f);
  CHECK(uniform_of(0x80000000u) == 0.5f);
  CHECK(uniform_of(~0u) == 1.0f - 0x1p-24f);
}

TEST_CASE("rng: normals agree with Box and Muller's formula in the C library") {
  const uint32_t words[] = {0u, 1u, 0x1fffffffu, 0x20000000u, 0x5fffffffu, 0x60000000u, 0x80000000u,
                            0x9fffffffu, 0xa0000000u, 0xdfffffffu, 0xe0000000u, 0xffffffffu, 0x12345678u};
  for (uint32_t a : words)
    for (uint32_t b : words) {
      float got[2];
      normals_of(a, b, got);
      const double r = std::sqrt(-2 * std::log((a + 0.5) * 0x1p-32)), t = b * 0x1p-32 * 6.283185307179586;
      CHECK(double(got[0]) == doctest::Approx(r * std::cos(t)).epsilon(1e-6));
      CHECK(double(got[1]) == doctest::Approx(r * std::sin(t)).epsilon(1e-6));
    }
}

TEST_CASE("rng: a million normals have the moments of the standard normal, and these very bits") {
  double sum[5] = {};
  uint32_t hash = 0;
  const uint32_t blocks = 250000;
  for (uint32_t block = 0; block < blocks; block++) {
    const Words w = random_block(7, 0, Purpose::init, 3, block);
    for (int half = 0; half < 2; half++) {
      float pair[2];
      normals_of(w.word[2 * half], w.word[2 * half + 1], pair);
      for (float x : pair) {
        hash = hash * 31u + bits_of(x);
        for (int k = 1; k < 5; k++) sum[k] += std::pow(double(x), k);
      }
    }
  }
  const double n = 4.0 * blocks;
  CHECK(std::abs(sum[1] / n) < 0.004);
  CHECK(std::abs(sum[2] / n - 1) < 0.006);
  CHECK(std::abs(sum[3] / n) < 0.02);
  CHECK(std::abs(sum[4] / n - 3) < 0.05);
  CHECK(hash == 2348846552u);
}

}  // namespace test_rng
