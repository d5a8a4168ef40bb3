// nnlite: the command line. One file per subcommand, cmd_*.cpp.
#include <cstdio>
#include <cstdlib>
#include <new>

#include "command.hpp"
#include "failure.hpp"

namespace {

int usage(const std::string& text) {
  std::string line = "nnlite: " + text;
  for (char& c : line)
    if (c == '\n') c = ' ';
  std::fprintf(stderr, "%s (see nnlite --help)\n", line.c_str());
  return 2;
}

int run(int argc, char** argv) {
  const char* isa = std::getenv("NNLITE_ISA");
  if (isa && *isa && std::string(isa) != nnlite::isa_name(nnlite::current_isa()))
    return usage(std::string("NNLITE_ISA: '") + isa + "' is no instruction set of this machine");
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
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // --help, --version
    return usage(error.what());
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  int code = 1;
  try {
    code = run(argc, argv);
  } catch (const UsageError& error) { code = usage(error.text); } catch (const Failure& failure) {
    report(failure);
  } catch (const std::bad_alloc&) {
    report({"out of memory", "", "use smaller data, a smaller batch or model"});
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
    report({"cannot write", "standard output", "check where it goes"});
    return 1;
  }
  return code;
}
