// S8: MNIST, 784-256-64-10, ReLU, a sigmoid output fed to cross-entropy, Adam 1e-4, batch 128. The device is
// chosen at run time: the GPU if there is one and this was built with CUDA, or else the CPU, its fastest instruction
// set. A progress bar where stderr is a terminal.
#include <string>

#include "progress.hpp"
#include "system.hpp"

using namespace nnlite;

static double accuracy_after(const systems::Mnist& mnist, int epochs) {
  unsigned char graph_buffer[8192];
  Model model(graph_buffer);
  Tensor x = model.input("image", {28, 28, 1});
  x = model.chain(x, Flatten{}, Linear{0, 256}, ReLU{}, Linear{0, 64}, ReLU{}, Linear{0, 10}, Sigmoid{});
  model.output("score", x);
  REQUIRE(model.finish(Seed{1}) == Status::ok);
  TrainerOptions options;
  options.batch     = 128;
  options.loss      = CrossEntropyLoss{};
  options.optimizer = Adam{1e-4f};
  options.seed      = 1;
#ifdef NNLITE_CUDA
  if (*cuda_problem(0) == 0) options.backend = cuda_backend(0);
#endif
  std::printf("device: %s\n", options.backend ? "GPU" : (std::string("CPU, ") + isa_name(current_isa())).c_str());
  const uint64_t steps = (mnist.train.count() + 127) / 128 * static_cast<uint64_t>(epochs);
  Progress progress;
  return systems::train_and_test(model, options, mnist, {}, steps, [&](const Trainer& t) {
    progress.show("training", t.step_number(), steps, "loss " + std::to_string(t.loss()));
    if (t.step_number() == steps) progress.clear();
  });
}

TEST_CASE("S8 short: MLP 784-256-64-10, one epoch") {
  systems::Mnist mnist;
  if (systems::read_mnist(mnist)) CHECK(accuracy_after(mnist, 1) >= 0.84);
}

TEST_CASE("S8 full: MLP 784-256-64-10 reaches 94.0 +- 0.7 % on the test digits") {
  systems::Mnist mnist;
  if (!systems::read_mnist(mnist)) return;
  const double accuracy = accuracy_after(mnist, 10);
  CHECK(accuracy >= 0.933);
  CHECK(accuracy <= 0.947);
}
