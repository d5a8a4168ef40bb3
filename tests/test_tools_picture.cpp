#include <doctest/doctest.h>
#include <zlib.h>

#include <string>

#include "failure.hpp"
#include "grid.hpp"
#include "picture.hpp"

namespace {

Bytes bytes_of(const std::string& text) { return Bytes(text.begin(), text.end()); }

std::string failure_of(const Bytes& bytes) {
  try {
    decode_picture(bytes, "x");
  } catch (const Failure& failure) { return one_line(failure); }
  return "";
}

Picture ramp(int width, int height, int channels) {
  Picture p{width, height, channels, {}};
  for (int i = 0; i < width * height * channels; ++i) p.pixels.push_back(static_cast<std::uint8_t>(i * 7));
  return p;
}

// A 2 x 1 BMP of 24 bits: one red and one blue pixel.
Bytes small_bmp() {
  Bytes b(54 + 8, 0);
  b[0] = 'B', b[1] = 'M', b[2] = 62, b[10] = 54, b[14] = 40, b[18] = 2, b[22] = 1, b[26] = 1, b[28] = 24;
  b[56] = 255, b[57] = 255;  // blue, green, red
  return b;
}

}  // namespace

TEST_CASE("picture: PNG comes back as it was written") {
  for (int channels : {1, 3}) {
    const Picture p = ramp(13, 9, channels);
    const Picture q = decode_picture(encode_png(p), "x");
    CHECK(q.width == 13);
    CHECK(q.height == 9);
    CHECK(q.channels == channels);
    CHECK(q.pixels == p.pixels);
  }
}

TEST_CASE("picture: every truncation and every flipped bit of a PNG is refused") {
  const Bytes png = encode_png(ramp(5, 4, 1));
  for (std::size_t n = 0; n < png.size(); ++n)
    CHECK(!failure_of(Bytes(png.begin(), png.begin() + static_cast<std::ptrdiff_t>(n))).empty());
  for (std::size_t i = 0; i < png.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      Bytes bad = png;
      bad[i] = static_cast<std::uint8_t>(bad[i] ^ 1 << bit);
      CHECK(!failure_of(bad).empty());
    }
}

TEST_CASE("picture: sides of 0 and over 16384 are refused before decoding") {
  CHECK(failure_of(bytes_of("P5 0 4 255\n")) == "a picture of 0 x 4 pixels: x: give one that has pixels");
  CHECK(failure_of(bytes_of("P5 100000 100000 255\n")) ==
        "a picture of 100000 x 100000 pixels: x: make it smaller: 16384 pixels a side is the most");
  Bytes bmp = small_bmp();
  bmp[20] = 2;  // 131074 pixels wide
  CHECK(failure_of(bmp).find("131074 x 1") != std::string::npos);
}

TEST_CASE("picture: BMP is read and its missing end noticed") {
  const Picture p = decode_picture(small_bmp(), "x");
  CHECK(p.pixels == Bytes{255, 0, 0, 0, 0, 255});
  CHECK(p.width == 2);
  CHECK(p.channels == 3);
  Bytes cut = small_bmp();
  cut.pop_back();
  CHECK(failure_of(cut).rfind("truncated BMP picture", 0) == 0);
}

TEST_CASE("picture: binary PNM of 1, 8 and 16 bits, comments and a maximum other than 255") {
  CHECK(decode_picture(bytes_of("P5 # a comment\n2 1\n15\n\x0f\x05"), "x").pixels == Bytes{255, 85});
  CHECK(decode_picture(bytes_of(std::string("P4 3 1\n\xa0", 8)), "x").pixels == Bytes{0, 255, 0});
  CHECK(decode_picture(bytes_of(std::string("P5 1 1 65535\n\x80\x00", 15)), "x").pixels == Bytes{128});
  CHECK(decode_picture(bytes_of("P6 1 1 255\nabc"), "x").pixels == Bytes{'a', 'b', 'c'});
  CHECK(failure_of(bytes_of("P6 1 1 255\nab")).rfind("truncated PNM picture", 0) == 0);
  CHECK(failure_of(bytes_of("P5 x")).rfind("damaged PNM picture", 0) == 0);
}

TEST_CASE("picture: the orientation of EXIF is honoured") {
  // Stored: a b     Seen, by orientation:
  //         c d
  //         e f
  const Picture stored{2, 3, 1, {'a', 'b', 'c', 'd', 'e', 'f'}};
  const char* const seen[] = {"abcdef", "badcfe", "fedcba", "efcdab", "acebdf", "ecafdb", "fdbeca", "bdface"};
  for (std::uint8_t orientation = 1; orientation <= 8; ++orientation) {
    Bytes png = encode_png(stored);
    Bytes chunk = {'e', 'X', 'I',  'f', 'M', 'M', 0, 42, 0, 0, 0,           8, 0,
                   1,   1,   0x12, 0,   3,   0,   0, 0,  1, 0, orientation, 0, 0};
    const unsigned long crc = crc32(0, chunk.data(), static_cast<unsigned>(chunk.size()));
    for (int shift = 24; shift >= 0; shift -= 8) chunk.push_back(static_cast<std::uint8_t>(crc >> shift));
    chunk.insert(chunk.begin(), {0, 0, 0, static_cast<std::uint8_t>(chunk.size() - 8)});
    png.insert(png.begin() + 33, chunk.begin(), chunk.end());  // after the signature and IHDR
    const Picture p = decode_picture(png, "x");
    CHECK(p.width == (orientation < 5 ? 2 : 3));
    CHECK(std::string(p.pixels.begin(), p.pixels.end()) == seen[orientation - 1]);
  }
}

TEST_CASE("picture: a JPEG with a table of more codes than there are is refused before it is decoded") {
  Bytes jpeg = bytes_of("\xff\xd8\xff\xc4");
  jpeg.insert(jpeg.end(), {1, 21, 0});  // the length of the segment, the number of the table
  jpeg.insert(jpeg.end(), 2, 129);      // codes of one bit and of two
  jpeg.resize(jpeg.size() + 14 + 258);
  jpeg.insert(jpeg.end(), {0xff, 0xd9});
  CHECK(failure_of(jpeg).find("damaged JPEG picture: x, byte 6:") == 0);
}

TEST_CASE("picture: text is not a picture") {
  CHECK(failure_of(bytes_of("hello\n")) ==
        "not a PNG, JPEG, BMP or binary PNM picture: x: convert it to PNG");
}

TEST_CASE("grid: size and colour of a captioned tile") {
  const Picture sheet =
      draw_grid({{ramp(4, 4, 1), "7 (7)", Ink::green}, {ramp(400, 20, 3), "1 (7)", Ink::red}});
  CHECK(sheet.width == 10 + 2 * 122);
  CHECK(sheet.channels == 3);
  CHECK(sheet.pixels.size() == static_cast<std::size_t>(sheet.width * sheet.height * 3));
  int green = 0, red = 0;
  for (std::size_t i = 0; i < sheet.pixels.size(); i += 3) {
    green += sheet.pixels[i] == 21 && sheet.pixels[i + 1] == 128;
    red += sheet.pixels[i] == 200 && sheet.pixels[i + 1] == 30;
  }
  CHECK(green > 50);
  CHECK(red > 50);
}

TEST_CASE("grid: five in a row, or a square of them; a long caption is not cut off") {
  const auto width = [](std::size_t count) {
    return draw_grid(std::vector<Tile>(count, Tile(ramp(4, 4, 1), "", Ink::black))).width;
  };
  CHECK(width(20) == 10 + 5 * 122);
  CHECK(width(240) == 10 + 16 * 122);
  const auto dark = [](const char* caption) {
    const Picture sheet = draw_grid({Tile(ramp(1, 1, 1), caption, Ink::red)});
    int count = 0;
    for (std::size_t i = 0; i < sheet.pixels.size(); i += 3)
      count += sheet.pixels[i] == 200 && sheet.pixels[i + 1] == 30;
    return count;
  };
  CHECK(dark("triangle (star)") == (dark("triang") + dark("le (st") + dark("ar)")) / 4);  // small letters
}
