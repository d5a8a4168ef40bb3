// Asks an op for its shape, and runs one without parameters on a few numbers, by Part 1 of the header alone.
#ifndef NNLITE_TESTS_OP_SHAPE_HPP
#define NNLITE_TESTS_OP_SHAPE_HPP

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "nnlite.hpp"

namespace {

struct Shaped {
  nnlite::AnyOp   op;
  nnlite::OpShape s;
  nnlite::Status  status;

  std::vector<int> out() const {                                // without the batch
    std::vector<int> dims;
    for (int d = s.out.batched() ? 1 : 0; d < s.out.rank; d++) dims.push_back(s.out.dim[d]);
    return dims;
  }
  template <class L>
  const L& as() const { return *static_cast<const L*>(op.attributes()); }
};
using Sizes = std::vector<int>;

template <class L>
Shaped shape_of(const L& layer, std::initializer_list<nnlite::Dims> in) {
  Shaped r{nnlite::AnyOp(layer), {}, nnlite::Status::ok};
  for (const nnlite::Dims& dims : in) {
    nnlite::Shape& x = r.s.in[r.s.n_in];
    x.rank   = dims.rank + 1;
    x.dim[0] = nnlite::Shape::batch_dim;
    for (int d = 0; d < dims.rank; d++) x.dim[d + 1] = dims.dim[d];
    r.s.in_dtype[r.s.n_in++] = nnlite::real_dtype;
  }
  if ((L::op.traits & nnlite::traits::loss) != 0 && r.s.n_in == 1) r.s.n_in = 2;
  r.status = L::op.shape(r.op.attributes(), r.s);
  return r;
}
template <class L>
nnlite::Status status_of(const L& layer, std::initializer_list<nnlite::Dims> in) {
  return shape_of(layer, in).status;
}

// y, and dx for dy, of one input with one row.
struct Ran {
  std::vector<float> y, dx;
};
template <class L>
Ran run_row(const L& layer, const nnlite::Dims& dims, std::vector<float> x, std::vector<float> dy = {}) {
  Shaped shaped = shape_of(layer, {dims});
  std::vector<std::vector<unsigned char>> slots;
  nnlite::OpRun r{};
  Ran result{std::vector<float>(static_cast<size_t>(shaped.s.out.numel(1))), std::vector<float>(x.size())};
  r.attributes   = shaped.op.attributes();
  r.in_shapes[0] = &shaped.s.in[0];
  r.out_shape_   = &shaped.s.out;
  r.in_[0] = x.data(), r.out_ = result.y.data(), r.rows = 1, r.workers = 1, r.n_in = 1, r.training = true;
  for (int i = 0; i < shaped.s.n_slots; i++) {
    const nnlite::SlotSpec& slot = shaped.s.slots[i];
    slots.emplace_back(static_cast<size_t>(slot.count) * nnlite::size_of(slot.dtype));
    r.slot_[i] = slots.back().data();
  }
  L::op.forward(r.attributes, r);
  if (dy.empty()) return result;
  r.dy_ = dy.data(), r.dx_[0] = result.dx.data();
  L::op.backward(r.attributes, r);
  return result;
}

}  // namespace
#endif
