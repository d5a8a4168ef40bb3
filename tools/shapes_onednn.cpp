#include <algorithm>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "shapes.hpp"

using dnnl::memory;
using nnlite::Phase;

namespace {

dnnl::engine& cpu() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}
dnnl::stream& stream() {
  static dnnl::stream stream(cpu());
  return stream;
}

void gemm(bool transposed_a, bool transposed_b, int M, int N, int K, const float* A, const float* B,
          float* C) {
  dnnl::sgemm(transposed_a ? 'T' : 'N', transposed_b ? 'T' : 'N', M, N, K, 1, A, transposed_a ? M : K, B,
              transposed_b ? K : N, 0, C, N);
}

// A tensor as everybody has it, and as the primitive is asked to take it.
struct Operand {
  memory::desc plain, wanted;
};
Operand operand(const memory::dims& dims, memory::format_tag plain, bool any) {
  using memory_type = memory::data_type;
  return {{dims, memory_type::f32, plain},
          {dims, memory_type::f32, any ? memory::format_tag::any : plain}};
}

struct Call {
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;
  memory result;
};

memory rearranged(memory from, const memory::desc& as) {
  memory to(as, cpu());
  dnnl::reorder(from, to).execute(stream(), from, to);
  stream().wait();
  return to;
}
memory given(const std::vector<float>& values, const memory::desc& plain, const memory::desc& as) {
  const memory from(plain, cpu());
  std::copy(values.begin(), values.end(), static_cast<float*>(from.get_data_handle()));
  return rearranged(from, as);
}

// Builds the pass from its three descriptions; what a primitive does not support it throws.
template <class Forward, class GradInput, class GradWeights, class Describe>
Way way_of(const Case& s, const Values& values, const Operand& x, const Operand& w, const Operand& y,
           const std::string& name, Describe describe) {
  auto call = std::make_shared<Call>();
  const auto kind = s.pass == Phase::forward ? dnnl::prop_kind::forward_inference
                                             : dnnl::prop_kind::forward_training;
  typename Forward::primitive_desc forward(describe.template operator()<Forward>(kind, x, w, y), cpu());
  std::string info;
  memory::desc plain;
  const auto finish = [&](auto& pd, auto primitive, int result, const memory::desc& as,
                          const memory::desc& plain_result) {
    call->primitive = primitive;
    call->result = memory(as, cpu());
    call->arguments[result] = call->result;
    plain = plain_result;
    info = pd.impl_info_str();
  };
  auto& arguments = call->arguments;
  if (s.pass == Phase::forward) {
    arguments[DNNL_ARG_SRC] = given(values.x, x.plain, forward.src_desc());
    arguments[DNNL_ARG_WEIGHTS] = given(values.w, w.plain, forward.weights_desc());
    finish(forward, Forward(forward), DNNL_ARG_DST, forward.dst_desc(), y.plain);
  } else if (s.pass == Phase::grad_input) {
    typename GradInput::primitive_desc pd(describe.template operator()<GradInput>(x, w, y), cpu(), forward);
    arguments[DNNL_ARG_DIFF_DST] = given(values.y, y.plain, pd.diff_dst_desc());
    arguments[DNNL_ARG_WEIGHTS] = given(values.w, w.plain, pd.weights_desc());
    finish(pd, GradInput(pd), DNNL_ARG_DIFF_SRC, pd.diff_src_desc(), x.plain);
  } else {
    typename GradWeights::primitive_desc pd(describe.template operator()<GradWeights>(x, w, y), cpu(),
                                            forward);
    arguments[DNNL_ARG_SRC] = given(values.x, x.plain, pd.src_desc());
    arguments[DNNL_ARG_DIFF_DST] = given(values.y, y.plain, pd.diff_dst_desc());
    finish(pd, GradWeights(pd), DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc(), w.plain);
  }
  return {name + " " + info, [call] { call->primitive.execute(stream(), call->arguments); },
          [call, plain] {
            const memory to = rearranged(call->result, plain);
            const float* data = static_cast<const float*>(to.get_data_handle());
            return std::vector<float>(data, data + plain.get_size() / sizeof(float));
          }};
}

// The descriptions of inner products and convolutions take the same tensors in the same order.
struct InnerProduct {
  template <class Pass>
  typename Pass::desc operator()(dnnl::prop_kind kind, const Operand& x, const Operand& w,
                                 const Operand& y) const {
    return {kind, x.wanted, w.wanted, y.wanted};
  }
  template <class Pass>
  typename Pass::desc operator()(const Operand& x, const Operand& w, const Operand& y) const {
    return {x.wanted, w.wanted, y.wanted};
  }
};
struct Convolution {
  dnnl::algorithm algorithm;
  memory::dims stride, padding;
  template <class Pass>
  typename Pass::desc operator()(dnnl::prop_kind kind, const Operand& x, const Operand& w,
                                 const Operand& y) const {
    return {kind, algorithm, x.wanted, w.wanted, y.wanted, stride, padding, padding};
  }
  template <class Pass>
  typename Pass::desc operator()(const Operand& x, const Operand& w, const Operand& y) const {
    return {algorithm, x.wanted, w.wanted, y.wanted, stride, padding, padding};
  }
};

Way inner_product(const Case& s, const Values& values, bool any) {
  using tag = memory::format_tag;
  return way_of<dnnl::inner_product_forward, dnnl::inner_product_backward_data,
                dnnl::inner_product_backward_weights>(
      s, values, operand({s.rows, s.in}, tag::nc, any), operand({s.out, s.in}, tag::oi, true),
      operand({s.rows, s.out}, tag::nc, any), any ? "any" : "nc", InnerProduct());
}

Way convolution(const Case& s, const Values& values, bool any, dnnl::algorithm algorithm) {
  using tag = memory::format_tag;
  return way_of<dnnl::convolution_forward, dnnl::convolution_backward_data,
                dnnl::convolution_backward_weights>(
      s, values, operand({s.rows, s.in, s.size, s.size}, tag::nhwc, any),
      operand({s.out, s.in, s.kernel, s.kernel}, tag::oihw, true),
      operand({s.rows, s.out, s.places(), s.places()}, tag::nhwc, any), any ? "any" : "nhwc",
      Convolution{algorithm, {1, 1}, {s.padding, s.padding}});
}

}  // namespace

// Weights always have the layout that the primitive likes best, activations that or a plain one.
Ways onednn_ways(const Case& shape, const Values& values) {
  Ways ways = product_ways(shape, values, "sgemm", gemm);
  const auto add = [&](const auto& make) {
    try {
      Way way = make();
      for (const Way& other : ways)
        if (other.name == way.name) return;
      ways.push_back(std::move(way));
    } catch (const dnnl::error&) {
      // this primitive does not support this shape
    }
  };
  for (const bool any : {true, false}) {
    if (shape.size == 0) {
      add([&] { return inner_product(shape, values, any); });
      continue;
    }
    for (const dnnl::algorithm algorithm : {dnnl::algorithm::convolution_direct,
                                            dnnl::algorithm::convolution_auto,
                                            dnnl::algorithm::convolution_winograd})
      add([&] { return convolution(shape, values, any, algorithm); });
  }
  return ways;
}
