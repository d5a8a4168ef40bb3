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
  return {{dims, memory_type::f32, plain}, {dims, memory_type::f32, any ? memory::format_tag::any : plain}};
}

// A primitive with its operands, and those of plain layout that they come from and go to.
struct Call {
  struct Move {
    dnnl::reorder reorder;
    memory from, to;
  };
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;
  std::vector<Move> before, after;

  void take(int argument, const std::vector<float>& values, const memory::desc& plain,
            const memory::desc& wanted) {
    memory from(plain, cpu()), to(wanted, cpu());
    std::copy(values.begin(), values.end(), static_cast<float*>(from.get_data_handle()));
    arguments[argument] = plain == wanted ? from : to;
    if (plain != wanted) before.push_back({dnnl::reorder(from, to), from, to});
  }
  void give(int argument, const memory::desc& made, const memory::desc& plain) {
    arguments[argument] = memory(made, cpu());
    after.push_back({dnnl::reorder(arguments[argument], memory(plain, cpu())), arguments[argument],
                     memory(plain, cpu())});
  }
  void run(std::vector<Move>& moves) {
    for (Move& move : moves) move.reorder.execute(stream(), move.from, move.to);
  }
  void run() { primitive.execute(stream(), arguments); }
  void run_from_plain() {
    run(before);
    run();
    if (after[0].from.get_desc() != after[0].to.get_desc()) run(after);
  }
  std::vector<float> result() {
    run(after);
    const float* data = static_cast<const float*>(after[0].to.get_data_handle());
    return {data, data + after[0].to.get_desc().get_size() / sizeof(float)};
  }
};

// Builds the pass from its three descriptions; what a primitive does not support it throws. One way is the
// primitive alone, the other has the reorders from and to plain tensors in it, those of weights too.
template <class Forward, class GradInput, class GradWeights, class Describe>
Ways ways_of(const Case& c, const Values& values, const Operand& x, const Operand& w, const Operand& y,
             const std::string& name, const std::string& library, Describe describe) {
  auto call = std::make_shared<Call>();
  const auto kind =
      c.pass == Phase::forward ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
  typename Forward::primitive_desc forward(describe.template operator()<Forward>(kind, x, w, y), cpu());
  std::string info;
  if (c.pass == Phase::forward) {
    call->take(DNNL_ARG_SRC, values.x, x.plain, forward.src_desc());
    call->take(DNNL_ARG_WEIGHTS, values.w, w.plain, forward.weights_desc());
    call->give(DNNL_ARG_DST, forward.dst_desc(), y.plain);
    call->primitive = Forward(forward);
    info = forward.impl_info_str();
  } else if (c.pass == Phase::grad_input) {
    typename GradInput::primitive_desc pd(describe.template operator()<GradInput>(x, w, y), cpu(), forward);
    call->take(DNNL_ARG_DIFF_DST, values.y, y.plain, pd.diff_dst_desc());
    call->take(DNNL_ARG_WEIGHTS, values.w, w.plain, pd.weights_desc());
    call->give(DNNL_ARG_DIFF_SRC, pd.diff_src_desc(), x.plain);
    call->primitive = GradInput(pd);
    info = pd.impl_info_str();
  } else {
    typename GradWeights::primitive_desc pd(describe.template operator()<GradWeights>(x, w, y), cpu(),
                                            forward);
    call->take(DNNL_ARG_SRC, values.x, x.plain, pd.src_desc());
    call->take(DNNL_ARG_DIFF_DST, values.y, y.plain, pd.diff_dst_desc());
    call->give(DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc(), w.plain);
    call->primitive = GradWeights(pd);
    info = pd.impl_info_str();
  }
  call->run(call->before);
  const auto result = [call] { return call->result(); };
  Ways ways = {{library, name + " " + info, [call] { call->run(); }, result}};
  if (library == "onednn")
    ways.push_back({"onednn_plain", ways[0].name, [call] { call->run_from_plain(); }, result});
  return ways;
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

Ways inner_product(const Case& c, const Values& values, bool any) {
  using tag = memory::format_tag;
  return ways_of<dnnl::inner_product_forward, dnnl::inner_product_backward_data,
                 dnnl::inner_product_backward_weights>(
      c, values, operand({c.rows, c.in}, tag::nc, any), operand({c.out, c.in}, tag::oi, true),
      operand({c.rows, c.out}, tag::nc, any), any ? "any" : "nc", "onednn", InnerProduct());
}

Ways convolution(const Case& c, const Values& values, bool any, dnnl::algorithm algorithm) {
  using tag = memory::format_tag;
  return ways_of<dnnl::convolution_forward, dnnl::convolution_backward_data,
                 dnnl::convolution_backward_weights>(
      c, values, operand({c.rows, c.in, c.size, c.size}, tag::nhwc, any),
      operand({c.out, c.in, c.kernel, c.kernel}, tag::oihw, true),
      operand({c.rows, c.out, c.places(), c.places()}, tag::nhwc, any), any ? "any" : "nhwc",
      algorithm == dnnl::algorithm::convolution_winograd ? "winograd" : "onednn",
      Convolution{algorithm, {1, 1}, {c.padding, c.padding}});
}

}  // namespace

// Weights always have the layout that the primitive likes best, activations that or a plain one.
Ways onednn_ways(const Case& c, const Values& values) {
  Ways ways = product_ways(c, values, {"onednn", "sgemm"}, gemm);
  const auto add = [&](const auto& make) {
    try {
      for (Way& way : make()) ways.push_back(std::move(way));
    } catch (const dnnl::error&) {
      // there is no primitive for this
    }
  };
  for (const bool any : {true, false}) {
    if (c.size == 0) {
      add([&] { return inner_product(c, values, any); });
      continue;
    }
    for (const dnnl::algorithm algorithm :
         {dnnl::algorithm::convolution_direct, dnnl::algorithm::convolution_auto,
          dnnl::algorithm::convolution_winograd})
      add([&] { return convolution(c, values, any, algorithm); });
  }
  return ways;
}
