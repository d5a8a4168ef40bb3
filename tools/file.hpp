// Files, read whole and written whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

using Bytes = std::vector<std::uint8_t>;

// The whole of a regular file. Fails on a folder, a missing, unreadable or empty file; `kind` is what it
// should be: "a model".
Bytes read_file(const std::string& path, const std::string& kind);

// read_file, unpacked when it is gzip. Fails when the stream is truncated, damaged or has bytes after it.
Bytes read_maybe_gzip(const std::string& path, const std::string& kind);

// Puts `bytes` at `path` all at once: temporary file in the same folder, fsync, rename. On failure `path` is
// as it was.
void write_file(const std::string& path, const void* bytes, std::size_t size);
void write_file(const std::string& path, const std::string& text);

// A file on the command line, and the option or argument that names it.
struct NamedFile {
  std::string option, path;
};

// A mistake of usage when the name ends in none of these (".png"), in small letters or capitals.
void check_ending(const NamedFile& file, const std::vector<std::string>& endings);

// Fails now if write_file(path) could not work later: folder missing or closed, `path` a folder.
void check_writable(const std::string& path);

// A kind of file that is written here, and the bytes by which it is known.
struct FileKind {
  const char* name;
  std::string_view mark;
  int at = 0;  // where they are in the file
};

// A .nnl file.
inline constexpr FileKind model_kind = {"model", "\x89NNL\r\n\x1a\n"};

// Fails where one of this kind would take the place of a file of another. One that is empty may go.
void check_replaces(const NamedFile& file, const FileKind& kind);

// The file that a path leads to: through links, and the same however it is written.
std::string final_path(const std::string& path);

// A mistake of usage when an output is the same file as another output or an input. Empty paths name none.
void check_different(const std::vector<NamedFile>& outputs, const std::vector<NamedFile>& inputs);

bool is_folder(const std::string& path);
bool exists(const std::string& path);
