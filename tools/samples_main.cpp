// nnlite-samples: pictures as PNG files, for the demo and the tests.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "failure.hpp"
#include "file.hpp"
#include "folder.hpp"
#include "grid.hpp"
#include "idx.hpp"
#include "made_digits.hpp"
#include "picture.hpp"
#include "progress.hpp"

namespace {

const char* const usage =
    "usage: nnlite-samples IDX OUT [COUNT]              the first COUNT (20) test pictures of an IDX folder\n"
    "       nnlite-samples composed IDX OUT [COUNT]     COUNT (500) of its digits, written on pages\n"
    "       nnlite-samples digits OUT [COUNT [SEED]]    COUNT (100) digits, as synthetic-digits has them\n"
    "       nnlite-samples drawn NAME OUT [COUNT [SEED]] COUNT (20) drawings of a letter or symbol: A, star, "
    "...\n"
    "       nnlite-samples golden OUT                   tests/golden/digits\n"
    "       nnlite-samples others OUT [COUNT [SEED]]    COUNT (200) pictures of no digit\n"
    "       nnlite-samples sheet FOLDER OUT.png         all pictures of a folder on one sheet\n"
    "Pictures go to OUT/<class>/<number>.png.\n";

void save(const Picture& picture, const std::string& out, const std::string& label, std::size_t number) {
  const std::string path = fmt::format("{}/{}", out, label);
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail(fmt::format("cannot make the folder ({})", error.message()), path, "choose another place");
  const Bytes png = encode_png(picture);
  write_file(fmt::format("{}/{:05}.png", path, number), png.data(), png.size());
}

// `make(i)` gives picture i, `label(i)` its class.
template <class Make, class Label>
void save_all(const std::string& out, std::size_t count, Make make, Label label) {
  Progress progress;
  for (std::size_t i = 0; i < count; ++i) {
    progress.show("drawing", i, count, out);
    save(make(i), out, label(i), i);
  }
}

std::string digit_of(std::size_t i) { return digit_names()[i % 10]; }

void plain_idx(const std::string& folder, const std::string& out, std::size_t count) {
  const Samples samples = read_idx(folder, "t10k");
  const std::size_t size = samples.sample_size();
  save_all(
      out, std::min(count, samples.count()),
      [&](std::size_t i) {
        const auto from = samples.bytes.begin() + static_cast<std::ptrdiff_t>(i * size);
        return Picture{
            samples.shape[1], samples.shape[0], 1, {from, from + static_cast<std::ptrdiff_t>(size)}};
      },
      [&](std::size_t i) { return samples.label_names[static_cast<std::size_t>(samples.labels[i])]; });
}

// The same number of each class, drawn from the whole test set.
void composed(const std::string& folder, const std::string& out, std::size_t count) {
  const Samples samples = read_idx(folder, "t10k");
  if (samples.shape[0] != samples.shape[1])
    fail(fmt::format("pictures of {} x {} pixels", samples.shape[1], samples.shape[0]), folder,
         "give square ones");
  const std::size_t classes = samples.label_names.size();
  std::vector<std::vector<std::size_t>> members(classes);
  for (std::size_t i = 0; i < samples.count(); ++i)
    members[static_cast<std::size_t>(samples.labels[i])].push_back(i);
  Random random{500};
  for (std::vector<std::size_t>& m : members)
    for (std::size_t i = m.size(); i > 1; --i)
      std::swap(m[i - 1], m[static_cast<std::size_t>(random.below(static_cast<int>(i)))]);
  save_all(
      out, count,
      [&](std::size_t i) {
        const std::vector<std::size_t>& m = members[i % classes];
        return composed_digit(samples.bytes.data() + m[i / classes % m.size()] * samples.sample_size(),
                              samples.shape[0], 500, i);
      },
      [&](std::size_t i) { return samples.label_names[i % classes]; });
}

void sheet(const std::string& folder, const std::string& out) {
  std::vector<Tile> tiles;
  for (const std::string& path : list_pictures(folder)) {
    const Picture picture = read_picture(path);
    const std::string label = std::filesystem::path(path).parent_path().filename().string();
    tiles.push_back({picture, fmt::format("{} {}x{}", label, picture.width, picture.height), Ink::black});
  }
  const Bytes png = encode_png(draw_grid(tiles, 16));
  write_file(out, png.data(), png.size());
}

void run(const std::vector<std::string>& words) {
  const std::string& what = words[0];
  const auto number = [&](std::size_t at, std::size_t otherwise) {
    if (at >= words.size()) return otherwise;
    char* end = nullptr;
    const unsigned long value = std::strtoul(words[at].c_str(), &end, 10);
    if (*end != '\0' || value < 1 || value > 1000000)
      throw UsageError{fmt::format("'{}' is not a number from 1 to 1000000", words[at])};
    return static_cast<std::size_t>(value);
  };
  const auto takes = [&](std::size_t least, std::size_t most) {
    if (words.size() < least || words.size() > most) throw UsageError{""};
  };
  if (what == "composed") {
    takes(3, 4);
    composed(words[1], words[2], number(3, 500));
  } else if (what == "digits") {
    takes(2, 4);
    const std::size_t seed = number(3, training_seed);
    save_all(
        words[1], number(2, 100), [=](std::size_t i) { return made_digit(seed, i); }, digit_of);
  } else if (what == "drawn") {
    takes(3, 5);
    const std::string& name = words[1];
    const Hands hands = can_draw(name, Hands::training) ? Hands::training : Hands::reserved;
    if (!can_draw(name, hands)) throw UsageError{fmt::format("nobody here can draw '{}'", name)};
    const std::size_t seed = number(4, 1);
    save_all(
        words[2], number(3, 20),
        [&](std::size_t i) { return made_picture(name, hands, 100, 400, random_of(seed, i)); },
        [&](std::size_t) { return name; });
  } else if (what == "golden") {
    takes(2, 2);
    save_all(words[1], golden_count, golden_digit, digit_of);
  } else if (what == "others") {
    takes(2, 4);
    const std::size_t seed = number(3, 200);
    save_all(
        words[1], number(2, 200), [=](std::size_t i) { return made_other(Hands::reserved, seed, i); },
        [](std::size_t i) {
          static const char* const kinds[] = {"blank", "noise", "letters", "two"};
          return std::string(kinds[i % 4]);
        });
  } else if (what == "sheet") {
    takes(3, 3);
    sheet(words[1], words[2]);
  } else {
    takes(2, 3);
    plain_idx(what, words[1], number(2, 20));
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) throw UsageError{""};
    run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const Failure& failure) {
    report(failure);
    return 1;
  } catch (const UsageError& error) {
    if (!error.text.empty()) fmt::print(stderr, "nnlite-samples: {}\n", error.text);
    fmt::print(stderr, "{}", usage);
    return 2;
  }
  return 0;
}
