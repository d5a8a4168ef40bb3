// nnlite predict: which class each picture is.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "command.hpp"
#include "data.hpp"
#include "device.hpp"
#include "evaluate.hpp"
#include "failure.hpp"
#include "file.hpp"
#include "grid.hpp"
#include "parallel.hpp"
#include "picture.hpp"
#include "prepare.hpp"

using namespace nnlite;

namespace {

struct Options {
  Common common;
  std::string model, grid;
  std::vector<std::string> paths;
  int top = 1;
  bool show = false, accept_all = false;
};

struct Result {
  std::string path;
  std::string error;  // empty: there is an answer
  std::vector<double> p;
  Seen seen = Seen::one;
  const char* rejected = nullptr;  // why
  std::vector<float> input;
};

const int batch = 32;
const std::size_t at_once = 4 * batch;  // pictures read before any is answered

// Files as given, folders as the pictures in them. A path that is neither stays, and is reported when it is
// read.
std::vector<Result> collect(const std::vector<std::string>& paths) {
  std::vector<Result> results;
  for (const std::string& path : paths) {
    if (!is_folder(path)) {
      results.emplace_back().path = path;
      continue;
    }
    try {
      for (const std::string& file : list_pictures(path)) results.emplace_back().path = file;
    } catch (const Failure& failure) {
      results.emplace_back().path = path;
      results.back().error = one_line(failure);
    }
  }
  return results;
}

void read(Result& r, const Preparer& preparer, int worker) {
  if (!r.error.empty()) return;
  r.input.resize(preparer.size());
  try {
    r.seen = preparer.read(r.path, worker, r.input.data());
  } catch (const Failure& failure) { r.error = one_line(failure); }
}

// Answers those of results [from, to) that could be read.
void answer(Session& session, const Options& o, std::vector<Result>& results, std::size_t from,
            std::size_t to) {
  const Model& model = *session.model();
  while (from < to) {
    std::vector<std::size_t> rows;
    for (; from < to && rows.size() < static_cast<std::size_t>(batch); ++from) {
      const Result& r = results[from];
      if (!r.error.empty()) continue;
      std::copy(r.input.begin(), r.input.end(), session.input().row(static_cast<std::int64_t>(rows.size())));
      rows.push_back(from);
    }
    if (rows.empty()) return;
    require(session.forward(static_cast<int>(rows.size())), session.problem(), o.model);
    for (std::size_t k = 0; k < rows.size(); ++k) {
      Result& r = results[rows[k]];
      const float* row = session.output().row(static_cast<std::int64_t>(k));
      if (std::all_of(row, row + output_size(model), [](float v) { return std::isfinite(v); })) {
        r.p = probabilities(model, row);
        if (!o.accept_all) r.rejected = why_rejected(model, r.seen, r.p);
      } else {
        r.error = one_line({"the answer is not finite", r.path, "check the model with nnlite verify"});
      }
    }
  }
}

std::vector<int> ranking(const std::vector<double>& p, int top) {
  std::vector<int> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return p[static_cast<std::size_t>(a)] > p[static_cast<std::size_t>(b)];
  });
  order.resize(std::min(order.size(), static_cast<std::size_t>(top)));
  return order;
}

// The input as the model got it, two characters a pixel, the darkest value a blank.
void show(const std::vector<float>& input, const Dims& dims, std::FILE* to) {
  static const char shades[] = " .:-=+*#%@";
  const auto range = std::minmax_element(input.begin(), input.end());
  if (!std::isfinite(*range.second - *range.first)) return;
  const float low = *range.first, span = std::max(*range.second - low, 1e-6f);
  const int channels = dims.dim[2], columns = std::min(dims.dim[1], 64);
  const int rows = std::max(1, dims.dim[0] * columns / dims.dim[1]);
  for (int y = 0; y < rows; ++y) {
    for (int x = 0; x < columns; ++x) {
      const int at = (y * dims.dim[0] / rows * dims.dim[1] + x * dims.dim[1] / columns) * channels;
      float sum = 0;
      for (int c = 0; c < channels; ++c) sum += input[static_cast<std::size_t>(at + c)] - low;
      const char shade = shades[static_cast<int>(sum / static_cast<float>(channels) / span * 9.0f + 0.5f)];
      std::fprintf(to, "%c%c", shade, shade);
    }
    std::fputc('\n', to);
  }
}

// A picture in a folder that is called like a class is of that class: green when the answer agrees, red
// when not. What is rejected is grey.
void draw(const Options& o, const std::vector<Result>& results, const std::vector<std::string>& labels) {
  std::vector<Tile> tiles;
  for (const Result& r : results) {
    if (!r.error.empty()) continue;
    const std::string& best = labels[static_cast<std::size_t>(ranking(r.p, 1)[0])];
    const std::string folder = std::filesystem::absolute(r.path).parent_path().filename().string();
    const bool known = std::find(labels.begin(), labels.end(), folder) != labels.end();
    const std::string answer = r.rejected ? "?" : best;
    tiles.emplace_back(read_picture(r.path), known ? fmt::format("{} ({})", answer, folder) : answer,
                       r.rejected         ? Ink::gray
                       : !known           ? Ink::black
                       : answer == folder ? Ink::green
                                          : Ink::red);
  }
  if (tiles.empty()) return;
  const Bytes png = encode_grid(tiles);
  write_file(o.grid, png.data(), png.size());
}

Json to_json(const Result& r, const std::vector<std::string>& labels, int top) {
  Json json = {{"path", r.path},       {"label", nullptr}, {"probability", nullptr}, {"rejected", false},
               {"top", Json::array()}, {"error", nullptr}, {"reason", nullptr}};
  if (!r.error.empty()) {
    json["error"] = r.error;
    return json;
  }
  if (r.rejected) json["rejected"] = true, json["reason"] = r.rejected;
  for (int i : ranking(r.p, top))
    json["top"].push_back(
        {{"label", labels[static_cast<std::size_t>(i)]}, {"probability", r.p[static_cast<std::size_t>(i)]}});
  json["label"] = json["top"][0]["label"];
  json["probability"] = json["top"][0]["probability"];
  return json;
}

void print_text(const Result& r, const std::vector<std::string>& labels, int top) {
  std::string answers;
  for (int i : ranking(r.p, top)) {
    const std::string& label = labels[static_cast<std::size_t>(i)];
    const double percent = 100 * r.p[static_cast<std::size_t>(i)];
    answers += r.rejected ? fmt::format("{}{}, {:.1f} %", answers.empty() ? "" : "; ", label, percent)
                          : fmt::format(" {} ({:.1f} %)", label, percent);
  }
  if (r.rejected) answers = fmt::format(" rejected: {} (best guess {})", r.rejected, answers);
  fmt::print("{}:{}\n", r.path, answers);
}

int run(const Options& o) {
  const Backend* const backend = backend_for(o.common);
  std::vector<Result> results = collect(o.paths);
  std::vector<NamedFile> inputs = {{"MODEL", o.model}};
  for (const Result& r : results) inputs.push_back({"IMAGE", r.path});
  if (!o.grid.empty()) {
    check_different({{"--grid", o.grid}}, inputs);
    check_writable(o.grid);
    check_ending({"--grid", o.grid}, {".png"});
    check_replaces({"--grid", o.grid}, grid_kind);
    if (results.size() > most_tiles)
      throw UsageError{fmt::format("--grid: {} pictures; at most {} fit in one", results.size(), most_tiles)};
  }
  const std::unique_ptr<Network> network = load_network(o.model);
  const Model& model = network->model;
  const Dims input = dims_of(model.input_shape(0));
  check_usable(model, o.model);
  if (input.rank != 3 || target_of(model) == Target::dense)
    fail("not a model that tells what a picture is", o.model,
         "give one that was trained on pictures of classes");
  std::vector<std::string> labels = labels_of(model);
  const std::unique_ptr<ThreadPool> pool = make_pool(o.common);
  SessionOptions options;
  options.batch = batch;
  options.pool = pool.get();
  options.backend = backend;
  MemoryPlan plan;
  require(Session::plan(model, options, plan), plan.problem, o.model);
  const Memory memory(plan.total);
  Arena arena = memory.arena();
  Session session;
  require(session.build(model, options, arena), session.problem(), o.model);

  int code = 0;
  Json list = Json::array();
  const Preparer preparer(preprocessing_of(model), input, pool->workers);
  for (std::size_t from = 0; from < results.size();) {
    const std::size_t to = std::min(results.size(), from + at_once);
    for_each(pool.get(), to - from,
             [&](std::size_t i, int worker) { read(results[from + i], preparer, worker); });
    answer(session, o, results, from, to);
    for (; from < to; ++from) {
      Result& r = results[from];
      if (!r.error.empty()) {
        report(r.error);
        code = 1;
      }
      if (r.error.empty() && o.show) show(r.input, input, o.common.json ? stderr : stdout);
      if (o.common.json) list.push_back(to_json(r, labels, o.top));
      else if (r.error.empty()) print_text(r, labels, o.top);
      r.input = {};
    }
  }
  if (o.common.json) print_json({{"model", o.model}, {"results", list}});
  if (!o.grid.empty()) draw(o, results, labels);
  return code;
}

}  // namespace

void add_predict(CLI::App& program, int& code) {
  auto o = std::make_shared<Options>();
  CLI::App& c =
      *program.add_subcommand("predict", "Which class is each picture (PNG, JPEG, BMP, binary PNM)");
  c.add_option("MODEL", o->model, "The model, a .nnl file")->required();
  c.add_option("IMAGE", o->paths, "Pictures, and folders of pictures")->required();
  c.add_option("--top", o->top, "How many of the likeliest classes to give")->check(whole_number(1, 65535));
  c.add_flag("--accept-all", o->accept_all, "Answer where the model would reject the picture");
  c.add_flag("--show", o->show, "Draw each picture as the model gets it");
  c.add_option("--grid", o->grid,
               "Save the pictures as one .png, each titled with its class; in a folder named like a class, "
               "green or red; rejected ones grey");
  add_cuda(c, o->common);
  add_common(c, o->common);
  c.callback([o, &code] { code = run(*o); });
}
