// The machine that runs this: its instruction sets, and how many multiply-adds it does, to hold kernels to.
#pragma once

#include "nnlite.hpp"

// GFLOP/s of all threads of a pool together (nullptr: of one) at fused multiply-adds (where there are none: products and sums) on full vectors of
// the instruction set in force. The best of a few short runs.
double peak_gflops(nnlite::Pool* pool = nullptr);

// A UsageError where NNLITE_ISA names an instruction set that is not here.
void require_isa();
