// Trains the smallest network that can do what a single layer cannot: exclusive or.
//
// It shows the whole way of a training program once: describe the network, ask how many bytes training takes,
// give that memory, step, look at the answers. All memory is static: it would run on a microcontroller.
//
//   g++ -O2 -std=c++17 -I.. train_xor.cpp -o train_xor && ./train_xor
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

#include <stdio.h>

using namespace nnlite;

alignas(64) static unsigned char graph_buffer[4096];         // the records of the network
alignas(64) static unsigned char memory[16384];              // everything that training needs

static int report(const Problem& problem) {
  fprintf(stderr, "train_xor: %s: %s: %s\n", to_string(problem.status), problem.where, problem.what);
  return 1;
}

int main() {
  const float inputs[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
  const float targets[4]   = {0, 1, 1, 0};

  Model model(graph_buffer);
  Tensor x = model.input("x", {2});
  x = model.chain(x, Linear{2, 8}, Tanh{}, Linear{8, 1});
  model.output("logit", x);
  if (!ok(model.finish(Seed{1}))) return report(model.problem());

  TrainerOptions options;
  options.batch     = 4;
  options.loss      = BCEWithLogitsLoss{};
  options.optimizer = Adam{0.1f};
  MemoryPlan plan;
  if (!ok(Trainer::plan(model, options, plan))) return report(plan.problem);
  printf("training takes %zu bytes: weights %zu, optimizer %zu, activations %zu, state %zu, scratch %zu\n",
         plan.total, plan.weights, plan.optimizer, plan.activations, plan.state, plan.scratch);

  Arena arena(memory, sizeof memory);
  Trainer trainer;
  if (!ok(trainer.build(model, options, arena))) return report(trainer.problem());
  for (int step = 1; step <= 200; step++) {
    if (!ok(trainer.step(Batch{inputs, targets, 4}))) return report(trainer.problem());
    if (step % 50 == 0) printf("step %3d  loss %.6f\n", step, static_cast<double>(trainer.loss()));
  }

  Session session;                                           // sees the weights of the moment
  SessionOptions run;
  run.batch = 4;
  if (!ok(session.build(trainer, run, arena))) return report(session.problem());
  for (int i = 0; i < 8; i++) session.input()[i] = inputs[i / 2][i % 2];
  if (!ok(session.forward(4))) return report(session.problem());
  int right = 0;
  for (int i = 0; i < 4; i++) {
    const bool answer = session.output()[i] > 0;             // above zero: a probability above 1/2
    right += answer == (targets[i] > 0);
    printf("%g xor %g = %d\n", static_cast<double>(inputs[i][0]), static_cast<double>(inputs[i][1]), answer);
  }
  return right == 4 ? 0 : 1;
}
