#include "kernel_case.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_conv {
using namespace kernel_case;

static void check(const AnyOp& op, int H, int W, int C, int rows, bool accumulate = false) {
  CAPTURE(H);
  CAPTURE(W);
  CAPTURE(C);
  CAPTURE(rows);
  check_rows(op, batch_of({H, W, C}), rows, accumulate, false);
}

TEST_CASE("kernel_conv: Conv2d has the same bits on every instruction set and number of workers") {
  SUBCASE("padding and sizes") {
    check(Conv2d{1, 6, 5, 1, 2}, 28, 28, 1, 2);
    check(Conv2d{6, 16, 5}, 14, 14, 6, 3);
    check(Conv2d{3, 16, 3, 1, 1}, 9, 13, 3, 2, true);
    check(Conv2d{16, 48, 3, 1, 1}, 8, 8, 16, 2);
    check(Conv2d{5, 33, 3, 1, {2, 0}}, 6, 5, 5, 1);
  }
  SUBCASE("strides") {
    check(Conv2d{16, 32, 3, 2, 1}, 16, 16, 16, 2);
    check(Conv2d{16, 32, 1, 2}, 7, 9, 16, 2, true);
    check(Conv2d{1, 20, {10, 4}, 2, {5, 1}}, 49, 10, 1, 1);
    check(Conv2d{4, 7, {3, 2}, {3, 1}, {1, 0}}, 11, 6, 4, 2);
    check(Conv2d{3, 5, 2, 5, 1}, 13, 12, 3, 1);
    check(Conv2d{2, 3, 1, 3, 1}, 1, 1, 2, 2);
  }
  SUBCASE("dilation and groups") {
    check(Conv2d{4, 6, 3, 1, 2, 2}, 9, 8, 4, 2);
    check(Conv2d{4, 6, 3, 2, 2, {2, 3}}, 12, 11, 4, 1, true);
    check(Conv2d{12, 18, 3, 1, 1, 1, 3}, 7, 6, 12, 2);
    check(Conv2d{6, 12, {1, 3}, {2, 1}, {0, 1}, 1, 6, false}, 5, 7, 6, 2);
    check(Conv2d{34, 34, 1, 1, 0, 1, 2}, 4, 3, 34, 1);
  }
  SUBCASE("few input and output channels: weight gradients by two lines of taps") {
    check(Conv2d{1, 8, 3, 1, 1}, 9, 9, 1, 2);
    check(Conv2d{1, 5, {6, 4}, 2, {5, 1}}, 17, 10, 1, 3);
    check(Conv2d{1, 3, {4, 5}, 1, {0, 2}, {2, 1}}, 12, 11, 1, 2);
    check(Conv2d{2, 7, {1, 3}}, 5, 6, 2, 2);
    check(Conv2d{2, 1, {5, 3}, {3, 2}, 1}, 14, 13, 2, 1);
  }
  SUBCASE("few output channels of one input channel: vectors along the pixels") {
    check(Conv2d{1, 6, 5, 1, 2}, 28, 28, 1, 2);
    check(Conv2d{1, 1, 3, 1, 1}, 5, 70, 1, 2);
    check(Conv2d{1, 8, {3, 8}, {2, 1}}, 9, 43, 1, 1);
    check(Conv2d{1, 7, 2, 1, 0, 1, 1, false}, 3, 6, 1, 3);
    check(Conv2d{1, 2, {1, 64}, 1, {0, 40}}, 2, 33, 1, 2);
  }
  SUBCASE("columns that end with the tensor") {
    check(Conv2d{5, 24, 1}, 4, 4, 5, 2);
    check(Conv2d{1, 120, 1}, 3, 2, 1, 2);
    check(Conv2d{2, 56, {2, 1}}, 3, 1, 2, 3);
    check(Conv2d{3, 1, 1}, 2, 2, 3, 9);
    check(ConvTranspose2d{3, 56, 1}, 3, 3, 3, 2);
    check(ConvTranspose2d{1, 1, 1, 2}, 2, 2, 1, 3);
  }
  SUBCASE("one by one, one pixel, wide rows") {
    check(Conv2d{24, 40, 1}, 6, 7, 24, 3);
    check(Conv2d{7, 130, 3}, 3, 3, 7, 2);
    check(Conv2d{2, 3, {1, 3}, 1, {0, 1}}, 2, 1030, 2, 1);
    check(Conv2d{2, 5, 3, 1, 1}, 40, 33, 2, 2);
  }
}

TEST_CASE("kernel_conv: ConvTranspose2d has the same bits on every instruction set and number of workers") {
  check(ConvTranspose2d{8, 6, 2, 2}, 5, 7, 8, 2);
  check(ConvTranspose2d{16, 32, 2, 2}, 8, 8, 16, 1, true);
  check(ConvTranspose2d{5, 17, 3, 1, 1}, 6, 5, 5, 2);
  check(ConvTranspose2d{4, 6, 3, 2, 1, 1}, 7, 6, 4, 2);
  check(ConvTranspose2d{6, 9, {3, 4}, {3, 2}, {0, 1}, {1, 0}, 3}, 4, 5, 6, 2);
  check(ConvTranspose2d{3, 4, 3, 2, 2, 1, 1, false, 2}, 6, 5, 3, 1);
  check(ConvTranspose2d{20, 12, 1, 3}, 4, 4, 20, 1);
  check(ConvTranspose2d{2, 3, 2, 2}, 24, 30, 2, 1);
}

// Shapes nobody would choose: strides beyond the kernel, windows wholly in the padding, groups, dilation.
TEST_CASE("kernel_conv: random shapes, seed 5") {
  uint32_t state = 5;
  const auto below = [&state](int n) {
    state = state * 1664525u + 1013904223u;
    return static_cast<int>((state >> 8) % static_cast<uint32_t>(n));
  };
  int done = 0;
  for (int i = 0; i < 400 && done < 50; i++) {
    const int groups = 1 + below(3), in = groups * (1 + below(9)), out = groups * (1 + below(20));
    const Pair kernel(1 + below(4), 1 + below(4)), stride(1 + below(4), 1 + below(4));
    const Pair padding(below(4), below(4)), dilation(1 + below(3), 1 + below(3));
    const int H = 1 + below(9), W = 1 + below(12), rows = 1 + below(3);
    const bool accumulate = below(2) == 1, bias = below(3) > 0, transposed = below(2) == 1;
    AnyOp op = Conv2d{in, out, kernel, stride, padding, dilation, groups, bias};
    if (transposed) op = ConvTranspose2d{in, out, kernel, stride, padding, 0, groups, bias, dilation};
    OpShape s;
    s.n_in = 1;
    s.in[0] = batch_of({H, W, in});
    s.in_dtype[0] = real_dtype;
    if (op.op()->shape(op.attributes(), s) != Status::ok) continue;
    done++;
    CAPTURE(i);
    check(op, H, W, in, rows, accumulate);
  }
  CHECK(done == 50);
}

TEST_CASE("kernel_conv: chunks of gradients, on which their bits depend") {
  const Chunks tall(100, 45), small(14, 14), wide(3, 1030);
  CHECK(tall.rows == 11);
  CHECK(tall.columns == 45);
  CHECK(tall.count(2) == 20);
  CHECK(small.rows == 14);
  CHECK(wide.rows == 1);
  CHECK(wide.columns == 512);
  CHECK(wide.count(1) == 9);
}

TEST_CASE("kernel_conv: an image has the same bits alone and among others") {
  const AnyOp op = Conv2d{3, 20, 3, 2, 1};
  const Shape in = batch_of({11, 10, 3});
  Call many(op, in, 7);
  many.kernels(2, false);
  const int64_t size = in.row_numel(), answer = many.shape.out.row_numel();
  const size_t  bytes = static_cast<size_t>(answer) * sizeof(real);
  for (int at : {0, 3, 6}) {
    Call one(op, in, 1);
    std::memcpy(one.x.data(), many.x.data() + at * size, static_cast<size_t>(size) * sizeof(real));
    one.kernels(1, false);
    CHECK(std::memcmp(one.y.data(), many.y.data() + at * answer, bytes) == 0);
  }
}
}  // namespace test_kernel_conv
#endif
