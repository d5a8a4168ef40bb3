// What surrounds the rows of CUDA: checkpoints across devices, arenas, sessions on trainers, what is refused.
#include <future>
#include <thread>

#include "cuda_run.hpp"

namespace {

using Bytes = std::vector<unsigned char>;

Bytes checkpoint_of(const Trainer& t) {
  Bytes b;
  const auto append = [](void* user, const void* from, size_t n) {
    const unsigned char* const p = static_cast<const unsigned char*>(from);
    static_cast<Bytes*>(user)->insert(static_cast<Bytes*>(user)->end(), p, p + n);
    return true;
  };
  CHECK(save_checkpoint(t, Sink{append, &b}) == Status::ok);
  return b;
}

// Looks at everything while steps run: weights of the trainer, and a session of its own.
struct Curious {
  const Trainer* trainer;
  Session*       session;
  const Subject* subject;
  int            looks;
};
void look(void* user, const StepView* step) {
  Curious& c = *static_cast<Curious*>(user);
  if (step == nullptr || c.looks++ % 3 != 0) return;
  const Model& m = c.subject->net.model;
  for (int p = 0; p < m.parameter_count(); p++) {
    std::vector<real> values(static_cast<size_t>(m.parameter(p).count));
    CHECK(c.trainer->get(p, values.data()) == Status::ok);
  }
  CHECK(!forward(*c.session, *c.subject).empty());
}

// In the middle of a step another thread runs a session and asks for the device, which waits for nobody; then
// this one frees the session's memory.
struct Visited {
  PlacedSession*    session;
  const Subject*    subject;
  std::future<bool> visit;
};
void let_in(void* user, const StepView* step) {
  Visited& v = *static_cast<Visited*>(user);
  if (step == nullptr || v.visit.valid()) return;
  v.visit = std::async(std::launch::async, [&v] {
    return !forward(v.session->it, *v.subject).empty() && *cuda_problem(0) == 0;
  });
  const bool waits = v.visit.wait_for(std::chrono::seconds(20)) != std::future_status::ready;
  CHECK_FALSE(waits);
  if (!waits) free_cuda(v.session->memory.data(), v.session->memory.size());
}

// A trainer with its data.
struct Training {
  const Subject& s;
  Dataset        data;
  PlacedTrainer  t;
  Training(const Subject& subject, const TrainerOptions& o) : s(subject), data(s.data()), t(s.net.model, o) {
    REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
    REQUIRE(t.it.set_data(data) == Status::ok);
  }
  Array steps(int n) {
    Array losses;
    for (int i = 0; i < n; i++) {
      REQUIRE_MESSAGE(t.it.step() == Status::ok, t.problem());
      losses.push_back(double(t.it.loss()));
    }
    return losses;
  }
  Status resume(const Bytes& from, bool any = false) {
    return t.it.resume(memory_source(from.data(), from.size()), any);
  }
  std::vector<real> parameters() const { return all_parameters(s.net.model, t.it); }
};

double furthest(const Array& a, const Array& b) {
  double worst = a.size() == b.size() ? 0 : HUGE_VAL;
  for (size_t i = 0; i < a.size() && i < b.size(); i++) worst = std::max(worst, std::fabs(a[i] - b[i]));
  return worst;
}

}  // namespace

TEST_CASE(
    "cuda: a checkpoint goes from the CPU to the device and back, and says so when it is not asked to") {
  NNLITE_ON_CUDA(cuda);
  for (const AnyOp& optimizer : {AnyOp(Adam{0.01f}), AnyOp(SGD{0.05f, 0.9f}), AnyOp(RMSprop{0.01f})}) {
    const auto s = small_mlp(27);
    s->optimizer = optimizer;
    Training cpu(*s, s->training(nullptr));
    const Array all = cpu.steps(24);

    Training first(*s, s->training(nullptr));
    Array    losses = first.steps(8);
    Training second(*s, s->training(cuda));
    const Bytes one = checkpoint_of(first.t.it);
    CHECK(second.resume(one) == Status::wrong_arithmetic);
    CHECK(std::string(second.t.it.problem().where).find("device") != std::string::npos);
    REQUIRE_MESSAGE(second.resume(one, true) == Status::ok, second.t.problem());
    CHECK(same_bytes(second.parameters(), first.parameters()));
    CHECK(second.t.it.step_number() == 8);
    for (double l : second.steps(8)) losses.push_back(l);
    Training third(*s, s->training(nullptr));
    const Bytes two = checkpoint_of(second.t.it);
    CHECK(third.resume(two) == Status::wrong_arithmetic);
    REQUIRE_MESSAGE(third.resume(two, true) == Status::ok, third.t.problem());
    CHECK(same_bytes(third.parameters(), second.parameters()));
    for (double l : third.steps(8)) losses.push_back(l);
    CHECK(furthest(losses, all) <= 1e-3);
  }
}

TEST_CASE("cuda: a run that was stopped and resumed has the bits of one never stopped") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);
  s->optimizer = Adam{0.01f};
  Training whole(*s, s->training(cuda)), again(*s, s->training(cuda));
  (void)whole.steps(7);
  const Bytes half = checkpoint_of(whole.t.it);
  const Array rest = whole.steps(9);
  REQUIRE(again.resume(half) == Status::ok);
  CHECK(same_bytes(again.steps(9), rest));
  CHECK(same_bytes(again.parameters(), whole.parameters()));
  CHECK(checkpoint_of(again.t.it) == checkpoint_of(whole.t.it));
}

TEST_CASE("cuda: 20 runs give the same bits") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);
  Array losses;
  std::vector<real> weights;
  for (int i = 0; i < 20; i++) {
    Training t(*s, s->training(cuda));
    const Array mine = t.steps(3);
    if (i == 0) losses = mine, weights = t.parameters();
    CHECK(same_bytes(mine, losses));
    CHECK(same_bytes(t.parameters(), weights));
  }
}

TEST_CASE("cuda: a saved model has the weights of the device") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);
  Training t(*s, s->training(cuda));
  (void)t.steps(5);
  Bytes file;
  const auto append = [](void* user, const void* from, size_t n) {
    const unsigned char* const p = static_cast<const unsigned char*>(from);
    static_cast<Bytes*>(user)->insert(static_cast<Bytes*>(user)->end(), p, p + n);
    return true;
  };
  REQUIRE(save(t.t.it, Sink{append, &file}) == Status::ok);
  Guarded aligned(file.size()), memory(1 << 16);
  std::memcpy(aligned.data(), file.data(), file.size());
  Arena arena = memory.arena();
  Model loaded;
  REQUIRE(loaded.load(aligned.data(), file.size(), arena) == Status::ok);
  CHECK(same_bytes(all_parameters(loaded, loaded), t.parameters()));

  SessionOptions o;
  o.batch   = s->rows;
  o.backend = cuda;
  const auto plain = small_mlp(27);
  plain->loss = AnyOp();
  PlacedSession from_file(loaded, o), of_trainer(s->net.model, o);
  REQUIRE_MESSAGE(from_file.status == Status::ok, from_file.problem());
  of_trainer.build(t.t.it, o);
  REQUIRE_MESSAGE(of_trainer.status == Status::ok, of_trainer.problem());
  const std::vector<real> y = forward(from_file.it, *plain);
  CHECK(y.size() == size_t(s->rows) * 10);
  CHECK(same_bytes(y, forward(of_trainer.it, *plain)));
}

TEST_CASE("cuda: two engines in one arena, and an arena used again") {
  NNLITE_ON_CUDA(cuda);
  const auto a = small_mlp(27);
  const auto b = subject_of(networks[14], 20);
  REQUIRE(std::string(networks[14].name) == "perceptron");
  Training alone_a(*a, a->training(cuda)), alone_b(*b, b->training(cuda));
  const Array losses_a = alone_a.steps(6), losses_b = alone_b.steps(6);
  const Dataset data_a = a->data(), data_b = b->data();
  MemoryPlan plan_a, plan_b;
  REQUIRE(Trainer::plan(a->net.model, a->training(cuda), plan_a) == Status::ok);
  REQUIRE(Trainer::plan(b->net.model, b->training(cuda), plan_b) == Status::ok);
  Guarded memory(plan_a.total + plan_b.total + 64);
  for (const bool swapped : {false, true, false}) {
    Arena arena = memory.arena();
    Trainer x, y;
    for (const bool second : {false, true})
      REQUIRE((second == swapped ? x.build(a->net.model, a->training(cuda), arena)
                                 : y.build(b->net.model, b->training(cuda), arena)) == Status::ok);
    REQUIRE(x.set_data(data_a) == Status::ok);
    REQUIRE(y.set_data(data_b) == Status::ok);
    for (size_t i = 0; i < 6; i++) {
      REQUIRE(x.step() == Status::ok);
      REQUIRE(y.step() == Status::ok);
      CHECK(double(x.loss()) == losses_a[i]);
      CHECK(double(y.loss()) == losses_b[i]);
    }
  }
  CHECK(memory.intact());
}

TEST_CASE("cuda: a session on a trainer sees the weights of the moment, one of its own those of the model") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);
  Training t(*s, s->training(cuda));
  PlacedSession on_trainer(s->net.model, s->running(cuda)), own(s->net.model, s->running(cuda)),
      cpu(s->net.model, s->running(nullptr));
  on_trainer.build(t.t.it, s->running(cuda));
  REQUIRE_MESSAGE(on_trainer.status == Status::ok, on_trainer.problem());
  REQUIRE_MESSAGE(own.status == Status::ok, own.problem());
  const std::vector<real> before = forward(own.it, *s);
  CHECK(same_bytes(forward(on_trainer.it, *s), before));
  CHECK(error_of(as_doubles(before), as_doubles(forward(cpu.it, *s))) < 1e-5);
  CHECK(error_of({double(own.it.loss())}, {double(cpu.it.loss())}) < 1e-5);
  (void)t.steps(5);
  const std::vector<real> after = forward(on_trainer.it, *s);
  CHECK_FALSE(same_bytes(after, before));
  CHECK(same_bytes(forward(own.it, *s), before));
  const std::vector<real> weights = t.parameters();
  std::vector<real> first(static_cast<size_t>(s->net.model.parameter(0).count), real(0.25));
  REQUIRE(t.t.it.set(0, first.data()) == Status::ok);
  CHECK_FALSE(same_bytes(forward(on_trainer.it, *s), after));
  REQUIRE(t.t.it.set(0, weights.data()) == Status::ok);
  CHECK(same_bytes(forward(on_trainer.it, *s), after));
}

TEST_CASE("cuda: trainers of two threads on one device have the bits of one alone") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(8 * 40);
  Training alone(*s, s->training(cuda)), one(*s, s->training(cuda)), other(*s, s->training(cuda));
  for (int i = 0; i < 60; i++) REQUIRE(alone.t.it.step() == Status::ok);
  const auto train = [](Trainer& t, Status& last) {
    for (int i = 0; i < 3 && ok(last); i++) last = t.steps(20);
  };
  Status a = Status::ok, b = Status::ok;
  std::thread thread([&] { train(one.t.it, a); });
  train(other.t.it, b);
  thread.join();
  CHECK(a == Status::ok);
  CHECK(b == Status::ok);
  CHECK(same_bytes(one.parameters(), alone.parameters()));
  CHECK(same_bytes(other.parameters(), alone.parameters()));
}

TEST_CASE("cuda: steps that one thread watches, launch by launch, while another records") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(8 * 40);
  Training alone(*s, s->training(cuda)), watched(*s, s->training(cuda));
  for (int i = 0; i < 60; i++) REQUIRE(alone.t.it.step() == Status::ok);
  const Watch nothing = {[](void*, const StepView*) {}, nullptr};
  watched.t.it.watch(&nothing);
  Status a = Status::ok;
  std::thread thread([&] {
    for (int i = 0; i < 60 && ok(a); i++) a = watched.t.it.step();
  });
  for (int i = 0; i < 4; i++) {
    Training other(*s, s->training(cuda));
    CHECK(other.t.it.steps(20) == Status::ok);
  }
  thread.join();
  CHECK(a == Status::ok);
  CHECK(same_bytes(watched.parameters(), alone.parameters()));
}

TEST_CASE("cuda: fewer rows than the batch, one after another") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);
  SessionOptions o;
  o.batch   = 8;
  o.backend = cuda;
  PlacedSession all(s->net.model, o), some(s->net.model, o);
  REQUIRE(all.status == Status::ok);
  REQUIRE(some.status == Status::ok);
  s->loss = AnyOp();
  const std::vector<real> y = forward(all.it, *s);
  for (int first = 0; first < 8; first += 3) {
    const int rows = std::min(3, 8 - first);
    std::memcpy(some.it.input().data, s->x[0].data() + first * 9,
                static_cast<size_t>(rows) * 9 * sizeof(real));
    REQUIRE(some.it.forward(rows) == Status::ok);
    const std::vector<real> part(y.begin() + first * 10, y.begin() + (first + rows) * 10);
    CHECK(same_bytes(outputs_of(some.it), part));
  }
}

TEST_CASE("cuda: a session on a trainer of another device is refused") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);
  for (const Backend* on : {static_cast<const Backend*>(nullptr), cuda}) {
    Training t(*s, s->training(on));
    const SessionOptions other = s->running(on ? nullptr : cuda);
    PlacedSession session(s->net.model, other);
    session.build(t.t.it, other);
    CHECK(session.status == Status::bad_argument);
    CHECK(std::string(session.it.problem().where) == "options");
    CHECK(std::string(session.it.problem().what).find("backend") != std::string::npos);
  }
}

TEST_CASE("cuda: a loss that is not finite and a label out of range leave everything as it was") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);
  s->optimizer = Adam{0.01f};
  Training t(*s, s->training(cuda)), calm(*s, s->training(cuda));
  (void)t.steps(3);
  (void)calm.steps(3);
  const std::vector<real> before = t.parameters();
  std::vector<real>    x = s->x[0];
  std::vector<int32_t> labels = s->labels;
  x[5] = real(NAN);
  CHECK(t.t.it.step(Batch(x.data(), labels.data(), 8)) == Status::not_finite);
  CHECK(same_bytes(t.parameters(), before));
  CHECK(std::string(t.t.it.problem().where) == "x");
  for (const int wrong : {-1, 10}) {
    labels[4] = wrong;
    CHECK(t.t.it.step(Batch(s->x[0].data(), labels.data(), 8)) == Status::bad_label);
    CHECK(same_bytes(t.parameters(), before));
  }
  CHECK(t.t.it.step_number() == 3);
  CHECK(same_bytes(t.steps(4), calm.steps(4)));
  CHECK(same_bytes(t.parameters(), calm.parameters()));

  const int last = s->net.model.parameter_count() - 2;
  std::vector<real> large(static_cast<size_t>(s->net.model.parameter(last - 2).count), real(1000));
  std::vector<real> huge(static_cast<size_t>(s->net.model.parameter(last).count), real(3e38));
  REQUIRE(t.t.it.set(last - 2, large.data()) == Status::ok);      // so that Tanh gives ones
  REQUIRE(t.t.it.set(last, huge.data()) == Status::ok);
  const std::vector<real> with_huge = t.parameters();
  CHECK(t.t.it.step() == Status::not_finite);
  CHECK(std::string(t.t.it.problem().where) == s->net.model.node(s->net.model.node_count() - 1).name);
  CHECK(same_bytes(t.parameters(), with_huge));
}

TEST_CASE("cuda: gradients are clipped by their norm as on the CPU, and rates change with the schedule") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);
  TrainerOptions o = s->training(nullptr);
  o.clip_norm    = 0.05f;
  o.warmup_steps = 4;
  o.epochs       = 3;
  o.schedule     = CosineAnnealingLR{};
  Training cpu(*s, o);
  o.backend = cuda;
  Training gpu(*s, o);
  for (int i = 0; i < 12; i++) {
    CHECK(furthest(gpu.steps(1), cpu.steps(1)) <= 1e-4);
    CHECK(error_of({double(gpu.t.it.gradient_norm())}, {double(cpu.t.it.gradient_norm())}) <= 1e-4);
    CHECK(double(gpu.t.it.gradient_norm()) > 0.05);
  }
  CHECK(error_of(as_doubles(gpu.parameters()), as_doubles(cpu.parameters())) <= 1e-4);
}

TEST_CASE("cuda: the norm of very many gradients, and of steps that run at once") {
  NNLITE_ON_CUDA(cuda);
  Subject s;
  Model& m = s.net.model;
  Tensor t = m.input("x", {9});
  for (int i = 0; i < 20; i++) t = m.chain(t, Linear{0, 9 + i % 3}, Tanh{});       // 42 parameters
  m.output("y", m.chain(t, Linear{0, 10}));
  s.loss = CrossEntropyLoss{};
  s.rows = 8;
  REQUIRE(s.finish() == Status::ok);
  s.fill(59, 10);
  TrainerOptions o = s.training(nullptr);
  o.clip_norm = 0.2f;
  Training cpu(s, o);
  o.backend = cuda;
  Training apart(s, o), together(s, o), again(s, o);
  for (int i = 0; i < 7; i++) {
    CHECK(furthest(apart.steps(1), cpu.steps(1)) <= 1e-4);
    CHECK(error_of({double(apart.t.it.gradient_norm())}, {double(cpu.t.it.gradient_norm())}) <= 1e-4);
    CHECK(double(apart.t.it.gradient_norm()) > 0.2);
  }
  REQUIRE(together.t.it.steps(7) == Status::ok);
  REQUIRE(again.t.it.steps(7) == Status::ok);
  CHECK(together.t.it.gradient_norm() == apart.t.it.gradient_norm());
  CHECK(same_bytes(together.parameters(), apart.parameters()));
  CHECK(same_bytes(again.parameters(), apart.parameters()));
  CHECK(error_of(as_doubles(apart.parameters()), as_doubles(cpu.parameters())) <= 1e-4);
}

TEST_CASE("cuda: what is built on a device that is not there is refused, and runs nowhere else") {
  const auto s = small_mlp(27);
  for (const int number : {-1, 15, 16, 1000}) {
    CAPTURE(number);
    const Backend* const none = cuda_backend(number);
    REQUIRE(none != nullptr);
    CHECK(*cuda_problem(number) != 0);
    PlacedTrainer t(s->net.model, s->training(none));
    CHECK(t.status == Status::device_error);
    CHECK(std::string(t.it.problem().where) == "backend");
    CHECK(std::string(t.it.problem().what).find("cuda_problem(") != std::string::npos);
    CHECK(t.it.step(s->batch()) == Status::not_built);
    PlacedSession session(s->net.model, s->running(none));
    CHECK(session.status == Status::device_error);
    close_cuda(number);
  }
}

TEST_CASE(
    "cuda: products of tf32 and bf16 are near those of fp32, the same in every run, told in checkpoints") {
  NNLITE_ON_CUDA(cuda);
  const Backend* const tf32 = cuda_backend(0, Precision::tf32);
  const Backend* const bf16 = cuda_backend(0, Precision::bf16);
  REQUIRE(tf32 != nullptr);
  REQUIRE(bf16 != nullptr);
  CHECK(tf32 != cuda);
  CHECK(bf16 != cuda);
  CHECK(bf16 != tf32);
  const auto mlp = small_mlp(27);
  const auto net = subject_of(networks[4], 3 * networks[4].rows);
  for (const bool halves : {false, true})
    for (const Subject* s : {mlp.get(), net.get()}) {
      const Backend *const on = halves ? bf16 : tf32, *const other = halves ? tf32 : bf16;
      Training exact(*s, s->training(cuda)), rough(*s, s->training(on)), again(*s, s->training(on));
      Training beside(*s, s->training(other));
      const Array losses = exact.steps(6), near = rough.steps(6);
      CHECK(furthest(losses, near) <= 1e-2);
      CHECK(furthest(losses, near) > 0);
      CHECK(same_bytes(again.steps(6), near));
      CHECK(same_bytes(again.parameters(), rough.parameters()));
      const Bytes saved = checkpoint_of(rough.t.it);
      CHECK(exact.resume(saved) == Status::wrong_arithmetic);
      CHECK(beside.resume(saved) == Status::wrong_arithmetic);
      CHECK(again.resume(saved) == Status::ok);
      REQUIRE(exact.resume(saved, true) == Status::ok);
      CHECK(same_bytes(exact.parameters(), rough.parameters()));
    }
}

TEST_CASE("cuda: the sum of the losses of steps(n) is that of single steps, here and on the device") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27);                // batches of 8, 8, 8 and 3
  for (const Backend* on : {static_cast<const Backend*>(nullptr), cuda}) {
    Training together(*s, s->training(on)), apart(*s, s->training(on));
    for (const int n : {3, 4, 1}) {
      double sum = 0;
      for (int i = 0; i < n; i++) {
        const uint32_t position = apart.t.it.epoch_position();
        const int drawn = position == 24 ? 3 : 8;
        REQUIRE(apart.t.it.step() == Status::ok);
        CHECK(apart.t.it.loss_sum() == double(apart.t.it.loss()) * drawn);
        sum += double(apart.t.it.loss()) * drawn;
      }
      REQUIRE(together.t.it.steps(n) == Status::ok);
      CHECK(together.t.it.loss_sum() == sum);
      CHECK(together.t.it.loss() == apart.t.it.loss());
    }
  }
}

TEST_CASE("cuda: a watch that reads weights and runs a session in the middle of a step changes nothing") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27), other = small_mlp(27);
  other->loss = AnyOp();
  Training watched(*s, s->training(cuda)), alone(*s, s->training(cuda));
  PlacedSession session(other->net.model, other->running(cuda));
  REQUIRE_MESSAGE(session.status == Status::ok, session.problem());
  Curious curious = {&watched.t.it, &session.it, other.get(), 0};
  const Watch watch = {look, &curious};
  watched.t.it.watch(&watch);
  CHECK(same_bytes(watched.steps(5), alone.steps(5)));
  CHECK(curious.looks > 50);
  CHECK(same_bytes(watched.parameters(), alone.parameters()));
}

TEST_CASE("cuda: other threads use the device while this one is in a watch, where memory can be freed") {
  NNLITE_ON_CUDA(cuda);
  const auto s = small_mlp(27), other = small_mlp(27);
  other->loss = AnyOp();
  Training watched(*s, s->training(cuda)), alone(*s, s->training(cuda));
  PlacedSession session(other->net.model, other->running(cuda));
  REQUIRE_MESSAGE(session.status == Status::ok, session.problem());
  Visited visited = {&session, other.get(), {}};
  const Watch watch = {let_in, &visited};
  watched.t.it.watch(&watch);
  CHECK(same_bytes(watched.steps(3), alone.steps(3)));
  CHECK(visited.visit.get());
  CHECK(same_bytes(watched.parameters(), alone.parameters()));
}
