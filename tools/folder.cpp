#include "folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "failure.hpp"
#include "picture.hpp"

namespace fs = std::filesystem;

// UTF-8 of one line?
static bool is_text(const std::string& name) {
  for (char c : name)
    if (static_cast<unsigned char>(c) < 32) return false;
  try {
    return !nlohmann::json(name).dump().empty();
  } catch (const nlohmann::json::type_error&) { return false; }
}

std::vector<std::string> class_folders(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error, ignored;  // a link to nowhere is no folder, and no reason to stop
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!it->is_directory(ignored) || name[0] == '.') continue;
    if (!is_text(name))
      fail("a folder whose name is no UTF-8 text of one line", it->path().string(), "rename it");
    names.push_back(name);
  }
  if (error) fail(fmt::format("cannot read ({})", error.message()), folder, "check the folder");
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> list_pictures(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error, ignored;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (!it->is_directory(ignored) && named_as_picture(it->path().string()))
      paths.push_back(it->path().string());
  if (error) fail(fmt::format("cannot read ({})", error.message()), folder, "check the folder");
  if (paths.empty())
    fail("no picture in the folder", folder,
         "give one with files named .png .jpg .jpeg .bmp .pbm .pgm .ppm or .pnm");
  std::sort(paths.begin(), paths.end());
  return paths;
}

LabelledPictures list_class_folders(const std::string& folder) {
  LabelledPictures found;
  found.label_names = class_folders(folder);
  if (found.label_names.empty())
    fail("no class folders", folder, "put the pictures of each class in a folder of its name");
  for (std::size_t i = 0; i < found.label_names.size(); ++i)
    for (std::string& path : list_pictures((fs::path(folder) / found.label_names[i]).string())) {
      found.paths.push_back(std::move(path));
      found.labels.push_back(static_cast<std::int32_t>(i));
    }
  return found;
}
