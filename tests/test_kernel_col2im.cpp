#include "kernel_case.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_col2im {
using namespace kernel_case;

static std::string row_of(const Conv2d& op, int H, int W, Phase phase = Phase::grad_input, int rows = 1,
                          int workers = 1) {
  Call call(op, batch_of({H, W, op.in_channels}), rows);
  call.bind(false, true, true);
  call.run.workers = static_cast<int16_t>(workers);
  KernelPlan plan;
  const Kernel* const k = call.row(phase, plan);
  return k == nullptr ? "none" : k->name;
}

static void check(const Conv2d& op, int H, int W, int rows) {
  CAPTURE(H);
  CAPTURE(W);
  CAPTURE(rows);
  CHECK(row_of(op, H, W) == "col2im");
  for (bool accumulate : {false, true}) check_rows(op, batch_of({H, W, op.in_channels}), rows, accumulate);
}

TEST_CASE("kernel_col2im: the same bits on every instruction set and number of workers") {
  SUBCASE("channels and kernels") {
    for (int channels : {1, 3, 6, 8, 10}) {
      check(Conv2d{channels, 16, 5}, 14, 14, 3);
      check(Conv2d{channels, 20, {3, 5}, 1, 2}, 7, 9, 1);
      check(Conv2d{channels, 7, {1, 2}}, 3, 11, 2);
      check(Conv2d{channels, 33, 3, 1, 1}, 5, 6, 2);
    }
  }
  SUBCASE("padding and sizes") {
    check(Conv2d{6, 16, 5}, 5, 5, 1);
    check(Conv2d{1, 3, {4, 2}, 1, {0, 1}}, 4, 1, 3);
    check(Conv2d{2, 5, 3, 1, {5, 4}}, 2, 3, 1);
    check(Conv2d{3, 17, {5, 7}, 1, {4, 3}, 1, 1, false}, 6, 30, 2);
    check(Conv2d{3, 64, 7, 1, 3}, 30, 60, 1);
    check(Conv2d{3, 9, 3, 1, 1}, 3, 700, 1);
  }
}

TEST_CASE("kernel_col2im: the shape of the layer chooses, not rows or workers") {
  CHECK(row_of(Conv2d{6, 16, 5}, 14, 14, Phase::grad_input, 64, 7) == "col2im");
  CHECK(row_of(Conv2d{6, 16, 5}, 14, 14, Phase::forward) == "conv2d");
  CHECK(row_of(Conv2d{6, 16, 5}, 14, 14, Phase::grad_parameter) == "conv2d");
  CHECK(row_of(Conv2d{11, 16, 5}, 14, 14) == "conv2d");
  CHECK(row_of(Conv2d{6, 16, {5, 1}}, 14, 14) == "conv2d");
  CHECK(row_of(Conv2d{6, 16, 1}, 14, 14) == "conv2d");
  CHECK(row_of(Conv2d{6, 16, 5, {1, 2}}, 14, 14) == "conv2d");
  CHECK(row_of(Conv2d{6, 16, 5, 1, 2, 2}, 14, 14) == "conv2d");
  CHECK(row_of(Conv2d{6, 16, 5, 1, 0, 1, 2}, 14, 14) == "conv2d");
  CHECK(row_of(Conv2d{3, 16, 3, 1, 1}, 4, 1365) == "col2im");
  CHECK(row_of(Conv2d{3, 16, 3, 1, 1}, 4, 1366) == "conv2d");
  CHECK(row_of(Conv2d{16, 16, 3, 1, 1}, 8, 8) == "winograd");
}

// The ReLU's mask fused: dx is as without it where x is larger than 0, else nothing is there or added.
TEST_CASE("kernel_col2im: the mask of a ReLU before it") {
  const Conv2d op{6, 16, {3, 5}, 1, 2};
  const Isa before = current_isa();
  for (bool accumulate : {false, true})
    for (int isa = 0; isa < isa_count; isa++) {
      if (!set_isa(Isa(isa))) continue;
      CAPTURE(isa);
      for (int workers : {1, 3, 7}) {
        Call masked(op, batch_of({9, 7, 6}), 2), whole(op, batch_of({9, 7, 6}), 2), old(op, batch_of({9, 7, 6}), 2);
        for (Call* c : {&masked, &whole, &old}) c->bind(accumulate, true, true);
        masked.run.fused = fusion::mask_dx;
        REQUIRE(masked.kernel(Phase::grad_input, workers));
        REQUIRE(whole.kernel(Phase::grad_input, 1));
        int wrong = 0, zeros = 0;
        for (int64_t i = 0; i < masked.dx.size; i++) {
          const bool  kept = masked.x.data()[i] > 0;
          const float none = accumulate ? old.dx.data()[i] : 0.0f;
          wrong += masked.dx.data()[i] == (kept ? whole.dx.data()[i] : none) ? 0 : 1;
          zeros += kept ? 0 : 1;
        }
        CHECK(wrong == 0);
        CHECK(zeros > 100);
      }
    }
  (void)set_isa(before);
}

TEST_CASE("kernel_col2im: an image has the same bits alone and among others") {
  const AnyOp op = Conv2d{6, 20, 5, 1, 1};
  const Shape in = batch_of({11, 10, 6});
  Call many(op, in, 7);
  many.kernels(2, false);
  const int64_t size = in.row_numel(), answer = many.shape.out.row_numel();
  for (int at : {0, 3, 6}) {
    Call one(op, in, 1);
    std::memcpy(one.dy.data(), many.dy.data() + at * answer, static_cast<size_t>(answer) * sizeof(real));
    one.kernels(3, false);
    CHECK(std::memcmp(one.dx.data(), many.dx.data() + at * size, static_cast<size_t>(size) * sizeof(real)) == 0);
  }
}

// What fewer rows and more workers need fits into the scratch of the most rows.
TEST_CASE("kernel_col2im: scratch for a worker grows with the rows") {
  for (int workers : {1, 2, 3, 7}) {
    size_t before = 0;
    for (int rows : {1, 2, 3, 4, 8, 64}) {
      Call call(Conv2d{6, 16, 5}, batch_of({60, 40, 6}), rows);
      call.bind(false, true, true);
      call.run.workers = static_cast<int16_t>(workers);
      KernelPlan plan;
      REQUIRE(call.row(Phase::grad_input, plan) != nullptr);
      CHECK(plan.scratch_per_worker >= before);
      before = plan.scratch_per_worker;
    }
  }
}
}  // namespace test_kernel_col2im
#endif
