// Draws networks by seed, the same in the float and the double engine: branches, layers used twice, frozen
// layers.
#ifndef NNLITE_TESTS_GRAPHS_HPP
#define NNLITE_TESTS_GRAPHS_HPP

#include "engine.hpp"
#include "graph_run.hpp"

namespace {

struct Grown {
  Net net;
  int  inputs = 0, classes = 0, batch = 0;
  bool dropout = false, mixes = false;
  explicit Grown(size_t bytes) : net(bytes) {}
};

// Grows a network op by op; every op takes any tensor that fits, so that tensors have several readers.
class Grower {
 public:
  Grower(Grown& to, uint64_t seed) : g_(to), m_(to.net.model), random_(seed) {}

  void grow() {
    using namespace nnlite;
    g_.inputs = random_.chance(20) ? 2 : 1;
    for (int i = 0; i < g_.inputs; i++) {
      const int h = 3 + random_.below(6), w = 3 + random_.below(6), c = 1 + random_.below(5);
      keep(m_.input(i == 0 ? "x" : "x2", {h, w, c}), h, w, c);
    }
    const int ops = 3 + random_.below(12);
    for (int i = 0; i < ops; i++) add_one();
    join();
    g_.batch = 1 + random_.below(5);
    (void)m_.finish(Seed{random_.next()});
  }

 private:
  struct Made { nnlite::Tensor t; int h, w, c, readers; };
  struct Layer { nnlite::Tensor made; int in_channels, out_channels; };

  void keep(nnlite::Tensor t, int h, int w, int c) {
    made_.push_back({t, h, w, c, 0});
    if (random_.chance(15)) m_.freeze(t);
  }
  Made& pick() {
    Made& x = made_[static_cast<size_t>(random_.below(static_cast<int>(made_.size())))];
    x.readers++;
    return x;
  }
  // Another tensor of the same size, or the same one; for Concat channels may differ.
  Made other(const Made& x, bool channels) {
    for (int tries = 0; tries < 6; tries++) {
      Made& y = made_[static_cast<size_t>(random_.below(static_cast<int>(made_.size())))];
      if (y.h != x.h || y.w != x.w || (channels && y.c != x.c)) continue;
      y.readers++;
      return y;
    }
    return x;
  }

  void add_conv() {
    using namespace nnlite;
    const Made x = pick();
    const int k = 1 + random_.below(x.h >= 3 && x.w >= 3 ? 3 : 1), stride = 1 + random_.below(2);
    const int padding = random_.below(k / 2 + 1);
    const bool depthwise = random_.chance(25);
    const int out = depthwise ? x.c : 1 + random_.below(20);
    const Conv2d conv{0, out, k, stride, padding, 1, depthwise ? x.c : 1, random_.chance(60)};
    const Tensor y = m_.add(conv, x.t);
    if (stride == 1 && 2 * padding == k - 1) convs_.push_back({y, x.c, out});
    keep(y, (x.h + 2 * padding - k) / stride + 1, (x.w + 2 * padding - k) / stride + 1, out);
  }

  void add_activation() {
    using namespace nnlite;
    const Made x = pick();
    Tensor y;
    switch (random_.below(7)) {
      case 0:  y = m_.add(Sigmoid{}, x.t); break;
      case 1:  y = m_.add(Tanh{}, x.t); break;
      case 2:  y = m_.add(ELU{}, x.t); break;
      case 3:  y = m_.add(LeakyReLU{0.1f}, x.t); break;
      case 4:  y = m_.add(Softmax{}, x.t); break;
      default: y = m_.add(ReLU{}, x.t); break;
    }
    keep(y, x.h, x.w, x.c);
  }

  void add_pair() {
    using namespace nnlite;
    const Made x = pick();
    const int kind = random_.below(3);
    const Made y = other(x, kind < 2);
    if (kind == 0) keep(m_.add(Add{}, x.t, y.t), x.h, x.w, x.c);
    else if (kind == 1) keep(m_.add(Mul{}, x.t, y.t), x.h, x.w, x.c);
    else keep(m_.add(Concat{}, x.t, y.t), x.h, x.w, x.c + y.c);
  }

  void add_resize() {
    using namespace nnlite;
    const Made x = pick();
    if (random_.chance(60) && x.h >= 2 && x.w >= 2) {
      const bool largest = random_.chance(50);
      keep(largest ? m_.add(MaxPool2d{2}, x.t) : m_.add(AvgPool2d{2}, x.t), x.h / 2, x.w / 2, x.c);
    } else if (x.h * x.w <= 64 && random_.chance(50)) {
      keep(m_.add(Upsample{2}, x.t), 2 * x.h, 2 * x.w, x.c);
    } else if (x.h * x.w <= 64) {
      const int out = 1 + random_.below(6);
      keep(m_.add(ConvTranspose2d{0, out, 2, 2}, x.t), 2 * x.h, 2 * x.w, out);
    }
  }

  void add_norm() {
    using namespace nnlite;
    const Made x = pick();
    const bool drop = random_.chance(30);
    g_.dropout |= drop;
    g_.mixes |= !drop;
    if (drop) keep(m_.add(Dropout{0.3f}, x.t), x.h, x.w, x.c);
    else keep(m_.add(BatchNorm2d{0, 1e-5f, 0.1f, random_.chance(80)}, x.t), x.h, x.w, x.c);
  }

  void share_conv() {
    if (convs_.empty()) return;
    const Layer layer = convs_[static_cast<size_t>(random_.below(static_cast<int>(convs_.size())))];
    for (Made& x : made_) {
      if (x.c != layer.in_channels) continue;
      x.readers++;
      const Made at = x;
      const nnlite::Tensor y = m_.share(layer.made, at.t);
      return keep(y, at.h, at.w, layer.out_channels);
    }
  }

  void add_one() {
    const int kind = random_.below(100);
    if (kind < 28) add_conv();
    else if (kind < 48) add_activation();
    else if (kind < 66) add_pair();
    else if (kind < 78) add_resize();
    else if (kind < 90) add_norm();
    else share_conv();
  }

  // Whatever nobody reads yet goes into the head.
  void join() {
    using namespace nnlite;
    std::vector<Tensor> ends;
    for (const Made& x : made_)
      if (x.readers == 0) ends.push_back(m_.chain(x.t, AdaptiveAvgPool2d{1}, Flatten{}));
    Tensor x = ends[0];
    const int count = static_cast<int>(ends.size());
    if (count > 1) x = m_.add_any(nullptr, AnyOp(Concat{1}), ends.data(), count);
    const int wide = 3 + random_.below(20);
    g_.classes = 2 + random_.below(18);
    x = m_.chain(x, Linear{0, wide}, Tanh{});
    if (random_.chance(30)) x = m_.chain(x, Linear{0, wide}, ReLU{});
    m_.output("y", m_.add(Linear{0, g_.classes, random_.chance(80)}, x));
    if (random_.chance(20)) m_.output("aside", pick().t);
  }

  Grown& g_;
  nnlite::Model& m_;
  Draws random_;
  std::vector<Made>  made_;
  std::vector<Layer> convs_;
};

inline std::unique_ptr<Grown> grow(uint64_t seed) {
  std::unique_ptr<Grown> g = std::make_unique<Grown>(size_t(1) << 17);
  Grower(*g, seed).grow();
  return g;
}

// The five optimizers, by number.
inline nnlite::AnyOp optimizer_number(uint64_t i) {
  using namespace nnlite;
  switch (i % 6) {
    case 0:  return SGD{0.05f};
    case 1:  return SGD{0.05f, 0.9f};
    case 2:  return Adam{0.01f};
    case 3:  return AdamW{0.01f};
    case 4:  return RMSprop{0.01f, 0.99f, 1e-8f, 0.0f, 0.9f};
    default: return Adagrad{0.01f};
  }
}

struct GraphData {
  std::vector<std::vector<nnlite::real>> x;
  std::vector<int32_t> labels;
};
inline GraphData data_of(const Grown& g, uint64_t seed, int rows) {
  GraphData d;
  for (int i = 0; i < g.inputs; i++) {
    const int64_t n = g.net.model.input_shape(i).numel(rows);
    d.x.push_back(random_values(seed * 16 + static_cast<uint64_t>(i), static_cast<size_t>(n)));
  }
  d.labels = random_labels(seed * 16 + 7, static_cast<size_t>(rows), g.classes);
  return d;
}

inline nnlite::Batch batch_of(const GraphData& d, int rows) {
  nnlite::Batch b;
  b.rows = rows;
  size_t at = 0;
  for (const auto& x : d.x) b.data[at++] = x.data();
  b.data[at] = d.labels.data();
  return b;
}

inline nnlite::TrainerOptions options_for(const Grown& g, uint64_t seed) {
  nnlite::TrainerOptions o;
  o.batch     = g.batch;
  o.loss      = nnlite::CrossEntropyLoss{};
  o.optimizer = optimizer_number(seed);
  o.seed      = seed;
  if (seed % 7 == 3) o.trainable = nnlite::Trainable::bias;
  if (seed % 7 == 5) o.trainable = nnlite::Trainable::head;
  return o;
}

inline std::vector<double> widen(const std::vector<nnlite::real>& v) { return {v.begin(), v.end()}; }

// One forward without training, then one step of a trainer, of the network of a seed.
inline GraphRun run_engine(uint64_t seed, bool keep_gradients) {
  using namespace nnlite;
  GraphRun r;
  const std::unique_ptr<Grown> g = grow(seed);
  const Model& model   = g->net.model;
  const GraphData data = data_of(*g, seed, g->batch);
  if (!model.finished() || !ok(g->net.materialise())) return r.problem = model.problem().what, r;
  SessionOptions so;
  so.batch = g->batch;
  PlacedSession session(model, so);
  for (int i = 0; i < g->inputs && ok(session.status); i++) {
    const std::vector<real>& x = data.x[static_cast<size_t>(i)];
    std::memcpy(session.it.input(i).data, x.data(), x.size() * sizeof(real));
  }
  if (!ok(session.status) || !ok(session.it.forward(g->batch))) return r.problem = session.problem(), r;
  for (int i = 0; i < model.output_count(); i++) {
    const View<const real> y = session.it.output(i);
    r.outputs.emplace_back(y.data, y.data + y.size());
  }
  TrainerOptions to = options_for(*g, seed);
  to.keep_gradients = keep_gradients;
  PlacedTrainer trainer(model, to);
  if (!ok(trainer.status) || !ok(trainer.it.step(batch_of(data, g->batch)))) {
    return r.problem = trainer.problem(), r;
  }
  r.loss = double(trainer.it.loss());
  for (int p = 0; p < model.parameter_count(); p++) {
    std::vector<real> v(static_cast<size_t>(model.parameter(p).count));
    const bool kept = keep_gradients && ok(trainer.it.get_gradient(p, v.data()));
    r.gradients.push_back(kept ? widen(v) : std::vector<double>());
    r.after.push_back(ok(trainer.it.get(p, v.data())) ? widen(v) : std::vector<double>());
  }
  return r;
}

}  // namespace
#endif
