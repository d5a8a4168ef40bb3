#include "notes.hpp"

#include <algorithm>

using namespace nnlite;

std::string note(const ModelExtras& extras, const std::string& key) {
  for (int i = 0; i < extras.metadata_count; ++i)
    if (extras.metadata[i].key == key) return extras.metadata[i].value;
  return "";
}

std::vector<Metadata> metadata_with(const ModelExtras& extras, const Notes& notes) {
  std::vector<Metadata> list;
  for (int i = 0; i < extras.metadata_count; ++i)
    if (std::string(extras.metadata[i].key).rfind("training.", 0) != 0) list.push_back(extras.metadata[i]);
  for (const auto& [key, value] : notes)
    if (!value.empty()) list.push_back({key.c_str(), value.c_str()});
  std::sort(list.begin(), list.end(),
            [](const Metadata& a, const Metadata& b) { return std::string(a.key) < std::string(b.key); });
  return list;
}

ModelExtras with_metadata(ModelExtras extras, const std::vector<Metadata>& list) {
  extras.metadata = list.data();
  extras.metadata_count = static_cast<int>(list.size());
  return extras;
}
