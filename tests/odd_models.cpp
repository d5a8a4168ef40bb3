// Writes the .nnl files of cli_bad_input.sh that hold what the library takes and the program cannot use, and with the
// word `pictures` the pictures of cli_pictures.sh that are small files and large otherwise.
#include <zlib.h>

#include <cstdio>
#include <cstring>

#include "file.hpp"
#include "nnlite.hpp"

using namespace nnlite;

namespace {

unsigned char records[65536];
alignas(64) unsigned char weights[1 << 20];

bool write(Model& model, const char* path, const ModelExtras* extras = nullptr) {
  if (!ok(model.finish(Seed{1}))) return false;
  Arena arena(weights, sizeof weights);
  return ok(model.materialise(arena)) && ok(save(model, path, extras));
}

bool input_only(const char* path, const Dims& dims, DType dtype) {
  Model model(records);
  model.output("y", model.input("x", dims, dtype));
  return write(model, path);
}

bool one_label() {
  static const char* const label[] = {"cat"};
  Model model(records);
  model.output("y", model.chain(model.input("x", {28, 28, 1}), Flatten{}, Linear{784, 1}, Sigmoid{}));
  const Preprocessing plain;
  ModelExtras extras;
  extras.preprocessing = &plain;
  extras.labels = label;
  extras.label_count = 1;
  extras.answer = Answer::threshold;
  extras.threshold = 0.5f;
  return write(model, "one_label.nnl", &extras);
}

bool huge_scale() {
  Model model(records);
  model.output("y", model.chain(model.input("x", {28, 28, 1}), Flatten{}, Linear{784, 10}));
  Preprocessing huge;
  huge.scale = 3e38f;
  ModelExtras extras;
  extras.preprocessing = &huge;
  return write(model, "huge_scale.nnl", &extras);
}

void put32(Bytes& to, std::size_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<std::uint8_t>(value >> shift));
}

void put_chunk(Bytes& to, const char* type, const Bytes& data) {
  Bytes body(type, type + 4);
  body.insert(body.end(), data.begin(), data.end());
  put32(to, data.size());
  to.insert(to.end(), body.begin(), body.end());
  put32(to, crc32(0, body.data(), static_cast<uInt>(body.size())));
}

// A PNG of width x height pixels with `unpacked` bytes of zeros for rows.
void write_png(const char* path, std::size_t width, std::size_t height, std::uint8_t depth, std::uint8_t colour,
               std::size_t unpacked) {
  Bytes header, packed(compressBound(static_cast<uLong>(unpacked)));
  put32(header, width);
  put32(header, height);
  for (const std::uint8_t b : {depth, colour, std::uint8_t{0}, std::uint8_t{0}, std::uint8_t{0}}) header.push_back(b);
  uLongf size = static_cast<uLongf>(packed.size());
  compress2(packed.data(), &size, Bytes(unpacked).data(), static_cast<uLong>(unpacked), 1);
  packed.resize(size);
  Bytes png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  put_chunk(png, "IHDR", header);
  put_chunk(png, "IDAT", packed);
  put_chunk(png, "IEND", {});
  write_file(path, png.data(), png.size());
}

void write_pictures() {
  write_png("large.png", 4096, 4096, 8, 2, 4096 * (4096 * 3 + 1));
  write_png("large16.png", 4096, 4096, 16, 2, 4096 * (4096 * 6 + 1));
  write_png("larger16.png", 4096, 4096, 16, 6, 4096);   // over the bound: 8 bytes a pixel, twice
  write_png("huge.png", 16384, 16384, 8, 2, 4096);      // a small file that says it is 805 MB
  write_png("bomb.png", 28, 28, 8, 0, 300000000);       // a small picture that unpacks to 300 MB
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "pictures") == 0) {
    write_pictures();
    return 0;
  }
  const bool written = input_only("input_only.nnl", {1, 1, 1}, real_dtype) &&
                       input_only("input_only10.nnl", {10}, real_dtype) &&
                       input_only("whole_numbers.nnl", {5}, DType::i32) && one_label() && huge_scale();
  if (!written) std::fprintf(stderr, "odd_models: cannot write\n");
  return written ? 0 : 1;
}
