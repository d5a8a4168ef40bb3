#include <cstdio>
#include <cstring>
#include <string>

#include <doctest/doctest.h>

#include "nnlite.hpp"

using namespace nnlite;

static std::string hex(const uint8_t* digest) {
  std::string s;
  char        two[3];
  for (int i = 0; i < 32; ++i) {
    std::snprintf(two, sizeof two, "%02x", unsigned(digest[i]));
    s += two;
  }
  return s;
}

static std::string sha(const std::string& s, size_t piece) {
  Sha256  h;
  uint8_t digest[32];
  for (size_t i = 0; i < s.size(); i += piece) h.add(s.data() + i, s.size() - i < piece ? s.size() - i : piece);
  h.finish(digest);
  return hex(digest);
}

TEST_CASE("hash: CRC-32C gives the vectors of RFC 3720 B.4") {
  uint8_t b[32];
  std::memset(b, 0, 32);
  CHECK(crc32c(0, b, 32) == 0x8A9136AAu);
  std::memset(b, 0xFF, 32);
  CHECK(crc32c(0, b, 32) == 0x62A8AB43u);
  for (int i = 0; i < 32; ++i) b[i] = uint8_t(i);
  CHECK(crc32c(0, b, 32) == 0x46DD794Eu);
  for (int i = 0; i < 32; ++i) b[i] = uint8_t(31 - i);
  CHECK(crc32c(0, b, 32) == 0x113FDB5Cu);
  CHECK(crc32c(0, "123456789", 9) == 0xE3069283u);
  CHECK(crc32c(0, b, 0) == 0u);
}

TEST_CASE("hash: CRC-32C may be cut anywhere, and joined") {
  uint8_t b[257];
  for (int i = 0; i < 257; ++i) b[i] = uint8_t(i * 37 + 11);
  const uint32_t whole = crc32c(0, b, 257);
  for (size_t cut = 0; cut <= 257; ++cut) {
    const uint32_t first = crc32c(0, b, cut), second = crc32c(0, b + cut, 257 - cut);
    CHECK(crc32c(first, b + cut, 257 - cut) == whole);
    CHECK(crc32c_join(first, second, 257 - cut) == whole);
  }
}

TEST_CASE("hash: CRC-32C sees every single-bit flip") {
  uint8_t b[64];
  for (int i = 0; i < 64; ++i) b[i] = uint8_t(i * 29);
  const uint32_t whole = crc32c(0, b, 64);
  for (int bit = 0; bit < 512; ++bit) {
    b[bit / 8] = uint8_t(b[bit / 8] ^ (1 << (bit % 8)));
    CHECK(crc32c(0, b, 64) != whole);
    b[bit / 8] = uint8_t(b[bit / 8] ^ (1 << (bit % 8)));
  }
}

TEST_CASE("hash: SHA-256 gives the vectors of FIPS 180-4") {
  CHECK(sha("", 1) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha(std::string(1000000, 'a'), 997) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("hash: SHA-256 does not depend on how the bytes are cut") {
  std::string s;
  for (int i = 0; i < 300; ++i) s += char(i);
  const std::string whole = sha(s, 300);
  for (size_t piece : {size_t(1), size_t(3), size_t(63), size_t(64), size_t(65), size_t(127), size_t(129)}) CHECK(sha(s, piece) == whole);
}
