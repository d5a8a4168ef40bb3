// What a model was taught with a handful of pictures. It carries them, 784 bytes each, so that the next lesson does
// not wipe out the last one: section 0x8001 of its file, version 1, one record a sample: u32 label, then the input's
// bytes.
#pragma once

#include <vector>

#include "samples.hpp"
#include "network.hpp"

// The samples that the model carries, oldest first; none where it has no such section.
Samples lessons_of(const nnlite::Model& model);

// Earlier samples and new ones, of each class the newest.
const std::size_t most_lessons = 20;
Samples newest(const Samples& lessons);

Bytes lesson_section(const Samples& lessons);

// The sections that the extras carry, with this one in place of their lessons; without them where it is empty. They
// point into both.
std::vector<nnlite::OtherSection> sections_with(const nnlite::ModelExtras& extras, const Bytes& lessons);
