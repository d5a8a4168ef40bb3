// S18: seeing pixels. `predict --show` draws a picture as the model gets it: every character on the screen is
// checked against the pixel that it stands for. The same picture, four times as large, is drawn the same.
#include <algorithm>
#include <string>

#include "file.hpp"
#include "picture.hpp"
#include "system.hpp"

namespace {
// A digit-like picture of all grays from 0 to 255: a ring on a slope.
Picture ring() {
  Picture picture = {28, 28, 1, std::vector<std::uint8_t>(28 * 28)};
  for (int y = 0; y < 28; y++)
    for (int x = 0; x < 28; x++) {
      const int r2 = (2 * x - 27) * (2 * x - 27) + (2 * y - 27) * (2 * y - 27);
      const bool ink = r2 > 196 && r2 < 484;
      picture.pixels[size_t(y * 28 + x)] = static_cast<std::uint8_t>(ink ? 255 - x : (x + y) * 2);
    }
  picture.pixels[14 * 28 + 2] = 255;  // with 0 in the corner no shade is halfway between two of ten
  return picture;
}

Picture enlarged(const Picture& from, int times) {
  Picture to = {from.width * times, from.height * times, 1, {}};
  for (int y = 0; y < to.height; y++)
    for (int x = 0; x < to.width; x++)
      to.pixels.push_back(from.pixels[size_t(y / times * from.width + x / times)]);
  return to;
}

// What predict --show prints, line by line.
std::vector<std::string> shown(const Picture& picture) {
  const std::string path = NNLITE_SYSTEMS_OUT "/s18.png";
  const Bytes png        = encode_png(picture);
  write_file(path, png.data(), png.size());
  const std::string command = "'" NNLITE_PROGRAM "' predict models/lenet.nnl '" + path + "' --show";
  std::FILE* pipe           = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::vector<std::string> lines(1);
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
    if (c == '\n') lines.emplace_back();
    else lines.back() += static_cast<char>(c);
  }
  REQUIRE(pclose(pipe) == 0);
  lines.pop_back();
  return lines;
}
}  // namespace

TEST_CASE("S18: predict --show draws the pixels that the model gets") {
  const Picture picture                = ring();
  const std::vector<std::string> lines = shown(picture);
  for (const std::string& line : lines) std::printf("%s\n", line.c_str());
  REQUIRE(lines.size() == 29);  // the last is the answer
  const auto range = std::minmax_element(picture.pixels.begin(), picture.pixels.end());
  const int low = *range.first, span = *range.second - low;
  int wrong = 0;
  for (size_t i = 0; i < 28 * 28; i++) {
    const int shade  = (18 * (picture.pixels[i] - low) + span) / (2 * span);  // of ten, rounded
    const char ink   = " .:-=+*#%@"[shade];
    const auto& line = lines[i / 28];
    wrong += line.size() != 56 || line[i % 28 * 2] != ink || line[i % 28 * 2 + 1] != ink;
  }
  std::printf("%d of 784 pixels are drawn otherwise\n", wrong);
  CHECK(wrong == 0);
  const std::vector<std::string> large = shown(enlarged(picture, 4));
  REQUIRE(large.size() == 29);
  for (size_t y = 0; y < 28; y++) CHECK(large[y] == lines[y]);
}
