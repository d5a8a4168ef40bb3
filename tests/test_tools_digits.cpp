#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <thread>

#include "arch.hpp"
#include "data.hpp"
#include "failure.hpp"
#include "file.hpp"
#include "made_digits.hpp"

namespace {

// The colour of most of the border, and how much of the picture differs from it.
struct Glance {
  int border[3];
  float written = 0;
  bool lighter = false;  // is the writing lighter than the border?
};

Glance glance(const Picture& p) {
  Glance seen;
  const auto at = [&](int x, int y, int c) {
    return int{p.pixels[static_cast<std::size_t>(3 * (y * p.width + x) + c)]};
  };
  for (int c = 0; c < 3; ++c) {
    std::vector<int> values;
    for (int x = 0; x < p.width; ++x) values.push_back(at(x, 0, c)), values.push_back(at(x, p.height - 1, c));
    for (int y = 0; y < p.height; ++y) values.push_back(at(0, y, c)), values.push_back(at(p.width - 1, y, c));
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                     values.end());
    seen.border[c] = values[values.size() / 2];
  }
  int different = 0, light = 0;
  for (int y = 0; y < p.height; ++y)
    for (int x = 0; x < p.width; ++x) {
      int far = 0, sum = 0;
      for (int c = 0; c < 3; ++c) {
        far += std::abs(at(x, y, c) - seen.border[c]);
        sum += at(x, y, c) - seen.border[c];
      }
      different += far > 90;
      light += far > 90 ? (sum > 0 ? 1 : -1) : 0;
    }
  seen.written = static_cast<float>(different) / static_cast<float>(p.width * p.height);
  seen.lighter = light > 0;
  return seen;
}

std::string failure_of(const std::string& data) {
  try {
    open_data(data, "train");
  } catch (const Failure& failure) { return one_line(failure); }
  return "";
}

}  // namespace

TEST_CASE("strokes: ten hands and more to train with, four others for tests, no shape in both") {
  CHECK(digit_names().size() == 10);
  std::set<std::string> names;
  for (Hands hands : {Hands::training, Hands::reserved})
    for (const std::string& name : other_names(hands)) CHECK(names.insert(name).second);
  names.insert(digit_names().begin(), digit_names().end());
  for (const std::string& name : names) {
    const std::vector<std::string> a = shapes_of(name, Hands::training), b = shapes_of(name, Hands::reserved);
    if (name[0] <= '9') CHECK_MESSAGE((a.size() >= 10 && b.size() == 4), name);
    std::set<std::string> both(a.begin(), a.end());
    both.insert(b.begin(), b.end());
    CHECK_MESSAGE(both.size() == a.size() + b.size(), name);
  }
  CHECK(shapes_of("nobody", Hands::training).empty());
}

TEST_CASE("strokes: a writing fills its box, and every writing differs") {
  for (const std::string& name : digit_names()) {
    Random random{7};
    const Strokes one = write(name, Hands::training, random), two = write(name, Hands::training, random);
    float low = 0, high = 0;
    for (const Stroke& stroke : one)
      for (Point p : stroke) {
        low = std::min({low, p.x, p.y});
        high = std::max({high, p.x, p.y});
      }
    CHECK(low == doctest::Approx(-0.5).epsilon(1e-4));
    CHECK(high == doctest::Approx(0.5).epsilon(1e-4));
    CHECK((one[0].size() != two[0].size() || one[0][0].x != two[0][0].x));
  }
}

TEST_CASE("made_digits: a picture depends on seed and number alone") {
  const int count = 40;
  std::vector<Picture> backwards(count), threaded(count);
  for (int i = count - 1; i >= 0; --i)
    backwards[static_cast<std::size_t>(i)] = made_digit(5, static_cast<std::size_t>(i));
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 3; ++t)
    threads.emplace_back([&threaded, t] {
      for (std::size_t i = t; i < count; i += 3) threaded[i] = made_digit(5, i);
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < count; ++i) {
    const Picture p = made_digit(5, i);
    CHECK(p.pixels == backwards[i].pixels);
    CHECK(p.pixels == threaded[i].pixels);
    CHECK(p.pixels != made_digit(6, i).pixels);
  }
}

TEST_CASE("made_digits: sizes, colours and polarity vary, and something is written on each") {
  std::set<int> colours, sizes;
  int lighter = 0, written = 0;
  for (std::size_t i = 0; i < 300; ++i) {
    const Picture p = made_digit(training_seed, i);
    const int longest = std::max(p.width, p.height);
    CHECK(p.channels == 3);
    CHECK((longest >= 40 && longest <= 200));
    CHECK(std::min(p.width, p.height) * 5 >= longest * 2 - 5);
    const Glance seen = glance(p);
    colours.insert(seen.border[0] / 64 * 16 + seen.border[1] / 64 * 4 + seen.border[2] / 64);
    sizes.insert(longest);
    lighter += seen.lighter;
    written += seen.written > 0.005f && seen.written < 0.6f;
  }
  CHECK(colours.size() >= 20);  // of 64
  CHECK(sizes.size() >= 80);
  CHECK((lighter > 60 && lighter < 200));
  CHECK(written >= 290);
}

TEST_CASE("made_digits: what is no digit comes in four kinds") {
  int empty = 0, marked = 0;
  for (std::size_t i = 0; i < 80; ++i) {
    const Picture p = made_other(Hands::reserved, 9, i);
    CHECK(p.pixels == made_other(Hands::reserved, 9, i).pixels);
    const float written = glance(p).written;
    if (i % 4 == 0) empty += written < 0.01f;
    if (i % 4 >= 2) marked += written > 0.003f;
  }
  CHECK(empty >= 18);
  CHECK(marked >= 38);
}

TEST_CASE("made_digits: tests/golden/digits is what nnlite-samples golden draws today") {
  const std::string folder = std::string(NNLITE_TESTS_DIR) + "/golden/digits";
  const LabelledPictures found = list_class_folders(folder);
  CHECK(found.label_names == digit_names());
  REQUIRE(found.paths.size() == golden_count);
  std::uintmax_t bytes = 0;
  int smallest = 1500, largest = 0;
  for (std::size_t i = 0; i < golden_count; ++i) {
    const Picture drawn = golden_digit(i);
    char name[32];
    std::snprintf(name, sizeof name, "/%d/%05d.png", static_cast<int>(i % 10), static_cast<int>(i));
    const Picture there = read_picture(folder + name);
    CHECK_MESSAGE((there.width == drawn.width && there.height == drawn.height), name);
    CHECK_MESSAGE(there.pixels == drawn.pixels, name);
    smallest = std::min(smallest, std::max(drawn.width, drawn.height));
    largest = std::max(largest, std::max(drawn.width, drawn.height));
    bytes += std::filesystem::file_size(folder + name);
  }
  CHECK(bytes < 2000000);
  CHECK((smallest >= 40 && smallest < 45));
  CHECK((largest > 1200 && largest <= 1500));
}

TEST_CASE("made_digits: a composed page shows the digit that it was given") {
  std::vector<std::uint8_t> ring(28 * 28);
  for (int y = 0; y < 28; ++y)
    for (int x = 0; x < 28; ++x) {
      const int far = (2 * x - 27) * (2 * x - 27) + (2 * y - 27) * (2 * y - 27);
      if (far > 14 * 14 && far < 20 * 20) ring[static_cast<std::size_t>(28 * y + x)] = 255;
    }
  int smallest = 1500, largest = 0;
  for (std::size_t i = 0; i < 40; ++i) {
    const Picture p = composed_digit(ring.data(), 28, i);
    const std::vector<std::uint8_t> nothing(28 * 28);
    CHECK(glance(p).written > glance(composed_digit(nothing.data(), 28, i)).written + 0.003f);
    smallest = std::min(smallest, std::max(p.width, p.height));
    largest = std::max(largest, std::max(p.width, p.height));
  }
  CHECK((smallest >= 40 && smallest < 60));
  CHECK((largest > 800 && largest <= 1500));
}

TEST_CASE("data: synthetic-digits has two parts, as many of each digit, through the model's preprocessing") {
  const std::unique_ptr<Network> network = build_arch("lenet", ArchWish{}, nnlite::Seed{1});
  const nnlite::Model& model = network->model;
  CHECK(has_test_part("synthetic-digits"));
  CHECK(has_test_part("synthetic-digits:100"));
  const Samples train = samples_for(model, open_data("synthetic-digits:100", "train"), 1);
  const Samples test = samples_for(model, open_data("synthetic-digits:100", "t10k"), 1);
  CHECK(train.count() == 100);
  CHECK(test.count() == 20);
  CHECK(train.label_names == digit_names());
  CHECK(train.shape == std::vector<int>{28, 28, 1});
  for (std::int32_t digit = 0; digit < 10; ++digit) {
    CHECK(std::count(train.labels.begin(), train.labels.end(), digit) == 10);
    CHECK(std::count(test.labels.begin(), test.labels.end(), digit) == 2);
  }
  const Picture p = made_digit(training_seed, 3);
  std::vector<float> row(784), same(784), other(784);
  REQUIRE(ok(nnlite::preprocess({p.pixels.data(), p.width, p.height, 3}, preprocessing_of(model), 28, 28, 1,
                                row.data())));
  put_input(train, 3, same.data());
  put_input(test, 3, other.data());
  CHECK(row == same);
  CHECK(row != other);
}

TEST_CASE("data: a number of digits that cannot be is refused") {
  for (const char* word : {"", "x", "49", "1000001", "50x", "-50"})
    CHECK(failure_of(std::string("synthetic-digits:") + word).find("not a number from 50 to 1000000: ") == 0);
  CHECK(failure_of("synthetic-digit").find("no such file or folder") == 0);
}
