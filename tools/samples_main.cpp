// nnlite-samples FOLDER OUT [COUNT]: the first COUNT (20) test pictures of an IDX folder as
// OUT/<label>/<number>.png.
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "failure.hpp"
#include "file.hpp"
#include "idx.hpp"
#include "picture.hpp"

namespace {

void run(const std::string& folder, const std::string& out, std::size_t count) {
  const Samples samples = read_idx(folder, "t10k");
  const std::size_t size = samples.sample_size();
  for (std::size_t i = 0; i < std::min(count, samples.count()); ++i) {
    const std::string& label = samples.label_names[static_cast<std::size_t>(samples.labels[i])];
    const std::string path = fmt::format("{}/{}", out, label);
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error)
      fail(fmt::format("cannot make the folder ({})", error.message()), path, "choose another place");
    Picture p{samples.shape[1], samples.shape[0], 1, {}};
    const auto from = samples.bytes.begin() + static_cast<std::ptrdiff_t>(i * size);
    p.pixels.assign(from, from + static_cast<std::ptrdiff_t>(size));
    const Bytes png = encode_png(p);
    write_file(fmt::format("{}/{:05}.png", path, i), png.data(), png.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc > 3 ? std::atol(argv[3]) : 20;
  if (argc < 3 || argc > 4 || count < 1) {
    fmt::print(stderr, "usage: nnlite-samples IDX_FOLDER OUT_FOLDER [COUNT]\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], static_cast<std::size_t>(count));
  } catch (const Failure& failure) {
    report(failure);
    return 1;
  }
  return 0;
}
