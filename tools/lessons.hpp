// What a model was taught. It carries the pictures as its inputs, so that the next lesson does not wipe out the
// last one: section 0x8001 of its file, version 1, a record for each: u32 label, then the input's bytes.
#pragma once

#include <vector>

#include "network.hpp"
#include "samples.hpp"

// The samples that the model carries, oldest first; none where it has no such section.
Samples lessons_of(const nnlite::Model& model);

// The earlier samples without those that a new one repeats, of whichever class: what is said last counts.
Samples without_repeated(const Samples& earlier, const Samples& lesson);

// Earlier samples and new ones, of each class the newest.
const std::size_t most_lessons = 20;
Samples newest(const Samples& lessons);

Bytes lesson_section(const Samples& lessons);

// The sections that the extras carry, with this one in place of their lessons; without them where it is empty. They
// point into both.
std::vector<nnlite::OtherSection> sections_with(const nnlite::ModelExtras& extras, const Bytes& lessons);
