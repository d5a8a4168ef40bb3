#include <doctest/doctest.h>
#include <unistd.h>

#include "nnl_file.hpp"

using namespace nnlite;
using namespace nnl_file;

static Bytes hand_made(const char* name) { return read_file(std::string(NNLITE_TESTS_DIR "/golden/") + name); }
static const char* const both[] = {"tiny_linear.nnl", "tiny_conv.nnl"};

// Loads what was changed and repaired; gives the status.
static Status changed(Bytes b, size_t at, int n, uint64_t v) {
  put(b, at, n, v);
  repair(b);
  return Loaded(b).status;
}

TEST_CASE("reader: a file made by hand from FORMAT.md gives the model it describes") {
  const Loaded l(hand_made("tiny_linear.nnl"));
  REQUIRE(l.status == Status::ok);
  const Model& m = l.model;
  CHECK(m.node_count() == 3);
  CHECK(m.parameter_count() == 2);
  CHECK(std::string(m.node(1).name) == "fc");
  CHECK(std::string(m.input_name(0)) == "image");
  CHECK(std::string(m.output_name(0)) == "y");
  CHECK(m.seed().value == 1);
  real w[6], b[2];
  REQUIRE(m.get(m.find_parameter("fc.weight"), w) == Status::ok);
  REQUIRE(m.get(m.find_parameter("fc.bias"), b) == Status::ok);
  const float expected[] = {1.0f, 2.0f, -3.0f, 0.5f, -0.25f, 4.0f};
  for (int i = 0; i < 6; ++i) CHECK(w[i] == expected[i]);
  CHECK(b[0] == 0.125f);
  CHECK(b[1] == -1.0f);
  REQUIRE(m.extras() != nullptr);
  CHECK(m.extras()->label_count == 2);
  CHECK(std::string(m.extras()->labels[1]) == "yes");
  CHECK(m.extras()->metadata_count == 2);
  CHECK(std::string(m.extras()->metadata[1].key) == "name");
  CHECK(std::string(m.extras()->metadata[1].value) == "tiny");
  CHECK(m.extras()->answer == Answer::argmax);
  Block        memory(1 << 20);
  Arena        arena(memory.data(), memory.size());
  GoldenReport report;
  REQUIRE(run_golden(m, arena, report) == Status::ok);
  CHECK(report.ok);
  CHECK(report.count == 1);
}

TEST_CASE("reader: a convolution made by hand lies in panels") {
  const Loaded l(hand_made("tiny_conv.nnl"));
  REQUIRE(l.status == Status::ok);
  real w[18];
  REQUIRE(l.model.get(l.model.find_parameter("conv.weight"), w) == Status::ok);
  for (int o = 0; o < 2; ++o)
    for (int k = 0; k < 9; ++k) CHECK(w[9 * o + k] == doctest::Approx((o + 1) * 0.1 * (k / 3 - k % 3)));
}

TEST_CASE("reader: every truncation of two small files is refused") {
  for (const char* name : both) {
    const Bytes whole = hand_made(name);
    int         accepted_count = 0;
    for (size_t n = 0; n < whole.size(); ++n) accepted_count += accepted(Bytes(whole.begin(), whole.begin() + long(n)));
    CHECK(accepted_count == 0);
    Bytes longer = whole;
    for (int i = 0; i < 192; ++i) {
      longer.push_back(0);
      accepted_count += accepted(longer);
    }
    CHECK(accepted_count == 0);
  }
}

TEST_CASE("reader: every single-bit flip of two small files is refused") {
  for (const char* name : both) {
    Bytes b = hand_made(name);
    int   accepted_count = 0;
    for (size_t bit = 0; bit < 8 * b.size(); ++bit) {
      b[bit / 8] = uint8_t(b[bit / 8] ^ (1u << (bit % 8)));
      accepted_count += accepted(b);
      b[bit / 8] = uint8_t(b[bit / 8] ^ (1u << (bit % 8)));
    }
    CHECK(accepted_count == 0);
    CHECK(accepted(b));
  }
}

// With right checksums a changed byte may be a valid file; then it is the one way to write its content.
TEST_CASE("reader: a changed byte with right checksums is refused, or saved again as it is") {
  for (const char* name : both) {
    const Bytes    b = hand_made(name);
    const uint8_t  values[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
    size_t         valid = 0;
    for (size_t at = 0; at < b.size(); ++at)
      for (int k = 0; k < 7; ++k) {
        Bytes c = b;
        c[at]   = k < 5 ? values[k] : uint8_t(c[at] + (k == 5 ? 1 : -1));
        repair(c);
        const Loaded l(c);
        if (!ok(l.status)) continue;
        ++valid;
        const Bytes again = saved(l.model);
        REQUIRE(again.size() == c.size());
        std::memcpy(c.data() + 10, again.data() + 10, 2);                // the writer's minor version,
        std::memcpy(c.data() + 40, again.data() + 40, 8);                // compatible features
        std::memcpy(c.data() + 64, again.data() + 64, 32);               // and the content id are the last writer's
        repair(c);
        CHECK_MESSAGE(again == c, name << " byte " << at);
      }
    CHECK(valid > b.size());
  }
}

TEST_CASE("reader: what fills up a panel or a vector must be zero") {
  const Bytes  b    = hand_made("tiny_linear.nnl");                      // weight [1][3][16], bias [16], two outputs
  const size_t data = find(b, 0xFFFF).offset;
  CHECK(changed(b, data + 4, 1, 1) == Status::ok);
  CHECK(changed(b, data + 8, 1, 1) == Status::bad_format);
  CHECK(changed(b, data + 3 * 64 - 1, 1, 1) == Status::bad_format);
  CHECK(changed(b, data + 3 * 64 + 8, 1, 1) == Status::bad_format);
}

TEST_CASE("reader: files from the future are refused by name") {
  const Bytes  b = hand_made("tiny_linear.nnl");
  const size_t node = find(b, 0x12).offset, attr = find(b, 0x14).offset, strs = find(b, 0x10).offset;
  CHECK(changed(b, 8, 2, 2) == Status::unsupported);
  CHECK(changed(b, 12, 2, 1) == Status::unsupported);
  CHECK(changed(b, 32, 8, 1) == Status::unsupported);
  CHECK(changed(b, 20, 4, 3) == Status::unsupported);
  CHECK(changed(b, find(b, 0x15).record + 4, 2, 2) == Status::unsupported);         // GRPH of version 2
  CHECK(changed(b, find(b, 0x01).record + 6, 2, 1) == Status::bad_format);          // META is not critical
  CHECK(changed(b, node + 40 + 6, 2, 2) == Status::unknown_op);                     // Linear of version 2
  CHECK(changed(b, strs + get(b, node + 40 + 8, 4), 1, 'Z') == Status::unknown_op);
  CHECK(changed(b, attr, 1, 99) == Status::unsupported);
  CHECK(changed(b, 40, 8, 5) == Status::ok);                                        // compatible features
  Bytes z = b;
  put(z, strs + get(b, node + 40 + 8, 4), 1, 'Z');
  repair(z);
  const Loaded l(z);
  CHECK(std::string(l.model.problem().where) == "Zinear");
  CHECK(l.model.problem().offset == node + 40);
}

// A section of an unknown type between LABL and TEST.
static Bytes with_section(const Bytes& b, bool critical) {
  Bytes        c = b;
  const size_t n = size_t(get(b, 48, 4)), last = size_t(get(b, 128 + 48 * (n - 1) + 8, 8));
  const size_t before = (128 + 48 * n + 63) / 64 * 64, after = (128 + 48 * (n + 1) + 63) / 64 * 64;
  Bytes        record(b.begin() + long(128 + 48 * (n - 1)), b.begin() + long(128 + 48 * n));
  put(record, 0, 4, 0x9000);
  put(record, 6, 2, critical);
  put(record, 16, 8, 7);
  c.insert(c.begin() + long(last), 64, 0);
  for (int i = 0; i < 7; ++i) c[last + size_t(i)] = uint8_t('a' + i);
  c.insert(c.begin() + long(128 + 48 * n), after - before, 0);
  std::memmove(c.data() + 128 + 48 * n, c.data() + 128 + 48 * (n - 1), 48);
  std::memcpy(c.data() + 128 + 48 * (n - 1), record.data(), 48);
  for (size_t i = 0; i <= n; ++i) put(c, 128 + 48 * i + 8, 8, get(c, 128 + 48 * i + 8, 8) + (after - before) + (i == n ? 64 : 0));
  put(c, 48, 4, n + 1);
  put(c, 24, 8, c.size());
  for (size_t i = 128 + 48 * (n + 1); i < after; ++i) c[i] = 0;
  repair(c);
  return c;
}

TEST_CASE("reader: an unknown section is skipped and kept, or refused where it is critical") {
  const Bytes  b = with_section(hand_made("tiny_linear.nnl"), false);
  const Loaded l(b);
  REQUIRE(l.status == Status::ok);
  REQUIRE(l.model.extras()->other_count == 1);
  CHECK(l.model.extras()->others[0].type == 0x9000);
  CHECK(std::memcmp(l.model.extras()->others[0].data, "abcdefg", 7) == 0);
  Bytes again = saved(l.model);
  std::memcpy(again.data() + 64, b.data() + 64, 32);
  repair(again);
  CHECK(again == b);
  CHECK(Loaded(with_section(hand_made("tiny_linear.nnl"), true)).status == Status::unsupported);
}

TEST_CASE("reader: load takes exactly what load_size says, and fails with less") {
  for (const char* name : both)
    for (bool copy : {false, true}) {
      const Block file(hand_made(name));
      LoadOptions options;
      options.copy      = copy;
      const size_t need = Loaded::arena_size(file, copy);
      for (size_t n = 0; n <= need; n += n + 64 < need ? 64 : 1) {
        const Block memory(n);
        Arena       arena(memory.data(), n);
        Model       model;
        const Status s = model.load(file.data(), file.size(), arena, options);
        CHECK(s == (n == need ? Status::ok : Status::out_of_memory));
        CHECK(arena.used() == (n == need ? need : 0));
      }
    }
}

TEST_CASE("reader: memory that is not aligned is refused, unless copied") {
  const Block file(hand_made("tiny_conv.nnl"), 4), memory(1 << 16);
  Arena       arena(memory.data(), memory.size());
  Model       model;
  CHECK(model.load(file.data(), file.size(), arena) == Status::misaligned);
  LoadOptions options;
  options.copy = true;
  CHECK(model.load(file.data(), file.size(), arena, options) == Status::ok);
}

struct Flaky {
  const Bytes* bytes;
  int          calls, fail_at;
};
static bool flaky_read(void* user, uint64_t offset, void* to, size_t n) {
  Flaky& f = *static_cast<Flaky*>(user);
  REQUIRE(offset <= f.bytes->size());
  REQUIRE(n <= f.bytes->size() - offset);
  if (n > 0) std::memcpy(to, f.bytes->data() + offset, n);
  return f.calls++ != f.fail_at;
}

TEST_CASE("reader: a read callback gives the same model, and its failure at any call is an io_error") {
  const Bytes b = hand_made("tiny_linear.nnl");
  Flaky       flaky = {&b, 0, -1};
  Source      source;
  source.read = flaky_read;
  source.user = &flaky;
  source.size = b.size();
  const Block memory(1 << 16);
  Arena       arena(memory.data(), memory.size());
  Model       model;
  REQUIRE(model.load(source, arena, LoadOptions()) == Status::ok);
  CHECK(saved(model) == b);
  const int calls = flaky.calls;
  for (int k = 0; k < calls; ++k) {
    flaky = {&b, 0, k};
    Arena other(memory.data(), memory.size());
    Model broken;
    CHECK(broken.load(source, other, LoadOptions()) == Status::io_error);
    CHECK_FALSE(broken.finished());
  }
}

TEST_CASE("reader: lower limits refuse what is larger") {
  const Block file(hand_made("tiny_conv.nnl")), memory(1 << 16);
  for (int k = 0; k < 3; ++k) {
    LoadOptions options;
    if (k == 0) options.limits.file_bytes = file.size() - 1;
    if (k == 1) options.limits.tensors = 7;
    if (k == 2) options.limits.nodes = 4;
    Arena arena(memory.data(), memory.size());
    Model model;
    CHECK(model.load(file.data(), file.size(), arena, options) == Status::limit_exceeded);
  }
}

TEST_CASE("reader: an op outside the given set is refused") {
  const Block    file(hand_made("tiny_linear.nnl")), memory(1 << 16);
  const Op*      one[] = {&Linear::op};
  const OpSet    set   = {one, 1};
  Arena          arena(memory.data(), memory.size());
  Model          model;
  CHECK(model.load(file.data(), file.size(), arena, LoadOptions{set, {}, false}) == Status::unknown_op);
  CHECK(std::string(model.problem().where) == "ReLU");
  CHECK(std::string(model.problem().what) == "the op is not known here: not among LoadOptions::ops");
}

TEST_CASE("reader: a path that is missing, a folder, empty or no .nnl is refused") {
  const Block memory(1 << 16);
  Arena       arena(memory.data(), memory.size());
  Model       model;
  CHECK(model.load("/nonexistent/model.nnl", arena) == Status::io_error);
  CHECK(model.load("/tmp", arena) == Status::io_error);
  const std::string path = "/tmp/nnlite_test_reader_" + std::to_string(getpid()) + ".nnl";
  write_file(path, {});
  CHECK(model.load(path.c_str(), arena) == Status::bad_format);
  write_file(path, Bytes(4096, 'x'));
  CHECK(model.load(path.c_str(), arena) == Status::bad_format);
  write_file(path, hand_made("tiny_linear.nnl"));
  CHECK(model.load(path.c_str(), arena) == Status::ok);
  MappedFile mapped;
  REQUIRE(mapped.open(path.c_str()) == Status::ok);
  Model in_place;
  CHECK(in_place.load(mapped.data(), mapped.size(), arena) == Status::ok);
  std::remove(path.c_str());
}
