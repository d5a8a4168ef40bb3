// Memory for arenas and for files that are used in place.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#include "nnlite.hpp"

// `size` zero bytes, aligned to 64.
class Memory {
 public:
  Memory() = default;
  explicit Memory(std::size_t size)
      : bytes_(static_cast<unsigned char*>(::operator new(size + 1, std::align_val_t(64)))), size_(size) {
    std::memset(bytes_.get(), 0, size);
  }
  unsigned char* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }
  nnlite::Arena arena() const { return nnlite::Arena(data(), size_); }

 private:
  struct Free {
    void operator()(unsigned char* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<unsigned char, Free> bytes_;
  std::size_t size_ = 0;
};
