#include "augment.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "failure.hpp"

using namespace nnlite;

namespace {

struct Setting {
  const char* name;
  float Augment::*value;
  float least, most;
};

const float endless = 1e30f;
const Setting settings[] = {
    {"background", &Augment::background, -endless, endless},
    {"degrees", &Augment::degrees, 0, 180},
    {"scale", &Augment::scale, 0, 0.9f},
    {"shear", &Augment::shear, 0, 1},
    {"shift", &Augment::shift, 0, 16384},
    {"thicker", &Augment::thicker, 0, 1},
    {"thinner", &Augment::thinner, 0, 1},
};

const char* const digit_augment = "degrees=15,scale=0.12,shear=0.15,shift=1.5,thinner=0.4,thicker=0.5";

void set(Augment& augment, const std::string& item, const std::string& text) {
  const std::size_t equals = std::min(item.find('='), item.size());
  const std::string key = item.substr(0, equals);
  const std::string value = item.substr(std::min(equals + 1, item.size()));
  std::string names;
  for (const Setting& s : settings) {
    names += std::string(names.empty() ? "" : ", ") + s.name;
    if (key != s.name) continue;
    char* end = nullptr;
    const float number = std::strtof(value.c_str(), &end);
    if (value.empty() || *end || !(number >= s.least && number <= s.most))
      throw UsageError{
          fmt::format("--augment '{}': {} is a number from {} to {}", text, s.name, s.least, s.most)};
    augment.*s.value = number;
    return;
  }
  throw UsageError{fmt::format("--augment '{}': '{}' is not none, digits or one of {}", text, key, names)};
}

}  // namespace

Augment parse_augment(const std::string& text) {
  Augment augment;
  std::istringstream in(text == "none" ? "" : text == "digits" ? digit_augment : text);
  for (std::string item; std::getline(in, item, ',');) set(augment, item, text);
  return augment;
}

std::string text_of(const Augment& augment) {
  std::string text;
  for (const Setting& s : settings)
    if (augment.*s.value != Augment().*s.value)
      text += fmt::format("{}{}={}", text.empty() ? "" : ",", s.name, augment.*s.value);
  return text.empty() ? "none" : text;
}

void check_augment(const Augment& augment, const Model& model) {
  const Shape picture = model.input_shape(0);
  if (text_of(augment) == "none") return;
  if (picture.rank != 4) throw UsageError{"--augment: the model takes no pictures"};
  if (picture.dim[3] != 1 && (augment.thinner > 0 || augment.thicker > 0))
    throw UsageError{"--augment: thinner and thicker are for pictures of one channel"};
}
