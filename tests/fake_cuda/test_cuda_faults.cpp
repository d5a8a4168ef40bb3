// What only the fake GPU can show: every call failing in turn, memory that runs out, threads in other orders.
#include "cuda_cases.hpp"
#include "seams.hpp"

namespace {

using Bytes = std::vector<unsigned char>;

// What a program does, one call after another, and what each of them returned.
struct Course {
  std::vector<Status> said;
  Bytes file;
  Array numbers;

  void run(const Subject& s, const Backend* on) {
    const Dataset data = s.data();
    const TrainerOptions o = s.training(on);
    MemoryPlan plan;
    REQUIRE(Trainer::plan(s.net.model, o, plan) == Status::ok);
    Guarded memory(plan.total);
    Arena   arena = memory.arena();
    Trainer trainer;
    say(trainer.build(s.net.model, o, arena));
    say(trainer.set_data(data));
    say(trainer.steps(2));
    numbers.push_back(double(trainer.loss()));
    const SessionOptions looking = s.running(on);
    PlacedSession of_trainer(s.net.model, looking), own(s.net.model, looking);
    say(of_trainer.status);
    say(own.status);
    if (ok(own.status)) look(s, own.it);
    of_trainer.build(trainer, looking);
    say(of_trainer.status);
    if (ok(of_trainer.status)) look(s, of_trainer.it);
    say(trainer.step());
    numbers.push_back(double(trainer.loss()));
    const auto append = [](void* user, const void* from, size_t n) {
      const unsigned char* const p = static_cast<const unsigned char*>(from);
      static_cast<Bytes*>(user)->insert(static_cast<Bytes*>(user)->end(), p, p + n);
      return true;
    };
    Bytes checkpoint;
    say(save_checkpoint(trainer, Sink{append, &checkpoint}));
    say(save(trainer, Sink{append, &file}));
    Guarded again_memory(plan.total);
    Arena   again_arena = again_memory.arena();
    Trainer again;
    say(again.build(s.net.model, o, again_arena));
    say(again.set_data(data));
    if (!checkpoint.empty()) say(again.resume(memory_source(checkpoint.data(), checkpoint.size())));
    say(again.step());
    numbers.push_back(double(again.loss()));
    std::vector<real> first(static_cast<size_t>(s.net.model.parameter(0).count));
    say(again.get(0, first.data()));
    say(again.set(0, first.data()));
    CHECK(memory.intact());
    CHECK(again_memory.intact());
  }
  void look(const Subject& s, Session& session) {
    const std::vector<real> y = forward(session, s);
    numbers.push_back(y.empty() ? 0 : double(y[0]));
    say(session.forward(s.rows));
  }
  void say(Status s) { said.push_back(s); }
  Status first_failure() const {
    for (Status s : said) if (!ok(s)) return s;
    return Status::ok;
  }
};

// 5 -> 20 -> 3, the smallest with parameters that lie otherwise on the device.
std::unique_ptr<Subject> tiny() {
  auto s = std::make_unique<Subject>();
  Model& m = s->net.model;
  m.output("y", m.chain(m.input("x", {5}), Linear{0, 20}, ReLU{}, Dropout{0.25f}, Linear{0, 3}));
  s->loss = CrossEntropyLoss{};
  s->rows = 4;
  REQUIRE(s->finish() == Status::ok);
  s->fill(10, 3);
  return s;
}

// 16 -> 32 -> 16 -> 3, of which two are large where 512 products are many.
std::unique_ptr<Subject> large() {
  auto s = std::make_unique<Subject>();
  Model& m = s->net.model;
  m.output("y", m.chain(m.input("x", {16}), Linear{0, 32}, ReLU{}, Linear{0, 16}, ReLU{}, Linear{0, 3}));
  s->loss = CrossEntropyLoss{};
  s->rows = 4;
  REQUIRE(s->finish() == Status::ok);
  s->fill(10, 3);
  return s;
}

// Whether f(), which returns numbers, gives the same bits in every order of threads and blocks.
template <class F>
bool same_in_every_order(F f) {
  fake::set_order(fake::Order::forward);
  const Array first = f();
  bool same = true;
  for (uint64_t seed = 0; seed < 3 && same; seed++) {
    fake::set_order(seed == 0 ? fake::Order::backward : fake::Order::shuffled, seed);
    same = same_bytes(f(), first);
  }
  fake::set_order(fake::Order::forward);
  return same;
}

// Nothing is left on the device, and nothing was found.
void check_nothing_left() {
  fake::reset();
  close_cuda(0);
  CHECK(fake::live_bytes() == 0);
  CHECK(fake::live_multipliers() == 0);
  const std::vector<std::string> findings = fake::findings();
  CHECK_MESSAGE(findings.empty(), findings.front());
}

// Every call failing in turn, in a run that has so many products by the library.
void fail_in_turn(const Subject& subject, Precision precision, double tolerance, int64_t many, long matmuls) {
  const Subject* const s = &subject;
  const auto open = [&] {
    fake::set_many_products(many);
    return cuda_backend(0, precision);
  };
  Course on_cpu;
  on_cpu.run(*s, nullptr);
  CHECK(on_cpu.first_failure() == Status::ok);
  check_nothing_left();
  const int64_t before = fake::calls();
  const long none = fake::matmuls();
  Course right;
  right.run(*s, open());
  CHECK(right.first_failure() == Status::ok);
  CHECK(error_of(right.numbers, on_cpu.numbers) <= tolerance);
  CHECK(fake::matmuls() - none == matmuls);
  const int64_t calls = fake::calls() - before;
  CHECK(calls > 100);
  check_nothing_left();
  int stayed = 0;
  for (const int error : {fake::no_memory_error, fake::other_error}) {
    for (int64_t n = 1; n <= calls; n++) {
      CAPTURE(n);
      CAPTURE(error);
      fake::fail_call(n, error);
      Course c;
      const Backend* const cuda = open();
      if (cuda) {
        c.run(*s, cuda);
        const Status wanted = error == fake::no_memory_error ? Status::out_of_memory : Status::device_error;
        const bool on_host =
            error == fake::no_memory_error && ok(c.first_failure());  // the data set, where it was
        if (on_host) CHECK(same_bytes(c.numbers, right.numbers));
        else CHECK_MESSAGE(c.first_failure() == wanted, to_string(c.first_failure()));
        stayed += on_host;
      }
      check_nothing_left();
    }
  }
  CHECK(stayed <= 4);
  Course after;
  after.run(*s, nullptr);
  CHECK(same_bytes(after.numbers, on_cpu.numbers));
  CHECK(after.file == on_cpu.file);
  Course again;
  again.run(*s, open());
  CHECK(same_bytes(again.numbers, right.numbers));
  CHECK(again.file == right.file);
  check_nothing_left();
}

}  // namespace

TEST_CASE("cuda: every call of the device failing in turn is told, leaks nothing and leaves the CPU usable") {
  fail_in_turn(*tiny(), Precision::fp32, 1e-4, fake::many_products(), 0);
  fail_in_turn(*large(), Precision::tf32, 1e-2, 512, 4 * 5 + 4 * 2);           // of 4 steps and 4 passes
}

TEST_CASE("cuda: memory that does not suffice is out_of_memory, and what fits runs on") {
  check_nothing_left();
  const auto s = small_mlp(27);
  TrainerOptions small = s->training(emptied()), large = small;
  large.batch = 4096;
  MemoryPlan plan;
  REQUIRE(Trainer::plan(s->net.model, large, plan) == Status::ok);
  fake::set_memory(plan.total / 2);
  {
    PlacedTrainer too_large(s->net.model, large);
    CHECK(too_large.status == Status::out_of_memory);
    CHECK(std::string(too_large.it.problem().where) == "backend");
    CHECK(too_large.it.model() == nullptr);
    CHECK(too_large.it.step(s->batch()) == Status::not_built);
    const auto nowhere = [](void*, const void*, size_t) { return true; };
    CHECK_FALSE(save(too_large.it, Sink{nowhere, nullptr}) == Status::ok);
    PlacedTrainer fits(s->net.model, small);
    REQUIRE_MESSAGE(fits.status == Status::ok, fits.problem());
    CHECK(fits.it.step(s->batch()) == Status::ok);
  }
  check_nothing_left();
}

TEST_CASE("cuda: no device, and a device that is lost") {
  check_nothing_left();
  fake::set_devices(0);
  CHECK(cuda_backend(0) == nullptr);
  fake::set_devices(1);
  CHECK(cuda_backend(1) == nullptr);
  const auto s = tiny();
  PlacedTrainer t(s->net.model, s->training(cuda_backend(0)));
  REQUIRE(t.status == Status::ok);
  REQUIRE(t.it.step(s->batch()) == Status::ok);
  fake::fail_call(1, fake::other_error);
  CHECK(t.it.step(s->batch()) == Status::device_error);
  CHECK(t.it.step(s->batch()) == Status::device_error);
  CHECK(t.it.step_number() == 1);
  check_nothing_left();
}

TEST_CASE("cuda: any order of threads and blocks gives the same bits") {
  check_nothing_left();
  int cases = 0;
  const Backend* const cuda = cuda_backend(0);
  for (const Case& c : all_cases()) {
    const Op& op = *c.op.op();
    if (!needs_row(op) || !cuda->rows(op.name)) continue;
    const auto s = subject_of(c, *cuda);
    if (!builds(*s, cuda)) continue;
    CAPTURE(std::string(c.name));
    CHECK(same_in_every_order([&] {
      REQUIRE(emptied() == cuda);
      Array all;
      for (const auto& [name, values] : results(*s, cuda, 1))
        all.insert(all.end(), values.begin(), values.end());
      return all;
    }));
    cases++;
  }
  CHECK(cases > 50);
  const auto mlp = small_mlp(27);
  CHECK(same_in_every_order([&] {
    Course c;
    c.run(*mlp, emptied());
    return c.numbers;
  }));
  check_nothing_left();
}
