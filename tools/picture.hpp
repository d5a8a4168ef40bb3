// Pictures from files: PNG, JPEG, BMP and binary PNM, as 8-bit gray or RGB.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "file.hpp"

// Rows from the top, H x W x C, C = 1 (gray) or 3 (red, green, blue).
struct Picture {
  int width = 0;
  int height = 0;
  int channels = 1;
  std::vector<std::uint8_t> pixels;
};

const int largest_side = 16384;

// Reads a picture as a person sees it: EXIF orientation applied, transparency laid over white, 16 bits and
// palettes brought to 8 bits. Fails, before anything is decoded, when a side is 0 or over `largest_side`, the
// file is cut short, or a checksum in it is wrong.
Picture read_picture(const std::string& path);

// Reads a picture for work(picture). All threads that do so stay under one bound of memory together.
void with_picture(const std::string& path, const std::function<void(const Picture&)>& work);

// The same from bytes in memory; `name` is for messages.
Picture decode_picture(const Bytes& bytes, const std::string& name);

// Does the name end as a picture's does (.png .jpg .jpeg .bmp .pbm .pgm .ppm .pnm)?
bool named_as_picture(const std::string& path);

// PNG bytes of a picture; effort 1 (fast) to 9 (small).
Bytes encode_png(const Picture& picture, int effort = 4);
