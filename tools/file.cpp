#include "file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "failure.hpp"

namespace fs = std::filesystem;

namespace {

const std::size_t largest_file = std::size_t{4} << 30;

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

[[noreturn]] void fail_to_write(const std::string& path, int error) {
  const char* advice = "choose another place for it";
  if (error == ENOSPC || error == EDQUOT) advice = "free some space or choose another disk";
  if (error == ENOENT) advice = "make its folder first";
  if (error == EACCES || error == EPERM || error == EROFS)
    advice = "allow writing there or choose another place";
  fail(fmt::format("cannot write ({})", std::strerror(error)), path, advice);
}

std::string folder_of(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

bool write_all(int fd, const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t done = write(fd, bytes, size);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return false;
    bytes += done;
    size -= static_cast<std::size_t>(done);
  }
  return true;
}

}  // namespace

std::string final_path(const std::string& path) {
  std::error_code error;
  const fs::path target = fs::weakly_canonical(fs::absolute(path, error), error);
  return error ? path : target.string();
}

void check_different(const std::vector<NamedFile>& outputs, const std::vector<NamedFile>& inputs) {
  std::vector<NamedFile> seen;
  for (const NamedFile& file : inputs)
    if (!file.path.empty()) seen.push_back({file.option, final_path(file.path)});
  for (const NamedFile& file : outputs) {
    if (file.path.empty()) continue;
    const std::string target = final_path(file.path);
    for (const NamedFile& other : seen)
      if (other.path == target)
        throw UsageError{fmt::format("{} and {} are the same file", other.option, file.option)};
    seen.push_back({file.option, target});
  }
}

void check_ending(const NamedFile& file, const std::vector<std::string>& endings) {
  std::string ending = fs::path(file.path).extension().string();
  for (char& c : ending) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (std::find(endings.begin(), endings.end(), ending) == endings.end())
    throw UsageError{fmt::format("{} {}: give a name that ends in {}", file.option, file.path,
                                 fmt::join(endings, " or "))};
}

bool is_folder(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

Bytes read_file(const std::string& path, const std::string& kind) {
  Descriptor file;
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    const std::string advice = fmt::format("give the name of {}", kind);
    if (errno == ENOENT || errno == ENOTDIR) fail("no such file", path, advice);
    fail(fmt::format("cannot read ({})", std::strerror(errno)), path, advice);
  }
  if (S_ISDIR(info.st_mode)) fail(fmt::format("a folder, not {}", kind), path, "give a file");
  if (!S_ISREG(info.st_mode)) fail(fmt::format("not a regular file, so not {}", kind), path, "give a file");
  file.fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.fd < 0) fail(fmt::format("cannot read ({})", std::strerror(errno)), path, "allow reading it");
  if (info.st_size == 0)
    fail(fmt::format("an empty file, not {}", kind), path, "copy or make the file again");
  const std::size_t size = static_cast<std::size_t>(info.st_size);
  if (size > largest_file) fail("larger than 4 GiB", path, fmt::format("check that it is {}", kind));
  Bytes bytes(size);
  std::size_t have = 0;
  while (have < size) {
    const ssize_t done = read(file.fd, bytes.data() + have, size - have);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(fmt::format("cannot read ({})", std::strerror(errno)), path, "check the disk");
    if (done == 0) fail("the file shrank while it was read", path, "wait until it is written and try again");
    have += static_cast<std::size_t>(done);
  }
  return bytes;
}

Bytes read_maybe_gzip(const std::string& path, const std::string& kind) {
  Bytes packed = read_file(path, kind);
  if (packed.size() < 2 || packed[0] != 0x1f || packed[1] != 0x8b) return packed;
  z_stream stream = {};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) fail("out of memory", path, "close other programs");
  stream.next_in = packed.data();
  std::size_t fed = 0;
  Bytes bytes;
  int status = Z_OK;
  while (status == Z_OK) {
    if (stream.avail_in == 0 && fed < packed.size()) {
      const std::size_t piece = std::min<std::size_t>(packed.size() - fed, 1u << 30);
      stream.avail_in = static_cast<uInt>(piece);
      fed += piece;
    }
    const std::size_t have = bytes.size(), room = std::max<std::size_t>(1u << 20, have / 2);
    if (have > largest_file) {
      inflateEnd(&stream);
      fail("unpacks to more than 4 GiB", path, fmt::format("check that it is {}", kind));
    }
    bytes.resize(have + room);
    stream.next_out = bytes.data() + have;
    stream.avail_out = static_cast<uInt>(room);
    status = inflate(&stream, Z_NO_FLUSH);
    bytes.resize(have + room - stream.avail_out);
  }
  const std::size_t used = fed - stream.avail_in;
  inflateEnd(&stream);
  const char* advice = "copy or fetch the file again";
  if (status == Z_BUF_ERROR) fail("truncated gzip file", fmt::format("{}, byte {}", path, used), advice);
  if (status != Z_STREAM_END) fail("damaged gzip file", fmt::format("{}, byte {}", path, used), advice);
  if (used != packed.size())
    fail("bytes after the gzip data", fmt::format("{}, byte {}", path, used), advice);
  return bytes;
}

void check_writable(const std::string& path) {
  if (path.empty()) fail("no file name to write to", "\"\"", "give a name");
  if (is_folder(path)) fail("cannot write (it is a folder)", path, "give the name of a file");
  if (exists(path) && !fs::is_regular_file(path))  // a rename would put a file in the place of a device
    fail("cannot write (not a regular file)", path, "give the name of a file");
  const std::string folder = folder_of(final_path(path));
  if (!is_folder(folder)) fail("cannot write (no such folder)", path, "make its folder first");
  if (access(folder.c_str(), W_OK | X_OK) != 0) fail_to_write(path, errno);
}

void check_replaces(const NamedFile& file, const FileKind& kind) {
  struct stat info;
  if (stat(file.path.c_str(), &info) != 0 || info.st_size == 0) return;
  std::string mark(kind.mark.size(), '\0');
  std::ifstream(file.path, std::ios::binary)
      .seekg(kind.at)
      .read(mark.data(), static_cast<std::streamsize>(mark.size()));
  if (mark != kind.mark)
    fail(fmt::format("{} would replace a file that is no {}", file.option, kind.name), file.path,
         "choose another name, or remove the file first");
}

void write_file(const std::string& path, const void* bytes, std::size_t size) {
  check_writable(path);
  const std::string target = final_path(path);
  std::string name = target + ".tmpXXXXXX";
  struct stat old;
  const bool had = stat(target.c_str(), &old) == 0;
  const mode_t mask = umask(0);
  umask(mask);
  {
    Descriptor file;
    file.fd = mkstemp(name.data());
    if (file.fd < 0) fail_to_write(path, errno);
    const bool written = fchmod(file.fd, had ? old.st_mode & 07777 : 0666 & ~mask) == 0 &&
                         write_all(file.fd, static_cast<const char*>(bytes), size) && fsync(file.fd) == 0;
    if (!written || rename(name.c_str(), target.c_str()) != 0) {
      const int error = errno;
      unlink(name.c_str());
      fail_to_write(path, error);
    }
  }
  Descriptor folder;  // the new name itself must reach the disk
  folder.fd = open(folder_of(target).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder.fd >= 0) fsync(folder.fd);
}

void write_file(const std::string& path, const std::string& text) {
  write_file(path, text.data(), text.size());
}
