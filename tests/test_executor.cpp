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
