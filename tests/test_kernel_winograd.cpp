#include "kernel_case.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_winograd {
using namespace kernel_case;

// The name of the forward row that a layer gets.
static std::string row_of(const AnyOp& op, int H, int W, int C, bool derive = true) {
  const Call call(op, batch_of({H, W, C}), 1, 1, derive);
  KernelPlan plan;
  const Kernel* const k = call.row(Phase::forward, plan);
  return k == nullptr ? "" : k->name;
}

static void check(const Conv2d& op, int H, int W, int rows, bool accumulate = false) {
  CAPTURE(H);
  CAPTURE(W);
  CAPTURE(rows);
  CHECK(row_of(op, H, W, op.in_channels) == "winograd");
  check_rows(op, batch_of({H, W, op.in_channels}), rows, accumulate);
}

TEST_CASE("kernel_winograd: the same bits on every instruction set and number of workers") {
  SUBCASE("sizes") {
    check(Conv2d{16, 16, 3, 1, 1}, 8, 8, 1);
    check(Conv2d{16, 48, 3, 1, 1}, 9, 7, 2, true);
    check(Conv2d{32, 16, 3, 1, 1}, 4, 29, 3);
    check(Conv2d{64, 32, 3, 1, 1, 1, 1, false}, 4, 4, 5);
    check(Conv2d{16, 16, 3, 1, 1}, 3, 200, 1, true);
  }
  SUBCASE("channels that fill no panel") {
    check(Conv2d{17, 24, 3, 1, 1}, 7, 6, 2, true);
    check(Conv2d{24, 40, 3, 1, 1}, 5, 9, 1);
    check(Conv2d{40, 17, 3, 1, 1}, 6, 6, 2, true);
    check(Conv2d{33, 65, 3, 1, 1}, 5, 5, 1);
  }
  SUBCASE("padding") {
    check(Conv2d{16, 17, 3}, 8, 11, 2, true);
    check(Conv2d{18, 16, 3, 1, 2}, 5, 4, 2);
    check(Conv2d{16, 16, 3, 1, {0, 3}}, 7, 5, 1, true);
    check(Conv2d{16, 16, 3, 1, {4, 5}}, 3, 1, 2);
  }
}

TEST_CASE("kernel_winograd: the shape of the layer and derived_weights choose, not rows or workers") {
  CHECK(row_of(Conv2d{16, 16, 3, 1, 1}, 8, 8, 16, false) == "conv2d");
  CHECK(row_of(Conv2d{15, 16, 3, 1, 1}, 8, 8, 15) == "conv2d");
  CHECK(row_of(Conv2d{16, 15, 3, 1, 1}, 8, 8, 16) == "conv2d");
  CHECK(row_of(Conv2d{16, 16, 3, 1, 1}, 2, 2, 16) == "conv2d");
  CHECK(row_of(Conv2d{16, 16, 3, 2, 1}, 8, 8, 16) == "conv2d");
  CHECK(row_of(Conv2d{16, 16, 3, {1, 2}, 1}, 8, 8, 16) == "conv2d");
  CHECK(row_of(Conv2d{16, 16, 3, 1, 2, 2}, 8, 8, 16) == "conv2d");
  CHECK(row_of(Conv2d{16, 16, {3, 1}, 1, 1}, 8, 8, 16) == "conv2d");
  CHECK(row_of(Conv2d{32, 32, 3, 1, 1, 1, 2}, 8, 8, 32) == "conv2d");
  CHECK(row_of(Conv2d{32, 32, 3, 1, 1, 1, 32}, 8, 8, 32) == "depthwise");
}

TEST_CASE("kernel_winograd: an image has the same bits alone and among others") {
  const AnyOp op = Conv2d{20, 24, 3, 1, 1};
  const Shape in = batch_of({9, 10, 20});
  Call many(op, in, 7);
  many.kernels(2, false);
  const int64_t size = in.row_numel(), answer = many.shape.out.row_numel();
  for (int at : {0, 3, 6}) {
    Call one(op, in, 1);
    std::memcpy(one.x.data(), many.x.data() + at * size, static_cast<size_t>(size) * sizeof(real));
    std::memcpy(one.dy.data(), many.dy.data() + at * answer, static_cast<size_t>(answer) * sizeof(real));
    one.kernels(1, false);
    CHECK(std::memcmp(one.y.data(), many.y.data() + at * answer, static_cast<size_t>(answer) * sizeof(real)) == 0);
    CHECK(std::memcmp(one.dx.data(), many.dx.data() + at * size, static_cast<size_t>(size) * sizeof(real)) == 0);
  }
}

// Of the largest output, against the sum in double.
static double error_of(Call& c, const Conv2d& a, int H, int W) {
  double most = 0, largest = 0;
  for (int h = 0; h < H; h++)
    for (int w = 0; w < W; w++)
      for (int o = 0; o < a.out_channels; o++) {
        double sum = double(c.parameter[1].data()[o]);
        for (int kh = 0; kh < 3; kh++)
          for (int kw = 0; kw < 3; kw++)
            for (int i = 0; i < a.in_channels; i++) {
              const int y = h + kh - 1, x = w + kw - 1;
              if (y < 0 || y >= H || x < 0 || x >= W) continue;
              sum += double(c.x.data()[(y * W + x) * a.in_channels + i]) *
                     double(c.parameter[0].data()[parameter_index(c.shape.parameters[0], o, i, kh, kw)]);
            }
        const double y = double(c.y.data()[(h * W + w) * a.out_channels + o]);
        most = std::max(most, std::fabs(y - sum));
        largest = std::max(largest, std::fabs(sum));
      }
  return most / largest;
}

TEST_CASE("kernel_winograd: no less exact than the direct sum") {
  for (int channels : {16, 32, 64, 128}) {
    const Conv2d a{channels, 32, 3, 1, 1};
    double errors[2] = {0, 0};
    for (uint32_t seed = 1; seed <= 3; seed++) {
      for (bool derive : {false, true}) {
        Call c(a, batch_of({12, 12, channels}), 1, seed, derive);
        c.kernels(1, false);
        errors[derive] = std::max(errors[derive], error_of(c, a, 12, 12));
      }
    }
    CAPTURE(channels);
    CHECK(errors[true] <= errors[false]);
    MESSAGE(channels << " channels: error " << errors[true] << ", direct " << errors[false]);
  }
}
}  // namespace test_kernel_winograd
#endif
