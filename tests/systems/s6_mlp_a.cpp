// S6: MNIST, 784-200-200-10, ReLU, log-softmax and NLL, SGD with momentum 0.9. A line of log every 200 steps.
#include "system.hpp"

using namespace nnlite;

static double accuracy_after(const systems::Mnist& mnist, int epochs) {
  unsigned char graph_buffer[8192];
  Model model(graph_buffer);
  Tensor x = model.input("image", {28, 28, 1});
  x = model.chain(x, Flatten{}, Linear{0, 200}, ReLU{}, Linear{0, 200}, ReLU{}, Linear{0, 10}, LogSoftmax{});
  model.output("log_probability", x);
  REQUIRE(model.finish(Seed{1}) == Status::ok);
  TrainerOptions options;
  options.batch     = 64;
  options.loss      = NLLLoss{};
  options.optimizer = SGD{0.05f, 0.9f};
  options.schedule  = CosineAnnealingLR{};
  options.epochs    = epochs;
  options.seed      = 1;
  const uint64_t per_epoch = (mnist.train.count() + 63) / 64;
  return systems::train_and_test(model, options, mnist, {}, per_epoch * static_cast<uint64_t>(epochs),
                                 [&](const Trainer& t) {
    if (t.step_number() % 200 != 0) return;
    const size_t seen = t.epoch_position(), all = mnist.train.count();
    std::printf("epoch %2u [%5zu/%zu (%2zu%%)]  loss %.6f\n", t.epoch() + 1, seen, all, 100 * seen / all,
                double(t.loss()));
  });
}

TEST_CASE("S6 short: MLP 784-200-200-10, one epoch") {
  systems::Mnist mnist;
  if (systems::read_mnist(mnist)) CHECK(accuracy_after(mnist, 1) >= 0.955);
}

TEST_CASE("S6 full: MLP 784-200-200-10 reaches 98.0 % on the test digits") {
  systems::Mnist mnist;
  if (systems::read_mnist(mnist)) CHECK(accuracy_after(mnist, 10) >= 0.980);
}
