// Files in memory for the tests of the rooms that read and write them.
#ifndef NNL_FILE_HPP
#define NNL_FILE_HPP

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "nnlite.hpp"

namespace nnl_file {

using Bytes = std::vector<uint8_t>;

// A 64-aligned block of its own size, so that a sanitizer sees every read beyond it.
class Block {
 public:
  explicit Block(size_t n, size_t shift = 0) : memory_(std::aligned_alloc(64, (n + shift + 127) / 64 * 64)), size_(n), shift_(shift) {}
  explicit Block(const Bytes& b, size_t shift = 0) : Block(b.size(), shift) {
    if (!b.empty()) std::memcpy(data(), b.data(), b.size());
  }
  ~Block() { std::free(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  uint8_t* data() const { return static_cast<uint8_t*>(memory_) + shift_; }
  size_t   size() const { return size_; }

 private:
  void*  memory_;
  size_t size_, shift_;
};

inline bool append(void* user, const void* from, size_t n) {
  Bytes&         b = *static_cast<Bytes*>(user);
  const uint8_t* p = static_cast<const uint8_t*>(from);
  b.insert(b.end(), p, p + n);
  return true;
}
inline nnlite::Sink sink_to(Bytes& b) { return {append, &b}; }

inline Bytes read_file(const std::string& path) {
  Bytes b;
  if (FILE* f = std::fopen(path.c_str(), "rb")) {
    uint8_t piece[4096];
    for (size_t n; (n = std::fread(piece, 1, sizeof piece, f)) > 0;) b.insert(b.end(), piece, piece + n);
    std::fclose(f);
  }
  return b;
}
inline void write_file(const std::string& path, const Bytes& b) {
  if (FILE* f = std::fopen(path.c_str(), "wb")) {
    if (!b.empty()) std::fwrite(b.data(), 1, b.size(), f);
    std::fclose(f);
  }
}

inline uint64_t get(const Bytes& b, size_t at, int n) {
  uint64_t v = 0;
  for (int i = 0; i < n; ++i) v |= at + size_t(i) < b.size() ? uint64_t(b[at + size_t(i)]) << (8 * i) : 0;
  return v;
}
inline void put(Bytes& b, size_t at, int n, uint64_t v) {
  for (int i = 0; i < n; ++i)
    if (at + size_t(i) < b.size()) b[at + size_t(i)] = uint8_t(v >> (8 * i));
}

// Where a section's payload lies; size 0 when there is none.
struct Place {
  size_t record = 0, offset = 0, size = 0;
};
inline Place find(const Bytes& b, uint32_t type) {
  Place p;
  for (size_t i = 0; i < get(b, 48, 4) && i < 64; ++i) {
    const size_t r = 128 + 48 * i;
    if (get(b, r, 4) == type) p = {r, size_t(get(b, r + 8, 8)), size_t(get(b, r + 16, 8))};
  }
  return p;
}

// Makes every checksum right again, as far as the table still makes sense: what a fuzzer needs to get past them.
inline void repair(Bytes& b) {
  if (b.size() < 128) return;
  const auto   crc   = [&](size_t at, size_t n) { return at <= b.size() && n <= b.size() - at ? nnlite::crc32c(0, b.data() + at, n) : 0; };
  const size_t count = size_t(get(b, 48, 4)) < 64 ? size_t(get(b, 48, 4)) : 64;
  const Place  stor = find(b, 0x16), data = find(b, 0xFFFF);
  size_t       at   = data.offset;
  for (size_t k = 0; k + 16 <= stor.size && k < 65536 * 16; k += 16) {
    const size_t n = size_t(get(b, stor.offset + k, 8));
    put(b, stor.offset + k + 8, 4, crc(at, n));
    at += (n + 63) / 64 * 64;
  }
  size_t first = b.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t r = 128 + 48 * i, offset = size_t(get(b, r + 8, 8)), size = size_t(get(b, r + 16, 8));
    put(b, r + 24, 4, crc(offset, (size + 63) / 64 * 64));
    if (i == 0 && offset >= 128 && offset < first) first = offset;
  }
  put(b, 120, 4, crc(128, first - 128));
  put(b, 124, 4, crc(0, 124));
}

// A file in memory and the model it makes, with exactly the arena that load_size says.
struct Loaded {
  Block          file;
  Block          memory;
  nnlite::Arena  arena;
  nnlite::Model  model;
  nnlite::Status status;
  static size_t arena_size(const Block& f, bool copy) {
    nnlite::LoadOptions options;
    options.copy = copy;
    size_t n     = 0;
    return nnlite::ok(nnlite::load_size(nnlite::memory_source(f.data(), f.size()), options, n)) ? n : 0;
  }
  explicit Loaded(const Bytes& b, bool copy = false) : file(b), memory(arena_size(file, copy)), arena(memory.data(), memory.size()) {
    nnlite::LoadOptions options;
    options.copy = copy;
    status       = model.load(file.data(), file.size(), arena, options);
  }
};

// Whether load accepts the bytes; the verdict of load_size must be the same.
inline bool accepted(const Bytes& b) { return nnlite::ok(Loaded(b).status); }

inline Bytes saved(const nnlite::Model& m, const nnlite::ModelExtras* extras = nullptr) {
  Bytes b;
  return nnlite::ok(nnlite::save(m, sink_to(b), extras)) ? b : Bytes();
}

}  // namespace nnl_file

#endif
