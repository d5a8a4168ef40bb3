// nnlite info: layers, shapes, parameters, multiply-adds, and exactly how much memory a model takes.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "device.hpp"
#include "failure.hpp"
#include "launches.hpp"
#include "subject.hpp"

using namespace nnlite;

namespace {

struct Options {
  Common common;
  Subject subject;
  std::string optimizer = "sgd:momentum=0.9";
  int batch = 1;
  bool train = false;
};

Json plan_json(const MemoryPlan& plan, bool training) {
  Json json = {
      {"total", plan.total},       {"weights", plan.weights},        {"activations", plan.activations},
      {"state", plan.state},       {"derived", plan.derived},        {"scratch", plan.scratch},
      {"in_place", plan.in_place}, {"lower_bound", plan.lower_bound}};
  if (training) {
    json["gradients"] = plan.gradients;
    json["optimizer"] = plan.optimizer;
  }
  return json;
}

void print_plan(const char* what, const Json& plan) {
  fmt::print("\n{}: {} bytes\n", what, plan["total"].get<std::size_t>());
  for (const auto& [name, bytes] : plan.items())
    if (name != "total" && name != "in_place" && name != "lower_bound" && bytes.get<std::size_t>() > 0)
      fmt::print("  {:12} {:>12}\n", name, bytes.get<std::size_t>());
  fmt::print("  (without scratch the least possible is {}; weights used where the model has them: {})\n",
             plan["lower_bound"].get<std::size_t>(), plan["in_place"].get<std::size_t>());
}

Json launches_json(const std::vector<Launch>& launches) {
  Json list = Json::array();
  for (const Launch& l : launches)
    list.push_back({{"layer", l.layer}, {"op", l.op}, {"phase", l.phase}, {"row", l.row}, {"launches", l.launches}});
  return list;
}

void print_launches(const char* what, const Json& launches) {
  std::size_t count = 0;
  for (const Json& l : launches) count += l["launches"].size();
  fmt::print("\n{}: {} launches, of blocks x threads\n", what, count);
  fmt::print("  {:20} {:18} {:10} {:8} {}\n", "layer", "op", "phase", "row", "kernels");
  for (const Json& l : launches)
    fmt::print("  {:20} {:18} {:10} {:8} {}\n", l["layer"].get<std::string>(), l["op"].get<std::string>(),
               l["phase"].get<std::string>(), l["row"].get<std::string>(),
               l["launches"].empty() ? "with the next" : fmt::format("{}", fmt::join(l["launches"], ", ")));
}

void print_text(const Options& o, const Json& json) {
  fmt::print("{:20} {:20} {:>18} {:>12}\n", "layer", "op", "shape", "parameters");
  for (const Json& layer : json["layers"]) {
    std::string shape;
    for (const Json& d : layer["shape"])
      shape += fmt::format("{}{}", shape.empty() ? "" : " x ", d.get<int>());
    fmt::print("{:20} {:20} {:>18} {:>12}\n", layer["name"].get<std::string>(),
               layer["op"].get<std::string>(), shape, layer["parameters"].get<std::int64_t>());
  }
  fmt::print("\n{} parameters, {} multiply-adds a sample\n", json["parameters"].get<std::int64_t>(),
             json["macs"].get<std::int64_t>());
  print_plan(fmt::format("inference, batch {}", o.batch).c_str(), json["memory"]["inference"]);
  if (o.train)
    print_plan(fmt::format("training, batch {}, {}", o.batch, o.optimizer).c_str(),
               json["memory"]["training"]);
  if (!o.common.cuda) return;
  print_launches("inference", json["cuda"]["inference"]);
  if (o.train) print_launches("a training step", json["cuda"]["training"]);
}

Json layers_of(const Model& model, std::int64_t& macs) {
  Json layers = Json::array();
  for (int i = 0; i < model.node_count(); ++i) {
    const NodeInfo node = model.node(i);
    macs += node.macs;
    Json shape = Json::array();
    for (int d = node.shape.batched() ? 1 : 0; d < node.shape.rank; ++d) shape.push_back(node.shape.dim[d]);
    layers.push_back({{"name", node.name},
                      {"op", node.op ? node.op->name : "input"},
                      {"shape", shape},
                      {"parameters", node.parameters}});
  }
  return layers;
}

void run(const Options& o) {
  const Precision precision = precision_of(o.common);
  const Backend* const backend = o.common.cuda ? backend_rows(precision, nullptr, nullptr) : nullptr;
  const std::vector<std::string> missing = backend ? ops_without_rows(*backend) : std::vector<std::string>();
  if (!o.common.json && !missing.empty()) fmt::print("not yet: {}\n\n", fmt::join(missing, ", "));
  const LoadedSubject subject = load_subject(o.subject, o.common.seed, o.common.cuda);
  const Model& model = subject.network->model;
  const std::unique_ptr<ThreadPool> pool = make_pool(o.common, 1);
  const Place place = {o.batch, pool.get(), backend};
  const SessionOptions session = session_options(place);
  MemoryPlan inference, training;
  require(Session::plan(model, session, inference), inference.problem, o.subject.name());
  if (o.train) check_usable(model, o.subject.name());
  const TrainerOptions trainer = training_options(model, o.optimizer, place);
  const Status trains = Trainer::plan(model, trainer, training);
  if (o.train) require(trains, training.problem, o.subject.name());
  std::int64_t macs = 0;
  const Json layers = layers_of(model, macs);
  Json json = {{"parameters", model.parameter_elements()},
               {"macs", macs},
               {"layers", layers},
               {"memory", {{"inference", plan_json(inference, false)}}}};
  if (ok(trains)) json["memory"]["training"] = plan_json(training, true);
  if (backend) {
    check_usable(model, o.subject.name());
    json["cuda"] = {{"not_yet", missing}, {"inference", launches_json(launches_of(model, session, precision))}};
    if (o.train) json["cuda"]["training"] = launches_json(launches_of(model, trainer, precision));
  }
  if (o.common.json) print_json(json);
  else print_text(o, json);
}

}  // namespace

void add_info(CLI::App& program, int&) {
  auto o = std::make_shared<Options>();
  CLI::App& c = *program.add_subcommand("info", "Layers, parameters and exact memory of a model");
  add_subject(c, o->subject);
  c.add_option("--batch", o->batch, "Samples at a time (default 1)")->check(whole_number(1, 1 << 20));
  c.add_flag("--train", o->train, "Show the memory of training too");
  c.add_option("--optimizer", o->optimizer, "To train with (default sgd:momentum=0.9)");
  add_cuda(c, o->common, "As on an NVIDIA GPU, with what is launched there; needs none");
  add_common(c, o->common);
  c.callback([o] { run(*o); });
}
