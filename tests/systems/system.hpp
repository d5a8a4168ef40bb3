// What the systems share: memory of a planned size, MNIST, training on it, the accuracy on its test digits.
#pragma once

#include <doctest/doctest.h>

#include <cstdio>
#include <functional>
#include <vector>

#include "nnlite.hpp"
#include "samples.hpp"

namespace systems {

// An arena of exactly the bytes a plan asks for.
struct Memory {
  std::vector<unsigned char> bytes;
  nnlite::Arena arena;
  explicit Memory(size_t n) : bytes(n + 64) {
    arena = nnlite::Arena(bytes.data() + 64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64, n);
  }
};

struct Mnist {
  Samples train, test;
};

// Reads MNIST from $NNLITE_DATA, else ../shared/data. Where there is none: prints SKIP and why, and is false.
bool read_mnist(Mnist& mnist);

// A pixel p becomes p * scale + shift.
struct Scaling {
  float scale = 1.0f / 255, shift = 0;
};

// Trains for so many steps on two threads, with `after` behind each; gives the accuracy on the test digits.
double train_and_test(const nnlite::Model& model, nnlite::TrainerOptions options, const Mnist& mnist,
                      Scaling scaling, uint64_t steps,
                      const std::function<void(const nnlite::Trainer&)>& after);

}  // namespace systems
