#include "device.hpp"

#include "failure.hpp"

using namespace nnlite;

#ifdef NNLITE_CUDA
const Backend* backend_for(bool cuda, bool tf32) {
  if (!cuda) return nullptr;
  const Backend* const backend = cuda_backend(0, tf32 ? Precision::tf32 : Precision::fp32);
  if (!backend) fail("no CUDA device", "--cuda", "check with nvidia-smi, or leave --cuda out");
  return backend;
}

const Backend* backend_rows() { return cuda_rows(); }
#else
const Backend* backend_for(bool cuda, bool) { return cuda ? backend_rows() : nullptr; }

const Backend* backend_rows() {
  fail("built without CUDA", "--cuda", "build with cmake --preset cuda, or leave --cuda out");
}
#endif
