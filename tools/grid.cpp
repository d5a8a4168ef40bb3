#include "grid.hpp"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "font.hpp"

namespace {

const int box = 112, margin = 10, caption_height = 24;  // pixels

void put(Picture& sheet, int x, int y, const std::uint8_t* rgb) {
  if (x < 0 || y < 0 || x >= sheet.width || y >= sheet.height) return;
  std::copy(rgb, rgb + 3, sheet.pixels.begin() + 3 * (static_cast<std::ptrdiff_t>(y) * sheet.width + x));
}

// Around the middle, `scale` pixels for one of the font.
void draw_text(Picture& sheet, int middle, int y, const std::string& text, int scale,
               const std::uint8_t* rgb) {
  const int step = (glyph_width + 1) * scale;
  int x = middle - (static_cast<int>(text.size()) * step - scale) / 2;
  for (char c : text) {
    const std::uint8_t* rows = glyphs[c >= 32 && c < 127 ? c - 32 : '?' - 32];
    for (int v = 0; v < glyph_height * scale; ++v)
      for (int u = 0; u < glyph_width * scale; ++u)
        if (rows[v / scale] >> (glyph_width - 1 - u / scale) & 1) put(sheet, x + u, y + v, rgb);
    x += step;
  }
}

// Small letters where large ones have no room, and a cut where they have none either.
void draw_caption(Picture& sheet, int middle, int y, const std::string& text, const std::uint8_t* rgb) {
  const std::size_t small = box / (glyph_width + 1);
  if (text.size() <= small / 2) draw_text(sheet, middle, y, text, 2, rgb);
  else
    draw_text(sheet, middle, y + glyph_height / 2,
              text.size() <= small ? text : text.substr(0, small - 1) + "~", 1, rgb);
}

}  // namespace

// Nearest pixel when enlarging, so that pixels stay squares; the mean of the covered ones when shrinking.
Tile::Tile(const Picture& p, const std::string& text, Ink colour) : caption(text), ink(colour) {
  const int longest = std::max(p.width, p.height);
  const int w = std::max(1, p.width * box / longest), h = std::max(1, p.height * box / longest);
  picture.width = w;
  picture.height = h;
  picture.channels = 3;
  for (int y = 0; y < h; ++y)
    for (int x = 0; x < w; ++x) {
      const int x0 = x * p.width / w, x1 = std::max(x0 + 1, (x + 1) * p.width / w);
      const int y0 = y * p.height / h, y1 = std::max(y0 + 1, (y + 1) * p.height / h);
      for (int c = 0; c < 3; ++c) {
        std::uint64_t sum = 0;
        const int channel = p.channels == 3 ? c : 0;
        for (int v = y0; v < y1; ++v)
          for (int u = x0; u < x1; ++u)
            sum += p.pixels[static_cast<std::size_t>((v * p.width + u) * p.channels + channel)];
        picture.pixels.push_back(
            static_cast<std::uint8_t>(sum / static_cast<std::uint64_t>((x1 - x0) * (y1 - y0))));
      }
    }
}

Picture draw_grid(const std::vector<Tile>& tiles) {
  static const std::uint8_t inks[4][3] = {{31, 41, 55}, {140, 148, 160}, {21, 128, 61}, {200, 30, 30}};
  const int count = static_cast<int>(tiles.size());
  const int square = static_cast<int>(std::ceil(std::sqrt(static_cast<double>(count))));
  const int columns = std::max(1, std::min(std::max(5, square), count));
  const int rows = (count + columns - 1) / columns;
  Picture sheet;
  sheet.width = margin + columns * (box + margin);
  sheet.height = margin + rows * (caption_height + box + margin);
  sheet.channels = 3;
  sheet.pixels.assign(static_cast<std::size_t>(sheet.width) * static_cast<std::size_t>(sheet.height) * 3,
                      250);
  for (int i = 0; i < count; ++i) {
    const Tile& tile = tiles[static_cast<std::size_t>(i)];
    const Picture& p = tile.picture;
    const int left = margin + i % columns * (box + margin);
    const int top = margin + i / columns * (caption_height + box + margin);
    draw_caption(sheet, left + box / 2, top + 4, tile.caption, inks[static_cast<int>(tile.ink)]);
    for (int y = 0; y < p.height; ++y)
      for (int x = 0; x < p.width; ++x)
        put(sheet, left + (box - p.width) / 2 + x, top + caption_height + (box - p.height) / 2 + y,
            p.pixels.data() + 3 * (y * p.width + x));
  }
  return sheet;
}

Bytes encode_grid(const std::vector<Tile>& tiles) {
  Bytes png = encode_png(draw_grid(tiles));
  Bytes chunk(grid_kind.mark.begin(), grid_kind.mark.end());
  const uLong sum = crc32(0, chunk.data() + 4, static_cast<uInt>(chunk.size()) - 4);
  for (int shift = 24; shift >= 0; shift -= 8) chunk.push_back(static_cast<std::uint8_t>(sum >> shift));
  png.insert(png.begin() + grid_kind.at, chunk.begin(), chunk.end());
  return png;
}
