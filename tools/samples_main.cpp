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

using Words = std::vector<std::string>;

void save(const Picture& picture, const std::string& out, const std::string& label, std::size_t number,
          int effort) {
  const std::string path = fmt::format("{}/{}", out, label);
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail(fmt::format("cannot make the folder ({})", error.message()), path, "choose another place");
  const Bytes png = encode_png(picture, effort);
  write_file(fmt::format("{}/{:05}.png", path, number), png.data(), png.size());
}

// `make(i)` gives picture i, `label(i)` its class.
template <class Make, class Label>
void save_all(const std::string& out, std::size_t count, Make make, Label label, int effort = 4) {
  Progress progress;
  for (std::size_t i = 0; i < count; ++i) {
    progress.show("drawing", i, count, out);
    save(make(i), out, label(i), i, effort);
  }
}

std::string digit_of(std::size_t i) { return digit_names()[i % 10]; }

// Word `at`, where it is given.
std::size_t number(const Words& words, std::size_t at, std::size_t otherwise) {
  if (at >= words.size()) return otherwise;
  char* end = nullptr;
  const unsigned long value = std::strtoul(words[at].c_str(), &end, 10);
  if (*end != '\0' || value < 1 || value > 1000000)
    throw UsageError{fmt::format("'{}' is not a number from 1 to 1000000", words[at])};
  return static_cast<std::size_t>(value);
}

// The first ones, of each class the same number where there are so many.
void idx(const Words& words) {
  const Samples samples = read_idx(words[0], "t10k");
  const std::size_t size = samples.sample_size(), classes = samples.label_names.size();
  const std::size_t count = std::min(number(words, 2, 20), samples.count());
  std::vector<std::size_t> taken, rest, seen(classes);
  for (std::size_t i = 0; i < samples.count(); ++i)
    (seen[static_cast<std::size_t>(samples.labels[i])]++ < (count + classes - 1) / classes ? taken : rest)
        .push_back(i);
  taken.insert(taken.end(), rest.begin(), rest.end());
  save_all(
      words[1], count,
      [&](std::size_t i) {
        const auto from = samples.bytes.begin() + static_cast<std::ptrdiff_t>(taken[i] * size);
        return Picture{
            samples.shape[1], samples.shape[0], 1, {from, from + static_cast<std::ptrdiff_t>(size)}};
      },
      [&](std::size_t i) { return samples.label_names[static_cast<std::size_t>(samples.labels[taken[i]])]; });
}

// The classes in turn, of each other members from all over the test set.
void composed(const Words& words) {
  const Samples samples = read_idx(words[0], "t10k");
  if (samples.shape[0] != samples.shape[1])
    fail(fmt::format("pictures of {} x {} pixels", samples.shape[1], samples.shape[0]), words[0],
         "give square ones");
  std::vector<std::vector<std::size_t>> classes(samples.label_names.size());
  for (std::size_t i = 0; i < samples.count(); ++i)
    classes[static_cast<std::size_t>(samples.labels[i])].push_back(i);
  classes.erase(std::remove_if(classes.begin(), classes.end(), [](const auto& c) { return c.empty(); }),
                classes.end());
  Random random{composed_seed};
  for (std::vector<std::size_t>& members : classes)
    for (std::size_t i = members.size(); i > 1; --i)
      std::swap(members[i - 1], members[static_cast<std::size_t>(random.below(static_cast<int>(i)))]);
  const auto chosen = [&](std::size_t i) {
    const std::vector<std::size_t>& members = classes[i % classes.size()];
    return members[i / classes.size() % members.size()];
  };
  save_all(
      words[1], number(words, 2, 500),
      [&](std::size_t i) {
        return composed_digit(samples.bytes.data() + chosen(i) * samples.sample_size(), samples.shape[0], i);
      },
      [&](std::size_t i) {
        return samples.label_names[static_cast<std::size_t>(samples.labels[chosen(i)])];
      });
}

void digits(const Words& words) {
  const std::size_t seed = number(words, 2, training_seed), side = number(words, 3, 1);
  if (words.size() > 3 && (side < 40 || side > 4000)) throw UsageError{"SIDE is 40 to 4000 pixels"};
  save_all(
      words[0], number(words, 1, 100),
      [&](std::size_t i) {
        return words.size() > 3 ? square_digit(seed, i, static_cast<int>(side)) : made_digit(seed, i);
      },
      digit_of);
}

void drawn(const Words& words) {
  const std::string& name = words[0];
  const Hands hands = shapes_of(name, Hands::training).empty() ? Hands::reserved : Hands::training;
  if (shapes_of(name, hands).empty()) throw UsageError{fmt::format("nobody here can draw '{}'", name)};
  const std::size_t seed = number(words, 3, 1);
  save_all(
      words[1], number(words, 2, 20),
      [&](std::size_t i) { return made_picture(name, hands, 100, 400, random_of(seed, i)); },
      [&](std::size_t) { return name; });
}

void golden(const Words& words) { save_all(words[0], golden_count, golden_digit, digit_of, 9); }

void others(const Words& words) {
  if (words.size() > 3 && words[3] != "training") throw UsageError{"the last word can only be 'training'"};
  const Hands hands = words.size() > 3 ? Hands::training : Hands::reserved;
  const std::size_t seed = number(words, 2, 200);
  save_all(
      words[0], number(words, 1, 200), [&](std::size_t i) { return made_other(hands, seed, i); },
      [](std::size_t i) { return std::string(other_kinds[i % 4]); });
}

void sheet(const Words& words) {
  std::vector<Tile> tiles;
  for (const std::string& path : list_pictures(words[0])) {
    const Picture picture = read_picture(path);
    const std::string label = std::filesystem::path(path).parent_path().filename().string();
    tiles.push_back({picture, fmt::format("{} {}x{}", label, picture.width, picture.height), Ink::black});
  }
  const Bytes png = encode_grid(tiles);
  write_file(words[1], png.data(), png.size());
}

struct Command {
  const char* name;
  std::size_t least, most;  // words that follow
  const char *words, *what;
  void (*run)(const Words&);
};

const Command commands[] = {
    {"composed", 2, 3, "IDX OUT [COUNT]", "COUNT (500) test digits of an IDX folder, written on pages",
     composed},
    {"digits", 1, 4, "OUT [COUNT [SEED [SIDE]]]",
     "COUNT (100) digits, as synthetic-digits has them; of SIDE x SIDE pixels", digits},
    {"drawn", 2, 4, "NAME OUT [COUNT [SEED]]", "COUNT (20) drawings of a symbol: star, plus, A ...", drawn},
    {"golden", 1, 1, "OUT", "tests/golden/digits", golden},
    {"idx", 2, 3, "IDX OUT [COUNT]", "COUNT (20) test pictures as they are", idx},
    {"others", 1, 4, "OUT [COUNT [SEED [training]]]", "COUNT (200) pictures of no digit", others},
    {"sheet", 2, 2, "FOLDER OUT.png", "all pictures of a folder on one sheet", sheet},
};

void run(const Words& words) {
  const auto command = std::find_if(std::begin(commands), std::end(commands),
                                    [&](const Command& c) { return !words.empty() && words[0] == c.name; });
  const bool named = command != std::end(commands);
  const Words rest(words.begin() + named, words.end());
  const Command& chosen = named ? *command : commands[4];  // IDX OUT [COUNT] alone means idx
  if (rest.size() < chosen.least || rest.size() > chosen.most) throw UsageError{""};
  chosen.run(rest);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(Words(argv + 1, argv + argc));
  } catch (const Failure& failure) {
    report(failure);
    return 1;
  } catch (const UsageError& error) {
    if (!error.text.empty()) fmt::print(stderr, "nnlite-samples: {}\n", error.text);
    fmt::print(stderr, "usage: nnlite-samples [idx] IDX OUT [COUNT], or one of\n");
    for (const Command& c : commands) fmt::print(stderr, "  {:<9}{:<31}{}\n", c.name, c.words, c.what);
    fmt::print(stderr, "Pictures go to OUT/<class>/<number>.png.\n");
    return 2;
  }
  return 0;
}
