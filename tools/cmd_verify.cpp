// nnlite verify: is the file whole, does the model still give the outputs it was saved with, and does it
// agree with another?
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "command.hpp"
#include "data.hpp"
#include "failure.hpp"

using namespace nnlite;

namespace {

struct Options {
  Common common;
  std::string model, against;
};

struct Report {
  bool ok = true;    // the file itself
  bool same = true;  // as the other file
  Json checks = Json::array();
  double max_abs_error = 0;
  std::string first_diverging;

  void add(const std::string& name, bool passed, const std::string& detail) {
    checks.push_back({{"name", name}, {"ok", passed}, {"detail", detail}});
    (name == "against" ? same : ok) &= passed;
  }
};

// The values of golden vectors take room beside the session that makes them.
Memory golden_memory(const Model& model, int rows) {
  SessionOptions options;
  options.batch = rows;
  MemoryPlan plan;
  require(Session::plan(model, options, plan), plan.problem, "the model");
  return Memory(2 * plan.total + (std::size_t{1} << 20));
}

void check_golden(const Network& network, Report& report) {
  const ModelExtras extras = extras_of(network.model);
  if (extras.golden_count == 0) return report.add("golden vectors", true, "the file holds none");
  int rows = 1;
  for (int i = 0; i < extras.golden_count; ++i) rows = std::max(rows, extras.golden[i].rows);
  const Memory memory = golden_memory(network.model, rows);
  Arena arena = memory.arena();
  GoldenReport golden;
  require(run_golden(network.model, arena, golden), network.model.problem(), network.name);
  report.max_abs_error = golden.max_abs_error;
  if (golden.first_diverging >= 0) report.first_diverging = network.model.node(golden.first_diverging).name;
  report.add("golden vectors", golden.ok,
             fmt::format("{} run, largest difference {:.3g}", golden.count, golden.max_abs_error));
}

// The same made-up inputs through both models: outputs within 1e-4 of the largest, and the first layer that
// differs.
void check_against(const Network& ours, const Network& theirs, const Options& o, Report& report) {
  const Model &a = ours.model, &b = theirs.model;
  if (a.input_count() != 1 || b.input_count() != 1 || a.input_shape(0) != b.input_shape(0) ||
      a.output_shape(0) != b.output_shape(0))
    return report.add("against", false, "inputs or outputs have other shapes");
  const int rows = 2;
  DataSource source;
  const Samples samples = samples_for(a, std::move(source), o.common.seed);
  std::vector<float> inputs(rows * samples.sample_size());
  for (std::size_t i = 0; i < rows; ++i) put_input(samples, i, inputs.data() + i * samples.sample_size());
  const Memory memory_a = golden_memory(a, rows), memory_b = golden_memory(b, rows);
  Arena arena_a = memory_a.arena(), arena_b = memory_b.arena();
  Golden x, y;
  require(make_golden(a, inputs.data(), rows, 1e-4f, arena_a, x), a.problem(), ours.name);
  require(make_golden(b, inputs.data(), rows, 1e-4f, arena_b, y), b.problem(), theirs.name);
  const auto differs = [](float p, float q, float most) { return !(std::fabs(p - q) <= 1e-4f * most); };
  float most = 0, error = 0;
  bool same = true;
  const int n = rows * output_size(a);
  for (int i = 0; i < n; ++i) most = std::max(most, std::fabs(y.outputs[i]));
  for (int i = 0; i < n; ++i) {
    error = std::max(error, std::fabs(x.outputs[i] - y.outputs[i]));
    same = same && !differs(x.outputs[i], y.outputs[i], most);
  }
  for (int i = 0; !same && a.node_count() == b.node_count() && i < a.node_count(); ++i) {
    const float *p = x.nodes + 2 * i, *q = y.nodes + 2 * i;  // mean and largest magnitude
    if (!differs(p[0], q[0], q[1]) && !differs(p[1], q[1], q[1])) continue;
    report.first_diverging = a.node(i).name;
    break;
  }
  report.max_abs_error = std::max(report.max_abs_error, static_cast<double>(error));
  report.add("against", same, fmt::format("{} rows, largest difference {:.3g} of {:.3g}", rows, error, most));
}

void print(const Options& o, const Report& report) {
  if (o.common.json) {
    Json json = {
        {"ok", report.ok && report.same}, {"checks", report.checks}, {"max_abs_error", report.max_abs_error}};
    json["first_diverging"] = report.first_diverging.empty() ? Json(nullptr) : Json(report.first_diverging);
    print_json(json);
    return;
  }
  for (const Json& check : report.checks) {
    const std::string name = check["name"].get<std::string>();
    const char* const verdict = check["ok"].get<bool>() ? "ok" : name == "against" ? "DIFFERS" : "FAILED";
    fmt::print("{:7} {:15} {}\n", verdict, name, check["detail"].get<std::string>());
  }
}

std::unique_ptr<Network> load(const Options& o, Report& report) {
  try {
    std::unique_ptr<Network> network = load_network(o.model);
    report.add("file", true, "header, checksums, graph and shapes are valid");
    return network;
  } catch (const Failure& failure) {
    report.add("file", false, one_line(failure));
    if (o.common.json) print(o, report);
    throw;
  }
}

void run(const Options& o) {
  Report report;
  const std::unique_ptr<Network> network = load(o, report);
  Problem problem;
  const Source source = memory_source(network->file.data(), network->file.size());
  const Status content = verify_content(source, &problem);
  report.add("content id", ok(content), ok(content) ? "the sections are what the file says" : problem.what);
  check_golden(*network, report);
  if (!o.against.empty()) check_against(*network, *load_network(o.against), o, report);
  print(o, report);
  const std::string layer = report.first_diverging.empty() ? "" : ", layer " + report.first_diverging;
  if (!report.ok) fail("the model does not check out", o.model + layer, "make or copy it again");
  if (!report.same)
    fail("two models that differ", fmt::format("{} and {}{}", o.model, o.against, layer),
         "compare those that should be the same");
}

}  // namespace

void add_verify(CLI::App& program, int&) {
  auto o = std::make_shared<Options>();
  CLI::App& c =
      *program.add_subcommand("verify", "Check a model file, and that it still computes what it did");
  c.add_option("MODEL", o->model, "The model, a .nnl file")->required();
  c.add_option("--against", o->against, "Another model file that it should agree with");
  add_common(c, o->common);
  c.callback([o] { run(*o); });
}
