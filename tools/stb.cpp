// The one place that compiles stb.
#include "stb_memory.hpp"

#include <stdlib.h>

thread_local std::size_t stb_largest_piece = 0;
static void* resize(void* old, std::size_t size) {
  return size > stb_largest_piece ? nullptr : realloc(old, size);
}
// Zero, as a JPEG may use tables that it never gave.
static void* take(std::size_t size) { return size > stb_largest_piece ? nullptr : calloc(1, size); }
#define STBI_MALLOC take
#define STBI_REALLOC resize
#define STBI_FREE free
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_MAX_DIMENSIONS 16384
#include <stb_image.h>
// zlib in place of stb's own packer, which has one fixed code for all pictures.
#include <zlib.h>
static unsigned char* pack(unsigned char* bytes, int size, int* packed_size, int effort) {
  uLongf room = compressBound(static_cast<uLong>(size));
  unsigned char* packed = static_cast<unsigned char*>(malloc(room));
  if (packed && compress2(packed, &room, bytes, static_cast<uLong>(size), effort) != Z_OK) {
    free(packed);
    packed = nullptr;
  }
  *packed_size = static_cast<int>(room);
  return packed;
}
#define STBIW_ZLIB_COMPRESS pack
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>
