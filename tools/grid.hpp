// A sheet of pictures with captions, as PNG.
#pragma once

#include <string>
#include <vector>

#include "picture.hpp"

enum class Ink { black, gray, green, red };

struct Tile {
  Picture picture;
  std::string caption;
  Ink ink = Ink::black;
};

// The tiles in rows of `columns`, each picture brought to the same box, its caption above it.
Picture draw_grid(const std::vector<Tile>& tiles, int columns);
