// What only the fake GPU can show: every call failing in turn, memory that runs out, threads in other orders.
#include <thread>

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
      const long start = fake::calls();
      const Backend* const cuda = open();
      const bool opens_again = fake::calls() - start >= n;       // the first build does
      c.run(*s, cuda);
      const Status wanted = error == fake::no_memory_error ? Status::out_of_memory : Status::device_error;
      const bool on_host = !opens_again && error == fake::no_memory_error && ok(c.first_failure());
      if (opens_again || on_host) CHECK(same_bytes(c.numbers, right.numbers));    // on_host: the data set
      else CHECK_MESSAGE(c.first_failure() == wanted, to_string(c.first_failure()));
      stayed += on_host;
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
  const auto s = tiny();
  fake::set_devices(0);
  CHECK(std::string(cuda_problem(0)) == "no CUDA-capable device is detected");
  CHECK(PlacedTrainer(s->net.model, s->training(cuda_backend(0))).status == Status::device_error);
  fake::set_devices(1);
  CHECK(std::string(cuda_problem(1)) == "invalid device ordinal");
  CHECK(PlacedTrainer(s->net.model, s->training(cuda_backend(1))).status == Status::device_error);
  CHECK(std::string(cuda_problem(0)).empty());
  PlacedTrainer t(s->net.model, s->training(cuda_backend(0)));
  REQUIRE(t.status == Status::ok);
  REQUIRE(t.it.step(s->batch()) == Status::ok);
  fake::fail_call(1, fake::other_error);
  CHECK(t.it.step(s->batch()) == Status::device_error);
  CHECK(t.it.step(s->batch()) == Status::device_error);
  CHECK(t.it.step_number() == 1);
  CHECK(std::string(cuda_problem(0)) == "unknown error");
  check_nothing_left();
}

TEST_CASE("cuda: a thread keeps its device, and a watch of a step on one runs a session on another") {
  check_nothing_left();
  fake::set_devices(2);
  const auto device_of_thread = [] {
    int number = -1;
    CHECK(fake::current_device(number) == 0);
    return number;
  };
  CHECK(fake::use_device(0) == 0);
  const auto s = small_mlp(27), other = small_mlp(27);
  other->loss = AnyOp();
  const Dataset data = s->data();
  PlacedTrainer watched(s->net.model, s->training(cuda_backend(1)));
  PlacedTrainer alone(s->net.model, s->training(cuda_backend(1)));
  PlacedSession session(other->net.model, other->running(cuda_backend(0)));
  REQUIRE(watched.it.set_data(data) == Status::ok);
  REQUIRE(alone.it.set_data(data) == Status::ok);
  struct Looks {
    Session*       session;
    const Subject* subject;
    std::vector<real> first;
    int            count;
  } looks = {&session.it, other.get(), {}, 0};
  const Watch watch = {[](void* user, const StepView* step) {
                         Looks& l = *static_cast<Looks*>(user);
                         if (step == nullptr || l.count++ % 3 != 0) return;
                         const std::vector<real> y = forward(*l.session, *l.subject);
                         if (l.first.empty()) l.first = y;
                         CHECK(!y.empty());
                         CHECK(same_bytes(y, l.first));
                       },
                       &looks};
  watched.it.watch(&watch);
  for (int i = 0; i < 4; i++) {
    REQUIRE(watched.it.step() == Status::ok);
    REQUIRE(alone.it.steps(1) == Status::ok);
    CHECK(watched.it.loss() == alone.it.loss());
    CHECK(device_of_thread() == 0);
  }
  CHECK(looks.count > 30);
  std::thread([&] {                             // whose device is the first, too, and which ends what waits
    REQUIRE(alone.it.steps(3) == Status::ok);
    CHECK(device_of_thread() == 0);
    CHECK(forward(session.it, *other) == looks.first);
    CHECK(fake::use_device(1) == 0);
    CHECK(forward(session.it, *other) == looks.first);
    CHECK(device_of_thread() == 1);
  }).join();
  free_cuda(s->x[0].data(), 1);
  CHECK(device_of_thread() == 0);
  fake::reset();
  fake::set_devices(2);
  close_cuda(1);
  check_nothing_left();
}

TEST_CASE("cuda: a device that nobody uses stays unused, and one that a thread chose is kept") {
  check_nothing_left();
  fake::set_devices(2);
  const auto s = small_mlp(27);
  CHECK(*cuda_problem(15) != 0);
  PlacedTrainer t(s->net.model, s->training(cuda_backend(1)));
  CHECK(t.it.step(s->batch()) == Status::ok);
  CHECK_FALSE(fake::is_in_use(0));
  CHECK(fake::use_device(0) == 0);
  CHECK(t.it.step(s->batch()) == Status::ok);
  int number = -1;
  CHECK(fake::current_device(number) == 0);
  CHECK(number == 0);
  close_cuda(1);
  check_nothing_left();
}

// A watch that runs its session in the middle of each step, and there the next one's.
struct Inner {
  Session*       session;
  const Subject* subject;
  int            count;
  static void see(void* user, const StepView* step) {
    Inner& i = *static_cast<Inner*>(user);
    if (step == nullptr || i.count++ % 3 != 0) return;
    CHECK(!forward(*i.session, *i.subject).empty());
  }
};
TEST_CASE("cuda: a watch of a session of a watch of a step changes nothing, and neither does one that only tells") {
  check_nothing_left();
  const auto s = small_mlp(27), other = small_mlp(27);
  other->loss = AnyOp();
  const Dataset data = s->data();
  PlacedTrainer watched(s->net.model, s->training(cuda_backend(0))), alone(s->net.model, s->training(cuda_backend(0)));
  PlacedSession middle(other->net.model, other->running(cuda_backend(0)));
  PlacedSession inner(other->net.model, other->running(cuda_backend(0)));
  PlacedSession telling(other->net.model, other->running(cuda_rows()));
  REQUIRE(watched.it.set_data(data) == Status::ok);
  REQUIRE(alone.it.set_data(data) == Status::ok);
  Inner of_middle = {&inner.it, other.get(), 0}, of_step = {&middle.it, other.get(), 0};
  Inner tells = {&telling.it, other.get(), 0};
  const Watch watches[] = {{Inner::see, &of_step}, {Inner::see, &tells}}, in_middle = {Inner::see, &of_middle};
  middle.it.watch(&in_middle);
  for (int i = 0; i < 6; i++) {
    watched.it.watch(&watches[i % 2]);
    REQUIRE(watched.it.step() == Status::ok);
    REQUIRE(alone.it.step() == Status::ok);
    CHECK(watched.it.loss() == alone.it.loss());
  }
  CHECK(of_middle.count > 30);
  CHECK(tells.count > 30);
  CHECK(same_bytes(all_parameters(s->net.model, watched.it), all_parameters(s->net.model, alone.it)));
  check_nothing_left();
}

TEST_CASE("cuda: memory is freed of what is used no more, and what else there is stays") {
  check_nothing_left();
  const auto s = small_mlp(27);
  MemoryPlan plan;
  REQUIRE(Trainer::plan(s->net.model, s->training(cuda_rows()), plan) == Status::ok);
  const Dataset data = s->data();
  PlacedTrainer t(s->net.model, s->training(cuda_backend(0)));
  REQUIRE(t.status == Status::ok);
  CHECK(fake::live_bytes() <= plan.total + 4096);               // and nothing for the model's weights
  REQUIRE(t.it.set_data(data) == Status::ok);
  REQUIRE(t.it.step() == Status::ok);
  const size_t of_trainer = fake::live_bytes();
  std::vector<std::vector<unsigned char>> arenas;
  for (int i = 0; i < 300; i++) {              // more than there is room for at one time
    MemoryPlan small;
    REQUIRE(Session::plan(s->net.model, s->running(cuda_rows()), small) == Status::ok);
    arenas.emplace_back(small.total + 64);
    unsigned char* const at = arenas.back().data();
    Arena   arena(at + (64 - reinterpret_cast<uintptr_t>(at) % 64) % 64, small.total);
    Session session;
    REQUIRE(session.build(s->net.model, s->running(cuda_backend(0)), arena) == Status::ok);
    REQUIRE(!forward(session, *s).empty());
    CHECK(fake::live_bytes() > of_trainer);
    free_cuda(at, arenas.back().size());
  }
  free_cuda(s->net.weights.data(), s->net.model.weight_bytes());
  CHECK(fake::live_bytes() == of_trainer);
  REQUIRE(t.it.step() == Status::ok);
  check_nothing_left();
}

TEST_CASE("cuda: clipping by norm takes no memory, and few calls") {
  check_nothing_left();
  const auto s = small_mlp(8 * 40);
  const Dataset data = s->data();
  TrainerOptions o = s->training(cuda_backend(0));
  o.clip_norm = 0.05f;
  PlacedTrainer t(s->net.model, o);
  REQUIRE(t.it.set_data(data) == Status::ok);
  REQUIRE(t.it.step() == Status::ok);
  const long before = fake::calls();
  fake::set_memory(fake::live_bytes());        // the device is full
  REQUIRE(t.it.step() == Status::ok);
  CHECK(fake::calls() - before < 16);
  REQUIRE(t.it.steps(16) == Status::ok);
  CHECK(fake::calls() - before < 16 + 16 * 3 + 16);
  check_nothing_left();
}

TEST_CASE("cuda: what is told of launches without a GPU is what a GPU is told to launch") {
  check_nothing_left();
  for (const Precision p : {Precision::fp32, Precision::bf16})
    for (const Network& n : networks) {
      CAPTURE(std::string(n.name));
      const auto s = subject_of(n, n.rows);
      long told = 0;
      const auto count = [](void* user, const CudaLaunch& l) {
        CHECK(std::string(l.kernel).size() > 5);
        CHECK(l.blocks > 0);
        CHECK((l.threads >= 32 && l.threads <= 1024));
        ++*static_cast<long*>(user);
      };
      PlacedTrainer dry(s->net.model, s->training(cuda_rows(p, count, &told)));
      PlacedTrainer wet(s->net.model, s->training(cuda_backend(0, p)));
      REQUIRE(dry.it.step(s->batch()) == Status::ok);
      const long before = fake::launches();
      REQUIRE(wet.it.step(s->batch()) == Status::ok);
      CHECK(told == fake::launches() - before);
      CHECK(told > s->net.model.node_count());
    }
  check_nothing_left();
}

TEST_CASE("cuda: launches that cannot overlap give the same bits") {
  const auto s = small_mlp(27);
  Course with, without;
  check_nothing_left();
  with.run(*s, cuda_backend(0));
  check_nothing_left();
  fake::set_overlaps(false);
  without.run(*s, cuda_backend(0));
  CHECK(same_bytes(with.numbers, without.numbers));
  CHECK(with.file == without.file);
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
    CHECK(fake::same_in_every_order([&] {
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
  CHECK(fake::same_in_every_order([&] {
    Course c;
    c.run(*mlp, emptied());
    return c.numbers;
  }));
  check_nothing_left();
}
