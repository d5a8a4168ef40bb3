// --cuda: where sessions and trainers run. Other programs link device.cpp of their own (tests/fake_cuda).
#pragma once

#include "command.hpp"
#include "nnlite.hpp"

// nullptr, the CPU, unless --cuda was given. Fails where there is no GPU, or this program knows none.
const nnlite::Backend* backend_for(const Common& common);

nnlite::Precision precision_of(const Common& common);

// What of it plans need, and what launches nothing but tells of it: cuda_rows. Without a GPU, too; fails where this
// program knows none.
using Seer = void (*)(void* user, const nnlite::CudaLaunch& launch);
const nnlite::Backend* backend_rows(nnlite::Precision precision, Seer see, void* user);
