// S9: MNIST, a small convolutional network: two convolutions of 5x5 with batch norm, then two linear layers.
#include "system.hpp"

using namespace nnlite;

static double accuracy_after(const systems::Mnist& mnist, int steps) {
  unsigned char graph_buffer[8192];
  Model model(graph_buffer);
  Tensor x = model.input("image", {28, 28, 1});
  x = model.chain(x, Conv2d{1, 16, 5, 1, 2}, BatchNorm2d{}, ReLU{}, MaxPool2d{2});
  x = model.chain(x, Conv2d{16, 32, 5, 1, 2}, BatchNorm2d{}, ReLU{}, MaxPool2d{2});
  x = model.chain(x, Flatten{}, Linear{0, 128}, ReLU{}, Dropout{0.3f}, Linear{0, 10});
  model.output("logits", x);
  REQUIRE(model.finish(Seed{1}) == Status::ok);
  TrainerOptions options;
  options.batch     = 64;
  options.loss      = CrossEntropyLoss{};
  options.optimizer = SGD{0.05f, 0.9f, 0.0f, 5e-4f};
  options.schedule  = OneCycleLR{0, steps};
  options.seed      = 1;
  const auto log = [](const Trainer& t) {
    if (t.step_number() % 200 != 0) return;
    std::printf("epoch %u  step %d  loss %.4f\n", t.epoch() + 1, int(t.step_number()), double(t.loss()));
  };
  return systems::train_and_test(model, options, mnist, {}, static_cast<uint64_t>(steps), log);
}

TEST_CASE("S9 short: convolutional network, 300 steps") {
  systems::Mnist mnist;
  if (systems::read_mnist(mnist)) CHECK(accuracy_after(mnist, 300) >= 0.975);
}

TEST_CASE("S9 full: convolutional network reaches 99.2 % on the test digits") {
  systems::Mnist mnist;
  if (systems::read_mnist(mnist)) CHECK(accuracy_after(mnist, 7504) >= 0.992);
}
