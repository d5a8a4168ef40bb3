#include "made_digits.hpp"

#include <algorithm>
#include <cmath>

namespace {

struct Paper {
  int width, height;
  Place place;
};

// A number between two, where halving is as likely as doubling.
float between_scales(float low, float high, float share) {
  float value = low;
  // (high / low)^share by bits of the share: powers of the C library differ in the last digit
  for (float root = std::sqrt(high / low), bit = 0.5f; bit > 0.001f; bit /= 2, root = std::sqrt(root))
    if (share >= bit) {
      share -= bit;
      value *= root;
    }
  return value;
}

// A page whose longer side is `longest`, and room on it for writing that is at most `width` heights wide.
Paper random_paper(float longest, float width, Random& random, bool square = false) {
  const float ratio = square || random.chance(0.3f) ? 1 : between_scales(0.4f, 1, random.unit());
  const int a = static_cast<int>(longest + 0.5f), b = std::max(1, static_cast<int>(longest * ratio + 0.5f));
  const bool wide = random.chance(0.5f);
  Paper paper{wide ? a : b, wide ? b : a, {}};
  const float w = static_cast<float>(paper.width), h = static_cast<float>(paper.height);
  const float most = std::min(0.82f * h, 0.82f * w / width);
  const float least = std::min(most, std::max(20.0f, 0.35f * most));
  paper.place.size = random.between(least, most);
  const float room_x = 0.46f * w - 0.5f * width * paper.place.size,
              room_y = 0.46f * h - 0.5f * paper.place.size;
  paper.place.centre.x = 0.5f * w + random.between(-1, 1) * std::max(0.0f, room_x);
  paper.place.centre.y = 0.5f * h + random.between(-1, 1) * std::max(0.0f, room_y);
  return paper;
}

float width_of(const Strokes& strokes) {
  float low = 0, high = 0;
  for (const Stroke& stroke : strokes)
    for (Point p : stroke) {
      low = std::min(low, p.x);
      high = std::max(high, p.x);
    }
  return 2 * std::max(-low, high);
}

void shift(Strokes& strokes, float x) {
  for (Stroke& stroke : strokes)
    for (Point& p : stroke) p.x += x;
}

Picture written(const Strokes& strokes, Hands hands, float longest, const Look& look, Random& random,
                bool square = false) {
  const Pen pen = random_pen(random);
  const Paper paper = random_paper(longest, width_of(strokes) + pen.width, random, square);
  Mask mask(paper.width, paper.height);
  draw(mask, strokes, paper.place, pen, random);
  return paint(mask, hands, look, paper.place.size, random);
}

Picture two_digits(Hands hands, float longest, Random& random) {
  const auto digit = [&] { return write(std::to_string(random.below(10)), hands, random); };
  Strokes pair = digit(), other = digit();
  const float gap = random.between(0.15f, 0.5f), half = 0.5f * width_of(pair), rest = 0.5f * width_of(other);
  shift(pair, -0.5f * gap - rest);
  shift(other, 0.5f * gap + half);
  pair.insert(pair.end(), other.begin(), other.end());
  return written(pair, hands, longest, random_look(random), random);
}

// Two letters or symbols in one place.
Strokes scrawl(Random& random) {
  const std::vector<std::string>& names = other_names(Hands::training);
  const auto any = [&] {
    return write(names[static_cast<std::size_t>(random.below(static_cast<int>(names.size())))],
                 Hands::training, random);
  };
  Strokes both = any(), other = any();
  shift(other, random.between(-0.3f, 0.3f));
  both.insert(both.end(), other.begin(), other.end());
  return both;
}

Picture noise(float longest, Random& random) {
  const Paper paper = random_paper(longest, 1, random);
  Look look = random_look(random);
  look.noise = random.between(15, 70);
  look.colour_noise = look.noise * random.between(0, 1);
  return paint(Mask(paper.width, paper.height), Hands::training, look, paper.place.size, random);
}

}  // namespace

Picture made_picture(const std::string& name, Hands hands, int smallest, int largest, Random random) {
  const float longest =
      between_scales(static_cast<float>(smallest), static_cast<float>(largest), random.unit());
  const Strokes strokes = write(name, hands, random);
  const Look look = random_look(random);
  return written(strokes, hands, longest, look, random);
}

Picture made_digit(std::uint64_t seed, std::size_t index) {
  return made_picture(digit_names()[index % 10], Hands::training, 40, 200, random_of(seed, index));
}

Picture square_digit(std::uint64_t seed, std::size_t index, int side) {
  Random random = random_of(seed, index);
  const Strokes strokes = write(digit_names()[index % 10], Hands::training, random);
  const Look look = random_look(random);
  return written(strokes, Hands::training, static_cast<float>(side), look, random, true);
}

Picture made_other(Hands hands, std::uint64_t seed, std::size_t index) {
  Random random = random_of(seed, index);
  const float longest = between_scales(40, 400, random.unit());
  if (index % 4 == 0) {
    const Paper paper = random_paper(longest, 1, random);
    return paint(Mask(paper.width, paper.height), hands, random_look(random), paper.place.size, random);
  }
  if (index % 4 == 1) return noise(longest, random);
  if (index % 4 == 3) return two_digits(hands, longest, random);
  const std::vector<std::string>& names = other_names(hands);
  const Strokes strokes = write(names[index / 4 % names.size()], hands, random);
  return written(strokes, hands, longest, random_look(random), random);
}

Picture training_other(std::uint64_t seed, std::size_t index) {
  static const int kinds[10] = {2, 2, 4, 2, 3, 2, 4, 2, 1, 0};  // of other_kinds; 4: a scrawl
  const int kind = kinds[index % 10];
  if (kind < 4) return made_other(Hands::training, seed, 4 * index + static_cast<std::size_t>(kind));
  Random random = random_of(seed, 4 * index + 2);
  const float longest = between_scales(40, 400, random.unit());
  const Strokes strokes = scrawl(random);
  return written(strokes, Hands::training, longest, random_look(random), random);
}

Picture golden_digit(std::size_t index) {
  Random random = random_of(golden_seed, index);
  // Every digit in all sizes. Large ones are rare and their camera is good, for the sake of the files' size.
  const float share = (static_cast<float>(index / 10) + random.unit()) / 24;
  const float longest = between_scales(40, 1500, share * share);
  const Strokes strokes = write(digit_names()[index % 10], Hands::reserved, random);
  Look look = random_look(random);
  for (float& slope : look.slope) slope *= 1.4f;  // harder than any light that was trained with
  look.vignette *= 1.4f;
  look.step = longest > 300 ? 12.0f : 8.0f;
  if (longest > 300) look.dryness = 0;
  look.noise = std::min(look.noise, std::max(0.0f, 4 - longest / 50));
  look.colour_noise = std::min(look.colour_noise, look.noise);
  return written(strokes, Hands::reserved, longest, look, random);
}

Picture composed_digit(const std::uint8_t* pixels, int side, std::size_t index) {
  Random random = random_of(composed_seed, index);
  const float share = random.unit();
  const Paper paper = random_paper(between_scales(40, 1500, share * share), 1, random);
  Mask mask(paper.width, paper.height);
  Place place = paper.place;
  place.size *= 1.3f;  // the digit takes 20 of 28 pixels
  draw(mask, pixels, side, place);
  const Hands hands = random.chance(0.5f) ? Hands::training : Hands::reserved;
  return paint(mask, hands, random_look(random), paper.place.size, random);
}
