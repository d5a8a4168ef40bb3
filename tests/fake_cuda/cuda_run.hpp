// What the tests of CUDA share: the device, which ops it has no row for yet, and a network trained on it and on
// the CPU. Nothing here knows whether the device is a GPU or the fake of this folder.
#ifndef NNLITE_TESTS_CUDA_RUN_HPP
#define NNLITE_TESTS_CUDA_RUN_HPP

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "../engine.hpp"
#include "../networks.hpp"
#include "../support.hpp"

// Names the device, or ends the test case.
#define NNLITE_ON_CUDA(name)                                                     \
  [[maybe_unused]] const Backend* const name = cuda_backend(0);                  \
  if (*cuda_problem(0) != 0) {                                                   \
    MESSAGE("SKIP: there is no CUDA device: ", std::string(cuda_problem(0)));    \
    return;                                                                      \
  }

namespace {

// The device with nothing in its memory.
inline const Backend* emptied() {
  close_cuda(0);
  return cuda_backend(0);
}

// Ops of the header that may have no row yet: none. A new op stands here until it has one.
const std::set<std::string> not_yet;
inline bool is_not_yet(const std::string& op) { return not_yet.count(op) > 0; }
// Schedules run on the host, and a view is no step.
inline bool needs_row(const Op& op) { return (op.traits & (traits::schedule | traits::view)) == 0; }

// A network on made-up data, and what its training gives.
struct Subject {
  Net     net{size_t(1) << 16};
  AnyOp   loss, optimizer = SGD{0.05f, 0.9f};
  int     rows = 1, count = 0;                 // of a batch; of the data
  std::vector<std::vector<real>> x;            // of every input
  std::vector<real>    targets;
  std::vector<int32_t> labels;                 // instead, where there are some
  bool    identity = false;                    // "front" layers hand on what they get

  // Values for `n` rows: multiples of 1/2 where there are to be ties.
  void fill(int n, int classes, float scale = 1, bool ties = false) {
    count = n;
    const Model& m = net.model;
    for (int i = 0; i < m.input_count(); i++) {
      x.push_back(random_values(uint64_t(i) + 17, static_cast<size_t>(m.input_shape(i).numel(n))));
      for (real& v : x.back()) v = ties ? real(std::round(v * 3)) / 2 : v * scale;
    }
    const size_t outputs = static_cast<size_t>(m.output_shape(0).numel(n));
    if (classes > 0) {
      labels = random_labels(5, outputs / static_cast<size_t>(m.output_shape(0).last()), classes);
    } else {
      targets = random_values(6, outputs);
      for (real& v : targets) v = v / 2 + real(0.5);
    }
  }
  const void* target() const {
    return labels.empty() ? static_cast<const void*>(targets.data())
                          : static_cast<const void*>(labels.data());
  }
  Batch batch() const {
    Batch b;
    int i = 0;
    for (const std::vector<real>& one : x) b.data[i++] = one.data();
    b.data[i] = target();
    b.rows    = rows;
    return b;
  }
  Dataset data() const {
    Dataset d;
    d.count = static_cast<uint32_t>(count);
    int i = 0;
    for (const std::vector<real>& one : x) d.columns[i++].data = one.data();
    d.columns[i].data = target();
    if (!labels.empty()) d.columns[i].dtype = DType::i32;
    return d;
  }
  TrainerOptions training(const Backend* on) const {
    TrainerOptions o;
    o.batch     = rows;
    o.loss      = loss;
    o.optimizer = optimizer;
    o.backend   = on;
    return o;
  }
  SessionOptions running(const Backend* on) const {
    SessionOptions o;
    o.batch   = rows;
    o.loss    = loss;
    o.backend = on;
    return o;
  }
  Status finish() {
    const Status s = net.model.finish(Seed{7});
    return ok(s) ? net.materialise() : s;
  }
};

// A network of networks.hpp.
inline std::unique_ptr<Subject> subject_of(const Network& n, int count) {
  auto s = std::make_unique<Subject>();
  Model& m = s->net.model;
  m.output("y", n.build(m, m.input("x", n.input)));
  s->loss = n.loss;
  s->rows = n.rows;
  REQUIRE(s->finish() == Status::ok);
  s->fill(count, n.classes);
  return s;
}

// 9 -> 33 -> 18 -> 10 with dropout, by ops that have rows from the start.
inline std::unique_ptr<Subject> small_mlp(int count) {
  auto s = std::make_unique<Subject>();
  Model& m = s->net.model;
  m.output("y", m.chain(m.input("x", {9}), Linear{0, 33}, ReLU{}, Dropout{0.25f}, Linear{0, 18}, Tanh{},
                        Linear{0, 10}));
  s->loss = CrossEntropyLoss{};
  s->rows = 8;
  REQUIRE(s->finish() == Status::ok);
  s->fill(count, 10);
  return s;
}

// Ok, or unsupported for the sake of an op that is in the list. Anything else fails the test.
inline bool builds(const Subject& s, const Backend* on, std::set<std::string>* missing = nullptr) {
  MemoryPlan plan;
  const Status status = Trainer::plan(s.net.model, s.training(on), plan);
  if (status == Status::unsupported && is_not_yet(plan.problem.where) && !on->rows(plan.problem.where)) {
    if (missing) missing->insert(plan.problem.where);
    return false;
  }
  CHECK_MESSAGE(status == Status::ok, to_string(status)
                                          << ": " << plan.problem.where << ": " << plan.problem.what);
  return ok(status);
}

inline std::vector<real> outputs_of(const Session& s) {
  const View<const real> y = s.output();
  return {y.data, y.data + y.size()};
}

// One pass through a session that is built.
inline std::vector<real> forward(Session& session, const Subject& s) {
  for (size_t i = 0; i < s.x.size(); i++)
    std::memcpy(
        session.input(static_cast<int>(i)).data, s.x[i].data(),
        static_cast<size_t>(session.model()->input_shape(static_cast<int>(i)).numel(s.rows)) * sizeof(real));
  if (s.loss) {
    const int last = session.model()->input_count();
    if (!s.labels.empty())
      std::memcpy(session.input_i32(last).data, s.labels.data(),
                  static_cast<size_t>(session.input_i32(last).size()) * sizeof(int32_t));
    else
      std::memcpy(session.input(last).data, s.targets.data(),
                  static_cast<size_t>(session.input(last).size()) * sizeof(real));
  }
  if (session.forward(s.rows) != Status::ok) return {};
  return outputs_of(session);
}

inline Array as_doubles(const std::vector<real>& v) { return Array(v.begin(), v.end()); }

// |a - b| as a share of the largest |b|, or of `least` where that is more.
inline double error_of(const Array& a, const Array& b, double least = 0) {
  Array x = a, y = b;
  x.push_back(least);
  y.push_back(least);
  return worst_error(x, y);
}

}  // namespace
#endif
