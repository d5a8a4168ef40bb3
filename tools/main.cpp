// nnlite: the command line. One file per subcommand, cmd_*.cpp.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

#include "command.hpp"
#include "failure.hpp"
#include "peak.hpp"

namespace {

// With --json stdout holds one object whatever happens: that of the command, or this one.
void print_error(const Failure& failure, int argc, char** argv) {
  report(failure);
  const auto is_json = [](const char* word) { return std::string(word) == "--json"; };
  if (json_printed() || std::none_of(argv, argv + argc, is_json)) return;
  print_json({{"error", {{"what", failure.what}, {"where", failure.where}, {"advice", failure.advice}}}});
}

// "train " in front of the options of train; empty where the first word is an option.
std::string command_of(const CLI::App& program, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return "";
  const std::string word = argv[1];
  std::string names;
  for (const CLI::App* command : program.get_subcommands(nullptr)) {
    if (command->get_name() == word) return word + " ";
    names += (names.empty() ? "" : ", ") + command->get_name();
  }
  throw UsageError{fmt::format("'{}' is not a command: there are {}", word, names)};
}

// A script's variable that is not set gives one.
void refuse_empty_words(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.empty())
      throw UsageError{fmt::format("empty text after {}: give a value, or leave both out", argv[i - 1])};
    if (word.size() > 3 && word.compare(0, 2, "--") == 0 && word.find('=') == word.size() - 1)
      throw UsageError{fmt::format("empty text after {}: give a value, or leave both out", word)};
  }
}

int run(int argc, char** argv, std::string& command) {
  require_isa();
  CLI::App program("nnlite " NNLITE_VERSION ": runs and trains neural networks", "nnlite");
  program.set_version_flag("--version", NNLITE_VERSION);
  program.require_subcommand(1);
  int code = 0;
  add_bench(program, code);
  add_embed(program, code);
  add_eval(program, code);
  add_finetune(program, code);
  add_info(program, code);
  add_predict(program, code);
  add_train(program, code);
  add_verify(program, code);
  command = command_of(program, argc, argv);
  refuse_empty_words(argc, argv);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // --help, --version
    throw UsageError{error.what()};
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  int code = 1;
  std::string command;
  try {
    code = run(argc, argv, command);
  } catch (const UsageError& error) {
    print_error({error.text, "", fmt::format("see nnlite {}--help", command)}, argc, argv);
    code = 2;
  } catch (const Failure& failure) { print_error(failure, argc, argv); } catch (const std::bad_alloc&) {
    print_error({"out of memory", "", "use smaller data, a smaller batch or model"}, argc, argv);
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
    report({"cannot write", "standard output", "check where it goes"});
    return 1;
  }
  return code;
}
