#include "kernel_case.hpp"

#ifdef NNLITE_KERNELS
namespace test_kernel_depthwise {
using namespace kernel_case;

static void check(const Conv2d& layer, int H, int W, int rows, bool accumulate = false) {
  CAPTURE(H);
  CAPTURE(W);
  CAPTURE(layer.groups);
  check_rows(layer, batch_of({H, W, layer.groups}), rows, accumulate);
}

TEST_CASE("kernel_depthwise: same bits on every instruction set and number of workers") {
  check(Conv2d{16, 16, 3, 1, 1, 1, 16}, 9, 11, 2);
  check(Conv2d{16, 16, 3, 1, 0, 1, 16}, 7, 8, 2, true);
  check(Conv2d{24, 24, 3, 2, 1, 1, 24}, 13, 10, 3);
  check(Conv2d{5, 5, {2, 5}, {1, 3}, {0, 2}, 1, 5, false}, 6, 17, 2);
  check(Conv2d{33, 33, 3, 2, 2, 2, 33}, 12, 9, 1, true);
  check(Conv2d{2, 2, 3, 1, 1, 1, 2}, 40, 30, 2);
  check(Conv2d{20, 20, 1, 2, 0, 1, 20}, 5, 5, 1);
}
}  // namespace test_kernel_depthwise
#endif
