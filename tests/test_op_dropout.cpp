#include <doctest/doctest.h>

#include "harness.hpp"
#include "op_shape.hpp"

namespace test_op_dropout {

static const int count = 20000;

static Outcome drop_ones(float p, int rows, uint64_t step, bool training = true) {
  const Case c = {"Dropout: ones", Dropout{p}, {{count / rows}}, rows, 1, false, training};
  const Arrays ones = {{"x0", Array(count, 1.0)}, {"dy", Array(count, 1.0)}};
  Bench bench(c, Way{});
  Outcome o;
  bench.context.step = step;
  bench.prepare(ones);
  bench.forward(o);
  bench.backward(o, ones);
  return o;
}

TEST_CASE("op_dropout: p is a probability") {
  CHECK(status_of(Dropout{-0.1f}, {{3}}) == Status::bad_attribute);
  CHECK(status_of(Dropout{1.1f}, {{3}}) == Status::bad_attribute);
  CHECK(status_of(Dropout{NAN}, {{3}}) == Status::bad_attribute);
  CHECK(shape_of(Dropout{}, {{3, 4}}).s.n_slots == 0);
}

TEST_CASE("op_dropout: the share p is dropped and the rest scaled, the gradient by the same mask") {
  for (float p : {0.1f, 0.5f, 0.9f}) {
    const Outcome o = drop_ones(p, 1, 7);
    int dropped = 0;
    for (double y : o.arrays.at("y")) {
      dropped += y <= 0;
      if (y > 0) CHECK(y == doctest::Approx(1 / (1 - double(p))));
    }
    CHECK(std::fabs(dropped / double(count) - double(p)) <
          4 * std::sqrt(double(p) * (1 - double(p)) / count));
    CHECK(o.arrays.at("dx0") == o.arrays.at("y"));
  }
}

TEST_CASE("op_dropout: p = 1 drops all, evaluation drops none") {
  CHECK(drop_ones(1, 1, 7).arrays.at("y") == Array(count, 0.0));
  CHECK(drop_ones(1, 1, 7).arrays.at("dx0") == Array(count, 0.0));
  CHECK(drop_ones(0.5f, 1, 7, false).arrays.at("y") == Array(count, 1.0));
  CHECK(drop_ones(0.5f, 1, 7, false).arrays.at("dx0") == Array(count, 1.0));
}

TEST_CASE("op_dropout: the mask depends on the step and the element, not on how rows are cut") {
  CHECK(drop_ones(0.5f, 1, 7).arrays.at("y") == drop_ones(0.5f, 5, 7).arrays.at("y"));
  CHECK(drop_ones(0.5f, 1, 7).arrays.at("y") != drop_ones(0.5f, 1, 8).arrays.at("y"));
}

}  // namespace test_op_dropout
