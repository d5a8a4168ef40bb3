// The op table as networks, and everything that running one gives.
#ifndef NNLITE_TESTS_CUDA_CASES_HPP
#define NNLITE_TESTS_CUDA_CASES_HPP

#include "../cases.hpp"
#include "cuda_run.hpp"

namespace {

// A row of the op table as a network: every input through a Linear that is the identity, whose gradients tell
// those of the inputs, then the op, then a loss. A loss and an optimizer are used as such.
inline std::unique_ptr<Subject> subject_of(const Case& c, const Backend& on) {
  auto s = std::make_unique<Subject>();
  Model& m = s->net.model;
  const Op& op = *c.op.op();
  const bool loss = (op.traits & traits::loss) != 0, optimizer = (op.traits & traits::optimizer) != 0;
  s->rows     = optimizer ? 1 : c.rows;
  s->identity = !optimizer;
  s->loss     = on.rows("MSELoss") ? AnyOp(MSELoss{}) : AnyOp(CrossEntropyLoss{});
  if (optimizer) {
    // Gradients that are no sums and no small differences: Adam makes much of the rounding of those.
    m.output("y", m.add(Linear{0, c.in[0].dim[0], false}, m.input("x", {1})));
    s->optimizer = c.op;
  } else {
    Tensor in[4];
    for (int k = 0; k < c.n_in(); k++) {
      const std::string name = "x" + std::to_string(k), front = "front" + std::to_string(k);
      in[k] = m.input(name.c_str(), c.in[k]);
      in[k] = m.add(front.c_str(), Linear{0, c.in[k].dim[c.in[k].rank - 1], false}, in[k]);
    }
    if (!loss) in[0] = m.add_any("op", c.op, in, c.n_in());
    if (!loss && !c.training) m.freeze(in[0]);
    m.output("y", in[0]);
    if (loss) s->loss = c.op;
  }
  REQUIRE_MESSAGE(s->finish() == Status::ok, m.problem().where << ": " << m.problem().what);
  const std::string loss_name = s->loss.op()->name;
  const bool by_index = loss_name == "NLLLoss" || (loss_name == "CrossEntropyLoss" &&
      !static_cast<const CrossEntropyLoss*>(s->loss.attributes())->probabilities);
  s->fill(s->rows, by_index ? m.output_shape(0).last() : 0, optimizer ? 1 : c.scale, c.ties);
  for (real& v : s->targets) v += optimizer ? 8 : 0;
  if (loss_name == "BCELoss")                  // wants probabilities
    for (real& v : s->x[0]) v = real(0.5) + v * real(0.45);
  return s;
}

// Everything that can be compared, by name.
inline Arrays results(const Subject& s, const Backend* on, int steps) {
  Arrays all;
  const Model& m = s.net.model;
  TrainerOptions o = s.training(on);
  o.keep_gradients = true;
  PlacedTrainer t(m, o);
  REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
  for (int p = 0; p < m.parameter_count() && s.identity; p++) {
    const ParameterInfo info = m.parameter(p);
    if (std::string(info.name).rfind("front", 0) != 0) continue;
    std::vector<real> values(static_cast<size_t>(info.count));
    const size_t n = static_cast<size_t>(info.shape.last());
    for (size_t i = 0; i < values.size() && info.shape.rank == 2; i += n + 1) values[i] = 1;
    REQUIRE(t.it.set(p, values.data()) == Status::ok);
  }
  PlacedSession session(m, s.running(on));
  REQUIRE_MESSAGE(session.status == Status::ok, session.problem());
  session.build(t.it, s.running(on));
  REQUIRE_MESSAGE(session.status == Status::ok, session.problem());
  all["output"] = as_doubles(forward(session.it, s));
  CHECK(!all["output"].empty());
  all["loss of the session"] = {double(session.it.loss())};
  for (int i = 0; i < steps; i++) {
    REQUIRE_MESSAGE(t.it.step(s.batch()) == Status::ok, t.problem());
    all["loss of step " + std::to_string(i)] = {double(t.it.loss())};
    for (int p = 0; p < m.parameter_count(); p++) {
      const ParameterInfo info = m.parameter(p);
      std::vector<real> values(static_cast<size_t>(info.count));
      if (i == 0 && t.it.is_trained(p)) {
        CHECK(t.it.get_gradient(p, values.data()) == Status::ok);
        all["gradient of " + std::string(info.name)] = as_doubles(values);
      }
      if (i + 1 < steps) continue;
      CHECK(t.it.get(p, values.data()) == Status::ok);
      all["afterwards " + std::string(info.name)] = as_doubles(values);
    }
  }
  CHECK(t.memory.intact());
  CHECK(session.memory.intact());
  return all;
}

}  // namespace
#endif
