// Pictures on disk: folders of pictures, and folders of class folders.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

// Every picture file under `folder`, at any depth, in the order of their names. Fails when there is none.
std::vector<std::string> list_pictures(const std::string& folder);

// A folder of class folders: the label is the folder's name; folders in the order of their names.
struct LabelledPictures {
  std::vector<std::string> paths;
  std::vector<std::int32_t> labels;
  std::vector<std::string> label_names;
};
std::vector<std::string> class_folders(const std::string& folder);  // their names
LabelledPictures list_class_folders(const std::string& folder);
