// After build nothing is taken from the heap: malloc and operator new are counted over a forward pass and
// 1,000 steps.
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

#include <cstdio>

#include "../tools/allocations.hpp"
#include "../tools/reference.hpp"
#include "engine.hpp"

using namespace nnlite;

namespace {

// Allocations of 1,000 training steps and 100 forward passes after build; -1 where something failed.
using Build = Tensor (*)(Model&, Tensor, int);
int64_t allocations_of(const char* name, const Dims& input, Build build, Pool& pool) {
  Net net(size_t(1) << 16);
  net.model.output("logits", build(net.model, net.model.input("image", input), 10));
  if (!ok(net.model.finish(Seed{1}))) return -1;
  const std::vector<float> x = random_values(1, static_cast<size_t>(net.model.input_shape(0).numel(19)));
  const std::vector<int32_t> labels = random_labels(2, 19, 10);
  Dataset data;
  data.count = 19;
  data.columns[0].data  = x.data();
  data.columns[1].data  = labels.data();
  data.columns[1].dtype = DType::i32;
  TrainerOptions o;
  o.batch     = 4;
  o.loss      = CrossEntropyLoss{};
  o.optimizer = Adam{};
  o.clip_norm = name[0] == 'r' ? 1.0f : 0;     // clipping needs all gradients first: no fused updates
  o.pool      = &pool;
  PlacedTrainer trainer(net.model, o);
  SessionOptions so;
  so.batch = 4;
  so.pool  = &pool;
  MemoryPlan plan;
  Session session;
  if (!ok(trainer.status) || !ok(trainer.it.set_data(data))) return -1;
  if (!ok(Session::plan(net.model, so, plan))) return -1;
  Guarded memory(plan.total);
  Arena   arena = memory.arena();
  if (!ok(session.build(trainer.it, so, arena))) return -1;
  const int64_t before = allocation_count();
  bool fine = ok(trainer.it.steps(1000));
  for (int i = 0; i < 100; i++) {
    for (int64_t k = 0; k < session.input().size(); k++) session.input()[k] = x[static_cast<size_t>(k)];
    fine &= ok(session.forward(1 + i % 4));
  }
  const int64_t taken = allocation_count() - before;
  std::printf("%s: %d allocations in 1,000 steps and 100 forward passes\n", name, int(taken));
  return fine ? taken : -1;
}

}  // namespace

int main() {
  if (allocation_count() < 0) {
    std::printf("SKIP: allocations cannot be counted here (sanitizers, other C libraries)\n");
    return 77;
  }
  const int64_t before = allocation_count();
  int* volatile one = new int(1);              // volatile: compilers may leave the pair out
  delete one;
  if (allocation_count() == before) {
    std::printf("operator new is not counted\n");
    return 1;
  }
  ThreadPool pool(2);
  const int64_t a = allocations_of("lenet", {28, 28, 1}, reference::lenet, pool);
  const int64_t b = allocations_of("resnet8 on 8 x 8", {8, 8, 3}, reference::resnet8, pool);
  return a == 0 && b == 0 ? 0 : 1;
}
