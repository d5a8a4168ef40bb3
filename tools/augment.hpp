// --augment: how pictures are changed each time they are seen.
#pragma once

#include <string>

#include "nnlite.hpp"

// "none"; "digits", which is good for handwritten ones; or settings: "degrees=15,scale=0.1,shear=0.1,shift=2,
// thinner=0.3,thicker=0.3,background=0". A bad text is a UsageError.
nnlite::Augment parse_augment(const std::string& text);

// A model that it does not fit is a UsageError.
void check_augment(const nnlite::Augment& augment, const nnlite::Model& model);

// As it can be written: its settings that are not the defaults, or "none".
std::string text_of(const nnlite::Augment& augment);
