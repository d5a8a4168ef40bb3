#include "device.hpp"

#include "failure.hpp"

using namespace nnlite;

#ifdef NNLITE_CUDA
const Backend* backend_for(const Common& common) {
  if (!common.cuda) return nullptr;
  const Precision factors = common.tf32 ? Precision::tf32 : common.bf16 ? Precision::bf16 : Precision::fp32;
  const Backend* const backend = cuda_backend(0, factors);
  if (!backend) fail("no CUDA device", "--cuda", "check with nvidia-smi, or leave --cuda out");
  return backend;
}

const Backend* backend_rows() { return cuda_rows(); }
#else
const Backend* backend_for(const Common& common) { return common.cuda ? backend_rows() : nullptr; }

const Backend* backend_rows() {
  fail("built without CUDA", "--cuda", "build with cmake --preset cuda, or leave --cuda out");
}
#endif
