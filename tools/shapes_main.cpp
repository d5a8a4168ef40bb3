// nnlite-bench: products and convolutions beside OpenBLAS and oneDNN, one thread each, in one process.
//
// Every library computes the same outputs from the same values; that is checked first. Then all ways take
// turns: each runs for a moment untimed, then for at least 0.2 ms, and the medians count. A library has the
// time of its fastest way, whatever layout of weights and activations that likes to have.
#include <fmt/format.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstring>
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

// A way with its times. They are of the thread, not of the clock on the wall: others may use the machine.
struct Runner {
  Way way;
  int repeats = 1;
  std::vector<double> us = {};

  static double thread_us() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e6 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_nsec);
  }
  void time() {
    for (int i = 0; i < repeats / 2 + 1; ++i) way.run();  // the others pushed its values out of the caches
    const double start = thread_us();
    for (int i = 0; i < repeats; ++i) way.run();
    us.push_back((thread_us() - start) / repeats);
  }
  double median() {
    std::nth_element(us.begin(), us.begin() + static_cast<std::ptrdiff_t>(us.size() / 2), us.end());
    return us[us.size() / 2];
  }
};

// Fails where a way's outputs are not those of nnlite, within 1e-4 of the largest.
void check(const std::vector<float>& ours, Way& way, const char* name) {
  way.run();
  const std::vector<float> theirs = way.result();
  float largest = 0, error = ours.size() == theirs.size() ? 0.0f : HUGE_VALF;
  for (std::size_t i = 0; i < ours.size() && i < theirs.size(); ++i) {
    largest = std::max(largest, std::fabs(ours[i]));
    error = std::max(error, std::fabs(ours[i] - theirs[i]));
  }
  if (!(error <= 1e-4f * largest)) fail("other outputs than nnlite's", way.library + " " + way.name, name);
}

void measure(std::vector<Runner>& runners, double seconds) {
  for (Runner& r : runners) {
    r.time();
    r.time();
    r.repeats = std::max(4, static_cast<int>(200 / r.us.back()));
    r.us.clear();
  }
  const double end = now() + seconds;
  int round = 0;
  do
    for (Runner& r : runners) r.time();
  while (seconds > 0 && (++round < 9 || now() < end));
}

// Time of the fastest of these libraries / nnlite's; 0 where none can.
double ratio(const Json& result, std::initializer_list<const char*> libraries) {
  double best = HUGE_VAL;
  for (const char* library : libraries) best = std::min(best, result["us"].value(library, HUGE_VAL));
  return best == HUGE_VAL ? 0 : best / result["us"]["nnlite"].get<double>();
}

// The median time of each library's fastest way, and which that is.
Json run_case(const Case& c, double seconds) {
  const Values values = values_of(c);
  std::vector<Runner> runners;
  for (const auto& ways : {nnlite_ways(c, values), openblas_ways(c, values), onednn_ways(c, values)})
    for (const Way& way : ways) runners.push_back({way});
  runners[0].way.run();
  const std::vector<float> ours = runners[0].way.result();
  for (Runner& r : runners) check(ours, r.way, c.name);
  measure(runners, seconds);
  Json us = Json::object(), ways = Json::object();
  for (Runner& r : runners) {
    const double median = r.median();
    if (us.value(r.way.library, HUGE_VAL) <= median) continue;
    us[r.way.library] = median;
    ways[r.way.library] = r.way.name;
  }
  Json result = {{"table", c.table}, {"name", c.name}, {"pass", name_of(c.pass)},
                 {"flop", c.flop()}, {"us", us},       {"ways", ways}};
  result["ratio"] = ratio(result, {"openblas", "onednn"});
  return result;
}

std::string rate(const Json& result, const char* library) {
  if (!result["us"].contains(library)) return "";
  return fmt::format("{:.1f}", result["flop"].get<double>() / result["us"][library].get<double>() * 1e-3);
}

void print_case(const Json& r) {
  const auto way = [&](const char* library) { return r["ways"].value(library, std::string()); };
  fmt::print("{:12} {:22} {:8} {:>8} {:>9} {:>9} {:>9} {:>9} {:7.2f}  {}{}{}\n",
             r["table"].get<std::string>(), r["name"].get<std::string>(), r["pass"].get<std::string>(),
             rate(r, "nnlite"), rate(r, "openblas"), rate(r, "onednn"), rate(r, "winograd"),
             rate(r, "onednn_plain"), r["ratio"].get<double>(), way("openblas"),
             way("openblas").empty() || way("onednn").empty() ? "" : "; ", way("onednn"));
  std::fflush(stdout);
}

struct Summary {
  const char* name;
  bool batch1;
  std::initializer_list<const char*> libraries;
};

Json summary(const Json& results, const Summary& s) {
  double logs = 0, worst = HUGE_VAL;
  int n = 0;
  for (const Json& r : results) {
    const double one = ratio(r, s.libraries);
    if ((r["table"] == "batch 1") != s.batch1 || one == 0) continue;
    logs += std::log(one);
    worst = std::min(worst, one);
    ++n;
  }
  if (n == 0) return nullptr;
  return {{"geometric_mean", std::exp(logs / n)}, {"worst", worst}, {"cases", n}};
}

bool is_wanted(const Case& c, const std::string& only) {
  return fmt::format("{} {} {}", c.table, c.name, name_of(c.pass)).find(only) != std::string::npos;
}

void run(const std::string& only, double seconds, bool json) {
  if (std::none_of(std::begin(cases), std::end(cases), [&](const Case& c) { return is_wanted(c, only); }))
    throw UsageError{fmt::format("--only: no table, name or pass has '{}' in it", only)};
  const double peak = peak_gflops();
  if (!json)
    fmt::print("{:12} {:22} {:8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>7}  {}\n", "", "GFLOP/s", "pass", "nnlite",
               "OpenBLAS", "oneDNN", "Winograd", "reorders", "ratio", "their fastest ways");
  Json results = Json::array();
  for (const Case& c : cases) {
    if (!is_wanted(c, only)) continue;
    results.push_back(run_case(c, seconds));
    if (!json) print_case(results.back());
  }
  Json all = {{"isa", nnlite::isa_name(nnlite::current_isa())},
              {"peak_gflops", std::max(peak, peak_gflops())},
              {"results", results}};
  for (const Summary& s :
       {Summary{"all but batch 1", false, {"openblas", "onednn"}},
        Summary{"all but batch 1, Winograd asked for", false, {"openblas", "onednn", "winograd"}},
        Summary{"batch 1", true, {"onednn"}},
        Summary{"batch 1, with their reorders", true, {"onednn_plain"}}})
    all["summary"][s.name] = summary(results, s);
  if (json) {
    fmt::print("{}\n", all.dump(2));
    return;
  }
  for (const auto& [name, s] : all["summary"].items())
    if (!s.is_null())
      fmt::print("{:40} geometric mean {:.3f}, worst {:.3f}\n", name, s["geometric_mean"].get<double>(),
                 s["worst"].get<double>());
  fmt::print("{}, peak {:.1f} GFLOP/s\n", all["isa"].get<std::string>(), all["peak_gflops"].get<double>());
}

}  // namespace

int main(int argc, char** argv) {
  // OpenMP, which oneDNN uses, reads this before main.
  const char* threads = getenv("OMP_NUM_THREADS");
  if ((!threads || std::strcmp(threads, "1") != 0) && setenv("OMP_NUM_THREADS", "1", 1) == 0)
    execv("/proc/self/exe", argv);
  CLI::App program{
      "Products and convolutions beside OpenBLAS and oneDNN, on one thread.\nratio: time of the faster library "
      "over nnlite's, above 1 nnlite is faster. Winograd: oneDNN asked for that algorithm. Reorders: with the "
      "time that oneDNN takes to bring values into the layouts that it likes.",
      "nnlite-bench"};
  std::string only;
  double seconds = 0.3;
  bool json = false;
  program.add_option("--only", only, "Only shapes whose table, name or pass has this in it");
  program.add_option("--seconds", seconds,
                     "How long to measure each, at least 9 rounds (default 0.3); 0: one round")
      ->check(CLI::Range(0.0, 600.0));
  program.add_flag("--json", json, "Print one JSON object");
  try {
    program.parse(argc, argv);
    require_isa();
    run(only, seconds, json);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // --help
    report({error.what(), "", "see nnlite-bench --help"});
    return 2;
  } catch (const UsageError& error) {
    report({error.text, "", "see nnlite-bench --help"});
    return 2;
  } catch (const Failure& failure) {
    report(failure);
    return 1;
  }
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return 0;
  report({"cannot write", "standard output", "check where it goes"});
  return 1;
}
