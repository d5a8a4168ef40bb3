// Optimizers and schedules as text: "sgd", "sgd:momentum=0.9,nesterov", "step:step_size=5,gamma=0.3".
#pragma once

#include <string>
#include <vector>

#include "nnlite.hpp"

// Usage errors name what can be written instead.
nnlite::AnyOp parse_optimizer(const std::string& text);
nnlite::AnyOp parse_schedule(const std::string& text);

// Sets an attribute by its name; false when the op has none of that name. get_attribute gives NaN then.
bool set_attribute(nnlite::AnyOp& op, const std::string& name, float value);
double get_attribute(const nnlite::AnyOp& op, const std::string& name);

// As it can be written: the name and the settings that are not the defaults, but those in `without`.
std::string text_of(const nnlite::AnyOp& op, const std::vector<std::string>& without = {});
