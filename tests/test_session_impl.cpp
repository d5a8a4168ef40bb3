// Sessions: rows, batches and places, a trainer's weights, losses, many threads on one model, what is
// refused.
#include <doctest/doctest.h>

#include <cmath>
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

namespace {

// Two convolutions of 3 x 3 that keep derived weights.
struct Wide {
  Net net;
  TrainerOptions train;
  SessionOptions infer;
  std::vector<real>    x = random_values(1, 4 * 8 * 7 * 16);
  std::vector<int32_t> labels = {0, 1, 2, 0};
  Wide() {
    const Tensor in = net.model.input("x", {8, 7, 16});
    net.model.output("y", net.model.chain(in, Conv2d{0, 24, 3, 1, 1}, ReLU{}, Conv2d{0, 17, 3}, ReLU{},
                                          Flatten{}, Linear{0, 3}));
    REQUIRE(net.model.finish(Seed{3}) == Status::ok);
    REQUIRE(net.materialise() == Status::ok);
    train.batch = infer.batch = 4;
    train.loss = infer.loss = CrossEntropyLoss{};
    train.optimizer = SGD{0.1f, 0.9f};
  }
  // Output and loss, of the 4 samples.
  std::vector<real> seen(Session& s) const {
    std::memcpy(s.input_i32(1).data, labels.data(), labels.size() * sizeof(int32_t));
    std::vector<real> y = outputs(s, x, 4);
    y.push_back(s.loss());
    return y;
  }
  // What a session on `t` that was just built sees.
  std::vector<real> fresh(const Trainer& t, const SessionOptions& options) const {
    PlacedSession s(net.model, options);
    s.build(t, options);
    return seen(s.it);
  }
};

}  // namespace

TEST_CASE("session: derived weights are planned to the byte, and only where they are allowed") {
  Wide w;
  SessionOptions off = w.infer;
  off.derived_weights = false;
  PlacedSession with(w.net.model, w.infer), without(w.net.model, off);
  CHECK(with.used == with.plan.total);
  CHECK(without.used == without.plan.total);
  CHECK(without.plan.derived == 0);
  CHECK(with.plan.derived == sizeof(real) * 16 * (2 * (16 * 16 + 16) + 2 * (24 * 16 + 16)));
  const std::vector<real> a = w.seen(with.it), b = w.seen(without.it);
  CHECK(!same_bytes(a, b));
  for (size_t i = 0; i < a.size(); i++) CHECK(std::fabs(double(a[i] - b[i])) < 1e-5);
  CHECK(with.memory.intact());
}

TEST_CASE("session: on a trainer, derived weights follow steps, set and resume, with the trainer's bits") {
  Wide w;
  PlacedTrainer  t(w.net.model, w.train);
  PlacedSession  s(w.net.model, w.infer);
  const Batch    batch(w.x.data(), w.labels.data(), 4);
  s.build(t.it, w.infer);
  REQUIRE(s.status == Status::ok);
  std::vector<std::vector<real>> all;
  for (int step = 0; step < 3; step++) {
    all.push_back(w.seen(s.it));
    CHECK(same_bytes(all.back(), w.fresh(t.it, w.infer)));
    CHECK(t.it.step(batch) == Status::ok);
    CHECK(same_bytes({t.it.loss()}, std::vector<real>{all.back().back()}));
  }
  std::vector<unsigned char> saved;
  const auto append = [](void* user, const void* data, size_t bytes) {
    const unsigned char* p = static_cast<const unsigned char*>(data);
    std::vector<unsigned char>& to = *static_cast<std::vector<unsigned char>*>(user);
    to.insert(to.end(), p, p + bytes);
    return true;
  };
  REQUIRE(save_checkpoint(t.it, Sink{append, &saved}) == Status::ok);
  all.push_back(w.seen(s.it));
  std::vector<real> weights(24 * 16 * 9);
  CHECK(t.it.get(0, weights.data()) == Status::ok);
  for (real& v : weights) v = -v;
  CHECK(t.it.set(0, weights.data()) == Status::ok);
  all.push_back(w.seen(s.it));
  CHECK(same_bytes(all.back(), w.fresh(t.it, w.infer)));
  for (size_t i = 1; i < all.size(); i++) CHECK(!same_bytes(all[i], all[i - 1]));
  REQUIRE(t.it.resume(memory_source(saved.data(), saved.size())) == Status::ok);
  CHECK(same_bytes(w.seen(s.it), all[3]));
}

TEST_CASE("session: derived weights have the same bits on any number of threads, with the same on a trainer") {
  Wide w;
  std::vector<real> seen, trained, direct;
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    w.train.pool = w.infer.pool = &pool;
    for (bool derive : {true, false}) {
      w.train.derived_weights = w.infer.derived_weights = derive;
      PlacedSession s(w.net.model, w.infer);
      PlacedTrainer t(w.net.model, w.train);
      for (int step = 0; step < 3; step++) CHECK(t.it.step(Batch(w.x.data(), w.labels.data(), 4)) == Status::ok);
      const std::vector<real> mine = w.seen(s.it), after = all_parameters(w.net.model, t.it);
      if (!derive) {
        if (direct.empty()) direct = after;
        CHECK(same_bytes(after, direct));
        continue;
      }
      if (seen.empty()) seen = mine, trained = after;
      CHECK(same_bytes(mine, seen));
      CHECK(same_bytes(after, trained));
    }
  }
  CHECK(!same_bytes(trained, direct));
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
