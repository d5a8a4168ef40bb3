// nnlite predict: which class each picture is.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "command.hpp"
#include "data.hpp"
#include "evaluate.hpp"
#include "failure.hpp"
#include "file.hpp"
#include "grid.hpp"
#include "picture.hpp"

using namespace nnlite;

namespace {

struct Options {
  Common common;
  std::string model, grid;
  std::vector<std::string> paths;
  int top = 1;
  bool show = false;
};

struct Result {
  std::string path;
  std::string error;  // empty: there is an answer
  std::vector<double> p;
  std::vector<float> input;  // for --show
};

const int batch = 32;

// Files as given, folders as the pictures in them. A path that is neither stays, and is reported when it is
// read.
std::vector<Result> collect(const std::vector<std::string>& paths) {
  std::vector<Result> results;
  for (const std::string& path : paths) {
    if (!is_folder(path)) {
      results.push_back({path, "", {}, {}});
      continue;
    }
    try {
      for (const std::string& file : list_pictures(path)) results.push_back({file, "", {}, {}});
    } catch (const Failure& failure) { results.push_back({path, one_line(failure), {}, {}}); }
  }
  return results;
}

// Reads up to `batch` pictures from `from` on, runs them together, and returns where to go on.
std::size_t run_batch(Session& session, const Options& o, std::vector<Result>& results, std::size_t from) {
  const Model& model = *session.model();
  const Preprocessing how = preprocessing_of(model);
  const Dims input = dims_of(model.input_shape(0));
  std::vector<std::size_t> rows;
  for (; from < results.size() && rows.size() < static_cast<std::size_t>(batch); ++from) {
    Result& r = results[from];
    if (!r.error.empty()) continue;
    try {
      read_input(r.path, how, input, session.input().row(static_cast<std::int64_t>(rows.size())));
      rows.push_back(from);
    } catch (const Failure& failure) { r.error = one_line(failure); }
  }
  if (rows.empty()) return from;
  if (o.show)
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const float* row = session.input().row(static_cast<std::int64_t>(k));
      results[rows[k]].input.assign(row, row + session.input().shape.row_numel());
    }
  require(session.forward(static_cast<int>(rows.size())), session.problem(), o.model);
  for (std::size_t k = 0; k < rows.size(); ++k) {
    Result& r = results[rows[k]];
    const float* answer = session.output().row(static_cast<std::int64_t>(k));
    if (std::all_of(answer, answer + output_size(model), [](float v) { return std::isfinite(v); }))
      r.p = probabilities(model, answer);
    else r.error = one_line({"the answer is not finite", r.path, "check the model with nnlite verify"});
  }
  return from;
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
// when not.
void draw(const Options& o, const std::vector<Result>& results, const std::vector<std::string>& labels) {
  std::vector<Tile> tiles;
  for (const Result& r : results) {
    if (!r.error.empty()) continue;
    const std::string& answer = labels[static_cast<std::size_t>(ranking(r.p, 1)[0])];
    const std::string folder = std::filesystem::absolute(r.path).parent_path().filename().string();
    const bool known = std::find(labels.begin(), labels.end(), folder) != labels.end();
    tiles.push_back({read_picture(r.path), known ? fmt::format("{} ({})", answer, folder) : answer,
                     !known             ? Ink::black
                     : answer == folder ? Ink::green
                                        : Ink::red});
  }
  if (tiles.empty()) return;
  const Bytes png = encode_png(draw_grid(tiles, 5));
  write_file(o.grid, png.data(), png.size());
}

Json to_json(const Result& r, const std::vector<std::string>& labels, int top) {
  Json json = {{"path", r.path},    {"label", nullptr},     {"probability", nullptr},
               {"rejected", false}, {"top", Json::array()}, {"error", nullptr}};
  if (!r.error.empty()) {
    json["error"] = r.error;
    return json;
  }
  for (int i : ranking(r.p, top))
    json["top"].push_back(
        {{"label", labels[static_cast<std::size_t>(i)]}, {"probability", r.p[static_cast<std::size_t>(i)]}});
  json["label"] = json["top"][0]["label"];
  json["probability"] = json["top"][0]["probability"];
  return json;
}

void print_text(const Result& r, const std::vector<std::string>& labels, int top) {
  std::string line = r.path + ":";
  for (int i : ranking(r.p, top))
    line += fmt::format(" {} ({:.1f} %)", labels[static_cast<std::size_t>(i)],
                        100 * r.p[static_cast<std::size_t>(i)]);
  fmt::print("{}\n", line);
}

int run(const Options& o) {
  std::vector<Result> results = collect(o.paths);
  std::vector<NamedFile> inputs = {{"MODEL", o.model}};
  for (const Result& r : results) inputs.push_back({"IMAGE", r.path});
  if (!o.grid.empty()) check_different({{"--grid", o.grid}}, inputs);
  if (!o.grid.empty()) check_writable(o.grid);
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
  MemoryPlan plan;
  require(Session::plan(model, options, plan), plan.problem, o.model);
  const Memory memory(plan.total);
  Arena arena = memory.arena();
  Session session;
  require(session.build(model, options, arena), session.problem(), o.model);

  int code = 0;
  Json list = Json::array();
  for (std::size_t from = 0; from < results.size();) {
    const std::size_t to = run_batch(session, o, results, from);
    for (; from < to; ++from) {
      Result& r = results[from];
      if (!r.error.empty()) {
        std::fprintf(stderr, "nnlite: %s\n", r.error.c_str());
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
  c.add_option("--top", o->top, "How many of the likeliest classes to give")->check(CLI::Range(1, 65535));
  c.add_flag("--show", o->show, "Draw each picture as the model gets it");
  c.add_option("--grid", o->grid,
               "Save the pictures as one PNG, each titled with its class; in a folder named like a class, "
               "green or red");
  add_common(c, o->common);
  c.callback([o, &code] { code = run(*o); });
}
