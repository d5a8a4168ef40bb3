#include "kernel_bits.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_elementwise {

TEST_CASE("kernel_elementwise: same bits on every instruction set and number of workers") {
  const Case cases[] = {
      {"Add: three inputs over blocks", Add{}, {{71, 29}, {71, 29}, {71, 29}}, 5},
      {"Dropout: blocks", Dropout{0.3f}, {{1031}}, 9},
      {"Dropout: everything", Dropout{1.0f}, {{37}}, 3},
      {"Dropout: image", Dropout{0.5f}, {{5, 3, 7}}, 3},
      {"ELU: blocks", ELU{0.7f}, {{4097}}, 2, 5.0f},
      {"LeakyReLU: blocks", LeakyReLU{0.2f}, {{4099}}, 3},
      {"Mul: four inputs over blocks", Mul{}, {{4111}, {4111}, {4111}, {4111}}, 2},
      {"ReLU: blocks", ReLU{}, {{61, 67}}, 4},
      {"ReLU: one value", ReLU{}, {{1}}, 1},
      {"Sigmoid: blocks", Sigmoid{}, {{8191}}, 1, 20.0f},
      {"Tanh: blocks", Tanh{}, {{2731}}, 3, 4.0f},
      {"Tanh: tiny", Tanh{}, {{15}}, 1, 1e-6f},
  };
  check_bits(cases);
}

TEST_CASE("kernel_elementwise: dropout draws by element, so a block boundary is not seen and the share is p") {
  const Case   c = {"Dropout", Dropout{0.25f}, {{100000}}, 1};
  Arrays given = random_arrays(c);
  for (double& v : given["x0"]) v = 3;
  Way way;
  way.isa = static_cast<int>(current_isa());
  const Outcome o = run_one(c, given, way);
  int dropped = 0;
  for (double y : o.arrays.at("y")) {
    dropped += y == 0;
    if (y != 0) CHECK(y == doctest::Approx(4).epsilon(1e-6));
  }
  CHECK(std::abs(dropped - 25000) < 700);                            // five standard deviations
  const Words w = random_block(0x0123456789ABCDEF, 5, Purpose::dropout, 3, 99999 / 4);
  CHECK((o.arrays.at("y")[99999] == 0) == (uniform_of(w.word[99999 % 4]) < 0.25f));
}

TEST_CASE("kernel_elementwise: add_into adds any count and nothing behind it") {
  for (int isa = 0; isa < isa_count; isa++) {
    const Isa before = current_isa();
    if (!set_isa(Isa(isa))) continue;
    for (int n : {0, 1, 7, 16, 33, 100}) {
      Array expected;
      std::vector<float> to(static_cast<size_t>(n) + 1, 2.5f), from(static_cast<size_t>(n) + 1, 0.25f);
      add_into(to.data(), from.data(), n);
      for (int i = 0; i <= n; i++) CHECK(to[static_cast<size_t>(i)] == (i < n ? 2.75f : 2.5f));
    }
    (void)set_isa(before);
  }
}

}  // namespace test_kernel_elementwise
#endif
