// The rules of nnlite.hpp that a compiler does not know: rooms and their table of contents, lengths, names,
// includes.
//   check_header SOURCE_FOLDER
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

int failures = 0;
void fail(size_t line, const std::string& what) {
  std::printf("nnlite.hpp:%zu: %s\n", line, what.c_str());
  failures++;
}

// The name behind ">>" at `at`, or "".
std::string name_at(const std::string& line, size_t at) {
  size_t end = at + 2;
  const auto in_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  while (end < line.size() && in_name(line[end])) end++;
  return line.substr(at + 2, end - at - 2);
}

bool is_banner(const std::string& line) { return line.rfind("// ======", 0) == 0; }

struct Room {
  std::string name;
  size_t first;
};

std::vector<std::string> contents_of(const std::vector<std::string>& lines, size_t& end) {
  std::vector<std::string> names;
  for (end = 0; end < lines.size() && lines[end].rfind("//", 0) == 0; end++) {
    const std::string& l = lines[end];
    for (size_t at = l.find(">>"); at != std::string::npos; at = l.find(">>", at + 2)) {
      const std::string name = name_at(l, at);
      if (name != "room") names.push_back(name);
    }
  }
  return names;
}

void check_lines(const std::vector<std::string>& lines) {
  for (size_t i = 0; i < lines.size(); i++) {
    if (lines[i].size() > 110) fail(i + 1, "longer than 110 columns");
    for (const char c : lines[i])
      if (c < 32 || c > 126) { fail(i + 1, "not printable ASCII"); break; }
    const std::string define = "#define ";
    if (lines[i].rfind(define, 0) != 0) continue;
    const std::string name = lines[i].substr(define.size());
    const bool of_windows = name.rfind("WIN32_LEAN_AND_MEAN", 0) == 0 || name.rfind("NOMINMAX", 0) == 0;
    if (name.rfind("NNLITE_", 0) != 0 && !of_windows) fail(i + 1, "a macro that does not begin with NNLITE_");
  }
  if (lines.size() > 12000) fail(lines.size(), "more than 12,000 lines");
}

std::vector<Room> check_rooms(const std::vector<std::string>& lines) {
  size_t header = 0;
  const std::vector<std::string> contents = contents_of(lines, header);
  std::vector<Room> rooms;
  for (size_t i = header; i < lines.size(); i++) {
    if (!is_banner(lines[i])) continue;
    const size_t at = lines[i].find(">>");
    if (at == std::string::npos) fail(i + 1, "a banner without a name");
    else rooms.push_back({name_at(lines[i], at), i + 1});
  }
  for (size_t r = 0; r < std::max(rooms.size(), contents.size()); r++) {
    const std::string told = r < contents.size() ? contents[r] : "nothing";
    const std::string is   = r < rooms.size() ? rooms[r].name : "nothing";
    if (told == is) continue;
    fail(r < rooms.size() ? rooms[r].first : 1, "the table of contents says " + told + ", the room is " + is);
    break;
  }
  for (size_t r = 0; r < rooms.size(); r++) {
    const size_t end = r + 1 < rooms.size() ? rooms[r + 1].first : lines.size();
    const size_t count = end - rooms[r].first;
    if (count > 500) fail(rooms[r].first, rooms[r].name + " has " + std::to_string(count) + " lines");
  }
  return rooms;
}

// Part 1 ends where the implementation begins.
void check_includes(const std::vector<std::string>& lines) {
  std::vector<std::string> found;
  for (const std::string& l : lines) {
    if (l.find("defined(NNLITE_IMPLEMENTATION)") != std::string::npos) break;
    if (l.rfind("#include", 0) == 0) found.push_back(l);
  }
  const std::vector<std::string> allowed = {"#include <stddef.h>", "#include <stdint.h>"};
  if (found != allowed) fail(1, "Part 1 includes other files");
}

bool there(const std::string& path) { return std::ifstream(path).good(); }

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : ".";
  std::ifstream file(folder + "/nnlite.hpp");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  if (lines.empty()) fail(0, "cannot be read");
  check_lines(lines);
  check_includes(lines);
  for (const Room& room : check_rooms(lines)) {
    if (room.name.rfind("op_", 0) != 0 && room.name.rfind("kernel_", 0) != 0) continue;
    if (room.name == "kernel_gemm") continue;  // tested with those that use it
    const bool tested = there(folder + "/tests/test_" + room.name + ".cpp");
    if (!tested) fail(room.first, room.name + " has no test file");
  }
  std::printf("%zu lines, %d findings\n", lines.size(), failures);
  return failures == 0 ? 0 : 1;
}
