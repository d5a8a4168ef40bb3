// nnlite-bench: shapes of products and convolutions, and the libraries that compute them.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "nnlite.hpp"

// One pass over one layer without bias: a Linear where size is 0, else a Conv2d over squares, stride 1.
struct Case {
  const char* table;  // "product", "convolution", "batch 1"
  const char* name;
  nnlite::Phase pass;  // forward, grad_input, grad_parameter
  int rows, size, in, out, kernel, padding;

  int places() const { return size == 0 ? 1 : size + 2 * padding - kernel + 1; }
  std::size_t x_count() const { return count(rows, size == 0 ? 1 : size * size, in); }
  std::size_t w_count() const { return count(out, in, kernel * kernel); }
  std::size_t y_count() const { return count(rows, places() * places(), out); }
  double flop() const { return 2.0 * static_cast<double>(y_count()) * in * kernel * kernel; }

 private:
  static std::size_t count(int a, int b, int c) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
  }
};

// What all libraries are given: x [rows, size, size, in], w [out, in, kernel, kernel], y (the gradient dy, in
// backward) [rows, places, places, out].
struct Values {
  std::vector<float> x, w, y;
};

// A library's way to compute a case. run() alone is timed, result() gives y, dx or dw as they lie in Values.
//   nnlite, openblas, onednn   what is rearranged before and after is not timed
//   winograd                   the same for what oneDNN has, but does not choose by itself
//   onednn_plain               with the reorders from and to plain tensors, as frameworks need them
struct Way {
  std::string library, name;
  std::function<void()> run = {};
  std::function<std::vector<float>()> result = {};
};
using Ways = std::vector<Way>;

Ways nnlite_ways(const Case& c, const Values& values);
Ways openblas_ways(const Case& c, const Values& values);
Ways onednn_ways(const Case& c, const Values& values);

// Row-major C [M, N] = A B, where A [M, K] lies transposed as [K, M] if so told, and B [K, N] as [N, K].
using Product = void (*)(bool transposed_a, bool transposed_b, int M, int N, int K, const float* A,
                         const float* B, float* C);
// A Linear, or a convolution of single pixels, as a matrix product: one way for each layout of the weights.
Ways product_ways(const Case& c, const Values& values, const Way& name, Product product);
