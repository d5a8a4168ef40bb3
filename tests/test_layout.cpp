// The plan is what is taken, to the byte.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>

#include "../tools/reference.hpp"
#include "graphs.hpp"

using namespace nnlite;

namespace {

size_t sum_of_classes(const MemoryPlan& p) {
  return p.weights + p.gradients + p.optimizer + p.activations + p.state + p.derived + p.scratch;
}

// One byte less is out_of_memory, and nothing was written.
template <class Built, class Options>
void one_byte_less(const Model& model, const Options& options, const MemoryPlan& plan) {
  Guarded memory(plan.total);
  Arena  arena(memory.data(), plan.total - 1);
  Built  it;
  CHECK(it.build(model, options, arena) == Status::out_of_memory);
  CHECK(it.problem().status == Status::out_of_memory);
  CHECK(arena.used() == 0);
  CHECK(memory.untouched());
}

void check_training(const Grown& g, uint64_t seed, double& worst) {
  TrainerOptions o = options_for(g, seed);
  if (seed % 5 == 1) o.clip_norm = 0.5f;
  if (seed % 5 == 2) o.keep_gradients = true;
  PlacedTrainer t(g.net.model, o);
  REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
  CHECK(t.used == t.plan.total);
  CHECK(sum_of_classes(t.plan) == t.plan.total);
  CHECK(t.plan.lower_bound <= t.plan.total - t.plan.scratch);
  const GraphData data = data_of(g, seed, g.batch);
  for (int step = 0; step < 2; step++) CHECK(t.it.step(batch_of(data, g.batch)) == Status::ok);
  CHECK(t.memory.intact());
  worst = std::max(worst, double(t.plan.total - t.plan.scratch) / double(t.plan.lower_bound));
  one_byte_less<Trainer>(g.net.model, o, t.plan);
}

void check_inference(const Grown& g, uint64_t seed, double& worst) {
  SessionOptions o;
  o.batch = g.batch;
  PlacedSession s(g.net.model, o);
  REQUIRE_MESSAGE(s.status == Status::ok, s.problem());
  CHECK(s.used == s.plan.total);
  CHECK(sum_of_classes(s.plan) == s.plan.total);
  const GraphData data = data_of(g, seed, g.batch);
  for (size_t i = 0; i < data.x.size(); i++)
    std::memcpy(s.it.input(int(i)).data, data.x[i].data(), data.x[i].size() * sizeof(real));
  CHECK(s.it.forward(g.batch) == Status::ok);
  CHECK(s.memory.intact());
  worst = std::max(worst, double(s.plan.total - s.plan.scratch) / double(s.plan.lower_bound));
  one_byte_less<Session>(g.net.model, o, s.plan);
}

}  // namespace

TEST_CASE("layout: 300 random graphs (seeds 0 to 299) take the plan to the byte, one less is out_of_memory") {
  double training = 0, inference = 0;
  for (uint64_t seed = 0; seed < 300; seed++) {
    CAPTURE(seed);
    const std::unique_ptr<Grown> g = grow(seed);
    REQUIRE_MESSAGE(g->net.model.finished(), g->net.model.problem().where, " ", g->net.model.problem().what);
    REQUIRE(g->net.materialise() == Status::ok);
    check_training(*g, seed, training);
    check_inference(*g, seed, inference);
  }
  MESSAGE("largest (total - scratch) / lower bound: training ", training, ", inference ", inference);
  CHECK(training <= 1.05);
  CHECK(inference <= 1.13);
}

namespace {

std::unique_ptr<Net> build_reference(const reference::Named& named) {
  std::unique_ptr<Net> net = std::make_unique<Net>(size_t(1) << 17);
  const Tensor x = net->model.input("image", named.input);
  net->model.output("logits", named.build(net->model, x, named.classes));
  CHECK(net->model.finish(Seed{1}) == Status::ok);
  return net;
}

const reference::Named& named(const std::string& name) {
  for (const reference::Named& n : reference::networks) if (name == n.name) return n;
  return reference::networks[0];
}

TrainerOptions training_of(const reference::Named& n, int batch) {
  TrainerOptions o;
  o.batch     = batch;
  o.loss      = n.classes > 0 ? AnyOp(CrossEntropyLoss{}) : AnyOp(BCEWithLogitsLoss{});
  o.optimizer = SGD{0.01f, 0.9f};
  return o;
}

double ratio(const MemoryPlan& p) { return double(p.total - p.scratch) / double(p.lower_bound); }

}  // namespace

TEST_CASE("layout: reference networks have PyTorch's parameter counts, at most 1.05 of the lower bound") {
  std::printf("%-8s %5s  %12s %10s %6s | %12s %10s %6s\n", "", "batch", "infer bytes", "scratch", "ratio",
              "train bytes", "scratch", "ratio");
  for (const reference::Named& n : reference::networks) {
    CAPTURE(n.name);
    const std::unique_ptr<Net> net = build_reference(n);
    CHECK(net->model.parameter_elements() == n.parameters);
    for (int batch : {1, 4, 32}) {
      SessionOptions so;
      so.batch = batch;
      MemoryPlan infer, train;
      CHECK(Session::plan(net->model, so, infer) == Status::ok);
      CHECK(Trainer::plan(net->model, training_of(n, batch), train) == Status::ok);
      CHECK(ratio(infer) <= 1.05);
      CHECK(ratio(train) <= 1.05);
      std::printf("%-8s %5d  %12zu %10zu %6.3f | %12zu %10zu %6.3f\n", n.name, batch, infer.total,
                  infer.scratch, ratio(infer), train.total, train.scratch, ratio(train));
    }
  }
}

TEST_CASE("layout: all but the last layer frozen, cnn99 and resnet8 need little more than inference") {
  for (const char* name : {"cnn99", "resnet8"}) {
    const std::unique_ptr<Net> net = build_reference(named(name));
    TrainerOptions o = training_of(named(name), 32);
    MemoryPlan all, head, infer;
    CHECK(Trainer::plan(net->model, o, all) == Status::ok);
    o.trainable = Trainable::head;
    CHECK(Trainer::plan(net->model, o, head) == Status::ok);
    SessionOptions so;
    so.batch = 32;
    CHECK(Session::plan(net->model, so, infer) == Status::ok);
    CHECK(head.total < all.total / 2);
    CHECK(head.activations <= infer.activations + 32 * 1024);    // what inference needs, and the head's own
    CHECK(head.optimizer < 16 * 1024);
    std::printf("%-8s B=32 total bytes: all %zu, last layer %zu (inference %zu)\n", name, all.total,
                head.total, infer.total);
  }
}

TEST_CASE("layout: bytes depend on the number of threads in scratch alone, never on the instruction set") {
  const Isa before = current_isa();
  for (const char* name : {"lenet", "resnet8"}) {
    const std::unique_ptr<Net> net = build_reference(named(name));
    for (int workers : {1, 3}) {
      Pool pool;
      pool.workers = workers;
      TrainerOptions o = training_of(named(name), 8);
      SessionOptions so;
      MemoryPlan alone, first, session;
      CHECK(Trainer::plan(net->model, o, alone) == Status::ok);
      CHECK(Session::plan(net->model, so, session) == Status::ok);
      o.pool = so.pool = &pool;
      bool any = false;
      for (int i = 0; i < isa_count; i++) {
        if (!set_isa(static_cast<Isa>(i))) continue;
        MemoryPlan plan;
        CHECK(Trainer::plan(net->model, o, plan) == Status::ok);
        CHECK(plan.total - plan.scratch == alone.total - alone.scratch);
        if (any) CHECK(plan.total == first.total);
        else first = plan;
        any = true;
        CHECK(Session::plan(net->model, so, plan) == Status::ok);
        CHECK(plan.total - plan.scratch == session.total - session.scratch);
        CHECK((plan.derived > 0) == (std::string(name) == "resnet8"));
      }
    }
  }
  CHECK(set_isa(before));
}
