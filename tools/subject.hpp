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

// Options to plan or time training with: the loss that fits, the given optimizer.
nnlite::TrainerOptions training_options(const nnlite::Model& model, const std::string& optimizer, int batch,
                                        nnlite::Pool* pool);
