#include "kernel_case.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_winograd {
using namespace kernel_case;

// The name of the row that a layer gets in all phases, or of forward's and how many have another.
static std::string row_of(const AnyOp& op, int H, int W, int C, bool derive = true) {
  Call call(op, batch_of({H, W, C}), 1, 1, derive);
  call.bind(false, true, true);
  KernelPlan plan;
  std::string name;
  int others = 0;
  for (Phase phase : {Phase::forward, Phase::grad_input, Phase::grad_parameter}) {
    const Kernel* const k = call.row(phase, plan);
    const std::string got = k == nullptr ? "none" : k->name;
    if (name.empty()) name = got;
    else if (got != name) others++;
  }
  return others == 0 ? name : name + " and others";
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
    check(Conv2d{16, 16, 3, 1, {4, 5}}, 3, 3, 2);
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

// The largest error of y and of dw, in units of the largest value, against sums in double.
struct Errors {
  double y, dw;
};
static Errors errors_of(Call& c, const Conv2d& a, int H, int W) {
  std::vector<double> y(static_cast<size_t>(H * W * a.out_channels));
  std::vector<double> dw(static_cast<size_t>(c.parameter[0].size));
  for (int h = 0; h < H; h++)
    for (int w = 0; w < W; w++)
      for (int o = 0; o < a.out_channels; o++) {
        const auto at = static_cast<size_t>((h * W + w) * a.out_channels + o);
        y[at] = double(c.parameter[1].data()[o]);
        for (int kh = 0; kh < 3; kh++)
          for (int kw = 0; kw < 3; kw++)
            for (int i = 0; i < a.in_channels; i++) {
              const int v = h + kh - 1, u = w + kw - 1;
              if (v < 0 || v >= H || u < 0 || u >= W) continue;
              const double x = double(c.x.data()[(v * W + u) * a.in_channels + i]);
              const auto   k = static_cast<size_t>(parameter_index(c.shape.parameters[0], o, i, kh, kw));
              y[at] += x * double(c.parameter[0].data()[k]);
              dw[k] += x * double(c.dy.data()[at]);
            }
      }
  const auto worst = [](const std::vector<double>& want, Values& got) {
    double most = 0, largest = 0;
    for (size_t i = 0; i < want.size(); i++) {
      most = std::max(most, std::fabs(double(got.data()[i]) - want[i]));
      largest = std::max(largest, std::fabs(want[i]));
    }
    return most / largest;
  };
  return {worst(y, c.y), worst(dw, c.dparameter[0])};
}

TEST_CASE("kernel_winograd: outputs and gradients of weights are no less exact than the direct sum") {
  for (int channels : {16, 32, 64, 128}) {
    const Conv2d a{channels, 32, 3, 1, 1};
    Errors errors[2] = {{0, 0}, {0, 0}};
    for (uint32_t seed = 1; seed <= 3; seed++) {
      for (bool derive : {false, true}) {
        Call c(a, batch_of({24, 24, channels}), 1, seed, derive);
        c.kernels(1, false);
        const Errors e = errors_of(c, a, 24, 24);
        errors[derive] = {std::max(errors[derive].y, e.y), std::max(errors[derive].dw, e.dw)};
      }
    }
    CAPTURE(channels);
    CHECK(errors[true].y <= errors[false].y);
    CHECK(errors[true].dw <= errors[false].dw);
    MESSAGE(channels << " channels: error " << errors[true].y << ", direct " << errors[false].y << "; of dw "
                     << errors[true].dw << ", direct " << errors[false].dw);
  }
}

// With many tiles and few rows and columns of dw the sum has parts, the last of them shorter.
TEST_CASE("kernel_winograd: the gradient of weights in parts") {
  check(Conv2d{16, 16, 3, 1, 1}, 23, 200, 1);
  check(Conv2d{33, 16, 3, 1, 1}, 16, 31, 5);
}
}  // namespace test_kernel_winograd
#endif
