// Whole networks, each a graph with branches, sharing or frozen parts. Run by the float engine
// (test_networks.cpp) and the double one (oracle.cpp), which judges the gradients of the first and is judged
// by differences.
#ifndef NNLITE_TESTS_NETWORKS_HPP
#define NNLITE_TESTS_NETWORKS_HPP

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "nnlite.hpp"

// Loss and gradients of one training step. parameters and gradients in the model's order, logical; no
// gradient where frozen.
struct NetworkRun {
  std::string status;
  double      loss = 0;
  std::vector<std::string>         names;
  std::vector<std::vector<double>> parameters, gradients;
};
// `parameters` replaces the initial ones where it is not empty.
NetworkRun run_network(int index, const std::vector<std::vector<double>>& parameters = {});
NetworkRun run_network_in_double(int index, const std::vector<std::vector<double>>& parameters = {});
int network_count();
const char* network_name(int index);

namespace {
using namespace nnlite;

struct Network {
  const char* name;
  Dims  input;
  int   rows;
  AnyOp loss;
  int   classes;                               // of an index target; 0: a target of real numbers in (0, 1)
  Tensor (*build)(Model& m, Tensor x);
};

inline Tensor conv_norm_relu(Model& m, Tensor x, int channels, int stride = 1) {
  return m.chain(x, Conv2d{0, channels, 3, stride, 1, 1, 1, false}, BatchNorm2d{}, ReLU{});
}

const Network networks[] = {
    {"attention over steps", {5, 6}, 4, CrossEntropyLoss{}, 3, [](Model& m, Tensor x) {
       const Tensor values = m.chain(x, Linear{0, 7}, Tanh{}),
                    weights = m.chain(x, Linear{0, 7, false}, Softmax{1});
       return m.chain(m.add(Mul{}, values, weights), Flatten{}, Linear{0, 3});
     }},
    {"autoencoder", {6, 6, 2}, 3, MSELoss{}, 0, [](Model& m, Tensor x) {
       return m.chain(x, Conv2d{0, 5, 3, 2, 1}, ELU{}, ConvTranspose2d{0, 2, 2, 2}, Sigmoid{});
     }},
    {"batch norm between linears", {9}, 7, HuberLoss{0.5f}, 0, [](Model& m, Tensor x) {
       return m.chain(x, Linear{0, 19, false}, BatchNorm1d{}, LeakyReLU{0.1f}, Linear{0, 4});
     }},
    {"classes of pixels", {5, 4, 3}, 2, CrossEntropyLoss{0.1f}, 4, [](Model& m, Tensor x) {
       return m.chain(x, Conv2d{0, 6, 3, 1, 1}, Tanh{}, Conv2d{0, 4, 1});
     }},
    {"convolutions and pooling", {12, 10, 1}, 3, CrossEntropyLoss{}, 5, [](Model& m, Tensor x) {
       return m.chain(x, Conv2d{0, 6, 5, 1, 2}, ReLU{}, MaxPool2d{2}, Conv2d{0, 9, 3}, ReLU{},
                      MaxPool2d{2, 1}, Flatten{}, Linear{0, 11}, ReLU{}, Linear{0, 5});
     }},
    {"depthwise", {7, 6, 5}, 2, CrossEntropyLoss{}, 3, [](Model& m, Tensor x) {
       x = m.chain(x, Conv2d{0, 5, 3, 1, 1, 1, 5, false}, BatchNorm2d{}, ReLU{},
                   Conv2d{0, 18, 1, 1, 0, 1, 1, false});
       return m.chain(x, BatchNorm2d{}, ReLU{}, AdaptiveAvgPool2d{}, Flatten{}, Linear{0, 3});
     }},
    {"dilation and groups", {9, 9, 4}, 2, L1Loss{}, 0, [](Model& m, Tensor x) {
       return m.chain(x, Conv2d{0, 6, 3, 1, 2, 2, 2}, ELU{}, Conv2d{0, 2, {2, 3}, {2, 1}, {0, 1}, 1, 2},
                      Flatten{}, Linear{0, 3});
     }},
    {"derived weights", {6, 7, 2}, 3, CrossEntropyLoss{}, 4, [](Model& m, Tensor x) {
       const Tensor a = m.chain(x, Conv2d{0, 17, 3, 1, 1}, Tanh{});
       const Tensor b = m.chain(a, Conv2d{0, 17, 3, 1, 1}, ReLU{}, Conv2d{0, 17, 3, 1, 1});
       return m.chain(m.add(Add{}, a, b), Conv2d{0, 16, 3}, ReLU{}, AdaptiveAvgPool2d{}, Flatten{},
                      Linear{0, 4});
     }},
    {"dropout", {14}, 6, CrossEntropyLoss{}, 4, [](Model& m, Tensor x) {
       return m.chain(x, Linear{0, 21}, ReLU{}, Dropout{0.4f}, Linear{0, 17}, Tanh{}, Dropout{0.2f},
                      Linear{0, 4});
     }},
    {"fan-out of three", {8}, 5, MSELoss{}, 0, [](Model& m, Tensor x) {
       const Tensor a = m.chain(x, Linear{0, 9}, Tanh{});
       const Tensor b = m.add(Sigmoid{}, a), c = m.chain(a, Linear{0, 9}, ELU{}), d = m.add(Add{}, a, b, c);
       return m.add(Linear{0, 3}, m.add(Mul{}, d, a));
     }},
    {"frozen front", {6, 6, 3}, 3, CrossEntropyLoss{}, 4, [](Model& m, Tensor x) {
       const Tensor first = m.add(Conv2d{0, 5, 3, 1, 1, 1, 1, false}, x), norm = m.add(BatchNorm2d{}, first);
       m.freeze(first);
       m.freeze(norm);
       return m.chain(norm, ReLU{}, Conv2d{0, 6, 3, 2}, ReLU{}, Flatten{}, Linear{0, 4});
     }},
    {"frozen middle", {10}, 4, MSELoss{}, 0, [](Model& m, Tensor x) {
       const Tensor a = m.chain(x, Linear{0, 12}, Tanh{}), b = m.add(Linear{0, 13}, a),
                    c = m.add(BatchNorm1d{}, b);
       m.freeze(b);
       m.freeze(c);
       return m.chain(c, ReLU{}, Linear{0, 2});
     }},
    {"gates", {11}, 4, MSELoss{}, 0, [](Model& m, Tensor x) {
       const Tensor gate = m.chain(x, Linear{0, 8}, Sigmoid{}), value = m.chain(x, Linear{0, 8}, Tanh{});
       return m.add(Linear{0, 2}, m.add(Mul{}, gate, value));
     }},
    {"log-probabilities", {13}, 5, NLLLoss{}, 6, [](Model& m, Tensor x) {
       return m.chain(x, Linear{0, 10}, Tanh{}, Linear{0, 6}, LogSoftmax{});
     }},
    {"perceptron", {4, 5, 1}, 9, CrossEntropyLoss{}, 10, [](Model& m, Tensor x) {
       return m.chain(x, Flatten{}, Linear{0, 33}, ReLU{}, Linear{0, 18}, ReLU{}, Linear{0, 10});
     }},
    {"pooled averages", {9, 7, 3}, 2, CrossEntropyLoss{}, 3, [](Model& m, Tensor x) {
       return m.chain(x, Conv2d{0, 5, 3}, Tanh{}, AvgPool2d{3, 2, 1, true, false}, Conv2d{0, 4, 2}, Sigmoid{},
                      AdaptiveAvgPool2d{{2, 1}}, Flatten{}, Linear{0, 3});
     }},
    {"probabilities", {9}, 6, BCELoss{}, 0, [](Model& m, Tensor x) {
       return m.chain(x, Linear{0, 12}, ELU{}, Linear{0, 1}, Sigmoid{});
     }},
    {"recurrent by sharing", {7}, 3, MSELoss{}, 0, [](Model& m, Tensor x) {
       const Tensor first = m.add(Linear{0, 7}, x), second = m.share(first, m.add(Tanh{}, first));
       return m.add(Tanh{}, m.share(first, m.add(Tanh{}, second)));
     }},
    {"residual", {8, 8, 3}, 3, CrossEntropyLoss{}, 4, [](Model& m, Tensor x) {
       x = conv_norm_relu(m, x, 6);
       const Tensor a = m.chain(conv_norm_relu(m, x, 6), Conv2d{0, 6, 3, 1, 1, 1, 1, false}, BatchNorm2d{});
       const Tensor b = m.add(ReLU{}, m.add(Add{}, x, a));
       const Tensor c =
           m.chain(conv_norm_relu(m, b, 10, 2), Conv2d{0, 10, 3, 1, 1, 1, 1, false}, BatchNorm2d{});
       const Tensor d = m.add(ReLU{}, m.add(Add{}, m.add(Conv2d{0, 10, 1, 2}, b), c));
       return m.chain(d, AdaptiveAvgPool2d{}, Flatten{}, Linear{0, 4});
     }},
    {"shared convolution of two branches", {6, 5, 2}, 2, CrossEntropyLoss{}, 3, [](Model& m, Tensor x) {
       const Tensor a = m.add(Conv2d{0, 2, 3, 1, 1}, x), b = m.share(a, m.add(Tanh{}, a));
       return m.chain(m.add(Concat{3}, a, b), ELU{}, Flatten{}, Linear{0, 3});
     }},
    {"square", {6}, 4, L1Loss{}, 0, [](Model& m, Tensor x) {
       const Tensor a = m.add(Linear{0, 9}, x);
       return m.add(Linear{0, 2}, m.add(Mul{}, a, a));
     }},
    {"u-net", {8, 8, 2}, 2, BCEWithLogitsLoss{}, 0, [](Model& m, Tensor x) {
       const Tensor skip = conv_norm_relu(m, x, 4), deep = conv_norm_relu(m, m.add(MaxPool2d{2}, skip), 8);
       const Tensor up = m.add(ConvTranspose2d{0, 4, 2, 2}, deep);
       return m.add(Conv2d{0, 1, 1}, conv_norm_relu(m, m.add(Concat{3}, skip, up), 4));
     }},
    {"upsampling", {3, 4, 3}, 2, HuberLoss{}, 0, [](Model& m, Tensor x) {
       return m.chain(x, Conv2d{0, 4, 1}, LeakyReLU{}, Upsample{{2, 3}}, Conv2d{0, 2, 3, 1, 1}, Concat{},
                      Tanh{});
     }},
};

// Numbers that are the same floats everywhere: sums of four uniform ones for inputs, one for targets.
struct Stream {
  uint32_t state;
  double uniform() {
    state = state * 1664525u + 1013904223u;
    return double(state >> 8) / 16777216.0;
  }
  double normal() {
    return double(static_cast<float>(1.7 * (uniform() + uniform() + uniform() + uniform() - 2)));
  }
};

struct Memory {
  explicit Memory(size_t bytes) : size(bytes) {
    void* p = nullptr;
    if (posix_memalign(&p, 64, bytes) != 0) std::abort();
    at.reset(p);
  }
  struct Free { void operator()(void* p) const { std::free(p); } };
  std::unique_ptr<void, Free> at;
  size_t size;
};

inline std::string told(const Problem& p) {
  return std::string(to_string(p.status)) + ": " + p.where + ": " + p.what;
}

// One step of a trainer that takes no step: the rate is 0.
inline NetworkRun step_network(const Network& n, const std::vector<std::vector<double>>& parameters) {
  NetworkRun run;
  Memory records(size_t(1) << 16);
  Model  model(records.at.get(), records.size);
  model.output("y", n.build(model, model.input("x", n.input)));
  if (!ok(model.finish(Seed{7}))) return run.status = told(model.problem()), run;
  TrainerOptions options;
  options.batch = n.rows;
  options.loss  = n.loss;
  options.optimizer = SGD{0.0f};
  options.keep_gradients = true;
  MemoryPlan plan;
  if (!ok(Trainer::plan(model, options, plan))) return run.status = told(plan.problem), run;
  Memory memory(plan.total + 64);
  Arena  arena(memory.at.get(), plan.total);
  Memory weights(model.weight_bytes() + 64);
  Arena  weight_arena(weights.at.get(), model.weight_bytes());
  if (!ok(model.materialise(weight_arena))) return run.status = told(model.problem()), run;
  Trainer trainer;
  if (!ok(trainer.build(model, options, arena))) return run.status = told(trainer.problem()), run;

  std::vector<std::vector<real>> values;
  for (int p = 0; p < model.parameter_count(); p++) {
    const ParameterInfo info = model.parameter(p);
    values.emplace_back(static_cast<size_t>(info.count));
    if (!parameters.empty() && trainer.is_trained(p)) {
      for (size_t i = 0; i < values.back().size(); i++)
        values.back()[i] = static_cast<real>(parameters[static_cast<size_t>(p)][i]);
      if (!ok(trainer.set(p, values.back().data()))) return run.status = told(trainer.problem()), run;
    }
    if (!ok(trainer.get(p, values.back().data()))) return run.status = told(trainer.problem()), run;
    run.names.push_back(info.name);
    run.parameters.emplace_back(values.back().begin(), values.back().end());
  }
  Stream random{12345};
  std::vector<real> x(static_cast<size_t>(model.input_shape(0).numel(n.rows)));
  for (real& v : x) v = static_cast<real>(random.normal());
  const int64_t outputs = model.output_shape(0).numel(n.rows);
  std::vector<real>    targets(static_cast<size_t>(outputs));
  std::vector<int32_t> classes(static_cast<size_t>(outputs));
  for (real& v : targets) v = static_cast<real>(random.uniform());
  for (int32_t& c : classes) c = static_cast<int32_t>(random.uniform() * (n.classes > 0 ? n.classes : 1));
  const void* target = n.classes > 0 ? static_cast<const void*>(classes.data()) : targets.data();
  if (!ok(trainer.step(Batch{x.data(), target, n.rows}))) return run.status = told(trainer.problem()), run;
  run.loss = double(trainer.loss());
  for (int p = 0; p < model.parameter_count(); p++) {
    run.gradients.emplace_back();
    if (!trainer.is_trained(p)) continue;
    std::vector<real> g(static_cast<size_t>(model.parameter(p).count));
    if (!ok(trainer.get_gradient(p, g.data()))) return run.status = told(trainer.problem()), run;
    run.gradients.back().assign(g.begin(), g.end());
  }
  run.status = "ok";
  return run;
}

}  // namespace
#endif
