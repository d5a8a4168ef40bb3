// Random numbers of the tools: for splitting data and for drawing pictures. The same everywhere, for the same
// seed.
#pragma once

#include <cstdint>

// SplitMix64 (Steele, Lea, Flood 2014).
struct Random {
  std::uint64_t state;

  std::uint64_t next() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  // In [0, 1), in [low, high), one of 0 .. count - 1, true with a chance.
  float unit() { return static_cast<float>(next() >> 40) * (1.0f / 16777216.0f); }
  float between(float low, float high) { return low + (high - low) * unit(); }
  int below(int count) { return static_cast<int>((next() >> 32) * static_cast<std::uint64_t>(count) >> 32); }
  bool chance(float p) { return unit() < p; }
  // About normal with deviation 1, never beyond 3.5: four uniform numbers, added.
  float normal() {
    float sum = -2.0f;
    for (int i = 0; i < 4; ++i) sum += unit();
    return sum * 1.7320508f;
  }
};

// The generator of item `index` of a series: each is independent of the others, so that the order in which
// and the threads on which they are made do not matter.
inline Random random_of(std::uint64_t seed, std::uint64_t index) {
  Random random{Random{seed}.next() ^ index * 0xd1342543de82ef95u};
  random.next();
  return random;
}
