#include <doctest/doctest.h>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_conv2d: sizes of the output") {
  CHECK(shape_of(Conv2d{3, 8, 3}, {{7, 9, 3}}).out() == Sizes{5, 7, 8});
  CHECK(shape_of(Conv2d{3, 8, 3, 1, 1}, {{7, 9, 3}}).out() == Sizes{7, 9, 8});
  CHECK(shape_of(Conv2d{3, 8, 3, 2, 1}, {{7, 8, 3}}).out() == Sizes{4, 4, 8});
  CHECK(shape_of(Conv2d{3, 8, {3, 5}, {2, 1}, {0, 2}, {2, 1}}, {{9, 6, 3}}).out() == Sizes{3, 6, 8});
}

TEST_CASE("op_conv2d: in_channels = 0 is inferred and written back") {
  CHECK(shape_of(Conv2d{0, 8, 3}, {{7, 9, 5}}).as<Conv2d>().in_channels == 5);
  CHECK(status_of(Conv2d{4, 8, 3}, {{7, 9, 5}}) == Status::bad_shape);
}

TEST_CASE("op_conv2d: parameters have PyTorch's shapes and fans") {
  const Shaped s = shape_of(Conv2d{6, 8, {3, 5}, 1, 0, 1, 2}, {{7, 9, 6}});
  REQUIRE(s.s.n_parameters == 2);
  const ParameterSpec& w = s.s.parameters[0];
  CHECK(w.layout == Layout::conv);
  CHECK(w.groups == 2);
  CHECK(w.fan_in == 3 * 15);
  CHECK(w.fan_out == 8 * 15);
  CHECK(w.shape.dim[0] == 8);
  CHECK(w.shape.dim[1] == 3);
  CHECK(w.shape.dim[2] == 3);
  CHECK(w.shape.dim[3] == 5);
  CHECK(s.s.parameters[1].role == Role::bias);
  CHECK(s.s.parameters[1].fan_in == 45);
  CHECK(s.s.macs == 8 * 5 * 5 * 45);
  CHECK(shape_of(Conv2d{6, 8, 3, 1, 0, 1, 1, false}, {{7, 9, 6}}).s.n_parameters == 1);
}

TEST_CASE("op_conv2d: groups = channels is a depthwise layout") {
  CHECK(shape_of(Conv2d{6, 6, 3, 1, 0, 1, 6}, {{7, 9, 6}}).s.parameters[0].layout == Layout::depthwise);
  CHECK(shape_of(Conv2d{6, 12, 3, 1, 0, 1, 6}, {{7, 9, 6}}).s.parameters[0].layout == Layout::conv);
  CHECK(shape_of(Conv2d{1, 1, 3}, {{7, 9, 1}}).s.parameters[0].layout == Layout::conv);
}

TEST_CASE("op_conv2d: the input gradient reads nothing of forward, the weight gradient the input") {
  const Shaped s = shape_of(Conv2d{3, 8, 3}, {{7, 9, 3}});
  CHECK(s.s.dx_reads_in == 0);
  CHECK(s.s.dw_reads_in == 1);
  CHECK_FALSE(s.s.dx_reads_out);
}

TEST_CASE("op_conv2d: a window larger than the padded input is a bad shape") {
  CHECK(status_of(Conv2d{1, 1, 5}, {{4, 9, 1}}) == Status::bad_shape);
  CHECK(status_of(Conv2d{1, 1, {1, 5}, 1, 0, {1, 3}}, {{4, 12, 1}}) == Status::bad_shape);
  CHECK(status_of(Conv2d{1, 1, 3}, {{4, 9}}) == Status::bad_shape);
}

TEST_CASE("op_conv2d: attributes out of range are refused") {
  const Conv2d bad[] = {{1, 0, 3},
                        {1, -1, 3},
                        {1, 1, 0},
                        {1, 1, -3},
                        {1, 1, 3, 0},
                        {1, 1, 3, -1},
                        {1, 1, 3, 1, -1},
                        {1, 1, 3, 1, 0, 0},
                        {1, 1, 3, 1, 0, 1, 0},
                        {1, 1, 3, 1, 0, 1, 2},
                        {1, 1, {3, 0}},
                        {1, 1, 3, {1, 0}},
                        {1, 1, 3, 1, {0, -1}}};
  for (const Conv2d& a : bad) CHECK(status_of(a, {{7, 9, 1}}) == Status::bad_attribute);
  CHECK(status_of(Conv2d{-1, 1, 3}, {{7, 9, 1}}) == Status::bad_shape);
}

TEST_CASE("op_conv2d: sizes from a hostile file neither overflow nor hang") {
  const int big = INT32_MAX;
  CHECK(status_of(Conv2d{1, big, 1}, {{7, 9, 1}}) == Status::limit_exceeded);
  CHECK(status_of(Conv2d{1, 1, 1, 1, big}, {{7, 9, 1}}) == Status::limit_exceeded);
  CHECK(status_of(Conv2d{1, 1, big, 1, big}, {{7, 9, 1}}) == Status::limit_exceeded);
  CHECK(status_of(Conv2d{1, 1, big, big, big, big}, {{7, 9, 1}}) == Status::bad_shape);
  CHECK(status_of(Conv2d{1 << 20, 1 << 20, 1, 1, 0, 1, 1}, {{1, 1, 1 << 20}}) == Status::limit_exceeded);
  CHECK(status_of(Conv2d{1 << 20, 1 << 21, 1, 1, 0, 1, 1 << 20}, {{1, 1, 1 << 20}}) == Status::ok);
  CHECK(status_of(Conv2d{1 << 20, 1 << 28, 1, 1, 0, 1, 1 << 20}, {{1, 1, 1 << 20}}) == Status::ok);
}
