#include "fit_data.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "idx.hpp"
#include "made_digits.hpp"
#include "random.hpp"

using namespace nnlite;

namespace {

std::vector<std::string> without(std::vector<std::string> names, const std::vector<std::string>& those) {
  const auto in = [&](const std::string& name) {
    return std::find(those.begin(), those.end(), name) != those.end();
  };
  names.erase(std::remove_if(names.begin(), names.end(), in), names.end());
  return names;
}

}  // namespace

std::vector<DataSource> open_all(const std::vector<std::string>& data, const std::string& part) {
  std::vector<DataSource> sources;
  for (const std::string& name : data) {
    sources.push_back(open_data(name, part));
    const DataSource &first = sources.front(), &last = sources.back();
    if (sources.size() == 1) continue;
    for (const DataSource* s : {&first, &last})
      if (s->kind == DataKind::table || s->kind == DataKind::synthetic)
        fail("only pictures can be put together", s->name, "give one --data");
    std::vector<std::string> a = first.label_names(), b = last.label_names();
    std::sort(a.begin(), a.end());
    std::sort(b.begin(), b.end());
    if (a != b)
      fail(fmt::format("{} classes, {} to {}, unlike {}", b.size(), b.front(), b.back(), first.name), name,
           "give data of the same classes");
  }
  return sources;
}

Samples samples_of_all(const Model& model, std::vector<DataSource>&& sources, std::uint64_t seed,
                       const Reading& reading) {
  Samples all = samples_for(model, std::move(sources.front()), seed, reading);
  for (std::size_t i = 1; i < sources.size(); ++i)
    append(all, samples_for(model, std::move(sources[i]), seed, reading));
  return all;
}

std::string joined(const std::vector<std::string>& data) {
  std::string text;
  for (const std::string& name : data) text += (text.empty() ? "" : " --data ") + name;
  return text;
}

std::vector<float> soft_targets(const Samples& samples, int classes) {
  const std::size_t n = static_cast<std::size_t>(classes);
  std::vector<float> targets(samples.count() * n);
  for (std::size_t i = 0; i < samples.count(); ++i) {
    const auto row = targets.begin() + static_cast<std::ptrdiff_t>(i * n);
    if (samples.labels[i] == no_class) std::fill(row, row + classes, 1 / static_cast<float>(classes));
    else row[samples.labels[i]] = 1;
  }
  return targets;
}

bool reads_digits(const Model& model) { return without(digit_names(), labels_of(model)).empty(); }

std::string default_replay() {
  const char* data = std::getenv("NNLITE_DATA");
  const std::string folders[] = {data ? std::string(data) + "/mnist" : "", "../shared/data/mnist"};
  for (const std::string& folder : folders)
    if (!folder.empty() && has_idx(folder, "train")) return folder;
  return fmt::format("synthetic-digits:{}", replay_count);
}

Samples replayed(const Model& model, const std::string& replay, std::uint64_t seed, const Reading& reading) {
  const Samples known = samples_for(model, open_data(replay, "train"), seed, reading);
  std::vector<std::size_t> which(known.count());
  for (std::size_t i = 0; i < which.size(); ++i) which[i] = i;
  Random random{seed};
  for (std::size_t i = 0; i < std::min(replay_count, which.size()); ++i)
    std::swap(which[i], which[i + random.next() % (which.size() - i)]);
  which.resize(std::min(replay_count, which.size()));
  return chosen(known, which);
}

std::size_t lesson_times(const Samples& lesson, const Samples& replay) {
  const std::set<std::int32_t> taught(lesson.labels.begin(), lesson.labels.end());
  const std::set<std::int32_t> known(replay.labels.begin(), replay.labels.end());
  if (known.empty()) return 1;
  return std::max<std::size_t>(1, replay.count() / known.size() * taught.size() / lesson.count());
}

std::vector<std::string> new_classes(const Model& model, const DataSource& source) {
  if (source.kind != DataKind::folder || extras_of(model).label_count < 2) return {};
  return without(source.label_names(), labels_of(model));
}

bool is_lesson(const Model& model, const std::vector<DataSource>& sources) {
  const DataSource& data = sources.front();
  return sources.size() == 1 && data.kind == DataKind::folder &&
         preprocessing_of(model).kind == PreprocessingKind::digit &&
         (data.pictures.paths.size() <= handful || !without(labels_of(model), data.label_names()).empty());
}

std::unique_ptr<Network> grown(const Model& model, const std::vector<std::string>& classes,
                               std::uint64_t seed, const std::string& name) {
  ModelExtras extras = extras_of(model);
  std::vector<const char*> labels(extras.labels, extras.labels + extras.label_count);
  for (const std::string& c : classes) labels.push_back(c.c_str());
  Network bigger(2 * model.record_bytes() + 65536);
  // Weights come in panels of 16 features, none larger than all that the model has.
  const Memory weights(model.weight_bytes() * (2 + classes.size() / 16 + 1) + 65536);
  Arena arena = weights.arena();
  require(bigger.model.grow(model, static_cast<int>(labels.size()), Seed{seed}, arena),
          bigger.model.problem(), name);
  extras.labels = labels.data();
  extras.label_count = static_cast<int>(labels.size());
  extras.golden_count = 0;  // of other weights
  return load_network(serialise(bigger.model, extras), name);
}
