// A data set on the device: the rows that a trainer draws there, labels, and runs of steps that wait once.
#include "cuda_run.hpp"
#ifdef NNLITE_FAKE_CUDA
#include "fake_cuda.hpp"
#endif

namespace {

// The same network and data for every trainer.
struct Runs {
  std::unique_ptr<Subject> s;
  std::vector<uint8_t>     pixels, small_labels;
  Dataset                  data;
  explicit Runs(int samples = 27) : s(small_mlp(samples)), data(s->data()) { s->optimizer = SGD{0.05f, 0.9f}; }
  // Pictures and labels of one byte.
  void as_bytes() {
    pixels.resize(s->x[0].size());
    for (size_t i = 0; i < pixels.size(); i++) pixels[i] = static_cast<uint8_t>(i * 37 % 251);
    small_labels.assign(s->labels.begin(), s->labels.end());
    data.columns[0] = {pixels.data(), DType::u8, 1 / 127.5f, -1.0f};
    data.columns[1] = {small_labels.data(), DType::u8};
  }
};

struct Run {
  PlacedTrainer t;
  Run(const Runs& r, const Backend* on, const TrainerOptions* more = nullptr)
      : t(r.s->net.model, options(r, on, more)) {
    REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
    REQUIRE_MESSAGE(t.it.set_data(r.data) == Status::ok, t.it.problem().what);
  }
  static TrainerOptions options(const Runs& r, const Backend* on, const TrainerOptions* more) {
    TrainerOptions o = more ? *more : r.s->training(on);
    o.backend = on;
    return o;
  }
  std::vector<real> parameters(const Runs& r) const { return all_parameters(r.s->net.model, t.it); }
};

}  // namespace

TEST_CASE(
    "cuda: rows drawn on the device are those drawn on the CPU, of floats and of bytes, shuffled or not") {
  NNLITE_ON_CUDA(cuda);
  for (const bool bytes : {false, true})
    for (const bool shuffle : {true, false})
      for (const bool drop_last : {true, false}) {
        CAPTURE(bytes);
        CAPTURE(shuffle);
        Runs r;
        if (bytes) r.as_bytes();
        TrainerOptions o = r.s->training(nullptr);
        o.shuffle = shuffle, o.drop_last = drop_last, o.seed = 4;
        Run cpu(r, nullptr, &o), gpu(r, cuda, &o);
        for (int i = 0; i < 13; i++) {           // three epochs of 27 samples
          REQUIRE(cpu.t.it.step() == Status::ok);
          REQUIRE(gpu.t.it.step() == Status::ok);
          CHECK(std::fabs(double(cpu.t.it.loss() - gpu.t.it.loss())) < 1e-4);
        }
        CHECK(cpu.t.it.epoch() == gpu.t.it.epoch());
        CHECK(cpu.t.it.epoch_position() == gpu.t.it.epoch_position());
        CHECK(error_of(as_doubles(gpu.parameters(r)), as_doubles(cpu.parameters(r))) <= 1e-4);
      }
}

TEST_CASE("cuda: many steps at once have the bits of as many alone") {
  NNLITE_ON_CUDA(cuda);
  Runs r;
  r.as_bytes();
  Run alone(r, cuda), together(r, cuda);
  for (int i = 0; i < 17; i++) REQUIRE(alone.t.it.step() == Status::ok);
  REQUIRE(together.t.it.steps(5) == Status::ok);
  REQUIRE(together.t.it.steps(0) == Status::ok);
  REQUIRE(together.t.it.steps(12) == Status::ok);
  CHECK(alone.t.it.step_number() == 17);
  CHECK(together.t.it.step_number() == 17);
  CHECK(together.t.it.epoch_position() == alone.t.it.epoch_position());
  CHECK(double(together.t.it.loss()) == double(alone.t.it.loss()));
  CHECK(same_bytes(together.parameters(r), alone.parameters(r)));
}

TEST_CASE("cuda: many steps are few graphs, and have the bits of as many alone") {
  NNLITE_ON_CUDA(cuda);
  constexpr int batch = 8, in_one_graph = 16, steps = 3 * in_one_graph + 5;
  Runs r(batch * (steps + 4) + 3);             // 61 of them, in epochs of 58 with a small last one
  r.as_bytes();
  Run alone(r, cuda), together(r, cuda);
  for (int i = 0; i < 2 + 2 * steps; i++) REQUIRE(alone.t.it.step() == Status::ok);
  REQUIRE(together.t.it.steps(2) == Status::ok);
#ifdef NNLITE_FAKE_CUDA
  const long before = fake::calls();
#endif
  REQUIRE(together.t.it.steps(steps) == Status::ok);
#ifdef NNLITE_FAKE_CUDA
  // each step, the end and two reads ask for the thread's device and set it; 4 launches of their turns, 3 large
  // graphs, 5 small ones; the loss and the sum are copied and waited for
  CHECK(fake::calls() - before == 2 * (steps + 1 + 2) + 4 + 3 + 5 + 2 * 2);
#endif
  REQUIRE(together.t.it.steps(steps) == Status::ok);           // with the end of an epoch
  CHECK(together.t.it.step_number() == alone.t.it.step_number());
  CHECK(double(together.t.it.loss()) == double(alone.t.it.loss()));
  CHECK(same_bytes(together.parameters(r), alone.parameters(r)));
}

TEST_CASE("cuda: data that takes the place of other data takes that of its graphs, too") {
  NNLITE_ON_CUDA(cuda);
  Runs first, second;
  for (real& v : second.s->x[0]) v += 1;
  Run changes(first, cuda), calm(first, nullptr);
  const auto train = [](Run& run, const Runs& r) {
    REQUIRE(run.t.it.set_data(r.data) == Status::ok);
    REQUIRE(run.t.it.steps(7) == Status::ok);
  };
  for (const Runs* r : {&first, &second}) train(changes, *r), train(calm, *r);
#ifdef NNLITE_FAKE_CUDA
  const size_t graphs = fake::live_recordings();
#endif
  for (const Runs* r : {&first, &second}) train(changes, *r), train(calm, *r);
#ifdef NNLITE_FAKE_CUDA
  CHECK(fake::live_recordings() == graphs);
#endif
  CHECK(error_of(as_doubles(changes.parameters(first)), as_doubles(calm.parameters(first))) <= 1e-4);
}

TEST_CASE("cuda: a loss that is not finite in the middle of a run ends it there") {
  NNLITE_ON_CUDA(cuda);
  for (const int bad : {0, 11, 26, 8 * 20 + 3}) {
    CAPTURE(bad);
    Runs r(bad < 27 ? 27 : 8 * 40);
    TrainerOptions o = r.s->training(nullptr);
    o.shuffle = false;
    o.clip_norm = bad == 11 ? 0.0f : 0.05f;
    const size_t at = static_cast<size_t>(bad) * 9 + 2;
    const uint64_t good = static_cast<uint64_t>(bad / 8);      // steps before it, of 8 rows each
    const real before = r.s->x[0][at];
    r.s->x[0][at] = real(NAN);
    Run run(r, cuda, &o), calm(r, cuda, &o);
    for (uint64_t i = 0; i < good; i++) REQUIRE(calm.t.it.step() == Status::ok);
    CHECK(run.t.it.steps(bad < 27 ? 9 : 40) == Status::not_finite);
    CHECK(run.t.it.loss() == 0);
    CHECK(std::string(run.t.it.problem().where) == "x");
    CHECK(std::string(run.t.it.problem().what).find("step " + std::to_string(good + 1)) != std::string::npos);
    CHECK(run.t.it.step_number() == good);
    CHECK(run.t.it.epoch_position() == calm.t.it.epoch_position());
    CHECK(run.t.it.gradient_norm() == calm.t.it.gradient_norm());
    CHECK((run.t.it.gradient_norm() > 0) == (o.clip_norm > 0 && good > 0));
    CHECK(same_bytes(run.parameters(r), calm.parameters(r)));
    r.s->x[0][at] = before;                      // the data mended, both go on alike
    REQUIRE(run.t.it.set_data(r.data) == Status::ok);
    REQUIRE(calm.t.it.set_data(r.data) == Status::ok);
    REQUIRE(run.t.it.steps(6) == Status::ok);
    REQUIRE(calm.t.it.steps(6) == Status::ok);
    CHECK(same_bytes(run.parameters(r), calm.parameters(r)));
  }
}

TEST_CASE("cuda: labels of a data set are looked at when it is set") {
  NNLITE_ON_CUDA(cuda);
  Runs r;
  Run run(r, cuda);
  for (const int wrong : {-1, 10}) {
    r.s->labels[21] = wrong;
    CHECK(run.t.it.set_data(r.data) == Status::bad_label);
    CHECK(std::string(run.t.it.problem().where) == "target");
    CHECK(std::string(run.t.it.problem().what).find("row 21") != std::string::npos);
  }
  r.s->labels[21] = 9;
  CHECK(run.t.it.set_data(r.data) == Status::ok);
  CHECK(run.t.it.steps(3) == Status::ok);
}

namespace {

// Rows come by calls, of which that for `refused` fails.
struct Calls {
  Runs r;
  uint32_t refused = UINT32_MAX;
  Calls() {
    r.data.columns[0].data = r.data.columns[1].data = nullptr;
    r.data.user = this;
    r.data.read = [](void* user, uint32_t index, int column, void* row) {
      const Calls& c = *static_cast<const Calls*>(user);
      if (index == c.refused) return false;
      if (column == 0) std::memcpy(row, c.r.s->x[0].data() + size_t(index) * 9, 9 * sizeof(real));
      else std::memcpy(row, &c.r.s->labels[index], sizeof(int32_t));
      return true;
    };
  }
};

}  // namespace

TEST_CASE("cuda: rows from a read function come by way of the CPU") {
  NNLITE_ON_CUDA(cuda);
  Runs  r;
  Calls read;
  Run resident(r, cuda), called(read.r, cuda);
  REQUIRE(resident.t.it.steps(10) == Status::ok);
  REQUIRE(called.t.it.steps(10) == Status::ok);
  CHECK(double(called.t.it.loss_sum()) == double(resident.t.it.loss_sum()));
  CHECK(same_bytes(called.parameters(read.r), resident.parameters(r)));
}

TEST_CASE("cuda: a row that cannot be read, a wrong label or a loss that is not finite end a run where they are") {
  NNLITE_ON_CUDA(cuda);
  for (const Status expected : {Status::io_error, Status::bad_label, Status::not_finite})
    for (const uint32_t bad : {1u, 20u}) {       // in the first step of 8 rows, and in the third
      CAPTURE(static_cast<int>(expected));
      CAPTURE(bad);
      Runs  r;
      Calls read;
      TrainerOptions o = r.s->training(nullptr);
      o.shuffle = false;
      Run calm(r, cuda, &o), called(read.r, cuda, &o);
      const uint64_t good = bad / 8;
      REQUIRE(calm.t.it.steps(static_cast<int>(good)) == Status::ok);
      if (expected == Status::io_error) read.refused = bad;
      if (expected == Status::not_finite) read.r.s->x[0][bad * 9] = real(NAN);
      if (expected == Status::bad_label) read.r.s->labels[bad] = 77;
      CHECK(called.t.it.steps(4) == expected);
      CHECK(called.t.it.step_number() == good);
      CHECK(called.t.it.epoch_position() == calm.t.it.epoch_position());
      CHECK(same_bytes(called.parameters(read.r), calm.parameters(r)));
    }
}

TEST_CASE("cuda: of a loss that is not finite and a row that cannot be read behind it, the loss is told") {
  NNLITE_ON_CUDA(cuda);
  Calls read;
  TrainerOptions o = read.r.s->training(nullptr);
  o.shuffle = false;
  Run called(read.r, cuda, &o);
  const std::vector<real> before = called.parameters(read.r);
  read.r.s->x[0][3 * 9] = real(NAN), read.refused = 20;
  CHECK(called.t.it.steps(4) == Status::not_finite);
  CHECK(called.t.it.step_number() == 0);
  CHECK(same_bytes(called.parameters(read.r), before));
  read.r.s->x[0][3 * 9] = 0;
  CHECK(called.t.it.steps(4) == Status::io_error);
  CHECK(called.t.it.step_number() == 2);
  CHECK(double(called.t.it.loss_sum()) > 0);
}

TEST_CASE("cuda: pictures change on the device as they do on the CPU, and are drawn there") {
  NNLITE_ON_CUDA(cuda);
  for (const int channels : {1, 3})
    for (const bool bytes : {false, true}) {
      CAPTURE(channels);
      CAPTURE(bytes);
      Subject s;
      Model&  m = s.net.model;
      m.output("y", m.chain(m.input("x", {7, 6, channels}), Flatten{}, Linear{0, 8}, ReLU{}, Linear{0, 10}));
      s.loss = CrossEntropyLoss{}, s.rows = 8;
      REQUIRE(s.finish() == Status::ok);
      s.fill(8 * 20 + 3, 10);
      Dataset data = s.data();
      std::vector<uint8_t> pixels(s.x[0].size());
      for (size_t i = 0; i < pixels.size(); i++) pixels[i] = static_cast<uint8_t>(i * 37 % 251);
      if (bytes) data.columns[0] = {pixels.data(), DType::u8, 1 / 127.5f, -1.0f};
      TrainerOptions o = s.training(nullptr);
      o.augment.degrees = 20, o.augment.scale = 0.2f, o.augment.shear = 0.2f, o.augment.shift = 1;
      o.augment.background = -0.5f;
      if (channels == 1) o.augment.thinner = 0.5f, o.augment.thicker = 0.7f;
      const auto train = [&](const Backend* on, int at_once) {
        o.backend = on;
        PlacedTrainer t(m, o);
        REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
        REQUIRE(t.it.set_data(data) == Status::ok);
        for (int i = 0; i < 44; i += at_once) REQUIRE(t.it.steps(at_once) == Status::ok);
        return all_parameters(m, t.it);
      };
      const std::vector<real> together = train(cuda, 44);      // two epochs
      CHECK(same_bytes(together, train(cuda, 1)));
      CHECK(error_of(as_doubles(together), as_doubles(train(nullptr, 1))) <= 1e-4);
      o.augment.shift = 2;
      CHECK_FALSE(same_bytes(together, train(cuda, 44)));
      o.augment.shift = 1;
#ifdef NNLITE_FAKE_CUDA
      const auto calls = [&] {                   // with nothing in its memory that would have to go first
        (void)emptied();
        const long before = fake::calls();
        (void)train(cuda, 44);
        return fake::calls() - before;
      };
      const long changed = calls();
      o.augment = {};
      CHECK(std::abs(changed - calls()) < 9);    // some launches more in a graph, no copies
#endif
    }
}
