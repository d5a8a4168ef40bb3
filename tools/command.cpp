#include "command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <thread>

namespace {

bool printed = false;

// A message of our own: those of CLI11 give bounds with all their digits, and let NaN pass.
// The limits stand in the help too.
template <class Right>
CLI::Validator number(const std::string& what, const std::string& limits, Right right) {
  return CLI::Validator(
      [what, limits, right](std::string& text) {
        return right(text) ? std::string() : fmt::format("'{}' is not {} {}", text, what, limits);
      },
      limits);
}

CLI::Validator real(const std::string& limits, double least, double most) {
  return number("a number", limits, [=](const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    return !text.empty() && *end == '\0' && std::isfinite(static_cast<float>(value)) && value >= least &&
           value <= most;
  });
}

}  // namespace

CLI::Validator whole_number(std::uint64_t least, std::uint64_t most) {
  const std::string limits = most == ~std::uint64_t{0} ? fmt::format("of {} or more", least)
                                                       : fmt::format("from {} to {}", least, most);
  return number("a whole number", limits, [=](const std::string& text) {
    if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) return false;
    errno = 0;
    const std::uint64_t value = std::strtoull(text.c_str(), nullptr, 10);
    return errno == 0 && value >= least && value <= most;
  });
}

CLI::Validator real_number(double least, double most) {
  return real(
      std::isinf(most) ? fmt::format("of {} or more", least) : fmt::format("from {} to {}", least, most),
      least, most);
}

CLI::Validator positive_number() { return real("above 0", std::numeric_limits<float>::min(), HUGE_VAL); }

void add_common(CLI::App& command, Common& common) {
  command
      .add_option(
          "--threads", common.threads,
          "Threads (default: one for each core; bench and info: 1); the results do not depend on them")
      ->check(whole_number(1, nnlite::max_workers));
  command.add_option("--seed", common.seed, "Where random numbers start (default 1)")->check(whole_number(0));
  command.add_flag(
      "--json", common.json,
      "Print one JSON object on stdout, words on stderr; after a failure it is {\"error\": ...}");
}

void add_cuda(CLI::App& command, Common& common, const char* help) {
  CLI::Option* const cuda = command.add_flag("--cuda", common.cuda, help);
  CLI::Option* const tf32 =
      command.add_flag("--tf32", common.tf32, "There with products of factors of 11 bits, which are faster");
  tf32->needs(cuda);
  command.add_flag("--bf16", common.bf16, "The same of 8 bits; weights and sums stay fp32")
      ->needs(cuda)
      ->excludes(tf32);
}

void print_json(const Json& json) {
  const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  std::fputs(text.c_str(), stdout);
  printed = true;
}

bool json_printed() { return printed; }

std::unique_ptr<nnlite::ThreadPool> make_pool(const Common& common, int otherwise) {
  const int all = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, nnlite::max_workers);
  const int wanted = common.threads ? common.threads : otherwise;
  return std::make_unique<nnlite::ThreadPool>(wanted ? wanted : all);
}
