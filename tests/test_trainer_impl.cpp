// Trainers: what a failed step may not change, partial batches, frozen sets, clipping, rates, and what is
// refused.
#include <doctest/doctest.h>

#include <cfenv>
#include <cmath>

#include "graphs.hpp"

using namespace nnlite;

namespace {

// Convolution, batch norm, dropout, linear on 6 x 6 x 2, 3 classes.
struct Small {
  Net net;
  TrainerOptions o;
  Tensor conv, norm;
  explicit Small(bool dropout = true, bool norms = true) {
    Tensor x = net.model.input("x", {6, 6, 2});
    conv = x = net.model.add("conv", Conv2d{0, 4, 3}, x);
    if (norms) norm = x = net.model.add("norm", BatchNorm2d{}, x);
    x = net.model.add(ReLU{}, x);
    if (dropout) x = net.model.add(Dropout{0.4f}, x);
    net.model.output("y", net.model.chain(x, Flatten{}, Linear{0, 3}));
    o.batch     = 5;
    o.loss      = CrossEntropyLoss{};
    o.optimizer = Adam{0.01f};
  }
  void finish() {
    CHECK(net.model.finish(Seed{3}) == Status::ok);
    CHECK(net.materialise() == Status::ok);
  }
};

const std::vector<real>    xs     = random_values(1, 40 * 72);
const std::vector<int32_t> labels = random_labels(2, 40, 3);
Batch rows_of(int first, int rows) { return Batch(xs.data() + first * 72, labels.data() + first, rows); }

// Everything of a trainer that outlives a step: records, parameters, statistics, optimizer state; and its
// position.
struct Kept {
  std::vector<unsigned char> bytes;
  uint64_t step;
  uint32_t epoch, position;
  explicit Kept(const PlacedTrainer& t)
      : bytes(t.memory.data(), t.memory.data() + (t.plan.total - t.plan.activations - t.plan.scratch)),
        step(t.it.step_number()), epoch(t.it.epoch()), position(t.it.epoch_position()) {}
  bool operator==(const Kept& k) const {
    return bytes == k.bytes && step == k.step && epoch == k.epoch && position == k.position;
  }
};

}  // namespace

TEST_CASE("trainer: a bad label or a loss that is not finite changes no byte and no position, and is named") {
  Small s;
  s.finish();
  PlacedTrainer t(s.net.model, s.o);
  Dataset d;
  std::vector<real>    x = xs;
  std::vector<int32_t> l = labels;
  d.count = 40;
  d.columns[0].data = x.data();
  d.columns[1] = Column{l.data(), DType::i32, 1.0f, 0.0f};
  REQUIRE(t.it.set_data(d) == Status::ok);
  REQUIRE(t.it.steps(3) == Status::ok);
  const Kept before(t);
  const real last_loss = t.it.loss();
  for (int32_t& v : l) v = 3;
  CHECK(t.it.step() == Status::bad_label);
  CHECK(Kept(t) == before);
  CHECK(std::string(t.it.problem().where) == "target");
  l = labels;
  for (real& v : x) v = real(NAN);
  CHECK(t.it.step() == Status::not_finite);
  CHECK(Kept(t) == before);
  CHECK(std::string(t.it.problem().where) == "x");
  CHECK(t.it.steps(2) == Status::not_finite);
  CHECK(Kept(t) == before);
  CHECK(t.it.loss() == last_loss);
  x = xs;
  PlacedTrainer straight(s.net.model, s.o);    // goes on as if nothing had been
  CHECK(straight.it.set_data(d) == Status::ok);
  CHECK(straight.it.steps(5) == Status::ok);
  CHECK(t.it.steps(2) == Status::ok);
  CHECK(same_bytes(all_parameters(s.net.model, t.it), all_parameters(s.net.model, straight.it)));
}

TEST_CASE("trainer: the layer where a value first became infinite is named") {
  Small s(false);
  s.finish();
  PlacedTrainer t(s.net.model, s.o);
  std::vector<real> w(4 * 2 * 9, real(3e38f));
  REQUIRE(t.it.set(s.net.model.find_parameter("conv.weight"), w.data()) == Status::ok);
  const Kept before(t);
  CHECK(t.it.step(rows_of(0, 5)) == Status::not_finite);
  CHECK(std::string(t.it.problem().where) == "conv");
  CHECK(Kept(t) == before);
}

TEST_CASE("trainer: the layer is named even where forward used the memory of its inputs") {
  Net n;
  Tensor x = n.model.input("x", {6, 6, 2});
  x = n.model.add("first", Conv2d{0, 2, 1}, x);
  n.model.freeze(x);
  x = n.model.add("second", Conv2d{0, 2, 1}, n.model.add(Tanh{}, x));
  n.model.output("y", n.model.chain(x, ReLU{}, Flatten{}, Linear{0, 3}));
  CHECK(n.model.finish(Seed{3}) == Status::ok);
  CHECK(n.materialise() == Status::ok);
  TrainerOptions o;
  o.batch     = 5;
  o.loss      = CrossEntropyLoss{};
  o.optimizer = SGD{0.1f};
  PlacedTrainer t(n.model, o);
  const std::vector<real> huge(4, real(3e38f)), two(2, real(3e38f));
  REQUIRE(t.it.set(n.model.find_parameter("second.weight"), huge.data()) == Status::ok);
  REQUIRE(t.it.set(n.model.find_parameter("second.bias"), two.data()) == Status::ok);
  CHECK(t.it.step(rows_of(0, 5)) == Status::not_finite);
  CHECK(std::string(t.it.problem().where) == "second");
}

TEST_CASE("trainer: a partial batch is the mean over its rows, bit by bit as if built for that size") {
  Small s;
  s.finish();
  for (int rows = 1; rows <= 5; rows++) {
    PlacedTrainer large(s.net.model, s.o);
    TrainerOptions o = s.o;
    o.batch = rows;
    PlacedTrainer exact(s.net.model, o);
    for (int step = 0; step < 3; step++) {
      CHECK(large.it.step(rows_of(step, rows)) == Status::ok);
      CHECK(exact.it.step(rows_of(step, rows)) == Status::ok);
      CHECK(large.it.loss() == exact.it.loss());
    }
    CHECK(same_bytes(all_parameters(s.net.model, large.it), all_parameters(s.net.model, exact.it)));
    CHECK(large.memory.intact());
  }
}

TEST_CASE("trainer: frozen layers cost no gradient and do not change; batch norm keeps its statistics") {
  Small all, some;
  some.net.model.freeze(some.conv);
  some.net.model.freeze(some.norm);
  all.finish();
  some.finish();
  PlacedTrainer a(all.net.model, all.o), b(some.net.model, some.o);
  CHECK(b.plan.total < a.plan.total);
  CHECK(b.plan.weights < a.plan.weights);
  CHECK(b.plan.optimizer == 2 * b.plan.weights);
  CHECK(b.plan.in_place > 0);
  const std::vector<real> before = all_parameters(some.net.model, b.it);
  CHECK(a.it.step(rows_of(0, 5)) == Status::ok);
  CHECK(b.it.step(rows_of(0, 5)) == Status::ok);
  const std::vector<real> after = all_parameters(some.net.model, b.it);
  const size_t frozen = 4 * 2 * 9 + 4 + 4 * 4;
  CHECK(std::memcmp(before.data(), after.data(), frozen * sizeof(real)) == 0);
  CHECK(before[frozen] != after[frozen]);
  CHECK(!b.it.is_trained(0));
  CHECK(b.it.is_trained(some.net.model.find_parameter("linear_1.weight")));
  for (const real v : after) CHECK(std::isfinite(double(v)));
}

TEST_CASE("trainer: a frozen prefix runs as in evaluation: the loss is that of a session") {
  Small s;
  s.finish();
  s.o.trainable = Trainable::head;
  PlacedTrainer t(s.net.model, s.o);
  SessionOptions so;
  so.batch = 5;
  so.loss  = CrossEntropyLoss{};
  PlacedSession session(s.net.model, so);
  std::memcpy(session.it.input().data, xs.data(), 5 * 72 * sizeof(real));
  std::memcpy(session.it.input_i32(1).data, labels.data(), 5 * sizeof(int32_t));
  CHECK(session.it.forward(5) == Status::ok);
  CHECK(t.it.step(rows_of(0, 5)) == Status::ok);
  CHECK(t.it.loss() == session.it.loss());
}

TEST_CASE("trainer: biases alone, and parameters by name") {
  Small s;
  s.finish();
  s.o.trainable = Trainable::bias;
  PlacedTrainer bias(s.net.model, s.o);
  const char* const names[] = {"conv", "linear_1.bias"};
  s.o.trainable  = Trainable::named;
  s.o.names      = names;
  s.o.name_count = 2;
  PlacedTrainer named(s.net.model, s.o);
  for (int p = 0; p < s.net.model.parameter_count(); p++) {
    const ParameterInfo info = s.net.model.parameter(p);
    const std::string name = info.name;
    CAPTURE(name);
    CHECK(bias.it.is_trained(p) == (info.role == Role::bias));
    CHECK(named.it.is_trained(p) == (name.rfind("conv.", 0) == 0 || name == "linear_1.bias"));
  }
  CHECK(bias.it.step(rows_of(0, 5)) == Status::ok);
  CHECK(named.it.step(rows_of(0, 5)) == Status::ok);
}

TEST_CASE("trainer: clip_norm scales all gradients to the norm, clip_value bounds each") {
  Small s(false);
  s.finish();
  s.o.optimizer = SGD{1.0f};
  s.o.keep_gradients = true;
  PlacedTrainer plain(s.net.model, s.o);
  s.o.clip_norm = 0.125f;
  PlacedTrainer norm(s.net.model, s.o);
  s.o.clip_norm  = 0;
  s.o.clip_value = 0.01f;
  PlacedTrainer value(s.net.model, s.o);
  const std::vector<real> start = all_parameters(s.net.model, plain.it);
  double squares = 0;
  for (PlacedTrainer* t : {&plain, &norm, &value}) CHECK(t->it.step(rows_of(0, 5)) == Status::ok);
  size_t at = 0;
  for (int p = 0; p < s.net.model.parameter_count(); p++) {
    std::vector<real> g(size_t(s.net.model.parameter(p).count));
    if (ok(plain.it.get_gradient(p, g.data())))
      for (const real v : g) squares += double(v) * double(v);
  }
  const double size = std::sqrt(squares);
  CHECK(double(norm.it.gradient_norm()) == doctest::Approx(size));
  REQUIRE(size > 0.125);
  const auto a = all_parameters(s.net.model, norm.it), b = all_parameters(s.net.model, value.it);
  for (int p = 0; p < s.net.model.parameter_count(); p++) {
    std::vector<real> g(size_t(s.net.model.parameter(p).count));
    const bool trained = ok(plain.it.get_gradient(p, g.data()));
    for (const real v : g) {
      if (trained) {
        const double scaled = double(v) * 0.125 / size;
        CHECK(double(start[at] - a[at]) == doctest::Approx(scaled).epsilon(1e-3).scale(0.01));
        const double clipped = std::fmax(-0.01, std::fmin(0.01, double(v)));
        CHECK(double(start[at] - b[at]) == doctest::Approx(clipped).epsilon(1e-3).scale(0.01));
      }
      at++;
    }
  }
}

TEST_CASE("trainer: steps(n) is n steps; a batch of one's own is a step; threads change no bit") {
  Small s;
  s.finish();
  Dataset d;
  d.count = 40;
  d.columns[0].data = xs.data();
  d.columns[1] = Column{labels.data(), DType::i32, 1.0f, 0.0f};
  s.o.shuffle = false;
  PlacedTrainer one(s.net.model, s.o), many(s.net.model, s.o), own(s.net.model, s.o);
  ThreadPool pool(3);
  s.o.pool = &pool;
  PlacedTrainer pooled(s.net.model, s.o);
  for (PlacedTrainer* t : {&one, &many, &pooled}) CHECK(t->it.set_data(d) == Status::ok);
  for (int i = 0; i < 8; i++) {
    CHECK(one.it.step() == Status::ok);
    CHECK(own.it.step(rows_of(5 * i, 5)) == Status::ok);
  }
  CHECK(many.it.steps(8) == Status::ok);
  CHECK(pooled.it.steps(8) == Status::ok);
  const std::vector<real> expected = all_parameters(s.net.model, one.it);
  CHECK(one.it.epoch() == 1);
  for (PlacedTrainer* t : {&many, &own, &pooled})
    CHECK(same_bytes(all_parameters(s.net.model, t->it), expected));
}

TEST_CASE("trainer: the rounding mode of the caller changes no bit and is left as it was") {
  std::vector<real> results[2];
  for (int k = 0; k < 2; k++) {
    if (k == 1) std::fesetround(FE_UPWARD);
    Small s;
    s.finish();
    s.o.clip_norm = 0.1f;
    s.o.schedule  = CosineAnnealingLR{7};
    PlacedTrainer t(s.net.model, s.o);
    Dataset d;
    d.count = 40;
    d.columns[0] = Column{xs.data(), DType::f32, 0.3f, 0.1f};
    d.columns[1] = Column{labels.data(), DType::i32, 1.0f, 0.0f};
    CHECK(t.it.set_data(d) == Status::ok);
    CHECK(t.it.steps(20) == Status::ok);
    results[k] = all_parameters(s.net.model, t.it);
    CHECK(std::fegetround() == (k == 1 ? FE_UPWARD : FE_TONEAREST));
    std::fesetround(FE_TONEAREST);
  }
  CHECK(same_bytes(results[0], results[1]));
}

TEST_CASE("trainer: without weights it makes those of the seed; frozen ones it needs from the model") {
  Small with, without;
  with.finish();
  CHECK(without.net.model.finish(Seed{3}) == Status::ok);
  PlacedTrainer a(with.net.model, with.o), b(without.net.model, without.o);
  CHECK(a.it.step(rows_of(0, 5)) == Status::ok);
  CHECK(b.it.step(rows_of(0, 5)) == Status::ok);
  CHECK(same_bytes(all_parameters(with.net.model, a.it), all_parameters(without.net.model, b.it)));
  without.o.trainable = Trainable::head;
  PlacedTrainer c(without.net.model, without.o);
  CHECK(c.status == Status::no_weights);
  CHECK(c.it.step(rows_of(0, 5)) == Status::not_built);
}

TEST_CASE("trainer: what is missing or out of range is refused by name") {
  Small s;
  s.finish();
  MemoryPlan plan;
  TrainerOptions o = s.o;
  o.loss = AnyOp();
  CHECK(Trainer::plan(s.net.model, o, plan) == Status::no_loss);
  o = s.o;
  o.loss = ReLU{};
  CHECK(Trainer::plan(s.net.model, o, plan) == Status::no_loss);
  o = s.o;
  o.optimizer = AnyOp();
  CHECK(Trainer::plan(s.net.model, o, plan) == Status::bad_argument);
  o.optimizer = SGD{-1.0f};
  CHECK(!ok(Trainer::plan(s.net.model, o, plan)));
  o = s.o;
  o.batch = 0;
  CHECK(Trainer::plan(s.net.model, o, plan) == Status::bad_argument);
  Trainer nothing;
  CHECK(nothing.step() == Status::not_built);
  CHECK(nothing.step(rows_of(0, 5)) == Status::not_built);
  CHECK(std::string(nothing.problem().what) == describe(Status::not_built));
  PlacedTrainer t(s.net.model, s.o);
  CHECK(t.it.step() == Status::no_data);
  CHECK(t.it.step(rows_of(0, 6)) == Status::bad_argument);
  CHECK(t.it.step(Batch(xs.data(), nullptr, 5)) == Status::no_data);
  Dataset d;
  CHECK(t.it.set_data(d) == Status::no_data);
  d.count = 5;
  CHECK(t.it.set_data(d) == Status::bad_shape);
}

TEST_CASE("trainer: a Linear weight updated by pieces of its gradient has the bits of one updated by all of it") {
  struct Reverse {
    static void run(void*, int workers, void (*job)(void*, int), void* context) {
      for (int i = workers; i-- > 0;) job(context, i);
    }
  };
  RMSprop rms;
  rms.momentum = 0.5f;
  const AnyOp optimizers[] = {SGD{0.05f}, SGD{0.05f, 0.9f, 0.1f, 0.01f}, Adam{0.01f}, Adagrad{0.02f}, rms};
  ThreadPool  two(2), three(3);
  Pool backwards;
  backwards.workers = 5;
  backwards.run = Reverse::run;
  Pool* const pools[] = {nullptr, &two, &three, &backwards};
  struct { int in, hidden, out, batch; } const shapes[] = {
      {57, 17, 1, 1}, {57, 17, 3, 63}, {56, 33, 48, 2}, {113, 48, 5, 1}, {112, 130, 200, 3}, {7, 200, 33, 1}};
  for (const auto& s : shapes) for (const AnyOp& optimizer : optimizers) {
    std::vector<real> expected;
    for (const bool whole : {true, false}) for (Pool* pool : pools) {
      Net net;
      net.model.output("y", net.model.chain(net.model.input("x", {s.in}), Linear{0, s.hidden}, ReLU{},
                                            Linear{0, s.hidden, false}, ReLU{}, Linear{0, s.out}));
      CHECK(net.model.finish(Seed{7}) == Status::ok);
      CHECK(net.materialise() == Status::ok);
      const int count = 2 * s.batch + (s.batch + 1) / 2;             // the last batch is smaller
      const std::vector<real> x = random_values(3, size_t(count) * size_t(s.in)),
                              y = random_values(4, size_t(count) * size_t(s.out));
      Dataset data;
      data.count = uint32_t(count);
      data.columns[0].data = x.data(), data.columns[1].data = y.data();
      TrainerOptions o;
      o.batch = s.batch, o.loss = MSELoss{}, o.optimizer = optimizer;
      o.pool = pool, o.keep_gradients = whole, o.epochs = 9;
      PlacedTrainer t(net.model, o);
      REQUIRE(t.status == Status::ok);
      CHECK((t.plan.gradients > 0) == whole);
      CHECK(t.it.set_data(data) == Status::ok);
      CHECK(t.it.steps(7) == Status::ok);
      CHECK(t.memory.intact());
      const std::vector<real> got = all_parameters(net.model, t.it);
      if (expected.empty()) expected = got;
      CHECK(same_bytes(got, expected));
    }
  }
}
