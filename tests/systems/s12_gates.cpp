// S12: gates. OR and AND are learned by logistic regression; XOR is not, but by one hidden layer. Adam 0.1.
#include "system.hpp"

using namespace nnlite;

namespace {
// Trains on the four points for 1,000 steps and gives how many are answered right.
int right_answers(const real (&targets)[4], int hidden, uint64_t seed) {
  const real points[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
  unsigned char graph_buffer[4096];
  Model model(graph_buffer);
  Tensor x = model.input("x", {2});
  if (hidden > 0) x = model.chain(x, Linear{2, hidden}, Tanh{});
  model.output("logit", model.add(Linear{0, 1}, x));
  REQUIRE(model.finish(Seed{seed}) == Status::ok);
  TrainerOptions options;
  options.batch     = 4;
  options.loss      = BCEWithLogitsLoss{};
  options.optimizer = Adam{0.1f};
  systems::Memory memory(32768);
  Trainer trainer;
  REQUIRE(trainer.build(model, options, memory.arena) == Status::ok);
  for (int i = 0; i < 1000; i++) REQUIRE(trainer.step(Batch{points, targets, 4}) == Status::ok);
  SessionOptions run;
  run.batch = 4;
  Session session;
  REQUIRE(session.build(trainer, run, memory.arena) == Status::ok);
  for (int i = 0; i < 8; i++) session.input()[i] = points[i / 2][i % 2];
  REQUIRE(session.forward(4) == Status::ok);
  int right = 0;
  for (int i = 0; i < 4; i++) right += (session.output()[i] > 0) == (targets[i] > 0);
  return right;
}
}  // namespace

TEST_CASE("S12: logistic regression learns OR and AND, not XOR; one hidden layer learns XOR") {
  const real or_gate[4] = {0, 1, 1, 1}, and_gate[4] = {0, 0, 0, 1}, xor_gate[4] = {0, 1, 1, 0};
  for (uint64_t seed = 1; seed <= 5; seed++) {
    const int without = right_answers(xor_gate, 0, seed), with = right_answers(xor_gate, 8, seed);
    std::printf("seed %d  XOR without a hidden layer %d %%, with one %d %%\n", static_cast<int>(seed),
                25 * without, 25 * with);
    CHECK(right_answers(or_gate, 0, seed) == 4);
    CHECK(right_answers(and_gate, 0, seed) == 4);
    CHECK(without >= 2);
    CHECK(without <= 3);
    CHECK(with == 4);
  }
}
