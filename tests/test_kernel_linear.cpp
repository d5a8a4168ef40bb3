#include "kernel_case.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_linear {
using namespace kernel_case;

TEST_CASE("kernel_linear: same bits on every instruction set and number of workers") {
  const int sizes[][3] = {{1, 1, 1},    {1, 784, 200}, {2, 5, 130},  {3, 17, 16}, {5, 31, 33},
                          {7, 200, 10}, {13, 3, 48},   {64, 50, 47}, {65, 20, 6}, {130, 33, 70}};
  for (const auto& s : sizes) {
    CAPTURE(s[0]);
    CAPTURE(s[1]);
    CAPTURE(s[2]);
    check_rows(Linear{s[1], s[2]}, batch_of({s[1]}), s[0]);
    check_rows(Linear{s[1], s[2], false}, batch_of({3, s[1]}), s[0], true);
  }
}

TEST_CASE("kernel_linear: a row of the batch has the same bits alone and among others") {
  for (int rows : {2, 7, 64}) {
    Call many(Linear{37, 45}, batch_of({37}), rows);
    many.kernels(1, false);
    for (int at : {0, rows / 2, rows - 1}) {
      Call one(Linear{37, 45}, batch_of({37}), 1);
      std::memcpy(one.x.data(), many.x.data() + at * 37, 37 * sizeof(real));
      one.kernels(1, false);
      CHECK(std::memcmp(one.y.data(), many.y.data() + at * 45, 45 * sizeof(real)) == 0);
    }
  }
}
}  // namespace test_kernel_linear
#endif
