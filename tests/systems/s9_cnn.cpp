// S9: MNIST, a small convolutional network: two convolutions of 5x5 with batch norm, two linear layers, dropout.
#include "system.hpp"

using namespace nnlite;

static double accuracy_after(const systems::Mnist& mnist, int epochs) {
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
  options.schedule  = OneCycleLR{};
  options.epochs    = epochs;
  options.seed      = 1;
  const uint64_t per_epoch = (mnist.train.count() + 63) / 64;
  return systems::train_and_test(model, options, mnist, {}, per_epoch * static_cast<uint64_t>(epochs),
                                 [&](const Trainer& t) {
    if (t.step_number() % per_epoch == 0) std::printf("epoch %u  loss %.4f\n", t.epoch(), double(t.loss()));
  });
}

TEST_CASE("S9 short: convolutional network, one epoch") {
  systems::Mnist mnist;
  if (systems::read_mnist(mnist)) CHECK(accuracy_after(mnist, 1) >= 0.985);
}

TEST_CASE("S9 full: convolutional network reaches 99.2 % on the test digits") {
  systems::Mnist mnist;
  if (systems::read_mnist(mnist)) CHECK(accuracy_after(mnist, 8) >= 0.992);
}
