#include <doctest/doctest.h>
#include <unistd.h>

#include "nnl_file.hpp"

using namespace nnlite;
using namespace nnl_file;

namespace {

// A network with a normalisation, a dropout and a layer that may be frozen, on data that is made up.
struct Run {
  std::vector<unsigned char> records = std::vector<unsigned char>(65536), pixels;
  std::vector<int32_t>       labels;
  Model          own{records.data(), records.size()};
  const Model*   model = &own;
  Block          memory{1 << 20};
  Arena          arena{memory.data(), memory.size()};
  TrainerOptions options;
  Dataset        data;
  Trainer        trainer;

  explicit Run(bool freeze = false) {
    Tensor x = own.input("image", {6, 6, 1});
    x = own.add("conv", Conv2d{1, 5, 3, 1, 1}, x);
    if (freeze) own.freeze(x);
    x = own.chain(x, BatchNorm2d{}, ReLU{}, MaxPool2d{2}, Flatten{}, Dropout{0.25f});
    own.output("logits", own.add("head", Linear{0, 3}, x));
    REQUIRE(own.finish(Seed{5}) == Status::ok);
    REQUIRE(own.materialise(arena) == Status::ok);
    for (int i = 0; i < 20 * 36; ++i) pixels.push_back(uint8_t(i * 71 % 251));
    for (int i = 0; i < 20; ++i) labels.push_back(i * 7 % 3);
    data.count            = 20;
    data.columns[0].data  = pixels.data();
    data.columns[0].dtype = DType::u8;
    data.columns[0].scale = 1.0f / 255.0f;
    data.columns[1].data  = labels.data();
    data.columns[1].dtype = DType::i32;
    options.batch     = 8;
    options.loss      = CrossEntropyLoss{};
    options.optimizer = SGD{0.05f, 0.9f};
    options.seed      = 11;
  }
  void augment() {
    options.augment.degrees    = 15;
    options.augment.scale      = 0.25f;
    options.augment.shear      = 0.125f;
    options.augment.shift      = 2;
    options.augment.thinner    = 0.5f;
    options.augment.thicker    = 0.75f;
    options.augment.background = -0.5f;
  }
  Status build() {
    const Status s = trainer.build(*model, options, arena);
    return ok(s) ? trainer.set_data(data) : s;
  }
  Bytes checkpoint() const {
    Bytes b;
    return ok(save_checkpoint(trainer, sink_to(b))) ? b : Bytes();
  }
};

Source source_of(const Bytes& b) { return memory_source(b.data(), b.size()); }

// A loss and an optimizer that this header does not know.
struct ScaledError {
  float scale = 1.0f;
  NNLITE_OP;
};
Status scaled_error_shape(ScaledError&, OpShape& s) {
  if (s.in[1].rank == 0) s.in[1] = s.in[0];
  s.in_dtype[1] = real_dtype;
  s.out.rank    = 1;
  s.out.dim[0]  = 1;
  s.dx_reads_in = 3;
  return Status::ok;
}
void scaled_error_forward(const ScaledError& a, const OpRun& r) {
  r.out()[0] = 0;
  for (int64_t i = 0; i < r.in_numel(0); ++i) r.out()[0] += a.scale * (r.in(0)[i] - r.in(1)[i]) * (r.in(0)[i] - r.in(1)[i]);
}
void scaled_error_backward(const ScaledError& a, const OpRun& r) {
  for (int64_t i = 0; i < r.in_numel(0); ++i) r.dx(0)[i] = 2 * a.scale * (r.in(0)[i] - r.in(1)[i]);
}
NNLITE_DEFINE_OP_INPUTS(ScaledError, scaled_error, "acme.ScaledError", 1, 2, 2, traits::loss, NNLITE_FIELD(1, scale));

struct Heavy {
  float lr = 0.01f, momentum = 0.5f;
  NNLITE_OP;
};
Status heavy_shape(Heavy&, OpShape& s) {
  s.out      = s.in[0];
  s.n_slots  = 1;
  s.slots[0] = SlotSpec{Keep::saved, real_dtype, false, s.in[0].numel(1)};
  return Status::ok;
}
void heavy_forward(const Heavy& a, const OpRun& r) {
  for (int64_t i = 0; i < r.in_numel(0); ++i) {
    r.slot(0)[i] = a.momentum * r.slot(0)[i] + r.dparameter(0)[i];
    r.parameter(0)[i] -= a.lr * r.slot(0)[i];
  }
}
void heavy_backward(const Heavy&, const OpRun&) {}
NNLITE_DEFINE_OP(Heavy, heavy, "acme.Heavy", 1, traits::optimizer, NNLITE_FIELD(1, lr), NNLITE_FIELD(2, momentum));

// A line through made-up points, by the two above.
struct OwnRun {
  std::vector<unsigned char> records = std::vector<unsigned char>(4096);
  Model          model{records.data(), records.size()};
  Block          memory{1 << 16};
  Arena          arena{memory.data(), memory.size()};
  TrainerOptions options;
  Trainer        trainer;
  real           x[4] = {1, 2, 3, 4}, y[4] = {3, 5, 7, 10};

  OwnRun() {
    model.output("y", model.add("line", Linear{1, 1}, model.input("x", {1})));
    REQUIRE(model.finish(Seed{2}) == Status::ok);
    options.batch     = 4;
    options.loss      = ScaledError{0.25f};
    options.optimizer = Heavy{0.02f};
  }
  Bytes run(int steps) {
    for (int i = 0; i < steps; ++i) REQUIRE(trainer.step(Batch{x, y, 4}) == Status::ok);
    Bytes b;
    REQUIRE(save_checkpoint(trainer, sink_to(b)) == Status::ok);
    return b;
  }
};

}  // namespace

TEST_CASE("checkpoint: a run that was stopped at any step and resumed ends with the same bytes") {
  const AnyOp optimizers[] = {SGD{0.05f, 0.9f, 0.1f, 1e-3f}, SGD{0.05f}, Adagrad{}, RMSprop{1e-3f, 0.9f, 1e-8f, 0.0f, 0.5f},
                              Adam{}, AdamW{}};
  const AnyOp schedules[]  = {AnyOp(), StepLR{1, 0.5f}, OneCycleLR{}, CosineAnnealingLR{}, ExponentialLR{}, ConstantLR{}};
  for (int k = 0; k < 6; ++k) {
    Run whole;
    whole.options.optimizer = optimizers[k];
    whole.options.schedule  = schedules[k];
    whole.options.epochs    = 4;
    whole.options.clip_norm = k == 2 ? 0.5f : 0.0f;
    if (k % 2 == 1) whole.augment();
    REQUIRE(whole.build() == Status::ok);
    std::vector<Bytes> at;
    for (int step = 0; step < 10; ++step) {
      at.push_back(whole.checkpoint());
      REQUIRE_FALSE(at.back().empty());
      REQUIRE(whole.trainer.step() == Status::ok);
    }
    const Bytes end = whole.checkpoint();
    Bytes       model;
    REQUIRE(save(whole.trainer, sink_to(model)) == Status::ok);
    for (int step = 0; step < 10; ++step) {
      Run again;
      REQUIRE(read_options(source_of(at[size_t(step)]), again.options) == Status::ok);
      REQUIRE(again.build() == Status::ok);
      const Status resumed = again.trainer.resume(source_of(at[size_t(step)]));
      REQUIRE_MESSAGE(resumed == Status::ok, again.trainer.problem().where << ": " << again.trainer.problem().what);
      CHECK(again.trainer.step_number() == uint64_t(step));
      CHECK(again.checkpoint() == at[size_t(step)]);
      REQUIRE(again.trainer.steps(10 - step) == Status::ok);
      CHECK(again.checkpoint() == end);
      Bytes same;
      REQUIRE(save(again.trainer, sink_to(same)) == Status::ok);
      CHECK(same == model);
    }
  }
}

TEST_CASE("checkpoint: the model that resumes may come from the checkpoint itself") {
  Run whole;
  REQUIRE(whole.build() == Status::ok);
  REQUIRE(whole.trainer.steps(3) == Status::ok);
  const Bytes stop = whole.checkpoint();
  REQUIRE(whole.trainer.steps(4) == Status::ok);
  const Loaded loaded(stop);
  REQUIRE_MESSAGE(loaded.status == Status::ok, loaded.model.problem().where << ": " << loaded.model.problem().what);
  Run again;
  again.model = &loaded.model;
  REQUIRE(read_options(source_of(stop), again.options) == Status::ok);
  REQUIRE(again.build() == Status::ok);
  REQUIRE(again.trainer.resume(source_of(stop)) == Status::ok);
  REQUIRE(again.trainer.steps(4) == Status::ok);
  CHECK(again.checkpoint() == whole.checkpoint());
}

TEST_CASE("checkpoint: read_options gives back every option") {
  Run a;
  const char* const names[] = {"head", "conv.bias"};
  a.options.warmup_steps = 3;
  a.options.epochs       = 7;
  a.options.clip_value   = 0.5f;
  a.options.clip_norm    = 2.0f;
  a.options.trainable    = Trainable::named;
  a.options.names        = names;
  a.options.name_count   = 2;
  a.options.shuffle      = false;
  a.options.drop_last    = true;
  a.augment();
  a.options.schedule     = StepLR{2, 0.25f};
  a.options.optimizer    = Adam{0.5f};
  a.options.loss         = CrossEntropyLoss{0.125f};
  REQUIRE(a.build() == Status::ok);
  REQUIRE(a.trainer.step() == Status::ok);
  const Bytes    stop = a.checkpoint();
  TrainerOptions o;
  Problem        problem;
  CHECK(read_options(source_of(stop), o, nullptr, &problem) == Status::out_of_memory);
  Block memory(4096);
  Arena arena(memory.data(), memory.size());
  REQUIRE(read_options(source_of(stop), o, &arena, &problem) == Status::ok);
  CHECK(o.batch == 8);
  CHECK(o.warmup_steps == 3);
  CHECK(o.epochs == 7);
  CHECK(o.clip_value == 0.5f);
  CHECK(o.clip_norm == 2.0f);
  CHECK(o.trainable == Trainable::named);
  CHECK(o.name_count == 3);
  CHECK(std::string(o.names[0]) == "conv.bias");
  CHECK(std::string(o.names[1]) == "head.bias");
  CHECK_FALSE(o.shuffle);
  CHECK(o.drop_last);
  CHECK(o.seed == 11);
  CHECK(std::memcmp(&o.augment, &a.options.augment, sizeof(Augment)) == 0);
  CHECK(static_cast<const StepLR*>(o.schedule.attributes())->step_size == 2);
  CHECK(static_cast<const Adam*>(o.optimizer.attributes())->lr == 0.5f);
  CHECK(static_cast<const CrossEntropyLoss*>(o.loss.attributes())->label_smoothing == 0.125f);
  Run b;
  b.options = o;
  REQUIRE(b.build() == Status::ok);
  REQUIRE(b.trainer.resume(source_of(stop)) == Status::ok);
  CHECK(b.checkpoint() == stop);
}

TEST_CASE("checkpoint: what does not fit is refused and changes nothing") {
  Run a;
  REQUIRE(a.build() == Status::ok);
  REQUIRE(a.trainer.steps(2) == Status::ok);
  const Bytes stop = a.checkpoint();
  const auto  refused = [&](Run& r, const Bytes& file, Status expected) {
    REQUIRE(r.build() == Status::ok);
    const Bytes before = r.checkpoint();
    CHECK(r.trainer.resume(source_of(file)) == expected);
    CHECK(r.trainer.problem().status == expected);
    CHECK(r.checkpoint() == before);
  };
  Run other_data, other_optimizer, other_parameters, frozen(true), model_file, arithmetic, damaged, random;
  other_data.labels[4] = (other_data.labels[4] + 1) % 3;
  refused(other_data, stop, Status::wrong_data);
  other_optimizer.options.optimizer = AdamW{};
  refused(other_optimizer, stop, Status::bad_graph);                     // it has other states
  other_parameters.options.trainable = Trainable::head;
  refused(other_parameters, stop, Status::bad_graph);
  refused(frozen, stop, Status::bad_graph);
  refused(model_file, saved(a.own), Status::bad_format);
  Bytes b = stop;
  put(b, find(b, 0x40).offset, 4, NNLITE_ARITHMETIC + 1);
  repair(b);
  refused(arithmetic, b, Status::wrong_arithmetic);
  CHECK(arithmetic.trainer.resume(source_of(b), true) == Status::ok);
  b = stop;
  b[find(b, 0xFFFF).offset + 3] ^= 1;
  refused(damaged, b, Status::bad_checksum);
  b = stop;
  put(b, find(b, 0x43).offset, 4, 2);
  repair(b);
  refused(random, b, Status::unsupported);
}

TEST_CASE("checkpoint: a loss and an optimizer of one's own are resumed") {
  OwnRun whole;
  REQUIRE(whole.trainer.build(whole.model, whole.options, whole.arena) == Status::ok);
  const Bytes stop = whole.run(3), end = whole.run(4);
  OwnRun      again;
  again.options = TrainerOptions();
  Problem problem;
  CHECK(read_options(source_of(stop), again.options, nullptr, &problem) == Status::unknown_op);
  CHECK(std::string(problem.where) == "acme.Heavy");
  const Op* const own[] = {&Heavy::op, &ScaledError::op};
  REQUIRE(read_options(source_of(stop), again.options, nullptr, &problem, OpSet{own, 2}) == Status::ok);
  CHECK(static_cast<const Heavy*>(again.options.optimizer.attributes())->lr == 0.02f);
  CHECK(static_cast<const ScaledError*>(again.options.loss.attributes())->scale == 0.25f);
  REQUIRE(again.trainer.build(again.model, again.options, again.arena) == Status::ok);
  REQUIRE(again.trainer.resume(source_of(stop)) == Status::ok);
  CHECK(again.run(0) == stop);
  CHECK(again.run(4) == end);
}

TEST_CASE("checkpoint: a trainer with other options is refused by name, with another length or pool it is not") {
  Run a;
  a.options.schedule = StepLR{2, 0.5f};
  REQUIRE(a.build() == Status::ok);
  REQUIRE(a.trainer.steps(2) == Status::ok);
  const Bytes stop = a.checkpoint();
  const struct {
    const char* name;
    void (*change)(TrainerOptions& o);
  } changes[] = {{"batch", [](TrainerOptions& o) { o.batch = 4; }},
                 {"warmup_steps", [](TrainerOptions& o) { o.warmup_steps = 1; }},
                 {"clip_value", [](TrainerOptions& o) { o.clip_value = 1; }},
                 {"clip_norm", [](TrainerOptions& o) { o.clip_norm = 1; }},
                 {"shuffle, drop_last or derived_weights", [](TrainerOptions& o) { o.drop_last = true; }},
                 {"shuffle, drop_last or derived_weights", [](TrainerOptions& o) { o.derived_weights = false; }},
                 {"lr", [](TrainerOptions& o) { o.optimizer = SGD{0.1f, 0.9f}; }},
                 {"nesterov", [](TrainerOptions& o) { o.optimizer = SGD{0.05f, 0.9f, 0, 0, true}; }},
                 {"optimizer", [](TrainerOptions& o) { o.optimizer = Adagrad{}; }},                  // one state, as SGD
                 {"gamma", [](TrainerOptions& o) { o.schedule = StepLR{2, 0.25f}; }},
                 {"schedule", [](TrainerOptions& o) { o.schedule = AnyOp(); }},
                 {"label_smoothing", [](TrainerOptions& o) { o.loss = CrossEntropyLoss{0.5f}; }}};
  for (const auto& c : changes) {
    Run b;
    b.options = a.options;
    c.change(b.options);
    REQUIRE(b.build() == Status::ok);
    const Bytes before = b.checkpoint();
    CHECK_MESSAGE(b.trainer.resume(source_of(stop)) == Status::bad_argument, c.name);
    CHECK(std::string(b.trainer.problem().where) == c.name);
    CHECK(b.checkpoint() == before);
  }
  Run        c;
  ThreadPool pool(2);
  c.options                = a.options;
  c.options.epochs         = 9;
  c.options.pool           = &pool;
  c.options.keep_gradients = true;
  c.options.seed           = 99;
  REQUIRE(c.build() == Status::ok);
  REQUIRE(c.trainer.resume(source_of(stop)) == Status::ok);
  REQUIRE(a.trainer.steps(3) == Status::ok);
  REQUIRE(c.trainer.steps(3) == Status::ok);
  Bytes x, y;
  REQUIRE(save(a.trainer, sink_to(x)) == Status::ok);
  REQUIRE(save(c.trainer, sink_to(y)) == Status::ok);
  CHECK(x == y);
}

TEST_CASE("checkpoint: frozen weights must be those of the checkpoint") {
  Run a(true);
  REQUIRE(a.build() == Status::ok);
  REQUIRE(a.trainer.steps(2) == Status::ok);
  const Bytes stop = a.checkpoint();
  Bytes       b    = stop;
  b[find(b, 0xFFFF).offset + 3] ^= 1;                                    // conv.weight, which is not trained
  repair(b);
  Run c(true);
  REQUIRE(c.build() == Status::ok);
  CHECK(c.trainer.resume(source_of(b)) == Status::bad_graph);
  CHECK(c.trainer.resume(source_of(stop)) == Status::ok);
  CHECK(c.checkpoint() == stop);
}

TEST_CASE("checkpoint: every truncation and every single-bit flip is refused") {
  Run a;
  REQUIRE(a.build() == Status::ok);
  REQUIRE(a.trainer.steps(1) == Status::ok);
  const Bytes stop = a.checkpoint();
  Run         r;
  REQUIRE(r.build() == Status::ok);
  int  resumed = 0;
  for (size_t n = 0; n < stop.size(); n += 1) resumed += ok(r.trainer.resume(source_of(Bytes(stop.begin(), stop.begin() + long(n)))));
  Bytes b = stop;
  for (size_t bit = 0; bit < 8 * b.size(); bit += bit < 8 * 4096 ? 1 : 37) {
    b[bit / 8] = uint8_t(b[bit / 8] ^ (1u << (bit % 8)));
    resumed += ok(r.trainer.resume(source_of(b)));
    b[bit / 8] = uint8_t(b[bit / 8] ^ (1u << (bit % 8)));
  }
  CHECK(resumed == 0);
}

TEST_CASE("checkpoint: augmentation is a section of its own, absent when it is off") {
  Run a, b;
  REQUIRE(a.build() == Status::ok);
  CHECK(find(a.checkpoint(), 0x47).record == 0);
  b.augment();
  REQUIRE(b.build() == Status::ok);
  const Bytes file = b.checkpoint();
  CHECK(find(file, 0x47).size == 32);
  TrainerOptions o = b.options;
  REQUIRE(read_options(source_of(a.checkpoint()), o) == Status::ok);
  CHECK(o.augment.degrees == 0);
  for (int k = 0; k < 3; ++k) {
    Bytes bad = file;
    if (k == 0) put(bad, find(bad, 0x47).offset + 28, 4, 1);             // reserved
    if (k == 1) put(bad, find(bad, 0x47).offset, 4, 0x43340001);         // a little more than 180 degrees
    for (size_t i = 0; i < 24 && k == 2; ++i) bad[find(bad, 0x47).offset + i] = 0;       // off, but there
    repair(bad);
    CHECK(read_options(source_of(bad), o) == Status::bad_format);
  }
}

TEST_CASE("checkpoint: a changed byte with right checksums is refused, or saved again as it is") {
  Run a;
  a.augment();
  REQUIRE(a.build() == Status::ok);
  REQUIRE(a.trainer.steps(1) == Status::ok);
  const Bytes stop  = a.checkpoint();
  const Place first = find(stop, 0x40), last = find(stop, 0x47);
  for (size_t at = first.offset; at < last.offset + last.size; ++at)
    for (int add : {1, 128, 255}) {
      Bytes b = stop;
      b[at]   = uint8_t(b[at] + add);
      repair(b);
      Run r;
      if (!ok(read_options(source_of(b), r.options)) || !ok(r.build()) || !ok(r.trainer.resume(source_of(b)))) continue;
      Bytes again = r.checkpoint();
      REQUIRE(again.size() == b.size());
      std::memcpy(b.data() + 64, again.data() + 64, 40);                 // content id and generation
      repair(b);
      CHECK_MESSAGE(again == b, "byte " << at << " + " << add);
    }
}

TEST_CASE("checkpoint: it carries the extras that are given with it") {
  Run            a;
  const Metadata note   = {"training.note", "step 2"};
  ModelExtras    extras;
  extras.metadata       = &note;
  extras.metadata_count = 1;
  REQUIRE(a.build() == Status::ok);
  REQUIRE(a.trainer.steps(2) == Status::ok);
  Bytes with;
  REQUIRE(save_checkpoint(a.trainer, sink_to(with), &extras) == Status::ok);
  CHECK(with != a.checkpoint());
  Block memory{1 << 20};
  Arena arena{memory.data(), memory.size()};
  Model model;
  const Block file(with);
  REQUIRE(model.load(file.data(), file.size(), arena) == Status::ok);
  REQUIRE(model.extras() != nullptr);
  REQUIRE(model.extras()->metadata_count == 1);
  CHECK(std::string(model.extras()->metadata[0].value) == "step 2");
  Run b;
  REQUIRE(read_options(source_of(with), b.options) == Status::ok);
  REQUIRE(b.build() == Status::ok);
  REQUIRE(b.trainer.resume(source_of(with)) == Status::ok);
  CHECK(b.checkpoint() == a.checkpoint());
}

TEST_CASE("checkpoint: to a file and back") {
  Run               a, b;
  const std::string path = "/tmp/nnlite_test_checkpoint_" + std::to_string(getpid()) + ".nnl";
  REQUIRE(a.build() == Status::ok);
  REQUIRE(a.trainer.steps(2) == Status::ok);
  REQUIRE(save_checkpoint(a.trainer, path.c_str()) == Status::ok);
  CHECK(read_file(path) == a.checkpoint());
  REQUIRE(read_options(path.c_str(), b.options) == Status::ok);
  REQUIRE(b.build() == Status::ok);
  REQUIRE(b.trainer.resume(path.c_str()) == Status::ok);
  CHECK(b.checkpoint() == a.checkpoint());
  std::remove(path.c_str());
  CHECK(b.trainer.resume(path.c_str()) == Status::io_error);
}
