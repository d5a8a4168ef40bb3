// Trains a reference network on synthetic data and prints one line: a CRC-32C of all parameters after the
// steps, and one of outputs. Built by many compilers and run on many threads and instruction sets, the line
// must be the same.
//
//   same_bits ARCH STEPS [THREADS [places]]      ARCH: a name of tools/reference.hpp
//   places: one sample's output is also compared in batches of 7 and 64, at the first, a middle and the last
#include "nnlite.hpp"

#include <cstdio>
#include <cstdlib>

#include "../tools/reference.hpp"
#include "engine.hpp"

using namespace nnlite;

namespace {

uint32_t crc_of(const std::vector<real>& v) { return crc32c(0, v.data(), v.size() * sizeof(real)); }

// A data set of 257 rows, so that the last batch of an epoch is a smaller one.
struct Data {
  static constexpr int count = 257;
  std::vector<float>   x;
  std::vector<int32_t> labels;
  Dataset set;
  Data(const Model& model, int classes) : labels(random_labels(2, count, classes)) {
    const int64_t row = model.input_shape(0).row_numel();
    x = random_values(1, static_cast<size_t>(count * row));
    set.count = count;
    set.columns[0].data  = x.data();
    set.columns[1].data  = labels.data();
    set.columns[1].dtype = DType::i32;
  }
};

// The outputs of one sample: alone, and in larger batches at three places.
bool same_at_every_place(const Trainer& trainer, const Data& data, Pool* pool, bool all,
                         std::vector<real>& first) {
  bool same = true;
  for (int rows : {1, 7, 64}) {
    if (rows > 1 && !all) continue;
    SessionOptions o;
    o.batch = rows;
    o.pool  = pool;
    MemoryPlan plan;
    if (!ok(Session::plan(*trainer.model(), o, plan))) return false;
    Guarded memory(plan.total);
    Arena   arena = memory.arena();
    Session session;
    if (!ok(session.build(trainer, o, arena))) return false;
    for (int place : {0, rows / 2, rows - 1}) {
      const int64_t n = session.input().shape.row_numel();
      for (int r = 0; r < rows; r++) {
        const float* from = data.x.data() + (r == place ? 0 : r + 5) * n;
        for (int64_t i = 0; i < n; i++) session.input().row(r)[i] = from[i];
      }
      if (!ok(session.forward(rows))) return false;
      const View<const real> y = session.output();
      const std::vector<real> row(y.row(place), y.row(place) + y.shape.row_numel());
      if (first.empty()) first = row;
      same &= same_bytes(row, first);
    }
  }
  return same;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const reference::Named* named = nullptr;
  for (const reference::Named& n : reference::networks) if (std::string(argv[1]) == n.name) named = &n;
  if (named == nullptr || named->classes == 0) return 2;
  Net net(size_t(1) << 17);
  const Tensor x = net.model.input("image", named->input);
  net.model.output("logits", named->build(net.model, x, named->classes));
  if (!ok(net.model.finish(Seed{1}))) return 1;
  const Data data(net.model, named->classes);
  ThreadPool pool(argc > 3 ? std::atoi(argv[3]) : 1);
  TrainerOptions o;
  o.batch     = std::string(argv[1]) == "resnet8" ? 8 : 32;
  o.loss      = CrossEntropyLoss{};
  o.optimizer = SGD{0.02f, 0.9f};
  o.schedule  = CosineAnnealingLR{};
  o.epochs    = 50;                            // longer than any run: the rate never gets to zero
  const std::string name = argv[1];            // clipping needs all gradients first: no fused updates
  o.clip_norm = name == "resnet8" || name == "dscnn" ? 5.0f : 0;
  o.seed      = 3;
  o.pool      = &pool;
  PlacedTrainer trainer(net.model, o);
  if (ok(trainer.status)) trainer.status = trainer.it.set_data(data.set);
  if (ok(trainer.status)) trainer.status = trainer.it.steps(std::atoi(argv[2]));
  if (!ok(trainer.status)) {
    std::printf("failed: %s\n", trainer.problem().c_str());
    return 1;
  }
  std::vector<real> outputs;
  if (!same_at_every_place(trainer.it, data, &pool, argc > 4, outputs)) {
    std::printf("failed: the output of a sample depends on its batch or its place\n");
    return 1;
  }
  const std::vector<real> parameters = all_parameters(net.model, trainer.it);
  std::printf("%s %s steps: loss %a parameters %08x outputs %08x\n", argv[1], argv[2],
              double(trainer.it.loss()), crc_of(parameters), crc_of(outputs));
}
