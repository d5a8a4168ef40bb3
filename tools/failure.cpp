#include "failure.hpp"

#include <cstdio>
#include <utility>

void fail(std::string what, std::string where, std::string advice) {
  throw Failure{std::move(what), std::move(where), std::move(advice)};
}

std::string one_line(const Failure& failure) {
  std::string text = failure.what;
  for (const std::string* part : {&failure.where, &failure.advice})
    if (!part->empty()) text += ": " + *part;
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text;
}

void report(const Failure& failure) { report(one_line(failure)); }

void report(const std::string& line) {
  const std::string text = "nnlite: " + line + "\n";
  std::fflush(stdout);  // what was said before stands before it
  std::fputs(text.c_str(), stderr);
}
