#include <doctest/doctest.h>

#include <cmath>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_activation: backward reads the output and nothing else") {
  const Shaped s = shape_of(Tanh{}, {{3, 4}});
  CHECK(s.status == Status::ok);
  CHECK(s.out() == Sizes{3, 4});
  CHECK(s.s.dx_reads_out);
  CHECK(s.s.dx_reads_in == 0);
  CHECK(s.s.n_slots == 0);
}

TEST_CASE("op_activation: a negative slope would hide the sign of x and is refused") {
  CHECK(status_of(LeakyReLU{-0.1f}, {{3}}) == Status::bad_attribute);
  CHECK(status_of(LeakyReLU{NAN}, {{3}}) == Status::bad_attribute);
  CHECK(status_of(ELU{-1.0f}, {{3}}) == Status::bad_attribute);
  CHECK(status_of(ELU{INFINITY}, {{3}}) == Status::bad_attribute);
  CHECK(status_of(ELU{0.0f}, {{3}}) == Status::ok);
}

TEST_CASE("op_activation: not-a-number passes through ReLU, so that a broken loss is seen") {
  const Ran r = run_row(ReLU{}, {4}, {NAN, -1, 0, 2});
  CHECK(std::isnan(r.y[0]));
  CHECK(r.y[1] == 0);
  CHECK(r.y[2] == 0);
  CHECK(r.y[3] == 2);
}

TEST_CASE("op_activation: the gradient of ReLU at zero is zero") {
  const Ran r = run_row(ReLU{}, {3}, {-1, 0, 1}, {5, 5, 5});
  CHECK(r.dx == std::vector<float>{0, 0, 5});
}

TEST_CASE("op_activation: the ends of sigmoid and tanh are reached without overflow") {
  CHECK(run_row(Sigmoid{}, {2}, {1000, -1000}).y ==
        std::vector<float>{1, run_row(Sigmoid{}, {1}, {-1000}).y[0]});
  CHECK(run_row(Sigmoid{}, {1}, {-1000}).y[0] < 1e-37f);
  CHECK(run_row(Tanh{}, {2}, {1000, -1000}).y == std::vector<float>{1, -1});
  CHECK(run_row(ELU{2}, {1}, {-1000}).y[0] == doctest::Approx(-2));
}
