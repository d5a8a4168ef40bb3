// How many multiply-adds this machine does, to hold kernels to.
#pragma once

// GFLOP/s of one thread at fused multiply-adds (where there are none: products and sums) on full vectors of
// the instruction set in force. The best of a few short runs.
double peak_gflops();
