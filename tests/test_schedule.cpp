// Rates that a trainer uses, step by step, against those of torch.optim.lr_scheduler.
#include <doctest/doctest.h>

#include "engine.hpp"

using namespace nnlite;

namespace {

// Learning rates of `steps` steps; an epoch is `per_epoch` steps of one sample.
std::vector<float> rates(const AnyOp& schedule, int steps, uint32_t per_epoch, int warmup = 0, int epochs = 1,
                         float lr = 0.1f, const std::vector<real>& reports = {}) {
  Net net;
  net.model.output("y", net.model.add(Linear{0, 1}, net.model.input("x", {1})));
  CHECK(net.model.finish(Seed{1}) == Status::ok);
  const std::vector<real> zeros(per_epoch);
  Dataset d;
  d.count = per_epoch;
  d.columns[0].data = d.columns[1].data = zeros.data();
  TrainerOptions o;
  o.loss         = MSELoss{};
  o.optimizer    = SGD{lr, 0.9f};
  o.schedule     = schedule;
  o.warmup_steps = warmup;
  o.epochs       = epochs;
  PlacedTrainer t(net.model, o);
  CHECK(t.status == Status::ok);
  CHECK(t.it.set_data(d) == Status::ok);
  std::vector<float> used;
  for (int i = 0; i < steps; i++) {
    CHECK(t.it.step() == Status::ok);
    used.push_back(t.it.learning_rate());
    if (!reports.empty()) CHECK(t.it.report(reports[size_t(i)]) == Status::ok);
  }
  return used;
}

void near(const std::vector<float>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); i++) {
    CAPTURE(i);
    CHECK(double(a[i]) == doctest::Approx(b[i]).epsilon(3e-7));
  }
}

}  // namespace

TEST_CASE("schedule: StepLR, ExponentialLR and CosineAnnealingLR change with the epoch as PyTorch's do") {
  near(rates(StepLR{3, 0.5f}, 10, 1), {0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125});
  near(rates(ExponentialLR{0.9f}, 6, 1), {0.1, 0.09, 0.081, 0.0729, 0.06561, 0.059049});
  const std::vector<double> cosine = {0.1, 0.09657457896, 0.08681980515, 0.07222075446, 0.055, 0.03777924554,
                                      0.02318019485, 0.01342542104, 0.01};
  near(rates(CosineAnnealingLR{8, 0.01f}, 9, 1), cosine);
  near(rates(CosineAnnealingLR{0, 0.01f}, 9, 1, 0, 8), cosine);
  near(rates(StepLR{1, 0.5f}, 6, 2), {0.1, 0.1, 0.05, 0.05, 0.025, 0.025});
}

TEST_CASE("schedule: OneCycleLR changes with the step as PyTorch's does") {
  const std::vector<double> half = {
      0.02,         0.06583592135, 0.1858359214, 0.3341640786,  0.4541640786,  0.5,          0.4937320031,
      0.475242316,  0.4454580888,  0.405872827,  0.3584715009,  0.305631011,   0.250001,     0.194370989,
      0.1415304991, 0.09412917303, 0.05454391121, 0.02475968399, 0.006269996882, 2e-06};
  near(rates(OneCycleLR{0.5f, 20}, 20, 5), half);
  near(rates(OneCycleLR{0.5f}, 20, 5, 0, 4), half);
  near(rates(OneCycleLR{0.1f, 12, 0.25f, 10.0f, 100.0f}, 12, 12),
       {0.01, 0.055, 0.1, 0.09698764641, 0.08831391993, 0.07502500000, 0.05872372647, 0.04137627353, 0.025075,
        0.01178608007, 0.003112353592, 0.0001});
}

TEST_CASE("schedule: ReduceLROnPlateau waits for more than patience reports without improvement") {
  const std::vector<real> loss = {1.0f, 0.9f, 0.9f, 0.91f, 0.95f, 0.89995f,
                                  0.5f, 0.6f, 0.6f, 0.6f,  0.6f,  0.6f};
  near(rates(ReduceLROnPlateau{0.5f, 2, 1e-3f}, 12, 1, 0, 1, 0.1f, loss),
       {0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025});
  near(rates(ReduceLROnPlateau{0.5f, 2, 1e-3f, 0.04f}, 12, 1, 0, 1, 0.1f, loss),
       {0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.04, 0.04});
}

TEST_CASE("schedule: warm-up grows linearly over the first steps, before any schedule") {
  near(rates(AnyOp(), 6, 3, 4), {0.025, 0.05, 0.075, 0.1, 0.1, 0.1});
  near(rates(ConstantLR{}, 3, 3, 2), {0.05, 0.1, 0.1});
  near(rates(StepLR{1, 0.5f}, 4, 1, 2), {0.05, 0.05, 0.025, 0.0125});
}

TEST_CASE("schedule: settings out of range are refused when the trainer is planned") {
  Net net;
  net.model.output("y", net.model.add(Linear{0, 1}, net.model.input("x", {1})));
  CHECK(net.model.finish(Seed{1}) == Status::ok);
  TrainerOptions o;
  o.loss      = MSELoss{};
  o.optimizer = SGD{};
  MemoryPlan plan;
  const AnyOp all[] = {StepLR{0}, ExponentialLR{-1.0f}, OneCycleLR{-0.5f}, ReLU{}};
  for (const AnyOp& bad : all) {
    o.schedule = bad;
    CHECK(!ok(Trainer::plan(net.model, o, plan)));
  }
}
