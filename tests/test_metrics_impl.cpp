#include <doctest/doctest.h>

#include <cmath>

#include "nnlite.hpp"

using namespace nnlite;

TEST_CASE("metrics: argmax is the first of the largest") {
  const real values[] = {real(-1), real(3), real(2), real(3)};
  CHECK(argmax(values, 4) == 1);
  CHECK(argmax(values, 1) == 0);
}

TEST_CASE("metrics: confusion gives accuracy, precision and recall") {
  uint32_t  counts[9];
  Confusion confusion{counts, 3};
  confusion.clear();
  CHECK(confusion.accuracy() == 0);
  const real    scores[]  = {3, 1, 2, 1, 3, 2, 0, 9, 1, 1, 2, 3, 5, 2, 3};
  const int32_t targets[] = {0, 1, 2, 2, 1};                         // answers 0 1 1 2 0
  confusion.add(scores, targets, 5);
  CHECK(confusion.accuracy() == 3.0 / 5);
  CHECK(confusion.precision(0) == 1.0 / 2);
  CHECK(confusion.precision(1) == 1.0 / 2);
  CHECK(confusion.precision(2) == 1.0);
  CHECK(confusion.recall(0) == 1.0);
  CHECK(confusion.recall(1) == 1.0 / 2);
  CHECK(confusion.recall(2) == 1.0 / 2);
  CHECK(counts[2 * 3 + 1] == 1);
}

TEST_CASE("metrics: classes without answers or targets have precision and recall 0") {
  uint32_t  counts[4];
  Confusion confusion{counts, 2};
  confusion.clear();
  confusion.add(0, 0);
  CHECK(confusion.precision(1) == 0);
  CHECK(confusion.recall(1) == 0);
  CHECK(confusion.accuracy() == 1);
}

TEST_CASE("metrics: dice of masks") {
  const real a[] = {1, 1, 0, 0, real(0.6)}, b[] = {1, 0, 1, 0, real(0.7)}, none[5] = {};
  CHECK(dice(a, b, 5) == 2 * 2.0 / 6);
  CHECK(dice(a, a, 5) == 1);
  CHECK(dice(a, none, 5) == 0);
  CHECK(dice(none, none, 5) == 1);
  CHECK(dice(a, b, 5, real(0.65), real(0.5)) == 2 * 1.0 / 5);
}

TEST_CASE("metrics: confidence is the softmax of the largest score") {
  const real equal[] = {2, 2, 2, 2}, two[] = {-1, 1}, far[] = {-1000, 1000, 0};
  CHECK(confidence(equal, 4) == real(0.25));
  CHECK(confidence(two, 2) == doctest::Approx(1 / (1 + std::exp(-2.0))).epsilon(1e-6));
  CHECK(confidence(far, 3) == 1);
  CHECK(confidence(far, 1) == 1);
}
