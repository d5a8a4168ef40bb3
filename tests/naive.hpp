// Runs a network without planner and executor: node after node by the plain loops of its op, every value,
// gradient and slot in memory of its own. What planning may not change. Included behind the implementation.
#ifndef NNLITE_TESTS_NAIVE_HPP
#define NNLITE_TESTS_NAIVE_HPP

#include "graphs.hpp"

namespace {

class Naive {
 public:
  Naive(const nnlite::Model& model, const nnlite::TrainerOptions& o, int rows) : o_(o), rows_(rows) {
    g_.model = &model;
    g_.model_nodes = g_.count = model.node_count();
    loss_copy_ = o.loss;
    nnlite::Problem problem;
    (void)nnlite::make_loss(model, loss_copy_, loss_, g_, problem);
    const size_t n = static_cast<size_t>(g_.count);
    trained_at_.resize(n), untrained_at_.resize(n), through_loss_.resize(n);
    out_.resize(n), grad_.resize(n), slots_.resize(n);
    for (int i = 0; i < model.parameter_count(); i++) {
      const nnlite::Parameter* p = nnlite::ModelAccess::parameter(model, i);
      const unsigned char* at  = nnlite::ModelAccess::weights(model) + size_t(p->offset) * 64;
      const nnlite::real* from = reinterpret_cast<const nnlite::real*>(at);
      values_.emplace_back(from, from + p->stored);
      gradients_.emplace_back();
    }
    mark();
  }

  void set(int node, const std::vector<nnlite::real>& x) { out_[static_cast<size_t>(node)] = x; }
  void set_labels(const std::vector<int32_t>& t) { labels_ = t; }
  int  target() const { return g_.model_nodes; }

  void forward(bool training) {
    for (int i = 0; i < g_.count; i++) {
      if (!node(i).op || (!training && i >= g_.model_nodes)) continue;
      if (copies(i, training)) {
        at(out_, i) = at(out_, node(i).inputs[0]);
        continue;
      }
      at(out_, i).assign(static_cast<size_t>(node(i).shape.numel(rows_)), nnlite::real(0));
      at(slots_, i).clear();
      nnlite::OpRun r = run_of(i, training && mode(i));
      node(i).op->forward(node(i).attributes, r);
    }
  }
  const std::vector<nnlite::real>& out(int i) const { return out_[static_cast<size_t>(i)]; }

  void backward() {
    for (int i = g_.count - 1; i >= 0; i--)
      if (node(i).op && trains(i) && through_loss_[static_cast<size_t>(i)]) backward_node(i);
  }

  void update() {
    nnlite::OpShape s;
    s.n_in = 1, s.in[0] = nnlite::flat_shape(16), s.in_dtype[0] = nnlite::real_dtype;
    nnlite::AnyOp optimizer = o_.optimizer;
    (void)optimizer.op()->shape(optimizer.attributes(), s);
    for (size_t p = 0; p < values_.size(); p++) {
      if (gradients_[p].empty()) continue;
      nnlite::OpRun r = nnlite::OpRun();
      const nnlite::Shape flat = nnlite::flat_shape(static_cast<int64_t>(values_[p].size()));
      const std::vector<nnlite::real> zeros(values_[p].size());
      std::vector<std::vector<nnlite::real>> slots(nnlite::max_slots, zeros);
      r.context = &context_, r.attributes = optimizer.attributes(), r.workers = 1;
      r.n_in = r.n_parameters = 1, r.in_shapes[0] = r.out_shape_ = &flat, r.training = true;
      r.parameter_[0] = values_[p].data(), r.dparameter_[0] = gradients_[p].data();
      for (int k = 0; k < s.n_slots; k++) r.slot_[k] = slots[static_cast<size_t>(k)].data();
      optimizer.op()->forward(r.attributes, r);
    }
    for (int i = 0; i < g_.model_nodes; i++) {
      if (!node(i).op || !node(i).op->commit || !mode(i)) continue;
      if (!through_loss_[static_cast<size_t>(i)]) continue;
      nnlite::OpRun r = run_of(i, true);
      node(i).op->commit(node(i).attributes, r);
    }
  }

  std::vector<double> logical(int p, const std::vector<nnlite::real>& stored) const {
    const nnlite::Parameter* q = nnlite::ModelAccess::parameter(*g_.model, p);
    std::vector<nnlite::real> v(static_cast<size_t>(q->spec.shape.row_numel()));
    if (stored.empty()) return {};
    nnlite::copy_logical(*q, stored.data(), v.data());
    return widen(v);
  }
  std::vector<double> value(int p) const { return logical(p, values_[static_cast<size_t>(p)]); }
  std::vector<double> gradient(int p) const { return logical(p, gradients_[static_cast<size_t>(p)]); }
  nnlite::StepContext& context() { return context_; }


 private:
  template <class T> static T& at(std::vector<T>& v, int i) { return v[static_cast<size_t>(i)]; }
  const nnlite::Node& node(int i) const { return g_.node(i); }
  bool own_trained(int i, int p) const {
    return nnlite::trained(g_, o_, node(i).owner, node(i).parameters[p]);
  }
  void mark() {
    for (int i = 0; i < g_.count; i++) {
      bool trained = false, untrained = false;
      for (int p = 0; p < node(i).n_parameters; p++) {
        trained |= own_trained(i, p);
        untrained |= !own_trained(i, p) && node(i).parameters[p].spec.role != nnlite::Role::statistic;
      }
      for (int k = 0; k < node(i).n_in; k++) {
        trained |= bool(trained_at_[node(i).inputs[k]]);
        untrained |= bool(untrained_at_[node(i).inputs[k]]);
      }
      at(trained_at_, i) = trained, at(untrained_at_, i) = untrained;
    }
    for (int i = g_.count - 1; i >= 0; i--)     // what only feeds frozen layers is frozen too
      for (int k = 0; k < node(i).n_in && frozen_prefix(i); k++) untrained_at_[node(i).inputs[k]] = 1;
    for (int i = g_.count - 1; i >= 0; i--) {
      if (g_.is_loss(i)) at(through_loss_, i) = 1;
      for (int k = 0; k < node(i).n_in && at(through_loss_, i); k++) through_loss_[node(i).inputs[k]] = 1;
    }
  }
  bool trains(int i) const { return trained_at_[static_cast<size_t>(i)] != 0; }
  bool frozen_prefix(int i) const { return !trains(i) && untrained_at_[static_cast<size_t>(i)] != 0; }
  // Training mode: batch norm whose own weights are trained (without weights: outside the frozen prefix),
  // others outside it.
  bool mode(int i) const {
    if ((node(i).op->traits & nnlite::traits::stateful) == 0) return !frozen_prefix(i);
    bool weights = false, trained = false;
    for (int p = 0; p < node(i).n_parameters; p++) {
      weights |= node(i).parameters[p].spec.role != nnlite::Role::statistic;
      trained |= own_trained(i, p);
    }
    return weights ? trained : !frozen_prefix(i) && o_.trainable == nnlite::Trainable::all;
  }
  bool copies(int i, bool training) const {
    const uint32_t t = node(i).op->traits;
    return (t & nnlite::traits::view) != 0 ||
           ((t & nnlite::traits::identity_in_evaluation) != 0 && !(training && mode(i)));
  }

  nnlite::OpRun run_of(int i, bool training) {
    const nnlite::Node& n = node(i);
    nnlite::OpRun r = nnlite::OpRun();
    r.context = &context_, r.attributes = n.attributes, r.out_shape_ = &n.shape, r.rows = rows_;
    r.n_in = n.n_in, r.n_parameters = n.n_parameters, r.training = training, r.workers = 1;
    r.node = static_cast<uint16_t>(i);
    for (int k = 0; k < n.n_in; k++) {
      const int in = n.inputs[k];
      r.in_shapes[k] = &node(in).shape;
      if (node(in).dtype == nnlite::DType::i32) r.in_[k] = labels_.data();
      else r.in_[k] = at(out_, in).data();
    }
    r.out_ = at(out_, i).data();
    for (int p = 0; p < n.n_parameters; p++) r.parameter_[p] = at(values_, n.first_parameter + p).data();
    const nnlite::OpShape s = nnlite::shape_of(g_, i);
    const bool fresh = at(slots_, i).empty();
    for (int k = 0; k < s.n_slots; k++) {
      if (fresh) {
        const int64_t count = s.slots[k].count * (s.slots[k].per_row ? rows_ : 1);
        at(slots_, i).emplace_back(static_cast<size_t>(count) * nnlite::size_of(s.slots[k].dtype));
      }
      r.slot_[k] = at(slots_, i)[static_cast<size_t>(k)].data();
    }
    return r;
  }

  void backward_node(int i) {
    const nnlite::Node& n = node(i);
    if (copies(i, true)) {
      if (node(n.inputs[0]).op && trains(n.inputs[0])) arrive(n.inputs[0], at(grad_, i));
      return;
    }
    nnlite::OpRun r = run_of(i, mode(i));
    r.dy_ = at(grad_, i).empty() ? nullptr : at(grad_, i).data();
    std::vector<std::vector<nnlite::real>> dx(n.n_in), dw(n.n_parameters);
    for (int k = 0; k < n.n_in; k++) {
      const int in = n.inputs[k];
      if (!node(in).op || !trains(in)) continue;
      at(dx, k).resize(static_cast<size_t>(node(in).shape.numel(rows_)));
      r.dx_[k] = at(dx, k).data();
    }
    for (int p = 0; p < n.n_parameters; p++) {
      if (!own_trained(i, p)) continue;
      at(dw, p).resize(static_cast<size_t>(n.parameters[p].stored));
      r.dparameter_[p] = at(dw, p).data();
    }
    n.op->backward(n.attributes, r);
    for (int k = 0; k < n.n_in; k++) if (r.dx_[k]) arrive(n.inputs[k], at(dx, k));
    for (int p = 0; p < n.n_parameters; p++)
      if (r.dparameter_[p]) add(gradients_[static_cast<size_t>(n.first_parameter + p)], at(dw, p));
  }
  void arrive(int to, const std::vector<nnlite::real>& g) { add(at(grad_, to), g); }
  static void add(std::vector<nnlite::real>& to, const std::vector<nnlite::real>& g) {
    if (to.empty()) to = g;
    else for (size_t k = 0; k < g.size(); k++) to[k] += g[k];
  }

  nnlite::Graph g_;
  nnlite::LossNodes loss_;
  nnlite::AnyOp loss_copy_;
  const nnlite::TrainerOptions& o_;
  int rows_;
  nnlite::StepContext context_;
  std::vector<char> trained_at_, untrained_at_, through_loss_;      // at or before a node
  std::vector<std::vector<nnlite::real>> out_, grad_, values_, gradients_;
  std::vector<std::vector<std::vector<unsigned char>>> slots_;
  std::vector<int32_t> labels_;
};

inline GraphRun run_naive(uint64_t seed) {
  using namespace nnlite;
  GraphRun r;
  const std::unique_ptr<Grown> g = grow(seed);
  const Model& model = g->net.model;
  if (!ok(g->net.materialise())) return r.problem = "materialise", r;
  const GraphData data   = data_of(*g, seed, g->batch);
  const TrainerOptions o = options_for(*g, seed);
  Naive naive(model, o, g->batch);
  naive.context().seed = o.seed;
  naive.context().lr   = *static_cast<const float*>(o.optimizer.attributes());
  for (size_t i = 0; i < data.x.size(); i++) naive.set(ModelAccess::input_node(model, int(i)), data.x[i]);
  naive.set_labels(data.labels);
  naive.forward(false);
  for (int i = 0; i < model.output_count(); i++)
    r.outputs.push_back(widen(naive.out(ModelAccess::output_node(model, i))));
  naive.forward(true);
  r.loss = double(naive.out(naive.target() + 1)[0]);
  naive.backward();
  naive.update();
  for (int p = 0; p < model.parameter_count(); p++) {
    r.gradients.push_back(naive.gradient(p));
    r.after.push_back(naive.value(p));
  }
  return r;
}

}  // namespace
#endif
