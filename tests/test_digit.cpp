// The digit front end, on pictures that are drawn here: strokes of ink on paper, at any size.
#include <doctest/doctest.h>

#include <cmath>

#include "engine.hpp"
#include "nnl_file.hpp"

using namespace nnlite;

namespace {

struct Picture {
  int width, height, channels;
  std::vector<uint8_t> pixels;
  Picture(int w, int h, int c, int value)
      : width(w), height(h), channels(c), pixels(size_t(w) * size_t(h) * size_t(c), uint8_t(value)) {}
  uint8_t* at(int x, int y) { return &pixels[(size_t(y) * size_t(width) + size_t(x)) * size_t(channels)]; }
  void fill(int x, int y, int w, int h, int value) {
    for (int v = y; v < y + h; v++)
      for (int u = x; u < x + w; u++)
        for (int c = 0; c < channels; c++) at(u, v)[c] = uint8_t(value);
  }
};

struct Shown {
  Status status;
  Seen   seen = Seen::one;
  std::vector<real> values;
  real at(int x, int y) const { return values[size_t(y) * 28 + size_t(x)]; }
  std::vector<int> box() const {                             // of what is not 0: first and last x, first and last y
    std::vector<int> b = {28, -1, 28, -1};
    for (int y = 0; y < 28; y++)
      for (int x = 0; x < 28; x++) {
        if (!(at(x, y) > 0)) continue;
        b = {std::min(b[0], x), std::max(b[1], x), std::min(b[2], y), std::max(b[3], y)};
      }
    return b;
  }
};

Preprocessing digit_kind() {
  Preprocessing how;
  how.kind  = PreprocessingKind::digit;
  how.scale = 1;
  return how;
}

// In memory of exactly the size that prepare_bytes says, and pixels behind which nothing may be read.
Shown show(const Picture& p, const Preprocessing& how = digit_kind(), int channels = 1) {
  Shown s;
  s.values.assign(28 * 28 + 1, real(-7));
  Guarded scratch(prepare_bytes(how, p.width, p.height));
  const Image image{p.pixels.data(), p.width, p.height, p.channels};
  s.status = preprocess(image, how, 28, 28, channels, s.values.data(), scratch.arena(), &s.seen);
  CHECK(scratch.intact());
  CHECK(s.values.back() == real(-7));
  s.values.pop_back();
  return s;
}

// Mean difference; of the best of 9 places, as a centre of mass at the edge of a pixel falls to either side.
double difference(const Shown& a, const Shown& b) {
  double best = 255;
  for (int dy = -1; dy <= 1; dy++)
    for (int dx = -1; dx <= 1; dx++) {
      double sum = 0;
      for (int y = 1; y < 27; y++)
        for (int x = 1; x < 27; x++) sum += std::fabs(double(a.at(x + dx, y + dy)) - double(b.at(x, y)));
      best = std::min(best, sum / (26 * 26));
    }
  return best;
}

struct Point { double x, y; };
// A 2 and a 5 in two strokes (the bar apart), within a square of side 1.
const std::vector<std::vector<Point>> two  = {{{.15, .25}, {.3, .05}, {.6, .05}, {.7, .25}, {.6, .5}, {.15, .95}, {.8, .9}}};
const std::vector<std::vector<Point>> five = {{{.35, .05}, {.8, .05}},
                                              {{.2, .2}, {.2, .5}, {.55, .45}, {.75, .65}, {.6, .9}, {.15, .95}}};

double distance(Point p, Point a, Point b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  double t = ((p.x - a.x) * dx + (p.y - a.y) * dy) / (dx * dx + dy * dy);
  t = t < 0 ? 0 : t > 1 ? 1 : t;
  return std::hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

// Strokes as wide as a tenth of `size`, with edges as an ideal camera has them, in the given ink.
void draw(Picture& p, const std::vector<std::vector<Point>>& strokes, double left, double top, double size,
          const std::vector<int>& ink) {
  for (int y = 0; y < p.height; y++)
    for (int x = 0; x < p.width; x++) {
      const Point at = {(x + 0.5 - left) / size, (y + 0.5 - top) / size};
      double d = 9;
      for (const auto& stroke : strokes)
        for (size_t i = 0; i + 1 < stroke.size(); i++) d = std::min(d, distance(at, stroke[i], stroke[i + 1]));
      const double share = std::min(1.0, std::max(0.0, (0.05 - d) * size + 0.5));
      for (int c = 0; c < p.channels; c++)
        p.at(x, y)[c] = uint8_t(std::lround(p.at(x, y)[c] + share * (ink[size_t(c)] - p.at(x, y)[c])));
    }
}

Picture drawn(const std::vector<std::vector<Point>>& strokes, int side, int paper, int ink, double share = 0.6) {
  Picture p(side, side, 1, paper);
  draw(p, strokes, side * (1 - share) / 2, side * (1 - share) / 2, side * share, {ink});
  return p;
}

void add_noise(Picture& p, uint64_t seed, int most) {
  Draws random(seed);
  for (uint8_t& v : p.pixels) v = uint8_t(std::min(255, std::max(0, v + random.below(2 * most + 1) - most)));
}

// Light from one side, and darker corners.
void shade(Picture& p, double slope, double corners) {
  for (int y = 0; y < p.height; y++)
    for (int x = 0; x < p.width; x++) {
      const double u = 2.0 * x / p.width - 1, v = 2.0 * y / p.height - 1;
      for (int c = 0; c < p.channels; c++)
        p.at(x, y)[c] = uint8_t(std::min(255.0, p.at(x, y)[c] * (1 + slope * u - corners * (u * u + v * v) / 2)));
    }
}

}  // namespace

TEST_CASE("digit: a bar of the size that MNIST has is copied to the middle") {
  Picture p(40, 40, 1, 255);
  p.fill(3, 8, 10, 20, 0);
  const Shown s = show(p);
  CHECK(s.status == Status::ok);
  CHECK(s.seen == Seen::one);
  for (int y = 0; y < 28; y++)
    for (int x = 0; x < 28; x++) CHECK(s.at(x, y) == (x >= 9 && x < 19 && y >= 4 && y < 24 ? 255 : 0));
}

TEST_CASE("digit: the longest side becomes 20, smaller and larger; box chooses another") {
  for (int n : {5, 10, 40, 100}) {
    Picture p(3 * n, 2 * n, 1, 200);
    p.fill(n / 2, n / 2, 2 * n, n, 40);
    CHECK(show(p).box() == std::vector<int>{4, 23, 9, 18});
    CHECK(show(p).at(5, 10) == 255);
  }
  Preprocessing how = digit_kind();
  how.box = 12;
  Picture p(60, 60, 1, 0);
  p.fill(30, 20, 12, 24, 255);
  CHECK(show(p, how).box() == std::vector<int>{11, 16, 8, 19});
}

TEST_CASE("digit: the centre of mass is in the pixel right and below of the middle, the box inside") {
  Picture p(40, 40, 1, 255);                                 // an L: 20 high, 4 wide; foot 12 wide, 4 high
  p.fill(10, 10, 4, 20, 0);
  p.fill(14, 26, 8, 4, 0);
  const Shown s = show(p);
  double mass = 0, x = 0, y = 0;
  for (int v = 0; v < 28; v++)
    for (int u = 0; u < 28; u++) mass += double(s.at(u, v)), x += double(s.at(u, v)) * (u + 0.5), y += double(s.at(u, v)) * (v + 0.5);
  CHECK((x / mass >= 14 && x / mass < 15));
  CHECK((y / mass >= 14 && y / mass < 15));
  Picture foot(40, 40, 1, 255);                              // all its mass in one end, which would leave the picture
  foot.fill(5, 18, 20, 1, 0);
  foot.fill(5, 14, 4, 9, 0);
  CHECK(show(foot).box() == std::vector<int>{8, 27, 10, 18});
}

TEST_CASE("digit: scale, mean and std make the values") {
  Preprocessing how = digit_kind();
  how.scale   = 1.0f / 255;
  how.mean[0] = 0.5f;
  how.std[0]  = 0.25f;
  Picture p(40, 40, 1, 255);
  p.fill(10, 10, 10, 20, 0);
  CHECK(show(p, how).at(0, 0) == -2);
  CHECK(show(p, how).at(14, 14) == doctest::Approx(2).epsilon(1e-6));
}

TEST_CASE("digit: MNIST's look comes back as it is") {
  const Shown once = show(drawn(two, 200, 255, 0));          // looks like MNIST: 20 x 20, grey edges
  Picture p(28, 28, 1, 0);
  for (int i = 0; i < 28 * 28; i++) p.pixels[size_t(i)] = uint8_t(once.values[size_t(i)]);
  CHECK(difference(show(p), once) < 1.0);
}

TEST_CASE("digit: dark on light, light on dark and any place show the same") {
  const Shown want = show(drawn(two, 100, 255, 0));
  CHECK(want.seen == Seen::one);
  CHECK(show(drawn(two, 100, 0, 255)).values == want.values);
  for (int dx : {-15, -3, 8, 17}) {
    Picture moved(100, 100, 1, 255);
    draw(moved, two, 20 + dx, 20 - dx, 60, {0});
    CHECK(show(moved).values == want.values);
  }
  CHECK(difference(show(drawn(two, 100, 190, 90)), want) < 2);
}

TEST_CASE("digit: ink and paper of any colour show the same, gray, colour and alpha too") {
  const Shown want = show(drawn(two, 100, 255, 0));
  const std::vector<std::vector<int>> pairs[] = {{{240, 235, 220}, {30, 40, 150}}, {{250, 250, 250}, {240, 120, 30}},
                                                 {{20, 60, 30}, {230, 230, 210}},  {{180, 140, 100}, {200, 60, 90}}};
  for (const auto& pair : pairs) {
    Picture p(100, 100, 3, 0);
    for (int i = 0; i < 100 * 100; i++)
      for (size_t c = 0; c < 3; c++) p.pixels[size_t(i) * 3 + c] = uint8_t(pair[0][c]);
    draw(p, two, 20, 20, 60, pair[1]);
    const Shown s = show(p);
    CHECK(s.seen == Seen::one);
    CHECK(difference(s, want) < 2);
  }
  Picture clear(100, 100, 4, 0), gray(100, 100, 2, 0);       // black, transparent where there is no ink
  draw(clear, two, 20, 20, 60, {0, 0, 0, 255});
  draw(gray, two, 20, 20, 60, {0, 255});
  CHECK(difference(show(clear), want) < 0.5);
  CHECK(show(clear).values == show(gray).values);
}

TEST_CASE("digit: from 40 to 1500 pixels the same picture comes out") {
  const Shown want = show(drawn(two, 250, 230, 30));
  for (int side : {40, 57, 64, 65, 128, 129, 256, 257, 300, 600, 1001, 1500}) {
    CAPTURE(side);
    const Shown s = show(drawn(two, side, 230, 30));
    CHECK(s.seen == Seen::one);
    CHECK(difference(s, want) < (side < 100 ? 10 : 5));
  }
  CHECK(difference(show(drawn(two, 600, 230, 30, 0.15)), want) < 7);
}

TEST_CASE("digit: uneven light and noise change little") {
  const Shown want = show(drawn(two, 300, 200, 80));
  for (double slope : {-0.3, 0.0, 0.25})
    for (double corners : {0.0, 0.3}) {
      CAPTURE(slope);
      CAPTURE(corners);
      Picture p = drawn(two, 300, 200, 80);
      shade(p, slope, corners);
      add_noise(p, 3, 12);
      const Shown s = show(p);
      CHECK(s.seen == Seen::one);
      CHECK(difference(s, want) < 6);
      Picture light = drawn(two, 300, 60, 200);
      shade(light, slope, corners);
      CHECK(difference(show(light), want) < 6);
    }
}

TEST_CASE("digit: specks are dropped, the two strokes of one digit are kept") {
  Picture p = drawn(five, 100, 255, 0);
  const Shown want = show(p);
  CHECK(want.seen == Seen::one);
  CHECK(want.box()[3] - want.box()[2] == 19);
  p.fill(3, 4, 3, 3, 0);
  p.fill(90, 50, 4, 2, 0);
  CHECK(show(p).values == want.values);
}

TEST_CASE("digit: two digits are several, whatever lies between them") {
  for (int gap : {12, 30, 80}) {
    CAPTURE(gap);
    Picture p(200 + gap, 120, 1, 230);
    draw(p, two, 20, 20, 80, {40});
    draw(p, five, 90 + gap, 25, 75, {40});
    CHECK(show(p).seen == Seen::several);
    Picture stacked(120, 220 + gap, 1, 230);
    draw(stacked, two, 20, 10, 80, {40});
    draw(stacked, two, 20, 110 + gap, 80, {40});
    CHECK(show(stacked).seen == Seen::several);
  }
}

TEST_CASE("digit: nothing to see is blank, nothing clear is noise") {
  for (int channels : {1, 2, 3, 4})
    for (int value : {0, 128, 255}) CHECK(show(Picture(50, 30, channels, value)).seen == Seen::blank);
  Picture page(200, 200, 1, 200);
  add_noise(page, 1, 6);
  CHECK(show(page).seen == Seen::blank);
  shade(page, 0.3, 0.2);
  CHECK(show(page).seen != Seen::one);
  for (int side : {20, 60, 200, 500}) {
    Picture noise(side, side, 3, 128);
    add_noise(noise, 7, 127);
    CHECK(show(noise).seen != Seen::one);
  }
  for (real v : show(page).values) CHECK((v >= 0 && v <= 255));
}

TEST_CASE("digit: any size and any number of channels is answered") {
  const int sizes[][2] = {{1, 1}, {1, 2}, {2, 1}, {1, 16384}, {16384, 1}, {3, 7}, {16384, 3}, {65, 1}, {5, 300}, {257, 255}};
  for (const auto& size : sizes)
    for (int channels : {1, 2, 3, 4}) {
      CAPTURE(size[0]);
      CAPTURE(size[1]);
      Picture p(size[0], size[1], channels, 100);
      CHECK(show(p).status == Status::ok);
      add_noise(p, 5, 100);
      const Shown s = show(p);
      CHECK(s.status == Status::ok);
      for (real v : s.values) CHECK((v >= 0 && v <= 255));
    }
}

TEST_CASE("digit: random pictures of every kind stay within their memory and their values") {
  Draws random(11);
  for (int k = 0; k < 300; k++) {
    Picture p(1 + random.below(90), 1 + random.below(90), 1 + random.below(4), random.below(256));
    for (int r = random.below(9); r > 0; r--) {
      const int x = random.below(p.width), y = random.below(p.height);
      p.fill(x, y, 1 + random.below(p.width - x), 1 + random.below(p.height - y), random.below(256));
    }
    if (random.chance(40)) add_noise(p, uint64_t(k), 1 + random.below(200));
    Preprocessing how = digit_kind();
    how.side     = uint16_t(64 + random.below(193));
    how.box      = uint8_t(8 + random.below(21));
    how.contrast = uint8_t(random.below(256));
    const Shown s = show(p, how);
    CHECK(s.status == Status::ok);
    for (real v : s.values) CHECK((v >= 0 && v <= 255));
  }
}

TEST_CASE("digit: scratch is below 300 KiB, grows with the size, and one byte less is refused") {
  const Preprocessing how = digit_kind();
  CHECK(prepare_bytes(how, 16384, 16384) < 300 * 1024);
  CHECK(prepare_bytes(Preprocessing(), 600, 600) == 0);
  for (int n = 2; n < 1000; n++) {
    CHECK(prepare_bytes(how, n, 100) >= prepare_bytes(how, n - 1, 100));
    CHECK(prepare_bytes(how, n, n) >= prepare_bytes(how, n - 1, n));
  }
  const Picture p(60, 60, 1, 0);
  real to[28 * 28];
  Guarded less(prepare_bytes(how, 60, 60) - 1);
  CHECK(preprocess({p.pixels.data(), 60, 60, 1}, how, 28, 28, 1, to, less.arena()) == Status::out_of_memory);
  CHECK(preprocess({p.pixels.data(), 60, 60, 1}, how, 28, 28, 1, to) == Status::out_of_memory);
  CHECK(preprocess({p.pixels.data(), 60, 60, 5}, how, 28, 28, 1, to, less.arena()) == Status::bad_image);
}

TEST_CASE("digit: parameters that do not fit are refused") {
  const Picture p(60, 60, 1, 0);
  CHECK(show(p, digit_kind(), 2).status == Status::bad_argument);
  for (int k = 0; k < 5; k++) {
    Preprocessing how = digit_kind();
    if (k == 0) how.box = 29;
    if (k == 1) how.box = 7;
    if (k == 2) how.speck = 0;
    if (k == 3) how.side = 257;
    if (k == 4) how.clarity = 101;
    CHECK(show(p, how).status == Status::bad_argument);
  }
}

namespace {
// A model of a digit: one layer, digit preprocessing.
struct DigitModel {
  Net net;
  Preprocessing how = digit_kind();
  ModelExtras   extras;
  nnl_file::Bytes file;
  DigitModel() {
    Model& m = net.model;
    m.output("y", m.chain(m.input("image", {28, 28, 1}), Flatten{}, Linear{0, 10}));
    CHECK(m.finish(Seed{1}) == Status::ok);
    CHECK(net.materialise() == Status::ok);
    how.side     = 200;
    how.contrast = 20;
    extras.preprocessing = &how;
    CHECK(save(m, nnl_file::sink_to(file), &extras) == Status::ok);
  }
};
}  // namespace

TEST_CASE("digit: the kind and its parameters travel with the model; reserved bytes are checked") {
  const DigitModel d;
  const nnl_file::Place prep = nnl_file::find(d.file, 0x20);
  CHECK(nnl_file::get(d.file, prep.offset + 4, 2) == 2);     // the kind
  Guarded memory(1 << 16);
  Arena arena = memory.arena();
  Model m;
  nnl_file::Block block(d.file);
  REQUIRE(m.load(block.data(), block.size(), arena) == Status::ok);
  const Preprocessing& p = *m.extras()->preprocessing;
  CHECK(p.kind == PreprocessingKind::digit);
  CHECK((p.box == 20 && p.speck == 10 && p.contrast == 20 && p.clarity == 82 && p.side == 200));
  nnl_file::Bytes again;
  CHECK(save(m, nnl_file::sink_to(again)) == Status::ok);
  CHECK(again == d.file);
  for (size_t at = 0; at < 128; at++) {
    if ((at >= 20 && at < 56) || (at >= 57 && at < 61)) continue;              // numbers with a wide range
    CAPTURE(at);
    nnl_file::Bytes bad = d.file;
    bad[prep.offset + at] ^= 0x80;
    nnl_file::repair(bad);
    nnl_file::Block damaged(bad);
    Arena fresh = memory.arena();
    Model none;
    CHECK(none.load(damaged.data(), damaged.size(), fresh) == Status::bad_format);
  }
}

TEST_CASE("digit: a session plans the scratch for max_image and says what it saw") {
  const DigitModel d;
  Guarded memory(1 << 16);
  Arena arena = memory.arena();
  Model m;
  nnl_file::Block block(d.file);
  REQUIRE(m.load(block.data(), block.size(), arena) == Status::ok);
  SessionOptions o;
  PlacedSession none(m, o);
  o.batch     = 2;
  o.max_image = {120, 110};
  PlacedSession s(m, o);
  REQUIRE(s.status == Status::ok);
  CHECK(s.used == s.plan.total);
  CHECK(s.plan.scratch >= prepare_bytes(d.how, 110, 120));
  const Picture large = drawn(two, 100, 255, 0), blank(110, 120, 3, 9), wide(121, 110, 1, 0);
  const auto image = [](const Picture& p) { return Image{p.pixels.data(), p.width, p.height, p.channels}; };
  CHECK(s.it.set_image(image(large), 0) == Status::ok);
  CHECK(s.it.seen() == Seen::one);
  CHECK(s.it.set_image(image(blank), 1) == Status::ok);
  CHECK(s.it.seen() == Seen::blank);
  const Shown want = show(large, d.how);
  for (size_t i = 0; i < want.values.size(); i++) CHECK(s.it.input().data[i] == want.values[i]);
  CHECK(s.it.forward(2) == Status::ok);
  CHECK(s.it.set_image(image(Picture(300, 300, 1, 0))) == Status::limit_exceeded);
  CHECK(s.it.problem().status == Status::limit_exceeded);
  CHECK(std::string(s.it.problem().what).find("max_image") != std::string::npos);
  CHECK(none.it.set_image(image(large)) == Status::limit_exceeded);
  CHECK(s.it.set_image(Image{}) == Status::bad_image);
  CHECK(s.memory.intact());
}
