// Changes to pictures: by hand, and as the trainer's sampler makes them.
#include <doctest/doctest.h>

#include <cmath>

#include "engine.hpp"

namespace test_augment {
using namespace nnlite;
using Values = std::vector<real>;

// No change; then what a test sets.
static Change still() { return Change(Augment(), 0, 0, 0); }

static Values warped(const Values& picture, int H, int W, int C, const Change& change, real background = 0) {
  const Canvas<const real*> from = {picture.data(), H, W, C, background};
  Values to;
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++)
      for (int c = 0; c < C; c++) {
        const Change::Place row = change.row(H, W, y);
        to.push_back(sampled(from, {row.x + change.m[0] * x, row.y + change.m[2] * x}, c));
      }
  return to;
}
static Values thickened(const Values& picture, int H, int W, real by, real background = 0) {
  const Canvas<const real*> from = {picture.data(), H, W, 1, background};
  Values to;
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++) to.push_back(nnlite::thickened(from, by, x, y));
  return to;
}

TEST_CASE("augment: without ranges nothing changes") {
  const Values picture = random_values(3, 5 * 7 * 2);
  CHECK(warped(picture, 5, 7, 2, still()) == picture);
  CHECK(still().thicker == 0);
}

TEST_CASE("augment: a quarter turn, a move and half a pixel, by hand") {
  Change turn = still();
  turn.m[0] = turn.m[3] = 0;
  turn.m[1] = -65536;
  turn.m[2] = 65536;
  CHECK(warped({1, 2, 3, 4, 5, 6, 7, 8, 9}, 3, 3, 1, turn) == Values{3, 6, 9, 2, 5, 8, 1, 4, 7});
  CHECK(warped({1, 2, 3, 4}, 2, 2, 1, turn) == Values{2, 4, 1, 3});
  Change move = still();
  move.by[0] = 65536;
  move.by[1] = -65536;
  CHECK(warped({1, 2, 3, 4, 5, 6}, 2, 3, 1, move, 9) == Values{9, 9, 9, 2, 3, 9});
  Change half = still();
  half.by[0] = 32768;
  CHECK(warped({1, 2, 3, 5, 5, 9}, 1, 3, 2, half, 1) == Values{2, 3.5, 4, 7, 3, 5});
  half.by[1] = 32768;
  CHECK(warped({4, 8, 12, 16}, 2, 2, 1, half) == Values{10, 6, 7, 4});
}

TEST_CASE("augment: twice as large, and slanted") {
  Change large = still();
  large.m[0] = large.m[3] = 32768;
  CHECK(warped({0, 0, 0, 0, 0, 4, 8, 0, 0, 4, 8, 0, 0, 0, 0, 0}, 4, 4, 1, large) ==
        Values{2.25, 3.75, 5.25, 4.5, 3, 5, 7, 6, 3, 5, 7, 6, 2.25, 3.75, 5.25, 4.5});
  Change slant = still();
  slant.m[1] = 65536;                                        // x looks by y - 1 to the right
  CHECK(warped({1, 2, 3, 4, 5, 6, 7, 8, 9}, 3, 3, 1, slant) == Values{0, 1, 2, 4, 5, 6, 8, 9, 0});
}

TEST_CASE("augment: strokes grow and shrink by a share of a pixel") {
  const Values dot = {0, 0, 0, 0, 8, 0, 0, 0, 0}, hole = {8, 8, 8, 8, 0, 8, 8, 8, 8};
  CHECK(thickened(dot, 3, 3, 1) == Values{0, 8, 0, 8, 8, 8, 0, 8, 0});
  CHECK(thickened(dot, 3, 3, 0.25f) == Values{0, 2, 0, 2, 8, 2, 0, 2, 0});
  CHECK(thickened(dot, 3, 3, -0.5f) == Values{0, 0, 0, 0, 4, 0, 0, 0, 0});
  CHECK(thickened(hole, 3, 3, -1, 8) == Values{8, 0, 8, 0, 0, 0, 8, 0, 8});
}

TEST_CASE("augment: draws fill their ranges evenly, and every sample and epoch has its own") {
  Augment a;
  a.degrees = 15;
  a.scale   = 0.2f;
  a.shear   = 0.1f;
  a.shift   = 2;
  a.thinner = 0.25f;
  a.thicker = 0.75f;
  double low[6], high[6], sum[6] = {};
  for (int k = 0; k < 6; k++) low[k] = 1e9, high[k] = -1e9;
  const int n = 4000;
  for (int i = 0; i < n; i++) {
    const Change c(a, 1, uint32_t(i % 40), uint32_t(i / 40));
    const double m0 = double(c.m[0]) / 65536, m1 = double(c.m[1]) / 65536, m2 = double(c.m[2]) / 65536,
                 m3 = double(c.m[3]) / 65536;
    const double v[6] = {std::atan2(m2, m0) * 180 / 3.14159265358979, 1 / std::hypot(m0, m2),
                         (m0 * m1 + m2 * m3) / (m0 * m0 + m2 * m2), double(c.by[0]) / 65536,
                         double(c.by[1]) / 65536, double(c.thicker)};
    for (int k = 0; k < 6; k++) low[k] = std::min(low[k], v[k]), high[k] = std::max(high[k], v[k]), sum[k] += v[k] / n;
  }
  const double from[6] = {-15, 0.8, -0.1, -2, -2, -0.25}, to[6] = {15, 1.2, 0.1, 2, 2, 0.75};
  for (int k = 0; k < 6; k++) {
    CAPTURE(k);
    const double range = to[k] - from[k];
    CHECK((low[k] >= from[k] - 1e-3 && low[k] < from[k] + 0.01 * range));
    CHECK((high[k] <= to[k] + 1e-3 && high[k] > to[k] - 0.01 * range));
    CHECK(std::fabs(sum[k] - (from[k] + to[k]) / 2) < 0.03 * range);
  }
  const Change c(a, 1, 2, 3);
  CHECK(c.m[0] == Change(a, 1, 2, 3).m[0]);
  CHECK(c.m[0] != Change(a, 1, 3, 2).m[0]);
  CHECK(c.m[0] != Change(a, 2, 2, 3).m[0]);
  CHECK(c.m[0] != Change(a, 1, 2, 4).m[0]);
}

TEST_CASE("augment: sine and cosine over half a turn") {
  for (int i = -180; i <= 180; i++) {
    double s, c;
    const double angle = i * 3.14159265358979324 / 180;
    sine_cosine(angle, s, c);
    CHECK(std::fabs(s - std::sin(angle)) < 1e-6);
    CHECK(std::fabs(c - std::cos(angle)) < 1e-6);
  }
}

namespace {
// A trainer on 23 pictures of 9 x 8, in batches of 6, the last one of 5.
struct Run {
  Net net;
  std::vector<uint8_t> pixels;
  std::vector<int32_t> labels = random_labels(4, 23, 3);
  Dataset data;
  TrainerOptions o;
  Run() {
    Model& m = net.model;
    m.output("logits", m.chain(m.input("image", {9, 8, 1}), Conv2d{1, 4, 3}, ReLU{}, Flatten{}, Linear{0, 3}));
    CHECK(m.finish(Seed{1}) == Status::ok);
    for (int i = 0; i < 23 * 72; i++) pixels.push_back(uint8_t(i * 31 % 251));
    data.count      = 23;
    data.columns[0] = Column{pixels.data(), DType::u8, 1.0f / 255, 0};
    data.columns[1] = Column{labels.data(), DType::i32};
    o.batch     = 6;
    o.loss      = CrossEntropyLoss{};
    o.optimizer = SGD{0.05f, 0.9f};
    o.seed      = 5;
    o.augment.degrees = 20;
    o.augment.scale   = 0.2f;
    o.augment.shear   = 0.2f;
    o.augment.shift   = 1.5f;
    o.augment.thinner = o.augment.thicker = 0.5f;
  }
  // The parameters after so many steps, and the pictures of the last one where they are asked for.
  Values after(int steps, Values* pictures = nullptr) {
    PlacedTrainer t(net.model, o);
    CHECK(t.status == Status::ok);
    CHECK(t.used == t.plan.total);
    CHECK(t.it.set_data(data) == Status::ok);
    CHECK(t.it.steps(steps) == Status::ok);
    if (pictures) {
      CHECK(TrainerAccess::fill(t.it, nullptr, 5) == Status::ok);
      const real* x = static_cast<const real*>(input_data(TrainerAccess::engine(t.it), 0).data);
      pictures->assign(x, x + 5 * 72);
    }
    CHECK(t.memory.intact());
    return all_parameters(net.model, t.it);
  }
};
}  // namespace

TEST_CASE("augment: the same bits with 1, 2, 3 and 7 workers, and of the pictures on every instruction set") {
  Run r;
  const Isa before = current_isa();
  Values first;
  (void)r.after(6, &first);
  for (int isa = 0; isa < isa_count; isa++) {
    if (!set_isa(Isa(isa))) continue;
    Values want, pictures;
    for (int workers : {1, 2, 3, 7}) {
      ThreadPool pool(workers);
      r.o.pool = workers == 1 ? nullptr : &pool;
      const Values got = r.after(9, workers == 1 ? nullptr : &pictures);
      if (want.empty()) want = got;
      CHECK(same_bytes(got, want));
      (void)r.after(6, &pictures);
      CHECK(same_bytes(pictures, first));
    }
    r.o.pool = nullptr;
  }
  (void)set_isa(before);
}

TEST_CASE("augment: a sample's change depends on the epoch and on itself, not on its place") {
  Run r;
  Values other, again;
  for (const bool shuffle : {true, false}) {
    r.o.shuffle = shuffle;
    (void)r.after(0, &other);                                // the first 5 of epoch 0
    const Permutation order(5, 0, 23, shuffle);
    for (uint32_t i = 0; i < 5; i++) {
      Values picture(72);
      for (size_t k = 0; k < 72; k++) picture[k] = real(r.pixels[order[i] * 72 + k]) * (1.0f / 255);
      const Change change(r.o.augment, 5, 0, order[i]);
      const Values want = warped(thickened(picture, 9, 8, change.thicker), 9, 8, 1, change);
      for (size_t k = 0; k < 72; k++) CHECK(other[i * 72 + k] == want[k]);
    }
  }
  (void)r.after(4, &again);                                  // the same samples in epoch 1
  CHECK(!same_bytes(again, other));
  r.o.batch = 23;
  Values large;
  (void)r.after(0, &large);
  CHECK(same_bytes(large, other));
}

TEST_CASE("augment: off is what it was before; pictures that cannot be augmented are refused") {
  Run r, off;
  off.o.augment = Augment();
  off.o.augment.background = 3;                              // says nothing where nothing is changed
  const Values plain = off.after(8);
  off.o.augment.background = 0;
  CHECK(same_bytes(off.after(8), plain));
  CHECK(!same_bytes(r.after(8), plain));
  MemoryPlan plan, without;
  CHECK(Trainer::plan(r.net.model, off.o, without) == Status::ok);
  ThreadPool pool(3);
  r.o.pool = &pool;
  CHECK(Trainer::plan(r.net.model, r.o, plan) == Status::ok);
  CHECK(plan.scratch >= 3 * 2 * round_up(72 * int64_t(sizeof(real)), 64));
  float Augment::*const fields[] = {&Augment::degrees, &Augment::scale,   &Augment::shear,     &Augment::shift,
                                    &Augment::thinner, &Augment::thicker, &Augment::background};
  for (const auto field : fields)
    for (const float bad : {-1.0f, 2e4f, std::nanf("")}) {
      if (field == &Augment::background && bad == bad) continue;
      Run wrong;
      wrong.o.augment.*field = bad;
      CHECK(Trainer::plan(wrong.net.model, wrong.o, plan) == Status::bad_argument);
      CHECK(std::string(plan.problem.where) == "augment");
    }
  const auto planned = [&](Dims dims, bool picture_target, float thicker) {
    Net net;
    Model& m = net.model;
    Tensor x = m.input("x", dims);
    m.output("y", picture_target ? m.add(Conv2d{0, 1, 1}, x) : m.chain(x, Flatten{}, Linear{0, 3}));
    CHECK(m.finish(Seed{1}) == Status::ok);
    TrainerOptions o = r.o;
    o.augment.thinner = 0;
    o.augment.thicker = thicker;
    if (picture_target) o.loss = MSELoss{};
    return Trainer::plan(m, o, plan);
  };
  CHECK(planned({5, 5, 3}, false, 0) == Status::ok);
  CHECK(planned({5, 5, 3}, false, 0.5f) == Status::bad_argument);
  CHECK(planned({25}, false, 0) == Status::bad_argument);
  CHECK(planned({5, 5, 1}, true, 0) == Status::bad_argument);
}

}  // namespace test_augment
