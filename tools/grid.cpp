#include "grid.hpp"

#include <algorithm>
#include <cstdint>

#include "font.hpp"

namespace {

const int box = 112, margin = 10, caption_height = 24, scale = 2;  // pixels; `scale` is the font's

void put(Picture& sheet, int x, int y, const std::uint8_t* rgb) {
  if (x < 0 || y < 0 || x >= sheet.width || y >= sheet.height) return;
  std::copy(rgb, rgb + 3, sheet.pixels.begin() + 3 * (static_cast<std::ptrdiff_t>(y) * sheet.width + x));
}

void draw_text(Picture& sheet, int x, int y, const std::string& text, const std::uint8_t* rgb) {
  for (char c : text) {
    const std::uint8_t* rows = glyphs[c >= 32 && c < 127 ? c - 32 : '?' - 32];
    for (int v = 0; v < glyph_height * scale; ++v)
      for (int u = 0; u < glyph_width * scale; ++u)
        if (rows[v / scale] >> (glyph_width - 1 - u / scale) & 1) put(sheet, x + u, y + v, rgb);
    x += (glyph_width + 1) * scale;
  }
}

// Nearest pixel when enlarging, so that pixels stay squares; the mean of the covered ones when shrinking.
void draw_picture(Picture& sheet, int left, int top, const Picture& p) {
  const int longest = std::max(p.width, p.height);
  const int w = std::max(1, p.width * box / longest), h = std::max(1, p.height * box / longest);
  left += (box - w) / 2;
  top += (box - h) / 2;
  for (int y = 0; y < h; ++y)
    for (int x = 0; x < w; ++x) {
      const int x0 = x * p.width / w, x1 = std::max(x0 + 1, (x + 1) * p.width / w);
      const int y0 = y * p.height / h, y1 = std::max(y0 + 1, (y + 1) * p.height / h);
      std::uint8_t rgb[3];
      for (int c = 0; c < 3; ++c) {
        std::uint64_t sum = 0;
        const int channel = p.channels == 3 ? c : 0;
        for (int v = y0; v < y1; ++v)
          for (int u = x0; u < x1; ++u)
            sum += p.pixels[static_cast<std::size_t>((v * p.width + u) * p.channels + channel)];
        rgb[c] = static_cast<std::uint8_t>(sum / static_cast<std::uint64_t>((x1 - x0) * (y1 - y0)));
      }
      put(sheet, left + x, top + y, rgb);
    }
}

}  // namespace

Picture draw_grid(const std::vector<Tile>& tiles, int columns) {
  static const std::uint8_t inks[4][3] = {{31, 41, 55}, {140, 148, 160}, {21, 128, 61}, {200, 30, 30}};
  const int count = static_cast<int>(tiles.size());
  columns = std::max(1, std::min(columns, count));
  const int rows = (count + columns - 1) / columns;
  Picture sheet;
  sheet.width = margin + columns * (box + margin);
  sheet.height = margin + rows * (caption_height + box + margin);
  sheet.channels = 3;
  sheet.pixels.assign(static_cast<std::size_t>(sheet.width * sheet.height * 3), 250);
  const std::size_t fits = static_cast<std::size_t>(box / ((glyph_width + 1) * scale));
  for (int i = 0; i < count; ++i) {
    const Tile& tile = tiles[static_cast<std::size_t>(i)];
    const int left = margin + i % columns * (box + margin);
    const int top = margin + i / columns * (caption_height + box + margin);
    const std::string text =
        tile.caption.size() <= fits ? tile.caption : tile.caption.substr(0, fits - 1) + "~";
    const int length = static_cast<int>(text.size()) * (glyph_width + 1) * scale - scale;
    draw_text(sheet, left + (box - length) / 2, top + 4, text, inks[static_cast<int>(tile.ink)]);
    draw_picture(sheet, left, top + caption_height, tile.picture);
  }
  return sheet;
}
