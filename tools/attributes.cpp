#include "attributes.hpp"

#include <fmt/format.h>

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

std::string known_fields(const AnyOp& op) {
  std::string text;
  for (int i = 0; i < op.op()->n_fields; ++i) {
    const Field& field = op.op()->fields[i];
    text += std::string(text.empty() ? "" : ", ") +
            (field.type == FieldType::betas ? "beta1, beta2" : field.name);
  }
  return text.empty() ? "none" : text;
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

bool same_attributes(const AnyOp& a, const AnyOp& b) {
  if (a.op() != b.op()) return false;
  for (int i = 0; a && i < a.op()->n_fields; ++i) {
    const Field& field = a.op()->fields[i];
    const std::size_t size = field.type == FieldType::boolean                                  ? 1
                             : field.type == FieldType::pair || field.type == FieldType::betas ? 8
                                                                                               : 4;
    if (std::memcmp(static_cast<const char*>(a.attributes()) + field.offset,
                    static_cast<const char*>(b.attributes()) + field.offset, size) != 0)
      return false;
  }
  return true;
}

AnyOp parse_optimizer(const std::string& text) {
  return parse(
      text, "--optimizer",
      {{"adagrad", Adagrad{}}, {"adam", Adam{}}, {"adamw", AdamW{}}, {"rmsprop", RMSprop{}}, {"sgd", SGD{}}});
}

AnyOp parse_schedule(const std::string& text) {
  return parse(text, "--schedule",
               {{"constant", ConstantLR{}},
                {"cosine", CosineAnnealingLR{}},
                {"exponential", ExponentialLR{}},
                {"onecycle", OneCycleLR{}},
                {"plateau", ReduceLROnPlateau{}},
                {"step", StepLR{}}});
}
