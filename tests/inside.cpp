// The implementation, and in the same translation unit the tests of functions that no interface shows. Alphabetical.
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

#include "test_kernel_conv.cpp"
#include "test_kernel_depthwise.cpp"
#include "test_kernel_linear.cpp"
#include "test_math.cpp"
#include "test_op_batch_norm.cpp"
#include "test_op_dropout.cpp"
#include "test_op_list.cpp"
#include "test_op_optimizer.cpp"
#include "test_rng.cpp"
#include "test_simd.cpp"
#include "test_threads.cpp"
