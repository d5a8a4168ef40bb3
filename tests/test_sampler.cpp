// Which sample comes when, seen through the read function of a data set.
#include <doctest/doctest.h>

#include <algorithm>

#include "engine.hpp"

using namespace nnlite;

namespace {

struct Recorder {
  std::vector<uint32_t> seen;
  Dataset data;
  explicit Recorder(uint32_t count) {
    data.count = count;
    data.user  = this;
    data.read  = [](void* user, uint32_t index, int column, void* row) {
      Recorder& r = *static_cast<Recorder*>(user);
      if (column == 0) r.seen.push_back(index);
      *static_cast<real*>(row) = real(0.01f) * real(index);
      return true;
    };
  }
};

struct Setup {
  Net net;
  TrainerOptions o;
  Setup() {
    net.model.output("y", net.model.add(Linear{0, 1}, net.model.input("x", {1})));
    CHECK(net.model.finish(Seed{1}) == Status::ok);
    o.batch     = 4;
    o.loss      = MSELoss{};
    o.optimizer = SGD{1e-4f};
    o.seed      = 7;
  }
  std::vector<uint32_t> order(uint32_t count, int steps) {
    Recorder r(count);
    PlacedTrainer t(net.model, o);
    CHECK(t.status == Status::ok);
    CHECK(t.it.set_data(r.data) == Status::ok);
    CHECK(t.it.steps(steps) == Status::ok);
    return r.seen;
  }
};

bool is_permutation_of(std::vector<uint32_t> v, uint32_t count) {
  std::sort(v.begin(), v.end());
  bool whole = v.size() == count;
  for (uint32_t i = 0; whole && i < count; i++) whole = v[i] == i;
  return whole;
}

}  // namespace

TEST_CASE("sampler: an epoch draws every sample once, for every count from 1 to 70") {
  Setup s;
  for (uint32_t count = 1; count <= 70; count++) {
    CAPTURE(count);
    const std::vector<uint32_t> order = s.order(count, static_cast<int>((count + 3) / 4) * 2);
    REQUIRE(order.size() == 2 * count);
    CHECK(is_permutation_of({order.begin(), order.begin() + count}, count));
    CHECK(is_permutation_of({order.begin() + count, order.end()}, count));
  }
}

TEST_CASE("sampler: epochs and seeds shuffle differently, one seed always the same, and none when asked") {
  Setup s;
  const std::vector<uint32_t> order = s.order(50, 26), again = s.order(50, 26);
  CHECK(order == again);
  CHECK(!std::equal(order.begin(), order.begin() + 50, order.begin() + 50));
  s.o.seed = 8;
  CHECK(s.order(50, 26) != order);
  s.o.shuffle = false;
  const std::vector<uint32_t> plain = s.order(50, 13);
  for (uint32_t i = 0; i < 50; i++) CHECK(plain[i] == i);
}

TEST_CASE("sampler: places are spread evenly: over 400 seeds each of 20 samples comes first about 20 times") {
  Setup s;
  int first[20] = {};
  for (uint64_t seed = 0; seed < 400; seed++) {
    s.o.seed = seed;
    first[s.order(20, 1)[0]]++;
  }
  for (const int n : first) CHECK((n >= 5 && n <= 40));
}

TEST_CASE("sampler: drop_last leaves the smaller batch out, otherwise it runs as it is") {
  Setup s;
  Recorder r(10);
  PlacedTrainer t(s.net.model, s.o);
  CHECK(t.it.set_data(r.data) == Status::ok);
  CHECK(t.it.steps(3) == Status::ok);
  CHECK(r.seen.size() == 10);
  CHECK(t.it.epoch() == 1);
  CHECK(t.it.epoch_position() == 0);
  s.o.drop_last = true;
  Recorder dropped(10);
  PlacedTrainer u(s.net.model, s.o);
  CHECK(u.it.set_data(dropped.data) == Status::ok);
  CHECK(u.it.steps(2) == Status::ok);
  CHECK(dropped.seen.size() == 8);
  CHECK(u.it.epoch() == 1);
}

TEST_CASE("sampler: columns of u8 and f32 with a scale, and labels of u8 and i32, give the same") {
  Net n;
  n.model.output("y", n.model.add(Linear{0, 3}, n.model.input("x", {2})));
  CHECK(n.model.finish(Seed{1}) == Status::ok);
  const uint8_t bytes[] = {0, 255, 10, 20, 30, 40, 7, 9}, labels[] = {0, 2, 1, 2};
  float floats[8];
  for (int i = 0; i < 8; i++) floats[i] = float(bytes[i]) / 255.0f;
  const int32_t wide[] = {0, 2, 1, 2};
  TrainerOptions o;
  o.batch     = 3;
  o.loss      = CrossEntropyLoss{};
  o.optimizer = SGD{0.1f};
  std::vector<real> results[2];
  for (int k = 0; k < 2; k++) {
    Dataset d;
    d.count = 4;
    d.columns[0] = k == 0 ? Column{bytes, DType::u8, 1.0f, 0.0f} : Column{floats, DType::f32, 255.0f, 0.0f};
    d.columns[1] = k == 0 ? Column{labels, DType::u8, 1.0f, 0.0f} : Column{wide, DType::i32, 1.0f, 0.0f};
    PlacedTrainer t(n.model, o);
    CHECK(t.it.set_data(d) == Status::ok);
    CHECK(t.it.steps(4) == Status::ok);
    results[k] = all_parameters(n.model, t.it);
  }
  for (size_t i = 0; i < results[0].size(); i++)
    CHECK(results[0][i] == doctest::Approx(results[1][i]).epsilon(1e-4));
}
