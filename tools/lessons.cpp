#include "lessons.hpp"

#include <algorithm>

#include "data.hpp"

using namespace nnlite;

namespace {

const std::uint32_t section_type = 0x8001;

}  // namespace

Samples lessons_of(const Model& model) {
  Samples lessons;
  const Dims input = dims_of(model.input_shape(0));
  lessons.shape.assign(input.dim, input.dim + input.rank);
  lessons.scale = preprocessing_of(model).scale;
  lessons.label_names = labels_of(model);
  lessons.source = "earlier lessons";
  const ModelExtras extras = extras_of(model);
  for (int i = 0; i < extras.other_count; ++i) {
    const OtherSection& section = extras.others[i];
    if (section.type != section_type || section.version != 1) continue;
    const std::uint8_t* const data = static_cast<const std::uint8_t*>(section.data);
    const std::size_t record = 4 + lessons.sample_size(), size = static_cast<std::size_t>(section.size);
    for (std::size_t at = 0; at + record <= size; at += record) {
      const std::uint8_t* const r = data + at;
      const std::uint32_t label =
          r[0] | std::uint32_t{r[1]} << 8 | std::uint32_t{r[2]} << 16 | std::uint32_t{r[3]} << 24;
      if (label >= lessons.label_names.size()) continue;
      lessons.labels.push_back(static_cast<std::int32_t>(label));
      lessons.bytes.insert(lessons.bytes.end(), r + 4, r + record);
    }
  }
  return lessons;
}

Samples without_repeated(const Samples& earlier, const Samples& lesson) {
  const std::size_t size = earlier.sample_size();
  const auto at = [size](const Samples& samples, std::size_t i) {
    return samples.bytes.begin() + static_cast<std::ptrdiff_t>(i * size);
  };
  std::vector<std::size_t> which;
  for (std::size_t i = 0; i < earlier.count(); ++i) {
    bool repeated = false;
    for (std::size_t k = 0; k < lesson.count() && !repeated; ++k)
      repeated = std::equal(at(earlier, i), at(earlier, i + 1), at(lesson, k));
    if (!repeated) which.push_back(i);
  }
  return chosen(earlier, which);
}

Samples newest(const Samples& lessons) {
  std::vector<std::size_t> which, seen(lessons.label_names.size());
  for (std::size_t i = lessons.count(); i-- > 0;)
    if (seen[static_cast<std::size_t>(lessons.labels[i])]++ < most_lessons) which.push_back(i);
  std::reverse(which.begin(), which.end());
  return chosen(lessons, which);
}

Bytes lesson_section(const Samples& lessons) {
  Bytes bytes;
  const std::size_t size = lessons.sample_size();
  for (std::size_t i = 0; i < lessons.count(); ++i) {
    const std::uint32_t label = static_cast<std::uint32_t>(lessons.labels[i]);
    for (int k = 0; k < 4; ++k) bytes.push_back(static_cast<std::uint8_t>(label >> 8 * k));
    const auto from = lessons.bytes.begin() + static_cast<std::ptrdiff_t>(i * size);
    bytes.insert(bytes.end(), from, from + static_cast<std::ptrdiff_t>(size));
  }
  return bytes;
}

std::vector<OtherSection> sections_with(const ModelExtras& extras, const Bytes& lessons) {
  std::vector<OtherSection> sections;
  for (int i = 0; i < extras.other_count; ++i)
    if (extras.others[i].type != section_type) sections.push_back(extras.others[i]);
  if (!lessons.empty()) sections.push_back({section_type, 1, lessons.data(), lessons.size()});
  std::sort(sections.begin(), sections.end(),
            [](const OtherSection& a, const OtherSection& b) { return a.type < b.type; });
  return sections;
}
