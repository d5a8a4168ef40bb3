#include "kernel_bits.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_loss {

TEST_CASE("kernel_loss: same bits on every instruction set and number of workers") {
  const Case cases[] = {
      {"BCELoss: chunks", BCELoss{}, {{37, 53}}, 3},
      {"BCEWithLogitsLoss: chunks", BCEWithLogitsLoss{}, {{31, 33, 1}}, 3, 6.0f},
      {"CrossEntropyLoss: chunks of pixels", CrossEntropyLoss{}, {{19, 31, 3}}, 2, 4.0f},
      {"CrossEntropyLoss: many classes", CrossEntropyLoss{}, {{1000}}, 7, 9.0f},
      {"CrossEntropyLoss: one class", CrossEntropyLoss{}, {{1}}, 5},
      {"CrossEntropyLoss: probabilities, smoothed", CrossEntropyLoss{0.2f, true}, {{37}}, 11},
      {"CrossEntropyLoss: smoothed", CrossEntropyLoss{0.1f}, {{10}}, 600, 3.0f},
      {"HuberLoss: chunks", HuberLoss{0.5f}, {{513}}, 3},
      {"L1Loss: chunks", L1Loss{}, {{1537}}, 1},
      {"LogSoftmax: lines", LogSoftmax{}, {{9, 45}}, 130, 5.0f},
      {"MSELoss: chunks", MSELoss{}, {{512}}, 4},
      {"NLLLoss: chunks", NLLLoss{}, {{10}}, 1100},
      {"Softmax: lines", Softmax{}, {{7, 18}}, 150, 5.0f},
      {"Softmax: whole vectors", Softmax{-1}, {{64}}, 3},
  };
  check_bits(cases);
}

TEST_CASE("kernel_loss: logits of any size give a finite loss, and what is not a number goes through") {
  const Case   c = {"CrossEntropyLoss", CrossEntropyLoss{}, {{3}}, 2};
  const float  inf = float_of(0x7F800000u), nan = float_of(0x7FC00000u);
  for (int isa = 0; isa < isa_count; isa++) {
    if (!isa_present(Isa(isa))) continue;
    Way way;
    way.isa = isa;
    const auto loss = [&](double a) {
      return run_one(c, {{"x0", {a, 0, 0, 0, 1, 2}}, {"x1", {1, 2}}}, way).arrays.at("y")[0];
    };
    const double other = std::log(1 + std::exp(-1.0) + std::exp(-2.0));
    CHECK(loss(1e30) == doctest::Approx((1e30 + other) / 2));
    CHECK(loss(double(-inf)) == doctest::Approx((std::log(2.0) + other) / 2));
    CHECK(std::isnan(loss(double(nan))));
    CHECK(std::isnan(loss(double(inf))));
  }
}

}  // namespace test_kernel_loss
#endif
