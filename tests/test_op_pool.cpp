#include <doctest/doctest.h>

#include <cmath>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_pool: sizes of the output, stride 0 is the kernel size and written back") {
  const Shaped s = shape_of(MaxPool2d{2}, {{7, 8, 3}});
  CHECK(s.out() == Sizes{3, 4, 3});
  CHECK(s.as<MaxPool2d>().stride.h == 2);
  CHECK(s.as<MaxPool2d>().stride.w == 2);
  CHECK(shape_of(MaxPool2d{3, 2, 1}, {{7, 8, 3}}).out() == Sizes{4, 4, 3});
  CHECK(shape_of(MaxPool2d{2, 2, 0, 1, true}, {{7, 8, 3}}).out() == Sizes{4, 4, 3});
  CHECK(shape_of(AvgPool2d{{7, 8}}, {{7, 8, 3}}).out() == Sizes{1, 1, 3});
  CHECK(shape_of(AdaptiveAvgPool2d{{2, 5}}, {{7, 8, 3}}).out() == Sizes{2, 5, 3});
}

TEST_CASE("op_pool: with ceil_mode no window starts in the right padding") {
  CHECK(shape_of(AvgPool2d{2, 3, 1, true}, {{5, 5, 1}}).out() == Sizes{2, 2, 1});
  CHECK(shape_of(MaxPool2d{1, 3, 0, 1, true}, {{5, 4, 1}}).out() == Sizes{2, 2, 1});
}

TEST_CASE("op_pool: attributes out of range are refused") {
  CHECK(status_of(MaxPool2d{0}, {{7, 8, 3}}) == Status::bad_attribute);
  CHECK(status_of(MaxPool2d{2, -1}, {{7, 8, 3}}) == Status::bad_attribute);
  CHECK(status_of(MaxPool2d{2, 2, 2}, {{7, 8, 3}}) == Status::bad_attribute);
  CHECK(status_of(MaxPool2d{2, 2, 0, 0}, {{7, 8, 3}}) == Status::bad_attribute);
  CHECK(status_of(AvgPool2d{3, 1, 2}, {{7, 8, 3}}) == Status::bad_attribute);
  CHECK(status_of(AdaptiveAvgPool2d{0}, {{7, 8, 3}}) == Status::bad_attribute);
  CHECK(status_of(AdaptiveAvgPool2d{{1, -1}}, {{7, 8, 3}}) == Status::bad_attribute);
}

TEST_CASE("op_pool: a window larger than the input, and sizes from a hostile file, are refused") {
  const int big = INT32_MAX;
  CHECK(status_of(MaxPool2d{8}, {{7, 8, 3}}) == Status::bad_shape);
  CHECK(status_of(AvgPool2d{big}, {{7, 8, 3}}) == Status::bad_shape);
  CHECK(status_of(MaxPool2d{2, 1, 0, big}, {{7, 8, 3}}) == Status::bad_shape);
  CHECK(status_of(MaxPool2d{big, big, big / 2, big}, {{7, 8, 3}}) != Status::ok);
  CHECK(status_of(AdaptiveAvgPool2d{{big, 2}}, {{7, 8, 3}}) == Status::limit_exceeded);
  CHECK(status_of(MaxPool2d{2}, {{7, 8}}) == Status::bad_shape);
}

TEST_CASE("op_pool: the kept place takes one byte where the window has at most 256 places") {
  CHECK(shape_of(MaxPool2d{16}, {{16, 16, 3}}).s.slots[0].dtype == DType::u8);
  CHECK(shape_of(MaxPool2d{{16, 17}}, {{16, 17, 3}}).s.slots[0].dtype == DType::i32);
  CHECK(shape_of(MaxPool2d{2}, {{4, 6, 3}}).s.slots[0].count == 2 * 3 * 3);
}

TEST_CASE("op_pool: of equal values the first gets the gradient") {
  const Ran r = run_row(MaxPool2d{2}, {2, 2, 1}, {1, 1, 1, 1}, {5});
  CHECK(r.dx == std::vector<float>{5, 0, 0, 0});
}

TEST_CASE("op_pool: not-a-number wins wherever it stands in the window, and the last of several as in PyTorch") {
  const float nan = std::nanf("");
  for (int kernel : {2, 17})                                    // places of a byte, and of an int
    for (float sign : {1.0f, -1.0f})
      for (size_t at = 0; at < 4; at++) {
        std::vector<float> x(static_cast<size_t>(kernel * kernel), 1.0f), want(x.size());
        x[x.size() - 1] = INFINITY, x[at] = std::copysign(nan, sign), want[at] = 5;
        const Ran r = run_row(MaxPool2d{kernel}, {kernel, kernel, 1}, x, {5});
        CHECK(std::isnan(r.y[0]));
        CHECK(r.dx == want);
      }
  CHECK(run_row(MaxPool2d{2}, {2, 2, 1}, {nan, 1, nan, 1}, {5}).dx == std::vector<float>{0, 0, 5, 0});
}

TEST_CASE("op_pool: padding never wins, and a window of padding alone gives minus infinity and no gradient") {
  CHECK(run_row(MaxPool2d{2, 2, 1}, {1, 1, 1}, {-3}).y == std::vector<float>{-3});
  const Ran r = run_row(MaxPool2d{{1, 2}, 1, {0, 3}, {1, 5}}, {1, 1, 1}, {7}, {5, 5});
  REQUIRE(r.y.size() == 2);
  CHECK(std::isinf(r.y[0]));
  CHECK(std::isinf(r.y[1]));
  CHECK(r.dx[0] == 0);
}

TEST_CASE("op_pool: a huge window in huge padding is not walked place by place") {
  const int big = INT32_MAX;
  const Ran r = run_row(MaxPool2d{{big, 1}, 1, {big / 2, 0}}, {3, 1, 1}, {1, 3, 2}, {1, 2, 4});
  CHECK(r.y == std::vector<float>{3, 3, 3});
  CHECK(r.dx == std::vector<float>{0, 7, 0});
  CHECK(run_row(AvgPool2d{{big, 1}, 1, {big / 2, 0}, false, false}, {3, 1, 1}, {1, 3, 2}).y[1] == 2);
}
