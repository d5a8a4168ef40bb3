// MODEL or --arch: what info and bench are about.
#pragma once

#include "arch.hpp"
#include "command.hpp"
#include "network.hpp"

struct Subject {
  std::string model, arch;
  std::string name() const { return model.empty() ? arch : model; }
};

void add_subject(CLI::App& command, Subject& subject);

// Loads or builds it. Weights are made from the seed where `weights` asks for them.
struct LoadedSubject {
  std::unique_ptr<Network> network;
  Memory weights;
};
LoadedSubject load_subject(const Subject& subject, std::uint64_t seed, bool weights);

// Options to plan or time with; of training: the loss that fits, the given optimizer.
struct Place {
  int batch = 1;
  nnlite::Pool* pool = nullptr;
  const nnlite::Backend* backend = nullptr;
};
nnlite::SessionOptions session_options(const Place& place);
nnlite::TrainerOptions training_options(const nnlite::Model& model, const std::string& optimizer,
                                        const Place& place);
