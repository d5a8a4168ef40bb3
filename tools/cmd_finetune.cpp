// nnlite finetune: a model that exists, trained further on other data.
#include "fit.hpp"

void add_finetune(CLI::App& program, int& code) {
  auto o = std::make_shared<FitOptions>();
  CLI::App& c = *program.add_subcommand("finetune", "Train a model further, all of it or a part");
  c.add_option("MODEL", o->model, "The model to start from, a .nnl file")->required();
  c.add_option("--update", o->update,
               "What changes: all, bias, head (the last layer), or names of layers with commas");
  add_fit_options(c, *o);
  c.callback([o, &code] { code = fit(*o); });
}
