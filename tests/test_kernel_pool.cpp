#include <cmath>

#include "kernel_bits.hpp"
#include "kernel_case.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_pool {

TEST_CASE("kernel_pool: same bits on every instruction set and number of workers") {
  const Case cases[] = {
      {"AdaptiveAvgPool2d: grows", AdaptiveAvgPool2d{{5, 7}}, {{3, 4, 18}}, 2},
      {"AdaptiveAvgPool2d: one", AdaptiveAvgPool2d{1}, {{9, 7, 33}}, 3},
      {"AdaptiveAvgPool2d: overlapping regions", AdaptiveAvgPool2d{{3, 4}}, {{7, 6, 5}}, 2},
      {"AvgPool2d: overlapping, padded, cut", AvgPool2d{3, 2, 1, true, false}, {{8, 7, 17}}, 3},
      {"AvgPool2d: gaps", AvgPool2d{2, 3}, {{11, 8, 9}}, 2},
      {"AvgPool2d: halves", AvgPool2d{2}, {{14, 14, 6}}, 5},
      {"Concat: channels", Concat{3}, {{5, 6, 3}, {5, 6, 17}, {5, 6, 16}}, 3},
      {"Concat: rows", Concat{1}, {{2, 3, 5}, {4, 3, 5}}, 4},
      {"MaxPool2d: dilated", MaxPool2d{2, 1, 1, 2}, {{6, 7, 19}}, 2},
      {"MaxPool2d: gaps", MaxPool2d{{1, 2}, 3}, {{10, 9, 7}}, 3},
      {"MaxPool2d: halves", MaxPool2d{2}, {{14, 14, 6}}, 5},
      {"MaxPool2d: halves, cut", MaxPool2d{2, 2, 0, 1, true}, {{9, 5, 33}}, 2},
      {"MaxPool2d: overlapping, padded", MaxPool2d{3, 2, 1}, {{11, 12, 16}}, 3},
      {"MaxPool2d: ties", MaxPool2d{3, 1}, {{6, 6, 8}}, 2, 1.0f, true},
      {"MaxPool2d: whole image", MaxPool2d{{13, 11}}, {{13, 11, 21}}, 3},
      {"Upsample: by two", Upsample{2}, {{4, 5, 18}}, 3},
      {"Upsample: unequal", Upsample{{3, 1}}, {{3, 4, 5}}, 2},
  };
  check_bits(cases);
}

TEST_CASE("kernel_pool: not-a-number wins wherever it stands in the window") {
  const Isa before = current_isa();
  constexpr int64_t C = 19;
  for (int isa = 0; isa < isa_count; isa++) {
    if (!set_isa(Isa(isa))) continue;
    CAPTURE(std::string(isa_name(Isa(isa))));
    kernel_case::Call call(MaxPool2d{2}, kernel_case::batch_of({2, 2, int32_t(C)}), 1);
    for (int64_t c = 0; c < C; c++) {
      call.x.data()[3 * C + c] = INFINITY;
      call.x.data()[c % 4 * C + c] = std::copysign(std::nanf(""), c % 8 < 4 ? 1.0f : -1.0f);
    }
    std::vector<uint8_t> place(C);
    call.bind(false, true, false);
    call.run.slot_[0] = place.data();
    REQUIRE(call.kernel(Phase::forward, 1));
    REQUIRE(call.kernel(Phase::backward, 1));
    for (int64_t c = 0; c < C; c++) {
      CHECK(std::isnan(call.y.data()[c]));
      for (int64_t k = 0; k < 4; k++) CHECK(call.dx.data()[k * C + c] == (k == c % 4 ? call.dy.data()[c] : 0));
    }
  }
  (void)set_isa(before);
}

TEST_CASE("kernel_pool: parts of byte vectors") {
  for (int n = 0; n <= 8; n++) {
    const uint8_t from[8] = {11, 22, 33, 44, 55, 66, 77, 88};
    uint8_t       to[9];
    std::memset(to, 0xEE, sizeof to);
    put_bytes(to, get_bytes(from, n), n);
    for (int i = 0; i < 9; i++) CHECK(to[i] == (i < n ? from[i] : 0xEE));
  }
}

}  // namespace test_kernel_pool
#endif
