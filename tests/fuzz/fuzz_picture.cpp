// Fuzzes what happens to a picture file: the decoder as the program configures it, then the digit front end. Any bytes
// are refused in one line or become 28 x 28 values from 0 to 1, the same each time; nothing else is written.
//   fuzz_picture SEED_FOLDER [RUNS [SEED]]            a mutator of its own; with libFuzzer: see tests/README.md
#include <zlib.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "failure.hpp"
#include "folder.hpp"
#include "memory.hpp"
#include "picture.hpp"
#include "random.hpp"

using namespace nnlite;

namespace {

struct Counts {
  long runs = 0, decoded = 0, seen[4] = {};
} counts;

Random random_source{1};
std::vector<Bytes> pool;

std::size_t draw(std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(random_source.next() % n); }

void check(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "FOUND: %s\n", what);
  std::abort();
}

// The front end with scratch to the byte, and a rim that must stay as it is.
Seen prepare(const Image& image, const Preprocessing& how, std::vector<float>& values) {
  static const float rim = 12345;
  const Memory scratch(prepare_bytes(how, image.width, image.height));
  values.assign(28 * 28 + 2, rim);
  Seen seen = Seen::one;
  check(ok(preprocess(image, how, 28, 28, 1, values.data() + 1, scratch.arena(), &seen)), "a picture is refused");
  check(values.front() == rim && values.back() == rim, "the rim was written");
  for (std::size_t i = 1; i <= 28 * 28; ++i)
    check(values[i] >= 0 && values[i] <= 1, "a value is not from 0 to 1");
  check(static_cast<int>(seen) < 4, "nobody can see that");
  return seen;
}

void run_front_end(const Image& image, bool odd) {
  Preprocessing how;
  how.kind = PreprocessingKind::digit;
  if (odd) {
    how.side = static_cast<std::uint16_t>(64 + draw(193));
    how.speck = static_cast<std::uint8_t>(1 + draw(255));
    how.contrast = static_cast<std::uint8_t>(draw(256));
    how.clarity = static_cast<std::uint8_t>(draw(101));
    how.box = static_cast<std::uint8_t>(8 + draw(21));
  }
  std::vector<float> once, again;
  const Seen seen = prepare(image, how, once);
  check(prepare(image, how, again) == seen && once == again, "another answer the second time");
  counts.seen[static_cast<int>(seen)]++;
}

void run_one(const std::uint8_t* data, std::size_t size) {
  counts.runs++;
  const Bytes bytes(data, data + size);
  try {
    const Picture p = decode_picture(bytes, "picture");
    counts.decoded++;
    const std::size_t n = static_cast<std::size_t>(p.width) * static_cast<std::size_t>(p.height);
    check(n > 0 && p.pixels.size() == n * static_cast<std::size_t>(p.channels), "a picture of another size");
    run_front_end({p.pixels.data(), p.width, p.height, p.channels}, false);
  } catch (const Failure& failure) {
    check(one_line(failure).find('\n') == std::string::npos, "more than one line");
  }
  if (size < 4) return;  // the bytes as pixels, of any shape
  const int channels = 1 + data[0] % 4, width = 1 + (data[1] | data[2] << 8) % 700;
  const int height = static_cast<int>((size - 3) / static_cast<std::size_t>(width * channels));
  if (height > 0 && height <= 16384) run_front_end({data + 3, width, height, channels}, true);
}

std::size_t be32(const Bytes& b, std::size_t at) {
  return std::size_t{b[at]} << 24 | std::size_t{b[at + 1]} << 16 | std::size_t{b[at + 2]} << 8 | b[at + 3];
}

// Makes the checksums of a PNG right, so that what is in the chunks gets further.
void repair(Bytes& b) {
  for (std::size_t at = 8; at + 12 <= b.size();) {
    const std::size_t length = be32(b, at);
    if (length > b.size() - at - 12) return;
    const unsigned long crc = crc32(0, b.data() + at + 4, static_cast<uInt>(length + 4));
    for (unsigned k = 0; k < 4; ++k) b[at + 8 + length + k] = static_cast<std::uint8_t>(crc >> (24 - 8 * k));
    at += length + 12;
  }
}

void mutate(Bytes& b) {
  for (std::size_t changes = 1 + draw(4); changes > 0 && !b.empty(); --changes) {
    const std::size_t at = draw(draw(2) == 0 ? std::min<std::size_t>(b.size(), 64) : b.size());
    const auto here = b.begin() + static_cast<std::ptrdiff_t>(at);
    switch (draw(6)) {
      case 0: b[at] = static_cast<std::uint8_t>(draw(256)); break;
      case 1: b[at] = static_cast<std::uint8_t>(b[at] ^ 1u << draw(8)); break;
      case 2: b[at] = draw(2) ? 255 : 0; break;
      case 3: b.erase(here, here + static_cast<std::ptrdiff_t>(std::min(b.size() - at, 1 + draw(16)))); break;
      case 4: b.insert(here, 1 + draw(16), static_cast<std::uint8_t>(draw(256))); break;
      default: {  // a stretch of another picture
        const Bytes& other = pool[draw(pool.size())];
        for (std::size_t k = at, from = draw(other.size()); k < std::min(b.size(), at + 32); ++k)
          b[k] = other[(from + k) % other.size()];
      }
    }
  }
  if (draw(8) != 0 && b.size() > 8 && b[0] == 0x89) repair(b);
}

void tell() {
  std::fprintf(stderr, "runs %ld, decoded %ld; one %ld, blank %ld, several %ld, noise %ld\n", counts.runs,
               counts.decoded, counts.seen[0], counts.seen[1], counts.seen[2], counts.seen[3]);
}

void fill_pool(const char* folder) {
  for (const std::string& path : list_pictures(folder)) pool.push_back(read_file(path, "a picture"));
}

}  // namespace

#ifdef NNLITE_LIBFUZZER
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  fill_pool("tests/golden/pictures");
  return std::atexit(tell);
}
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  run_one(data, size);
  return 0;
}
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  random_source.state = seed;
  Bytes b(data, data + size);
  if (draw(4) == 0) {
    b.resize(max_size);
    b.resize(LLVMFuzzerMutate(b.data(), size, max_size));
    repair(b);
  } else {
    mutate(b);
  }
  b.resize(std::min(b.size(), max_size));
  std::memcpy(data, b.data(), b.size());
  return b.size();
}
#else
int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: fuzz_picture SEED_FOLDER [RUNS [SEED]]\n"), 2;
  const long runs = argc > 2 ? std::atol(argv[2]) : 5000;
  random_source.state = argc > 3 ? static_cast<std::uint64_t>(std::atoll(argv[3])) : 1;
  fill_pool(argv[1]);
  for (const Bytes& seed : pool) run_one(seed.data(), seed.size());
  check(counts.decoded == static_cast<long>(pool.size()), "a seed is refused");
  for (long k = 0; k < runs; ++k) {
    Bytes b = pool[draw(pool.size())];
    mutate(b);
    run_one(b.data(), b.size());
  }
  tell();
  return 0;
}
#endif
