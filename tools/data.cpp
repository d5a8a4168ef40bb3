#include "data.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "csv.hpp"
#include "failure.hpp"
#include "idx.hpp"
#include "made_digits.hpp"
#include "parallel.hpp"
#include "picture.hpp"
#include "prepare.hpp"
#include "progress.hpp"
#include "random.hpp"

using namespace nnlite;

namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::size_t numel(const Dims& dims) {
  std::size_t n = 1;
  for (int i = 0; i < dims.rank; ++i) n *= static_cast<std::size_t>(dims.dim[i]);
  return n;
}

std::string dims_text(const Dims& dims) {
  std::string text;
  for (int i = 0; i < dims.rank; ++i) text += fmt::format("{}{}", i ? " x " : "", dims.dim[i]);
  return text;
}

// Is a value of the input a pixel's times the scale?
bool plain(const Preprocessing& how) {
  bool plain = !how.invert;
  for (int c = 0; c < 4; ++c) plain = plain && how.mean[c] == 0.0f && how.std[c] == 1.0f;
  return plain;
}

// Pictures of any sizes as samples, one after another. The digit kind makes whole numbers, which stay bytes.
class Maker {
 public:
  Maker(const Preprocessing& how, const Dims& input, std::size_t count, const Reading& reading)
      : pool_(reading.pool),
        bytes_(how.kind == PreprocessingKind::digit && plain(how)),
        preparer_(bytes_ ? unscaled(how) : how, input, workers_of(reading.pool)),
        rows_(static_cast<std::size_t>(workers_of(reading.pool)) * preparer_.size()) {
    samples.scale = how.scale;
    samples.labels.resize(count);
    if (how.kind == PreprocessingKind::digit) samples.seen.resize(count);
    if (bytes_) samples.bytes.resize(count * preparer_.size());
    else samples.floats.resize(count * preparer_.size());
  }

  // Calls work(i, worker) for all samples, on all threads, with a bar under that title.
  template <class Work>
  void run(const char* title, Work work) {
    std::atomic<std::size_t> done{0};
    Progress progress;
    progress.begin(title, samples.count());
    for_each(pool_, samples.count(), [&](std::size_t i, int worker) {
      work(i, worker);
      const std::size_t n = ++done;
      if (worker == 0) progress.show(title, n, samples.count(), "");
    });
  }
  Seen put(std::size_t i, const Image& image, const std::string& name, int worker) {
    const std::size_t size = preparer_.size();
    float* const row =
        bytes_ ? rows_.data() + static_cast<std::size_t>(worker) * size : samples.floats.data() + i * size;
    const Seen seen = preparer_.prepare(image, name, worker, row);
    if (!samples.seen.empty()) samples.seen[i] = static_cast<std::uint8_t>(seen);
    if (bytes_)
      std::transform(row, row + size, samples.bytes.data() + i * size,
                     [](float v) { return static_cast<std::uint8_t>(v); });
    return seen;
  }
  Seen put(std::size_t i, const Picture& p, const std::string& name, int worker) {
    return put(i, Image{p.pixels.data(), p.width, p.height, p.channels}, name, worker);
  }

  Samples samples;

 private:
  static Preprocessing unscaled(Preprocessing how) {
    how.scale = 1;
    return how;
  }

  Pool* pool_;
  bool bytes_;
  Preparer preparer_;
  std::vector<float> rows_;  // one for every worker
};

// Labels by name, from their place in the data's list to that in the model's. Where the model names none, and
// the numbers that stand in for names are not the data's, by place.
void match_labels(const Model& model, Samples& samples) {
  const std::vector<std::string> known = labels_of(model);
  const auto place = [&](const std::string& name) { return std::find(known.begin(), known.end(), name); };
  const bool by_name = std::all_of(samples.label_names.begin(), samples.label_names.end(),
                                   [&](const std::string& name) { return place(name) != known.end(); });
  std::vector<std::int32_t> index;
  for (std::size_t i = 0; i < samples.label_names.size(); ++i) {
    auto at = place(samples.label_names[i]);
    if (!by_name && extras_of(model).label_count == 0 && i < known.size())
      at = known.begin() + static_cast<std::ptrdiff_t>(i);
    index.push_back(at == known.end() ? -1 : static_cast<std::int32_t>(at - known.begin()));
  }
  for (std::size_t i = 0; i < samples.labels.size(); ++i) {
    std::int32_t& label = samples.labels[i];
    const std::string& name = samples.label_names[static_cast<std::size_t>(label)];
    label = index[static_cast<std::size_t>(label)];
    if (label < 0)
      fail(fmt::format("label {} out of range", name), fmt::format("{}, record {}", samples.source, i),
           fmt::format("the model knows {} labels, {} to {}", known.size(), known.front(), known.back()));
  }
  samples.label_names = known;
}

Samples made_up(const Model& model, std::uint64_t seed) {
  Samples samples;
  const Dims input = dims_of(model.input_shape(0));
  samples.shape.assign(input.dim, input.dim + input.rank);
  const std::size_t count = std::clamp<std::size_t>((std::size_t{1} << 24) / numel(input), 64, 1024);
  samples.label_names = labels_of(model);
  samples.source = "synthetic";
  Random random{seed};
  samples.floats.resize(count * numel(input));
  for (float& value : samples.floats) value = random.unit();
  for (std::size_t i = 0; i < count; ++i)
    samples.labels.push_back(static_cast<std::int32_t>(random.next() % samples.label_names.size()));
  if (target_of(model) == Target::dense) {
    samples.targets.resize(count * static_cast<std::size_t>(output_size(model)));
    for (float& value : samples.targets) value = static_cast<float>(random.next() & 1);
  }
  return samples;
}

// A line for each; the last one ends the program.
void throw_all(const std::vector<Failure>& failures) {
  for (std::size_t i = 0; i + 1 < failures.size(); ++i) report(failures[i]);
  if (!failures.empty()) throw failures.back();
}

Samples read_folder(const LabelledPictures& pictures, const Preprocessing& how, const Dims& input,
                    const Reading& reading) {
  Maker maker(how, input, pictures.paths.size(), reading);
  std::vector<std::vector<Failure>> failures(pictures.paths.size());
  maker.run("reading pictures", [&](std::size_t i, int worker) {
    try {
      Seen seen = Seen::one;
      with_picture(pictures.paths[i],
                   [&](const Picture& picture) { seen = maker.put(i, picture, pictures.paths[i], worker); });
      if (reading.no_blanks && seen == Seen::blank)
        fail("nothing is seen on it", pictures.paths[i], "give a clearer one, or leave it out");
    } catch (const Failure& failure) { failures[i].push_back(failure); }
  });
  std::vector<Failure> all;
  for (const std::vector<Failure>& one : failures) all.insert(all.end(), one.begin(), one.end());
  throw_all(all);
  maker.samples.labels = pictures.labels;
  maker.samples.label_names = pictures.label_names;
  return std::move(maker.samples);
}

void to_floats(Samples& samples) {
  if (samples.bytes.empty()) return;
  samples.floats.resize(samples.bytes.size());
  for (std::size_t i = 0; i < samples.count(); ++i)
    put_input(samples, i, samples.floats.data() + i * samples.sample_size());
  samples.bytes = {};
}

const char* const digits_word = "synthetic-digits";

bool names_digits(const std::string& data) {
  return data == digits_word || data.rfind(std::string(digits_word) + ":", 0) == 0;
}

// synthetic-digits[:COUNT]; the test part is a fifth of that.
void open_digits(DataSource& source, const std::string& part) {
  const std::size_t colon = source.name.find(':');
  const std::string number = colon == std::string::npos ? "20000" : source.name.substr(colon + 1);
  char* end = nullptr;
  const unsigned long count = std::strtoul(number.c_str(), &end, 10);
  if (number.empty() || *end != '\0' || count < 50 || count > 1000000)
    fail("not a number from 50 to 1000000", source.name, "write synthetic-digits:20000, for instance");
  source.kind = DataKind::digits;
  source.samples.label_names = digit_names();
  source.shape = Dims(28, 28, 1);
  source.digits = part == "train" ? count : count / 5;
  source.seed = part == "train" ? training_seed : test_seed;
}

Samples draw_digits(const DataSource& source, const Preprocessing& how, const Dims& input,
                    const Reading& reading) {
  Maker maker(how, input, source.digits, reading);
  maker.samples.label_names = digit_names();
  maker.run("drawing digits", [&](std::size_t i, int worker) {
    maker.put(i, made_digit(source.seed, i), source.name, worker);
    maker.samples.labels[i] = static_cast<std::int32_t>(i % digit_names().size());
  });
  return std::move(maker.samples);
}

// IDX pictures stay bytes where the model takes them as they are.
Samples fit_pictures(Samples&& samples, Preprocessing how, const Dims& input, const Reading& reading) {
  const Dims have(samples.shape[0], samples.shape[1], samples.shape[2]);
  const bool own_size = dims_text(have) == dims_text(input);
  samples.scale = how.scale;
  if (how.kind == PreprocessingKind::digit && own_size && !reading.as_pictures)
    how.kind = PreprocessingKind::plain;
  if (how.kind == PreprocessingKind::plain && own_size && plain(how)) return std::move(samples);
  const std::size_t size = numel(have);
  Maker maker(how, input, samples.count(), reading);
  maker.run("preparing pictures", [&](std::size_t i, int worker) {
    maker.put(i, Image{samples.bytes.data() + i * size, have.dim[1], have.dim[0], have.dim[2]},
              samples.source, worker);
  });
  samples.bytes = std::move(maker.samples.bytes);
  samples.floats = std::move(maker.samples.floats);
  samples.seen = std::move(maker.samples.seen);
  return std::move(samples);
}

}  // namespace

bool has_test_part(const std::string& data) {
  return names_digits(data) || (is_folder(data) && has_idx(data, "train") && has_idx(data, "t10k"));
}

DataSource open_data(const std::string& data, const std::string& part) {
  DataSource source;
  source.name = data;
  if (data == "synthetic") return source;
  if (names_digits(data)) {
    open_digits(source, part);
    return source;
  }
  for (const char* end : {".h5", ".hdf5", ".npz"})
    if (ends_with(data, end))
      fail(fmt::format("{} files are not read by this version", end), data, "give a .csv or folders");
  if (!exists(data))
    fail("no such file or folder", data,
         fmt::format("give a folder with IDX files, class folders, a .csv, or {}", digits_word));
  if (!is_folder(data)) {
    if (!ends_with(data, ".csv"))
      fail("a file that is not a .csv", data, "give a folder with IDX files, class folders, or a .csv");
    source.kind = DataKind::table;
    source.samples = read_csv(data);
  } else if (has_idx(data, "train") || has_idx(data, "t10k")) {
    source.kind = DataKind::idx;
    source.samples = read_idx(data, part);
  } else {
    source.kind = DataKind::folder;
    if (class_folders(data).empty())
      fail("neither IDX files nor class folders", data,
           "give a folder that holds one for each class, or train-* and t10k-* files");
    for (const std::string& inner : class_folders(data))
      if (has_idx(data + "/" + inner, "train") || has_idx(data + "/" + inner, "t10k"))
        fail("no IDX files here, but one folder down", data, "give " + data + "/" + inner);
    source.pictures = list_class_folders(data);
    return source;
  }
  for (int d : source.samples.shape) source.shape.dim[source.shape.rank++] = d;
  return source;
}

Dims data_shape(const DataSource& source) {
  if (source.kind != DataKind::folder) return source.shape;
  Picture first;
  std::string other;  // a picture of another size
  std::vector<Failure> failures;
  for (const std::string& path : source.pictures.paths) try {
      const Picture p = read_picture(path);
      if (first.width == 0) first.width = p.width, first.height = p.height;
      if (p.width != first.width || p.height != first.height) other = path;
      first.channels = std::max(first.channels, p.channels);
    } catch (const Failure& failure) { failures.push_back(failure); }
  throw_all(failures);
  if (!other.empty())
    fail(fmt::format("pictures of several sizes; the first has {} x {} pixels", first.width, first.height),
         other, "choose an --arch by name, which has a size, --preprocess digit, or bring them to one size");
  return Dims(first.height, first.width, first.channels);
}

Target target_of(const Model& model) {
  const Shape shape = model.output_shape(0);
  if (shape.row_numel() == 1) return Target::yes_no;
  return shape.rank == 2 ? Target::classes : Target::dense;
}

AnyOp loss_for(const Model& model) {
  const std::string last = last_op(model);
  if (target_of(model) != Target::classes)
    return last == "Sigmoid" ? AnyOp(BCELoss{}) : AnyOp(BCEWithLogitsLoss{});
  return last == "LogSoftmax" ? AnyOp(NLLLoss{}) : AnyOp(CrossEntropyLoss{});
}

Samples samples_for(const Model& model, DataSource&& source, std::uint64_t seed, const Reading& reading) {
  const Dims input = dims_of(model.input_shape(0));
  const Preprocessing how = preprocessing_of(model);
  if (source.kind == DataKind::synthetic) return made_up(model, seed);
  if (target_of(model) == Target::dense)
    fail("the model answers with a picture, the data holds classes", source.name,
         "give a model that names classes");
  if (source.kind != DataKind::table && (input.rank != 3 || input.dim[2] > 4))
    fail(fmt::format("the model takes {} numbers, not pictures", dims_text(input)), source.name,
         "give it a .csv table");
  Samples samples;
  if (source.kind == DataKind::folder) samples = read_folder(source.pictures, how, input, reading);
  else if (source.kind == DataKind::digits) samples = draw_digits(source, how, input, reading);
  else if (source.kind == DataKind::idx)
    samples = fit_pictures(std::move(source.samples), how, input, reading);
  else samples = std::move(source.samples);
  if (source.kind != DataKind::idx && source.kind != DataKind::table) samples.source = source.name;
  if (source.kind == DataKind::table && (samples.sample_size() != numel(input) || input.rank != 1))
    fail(
        fmt::format("rows of {} features for a model that takes {}", samples.sample_size(), dims_text(input)),
        source.name, "give the table the model was made for");
  samples.shape.assign(input.dim, input.dim + input.rank);
  match_labels(model, samples);
  return samples;
}

Samples others_for(const Model& model, std::size_t count, std::uint64_t seed, const Reading& reading) {
  const Dims input = dims_of(model.input_shape(0));
  Maker maker(preprocessing_of(model), input, count, reading);
  maker.run("drawing what is no digit", [&](std::size_t i, int worker) {
    const Seen seen = maker.put(i, training_other(seed, i), "others", worker);
    maker.samples.labels[i] = seen == Seen::blank;
  });
  Samples& all = maker.samples;
  all.shape.assign(input.dim, input.dim + input.rank);
  std::vector<std::size_t> drawn;
  for (std::size_t i = 0; i < count; ++i)
    if (all.labels[i] == 0) drawn.push_back(i);
  Samples others = chosen(all, drawn);
  others.labels.assign(drawn.size(), no_class);
  others.label_names = labels_of(model);
  others.source = "others";
  return others;
}

Samples as_pictures(const Model& model, const Samples& samples, const Reading& reading) {
  Reading through = reading;
  through.as_pictures = true;
  return fit_pictures(Samples(samples), preprocessing_of(model), dims_of(model.input_shape(0)), through);
}

void append(Samples& to, const Samples& more) {
  Samples as_floats;
  if (to.count() > 0 && to.bytes.empty() != more.bytes.empty()) {
    to_floats(to);
    as_floats = more;
    to_floats(as_floats);
  }
  const Samples& from = as_floats.count() ? as_floats : more;
  const auto add = [](auto& a, const auto& b) { a.insert(a.end(), b.begin(), b.end()); };
  to.seen.clear();
  add(to.bytes, from.bytes);
  add(to.floats, from.floats);
  add(to.labels, from.labels);
  add(to.targets, from.targets);
}

void put_input(const Samples& samples, std::size_t i, float* to) {
  const std::size_t size = samples.sample_size();
  if (samples.bytes.empty()) std::memcpy(to, samples.floats.data() + i * size, size * sizeof(float));
  else
    for (std::size_t k = 0; k < size; ++k)
      to[k] = static_cast<float>(samples.bytes[i * size + k]) * samples.scale;
}

void put_target(const Samples& samples, std::size_t i, float* to) {
  const std::size_t size = samples.targets.size() / samples.count();
  if (size == 0) *to = static_cast<float>(samples.labels[i]);
  else std::memcpy(to, samples.targets.data() + i * size, size * sizeof(float));
}

Samples chosen(const Samples& samples, const std::vector<std::size_t>& which) {
  Samples to;
  to.shape = samples.shape;
  to.scale = samples.scale;
  to.label_names = samples.label_names;
  to.source = samples.source;
  const std::size_t size = samples.sample_size(),
                    width = samples.count() ? samples.targets.size() / samples.count() : 0;
  for (std::size_t i : which) {
    const auto copy = [i](const auto& from, auto& into, std::size_t length) {
      if (from.empty()) return;
      const auto start = from.begin() + static_cast<std::ptrdiff_t>(i * length);
      into.insert(into.end(), start, start + static_cast<std::ptrdiff_t>(length));
    };
    copy(samples.bytes, to.bytes, size);
    copy(samples.floats, to.floats, size);
    copy(samples.labels, to.labels, 1);
    copy(samples.targets, to.targets, width);
  }
  return to;
}

Samples split(Samples& samples, double fraction, std::uint64_t seed) {
  const std::size_t n = samples.count();
  const std::size_t wanted = static_cast<std::size_t>(static_cast<double>(n) * fraction + 0.5);
  Random random{seed};
  std::vector<std::size_t> taken, rest;
  for (std::size_t i = 0; i < n; ++i)  // each remaining sample with the same chance (Knuth, algorithm S)
    (random.next() % (n - i) < wanted - taken.size() ? taken : rest).push_back(i);
  Samples other = chosen(samples, taken);
  samples = chosen(samples, rest);
  return other;
}
