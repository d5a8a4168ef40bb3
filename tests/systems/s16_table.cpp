// S16: a table of 768 rows and 8 features, 8-12-8-1, ReLU, sigmoid, BCE: 5-fold cross-validation. Features
// are standardised by the mean and the deviation of the rows that are trained on.
#include <cmath>
#include <cstdlib>
#include <string>

#include "csv.hpp"
#include "file.hpp"
#include "system.hpp"

using namespace nnlite;

namespace {
constexpr int features = 8, folds = 5;

struct Rows {
  std::vector<real> x, y;
  int count() const { return static_cast<int>(y.size()); }
  void add(const Samples& table, size_t i) {
    for (size_t f = 0; f < features; f++) x.push_back(table.floats[i * features + f]);
    y.push_back(static_cast<real>(table.labels[i]));
  }
};

// (x - mean) / deviation of every feature, both of `train`.
void standardise(Rows& train, Rows& held_out) {
  for (size_t f = 0; f < features; f++) {
    double sum = 0, squares = 0;
    for (size_t i = f; i < train.x.size(); i += features) sum += double(train.x[i]);
    const double mean = sum / train.count();
    for (size_t i = f; i < train.x.size(); i += features) squares += std::pow(double(train.x[i]) - mean, 2.0);
    const double deviation = std::sqrt(squares / train.count());
    for (Rows* rows : {&train, &held_out})
      for (size_t i = f; i < rows->x.size(); i += features)
        rows->x[i] = static_cast<real>((double(rows->x[i]) - mean) / deviation);
  }
}

// Trains on the one and gives how many of the other are answered right.
int right_answers(const Rows& train, const Rows& held_out, uint64_t seed) {
  unsigned char graph_buffer[4096];
  Model model(graph_buffer);
  Tensor x = model.chain(model.input("features", {features}), Linear{0, 12}, ReLU{}, Linear{0, 8}, ReLU{});
  model.output("probability", model.chain(x, Linear{0, 1}, Sigmoid{}));
  REQUIRE(model.finish(Seed{seed}) == Status::ok);
  TrainerOptions options;
  options.batch     = 16;
  options.loss      = BCELoss{};
  options.optimizer = Adam{1e-3f};
  options.seed      = seed;
  systems::Memory memory(1 << 17);
  Trainer trainer;
  REQUIRE(trainer.build(model, options, memory.arena) == Status::ok);
  Dataset data;
  data.count      = static_cast<uint32_t>(train.count());
  data.columns[0] = Column{train.x.data(), real_dtype};
  data.columns[1] = Column{train.y.data(), real_dtype};
  REQUIRE(trainer.set_data(data) == Status::ok);
  while (trainer.epoch() < 20) REQUIRE(trainer.step() == Status::ok);
  SessionOptions run;
  Session session;
  REQUIRE(session.build(trainer, run, memory.arena) == Status::ok);
  int right = 0;
  for (size_t i = 0; i < held_out.y.size(); i++) {
    for (size_t f = 0; f < features; f++) session.input()[int64_t(f)] = held_out.x[i * features + f];
    REQUIRE(session.forward() == Status::ok);
    right += (session.output()[0] > real(0.5)) == (held_out.y[i] > real(0.5));
  }
  return right;
}
}  // namespace

TEST_CASE("S16: 8-12-8-1 answers 75 % of a table right by 5-fold cross-validation") {
  const char* folder     = std::getenv("NNLITE_DATA");
  const std::string path = std::string(folder ? folder : "../shared/data") + "/pima-indians-diabetes.csv";
  if (!exists(path)) {
    std::printf("SKIP: no %s: set NNLITE_DATA to the folder that holds it\n", path.c_str());
    return;
  }
  const Samples table = read_csv(path);
  REQUIRE(table.count() == 768);
  REQUIRE(table.sample_size() == size_t(features));
  for (uint64_t seed = 1; seed <= 3; seed++) {
    int all = 0;
    std::printf("seed %d  folds", int(seed));
    for (size_t fold = 0; fold < folds; fold++) {
      Rows train, held_out;
      for (size_t i = 0; i < table.count(); i++) (i % folds == fold ? held_out : train).add(table, i);
      standardise(train, held_out);
      const int right = right_answers(train, held_out, seed);
      std::printf("  %.1f %%", 100.0 * right / held_out.count());
      all += right;
    }
    std::printf("  all %.2f %%\n", 100.0 * all / 768);
    CHECK(all >= 0.75 * 768);
  }
}
