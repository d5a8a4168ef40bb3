#include "kernel_bits.hpp"

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
