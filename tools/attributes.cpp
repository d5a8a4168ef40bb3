#include "attributes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "failure.hpp"

using namespace nnlite;

namespace {

struct Choice {
  const char* name;
  AnyOp op;
};

const std::vector<Choice> optimizers = {
    {"adagrad", Adagrad{}}, {"adam", Adam{}}, {"adamw", AdamW{}}, {"rmsprop", RMSprop{}}, {"sgd", SGD{}}};
const std::vector<Choice> schedules = {{"constant", ConstantLR{}},       {"cosine", CosineAnnealingLR{}},
                                       {"exponential", ExponentialLR{}}, {"onecycle", OneCycleLR{}},
                                       {"plateau", ReduceLROnPlateau{}}, {"step", StepLR{}}};

// Betas are two floats: betas= sets neither, beta1= and beta2= one each.
bool find_field(const AnyOp& op, const std::string& name, FieldType& type, std::size_t& offset) {
  for (int i = 0; op && i < op.op()->n_fields; ++i) {
    const Field& field = op.op()->fields[i];
    type = field.type;
    offset = field.offset;
    if (field.type == FieldType::betas && (name == "beta1" || name == "beta2")) {
      type = FieldType::f32;
      if (name == "beta2") offset += sizeof(float);
      return true;
    }
    if (field.type != FieldType::betas && field.type != FieldType::pair && name == field.name) return true;
  }
  return false;
}

// Pairs cannot be set.
std::vector<std::string> field_names(const AnyOp& op) {
  std::vector<std::string> names;
  for (int i = 0; op && i < op.op()->n_fields; ++i) {
    const Field& field = op.op()->fields[i];
    if (field.type == FieldType::betas) names.insert(names.end(), {"beta1", "beta2"});
    else if (field.type != FieldType::pair) names.push_back(field.name);
  }
  return names;
}

std::string known_fields(const AnyOp& op) {
  const std::vector<std::string> names = field_names(op);
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

AnyOp parse(const std::string& text, const char* what, const std::vector<Choice>& choices) {
  const std::size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  std::string names;
  for (const Choice& choice : choices) {
    names += std::string(names.empty() ? "" : ", ") + choice.name;
    if (name != choice.name) continue;
    AnyOp op = choice.op;
    std::size_t from = colon == std::string::npos ? text.size() : colon + 1;
    while (from < text.size()) {
      const std::size_t to = std::min(text.find(',', from), text.size());
      const std::string item = text.substr(from, to - from);
      const std::size_t equals = item.find('=');
      const std::string key = item.substr(0, equals),
                        value = equals == std::string::npos ? "1" : item.substr(equals + 1);
      char* end = nullptr;
      const float number = std::strtof(value.c_str(), &end);
      if (value.empty() || *end || !std::isfinite(number))
        throw UsageError{fmt::format("{} '{}': '{}' is not a number", what, text, value)};
      if (!set_attribute(op, key, number))
        throw UsageError{
            fmt::format("{} '{}': '{}' is not one of its settings ({})", what, text, key, known_fields(op))};
      from = to + 1;
    }
    return op;
  }
  throw UsageError{fmt::format("{} '{}' is not one of {}", what, text, names)};
}

}  // namespace

bool set_attribute(AnyOp& op, const std::string& name, float value) {
  FieldType type;
  std::size_t offset;
  if (!find_field(op, name, type, offset)) return false;
  unsigned char* to = static_cast<unsigned char*>(op.attributes()) + offset;
  const int whole = static_cast<int>(value);
  const bool yes = value != 0;
  if (type == FieldType::f32) std::memcpy(to, &value, sizeof value);
  if (type == FieldType::i32) std::memcpy(to, &whole, sizeof whole);
  if (type == FieldType::boolean) std::memcpy(to, &yes, sizeof yes);
  return true;
}

double get_attribute(const AnyOp& op, const std::string& name) {
  FieldType type;
  std::size_t offset;
  if (!find_field(op, name, type, offset)) return std::nan("");
  const unsigned char* from = static_cast<const unsigned char*>(op.attributes()) + offset;
  float value = 0;
  int whole = 0;
  if (type == FieldType::i32) return std::memcpy(&whole, from, sizeof whole), whole;
  if (type == FieldType::boolean) return *from != 0;
  std::memcpy(&value, from, sizeof value);
  return static_cast<double>(value);
}

std::string text_of(const AnyOp& op, const std::vector<std::string>& without) {
  std::string name = op ? op.op()->name : "none", settings;
  for (const std::vector<Choice>* list : {&optimizers, &schedules})
    for (const Choice& choice : *list)
      if (choice.op.op() == op.op()) name = choice.name;
  const AnyOp plain = op ? AnyOp(op.op(), op.op()->defaults, op.op()->attr_size) : AnyOp();
  for (const std::string& field : field_names(op)) {
    const double value = get_attribute(op, field);
    if (value != get_attribute(plain, field) &&
        std::find(without.begin(), without.end(), field) == without.end())
      settings += fmt::format("{}{}={}", settings.empty() ? ":" : ",", field, static_cast<float>(value));
  }
  return name + settings;
}

AnyOp parse_optimizer(const std::string& text) { return parse(text, "--optimizer", optimizers); }
AnyOp parse_schedule(const std::string& text) { return parse(text, "--schedule", schedules); }
