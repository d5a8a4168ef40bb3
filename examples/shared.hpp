// What examples share: aligned memory, and the reader of binary PGM (gray) and PPM (colour) files, which are
// easy enough to parse here. Include it after nnlite.hpp.
#pragma once

#include <ctype.h>
#include <stdio.h>

#include <vector>

// An arena of that many bytes, aligned to 64.
struct Memory {
  std::vector<unsigned char> bytes;
  nnlite::Arena arena;
  explicit Memory(size_t n) : bytes(n + 64) {
    arena = nnlite::Arena(bytes.data() + 64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64, n);
  }
};

// The next number of a header, behind blanks and comments; -1 when there is none, or it is over 16384.
inline int read_number(FILE* file) {
  int c = fgetc(file), number = 0;
  while (isspace(c) || c == '#') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = fgetc(file);
    c = fgetc(file);
  }
  if (!isdigit(c)) return -1;
  for (; isdigit(c) && number <= 16384; c = fgetc(file)) number = 10 * number + (c - '0');
  return number <= 16384 && isspace(c) ? number : -1;        // the one blank behind the last number is gone
}

// "P5" or "P6", width, height, largest value, then the pixels. Empty when it is anything else.
inline std::vector<uint8_t> read_pnm(const char* path, nnlite::Image& image) {
  std::vector<uint8_t> pixels;
  FILE* file = fopen(path, "rb");
  if (!file) return pixels;
  const int p = fgetc(file), kind = fgetc(file);
  image.width    = read_number(file);
  image.height   = read_number(file);
  image.channels = kind == '6' ? 3 : 1;
  const int most = read_number(file);
  const bool right = p == 'P' && (kind == '5' || kind == '6') && most > 0 && most < 256;
  if (right && image.width > 0 && image.height > 0) {
    const size_t size = static_cast<size_t>(image.width) * static_cast<size_t>(image.height * image.channels);
    pixels.resize(size);
    if (fread(pixels.data(), 1, size, file) != size) pixels.clear();
    for (uint8_t& v : pixels) v = static_cast<uint8_t>(v < most ? v * 255 / most : 255);
  }
  fclose(file);
  image.pixels = pixels.data();
  return pixels;
}
