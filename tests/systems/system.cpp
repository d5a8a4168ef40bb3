#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "system.hpp"

#include <cstdlib>
#include <string>

#include "idx.hpp"

namespace systems {
using namespace nnlite;

bool read_mnist(Mnist& mnist) {
  const char* data         = std::getenv("NNLITE_DATA");
  const std::string folder = std::string(data ? data : "../shared/data") + "/mnist";
  if (!has_idx(folder, "train") || !has_idx(folder, "t10k")) {
    std::printf("SKIP: no MNIST in %s: set NNLITE_DATA to the folder that holds mnist/\n", folder.c_str());
    return false;
  }
  mnist.train = read_idx(folder, "train");
  mnist.test  = read_idx(folder, "t10k");
  return true;
}

static double test_accuracy(const Model& model, const Trainer& trainer, const TrainerOptions& trained,
                            const Samples& test, Scaling scaling) {
  constexpr int batch = 100;
  SessionOptions options;
  options.batch   = batch;
  options.pool    = trained.pool;
  options.backend = trained.backend;
  MemoryPlan plan;
  REQUIRE(Session::plan(model, options, plan) == Status::ok);
  Memory memory(plan.total);
  Session session;
  REQUIRE(session.build(trainer, options, memory.arena) == Status::ok);
  std::vector<uint32_t> counts(100);
  Confusion confusion = {counts.data(), 10};
  for (size_t first = 0; first < test.count(); first += batch) {
    const uint8_t* pixels = &test.bytes[first * test.sample_size()];
    const View<real> x    = session.input();
    for (int64_t i = 0; i < x.size(); i++) x[i] = real(pixels[i]) * scaling.scale + scaling.shift;
    REQUIRE(session.forward(batch) == Status::ok);
    confusion.add(session.output().data, &test.labels[first], batch);
  }
  return confusion.accuracy();
}

double train_and_test(const Model& model, TrainerOptions options, const Mnist& mnist, Scaling scaling,
                      uint64_t steps, const std::function<void(const Trainer&)>& after) {
  ThreadPool pool(2);
  options.pool = &pool;
  MemoryPlan plan;
  REQUIRE(Trainer::plan(model, options, plan) == Status::ok);
  Memory memory(plan.total);
  Trainer trainer;
  REQUIRE(trainer.build(model, options, memory.arena) == Status::ok);
  Dataset data;
  data.count      = static_cast<uint32_t>(mnist.train.count());
  data.columns[0] = Column{mnist.train.bytes.data(), DType::u8, scaling.scale, scaling.shift};
  data.columns[1] = Column{mnist.train.labels.data(), DType::i32};
  REQUIRE(trainer.set_data(data) == Status::ok);
  for (uint64_t i = 0; i < steps; i++) {
    REQUIRE(trainer.step() == Status::ok);
    after(trainer);
  }
  const double accuracy = test_accuracy(model, trainer, options, mnist.test, scaling);
  std::printf("%d steps in %zu bytes, test accuracy %.2f %%\n", int(steps), plan.total, 100 * accuracy);
  return accuracy;
}

}  // namespace systems
