// S19: letters of four pixels. 1, 7 and L are learned; then the alphabet changes, and its letters are learned
// by the same network. Every letter comes with clean and with gray pixels.
#include "system.hpp"

using namespace nnlite;

namespace {
struct Alphabet {
  const char* name;
  real pixels[3][4];                           // top left, top right, bottom left, bottom right
};

// Every letter in ink 1, 0.9, 0.8, 0.7 on paper 0, 0.1, 0.2, 0.3.
constexpr int shades = 4, count = 3 * shades;

void draw(const Alphabet& alphabet, real (&x)[count][4], int32_t (&y)[count]) {
  for (int i = 0; i < count; i++) {
    const real gray = real(0.1) * real(i / 3);
    for (int p = 0; p < 4; p++) x[i][p] = gray + alphabet.pixels[i % 3][p] * (1 - 2 * gray);
    y[i] = i % 3;
  }
}

struct Reader {
  unsigned char graph_buffer[4096];
  Model   model{graph_buffer};
  Trainer trainer;
  Session session;
  systems::Memory memory{1 << 15};

  explicit Reader(uint64_t seed) {
    Tensor x = model.chain(model.input("picture", {2, 2, 1}), Flatten{}, Linear{0, 8}, Tanh{}, Linear{0, 3});
    model.output("logits", x);
    REQUIRE(model.finish(Seed{seed}) == Status::ok);
    TrainerOptions options;
    options.batch     = count;
    options.loss      = CrossEntropyLoss{};
    options.optimizer = Adam{0.05f};
    REQUIRE(trainer.build(model, options, memory.arena) == Status::ok);
    SessionOptions run;
    run.batch = count;
    REQUIRE(session.build(trainer, run, memory.arena) == Status::ok);
  }

  // Learns until all are read right and 50 steps more; gives after how many steps that was.
  int learn(const Alphabet& alphabet) {
    real x[count][4];
    int32_t y[count];
    draw(alphabet, x, y);
    int steps = 0;
    for (; steps < 1000 && right(alphabet) < count; steps++) step(x, y);
    for (int i = 0; i < 50; i++) step(x, y);
    return steps;
  }
  void step(const real (&x)[count][4], const int32_t (&y)[count]) {
    REQUIRE(trainer.step(Batch{x, y, count}) == Status::ok);
  }

  int right(const Alphabet& alphabet) {
    real x[count][4];
    int32_t y[count];
    draw(alphabet, x, y);
    for (int i = 0; i < 4 * count; i++) session.input()[i] = x[i / 4][i % 4];
    REQUIRE(session.forward(count) == Status::ok);
    int n = 0;
    for (int i = 0; i < count; i++) n += argmax(session.output().row(i), 3) == y[i];
    return n;
  }
};
}  // namespace

TEST_CASE("S19: letters of four pixels are read, and again after the alphabet changed") {
  const Alphabet first = {"1 7 L", {{0, 1, 0, 1}, {1, 1, 0, 1}, {1, 0, 1, 1}}};
  const Alphabet other = {"J r \\", {{0, 1, 1, 1}, {1, 1, 1, 0}, {1, 0, 0, 1}}};
  for (uint64_t seed = 1; seed <= 5; seed++) {
    Reader reader(seed);
    const int steps = reader.learn(first), before = reader.right(first), unknown = reader.right(other);
    const int more = reader.learn(other), after = reader.right(other);
    std::printf("seed %d  %s: %d %% after %d steps; %s: %d %%, and %d %% after %d steps more\n", int(seed),
                first.name, 100 * before / count, steps, other.name, 100 * unknown / count,
                100 * after / count, more);
    CHECK(before == count);
    CHECK(unknown < count);
    CHECK(after == count);
  }
}
