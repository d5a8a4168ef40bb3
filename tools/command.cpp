#include "command.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <thread>

const CLI::Validator finite_number(
    [](std::string& text) {
      char* end = nullptr;
      const float value = std::strtof(text.c_str(), &end);
      if (!text.empty() && *end == '\0' && std::isfinite(value) && value >= 0) return std::string();
      return "'" + text + "' is not a number of 0 or more";
    },
    "NUMBER");

void add_common(CLI::App& command, Common& common) {
  command.add_option("--threads", common.threads, "Threads; the results do not depend on them")
      ->check(CLI::Range(1, nnlite::max_workers));
  command.add_option("--seed", common.seed, "Where random numbers start (default 1)");
  command.add_flag("--json", common.json, "Print one JSON object on stdout, words on stderr");
}

void print_json(const Json& json) {
  const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  std::fputs(text.c_str(), stdout);
}

std::unique_ptr<nnlite::ThreadPool> make_pool(const Common& common, int otherwise) {
  const int all = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, nnlite::max_workers);
  const int wanted = common.threads ? common.threads : otherwise;
  return std::make_unique<nnlite::ThreadPool>(wanted ? wanted : all);
}
