// What the subcommands share: each adds itself to the program, and runs when it was chosen.
#pragma once

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "nnlite.hpp"

using Json = nlohmann::ordered_json;

// Options that every subcommand has.
struct Common {
  int threads = 0;  // 0: not given
  std::uint64_t seed = 1;
  bool json = false;
  bool cuda = false, tf32 = false, bf16 = false;  // of the subcommands that have add_cuda
  const char* precision() const { return tf32 ? "tf32" : bf16 ? "bf16" : "fp32"; }
};

// For options that take a number within limits, both included: no NaN, no sign, nothing behind it.
CLI::Validator whole_number(std::uint64_t least, std::uint64_t most = ~std::uint64_t{0});
CLI::Validator real_number(double least, double most = HUGE_VAL);
CLI::Validator positive_number();

void add_common(CLI::App& command, Common& common);
void add_cuda(CLI::App& command, Common& common, const char* help = "Run on the first NVIDIA GPU");

// Prints one JSON object on stdout.
void print_json(const Json& json);
bool json_printed();

// As many threads as --threads says, else `otherwise`, where 0 is all that the machine has.
std::unique_ptr<nnlite::ThreadPool> make_pool(const Common& common, int otherwise = 0);

// Each sets `code` to what the program exits with.
void add_bench(CLI::App& program, int& code);
void add_embed(CLI::App& program, int& code);
void add_eval(CLI::App& program, int& code);
void add_finetune(CLI::App& program, int& code);
void add_info(CLI::App& program, int& code);
void add_predict(CLI::App& program, int& code);
void add_train(CLI::App& program, int& code);
void add_verify(CLI::App& program, int& code);
