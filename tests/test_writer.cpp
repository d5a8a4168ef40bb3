#include <doctest/doctest.h>

#include "nnl_file.hpp"

#if defined(__unix__)
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace nnlite;
using namespace nnl_file;

// A model in its own memory.
struct Built {
  std::vector<unsigned char> records = std::vector<unsigned char>(65536);
  Model  model{records.data(), records.size()};
  Block  memory{1 << 18};
  Arena  arena{memory.data(), memory.size()};
  Status finish(uint64_t seed) {
    const Status s = model.finish(Seed{seed});
    return ok(s) ? model.materialise(arena) : s;
  }
};

// Two inputs, a shared layer, a branch, normalisation, groups, transposition, two outputs, a frozen layer.
static Status build_wide(Built& b, bool other_order) {
  Model& m = b.model;
  Tensor x = m.input("picture", {6, 6, 4}), v = m.input("vector", {5});
  Tensor p, q;
  if (other_order) q = m.add("side", Linear{0, 7}, v);
  p = m.add("stem", Conv2d{4, 20, 3, 1, 1, 1, 2}, x);
  if (!other_order) q = m.add("side", Linear{0, 7}, v);
  p = m.add(BatchNorm2d{}, p);
  p = m.add(Conv2d{0, 20, 3, 1, 1, 1, 20, false}, p);
  p = m.add(ELU{0.5f}, p);
  p = m.add(ConvTranspose2d{20, 3, 2, 2}, p);
  p = m.add(Flatten{}, p);
  Tensor first = m.add("head", Linear{0, 7}, p);
  Tensor s = m.add("twin", Linear{7, 7}, q), t = m.share(s, first);
  m.freeze(first);
  m.output("sum", m.add(Add{}, s, t));
  m.output("side", q);
  return b.finish(3);
}

TEST_CASE("writer: load and save again gives the same bytes") {
  Built b;
  REQUIRE(build_wide(b, false) == Status::ok);
  const Bytes once = saved(b.model);
  REQUIRE_FALSE(once.empty());
  CHECK(once.size() % 64 == 0);
  for (bool copy : {false, true}) {
    const Loaded l(once, copy);
    REQUIRE_MESSAGE(l.status == Status::ok, l.model.problem().where << ": " << l.model.problem().what);
    CHECK(saved(l.model) == once);
    CHECK(l.model.parameter_count() == b.model.parameter_count());
    for (int i = 0; i < l.model.parameter_count(); ++i) {
      CHECK(std::string(l.model.parameter(i).name) == b.model.parameter(i).name);
      CHECK(l.model.parameter(i).trainable == b.model.parameter(i).trainable);
    }
  }
}

TEST_CASE("writer: the order in which a program builds a graph does not matter") {
  Built a, b;
  REQUIRE(build_wide(a, false) == Status::ok);
  REQUIRE(build_wide(b, true) == Status::ok);
  CHECK(saved(a.model) == saved(b.model));
}

TEST_CASE("writer: the engine writes what a hand wrote from FORMAT.md, byte for byte") {
  Built  b;
  Model& m = b.model;
  Tensor x = m.input("image", {3});
  m.output("y", m.chain(m.add("fc", Linear{3, 2}, x), ReLU{}));
  REQUIRE(b.finish(1) == Status::ok);
  const Bytes  hand = read_file(NNLITE_TESTS_DIR "/golden/tiny_linear.nnl");
  const Loaded l(hand);
  REQUIRE(l.status == Status::ok);
  Bytes mine = saved(b.model, l.model.extras());
  REQUIRE(mine.size() == hand.size());
  const Place data = find(hand, 0xFFFF);
  std::memcpy(mine.data() + data.offset, hand.data() + data.offset, data.size);    // the weights are another seed's
  std::memcpy(mine.data() + 64, hand.data() + 64, 32);
  repair(mine);
  CHECK(mine == hand);
  CHECK(saved(l.model) == hand);
  CHECK(saved(Loaded(read_file(NNLITE_TESTS_DIR "/golden/tiny_conv.nnl")).model) == read_file(NNLITE_TESTS_DIR "/golden/tiny_conv.nnl"));
}

TEST_CASE("writer: extras travel with the model") {
  Built b;
  Model& m = b.model;
  m.output("logits", m.chain(m.input("image", {4, 4, 3}), Flatten{}, Linear{0, 3}));
  REQUIRE(b.finish(9) == Status::ok);
  Preprocessing p;
  p.resize     = Resize::letterbox;
  p.invert     = true;
  p.background = 7;
  p.mean[1]    = 0.25f;
  p.std[2]     = 2.0f;
  const char* const labels[] = {"cat", "d\xC3\xB6g", ""};
  const Metadata    metadata[] = {{"author", "somebody"}, {"name", "animals"}};
  real              inputs[2 * 48];
  for (int i = 0; i < 96; ++i) inputs[i] = real(i % 7) - 3;
  Golden golden[1];
  REQUIRE(make_golden(m, inputs, 2, 1e-5f, b.arena, golden[0]) == Status::ok);
  ModelExtras x;
  x.preprocessing  = &p;
  x.labels         = labels;
  x.label_count    = 3;
  x.answer         = Answer::softmax;
  x.metadata       = metadata;
  x.metadata_count = 2;
  x.golden         = golden;
  x.golden_count   = 1;
  const Bytes file = saved(m, &x);
  for (bool copy : {false, true}) {
    const Loaded l(file, copy);
    REQUIRE_MESSAGE(l.status == Status::ok, l.model.problem().where << ": " << l.model.problem().what);
    const ModelExtras& y = *l.model.extras();
    REQUIRE(y.preprocessing != nullptr);
    CHECK(y.preprocessing->resize == Resize::letterbox);
    CHECK(y.preprocessing->invert);
    CHECK(y.preprocessing->background == 7);
    CHECK(y.preprocessing->mean[1] == 0.25f);
    CHECK(y.preprocessing->std[2] == 2.0f);
    CHECK(y.label_count == 3);
    CHECK(std::string(y.labels[1]) == labels[1]);
    CHECK(y.answer == Answer::softmax);
    CHECK(y.metadata_count == 2);
    CHECK(saved(l.model) == file);
    Block        memory(1 << 18);
    Arena        arena(memory.data(), memory.size());
    GoldenReport report;
    REQUIRE(run_golden(l.model, arena, report) == Status::ok);
    CHECK(report.ok);
    CHECK(report.count == 1);
    CHECK(report.max_abs_error == 0);
  }
  CHECK(verify_content(memory_source(file.data(), file.size())) == Status::ok);
}

TEST_CASE("writer: extras that do not fit the model are refused") {
  Built b;
  Model& m = b.model;
  m.output("logits", m.chain(m.input("x", {4}), Linear{0, 3}));
  REQUIRE(b.finish(9) == Status::ok);
  Bytes             out;
  Problem           problem;
  const char* const labels[] = {"a", "b", "\xFF"};
  const Metadata    metadata[] = {{"name", "x"}, {"author", "y"}};
  Preprocessing     p;
  for (int k = 0; k < 4; ++k) {
    ModelExtras x;
    if (k == 0) x.preprocessing = &p;
    x.labels      = k == 1 || k == 2 ? labels : nullptr;
    x.label_count = k == 1 ? 2 : k == 2 ? 3 : 0;
    if (k == 3) {
      x.metadata       = metadata;
      x.metadata_count = 2;
    }
    CHECK(save(m, sink_to(out), &x, &problem) == Status::bad_argument);
    CHECK(problem.status == Status::bad_argument);
  }
  CHECK(out.empty());
  Built none;
  none.model.output("y", none.model.chain(none.model.input("x", {2}), Linear{2, 1}));
  REQUIRE(none.model.finish(Seed{1}) == Status::ok);
  CHECK(save(none.model, sink_to(out)) == Status::no_weights);
}

TEST_CASE("writer: a damaged weight is found by the golden vectors, at its layer") {
  const Bytes hand = read_file(NNLITE_TESTS_DIR "/golden/tiny_linear.nnl");
  Bytes       b    = hand;
  put(b, find(b, 0xFFFF).offset, 4, 0x40000000);                         // fc.weight[0, 0] = 2
  repair(b);
  const Loaded l(b);
  REQUIRE(l.status == Status::ok);
  Block        memory(1 << 18);
  Arena        arena(memory.data(), memory.size());
  GoldenReport report;
  REQUIRE(run_golden(l.model, arena, report) == Status::ok);
  CHECK_FALSE(report.ok);
  CHECK(report.first_diverging == 1);
  CHECK(verify_content(memory_source(b.data(), b.size())) == Status::bad_checksum);
}

struct Full {
  size_t left;
};
static bool write_until_full(void* user, const void*, size_t n) {
  Full& f = *static_cast<Full*>(user);
  if (n > f.left) return false;
  f.left -= n;
  return true;
}

TEST_CASE("writer: a sink that fails at any byte is an io_error") {
  Built b;
  b.model.output("y", b.model.chain(b.model.input("x", {3}), Linear{3, 2}));
  REQUIRE(b.finish(1) == Status::ok);
  const size_t size = saved(b.model).size();
  for (size_t room = 0; room <= size; room += 8) {
    Full full = {room};
    CHECK(save(b.model, Sink{write_until_full, &full}) == (room == size ? Status::ok : Status::io_error));
  }
}

#if defined(__unix__)
// A folder of its own that is gone afterwards.
struct Folder {
  char path[64] = "/tmp/nnlite_writer_XXXXXX";
  Folder() { REQUIRE(mkdtemp(path) != nullptr); }
  ~Folder() {
    for (const std::string& name : list()) std::remove((std::string(path) + "/" + name).c_str());
    rmdir(path);
  }
  std::string file(const char* name) const { return std::string(path) + "/" + name; }
  std::vector<std::string> list() const {
    std::vector<std::string> names;
    DIR* d = opendir(path);
    while (const dirent* e = readdir(d))
      if (std::strcmp(e->d_name, ".") != 0 && std::strcmp(e->d_name, "..") != 0) names.push_back(e->d_name);
    closedir(d);
    return names;
  }
};

TEST_CASE("writer: a file is replaced whole, keeps its mode, and leaves nothing beside it") {
  Folder folder;
  Built  b;
  b.model.output("y", b.model.chain(b.model.input("x", {3}), Linear{3, 2}));
  REQUIRE(b.finish(1) == Status::ok);
  const std::string path = folder.file("model.nnl"), stale = folder.file(".model.nnl.tmp-1-0");
  write_file(path, Bytes(10, 'x'));
  write_file(stale, Bytes(10, 'x'));
  REQUIRE(chmod(path.c_str(), 0640) == 0);
  REQUIRE(save(b.model, path.c_str()) == Status::ok);
  struct stat s;
  REQUIRE(stat(path.c_str(), &s) == 0);
  CHECK((s.st_mode & 0777) == 0640);
  CHECK(read_file(path) == saved(b.model));
  CHECK(folder.list().size() == 1);
}

TEST_CASE("writer: what cannot be saved leaves the old file as it was") {
  Folder folder;
  Built  b, none;
  b.model.output("y", b.model.chain(b.model.input("x", {3}), Linear{3, 2}));
  REQUIRE(b.finish(1) == Status::ok);
  none.model.output("y", none.model.chain(none.model.input("x", {2}), Linear{2, 1}));
  REQUIRE(none.model.finish(Seed{1}) == Status::ok);
  const std::string path = folder.file("model.nnl");
  write_file(path, Bytes(10, 'x'));
  Problem problem;
  CHECK(save(none.model, path.c_str(), nullptr, &problem) == Status::no_weights);
  CHECK(read_file(path) == Bytes(10, 'x'));
  CHECK(folder.list().size() == 1);
  CHECK(save(b.model, folder.file("missing/model.nnl").c_str(), nullptr, &problem) == Status::io_error);
  CHECK(std::string(problem.what).find("No such file") != std::string::npos);
  CHECK(save(b.model, folder.path, nullptr, &problem) == Status::io_error);
  CHECK(folder.list().size() == 1);
}

// A child saves one of two contents again and again until it is killed; what lies there is always one of them.
TEST_CASE("writer: kill -9 while saving loses nothing") {
  const char* wish  = std::getenv("NNLITE_KILLS");
  const int   kills = wish == nullptr ? 50 : std::atoi(wish);
  Folder      folder;
  Built       a, b;
  const auto  make = [](Built& m, uint64_t seed) {
    m.model.output("y", m.model.chain(m.model.input("x", {64}), Linear{64, 256}, ReLU{}, Linear{256, 10}));
    return m.finish(seed);
  };
  REQUIRE(make(a, 1) == Status::ok);
  REQUIRE(make(b, 2) == Status::ok);
  const Bytes       first = saved(a.model), second = saved(b.model);
  const std::string path = folder.file("run.nnl");
  REQUIRE(save(a.model, path.c_str()) == Status::ok);
  int      lost  = 0;
  unsigned delay = 12345;
  for (int k = 0; k < kills; ++k) {
    const pid_t child = fork();
    if (child == 0)
      for (;;) {
        if (!ok(save(a.model, path.c_str()))) _exit(1);
        if (!ok(save(b.model, path.c_str()))) _exit(1);
      }
    delay = delay * 1664525u + 1013904223u;
    usleep(delay >> 18);                                                 // up to 16 ms
    kill(child, SIGKILL);
    int how = 0;
    waitpid(child, &how, 0);
    const Bytes now = read_file(path);
    lost += now != first && now != second;
    lost += WIFSIGNALED(how) ? 0 : 1;
  }
  CHECK(lost == 0);
  REQUIRE(save(a.model, path.c_str()) == Status::ok);
  CHECK(folder.list().size() == 1);
  MESSAGE("kills: " << kills << ", lost: " << lost);
}
#endif
