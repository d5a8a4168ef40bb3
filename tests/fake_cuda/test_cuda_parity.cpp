// CPU and CUDA give the same values: every case of the op table, whole networks, 50 steps of training.
#include "cuda_cases.hpp"

namespace {

constexpr double tolerance = 1e-4;             // of the largest value of what is compared

// Gradients that cancel are as exact as the largest of them all lets them be, and what SGD makes of them, too.
double compare(const Subject& s, const Backend* on, int steps, std::string& where) {
  const Arrays cpu = results(s, nullptr, steps), cuda = results(s, on, steps);
  CHECK(cpu.size() == cuda.size());
  double largest = 0, worst = 0;
  const bool   sgd = s.optimizer.op() == &SGD::op;
  const double rate = sgd ? double(static_cast<const SGD*>(s.optimizer.attributes())->lr) : 0;
  const auto is_gradient = [](const std::string& name) { return name.rfind("gradient", 0) == 0; };
  for (const auto& [name, values] : cpu)
    for (double v : values) largest = is_gradient(name) ? std::max(largest, std::fabs(v)) : largest;
  for (const auto& [name, values] : cpu) {
    const double share = is_gradient(name) ? 0.1 : name.rfind("afterwards", 0) == 0 ? 0.1 * rate : 0;
    const double e = error_of(cuda.at(name), values, share * largest);
    if (e > worst || e != e) worst = e, where = name;
  }
  return worst;
}

}  // namespace

TEST_CASE("cuda: every op has a row, but those that are listed as not yet") {
  NNLITE_ON_CUDA(cuda);
  CHECK((cuda_rows()->rows == cuda->rows));
  std::string missing, done;
  const OpSet set = all_ops();
  for (int i = 0; i < set.count; i++) {
    const std::string name = set.ops[i]->name;
    if (!needs_row(*set.ops[i])) continue;
    const bool has = cuda->rows(set.ops[i]->name) != nullptr;
    CHECK_MESSAGE((has || is_not_yet(name)), name << " has no row, and is not in the list not_yet");
    if (!has) missing += " " + name;
    if (has && is_not_yet(name)) done += " " + name;
  }
  for (const char* name : {"", "Rel", "ReLU6", "relu"}) CHECK((cuda->rows(name) == nullptr));
  if (!missing.empty()) MESSAGE("no row yet:" << missing);
  if (!done.empty()) MESSAGE("has a row, take it off not_yet:" << done);
}

TEST_CASE("cuda: an op without a row is refused by name, in plans and builds of sessions and trainers") {
  NNLITE_ON_CUDA(cuda);
  int refused = 0;
  for (const Case& c : all_cases()) {
    const Op& op = *c.op.op();
    if (!needs_row(op) || cuda->rows(op.name)) continue;
    CAPTURE(std::string(c.name));
    const auto s = subject_of(c, *cuda);
    const bool in_session = (op.traits & (traits::optimizer | traits::loss)) == 0;
    MemoryPlan plan;
    CHECK(Trainer::plan(s->net.model, s->training(cuda), plan) == Status::unsupported);
    CHECK(std::string(plan.problem.where) == op.name);
    Guarded memory(1 << 16);
    Arena   arena = memory.arena();
    Trainer trainer;
    CHECK(trainer.build(s->net.model, s->training(cuda), arena) == Status::unsupported);
    CHECK(std::string(trainer.problem().where) == op.name);
    CHECK(memory.untouched());
    SessionOptions o = s->running(cuda);
    if (in_session) o.loss = AnyOp();
    if (!in_session && (op.traits & traits::optimizer) != 0) continue;
    Session session;
    CHECK(Session::plan(s->net.model, o, plan) == Status::unsupported);
    CHECK(session.build(s->net.model, o, arena) == Status::unsupported);
    CHECK(std::string(session.problem().where) == op.name);
    refused++;
  }
  MESSAGE(refused << " cases are of ops without a row");
}

TEST_CASE("cuda: every case of the op table, forward and all gradients, as on the CPU") {
  NNLITE_ON_CUDA(cuda);
  double worst = 0;
  std::string place;
  int compared = 0;
  for (const Case& c : all_cases()) {
    const Op& op = *c.op.op();
    if (!needs_row(op) || !cuda->rows(op.name)) continue;
    CAPTURE(std::string(c.name));
    REQUIRE(emptied() == cuda);
    const auto s = subject_of(c, *cuda);
    if (!builds(*s, cuda)) continue;
    std::string where;
    const double e = compare(*s, cuda, (op.traits & traits::optimizer) != 0 ? c.rows : 1, where);
    CHECK_MESSAGE(e <= tolerance, where << ": " << e);
    if (e > worst) worst = e, place = std::string(c.name) + ", " + where;
    compared++;
  }
  CHECK(compared > 50);
  MESSAGE(compared << " cases, the worst error " << worst << ": " << place);
}

TEST_CASE("cuda: whole networks with branches, sharing and frozen parts, as on the CPU") {
  NNLITE_ON_CUDA(cuda);
  std::set<std::string> missing;
  double worst = 0;
  std::string place;
  for (const Network& n : networks) {
    const std::string name = n.name;
    CAPTURE(name);
    const auto s = subject_of(n, n.rows);
    if (!builds(*s, cuda, &missing)) continue;
    std::string where;
    const double e = compare(*s, cuda, 2, where);
    CHECK_MESSAGE(e <= tolerance, where << ": " << e);
    if (e > worst) worst = e, place = name + ", " + where;
  }
  std::string list;
  for (const std::string& op : missing) list += " " + op;
  MESSAGE("the worst error " << worst << ": " << place
                             << (list.empty() ? "" : "; left out for want of" + list));
}

TEST_CASE("cuda: 50 steps of training follow the CPU's, with a smaller last batch in each epoch") {
  NNLITE_ON_CUDA(cuda);
  const auto curve = [](const Subject& s, const Backend* on) {
    const Dataset data = s.data();
    PlacedTrainer t(s.net.model, s.training(on));
    REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
    REQUIRE(t.it.set_data(data) == Status::ok);
    Array losses;
    for (int i = 0; i < 50; i++) {
      REQUIRE_MESSAGE(t.it.step() == Status::ok, t.problem());
      losses.push_back(double(t.it.loss()));
    }
    return losses;
  };
  const auto check = [&](Subject& s, const char* name) {
    CAPTURE(name);
    s.optimizer = SGD{0.05f, 0.9f};
    if (!builds(s, cuda)) return;
    const Array cpu = curve(s, nullptr), gpu = curve(s, cuda);
    double worst = 0;
    for (size_t i = 0; i < cpu.size(); i++) worst = std::max(worst, std::fabs(cpu[i] - gpu[i]));
    CHECK_MESSAGE(worst <= 1e-3, worst);
    CHECK(cpu.back() < cpu.front());
  };
  check(*small_mlp(27), "mlp");
  for (const Network& n : networks) {
    const std::string name = n.name;
    for (const char* wanted : {"convolutions and pooling", "depthwise", "perceptron", "residual", "u-net"})
      if (name == wanted) check(*subject_of(n, 3 * n.rows + 1), n.name);
  }
}
