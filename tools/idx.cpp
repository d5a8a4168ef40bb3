#include "idx.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "failure.hpp"
#include "file.hpp"
#include "picture.hpp"

namespace {

const char* const again = "fetch the file again (tools/get_data.sh)";

struct IdxFile {
  std::vector<std::size_t> dims;
  Bytes values;
};

// The file's path, "" when there is none. Both spellings that are about (dash and dot) are taken.
std::string find_file(const std::string& folder, const std::string& part, const std::string& what) {
  for (const char* end : {"-ubyte", "-ubyte.gz"})
    for (const char* join : {"-", "."}) {
      const std::string rank = what == "images" ? "idx3" : "idx1";
      const std::string path = fmt::format("{}/{}-{}{}{}{}", folder, part, what, join, rank, end);
      if (exists(path)) return path;
    }
  return "";
}

IdxFile read_one(const std::string& path, std::size_t rank) {
  IdxFile file;
  file.values = read_maybe_gzip(path, "an IDX file");
  const Bytes& b = file.values;
  const std::size_t header = 4 + 4 * rank;
  if (b.size() < 4 || b[0] != 0 || b[1] != 0) fail("not an IDX file", fmt::format("{}, byte 0", path), again);
  if (b[2] != 8)
    fail(fmt::format("IDX values of type {:#04x}, not unsigned bytes", b[2]), fmt::format("{}, byte 2", path),
         again);
  if (b[3] != rank)
    fail(fmt::format("{} dimensions in place of {}", b[3], rank), fmt::format("{}, byte 3", path), again);
  if (b.size() < header) fail("truncated IDX header", fmt::format("{}, byte {}", path, b.size()), again);
  std::size_t need = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    std::size_t dim = 0;
    for (std::size_t k = 0; k < 4; ++k) dim = dim << 8 | b[4 + 4 * i + k];
    if (dim == 0) fail("a dimension of 0", fmt::format("{}, byte {}", path, 4 + 4 * i), again);
    if (i > 0 && dim > static_cast<std::size_t>(largest_side))
      fail(fmt::format("a picture of {} pixels a side", dim), fmt::format("{}, byte {}", path, 4 + 4 * i),
           again);
    file.dims.push_back(dim);
    need *= dim;  // < 2^32 * 2^14 * 2^14
  }
  const std::size_t have = b.size() - header;
  if (have != need)
    fail(fmt::format("the header says {} records, {} bytes; {} bytes follow", file.dims[0], need, have),
         fmt::format("{}, byte 4", path), again);
  file.values.erase(file.values.begin(), file.values.begin() + static_cast<std::ptrdiff_t>(header));
  return file;
}

}  // namespace

bool has_idx(const std::string& folder, const std::string& part) {
  return !find_file(folder, part, "images").empty();
}

Samples read_idx(const std::string& folder, const std::string& part) {
  const std::string images_path = find_file(folder, part, "images"),
                    labels_path = find_file(folder, part, "labels");
  if (images_path.empty())
    fail("no such file", fmt::format("{}/{}-images-idx3-ubyte[.gz]", folder, part), again);
  if (labels_path.empty())
    fail("no such file", fmt::format("{}/{}-labels-idx1-ubyte[.gz]", folder, part), again);
  IdxFile images = read_one(images_path, 3), labels = read_one(labels_path, 1);
  if (images.dims[0] != labels.dims[0])
    fail(fmt::format("{} labels for {} pictures", labels.dims[0], images.dims[0]),
         fmt::format("{}, byte 4", labels_path), again);
  Samples samples;
  samples.shape = {static_cast<int>(images.dims[1]), static_cast<int>(images.dims[2]), 1};
  samples.bytes = std::move(images.values);
  samples.labels.assign(labels.values.begin(), labels.values.end());
  samples.source = labels_path;
  const int most = *std::max_element(samples.labels.begin(), samples.labels.end());
  for (int i = 0; i <= most; ++i) samples.label_names.push_back(std::to_string(i));
  return samples;
}
