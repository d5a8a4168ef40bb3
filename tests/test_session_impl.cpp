// Sessions: rows, batches and places, a trainer's weights, losses, many threads on one model, what is
// refused.
#include <doctest/doctest.h>

#include <thread>

#include "graphs.hpp"

using namespace nnlite;

namespace {

struct Small {
  Net net;
  explicit Small(bool weights = true) {
    const Tensor x = net.model.input("x", {6, 6, 3});
    const Tensor y = net.model.chain(x, Conv2d{0, 5, 3}, BatchNorm2d{}, ReLU{}, Flatten{}, Linear{0, 4});
    net.model.output("y", y);
    CHECK(net.model.finish(Seed{3}) == Status::ok);
    if (weights) CHECK(net.materialise() == Status::ok);
  }
};

std::vector<real> outputs(Session& s, const std::vector<real>& x, int rows) {
  std::memcpy(s.input().data, x.data(), x.size() * sizeof(real));
  CHECK(s.forward(rows) == Status::ok);
  const View<const real> y = s.output();
  return {y.data, y.data + y.size()};
}

}  // namespace

TEST_CASE("session: without weights, without build, misaligned and with bad rows it says so") {
  Small bare(false);
  SessionOptions o;
  o.batch = 2;
  PlacedSession none(bare.net.model, o);
  CHECK(none.status == Status::no_weights);
  CHECK(none.memory.untouched());
  CHECK(none.it.forward() == Status::not_built);
  CHECK(std::string(none.it.problem().what) == describe(Status::not_built));
  CHECK(none.it.input().data == nullptr);
  CHECK(none.it.output().data == nullptr);
  Small s;
  PlacedSession fine(s.net.model, o);
  CHECK(fine.it.forward(0) == Status::bad_argument);
  CHECK(fine.it.forward(3) == Status::bad_argument);
  Guarded memory(fine.plan.total + 64);
  Arena   crooked(memory.data() + 4, fine.plan.total + 32);
  Session session;
  CHECK(session.build(s.net.model, o, crooked) == Status::misaligned);
  CHECK(memory.untouched());
  Net unfinished;
  MemoryPlan plan;
  CHECK(Session::plan(unfinished.model, o, plan) == Status::bad_graph);
  o.batch = 0;
  CHECK(Session::plan(s.net.model, o, plan) == Status::bad_argument);
}

TEST_CASE("session: a sample has the same bits in every batch and at every place, in 60 random networks") {
  for (uint64_t seed = 0; seed < 60; seed++) {
    CAPTURE(seed);
    const std::unique_ptr<Grown> g = grow(seed);
    REQUIRE(g->net.materialise() == Status::ok);
    std::vector<real> first;
    for (int batch : {1, 3, 7}) {
      SessionOptions o;
      o.batch = batch;
      PlacedSession s(g->net.model, o);
      REQUIRE(s.status == Status::ok);
      for (int place = 0; place < batch; place++) {
        for (int i = 0; i < g->inputs; i++) {
          const View<real> in = s.it.input(i);
          const std::vector<real> own  = random_values(seed * 8 + uint64_t(i), size_t(in.shape.row_numel()));
          const std::vector<real> rest = random_values(seed + 99, size_t(in.size()));
          std::memcpy(in.data, rest.data(), rest.size() * sizeof(real));
          std::memcpy(in.row(place), own.data(), own.size() * sizeof(real));
        }
        CHECK(s.it.forward(batch) == Status::ok);
        const View<const real> y = s.it.output();
        const std::vector<real> row(y.row(place), y.row(place) + y.shape.row_numel());
        if (first.empty()) first = row;
        CHECK(same_bytes(row, first));
      }
    }
  }
}

TEST_CASE("session: on a trainer it sees the weights of the moment, on the model those of the model") {
  Small s;
  TrainerOptions to;
  to.batch     = 4;
  to.loss      = CrossEntropyLoss{};
  to.optimizer = SGD{0.1f};
  PlacedTrainer t(s.net.model, to);
  SessionOptions so;
  so.batch = 4;
  PlacedSession model(s.net.model, so), trainer(s.net.model, so);
  trainer.build(t.it, so);
  REQUIRE(trainer.status == Status::ok);
  CHECK(trainer.used == trainer.plan.total);
  const std::vector<real> x = random_values(1, 4 * 108);
  const std::vector<int32_t> labels = {0, 1, 2, 3};
  const std::vector<real> before = outputs(model.it, x, 4);
  CHECK(same_bytes(before, outputs(trainer.it, x, 4)));
  CHECK(t.it.step(Batch(x.data(), labels.data(), 4)) == Status::ok);
  const std::vector<real> after = outputs(trainer.it, x, 4);
  CHECK(!same_bytes(before, after));
  CHECK(same_bytes(before, outputs(model.it, x, 4)));
  CHECK(same_bytes(after, outputs(trainer.it, x, 4)));
  std::vector<real> w(5 * 27);
  CHECK(t.it.get(0, w.data()) == Status::ok);
  for (real& v : w) v = 0;
  CHECK(t.it.set(0, w.data()) == Status::ok);
  CHECK(!same_bytes(after, outputs(trainer.it, x, 4)));
}

TEST_CASE("session: with a loss it judges output 0, and refuses bad labels") {
  Small s;
  SessionOptions o;
  o.batch = 2;
  o.loss  = CrossEntropyLoss{};
  PlacedSession p(s.net.model, o);
  REQUIRE(p.status == Status::ok);
  const std::vector<real> x = random_values(1, 2 * 108);
  std::memcpy(p.it.input().data, x.data(), x.size() * sizeof(real));
  REQUIRE(p.it.input_i32(1).data != nullptr);
  CHECK(p.it.input(1).data == nullptr);
  p.it.input_i32(1)[0] = 1;
  p.it.input_i32(1)[1] = 3;
  CHECK(p.it.forward(2) == Status::ok);
  CHECK(p.it.loss() > 0);
  std::memcpy(p.it.input().data, x.data(), x.size() * sizeof(real));
  p.it.input_i32(1)[1] = 4;
  CHECK(p.it.forward(2) == Status::bad_label);
  CHECK(std::string(p.it.problem().what).find("row 1 has 4, allowed are 0 to 3") != std::string::npos);
  std::memcpy(p.it.input().data, x.data(), x.size() * sizeof(real));
  CHECK(p.it.forward(1) == Status::ok);        // row 1 is not there
}

TEST_CASE("session: eight threads with a session each on one model give the bits of one thread") {
  Small s;
  SessionOptions o;
  o.batch = 3;
  const std::vector<real> x = random_values(1, 3 * 108);
  PlacedSession alone(s.net.model, o);
  const std::vector<real> expected = outputs(alone.it, x, 3);
  std::vector<std::unique_ptr<PlacedSession>> sessions;
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (int t = 0; t < 8; t++) sessions.push_back(std::make_unique<PlacedSession>(s.net.model, o));
  for (size_t t = 0; t < 8; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; i++) {
        Session& mine = sessions[t]->it;
        std::memcpy(mine.input().data, x.data(), x.size() * sizeof(real));
        if (!ok(mine.forward(3))) wrong[t]++;
        const View<const real> y = mine.output();
        wrong[t] += std::memcmp(y.data, expected.data(), expected.size() * sizeof(real)) != 0;
      }
    });
  for (std::thread& t : threads) t.join();
  for (const int n : wrong) CHECK(n == 0);
}
