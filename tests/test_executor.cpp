// The list of steps: frozen layers have none in backward, gradients of what is used twice are added up.
// Included by inside.cpp.
#include <doctest/doctest.h>

#include "graphs.hpp"

namespace test_executor {
using namespace nnlite;

// One character a step: f forward, b backward, a add, u update, c commit; with the number of the node.
std::string steps_of(const Trainer& t) {
  std::string all;
  const Engine& e = TrainerAccess::engine(t);
  for (uint32_t i = 0; i < e.step_count; i++) {
    all += "fbauc"[static_cast<int>(e.steps[i].kind)];
    if (e.steps[i].kind != StepKind::add) all += std::to_string(e.steps[i].node);
    all += ' ';
  }
  return all;
}

TrainerOptions options() {
  TrainerOptions o;
  o.loss      = MSELoss{};
  o.optimizer = SGD{0.1f, 0.9f};
  return o;
}

TEST_CASE("executor: each layer is updated as soon as its gradient is there") {
  Net n;                                       // nodes: 0 x, 1 linear, 2 relu, 3 linear, 4 target, 5 loss
  n.model.output("y", n.model.chain(n.model.input("x", {4}), Linear{0, 3}, ReLU{}, Linear{0, 2}));
  REQUIRE(n.model.finish(Seed{1}) == Status::ok);
  PlacedTrainer t(n.model, options());
  std::string steps = steps_of(t.it);
  for (size_t at = steps.find("b3 b3"); at != std::string::npos; at = steps.find("b3 b3")) steps.erase(at, 3);
  CHECK(steps == "f1 f3 f5 b5 b3 u3 b1 u1 ");    // relu is part of both linears, so are weights' updates
  CHECK(t.plan.gradients == 0);
  TrainerOptions o = options();
  o.clip_norm = 1;
  PlacedTrainer clipped(n.model, o);
  CHECK(steps_of(clipped.it).find("b1 u1 u1 u3 u3") != std::string::npos);
  CHECK(clipped.plan.gradients == clipped.plan.weights);
}

TEST_CASE("executor: a frozen prefix has no backward steps and keeps nothing") {
  Net n;
  Tensor x = n.model.input("x", {8, 8, 3});
  const Tensor conv = x = n.model.add(Conv2d{0, 4, 3}, x);
  x = n.model.add(BatchNorm2d{}, x);
  const Tensor norm = x;
  x = n.model.chain(x, ReLU{}, MaxPool2d{2}, Flatten{});
  n.model.freeze(conv);
  n.model.freeze(norm);
  n.model.output("y", n.model.add(Linear{0, 2}, x));
  REQUIRE(n.model.finish(Seed{1}) == Status::ok);
  REQUIRE(n.materialise() == Status::ok);
  PlacedTrainer t(n.model, options());
  const std::string steps = steps_of(t.it);
  CHECK(steps.find("b1") == std::string::npos);
  CHECK(steps.find("b4") == std::string::npos);
  CHECK(steps.find("c") == std::string::npos);
  CHECK(steps.substr(steps.find('b')) == "b8 b6 u6 ");               // the bias; the weight is updated in b6
  const Engine& e = TrainerAccess::engine(t.it);
  for (uint32_t i = 0; i < e.forward_count; i++) {
    const StepRecord& s = e.steps[i];
    if (s.node >= 5) continue;
    CHECK(!s.training);
    Executor run(e);
    OpRun r = OpRun();
    run.rows = 1;
    run.fill(s, r);
    for (int k = 0; k < s.n_slots; k++) CHECK(r.slot(k) == nullptr);
  }
}

TEST_CASE("executor: what becomes part of another step, and what cannot") {
  Net n;                                       // 0 x, 1 conv, 2 norm, 3 relu, 4 conv, 5 add, 6 relu, 7 linear
  Tensor x = n.model.add(Conv2d{0, 4, 3}, n.model.input("x", {8, 8, 3}));
  const Tensor a = n.model.chain(x, BatchNorm2d{}, ReLU{});
  x = n.model.add(Conv2d{0, 4, 3, 1, 1}, a);
  x = n.model.chain(n.model.add(Add{}, x, a), ReLU{}, Flatten{}, Linear{0, 2});
  n.model.output("y", x);
  REQUIRE(n.model.finish(Seed{1}) == Status::ok);
  PlacedTrainer t(n.model, options());
  // relu 3 has two readers: the norm takes its gradient; of relu 6 the add
  std::string steps = steps_of(t.it);
  CHECK(steps.substr(0, steps.find(" b")) == "f1 f2 f4 f5 f8 f10");
  CHECK(steps.find("b3") == std::string::npos);
  CHECK(steps.find("b6") == std::string::npos);
  REQUIRE(n.materialise() == Status::ok);
  AnyOp none;
  MemoryPlan plan;
  REQUIRE(layout_session(n.model, SessionOptions(), none, plan, nullptr, nullptr, nullptr) == Status::ok);
  Guarded memory(plan.total);
  Arena   arena = memory.arena();
  Engine  e;
  REQUIRE(layout_session(n.model, SessionOptions(), none, plan, &arena, &e, nullptr) == Status::ok);
  REQUIRE(e.step_count == 4);                  // in evaluation the norm is part of the convolution, too
  CHECK(e.steps[0].fused == (fusion::norm | fusion::relu));
  CHECK(e.steps[0].norm == 2);
  CHECK(e.steps[2].fused == fusion::relu);
}

TEST_CASE("executor: a ReLU before a max pooling has no backward step, and its output is not kept") {
  const auto bytes = [](const AnyOp& activation, std::string& steps) {
    Net n;                                       // 0 x, 1 conv, 2 activation, 3 pool, 4 flatten, 5 linear
    const Tensor x = n.model.add(Conv2d{0, 4, 3, 1, 1}, n.model.input("x", {16, 16, 3}));
    const Tensor y = n.model.add(activation, x);
    n.model.output("y", n.model.chain(y, MaxPool2d{2}, Flatten{}, Linear{0, 2}));
    REQUIRE(n.model.finish(Seed{1}) == Status::ok);
    TrainerOptions o = options();
    o.batch = 8;
    PlacedTrainer t(n.model, o);
    steps = steps_of(t.it);
    return t.plan.activations;
  };
  std::string with_relu, with_tanh;
  const size_t relu = bytes(ReLU{}, with_relu), tanh = bytes(Tanh{}, with_tanh);
  CHECK(with_tanh.find("b2") != std::string::npos);
  CHECK(with_relu.find("b2") == std::string::npos);
  CHECK(with_relu.find("b3") != std::string::npos);
  CHECK(relu < tanh);
}

// x -> convolution -> norm -> ReLU, once as one step, once with all three to be seen.
template <class Conv>
static std::vector<real> trained_outputs(const Conv& conv, int in, int channels, bool apart) {
  Net n;
  const Tensor a = n.model.add(conv, n.model.input("x", {5, 4, in})), b = n.model.add(BatchNorm2d{}, a);
  n.model.output("y", n.model.add(ReLU{}, b));
  if (apart) n.model.output("b", b), n.model.output("a", a);
  REQUIRE(n.model.finish(Seed{3}) == Status::ok);
  TrainerOptions o = options();
  o.batch = 3;
  PlacedTrainer t(n.model, o);
  std::vector<real> x(static_cast<size_t>(3 * 5 * 4 * in)), target(static_cast<size_t>(3 * 5 * 4 * channels));
  for (size_t i = 0; i < x.size(); i++) x[i] = static_cast<real>((i * 37) % 101) / 50 - 1;
  for (size_t i = 0; i < target.size(); i++) target[i] = static_cast<real>((i * 53) % 89) / 40;
  for (int step = 0; step < 2; step++) REQUIRE(t.it.step(Batch(x.data(), target.data(), 3)) == Status::ok);
  SessionOptions so;
  so.batch = 3;
  PlacedSession s(n.model, so);
  s.build(t.it, so);                                     // the weights that were trained
  REQUIRE(s.status == Status::ok);
  std::memcpy(s.it.input().data, x.data(), x.size() * sizeof(real));
  REQUIRE(s.it.forward(3) == Status::ok);
  return {s.it.output().data, s.it.output().data + s.it.output().size()};
}
TEST_CASE("executor: norm and ReLU in a convolution have the bits of three steps, for any number of channels") {
  const Isa before = current_isa();
  for (int isa = 0; isa < isa_count; isa++) {
    if (!set_isa(Isa(isa))) continue;
    CAPTURE(std::string(isa_name(Isa(isa))));
    for (int c = 1; c <= 104; c += c < 40 ? 1 : 13) {    // 1 .. 40, 53, 66, 79, 92
      CAPTURE(c);
      const auto same = [c](const Conv2d& conv, int in) {
        const std::vector<real> one = trained_outputs(conv, in, c, false), three = trained_outputs(conv, in, c, true);
        REQUIRE(one.size() == three.size());
        CHECK(std::memcmp(one.data(), three.data(), one.size() * sizeof(real)) == 0);
      };
      same(Conv2d{0, c, 3, 1, 1}, 17);                   // Winograd from 16 channels on
      same(Conv2d{0, c, 1}, 3);
      if (c > 1) same(Conv2d{0, c, 3, 1, 1, 1, c}, c);
    }
  }
  CHECK(set_isa(before));
}

TEST_CASE("executor: a norm by the batch alone has memory for its statistics, whether or not it is trained") {
  Net n;
  const Tensor x = n.model.add(Conv2d{3, 4, 1}, n.model.input("x", {6, 5, 3}));
  const Tensor y = n.model.add(BatchNorm2d{0, 1e-5f, 0.1f, false, false}, x);
  n.model.output("y", n.model.chain(y, Flatten{}, Linear{0, 2}));
  n.model.output("norm", y);
  REQUIRE(n.model.finish(Seed{1}) == Status::ok);
  REQUIRE(n.materialise() == Status::ok);
  std::vector<real> in(2 * 6 * 5 * 3), target(4);
  for (size_t i = 0; i < in.size(); i++) in[i] = static_cast<real>((i * 7) % 13);
  SessionOptions so;
  so.batch = 2;
  PlacedSession s(n.model, so);
  REQUIRE(s.status == Status::ok);
  std::memcpy(s.it.input().data, in.data(), in.size() * sizeof(real));
  REQUIRE(s.it.forward(2) == Status::ok);
  const View<const real> norm = s.it.output(1);
  for (int c = 0; c < 4; c++) {
    double sum = 0, squares = 0;
    for (int64_t i = c; i < norm.size(); i += 4) sum += double(norm[i]), squares += double(norm[i]) * double(norm[i]);
    CHECK(sum / 60 == doctest::Approx(0).epsilon(1e-5));
    CHECK(squares / 60 == doctest::Approx(1).epsilon(1e-3));
  }
  CHECK(s.memory.intact());
  for (Trainable which : {Trainable::all, Trainable::head, Trainable::bias}) {
    TrainerOptions o = options();
    o.batch = 2;
    o.trainable = which;
    PlacedTrainer t(n.model, o);
    CHECK(t.it.step(Batch(in.data(), target.data(), 2)) == Status::ok);
    CHECK(t.memory.intact());
  }
}

TEST_CASE("executor: a pool that grows after build does not change what is used") {
  Net n;
  n.model.output("y", n.model.chain(n.model.input("x", {12, 12, 16}), Conv2d{0, 32, 3, 1, 1}, BatchNorm2d{}, ReLU{}));
  REQUIRE(n.model.finish(Seed{1}) == Status::ok);
  REQUIRE(n.materialise() == Status::ok);
  Pool pool;
  pool.run = [](void*, int workers, void (*job)(void*, int), void* context) {
    for (int i = 0; i < workers; i++) job(context, i);
  };
  SessionOptions o;
  o.batch = 3;
  o.pool = &pool;
  PlacedSession s(n.model, o);
  REQUIRE(s.status == Status::ok);
  std::memset(s.it.input().data, 0, static_cast<size_t>(s.it.input().size()) * sizeof(real));
  pool.workers = 7;
  CHECK(s.it.forward(3) == Status::ok);
  CHECK(s.memory.intact());
}

TEST_CASE("executor: gradients of a tensor with two readers and of a layer used twice are added up") {
  Net n;                                       // 1 linear, 2 tanh of it, 3 the same linear on tanh
  const Tensor a = n.model.add(Linear{0, 4}, n.model.input("x", {4}));
  const Tensor b = n.model.add(Tanh{}, a);
  n.model.output("y", n.model.add(Add{}, a, n.model.share(a, b)));
  REQUIRE(n.model.finish(Seed{1}) == Status::ok);
  PlacedTrainer t(n.model, options());
  const std::string steps = steps_of(t.it);
  CHECK(steps.find("a ") != std::string::npos);
  CHECK(steps.substr(steps.size() - 6) == "u1 u1 ");
  CHECK(t.plan.gradients == t.plan.weights);
}

// What a watch is told: a bar where a run of steps begins, then the steps as steps_of writes them.
struct Seen {
  std::string all;
  Watch watch = {see, this};
  static void see(void* user, const StepView* step) {
    std::string& all = static_cast<Seen*>(user)->all;
    if (!step) {
      all += "| ";
      return;
    }
    const StepKind kind = step->kind;
    all += "fbauc"[static_cast<int>(kind)];
    if (kind != StepKind::add) all += std::to_string(step->run.node);
    all += ' ';
    CHECK((step->op == nullptr) == (kind == StepKind::add));
    if (step->op) CHECK(((step->op->traits & traits::optimizer) != 0) == (kind == StepKind::update));
    CHECK((step->count > 0) == (kind == StepKind::add || kind == StepKind::update));
    if (step->kernel && kind == StepKind::forward) CHECK(step->kernel->phase == Phase::forward);
    if (kind == StepKind::forward) CHECK((step->run.rows == 2 && step->run.out() != nullptr));
  }
};

TEST_CASE("executor: a watch sees every step in order, and changes no bit") {
  Net n;
  const Tensor a = n.model.add(Linear{0, 4}, n.model.input("x", {4}));
  const Tensor b = n.model.chain(a, BatchNorm1d{}, Tanh{});
  n.model.output("y", n.model.add(Add{}, a, n.model.share(a, b)));
  REQUIRE(n.model.finish(Seed{1}) == Status::ok);
  TrainerOptions o = options();
  o.batch     = 2;
  o.clip_norm = 1e-3f;
  PlacedTrainer alone(n.model, o), watched(n.model, o);
  Seen seen;
  watched.it.watch(&seen.watch);
  const std::vector<real> x = random_values(1, 8), y = random_values(2, 8);
  for (PlacedTrainer* t : {&alone, &watched})
    for (int i = 0; i < 3; i++) REQUIRE(t->it.step(Batch(x.data(), y.data(), 2)) == Status::ok);
  std::string steps = steps_of(watched.it);
  steps.insert(steps.find('b'), "| ");
  steps.insert(steps.find('u'), "| ");
  CHECK(seen.all == "| " + steps + "| " + steps + "| " + steps);
  CHECK(same_bytes(all_parameters(n.model, alone.it), all_parameters(n.model, watched.it)));
  watched.it.watch(nullptr);
  seen.all.clear();
  REQUIRE(watched.it.step(Batch(x.data(), y.data(), 2)) == Status::ok);
  CHECK(seen.all == "");

  SessionOptions session_options;
  session_options.batch = 2;
  PlacedSession session(n.model, session_options);
  session.build(watched.it, session_options);
  session.it.watch(&seen.watch);
  REQUIRE(session.it.forward(2) == Status::ok);
  CHECK(seen.all.substr(0, 4) == "| f1");
}

}  // namespace test_executor
