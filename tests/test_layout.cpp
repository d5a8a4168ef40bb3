// The plan is what is taken, to the byte.
#include <doctest/doctest.h>

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

TEST_CASE("layout: 300 random graphs (seeds 0 to 299) take their plan to the byte; one less is out_of_memory") {
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
}
