// nnlite train: a new model from an architecture and data.
#include "arch.hpp"
#include "fit.hpp"

void add_train(CLI::App& program, int& code) {
  auto o = std::make_shared<FitOptions>();
  CLI::App& c = *program.add_subcommand("train", "Train a new model on labelled data");
  c.add_option("--arch", o->arch,
               "A network (" + arch_names() +
                   ") or a list of layers: \"conv 8 3, relu, maxpool 2, flatten, linear 10\"");
  c.add_option(
       "--preprocess", o->preprocess,
       "plain, or digit: the model finds the digit on any picture itself, and makes it look like MNIST's "
       "(default: digit for synthetic-digits, else plain)")
      ->check(CLI::IsMember({"plain", "digit"}));
  add_fit_options(c, *o);
  c.callback([o, &code] { code = fit(*o); });
}
