// nnlite-bench: products and convolutions beside OpenBLAS and oneDNN, one thread each, in one process.
//
// Every library computes the same outputs from the same values; that is checked first. Then all ways take
// turns, each for about a tenth of a millisecond, and the medians count. A library has the time of its
// fastest way: every layout of weights, and for oneDNN of activations too, that its primitives like to have.
// Rearranging weights or activations is never timed; nnlite's are what its layers have.
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "failure.hpp"
#include "peak.hpp"
#include "progress.hpp"
#include "random.hpp"
#include "shapes.hpp"

using nnlite::Phase;
using Json = nlohmann::ordered_json;

namespace {

constexpr Phase forward = Phase::forward, dx = Phase::grad_input, dw = Phase::grad_parameter;

// table, name, pass, rows, size, in, out, kernel, padding
const Case cases[] = {
    {"product", "MLP 64 x 784 -> 200", forward, 64, 0, 784, 200, 1, 0},
    {"product", "MLP 64 x 784 -> 200", dw, 64, 0, 784, 200, 1, 0},
    {"product", "MLP 64 x 200 -> 200", forward, 64, 0, 200, 200, 1, 0},
    {"product", "MLP 64 x 200 -> 200", dx, 64, 0, 200, 200, 1, 0},
    {"product", "head 64 x 200 -> 10", forward, 64, 0, 200, 10, 1, 0},
    {"product", "8192 x 144 -> 16", forward, 8192, 0, 144, 16, 1, 0},
    {"product", "1024 x 576 -> 64", forward, 1024, 0, 576, 64, 1, 0},
    {"product", "36864 x 25 -> 6", forward, 36864, 0, 25, 6, 1, 0},
    {"product", "square 16", forward, 16, 0, 16, 16, 1, 0},
    {"product", "square 32", forward, 32, 0, 32, 32, 1, 0},
    {"product", "square 64", forward, 64, 0, 64, 64, 1, 0},
    {"product", "square 256", forward, 256, 0, 256, 256, 1, 0},
    {"product", "square 512", forward, 512, 0, 512, 512, 1, 0},
    {"product", "square 1024", forward, 1024, 0, 1024, 1024, 1, 0},
    {"product", "1 x 784 -> 200", forward, 1, 0, 784, 200, 1, 0},
    {"product", "1 x 1024 -> 1024", forward, 1, 0, 1024, 1024, 1, 0},
    {"convolution", "16 -> 16, 32x32, 3x3", forward, 64, 32, 16, 16, 3, 1},
    {"convolution", "16 -> 16, 32x32, 3x3", dw, 64, 32, 16, 16, 3, 1},
    {"convolution", "16 -> 16, 32x32, 3x3", dx, 64, 32, 16, 16, 3, 1},
    {"convolution", "32 -> 32, 16x16, 3x3", forward, 64, 16, 32, 32, 3, 1},
    {"convolution", "32 -> 32, 16x16, 3x3", dw, 64, 16, 32, 32, 3, 1},
    {"convolution", "32 -> 32, 16x16, 3x3", dx, 64, 16, 32, 32, 3, 1},
    {"convolution", "64 -> 64, 8x8, 3x3", forward, 64, 8, 64, 64, 3, 1},
    {"convolution", "64 -> 64, 8x8, 3x3", dw, 64, 8, 64, 64, 3, 1},
    {"convolution", "64 -> 64, 8x8, 3x3", dx, 64, 8, 64, 64, 3, 1},
    {"convolution", "64 -> 64, 16x16, 1x1", forward, 64, 16, 64, 64, 1, 0},
    {"convolution", "64 -> 64, 16x16, 1x1", dw, 64, 16, 64, 64, 1, 0},
    {"convolution", "64 -> 64, 16x16, 1x1", dx, 64, 16, 64, 64, 1, 0},
    {"convolution", "1 -> 6, 28x28, 5x5", forward, 64, 28, 1, 6, 5, 2},
    {"convolution", "1 -> 6, 28x28, 5x5", dw, 64, 28, 1, 6, 5, 2},
    {"convolution", "6 -> 16, 14x14, 5x5", forward, 64, 14, 6, 16, 5, 0},
    {"convolution", "6 -> 16, 14x14, 5x5", dw, 64, 14, 6, 16, 5, 0},
    {"convolution", "6 -> 16, 14x14, 5x5", dx, 64, 14, 6, 16, 5, 0},
    {"batch 1", "16 -> 16, 32x32, 3x3", forward, 1, 32, 16, 16, 3, 1},
    {"batch 1", "16 -> 16, 32x32, 3x3", dw, 1, 32, 16, 16, 3, 1},
    {"batch 1", "16 -> 16, 32x32, 3x3", dx, 1, 32, 16, 16, 3, 1},
    {"batch 1", "64 -> 64, 8x8, 3x3", forward, 1, 8, 64, 64, 3, 1},
    {"batch 1", "64 -> 64, 8x8, 3x3", dw, 1, 8, 64, 64, 3, 1},
    {"batch 1", "64 -> 64, 8x8, 3x3", dx, 1, 8, 64, 64, 3, 1},
};

const char* name_of(Phase pass) { return pass == forward ? "forward" : pass == dx ? "dx" : "dw"; }

Values values_of(const Case& c) {
  Values v = {std::vector<float>(c.x_count()), std::vector<float>(c.w_count()),
              std::vector<float>(c.y_count())};
  Random random{1};
  for (std::vector<float>* all : {&v.x, &v.w, &v.y})
    for (float& one : *all) one = random.between(-1, 1);
  return v;
}

// A way with its library and times.
struct Runner {
  std::string library;
  Way way;
  int repeats = 1;
  std::vector<double> us = {};

  void time() {
    const double start = now();
    for (int i = 0; i < repeats; ++i) way.run();
    us.push_back(1e6 * (now() - start) / repeats);
  }
  double median() {
    std::nth_element(us.begin(), us.begin() + static_cast<std::ptrdiff_t>(us.size() / 2), us.end());
    return us[us.size() / 2];
  }
};

// Whether a way's outputs are those of nnlite, within 1e-4 of the largest.
bool agrees(const std::vector<float>& ours, Runner& other) {
  other.way.run();
  const std::vector<float> theirs = other.way.result();
  float largest = 0, error = ours.size() == theirs.size() ? 0.0f : HUGE_VALF;
  for (std::size_t i = 0; i < ours.size() && i < theirs.size(); ++i) {
    largest = std::max(largest, std::fabs(ours[i]));
    error = std::max(error, std::fabs(ours[i] - theirs[i]));
  }
  return error <= 1e-4f * largest;
}

void measure(std::vector<Runner>& runners, double seconds) {
  for (Runner& r : runners) {
    r.time();
    r.time();
    r.repeats = std::max(1, static_cast<int>(100 / r.us.back()));
    r.us.clear();
  }
  const double end = now() + seconds;
  for (int round = 0; round < 9 || now() < end; ++round)
    for (Runner& r : runners) r.time();
}

Json run_case(const Case& c, double seconds) {
  const Values values = values_of(c);
  std::vector<Runner> runners;
  for (Way& way : nnlite_ways(c, values)) runners.push_back({"nnlite", std::move(way)});
  for (Way& way : openblas_ways(c, values)) runners.push_back({"openblas", std::move(way)});
  for (Way& way : onednn_ways(c, values)) runners.push_back({"onednn", std::move(way)});
  runners[0].way.run();
  const std::vector<float> ours = runners[0].way.result();
  for (Runner& r : runners)
    if (!agrees(ours, r)) fail("other outputs than nnlite's", r.library + " " + r.way.name, c.name);
  measure(runners, seconds);
  Json us, ways;
  double best = HUGE_VAL;
  for (Runner& r : runners) {
    const double median = r.median();
    if (r.library != "nnlite") best = std::min(best, median);
    if (us.contains(r.library) && us[r.library].get<double>() <= median) continue;
    us[r.library] = median;
    ways[r.library] = r.way.name;
  }
  return {{"table", c.table}, {"name", c.name}, {"pass", name_of(c.pass)}, {"flop", c.flop()}, {"us", us},
          {"ways", ways},     {"ratio", best / us["nnlite"].get<double>()}};
}

std::string rate(const Json& result, const char* library) {
  if (!result["us"].contains(library)) return "";
  return fmt::format("{:.1f}", result["flop"].get<double>() / result["us"][library].get<double>() * 1e-3);
}

void print_case(const Json& r, double peak) {
  const auto way = [&](const char* library) { return r["ways"].value(library, std::string()); };
  fmt::print("{:12} {:22} {:8} {:>8} {:>8} {:>8} {:6.1f} {:7.2f}  {}; {}\n", r["table"].get<std::string>(),
             r["name"].get<std::string>(), r["pass"].get<std::string>(), rate(r, "nnlite"),
             rate(r, "openblas"), rate(r, "onednn"),
             r["flop"].get<double>() / r["us"]["nnlite"].get<double>() * 0.1 / peak, r["ratio"].get<double>(),
             way("openblas"), way("onednn"));
  std::fflush(stdout);
}

// Geometric mean and worst ratio: of batch 1, and of all others.
Json summary(const Json& results, bool batch1) {
  double logs = 0, worst = HUGE_VAL;
  int n = 0;
  for (const Json& r : results) {
    if ((r["table"] == "batch 1") != batch1) continue;
    logs += std::log(r["ratio"].get<double>());
    worst = std::min(worst, r["ratio"].get<double>());
    ++n;
  }
  if (n == 0) return nullptr;
  return {{"geometric_mean", std::exp(logs / n)}, {"worst", worst}, {"shapes", n}};
}

void run(const std::string& only, double seconds, bool json) {
  const double peak = peak_gflops();
  if (!json)
    fmt::print("{:12} {:22} {:8} {:>8} {:>8} {:>8} {:>6} {:>7}  {}\n", "", "GFLOP/s", "pass", "nnlite",
               "OpenBLAS", "oneDNN", "% peak", "ratio", "their fastest ways");
  Json results = Json::array();
  for (const Case& c : cases) {
    if (fmt::format("{} {} {}", c.table, c.name, name_of(c.pass)).find(only) == std::string::npos) continue;
    results.push_back(run_case(c, seconds));
    if (!json) print_case(results.back(), peak);
  }
  const Json all = {{"isa", nnlite::isa_name(nnlite::current_isa())},
                    {"peak_gflops", peak},
                    {"results", results},
                    {"products_and_convolutions", summary(results, false)},
                    {"batch_1", summary(results, true)}};
  if (json) {
    fmt::print("{}\n", all.dump(2));
    return;
  }
  for (const char* part : {"products_and_convolutions", "batch_1"})
    if (!all[part].is_null())
      fmt::print("{}: time of the better library / nnlite's: geometric mean {:.3f}, worst {:.3f}\n", part,
                 all[part]["geometric_mean"].get<double>(), all[part]["worst"].get<double>());
  fmt::print("{}, peak {:.1f} GFLOP/s\n", all["isa"].get<std::string>(), peak);
}

}  // namespace

int main(int argc, char** argv) {
  // OpenMP, which oneDNN uses, reads this before main.
  if (!getenv("OMP_NUM_THREADS") && setenv("OMP_NUM_THREADS", "1", 1) == 0) execv("/proc/self/exe", argv);
  CLI::App program{"Products and convolutions beside OpenBLAS and oneDNN, on one thread"};
  std::string only;
  double seconds = 0.3;
  bool json = false;
  program.add_option("--only", only, "Only shapes whose table, name or pass has this in it");
  program.add_option("--seconds", seconds, "How long to measure each shape (default 0.3)");
  program.add_flag("--json", json, "Print one JSON object");
  CLI11_PARSE(program, argc, argv);
  try {
    run(only, seconds, json);
  } catch (const Failure& failure) {
    report(failure);
    return 1;
  }
  return 0;
}
