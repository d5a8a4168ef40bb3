#include <doctest/doctest.h>

#include "harness.hpp"
#include "op_shape.hpp"

namespace test_op_batch_norm {

static const Arrays given = {{"x0", {1, 10, 3, 10}}, {"dy", {1, 2, 3, 5}}, {"p0", {2, 2}}, {"p1", {0, 1}},
                             {"p2", {0, 0}}, {"p3", {1, 1}}};

TEST_CASE("op_batch_norm: parameters with and without affine and statistics") {
  const Shaped all = shape_of(BatchNorm2d{}, {{4, 5, 6}});
  REQUIRE(all.s.n_parameters == 4);
  CHECK(all.as<BatchNorm2d>().num_features == 6);
  CHECK(all.s.parameters[0].fill == Fill::ones);
  CHECK(all.s.parameters[1].fill == Fill::zeros);
  CHECK(all.s.parameters[2].role == Role::statistic);
  CHECK(all.s.parameters[2].fill == Fill::zeros);
  CHECK(all.s.parameters[3].fill == Fill::ones);
  CHECK(shape_of(BatchNorm2d{0, 1e-5f, 0.1f, false}, {{4, 5, 6}}).s.n_parameters == 2);
  CHECK(shape_of(BatchNorm2d{0, 1e-5f, 0.1f, true, false}, {{4, 5, 6}}).s.n_parameters == 2);
  CHECK(shape_of(BatchNorm2d{0, 1e-5f, 0.1f, false, false}, {{4, 5, 6}}).s.n_parameters == 0);
}

TEST_CASE("op_batch_norm: shapes and attributes that are refused") {
  CHECK(status_of(BatchNorm2d{}, {{4, 6}}) == Status::bad_shape);
  CHECK(status_of(BatchNorm1d{}, {{4, 5, 6}}) == Status::bad_shape);
  CHECK(status_of(BatchNorm1d{5}, {{6}}) == Status::bad_shape);
  CHECK(status_of(BatchNorm1d{-6}, {{6}}) == Status::bad_shape);
  CHECK(status_of(BatchNorm1d{6, 0.0f}, {{6}}) == Status::bad_attribute);
  CHECK(status_of(BatchNorm1d{6, 1e-5f, 1.5f}, {{6}}) == Status::bad_attribute);
}

TEST_CASE("op_batch_norm: a constant channel becomes its bias, and its gradient stays finite") {
  const Case c = {"BatchNorm1d: constant", BatchNorm1d{}, {{2}}, 2};
  const Outcome o = run_one(c, given, Way{});
  CHECK(o.arrays.at("y")[1] == doctest::Approx(1));
  CHECK(o.arrays.at("y")[3] == doctest::Approx(1));
  for (double g : o.arrays.at("dx0")) CHECK(std::isfinite(g));
}

TEST_CASE("op_batch_norm: running statistics change in the commit, with the unbiased variance") {
  const Case c = {"BatchNorm1d: commit", BatchNorm1d{}, {{2}}, 2};
  Bench bench(c, Way{});
  Outcome o;
  bench.prepare(given);
  bench.forward(o);
  bench.backward(o, given);
  CHECK(bench.parameter(2) == Array{0, 0});
  bench.commit(o);
  CHECK(o.arrays.at("c2")[0] == doctest::Approx(0.2));
  CHECK(o.arrays.at("c2")[1] == doctest::Approx(1.0));
  CHECK(o.arrays.at("c3")[0] == doctest::Approx(0.9 + 0.1 * 2));
  CHECK(o.arrays.at("c3")[1] == doctest::Approx(0.9));
}

TEST_CASE("op_batch_norm: frozen, the stored statistics count and nothing flows between rows") {
  const Case c = {"BatchNorm1d: frozen", BatchNorm1d{}, {{2}}, 2, 1, false, false};
  const Outcome o = run_one(c, given, Way{});
  CHECK(o.arrays.at("y")[0] == doctest::Approx(2 / std::sqrt(1 + 1e-5)));
  CHECK(o.arrays.at("dx0")[0] == doctest::Approx(2 / std::sqrt(1 + 1e-5)));
  CHECK(o.arrays.at("dx0")[3] == doctest::Approx(10 / std::sqrt(1 + 1e-5)));
  CHECK(o.arrays.count("c2") == 0);
}

TEST_CASE("op_batch_norm: one value a channel commits no infinity") {
  const Case c = {"BatchNorm1d: one row", BatchNorm1d{}, {{4}}, 1};
  Arrays one = given;
  for (const char* p : {"p0", "p1", "p2", "p3"}) one[p] = {1, 1, 1, 1};
  const Outcome o = run_one(c, one, Way{});
  for (double v : o.arrays.at("c3")) CHECK(v == doctest::Approx(0.9));
}

}  // namespace test_op_batch_norm
