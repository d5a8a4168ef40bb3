// nnlite finetune: a model that exists, trained further on other data.
#include "fit.hpp"

void add_finetune(CLI::App& program, int& code) {
  auto o = std::make_shared<FitOptions>();
  CLI::App& c = *program.add_subcommand("finetune", "Train a model further, all of it or a part");
  c.add_option("MODEL", o->model, "The model to start from, a .nnl file")->required();
  c.add_option("--update", o->update,
               "What changes: all, bias, head (the last layer), or names of layers with commas (default all; "
               "for a lesson head)");
  c.add_option(
      "--replay", o->replay,
      "Data that the model knows, of which some is repeated so that it is not forgotten; none: do not "
      "(default none; for a lesson to a model that reads digits MNIST in $NNLITE_DATA/mnist or "
      "../shared/data/mnist, else synthetic-digits). A lesson is up to 500 pictures in class folders, or "
      "pictures of some classes alone, for a model with a digit front end; with --replay none it has no "
      "defaults of its own. The model keeps up to 20 pictures a class, and repeats them in later lessons");
  add_fit_options(c, *o);
  c.callback([o, &code] { code = fit(*o); });
}
