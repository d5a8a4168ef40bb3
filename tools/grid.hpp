// A sheet of pictures with captions, as PNG.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "picture.hpp"

enum class Ink { black, gray, green, red };

// A picture in three channels, brought to the size of a tile's box.
struct Tile {
  Picture picture;
  std::string caption;
  Ink ink = Ink::black;

  Tile(const Picture& of, const std::string& caption, Ink ink);
};

const std::size_t most_tiles = 10000;

// The tiles in rows, captions above: 5 in a row, more when there are many.
Picture draw_grid(const std::vector<Tile>& tiles);

// The grid as a PNG file, which a chunk of text behind the header names ours.
Bytes encode_grid(const std::vector<Tile>& tiles);
inline constexpr FileKind grid_kind = {"grid", std::string_view("\0\0\0\017tEXtSoftware\0nnlite", 4 + 4 + 15),
                                       8 + 25};
