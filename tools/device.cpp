#include "device.hpp"

#include <string>

#include "failure.hpp"

using namespace nnlite;

Precision precision_of(const Common& common) {
  return common.tf32 ? Precision::tf32 : common.bf16 ? Precision::bf16 : Precision::fp32;
}

#ifdef NNLITE_CUDA
const Backend* backend_for(const Common& common) {
  if (!common.cuda) return nullptr;
  const std::string problem = cuda_problem(0);
  if (!problem.empty())
    fail("no CUDA device", "--cuda", problem + "; check with nvidia-smi, or leave --cuda out");
  return cuda_backend(0, precision_of(common));
}

const Backend* backend_rows(Precision p, Seer see, void* user) { return cuda_rows(p, see, user); }
#else
const Backend* backend_for(const Common& common) {
  return common.cuda ? backend_rows(Precision::fp32, nullptr, nullptr) : nullptr;
}

const Backend* backend_rows(Precision, Seer, void*) {
  fail("built without CUDA", "--cuda", "build with cmake --preset cuda, or leave --cuda out");
}
#endif
