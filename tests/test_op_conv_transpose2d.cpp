#include <doctest/doctest.h>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_conv_transpose2d: sizes of the output") {
  CHECK(shape_of(ConvTranspose2d{3, 8, 2, 2}, {{5, 4, 3}}).out() == Sizes{10, 8, 8});
  CHECK(shape_of(ConvTranspose2d{3, 8, 3, 2, 1, 1}, {{5, 4, 3}}).out() == Sizes{10, 8, 8});
  CHECK(shape_of(ConvTranspose2d{3, 8, 3, 1, 0, 0, 1, true, 2}, {{5, 4, 3}}).out() == Sizes{9, 8, 8});
  CHECK(status_of(ConvTranspose2d{3, 8, 1, 1, 3}, {{5, 4, 3}}) == Status::bad_shape);
}

TEST_CASE("op_conv_transpose2d: the weight is [in, out / groups, kH, kW] with PyTorch's fans") {
  const Shaped s = shape_of(ConvTranspose2d{4, 6, {2, 3}, 1, 0, 0, 2}, {{5, 4, 4}});
  const ParameterSpec& w = s.s.parameters[0];
  CHECK(w.layout == Layout::transposed);
  CHECK(w.groups == 2);
  CHECK(w.shape.dim[0] == 4);
  CHECK(w.shape.dim[1] == 3);
  CHECK(w.fan_in == 3 * 6);
  CHECK(w.fan_out == 4 * 6);
  CHECK(shape_of(ConvTranspose2d{0, 6, 2}, {{5, 4, 4}}).as<ConvTranspose2d>().in_channels == 4);
}

TEST_CASE("op_conv_transpose2d: output_padding must be smaller than stride or dilation") {
  CHECK(status_of(ConvTranspose2d{1, 1, 3, 2, 0, 1}, {{5, 4, 1}}) == Status::ok);
  CHECK(status_of(ConvTranspose2d{1, 1, 3, 2, 0, 2}, {{5, 4, 1}}) == Status::bad_attribute);
  CHECK(status_of(ConvTranspose2d{1, 1, 3, 1, 0, 1, 1, true, 2}, {{5, 4, 1}}) == Status::ok);
  CHECK(status_of(ConvTranspose2d{1, 1, 3, 2, 0, -1}, {{5, 4, 1}}) == Status::bad_attribute);
}

TEST_CASE("op_conv_transpose2d: sizes from a hostile file do not overflow") {
  const int big = INT32_MAX;
  CHECK(status_of(ConvTranspose2d{1, 1, big, big, big}, {{5, 4, 1}}) == Status::limit_exceeded);
  CHECK(status_of(ConvTranspose2d{1, big, 1}, {{5, 4, 1}}) == Status::limit_exceeded);
  CHECK(status_of(ConvTranspose2d{1, 1, 3, big}, {{5, 4, 1}}) == Status::limit_exceeded);
  CHECK(status_of(ConvTranspose2d{1, 1, 3, 0}, {{5, 4, 1}}) == Status::bad_attribute);
  CHECK(status_of(ConvTranspose2d{4, 6, 3, 1, 0, 0, 3}, {{5, 4, 4}}) == Status::bad_attribute);
}
