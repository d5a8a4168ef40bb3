// Planning changes no value: random networks against a walk that keeps every value apart, float against
// double.
#include <doctest/doctest.h>

#include <cmath>

#include "graphs.hpp"

namespace {

using Values = std::vector<std::vector<double>>;

void same(const Values& a, const Values& b, const char* what) {
  CAPTURE(what);
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); i++) {
    CAPTURE(i);
    CHECK(a[i] == b[i]);
  }
}

// |a - b| / |b|, 2-norms over all.
double difference(const Values& a, const Values& b) {
  double apart = 0, size = 0;
  if (a.size() != b.size()) return HUGE_VAL;
  for (size_t i = 0; i < a.size(); i++) {
    if (a[i].size() != b[i].size()) return HUGE_VAL;
    for (size_t k = 0; k < a[i].size(); k++) {
      apart += (a[i][k] - b[i][k]) * (a[i][k] - b[i][k]);
      size += b[i][k] * b[i][k];
    }
  }
  return size > 0 ? std::sqrt(apart / size) : std::sqrt(apart);
}

}  // namespace

TEST_CASE("planner: 300 random networks in double give the bits of a walk that keeps every value apart") {
  for (uint64_t seed = 0; seed < 300; seed++) {
    CAPTURE(seed);
    const GraphRun naive = run_naive_in_double(seed), planned = run_engine_in_double(seed, true);
    CAPTURE(planned.problem);
    same(planned.outputs, naive.outputs, "outputs");
    CHECK(planned.loss == naive.loss);
    same(planned.gradients, naive.gradients, "gradients");
    same(planned.after, naive.after, "parameters after a step");
    same(run_engine_in_double(seed, false).after, naive.after, "parameters after a step, gradients not kept");
  }
}

TEST_CASE("planner: 300 random networks in float are the double ones but for rounding") {
  double worst[3] = {};
  for (uint64_t seed = 0; seed < 300; seed++) {
    CAPTURE(seed);
    const GraphRun f = run_engine(seed, true), d = run_engine_in_double(seed, true);
    CAPTURE(f.problem);
    REQUIRE(f.problem == d.problem);
    const double outputs = difference(f.outputs, d.outputs), gradients = difference(f.gradients, d.gradients);
    CHECK(outputs < 1e-5);
    CHECK(gradients < 1e-4);
    worst[0] = std::fmax(worst[0], outputs);
    worst[1] = std::fmax(worst[1], gradients);
    CHECK(run_engine(seed, false).after == f.after);
  }
  MESSAGE("largest relative difference: outputs ", worst[0], ", gradients ", worst[1]);
}
