// Memory for arenas and for files that are used in place.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "nnlite.hpp"

struct FreeMemory {
  std::align_val_t alignment{64};
  void operator()(unsigned char* p) const { ::operator delete(p, alignment); }
};

// `size` zero bytes, aligned to 64. Where there are some megabytes, Linux is asked for pages of 2 MB: with
// those of 4 KB a processor forgets where big arenas lie, and training steps take some percent longer.
class Memory {
 public:
  Memory() = default;
  explicit Memory(std::size_t size)
      : bytes_(static_cast<unsigned char*>(::operator new(size + 1, alignment(size))), FreeMemory{alignment(size)}),
        size_(size) {
#ifdef __linux__
    if (size >= large) (void)madvise(bytes_.get(), size, MADV_HUGEPAGE);         // a wish; else pages stay small
#endif
    std::memset(bytes_.get(), 0, size);
  }
  unsigned char* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }
  nnlite::Arena arena() const { return nnlite::Arena(data(), size_); }

 private:
  static constexpr std::size_t large = std::size_t{4} << 20;
  static std::align_val_t alignment(std::size_t size) {
    return std::align_val_t(size < large ? 64 : std::size_t{2} << 20);
  }
  std::unique_ptr<unsigned char, FreeMemory> bytes_;
  std::size_t size_ = 0;
};
