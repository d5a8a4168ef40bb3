// --arch: a reference network by name, or a list of layers.
#pragma once

#include <memory>
#include <string>

#include "network.hpp"

// What data asks of an architecture; nothing where there is no data.
struct ArchWish {
  nnlite::Dims input;  // rank 0: the architecture's own, 28 x 28 x 1 for a list
  int classes = 0;     // 0: the architecture's own; for a list always its own
};

// Builds and finishes the graph, without weights. A bad name or list is a UsageError.
//   mlp lenet cnn99 resnet8 dscnn mbv1 mbv2 unet[:BASE]
//   "conv 8 3, relu, maxpool 2, flatten, linear 10"; options are words after the numbers: stride S, pad P,
//   dilation D, groups G, nobias; a size is N or HxW. conv C K pads (K - 1) / 2.
std::unique_ptr<Network> build_arch(const std::string& arch, const ArchWish& wish, nnlite::Seed seed);

// Is it a name, whose input has a size of its own? That input then.
bool named_arch(const std::string& arch, nnlite::Dims& input);

// The names, for help texts.
std::string arch_names();
