// How the tools report: one line on stderr, "nnlite: <what>: <where>: <what to do>"; exit 1 (2 for usage).
#pragma once

#include <string>

struct Failure {
  std::string what;    // what is wrong: "truncated PNG picture"
  std::string where;   // file, and line, byte, record or layer in it
  std::string advice;  // what to do about it
};

// A mistake on the command line: exit 2.
struct UsageError {
  std::string text;
};

[[noreturn]] void fail(std::string what, std::string where, std::string advice);

// "what: where: advice" on one line, whatever bytes a file name holds.
std::string one_line(const Failure& failure);

// Prints "nnlite: " and the line on stderr, behind all that stdout was given.
void report(const Failure& failure);
void report(const std::string& line);
