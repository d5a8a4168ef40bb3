#include "picture.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <mutex>

#include "failure.hpp"
#include "stb_memory.hpp"

#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_WRITE_NO_STDIO
#include <stb_image.h>
#include <stb_image_write.h>

namespace {

const char* const again = "copy or make the picture again";
const std::size_t most_decoding = std::size_t{208} << 20;  // bytes

// What decoding takes: the largest single piece of memory, and all of them at the same time.
struct Cost {
  int orientation = 1;  // as EXIF numbers it
  std::size_t piece = 0, total = 0;
};

// What threads that read pictures take together. One of them at a time, which holds `next`, takes its share in two
// parts: for the file, then for what decoding it costs. The others only give back, so it gets what it waits for.
struct Gate {
  std::mutex mutex, next;
  std::condition_variable changed;
  std::size_t used = 0;
};

Gate& the_gate() {
  static Gate gate;
  return gate;
}

struct Share {
  Gate& gate = the_gate();
  std::size_t bytes = 0;

  Share() = default;
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;
  ~Share() {
    const std::lock_guard<std::mutex> lock(gate.mutex);
    gate.used -= bytes;
    gate.changed.notify_all();
  }
  void take(std::size_t more) {
    std::unique_lock<std::mutex> lock(gate.mutex);
    gate.changed.wait(lock, [&] { return gate.used == bytes || gate.used + more <= most_decoding; });
    gate.used += more;
    bytes += more;
  }
};

// Bytes of one file with big- and little-endian reads that fail by name instead of running over the end.
struct Reader {
  const Bytes& bytes;
  const std::string& name;
  const char* format;

  [[noreturn]] void bad(const char* problem, std::size_t at) const {
    fail(fmt::format("{} {}", problem, format), fmt::format("{}, byte {}", name, at), again);
  }
  void need(std::size_t at, std::size_t n) const {
    if (at > bytes.size() || n > bytes.size() - at) bad("truncated", bytes.size());
  }
  std::uint32_t be(std::size_t at, int n) const {
    need(at, static_cast<std::size_t>(n));
    std::uint32_t value = 0;
    for (int i = 0; i < n; ++i) value = value << 8 | bytes[at + static_cast<std::size_t>(i)];
    return value;
  }
  std::uint32_t le(std::size_t at, int n) const {
    need(at, static_cast<std::size_t>(n));
    std::uint32_t value = 0;
    for (int i = n; i-- > 0;) value = value << 8 | bytes[at + static_cast<std::size_t>(i)];
    return value;
  }
};

void check_size(std::uint32_t width, std::uint32_t height, const std::string& name) {
  const std::uint32_t most = static_cast<std::uint32_t>(largest_side);
  if (width == 0 || height == 0)
    fail(fmt::format("a picture of {} x {} pixels", width, height), name, "give one that has pixels");
  if (width > most || height > most)
    fail(fmt::format("a picture of {} x {} pixels", width, height), name,
         fmt::format("make it smaller: {} pixels a side is the most", largest_side));
}

void check_cost(const Cost& cost, std::size_t file, const std::string& name) {
  if (cost.total + file > most_decoding)
    fail(fmt::format("a picture that takes {} MB to read", (cost.total + file) >> 20), name,
         fmt::format("make it smaller: {} MB is the most", most_decoding >> 20));
}

// The orientation (1..8) in a TIFF block, 1 where there is none. EXIF 2.32, tag 0x0112.
int tiff_orientation(const Bytes& bytes, std::size_t at, std::size_t size) {
  const std::string name;
  const Bytes block(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                    bytes.begin() + static_cast<std::ptrdiff_t>(at + size));
  const Reader r{block, name, "EXIF"};
  if (size < 8) return 1;
  const bool little = block[0] == 'I' && block[1] == 'I';
  if (!little && !(block[0] == 'M' && block[1] == 'M')) return 1;
  const auto value = [&](std::size_t where, int n) { return little ? r.le(where, n) : r.be(where, n); };
  const std::size_t directory = value(4, 4);
  if (directory > size - 2) return 1;
  const std::size_t entries = value(directory, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (entry > size || size - entry < 12) return 1;
    if (value(entry, 2) != 0x0112) continue;
    const std::uint32_t orientation = value(entry + 8, 2);
    return orientation >= 1 && orientation <= 8 ? static_cast<int>(orientation) : 1;
  }
  return 1;
}

// stb_image unpacks all rows, then makes pixels of them, from a palette once more.
Cost png_cost(const Reader& r, std::size_t at) {
  static const std::size_t channels[7] = {1, 0, 3, 1, 2, 0, 4};
  const std::size_t w = r.be(at, 4), h = r.be(at + 4, 4), depth = r.be(at + 8, 1), colour = r.be(at + 9, 1);
  if (depth > 16 || colour > 6 || channels[colour] == 0) r.bad("damaged", at);
  const std::size_t rows = h * ((w * channels[colour] * depth + 7) / 8 + 1);
  const std::size_t pixels = w * h * std::max<std::size_t>(4, channels[colour] * (depth > 8 ? 2 : 1));
  const std::size_t from_palette = colour == 3 ? 4 * w * h : 0;
  Cost cost;
  const bool interlaced =
      r.be(at + 12, 1) != 0;  // needs a little more than was guessed, and takes twice that
  cost.piece = std::max(interlaced ? 3 * rows : rows, pixels) + 4096;
  const std::size_t made = w * h * channels[colour] * (depth > 8 ? 2 : 1) + from_palette;
  cost.total = std::max((interlaced ? 3 : 1) * rows + made, 2 * w * h * (colour == 3 ? 4 : channels[colour]));
  return cost;
}

// Checks every chunk's length and CRC, which stb_image does not.
Cost check_png(const Reader& r) {
  Cost cost;
  bool ended = false;
  std::size_t at = 8;
  for (int chunk = 0; !ended; ++chunk) {
    const std::size_t length = r.be(at, 4);
    r.need(at, 12);
    const std::uint8_t* type = r.bytes.data() + at + 4;
    if (chunk == 0) {
      if (std::memcmp(type, "IHDR", 4) != 0 || length != 13) r.bad("damaged", at);
      check_size(r.be(at + 8, 4), r.be(at + 12, 4), r.name);
      r.need(at + 12, length);
      cost = png_cost(r, at + 8);
    }
    r.need(at + 12, length);
    if (crc32(0, type, static_cast<uInt>(length + 4)) != r.be(at + 8 + length, 4)) r.bad("damaged", at);
    if (std::memcmp(type, "eXIf", 4) == 0) cost.orientation = tiff_orientation(r.bytes, at + 8, length);
    ended = std::memcmp(type, "IEND", 4) == 0;
    at += 12 + length;
  }
  return cost;
}

bool is_frame(std::uint32_t marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

// The end of the entropy-coded data from `at`: the next marker that is neither stuffing nor a restart.
std::size_t skip_scan(const Reader& r, std::size_t at) {
  for (;; ++at) {
    r.need(at, 2);
    const std::uint8_t next = r.bytes[at + 1];
    if (r.bytes[at] == 0xff && next != 0 && next != 0xff && (next < 0xd0 || next > 0xd7)) return at;
  }
}

// A plane for each component, twice that again for the coefficients of a progressive one, and the pixels.
Cost jpeg_cost(const Reader& r, std::size_t at, bool progressive) {
  const std::size_t h = r.be(at + 5, 2), w = r.be(at + 7, 2), components = r.be(at + 9, 1);
  const std::size_t plane = (w + 64) * (h + 64);
  Cost cost;
  cost.piece = plane * std::max<std::size_t>(3, progressive ? 2 : 1) + 65536;
  cost.total = plane * components * (progressive ? 3 : 1) + w * h * (components < 3 ? 1 : 3);
  return cost;
}

// Huffman tables: stb_image up to 2.28 writes past its own when one has more than 256 codes.
void check_tables(const Reader& r, std::size_t at, std::size_t length) {
  for (const std::size_t end = at + length; at < end;) {
    std::size_t codes = 0;
    for (std::size_t i = 1; i <= 16; ++i) codes += r.be(at + i, 1);
    if (codes > 256) r.bad("damaged", at);
    at += 17 + codes;
  }
}

// Walks the segments to the end-of-image marker, without which stb_image fills the rest with gray.
Cost check_jpeg(const Reader& r) {
  Cost cost;
  bool sized = false;
  std::size_t at = 2;
  for (;;) {
    while (r.be(at, 2) == 0xffff) ++at;  // fill bytes
    const std::uint32_t marker = r.be(at + 1, 1);
    if (r.be(at, 1) != 0xff) r.bad("damaged", at);
    if (marker == 0xd9) break;
    const std::size_t length = r.be(at + 2, 2);
    if (length < 2) r.bad("damaged", at);
    r.need(at + 2, length);
    if (marker == 0xc4) check_tables(r, at + 4, length - 2);
    if (is_frame(marker)) {
      check_size(r.be(at + 7, 2), r.be(at + 5, 2), r.name);
      const int orientation = cost.orientation;
      cost = jpeg_cost(r, at, marker == 0xc2);
      cost.orientation = orientation;
      sized = true;
    }
    if (marker == 0xe1 && length >= 16 && std::memcmp(r.bytes.data() + at + 4, "Exif\0\0", 6) == 0)
      cost.orientation = tiff_orientation(r.bytes, at + 10, length - 8);
    at += 2 + length;
    if (marker == 0xda) at = skip_scan(r, at);
  }
  if (!sized) r.bad("damaged", at);
  return cost;
}

Cost check_bmp(const Reader& r) {
  const std::size_t pixels = r.le(10, 4), header = r.le(14, 4);
  if (header < 12 || header > 4096) r.bad("damaged", 14);
  const bool old = header == 12;
  const std::uint32_t width = old ? r.le(18, 2) : r.le(18, 4);
  std::uint32_t height = old ? r.le(20, 2) : r.le(22, 4);
  if (height > 0x80000000u) height = ~height + 1;  // negative: rows from the top
  check_size(width, height, r.name);
  const std::size_t bits = old ? r.le(24, 2) : r.le(28, 2);
  const std::uint32_t packing = old ? 0 : r.le(30, 4);
  if (packing != 0 && packing != 3) fail("a packed BMP picture", r.name, "save it as PNG or as a plain BMP");
  const std::size_t row = (width * bits + 31) / 32 * 4;
  r.need(pixels, row * height);
  Cost cost;
  cost.piece = std::size_t{4} * width * height + 4096;
  cost.total = 2 * cost.piece;  // and a copy
  return cost;
}

// P4, P5 and P6 after netpbm's format pages: header numbers with comments, one blank, rows.
struct PnmHeader {
  std::uint32_t width = 0, height = 0, most = 1;  // `most` is white
  std::size_t channels = 1, rows = 0;             // where the rows begin
};

PnmHeader read_pnm_header(const Reader& r) {
  std::size_t at = 2;
  const auto number = [&]() {
    for (;; ++at) {
      const std::uint8_t c = static_cast<std::uint8_t>(r.be(at, 1));
      if (c == '#')
        while (r.be(at, 1) != '\n') ++at;
      else if (!std::isspace(c)) break;
    }
    if (!std::isdigit(r.bytes[at])) r.bad("damaged", at);
    std::uint32_t value = 0;
    for (; std::isdigit(static_cast<int>(r.be(at, 1))); ++at)
      value = std::min<std::uint32_t>(value * 10 + (r.bytes[at] - std::uint32_t{'0'}), 100000000);
    return value;
  };
  PnmHeader h;
  h.width = number();
  h.height = number();
  check_size(h.width, h.height, r.name);
  if (r.bytes[1] != '4') h.most = number();
  if (r.bytes[1] == '6') h.channels = 3;
  if (h.most == 0 || h.most > 65535 || !std::isspace(static_cast<int>(r.be(at, 1)))) r.bad("damaged", at);
  h.rows = at + 1;
  return h;
}

Cost check_pnm(const Reader& r) {
  const PnmHeader h = read_pnm_header(r);
  Cost cost;
  cost.total = std::size_t{h.width} * h.height * h.channels;
  return cost;
}

Picture decode_pnm(const Reader& r, const Cost& cost) {
  const PnmHeader h = read_pnm_header(r);
  const bool bits = r.bytes[1] == '4';
  Picture picture;
  picture.width = static_cast<int>(h.width);
  picture.height = static_cast<int>(h.height);
  picture.channels = static_cast<int>(h.channels);
  const std::size_t values = h.width * h.channels;
  const std::size_t row = bits ? (values + 7) / 8 : h.most > 255 ? 2 * values : values;
  r.need(h.rows, row * h.height);
  picture.pixels.reserve(cost.total);
  for (std::size_t y = 0; y < h.height; ++y) {
    const std::uint8_t* p = r.bytes.data() + h.rows + y * row;
    for (std::size_t x = 0; x < values; ++x) {
      if (bits) {  // 1 is black
        picture.pixels.push_back(p[x / 8] >> (7 - x % 8) & 1 ? 0 : 255);
        continue;
      }
      const std::uint32_t value = h.most > 255 ? std::uint32_t{p[2 * x]} << 8 | p[2 * x + 1] : p[x];
      picture.pixels.push_back(
          static_cast<std::uint8_t>((std::min(value, h.most) * 255 + h.most / 2) / h.most));
    }
  }
  return picture;
}

Picture decode_with_stb(const Reader& r, const Cost& cost) {
  stb_largest_piece = std::max(cost.piece, 2 * r.bytes.size() + 4096);  // it collects the packed bytes
  if (r.bytes.size() > 0x7fffffff) fail("a picture file over 2 GiB", r.name, "make it smaller");
  int width = 0, height = 0, channels = 0;
  stbi_uc* decoded =
      stbi_load_from_memory(r.bytes.data(), static_cast<int>(r.bytes.size()), &width, &height, &channels, 0);
  if (!decoded)
    fail(fmt::format("cannot decode this {} ({})", r.format, stbi_failure_reason()), r.name, again);
  Picture picture;
  picture.width = width;
  picture.height = height;
  picture.channels = channels >= 3 ? 3 : 1;
  const std::size_t n = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  const std::size_t from = static_cast<std::size_t>(channels),
                    to = static_cast<std::size_t>(picture.channels);
  if (from == to) picture.pixels.assign(decoded, decoded + n * to);
  else picture.pixels.resize(n * to);
  for (std::size_t i = 0; i < n && from != to; ++i) {
    const unsigned alpha = decoded[i * from + to];
    for (std::size_t c = 0; c < to; ++c)
      picture.pixels[i * to + c] =
          static_cast<std::uint8_t>((decoded[i * from + c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
  stbi_image_free(decoded);
  return picture;
}

// Turns the stored picture into the seen one; orientations as EXIF numbers them.
Picture oriented(Picture stored, int orientation) {
  if (orientation == 1) return stored;
  const bool swapped = orientation >= 5;
  Picture seen;
  seen.width = swapped ? stored.height : stored.width;
  seen.height = swapped ? stored.width : stored.height;
  seen.channels = stored.channels;
  seen.pixels.resize(stored.pixels.size());
  for (int y = 0; y < seen.height; ++y)
    for (int x = 0; x < seen.width; ++x) {
      int sx = swapped ? y : x, sy = swapped ? x : y;
      const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
      const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
      if (flip_x) sx = stored.width - 1 - sx;
      if (flip_y) sy = stored.height - 1 - sy;
      for (int c = 0; c < seen.channels; ++c)
        seen.pixels[static_cast<std::size_t>((y * seen.width + x) * seen.channels + c)] =
            stored.pixels[static_cast<std::size_t>((sy * stored.width + sx) * stored.channels + c)];
    }
  return seen;
}

void append(void* to, void* data, int size) {
  const std::uint8_t* p = static_cast<const std::uint8_t*>(data);
  static_cast<Bytes*>(to)->insert(static_cast<Bytes*>(to)->end(), p, p + size);
}

}  // namespace

namespace {

// A file whose format and cost are known, before anything of it is decoded.
struct Checked {
  Reader reader;
  Cost cost;
  Picture (*decode)(const Reader&, const Cost&);
};

Checked check(const Bytes& bytes, const std::string& name) {
  const auto starts = [&](const char* magic, std::size_t n) {
    return bytes.size() >= n && std::memcmp(bytes.data(), magic, n) == 0;
  };
  Checked c{{bytes, name, "PNG picture"}, {}, decode_with_stb};
  if (starts("\x89PNG\r\n\x1a\n", 8)) {
    c.cost = check_png(c.reader);
  } else if (starts("\xff\xd8\xff", 3)) {
    c.reader.format = "JPEG picture";
    c.cost = check_jpeg(c.reader);
  } else if (starts("BM", 2)) {
    c.reader.format = "BMP picture";
    c.cost = check_bmp(c.reader);
  } else if (starts("P4", 2) || starts("P5", 2) || starts("P6", 2)) {
    c.reader.format = "PNM picture";
    c.cost = check_pnm(c.reader);
    c.decode = decode_pnm;
  } else {
    fail("not a PNG, JPEG, BMP or binary PNM picture", name, "convert it to PNG");
  }
  check_cost(c.cost, bytes.size(), name);
  return c;
}

}  // namespace

Picture decode_picture(const Bytes& bytes, const std::string& name) {
  const Checked c = check(bytes, name);
  return oriented(c.decode(c.reader, c.cost), c.cost.orientation);
}

void with_picture(const std::string& path, const std::function<void(const Picture&)>& work) {
  std::error_code none;  // read_file says what is wrong
  const std::uintmax_t size = std::filesystem::file_size(path, none);
  if (!none) check_cost({}, size, path);
  Share share;
  Bytes bytes;
  Picture picture;
  {
    const std::lock_guard<std::mutex> one_at_a_time(share.gate.next);
    share.take(none ? 0 : size);
    bytes = read_file(path, "a picture");
    share.take(check(bytes, path).cost.total);
  }
  picture = decode_picture(bytes, path);
  bytes = {};
  work(picture);
}

Picture read_picture(const std::string& path) {
  std::error_code none;
  const std::uintmax_t size = std::filesystem::file_size(path, none);
  if (!none) check_cost({}, size, path);
  return decode_picture(read_file(path, "a picture"), path);
}

bool named_as_picture(const std::string& path) {
  std::string end = std::filesystem::path(path).extension().string();
  std::transform(end.begin(), end.end(), end.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static const char* const known[] = {".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"};
  return std::any_of(std::begin(known), std::end(known), [&](const char* k) { return end == k; });
}

Bytes encode_png(const Picture& picture, int effort) {
  Bytes bytes;
  stbi_write_png_compression_level = effort;
  const int row = picture.width * picture.channels;
  if (!stbi_write_png_to_func(append, &bytes, picture.width, picture.height, picture.channels,
                              picture.pixels.data(), row))
    fail("out of memory", "PNG picture", "close other programs");
  return bytes;
}
