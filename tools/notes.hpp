// Notes of a training run: metadata under "training." that a checkpoint carries and a finished model does not.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "network.hpp"

using Notes = std::vector<std::pair<std::string, std::string>>;  // key and value

// The value of a key; empty where there is none.
std::string note(const nnlite::ModelExtras& extras, const std::string& key);

// The model's own metadata and, of these notes, those that are not empty, in order. It points into both.
std::vector<nnlite::Metadata> metadata_with(const nnlite::ModelExtras& extras, const Notes& notes);

// The extras with that list, which outlives them, for their metadata.
nnlite::ModelExtras with_metadata(nnlite::ModelExtras extras, const std::vector<nnlite::Metadata>& list);
