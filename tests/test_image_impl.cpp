#include <doctest/doctest.h>

#include <cfenv>
#include <vector>

#include "nnlite.hpp"

using namespace nnlite;

namespace {
Preprocessing plain() {
  Preprocessing how;
  how.scale = 1;
  return how;
}

std::vector<double> shown(const std::vector<uint8_t>& pixels, int width, int height, int channels,
                          const Preprocessing& how, int to_height, int to_width, int to_channels) {
  std::vector<real> to(size_t(to_height) * size_t(to_width) * size_t(to_channels) + 1, real(-7));
  const Image image{pixels.data(), width, height, channels};
  CHECK(preprocess(image, how, to_height, to_width, to_channels, to.data()) == Status::ok);
  CHECK(to.back() == real(-7));
  return std::vector<double>(to.begin(), to.end() - 1);
}
using Values = std::vector<double>;
}  // namespace

TEST_CASE("image: same size copies, scale, mean and std apply per channel") {
  Preprocessing how;
  how.scale   = 0.5f;
  how.mean[1] = 10;
  how.std[2]  = 4;
  CHECK(shown({10, 20, 30, 40, 50, 60}, 2, 1, 3, how, 1, 2, 3) == Values{5, 0, 3.75, 20, 15, 7.5});
}

TEST_CASE("image: the default scale takes 255 to 1") {
  const Values v = shown({0, 255}, 2, 1, 1, Preprocessing(), 1, 2, 1);
  CHECK(v[0] == 0);
  CHECK(v[1] == doctest::Approx(1).epsilon(1e-7));
}

TEST_CASE("image: shrinking averages by area, shares of pixels included") {
  CHECK(shown({1, 3, 5, 7, 9, 11, 13, 15}, 4, 2, 1, plain(), 1, 2, 1) == Values{6, 10});
  // 3 -> 2: the middle pixel belongs half to each side
  CHECK(shown({30, 60, 90}, 3, 1, 1, plain(), 1, 2, 1) == Values{40, 80});
  CHECK(shown({30, 60, 90}, 1, 3, 1, plain(), 2, 1, 1) == Values{40, 80});
}

TEST_CASE("image: growing is bilinear between pixel centres and constant outside them") {
  CHECK(shown({0, 100}, 2, 1, 1, plain(), 1, 4, 1) == Values{0, 25, 75, 100});
  CHECK(shown({0, 80, 160, 240}, 2, 2, 1, plain(), 3, 3, 1) ==
        Values{0, 40, 80, 80, 120, 160, 160, 200, 240});
  CHECK(shown({77}, 1, 1, 1, plain(), 2, 2, 1) == Values{77, 77, 77, 77});
}

TEST_CASE("image: one axis may grow while the other shrinks") {
  CHECK(shown({0, 100, 50, 150}, 2, 2, 1, plain(), 1, 4, 1) == Values{25, 50, 100, 125});
}

TEST_CASE("image: letterbox keeps the aspect and fills with the background") {
  Preprocessing how = plain();
  how.resize     = Resize::letterbox;
  how.background = 9;
  CHECK(shown({1, 2, 3, 4, 5, 6, 7, 8}, 4, 2, 1, how, 4, 4, 1) ==
        Values{9, 9, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9});
  CHECK(shown({10, 20}, 1, 2, 1, how, 2, 3, 1) == Values{9, 10, 9, 9, 20, 9});
  how.invert = true;
  CHECK(shown({10, 20}, 1, 2, 1, how, 2, 3, 1) == Values{246, 245, 246, 246, 235, 246});
}

TEST_CASE("image: centre crop keeps the aspect and fills the input") {
  Preprocessing how = plain();
  how.resize = Resize::centre_crop;
  CHECK(shown({1, 2, 3, 4, 5, 6, 7, 8}, 4, 2, 1, how, 2, 2, 1) == Values{2, 3, 6, 7});
  CHECK(shown({1, 2, 3, 4}, 1, 4, 1, how, 2, 1, 1) == Values{2, 3});
}

TEST_CASE("image: gray from colour, colour from gray, transparency over white") {
  const Values gray = shown({100, 200, 50}, 1, 1, 3, plain(), 1, 1, 1);
  CHECK(gray[0] == doctest::Approx(0.299 * 100 + 0.587 * 200 + 0.114 * 50).epsilon(1e-7));
  CHECK(shown({42}, 1, 1, 1, plain(), 1, 1, 3) == Values{42, 42, 42});
  CHECK(shown({10, 20, 30, 0}, 1, 1, 4, plain(), 1, 1, 3) == Values{255, 255, 255});
  CHECK(shown({10, 20, 30, 255}, 1, 1, 4, plain(), 1, 1, 3) == Values{10, 20, 30});
  CHECK(shown({100, 51}, 1, 1, 2, plain(), 1, 1, 1) == Values{224});
  CHECK(shown({10, 20, 30, 40}, 1, 1, 4, plain(), 1, 1, 4) == Values{10, 20, 30, 40});
  CHECK(shown({10, 20, 30}, 1, 1, 3, plain(), 1, 1, 4) == Values{10, 20, 30, 255});
}

TEST_CASE("image: sizes out of range are refused and nothing is written") {
  const uint8_t pixel[4] = {};
  real to = 5;
  CHECK(preprocess(Image{nullptr, 1, 1, 1}, plain(), 1, 1, 1, &to) == Status::bad_image);
  CHECK(preprocess(Image{pixel, 0, 1, 1}, plain(), 1, 1, 1, &to) == Status::bad_image);
  CHECK(preprocess(Image{pixel, 1, 16385, 1}, plain(), 1, 1, 1, &to) == Status::bad_image);
  CHECK(preprocess(Image{pixel, 1, 1, 5}, plain(), 1, 1, 1, &to) == Status::bad_image);
  CHECK(preprocess(Image{pixel, 1, 1, 1}, plain(), 0, 1, 1, &to) == Status::bad_image);
  CHECK(preprocess(Image{pixel, 1, 1, 1}, plain(), 1, 1, 0, &to) == Status::bad_image);
  CHECK(to == 5);
}

TEST_CASE("image: the caller's rounding mode changes nothing and comes back") {
  const Values want = shown({30, 61, 92}, 3, 1, 1, Preprocessing(), 1, 2, 1);
  std::fesetround(FE_UPWARD);
  const Values got = shown({30, 61, 92}, 3, 1, 1, Preprocessing(), 1, 2, 1);
  CHECK(std::fegetround() == FE_UPWARD);
  std::fesetround(FE_TONEAREST);
  CHECK(got == want);
}

TEST_CASE("image: the largest image keeps its mean") {
  std::vector<uint8_t> pixels(size_t(16384) * 3);
  for (size_t i = 0; i < pixels.size(); i++) pixels[i] = uint8_t(i % 2 == 0 ? 250 : 252);
  CHECK(shown(pixels, 16384, 1, 3, plain(), 1, 1, 3) == Values{251, 251, 251});
}
