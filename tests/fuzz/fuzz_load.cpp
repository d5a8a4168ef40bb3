// Any byte string is safe to load; what is accepted runs forward, trains one step, and is saved again.
//
// With clang and -fsanitize=fuzzer -DNNLITE_LIBFUZZER (tests/README.md) this is a libFuzzer target whose mutator repairs
// checksums. Without, it is a program: fuzz_load RUNS [SEED] runs its own mutator, fuzz_load --seeds FOLDER writes the
// files to start from.
#include "nnl_file.hpp"

using namespace nnlite;
using namespace nnl_file;

namespace {

constexpr size_t  largest_arena = size_t(8) << 20;
constexpr int64_t largest_work  = 1000000;     // multiply-adds of a row
struct Counts {
  long runs = 0, accepted = 0, forward = 0, trained = 0, resumed = 0;
} counts;

void check(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "fuzz_load: %s\n", what);
  std::abort();
}

bool small_enough(const Model& m) {
  int64_t work = m.parameter_elements();
  for (int i = 0; i < m.node_count() && work <= largest_work; ++i) work += m.node(i).macs + m.node(i).shape.row_numel();
  return work <= largest_work;
}

void run_forward(const Model& m) {
  SessionOptions options;
  MemoryPlan     plan;
  options.batch = 2;
  if (!ok(Session::plan(m, options, plan)) || plan.total > largest_arena) return;
  const Block memory(plan.total);
  Arena       arena(memory.data(), plan.total);
  Session     session;
  check(ok(session.build(m, options, arena)), "a session that was planned is not built");
  for (int i = 0; i < m.input_count(); ++i)
    for (int64_t k = 0; k < m.input_shape(i).numel(2); ++k) {
      if (m.input_dtype(i) == DType::i32 && session.input_i32(i).data != nullptr) session.input_i32(i)[k] = 0;
      if (m.input_dtype(i) == real_dtype && session.input(i).data != nullptr) session.input(i)[k] = real(k % 5) - 2;
    }
  counts.forward += ok(session.forward(2));
}

// One step on zeros; the trainer is then saved and resumed where it stands.
void run_training(const Model& m, const TrainerOptions& options, const Bytes* checkpoint) {
  MemoryPlan plan;
  if (options.batch > 4 || !ok(Trainer::plan(m, options, plan)) || plan.total > largest_arena) return;
  const Block memory(plan.total);
  Arena       arena(memory.data(), plan.total);
  Trainer     trainer;
  check(ok(trainer.build(m, options, arena)), "a trainer that was planned is not built");
  const auto resume = [&](const Bytes& b) { return ok(trainer.resume(memory_source(b.data(), b.size()))); };
  if (checkpoint != nullptr) counts.resumed += resume(*checkpoint);
  static const Bytes zeros(size_t(4 * largest_work) * sizeof(real));
  Batch       batch;
  batch.rows = options.batch < 2 ? options.batch : 2;
  for (int i = 0; i <= m.input_count(); ++i) batch.data[i] = zeros.data();
  counts.trained += ok(trainer.step(batch));
  Bytes out;
  const Status written = save_checkpoint(trainer, sink_to(out));
  if (written == Status::not_finite) return;   // weights that are no numbers, from the file or the step
  check(ok(written), "a trainer cannot be saved");
  if (checkpoint != nullptr) check(resume(out), "a checkpoint cannot be resumed");
}

int run_one(const uint8_t* data, size_t size) {
  ++counts.runs;
  const Bytes bytes(data, data + size);
  const Block file(bytes);
  LoadOptions options;
  options.copy           = size % 128 != 0;
  options.limits.nodes   = 256;
  options.limits.tensors = 512;
  size_t need            = 0;
  if (!ok(load_size(memory_source(file.data(), size), options, need)) || need > largest_arena) return 0;
  const Block memory(need);
  Arena       arena(memory.data(), need);
  Model       model;
  if (!ok(model.load(file.data(), size, arena, options))) return 0;
  ++counts.accepted;
  check(arena.used() == need, "load does not take what load_size says");
  if (!small_enough(model)) return 0;
  run_forward(model);
  TrainerOptions training;
  if (get(bytes, 20, 4) == 2) {
    const Block names(65536);
    Arena       text(names.data(), names.size());
    if (ok(read_options(memory_source(file.data(), size), training, &text))) run_training(model, training, &bytes);
    return 0;
  }
  Bytes out;
  check(ok(save(model, sink_to(out))), "a loaded model cannot be saved");
  check(out.size() == size, "a loaded model is saved in another size");
  const Block again(out), other(need);
  Arena       second(other.data(), need);
  Model       copy;
  check(ok(copy.load(again.data(), out.size(), second, options)), "a saved model cannot be loaded");
  training.batch     = 2;
  training.optimizer = SGD{0.01f, 0.9f};
  run_training(model, training, nullptr);      // by a loss of its own, if it has one
  training.loss = MSELoss{};
  run_training(model, training, nullptr);
  return 0;
}

uint64_t random_state = 1;
uint32_t draw(uint64_t below) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return uint32_t((random_state >> 33) % (below == 0 ? 1 : below));
}

// A few changes in one section or another, by values that tempt; the checksums are then made right.
void mutate(Bytes& b) {
  static const uint64_t tempting[16] = {0, 1, 2, 3, 7, 15, 16, 17, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000u, 0xFFFFFFFEu, 0xFFFFFFFFu};
  const uint32_t changes = 1 + draw(3);
  for (uint32_t k = 0; k < changes && b.size() > 128; ++k) {
    const Place    p   = find(b, uint32_t(get(b, 128 + 48 * size_t(draw(get(b, 48, 4) % 64)), 4)));
    const size_t   at  = draw(10) == 0 || p.size == 0 ? draw(b.size()) : p.offset + draw(p.size);
    const size_t   to  = draw(2) == 0 ? at / 4 * 4 : at;
    const int      n   = draw(3) == 0 ? 4 : 1;
    const uint64_t old = get(b, to, n);
    const uint32_t how = draw(4);
    put(b, to, n, how == 0 ? tempting[draw(16)] : how == 1 ? old + 1 : how == 2 ? old - 1 : old ^ (uint64_t(1) << draw(uint64_t(8 * n))));
  }
  if (draw(16) != 0) repair(b);
}

struct Maker {
  std::vector<unsigned char> records = std::vector<unsigned char>(65536);
  Model model{records.data(), records.size()};
  Block memory{1 << 20};
  Arena arena{memory.data(), memory.size()};
  Bytes save_model() {
    check(ok(model.finish(Seed{1})) && ok(model.materialise(arena)), "a seed is not built");
    return saved(model);
  }
};

Bytes small_checkpoint(Maker& a) {
  TrainerOptions o;
  Trainer        t;
  Bytes          b;
  o.batch     = 2;
  o.optimizer = Adam{};
  o.schedule  = StepLR{2};
  o.loss      = MSELoss{};
  check(ok(t.build(a.model, o, a.arena)) && ok(save_checkpoint(t, sink_to(b))), "a checkpoint is not built");
  return b;
}

// Most ops, a shared layer, a class label as input, a loss in the graph.
Bytes wide_model() {
  Maker  c;
  Model& m = c.model;
  Tensor x = m.input("picture", {6, 5, 4}), t = m.input("label", {}, DType::i32);
  x = m.chain(x, Conv2d{4, 6, 3, 1, 1, 1, 2}, BatchNorm2d{}, ELU{}, MaxPool2d{2, 1}, Conv2d{6, 6, 3, 1, 1, 1, 6, false});
  Tensor u = m.chain(x, AvgPool2d{2, 2, 0, true}, ConvTranspose2d{6, 3, 2, 2}, Upsample{}, AdaptiveAvgPool2d{2}, Flatten{});
  Tensor v = m.add(Linear{0, 12}, m.chain(x, Flatten{}, Tanh{}, Linear{0, 12}));
  Tensor w = m.share(v, m.add(Mul{}, u, v));
  w = m.add(Concat{1}, m.add(Linear{0, 12}, u), v, m.add(Add{}, w, v));
  x = m.chain(w, BatchNorm1d{}, Linear{0, 3}, LeakyReLU{});
  m.output("scores", m.add(Sigmoid{}, x));
  m.output("loss", m.add(CrossEntropyLoss{0.1f}, x, t));
  return c.save_model();
}

std::vector<Bytes> seeds() {
  Maker a;
  a.model.output("y", a.model.chain(a.model.input("x", {3}), Linear{3, 2}, ReLU{}, Dropout{}, Linear{2, 2}, LogSoftmax{}));
  const Bytes model = a.save_model();
  return {model, small_checkpoint(a), wide_model()};
}

void tell() {
  std::fprintf(stderr, "runs %ld, accepted %ld, forward %ld, trained %ld, resumed %ld\n", counts.runs, counts.accepted,
               counts.forward, counts.trained, counts.resumed);
}

// What trained once: to be changed further.
std::vector<Bytes> pool;
void run_and_keep(const Bytes& b) {
  const long before = counts.trained;
  run_one(b.data(), b.size());
  if (counts.trained == before || draw(4) != 0) return;
  if (pool.size() < 512) pool.push_back(b);
  else pool[draw(pool.size())] = b;
}

}  // namespace

#ifdef NNLITE_LIBFUZZER
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  pool = seeds();
  return std::atexit(tell);
}
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run_and_keep(Bytes(data, data + size));
  return 0;
}
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  random_state = seed;
  Bytes b(data, data + size);
  const uint32_t how = draw(4);
  if (how == 0) {                              // what libFuzzer has in mind, past the checksums
    b.resize(max_size);
    b.resize(LLVMFuzzerMutate(b.data(), size, max_size));
    if (draw(16) != 0) repair(b);
  } else {
    const Bytes& known = pool[draw(pool.size())];
    if (how > 1 && known.size() <= max_size) b = known;
    mutate(b);
  }
  std::memcpy(data, b.data(), b.size());
  return b.size();
}
#else
int main(int argc, char** argv) {
  pool = seeds();
  if (argc == 3 && std::strcmp(argv[1], "--seeds") == 0) {
    for (size_t i = 0; i < pool.size(); ++i) write_file(argv[2] + ("/seed" + std::to_string(i)) + ".nnl", pool[i]);
    return 0;
  }
  const long   runs  = argc > 1 ? std::atol(argv[1]) : 5000;
  const size_t start = pool.size();
  random_state       = argc > 2 ? uint64_t(std::atoll(argv[2])) : 1;
  for (size_t i = 0; i < start; ++i) run_one(pool[i].data(), pool[i].size());
  check(counts.forward == long(start) && counts.resumed == 1, "a seed does not run");
  for (long k = 0; k < runs; ++k) {
    Bytes b = pool[draw(pool.size())];
    mutate(b);
    run_and_keep(b);
  }
  tell();
  return 0;
}
#endif
