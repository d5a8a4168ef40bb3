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

TEST_CASE("kernel_elementwise: dropout draws by element, whatever the blocks, and drops p of them") {
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

TEST_CASE("kernel_elementwise: numbers of a data set become scale times number plus shift") {
  std::vector<uint8_t> bytes(100);
  std::vector<float>   floats(100);
  for (size_t i = 0; i < 100; i++) bytes[i] = static_cast<uint8_t>(i * 5 / 2), floats[i] = float(i) / 7;
  const Isa before = current_isa();
  for (int isa = 0; isa < isa_count; isa++) {
    if (!set_isa(Isa(isa))) continue;
    for (int n : {0, 1, 7, 16, 33, 99}) {
      std::vector<float> a(static_cast<size_t>(n) + 1, -7), b = a;
      convert(bytes.data(), n, 0.37f, -0.11f, a.data());
      convert(floats.data(), n, 0.37f, -0.11f, b.data());
      for (size_t i = 0; i < static_cast<size_t>(n); i++) {
        CHECK(a[i] == madd(float(bytes[i]), 0.37f, -0.11f));
        CHECK(b[i] == madd(floats[i], 0.37f, -0.11f));
      }
      CHECK(a.back() == -7);
      CHECK(b.back() == -7);
    }
  }
  (void)set_isa(before);
}

TEST_CASE("kernel_elementwise: the sum of squares has the same bits in every class") {
  alignas(64) float v[4000];
  Random random{5};
  double exact = 0;
  for (float& x : v) x = float(random.next(3)), exact += double(x) * double(x);
  const Isa before = current_isa();
  float fused = 0;
  for (int isa = 0; isa < isa_count; isa++) {
    if (!set_isa(Isa(isa))) continue;
    const float sum = sum_of_squares(v, 4000);
    CHECK(double(sum) == doctest::Approx(exact).epsilon(1e-6));
    if (Isa(isa) == Isa::base) continue;
    if (fused > 0) CHECK(sum == fused);
    fused = sum;
  }
  (void)set_isa(before);
}

}  // namespace test_kernel_elementwise
#endif
