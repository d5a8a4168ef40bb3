#include "paint.hpp"

#include <algorithm>
#include <cmath>

namespace {

float squared(float x) { return x * x; }

// ---- lines
struct Dot {
  float x = 0, y = 0, radius = 0;
};

// A line with round ends between two dots of their own sizes.
void add_line(Mask& mask, Dot a, Dot b, float softness) {
  const float reach = std::max(a.radius, b.radius) + softness;
  const int x0 = std::max(0, static_cast<int>(std::floor(std::min(a.x, b.x) - reach)));
  const int y0 = std::max(0, static_cast<int>(std::floor(std::min(a.y, b.y) - reach)));
  const int x1 = std::min(mask.width - 1, static_cast<int>(std::ceil(std::max(a.x, b.x) + reach)));
  const int y1 = std::min(mask.height - 1, static_cast<int>(std::ceil(std::max(a.y, b.y) + reach)));
  const float dx = b.x - a.x, dy = b.y - a.y, inverse = 1 / std::max(squared(dx) + squared(dy), 1e-6f);
  for (int y = y0; y <= y1; ++y) {
    float* row = mask.ink.data() + static_cast<std::ptrdiff_t>(y) * mask.width;
    for (int x = x0; x <= x1; ++x) {
      const float px = static_cast<float>(x) + 0.5f - a.x, py = static_cast<float>(y) + 0.5f - a.y;
      const float t = std::clamp((px * dx + py * dy) * inverse, 0.0f, 1.0f);
      const float far = squared(px - t * dx) + squared(py - t * dy);
      if (far >= squared(reach)) continue;
      const float radius = a.radius + t * (b.radius - a.radius);
      const float ink = 0.5f + (radius - std::sqrt(far)) / softness;
      row[x] = std::max(row[x], std::min(ink, 1.0f));
    }
  }
}

// A straight line of one width, in pieces, because a slanting line has a large box.
void add_straight(Mask& mask, Point a, Point b, float radius, float softness) {
  const float longest = std::max(std::abs(b.x - a.x), std::abs(b.y - a.y));
  const int pieces = 1 + static_cast<int>(longest / 40);
  Dot from{a.x, a.y, radius};
  for (int i = 1; i <= pieces; ++i) {
    const float t = static_cast<float>(i) / static_cast<float>(pieces);
    const Dot to{a.x + t * (b.x - a.x), a.y + t * (b.y - a.y), radius};
    add_line(mask, from, to, softness);
    from = to;
  }
}

// ---- smooth randomness
// Values -1 to 1 that change over about `across` and `down` pixels.
std::vector<float> clouds(int width, int height, float across, float down, Random& random) {
  const int columns = static_cast<int>(static_cast<float>(width) / across) + 2;
  const int rows = static_cast<int>(static_cast<float>(height) / down) + 2;
  std::vector<float> knots(static_cast<std::size_t>(columns) * static_cast<std::size_t>(rows));
  for (float& knot : knots) knot = random.between(-1, 1);
  const auto ease = [](float t) { return t * t * (3 - 2 * t); };
  std::vector<float> values, share(static_cast<std::size_t>(width));
  std::vector<int> column(share.size());
  for (int x = 0; x < width; ++x) {
    const float u = static_cast<float>(x) / across;
    column[static_cast<std::size_t>(x)] = static_cast<int>(u);
    share[static_cast<std::size_t>(x)] = ease(u - std::floor(u));
  }
  values.reserve(share.size() * static_cast<std::size_t>(height));
  for (int y = 0; y < height; ++y) {
    const float v = static_cast<float>(y) / down, b = ease(v - std::floor(v));
    const float* upper = knots.data() + static_cast<std::ptrdiff_t>(v) * columns;
    const float* lower = upper + columns;
    for (std::size_t x = 0; x < share.size(); ++x) {
      const int c = column[x];
      const float a = share[x];
      const float above = upper[c] + a * (upper[c + 1] - upper[c]);
      values.push_back(above + b * (lower[c] + a * (lower[c + 1] - lower[c]) - above));
    }
  }
  return values;
}

// ---- the page
struct Page {
  int width, height;
  float unit;
  std::vector<float> rgb;

  void shade(std::size_t pixel, float by) {
    for (std::size_t c = 0; c < 3; ++c) rgb[3 * pixel + c] *= by;
  }
  void lay(const Mask& mask, const float* colour, float opacity) {
    for (std::size_t i = 0; i < mask.ink.size(); ++i)
      if (mask.ink[i] > 0)
        for (std::size_t c = 0; c < 3; ++c)
          rgb[3 * i + c] += opacity * mask.ink[i] * (colour[c] - rgb[3 * i + c]);
  }
};

void plain(Page&, const Look&, Random&) {}

// Lines across the page, `spacing` apart and about level; `turned` makes them go down the page.
void rule(Mask& mask, float spacing, float radius, float tilt, bool turned, Random& random) {
  const float length = static_cast<float>(turned ? mask.height : mask.width);
  const float room = static_cast<float>(turned ? mask.width : mask.height);
  const float slope = tilt * length * (turned ? -1.0f : 1.0f);
  for (float at = random.between(-1, 0) * spacing - std::abs(slope); at < room + std::abs(slope);
       at += spacing) {
    const Point from{0, at}, to{length, at + slope};
    if (turned) add_straight(mask, {from.y, from.x}, {to.y, to.x}, radius, 1.2f);
    else add_straight(mask, from, to, radius, 1.2f);
  }
}

void ruled(Page& page, const Look& look, Random& random) {
  Mask mask(page.width, page.height);
  const float spacing = page.unit * random.between(0.5f, 1.4f), tilt = 0.03f * random.normal();
  const float radius = page.unit * random.between(0.004f, 0.01f);
  rule(mask, spacing, radius, tilt, false, random);
  page.lay(mask, look.line, random.between(0.3f, 0.9f));
}

void crumpled(Page& page, const Look&, Random& random) {
  const float cell = page.unit * random.between(0.3f, 1.0f), strength = random.between(0.02f, 0.06f);
  const std::vector<float> coarse = clouds(page.width, page.height, cell, cell, random);
  const std::vector<float> fine = clouds(page.width, page.height, cell / 3, cell / 3, random);
  for (std::size_t i = 0; i < coarse.size(); ++i) page.shade(i, 1 + strength * (coarse[i] + 0.5f * fine[i]));
}

void grainy(Page& page, const Look&, Random& random) {
  const float cell = random.between(1.1f, 2.5f), strength = random.between(0.02f, 0.08f);
  const std::vector<float> grain = clouds(page.width, page.height, cell, cell, random);
  for (std::size_t i = 0; i < grain.size(); ++i) page.shade(i, 1 + strength * grain[i]);
}

// A board that was wiped: streaks of old chalk.
void wiped(Page& page, const Look& look, Random& random) {
  const float across = page.unit * random.between(0.5f, 2.0f), strength = random.between(0.04f, 0.14f);
  const std::vector<float> streaks = clouds(page.width, page.height, across, across / 6, random);
  const std::vector<float> patches = clouds(page.width, page.height, across, across, random);
  Mask mask(page.width, page.height);
  for (std::size_t i = 0; i < streaks.size(); ++i)
    mask.ink[i] = std::max(0.0f, 0.5f * (streaks[i] + patches[i]));
  page.lay(mask, look.ink, strength);
}

void squared_paper(Page& page, const Look& look, Random& random) {
  Mask mask(page.width, page.height);
  const float spacing = page.unit * random.between(0.22f, 0.6f), tilt = 0.02f * random.normal();
  const float radius = page.unit * random.between(0.003f, 0.007f);
  rule(mask, spacing, radius, tilt, false, random);
  rule(mask, spacing, radius, tilt, true, random);
  page.lay(mask, look.line, random.between(0.3f, 0.75f));
}

void dotted(Page& page, const Look& look, Random& random) {
  Mask mask(page.width, page.height);
  const float spacing = page.unit * random.between(0.2f, 0.45f), radius = page.unit * 0.012f;
  const float left = random.unit() * spacing;
  for (float y = random.unit() * spacing; y < static_cast<float>(page.height); y += spacing)
    for (float x = left; x < static_cast<float>(page.width); x += spacing)
      add_line(mask, {x, y, radius}, {x, y, radius}, 1.2f);
  page.lay(mask, look.line, random.between(0.4f, 0.9f));
}

// Recycled paper: short threads.
void fibres(Page& page, const Look& look, Random& random) {
  Mask mask(page.width, page.height);
  const float area = static_cast<float>(page.width) * static_cast<float>(page.height) / squared(page.unit);
  const int count = static_cast<int>(std::min(area, 60.0f) * random.between(4, 14));
  for (int i = 0; i < count; ++i) {
    const Point from{random.unit() * static_cast<float>(page.width),
                     random.unit() * static_cast<float>(page.height)};
    const float reach = 0.06f * page.unit, x = random.between(-reach, reach),
                y = random.between(-reach, reach);
    add_straight(mask, from, {from.x + x, from.y + y}, 0.004f * page.unit, 1.2f);
  }
  page.lay(mask, look.line, random.between(0.2f, 0.5f));
}

// Folded and laid flat again: on either side of a fold the light differs.
void creased(Page& page, const Look&, Random& random) {
  for (int folds = 1 + random.below(3); folds > 0; --folds) {
    const float x = random.unit() * static_cast<float>(page.width), dx = random.between(-1, 1);
    const float y = random.unit() * static_cast<float>(page.height), dy = random.between(-1, 1);
    const float norm = 1 / (std::sqrt(dx * dx + dy * dy) + 0.01f), strength = random.between(0.02f, 0.07f);
    const float reach = page.unit * random.between(0.2f, 0.8f);
    std::size_t i = 0;
    for (int v = 0; v < page.height; ++v)
      for (int u = 0; u < page.width; ++u, ++i) {
        const float side = norm * ((static_cast<float>(u) - x) * dx + (static_cast<float>(v) - y) * dy);
        const float near = std::max(0.0f, 1 - std::abs(side) / reach);
        page.shade(i, 1 + strength * near * std::clamp(side, -1.0f, 1.0f));
      }
  }
}

// Cloth or canvas: threads over and under each other.
void woven(Page& page, const Look&, Random& random) {
  const float period = 3 + std::floor(page.unit * random.between(0.01f, 0.06f));
  const float strength = random.between(0.02f, 0.06f);
  const auto wave = [period](int x) {  // a triangle, -1 to 1
    const float t = static_cast<float>(x) / period;
    return 4 * std::abs(t - std::floor(t + 0.5f)) - 1;
  };
  std::size_t i = 0;
  for (int y = 0; y < page.height; ++y)
    for (int x = 0; x < page.width; ++x, ++i) page.shade(i, 1 + strength * wave(x) * wave(y));
}

using Texture = void (*)(Page&, const Look&, Random&);
const int texture_count = 5;
const Texture textures[2][texture_count] = {{crumpled, grainy, plain, ruled, wiped},
                                            {creased, dotted, fibres, squared_paper, woven}};

// Light falls on the page, and a camera sees it.
Picture photograph(const Page& page, const Look& look, Random& random) {
  Picture picture{page.width, page.height, 3, std::vector<std::uint8_t>(page.rgb.size())};
  std::size_t i = 0;
  for (int y = 0; y < page.height; ++y)
    for (int x = 0; x < page.width; ++x, ++i) {
      const float u = 2 * static_cast<float>(x) / static_cast<float>(page.width) - 1;
      const float v = 2 * static_cast<float>(y) / static_cast<float>(page.height) - 1;
      const float light =
          1 + 0.5f * (look.slope[0] * u + look.slope[1] * v) - 0.5f * look.vignette * (u * u + v * v);
      const std::uint64_t bits = random.next();  // four numbers of 16 bits: one for all colours, one for each
      const auto noise = [bits](int part) {
        return static_cast<float>(bits >> (16 * part) & 0xffff) * (3.4641f / 65536) - 1.73205f;
      };
      const auto level = [&look](float value) {
        const int steps = static_cast<int>(std::clamp(value, 0.0f, 255.0f) / look.step + 0.5f);
        return static_cast<std::uint8_t>(std::min(255.0f, static_cast<float>(steps) * look.step));
      };
      const float all = look.noise * noise(3);
      for (std::size_t c = 0; c < 3; ++c) {
        const float value =
            light * page.rgb[3 * i + c] + all + look.colour_noise * noise(static_cast<int>(c));
        picture.pixels[3 * i + c] = level(value);
      }
    }
  return picture;
}

// ---- colours
struct Colour {
  float rgb[3];
};
const Colour light_papers[] = {{{250, 250, 248}}, {{244, 240, 228}}, {{226, 226, 224}}, {{250, 238, 150}},
                               {{246, 208, 214}}, {{206, 226, 244}}, {{212, 236, 208}}, {{200, 174, 136}},
                               {{238, 236, 238}}, {{214, 208, 196}}};
const Colour dark_inks[] = {{{20, 20, 24}},  {{24, 32, 80}},   {{30, 60, 180}},  {{190, 30, 36}},
                            {{20, 110, 60}}, {{100, 40, 140}}, {{96, 96, 100}},  {{90, 56, 30}},
                            {{16, 16, 16}},  {{220, 90, 20}},  {{20, 120, 140}}, {{40, 40, 120}}};
const Colour dark_papers[] = {{{40, 42, 42}}, {{34, 74, 58}}, {{24, 34, 80}}, {{14, 14, 16}},
                              {{70, 46, 34}}, {{84, 24, 36}}, {{60, 64, 76}}, {{22, 60, 66}}};
const Colour light_inks[] = {{{246, 246, 242}}, {{240, 232, 200}}, {{246, 224, 90}}, {{248, 180, 190}},
                             {{160, 210, 246}}, {{176, 236, 170}}, {{216, 216, 220}}};

template <std::size_t N>
void pick(float* to, const Colour (&from)[N], Random& random) {
  const Colour& colour = from[random.below(static_cast<int>(N))];
  for (int c = 0; c < 3; ++c) to[c] = std::clamp(colour.rgb[c] + 7 * random.normal(), 0.0f, 255.0f);
}

float difference(const float* a, const float* b) {
  return std::sqrt(squared(a[0] - b[0]) + squared(a[1] - b[1]) + squared(a[2] - b[2]));
}

float grey(const float* c) { return 0.3f * c[0] + 0.59f * c[1] + 0.11f * c[2]; }

void random_colours(Look& look, Random& random) {
  const float kind = random.unit();
  do {
    if (kind < 0.55f) {
      pick(look.paper, light_papers, random);
      pick(look.ink, dark_inks, random);
    } else if (kind < 0.85f) {
      pick(look.paper, dark_papers, random);
      pick(look.ink, light_inks, random);
    } else {
      for (int c = 0; c < 3; ++c) look.paper[c] = random.between(20, 250);
      for (int c = 0; c < 3; ++c) look.ink[c] = random.between(10, 250);
    }
  } while (difference(look.paper, look.ink) < 130 || std::abs(grey(look.paper) - grey(look.ink)) < 45);
}

}  // namespace

Pen random_pen(Random& random) {
  Pen pen;
  pen.width = 0.035f + 0.165f * squared(random.unit());
  pen.swing = random.between(0, 0.35f);
  if (random.chance(0.25f)) {
    pen.nib = random.between(0.2f, 0.6f);
    pen.width *= 1.3f;
  }
  const float x = random.between(-1, 1), y = random.between(-1, 1);
  const float norm = 1 / std::max(std::sqrt(x * x + y * y), 0.01f);
  pen.direction = {norm * x, norm * y};
  pen.tremor = random.between(0, 0.012f);
  pen.softness = random.between(1.0f, 2.2f);
  return pen;
}

void draw(Mask& mask, const Strokes& strokes, const Place& place, const Pen& pen, Random& random) {
  for (const Stroke& stroke : strokes) {
    const int n = static_cast<int>(stroke.size());
    const std::vector<float> wobble = clouds(n, 3, 4, 1, random);  // three rows: across, down, width
    Dot before;
    for (int i = 0; i < n; ++i) {
      const Point p = stroke[static_cast<std::size_t>(i)],
                  q = stroke[static_cast<std::size_t>(i == 0 ? 1 : i - 1)];
      const float dx = p.x - q.x, dy = p.y - q.y, step = std::sqrt(dx * dx + dy * dy) + 1e-6f;
      const float along = std::abs(dx * pen.direction.x + dy * pen.direction.y) / step;
      const auto w = [&](int row) { return wobble[static_cast<std::size_t>(row * n + i)]; };
      const float width = pen.width * (1 + pen.swing * w(2)) * (1 - pen.nib * along);
      const Dot dot{place.centre.x + place.size * (p.x + pen.tremor * w(0)),
                    place.centre.y + place.size * (p.y + pen.tremor * w(1)),
                    std::max(0.55f, 0.5f * width * place.size)};
      add_line(mask, i == 0 ? dot : before, dot, pen.softness);
      before = dot;
    }
  }
}

// Linear between the pixels, then steeper around the middle: else the edges on a large page would be blurred
// over the width of a pixel of the small picture.
void draw(Mask& mask, const std::uint8_t* pixels, int side, const Place& place) {
  const float step = static_cast<float>(side) / place.size, middle = 0.5f * static_cast<float>(side) - 0.5f;
  const float gain = std::clamp(0.25f / step, 1.0f, 2.5f), bend = 0.4f;
  const auto value = [&](int x, int y) {
    return x < 0 || y < 0 || x >= side || y >= side ? 0.0f : static_cast<float>(pixels[y * side + x]) / 255;
  };
  for (int y = 0; y < mask.height; ++y)
    for (int x = 0; x < mask.width; ++x) {
      const float u = middle + step * (static_cast<float>(x) + 0.5f - place.centre.x);
      const float v = middle + step * (static_cast<float>(y) + 0.5f - place.centre.y);
      const int i = static_cast<int>(std::floor(u)), j = static_cast<int>(std::floor(v));
      if (i < -1 || j < -1 || i >= side || j >= side) continue;
      const float a = u - std::floor(u), b = v - std::floor(v);
      const float above = (1 - a) * value(i, j) + a * value(i + 1, j);
      const float below = (1 - a) * value(i, j + 1) + a * value(i + 1, j + 1);
      const float ink = bend + gain * ((1 - b) * above + b * below - bend);
      float& at = mask.ink[static_cast<std::size_t>(y) * static_cast<std::size_t>(mask.width) +
                           static_cast<std::size_t>(x)];
      at = std::max(at, std::clamp(ink, 0.0f, 1.0f));
    }
}

Look random_look(Random& random) {
  Look look;
  random_colours(look, random);
  look.texture = random.below(texture_count);
  look.opacity = random.between(0.75f, 1);
  look.dryness = random.chance(0.3f) ? random.between(0.1f, 0.5f) : 0;
  // What is printed on a page is fainter than what is written on it, and light changes less than ink does.
  const float contrast = difference(look.paper, look.ink);
  const float black[3] = {0, 0, 0};
  const float most = std::min(0.25f, 0.14f * contrast / std::max(difference(look.paper, black), 60.0f));
  for (float& slope : look.slope) slope = random.between(-most, most);
  look.vignette = random.between(0, most);
  const float share = std::min(1.0f, 0.35f * contrast / 160);
  const float tint[3] = {random.between(-60, 20), random.between(-60, 20), random.between(-40, 40)};
  const bool dark = grey(look.paper) < 127;
  for (int c = 0; c < 3; ++c) {
    const float towards = dark ? 120 + tint[c] : -70 + tint[c];
    look.line[c] = std::clamp(look.paper[c] + share * towards, 0.0f, 255.0f);
  }
  look.noise = 6 * squared(random.unit());
  look.colour_noise = look.noise * random.between(0, 0.8f);
  return look;
}

Picture paint(const Mask& mask, Hands hands, const Look& look, float unit, Random& random) {
  Page page{mask.width, mask.height, unit, {}};
  const std::size_t pixels = mask.ink.size();
  page.rgb.reserve(3 * pixels);
  for (std::size_t i = 0; i < pixels; ++i) page.rgb.insert(page.rgb.end(), look.paper, look.paper + 3);
  textures[static_cast<int>(hands)][look.texture](page, look, random);
  if (look.dryness > 0) {
    const float cell = std::max(1.1f, 0.02f * unit);
    const std::vector<float> holes = clouds(page.width, page.height, cell, cell, random);
    Mask dry = mask;
    for (std::size_t i = 0; i < pixels; ++i) dry.ink[i] *= 1 - look.dryness * std::max(0.0f, holes[i]);
    page.lay(dry, look.ink, look.opacity);
  } else {
    page.lay(mask, look.ink, look.opacity);
  }
  return photograph(page, look, random);
}
