// Files, read whole and written whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

using Bytes = std::vector<std::uint8_t>;

// The whole of a regular file. Fails on a folder, a missing, unreadable or empty file; `kind` is its
// name in messages.
Bytes read_file(const std::string& path, const std::string& kind);

// read_file, unpacked when it is gzip. Fails when the stream is truncated, damaged or has bytes after it.
Bytes read_maybe_gzip(const std::string& path, const std::string& kind);

// Puts `bytes` at `path` all at once: temporary file in the same folder, fsync, rename. On failure `path` is
// as it was.
void write_file(const std::string& path, const void* bytes, std::size_t size);
void write_file(const std::string& path, const std::string& text);

// Fails now if write_file(path) could not work later: folder missing or closed, `path` a folder.
void check_writable(const std::string& path);

bool is_folder(const std::string& path);
bool exists(const std::string& path);
