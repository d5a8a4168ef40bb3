// nnlite eval: loss, accuracy, confusion matrix and precision and recall of each class.
#include <fmt/format.h>

#include <cmath>

#include "command.hpp"
#include "data.hpp"
#include "device.hpp"
#include "evaluate.hpp"
#include "failure.hpp"

using namespace nnlite;

namespace {

struct Options {
  Common common;
  std::string model, data;
  bool pictures = false;
};

Json classes_of(const Evaluation& e, const std::vector<std::string>& labels) {
  std::vector<std::uint32_t> counts = e.confusion;
  const Confusion confusion{counts.data(), e.classes};
  Json classes = Json::array();
  for (int c = 0; c < e.classes; ++c)
    classes.push_back({{"label", labels[static_cast<std::size_t>(c)]},
                       {"precision", confusion.precision(c)},
                       {"recall", confusion.recall(c)}});
  return classes;
}

void print_text(const Evaluation& e, const Json& classes) {
  fmt::print("{} samples, loss {:.6g}, accuracy {:.2f} %\n", e.count, e.loss, 100 * e.accuracy);
  const std::size_t answered = e.count - e.rejected;
  if (e.rejected > 0)
    fmt::print("predict answers {}, {:.2f} % of them right, and rejects {}, {} of them with a right guess\n",
               answered,
               answered ? 100 * static_cast<double>(e.right.size() - e.rejected_right) /
                              static_cast<double>(answered)
                        : 0.0,
               e.rejected, e.rejected_right);
  fmt::print("\n");
  std::size_t width = 5;
  for (const Json& c : classes) width = std::max(width, c["label"].get_ref<const std::string&>().size());
  fmt::print("{:{}}  answers\n{:>{}}  precision    recall", "", width + 21, "label", width);
  for (const Json& c : classes) fmt::print(" {:>5}", c["label"].get_ref<const std::string&>().substr(0, 5));
  fmt::print("\n");
  for (int t = 0; t < e.classes; ++t) {
    const Json& c = classes[static_cast<std::size_t>(t)];
    fmt::print("{:>{}}  {:7.2f} %  {:6.2f} %", c["label"].get_ref<const std::string&>(), width,
               100 * c["precision"].get<double>(), 100 * c["recall"].get<double>());
    for (int a = 0; a < e.classes; ++a)
      fmt::print(" {:5}", e.confusion[static_cast<std::size_t>(t * e.classes + a)]);
    fmt::print("\n");
  }
}

void run(const Options& o) {
  const Backend* const backend = backend_for(o.common);
  const std::unique_ptr<Network> network = load_network(o.model);
  const Model& model = network->model;
  check_usable(model, o.model);
  if (o.pictures && preprocessing_of(model).kind != PreprocessingKind::digit)
    throw UsageError{fmt::format("--pictures: {} has no digit front end", o.model)};
  const std::unique_ptr<ThreadPool> pool = make_pool(o.common);
  const Samples samples =
      samples_for(model, open_data(o.data, "t10k"), o.common.seed, Reading{pool.get(), o.pictures});
  SessionOptions options;
  options.batch = 32;
  options.loss = loss_for(model);
  options.pool = pool.get();
  options.backend = backend;
  MemoryPlan plan;
  require(Session::plan(model, options, plan), plan.problem, o.model);
  const Memory memory(plan.total);
  Arena arena = memory.arena();
  Session session;
  require(session.build(model, options, arena), session.problem(), o.model);
  const Evaluation e = evaluate(session, samples);
  if (!std::isfinite(e.loss)) fail("the loss is not finite", o.model, "check the model with nnlite verify");
  const Json classes = classes_of(e, samples.label_names);
  if (!o.common.json) return print_text(e, classes);
  Json rows = Json::array();
  for (int t = 0; t < e.classes; ++t) {
    const auto row = e.confusion.begin() + t * e.classes;
    rows.push_back(std::vector<std::uint32_t>(row, row + e.classes));
  }
  print_json({{"loss", e.loss},
              {"accuracy", e.accuracy},
              {"count", e.count},
              {"rejected", e.rejected},
              {"rejected_right", e.rejected_right},
              {"confusion", rows},
              {"classes", classes}});
}

}  // namespace

void add_eval(CLI::App& program, int&) {
  auto o = std::make_shared<Options>();
  CLI::App& c =
      *program.add_subcommand("eval", "Loss, accuracy and confusion matrix of a model on labelled data");
  c.add_option("MODEL", o->model, "The model, a .nnl file")->required();
  c.add_option(
       "--data", o->data,
       "Folder with IDX files (t10k-*), folder of class folders, .csv (every row counts, those trained on "
       "too), synthetic-digits[:COUNT], or synthetic")
      ->required();
  c.add_flag("--pictures", o->pictures,
             "Take IDX digits through the model's digit front end, as if they were files");
  add_cuda(c, o->common);
  add_common(c, o->common);
  c.callback([o] { run(*o); });
}
