#include "kernel_bits.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_norm {

TEST_CASE("kernel_norm: same bits on every instruction set and number of workers") {
  const char* const chunks = "the plain loop sums all pixels in one chain, the kernel by chunks";
  const Case cases[] = {
      {"BatchNorm1d: one chunk", BatchNorm1d{}, {{37}}, 19},
      {"BatchNorm1d: sequence", BatchNorm1d{}, {{7, 16}}, 5},
      {"BatchNorm1d: without affine", BatchNorm1d{0, 1e-3f, 0.1f, false}, {{200}}, 64},
      {"BatchNorm2d: evaluation", BatchNorm2d{}, {{9, 11, 18}}, 3, 1.0f, false, false},
      {"BatchNorm2d: evaluation without statistics", BatchNorm2d{0, 1e-5f, 0.1f, true, false}, {{9, 5, 3}}, 3,
       1.0f, false, false},
      {"BatchNorm2d: exactly two chunks", BatchNorm2d{}, {{16, 16, 16}}, 4},
      {"BatchNorm2d: few channels", BatchNorm2d{}, {{31, 33, 3}}, 5, 1.0f, false, true, 2e-5, chunks},
      {"BatchNorm2d: many channels", BatchNorm2d{}, {{17, 19, 40}}, 4, 3.0f, false, true, 2e-5, chunks},
      {"BatchNorm2d: one channel", BatchNorm2d{}, {{28, 28, 1}}, 2, 1.0f, false, true, 2e-5, chunks},
  };
  check_bits(cases);
}

// Mean 1000, deviation 1: what sums of squares would lose.
TEST_CASE("kernel_norm: statistics far from zero keep their digits") {
  const Case c = {"BatchNorm2d", BatchNorm2d{0, 1e-5f, 1.0f}, {{25, 41, 5}}, 4};
  Arrays given = random_arrays(c);
  Random random{3};
  for (double& v : given["x0"]) v = double(float(1000 + random.next(1.7320508)));
  Way way;
  way.isa = static_cast<int>(current_isa());
  const Outcome o = run_one(c, given, way);
  const Array &mean = o.arrays.at("c2"), &var = o.arrays.at("c3");
  for (size_t channel = 0; channel < 5; channel++) {
    double sum = 0, squares = 0;
    const Array& x = given["x0"];
    const double n = double(x.size() / 5);
    for (size_t i = channel; i < x.size(); i += 5) sum += x[i];
    for (size_t i = channel; i < x.size(); i += 5) squares += (x[i] - sum / n) * (x[i] - sum / n);
    CHECK(mean[channel] == doctest::Approx(sum / n).epsilon(1e-6));
    CHECK(var[channel] == doctest::Approx(squares / (n - 1)).epsilon(1e-5));
  }
}

}  // namespace test_kernel_norm
#endif
