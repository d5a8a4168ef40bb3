#include <cblas.h>

#include "shapes.hpp"

namespace {

void gemm(bool transposed_a, bool transposed_b, int M, int N, int K, const float* A, const float* B,
          float* C) {
  cblas_sgemm(CblasRowMajor, transposed_a ? CblasTrans : CblasNoTrans,
              transposed_b ? CblasTrans : CblasNoTrans, M, N, K, 1, A, transposed_a ? M : K, B,
              transposed_b ? K : N, 0, C, N);
}

// For one row: C = B^T A.
void gemv(bool, bool transposed_b, int, int N, int K, const float* A, const float* B, float* C) {
  if (transposed_b) cblas_sgemv(CblasRowMajor, CblasNoTrans, N, K, 1, B, K, A, 1, 0, C, 1);
  else cblas_sgemv(CblasRowMajor, CblasTrans, K, N, 1, B, N, A, 1, 0, C, 1);
}

}  // namespace

Ways openblas_ways(const Case& c, const Values& values) {
  openblas_set_num_threads(1);
  Ways ways = product_ways(c, values, {"openblas", "sgemm"}, gemm);
  if (c.size > 0 || c.rows > 1 || c.pass == nnlite::Phase::grad_parameter) return ways;
  for (Way& way : product_ways(c, values, {"openblas", "sgemv"}, gemv)) ways.push_back(std::move(way));
  return ways;
}
