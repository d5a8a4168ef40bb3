// The digit front end on MNIST's own digits: a net that learned from them as they are must read what comes out.
#include "made_digits.hpp"
#include "system.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

using namespace nnlite;

TEST_CASE("front end: the test digits of MNIST come out as they are, and the shipped LeNet reads 99.0 % of them") {
  systems::Mnist mnist;
  if (!systems::read_mnist(mnist)) return;
  systems::Memory memory(32 << 20);
  Model model;
  Session session;
  SessionOptions options;
  options.batch = 100;
  REQUIRE(model.load("models/lenet.nnl", memory.arena) == Status::ok);
  REQUIRE(session.build(model, options, memory.arena) == Status::ok);
  Preprocessing how;
  how.kind = PreprocessingKind::digit;
  systems::Memory scratch(prepare_bytes(how, 28, 28));
  std::vector<uint32_t> counts(100);
  Confusion confusion = {counts.data(), 10};
  double difference = 0;
  int one = 0;
  for (size_t i = 0; i < mnist.test.count(); i++) {
    const uint8_t* pixels = &mnist.test.bytes[i * 784];
    const int row = int(i % 100);
    real* const to = session.input().row(row);
    Seen seen;
    REQUIRE(preprocess({pixels, 28, 28, 1}, how, 28, 28, 1, to, scratch.arena, &seen) == Status::ok);
    one += seen == Seen::one;
    for (int k = 0; k < 784; k++) difference += std::fabs(double(to[k]) * 255 - pixels[k]) / 784;
    if (row < 99) continue;
    REQUIRE(session.forward(100) == Status::ok);
    confusion.add(session.output().data, &mnist.test.labels[i - 99], 100);
  }
  difference /= double(mnist.test.count());
  std::printf("%d of 10000 are one digit; mean difference %.3f of 255; LeNet %.2f %%\n", one, difference,
              confusion.accuracy() * 100);
  CHECK(one >= 9990);
  CHECK(difference < 0.5);
  CHECK(confusion.accuracy() >= 0.99);
}

TEST_CASE("front end speed: milliseconds for a photograph") {
  Preprocessing how;
  how.kind = PreprocessingKind::digit;
  for (int side : {600, 1500}) {
    std::vector<double> ms;
    float input[28 * 28];
    systems::Memory scratch(prepare_bytes(how, side, side));
    for (size_t i = 0; i < 10; i++) {
      const Picture p = square_digit(test_seed, i, side);
      for (int again = 0; again < 5; again++) {
        const auto start = std::chrono::steady_clock::now();
        REQUIRE(preprocess({p.pixels.data(), side, side, 3}, how, 28, 28, 1, input, scratch.arena) == Status::ok);
        ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
      }
    }
    std::sort(ms.begin(), ms.end());
    const double median = ms[ms.size() / 2];
    std::printf("%d x %d in colour: %.2f ms, median of %zu\n", side, side, median, ms.size());
  }
}
