// S4: linear regression. y = c x on six points, mean squared error, gradient descent 0.01 from c = 0.
#include <string>

#include "system.hpp"

using namespace nnlite;

// The number as a table prints it.
static std::string rounded(real value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, static_cast<double>(value));
  return text;
}

TEST_CASE("S4: y = c x: c and the loss are exact to the digits given") {
  const real x[] = {1, 2, 3, 4, 5, 6};
  const real y[] = {real(3.07), real(5.93), real(9.04), real(11.97), real(15.12), real(17.89)};
  unsigned char graph_buffer[4096];
  Model model(graph_buffer);
  model.output("y", model.add(Linear{1, 1, false}, model.input("x", {1})));
  REQUIRE(model.finish(Seed{1}) == Status::ok);
  TrainerOptions options;
  options.batch     = 6;
  options.loss      = MSELoss{};
  options.optimizer = SGD{0.01f};
  systems::Memory memory(8192);
  Trainer trainer;
  REQUIRE(trainer.build(model, options, memory.arena) == Status::ok);
  const real zero = 0;
  REQUIRE(trainer.set(0, &zero) == Status::ok);

  struct Row {
    uint64_t    update;
    const char *c, *loss;                      // after the update; before it
  };
  const Row rows[] = {{1, "0.9096", "136.376"}, {11, "2.9423", "0.1053"}, {21, "2.9971", "0.0065"},
                      {31, "2.9985", "0.0064"}, {41, "2.9986", "0.0064"}, {100, "2.9986", "0.0064"}};
  for (const Row& row : rows) {
    while (trainer.step_number() < row.update) REQUIRE(trainer.step(Batch{x, y, 6}) == Status::ok);
    real c = 0;
    REQUIRE(trainer.get(0, &c) == Status::ok);
    const int digits = row.update == 1 ? 3 : 4;
    const std::string c_text = rounded(c, 4), loss_text = rounded(trainer.loss(), digits);
    std::printf("update %3d  loss %s  c %s\n", int(row.update), loss_text.c_str(), c_text.c_str());
    CHECK(c_text == row.c);
    CHECK(loss_text == row.loss);
  }
}
