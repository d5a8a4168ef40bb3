#include <memory>

#include "shapes.hpp"

namespace {

std::vector<float> transposed(const std::vector<float>& from, int rows, int columns) {
  std::vector<float> to(from.size());
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c)
      to[static_cast<std::size_t>(c * rows + r)] = from[static_cast<std::size_t>(r * columns + c)];
  return to;
}

struct Call {
  bool transposed_a = false, transposed_b = false;
  int M = 0, N = 0, K = 0;
  std::vector<float> a, b, c;
};

}  // namespace

Ways product_ways(const Case& s, const Values& values, const Way& name, Product product) {
  Ways ways;
  if (s.kernel != 1 || s.padding != 0) return ways;
  const int rows = s.rows * s.places() * s.places();
  for (const bool in_out : {true, false}) {  // weights as [in][out], or as [out][in]
    auto call = std::make_shared<Call>();
    const std::vector<float> w = in_out ? transposed(values.w, s.out, s.in) : values.w;
    if (s.pass == nnlite::Phase::forward)
      *call = {false, !in_out, rows, s.out, s.in, values.x, w, std::vector<float>(values.y.size())};
    else if (s.pass == nnlite::Phase::grad_input)
      *call = {false, in_out, rows, s.in, s.out, values.y, w, std::vector<float>(values.x.size())};
    else if (in_out) *call = {true, false, s.in, s.out, rows, values.x, values.y, w};
    else *call = {true, false, s.out, s.in, rows, values.y, values.x, w};
    const bool turn = in_out && s.pass == nnlite::Phase::grad_parameter;
    ways.push_back({name.library, name.name + (in_out ? " [in][out]" : " [out][in]"),
                    [call, product] {
                      product(call->transposed_a, call->transposed_b, call->M, call->N, call->K,
                              call->a.data(), call->b.data(), call->c.data());
                    },
                    [call, turn, s] { return turn ? transposed(call->c, s.in, s.out) : call->c; }});
  }
  return ways;
}
