#include "subject.hpp"

#include "attributes.hpp"
#include "data.hpp"
#include "failure.hpp"

using namespace nnlite;

void add_subject(CLI::App& command, Subject& subject) {
  CLI::Option* model = command.add_option("MODEL", subject.model, "A model, a .nnl file");
  command
      .add_option("--arch", subject.arch,
                  "In its place: a network (" + arch_names() + ") or a list of layers")
      ->excludes(model);
}

LoadedSubject load_subject(const Subject& subject, std::uint64_t seed, bool weights) {
  LoadedSubject loaded;
  if (!subject.model.empty()) {
    loaded.network = load_network(subject.model);
    return loaded;
  }
  if (subject.arch.empty()) throw UsageError{"give a MODEL or --arch"};
  loaded.network = build_arch(subject.arch, ArchWish{}, Seed{seed});
  if (!weights) return loaded;
  Model& model = loaded.network->model;
  loaded.weights = Memory(model.weight_bytes());
  Arena arena = loaded.weights.arena();
  require(model.materialise(arena), model.problem(), subject.arch);
  return loaded;
}

SessionOptions session_options(const Place& place) {
  SessionOptions options;
  options.batch = place.batch;
  options.pool = place.pool;
  options.backend = place.backend;
  return options;
}

TrainerOptions training_options(const Model& model, const std::string& optimizer, const Place& place) {
  TrainerOptions options;
  options.batch = place.batch;
  options.loss = loss_for(model);
  options.optimizer = parse_optimizer(optimizer);
  options.pool = place.pool;
  options.backend = place.backend;
  return options;
}
