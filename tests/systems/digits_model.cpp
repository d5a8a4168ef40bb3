// The shipped models/digits.nnl: what it reads, what it rejects, and what it is taught in a moment.
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "evaluate.hpp"
#include "file.hpp"
#include "folder.hpp"
#include "made_digits.hpp"
#include "prepare.hpp"
#include "system.hpp"

namespace {
using namespace nnlite;

const std::string shipped = "models/digits.nnl", golden = "tests/golden/digits",
                  drawn = "synthetic-digits:2000";

struct Said {
  std::string label;
  bool rejected = false;
};

// A model that reads pictures, one at a time.
class Reader {
 public:
  explicit Reader(const std::string& path)
      : network_(load_network(path)),
        preparer_(preprocessing_of(network_->model), dims_of(network_->model.input_shape(0)), 1) {
    SessionOptions options;
    options.batch = 64;
    options.loss  = loss_for(network_->model);
    MemoryPlan plan;
    REQUIRE(Session::plan(network_->model, options, plan) == Status::ok);
    memory_     = Memory(plan.total);
    Arena arena = memory_.arena();
    REQUIRE(session_.build(network_->model, options, arena) == Status::ok);
  }
  Said read(const Picture& picture) {
    const Model& model = network_->model;
    const Seen seen    = preparer_.prepare(picture, "a picture", 0, session_.input().row(0));
    REQUIRE(session_.forward(1) == Status::ok);
    return {labels_of(model)[size_t(argmax(session_.output()))],
            why_rejected(model, seen, probabilities(model, session_.output().row(0))) != nullptr};
  }
  // In percent, with nothing rejected.
  double accuracy(const std::string& data, bool as_pictures = false) {
    const Reading how     = {nullptr, as_pictures};
    const Samples samples = samples_for(network_->model, open_data(data, "t10k"), 1, how);
    return 100 * evaluate(session_, samples).accuracy;
  }
  int rejected(const std::string& folder) {
    int count = 0;
    for (const std::string& path : list_pictures(folder)) count += read(read_picture(path)).rejected;
    return count;
  }

 private:
  std::unique_ptr<Network> network_;
  Memory memory_;
  Session session_;
  Preparer preparer_;
};

void run(const std::string& command) {
  INFO(command);
  REQUIRE(std::system((command + " 2> /dev/null").c_str()) == 0);
}

// An empty folder for the files of one test.
std::string folder_of(const std::string& test) {
  const std::string folder = NNLITE_SYSTEMS_OUT "/digits_" + test;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

std::string mnist_folder() {
  const char* data = std::getenv("NNLITE_DATA");
  return std::string(data ? data : "../shared/data") + "/mnist";
}

// Teaches a model what lies in the folder; gives the path of the new one.
std::string taught(const std::string& folder, const std::string& replay, const std::string& model = shipped) {
  const std::string out = folder + "/taught.nnl";
  const auto before     = std::chrono::steady_clock::now();
  run("'" NNLITE_PROGRAM "' finetune '" + model + "' --data '" + folder + "/lesson' --replay '" + replay +
      "' --out '" + out + "'");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
  std::printf("taught in %.1f s\n", seconds);
  return out;
}

// Draws symbols; gives how many of them the model reads.
int count_read(Reader& reader, const std::string& symbol, int count) {
  int right = 0;
  for (int i = 0; i < count; i++) {
    const Said said = reader.read(made_picture(symbol, Hands::reserved, 100, 400, random_of(2, size_t(i))));
    right += said.label == symbol && !said.rejected;
  }
  return right;
}

// Five drawings of the symbol are the lesson; of ten others at least nine are read.
std::string teach_symbol(const std::string& folder, const std::string& symbol, const std::string& replay,
                         const std::string& model = shipped) {
  run("'" NNLITE_SAMPLES "' drawn " + symbol + " '" + folder + "/lesson' 5 1");
  const std::string out = taught(folder, replay, model);
  Reader after(out);
  const int right = count_read(after, symbol, 10);
  std::printf("%s: %d of 10 others are read\n", symbol.c_str(), right);
  CHECK(right >= 9);
  return out;
}
}  // namespace

TEST_CASE("digits: hands that it never saw are read, and what is no digit is rejected") {
  const std::string folder = folder_of("others");
  run("'" NNLITE_SAMPLES "' others '" + folder + "' 200");
  Reader reader(shipped);
  const double accuracy = reader.accuracy(golden);
  const int unsure = reader.rejected(golden);
  std::printf("tests/golden/digits          %6.2f %%, rejected %d of 240\n", accuracy, unsure);
  int all = 0;
  for (const char* kind : other_kinds) {
    const int count = reader.rejected(folder + "/" + kind);
    std::printf("no digit: %-19s rejected %d of 50\n", kind, count);
    all += count;
  }
  std::printf("no digit                     rejected %d of 200\n", all);
  CHECK(accuracy >= 97);
  CHECK(all >= 180);
}

TEST_CASE("digits of MNIST: as they are, through the front end, and on 500 pages") {
  systems::Mnist mnist;
  if (!systems::read_mnist(mnist)) return;
  const std::string data = mnist_folder(), folder = folder_of("pages");
  run("'" NNLITE_SAMPLES "' composed '" + data + "' '" + folder + "'");
  Reader reader(shipped);
  const double raw = reader.accuracy(data), pictures = reader.accuracy(data, true);
  const double pages = reader.accuracy(folder);
  const int rejected = reader.rejected(folder);
  std::printf("MNIST test as it is          %6.2f %%\n", raw);
  std::printf("MNIST through the front end  %6.2f %%\n", pictures);
  std::printf("500 composed pages           %6.2f %%, rejected %d of 500\n", pages, rejected);
  CHECK(raw >= 99.4);
  CHECK(pictures >= 99.0);
  CHECK(pages >= 98.5);
  CHECK(rejected <= 5);
}

TEST_CASE("teaching: a symbol from 5 drawings, beside digits that the program draws") {
  const double before = Reader(shipped).accuracy(golden);
  for (const char* symbol : {"star", "triangle"}) {
    const std::string out = teach_symbol(folder_of(symbol), symbol, drawn);
    const double after    = Reader(out).accuracy(golden);
    std::printf("tests/golden/digits: %.2f %%, before %.2f %%\n", after, before);
    CHECK(after > before - 1);
  }
}

TEST_CASE("teaching: what an earlier lesson taught stays") {
  std::string model = shipped;
  const char* const symbols[] = {"star", "triangle", "A"};
  for (const char* symbol : symbols) model = teach_symbol(folder_of(std::string("then_") + symbol), symbol, drawn, model);
  Reader last(model);
  for (const char* symbol : symbols) {
    const int right = count_read(last, symbol, 10);
    std::printf("after three lessons %s: %d of 10\n", symbol, right);
    CHECK(right >= 9);
  }
}

TEST_CASE("teaching: many pictures of one class do not wipe out the others") {
  const std::string folder = folder_of("many");
  run("'" NNLITE_SAMPLES "' drawn star '" + folder + "/lesson' 501 1");
  const double before = Reader(shipped).accuracy(golden), after = Reader(taught(folder, drawn)).accuracy(golden);
  std::printf("tests/golden/digits: %.2f %%, before %.2f %%\n", after, before);
  CHECK(after > before - 1);
}

TEST_CASE("teaching: a wrong digit is right after being taught, the others stay") {
  Reader before(shipped);
  const double golden_before = before.accuracy(golden);
  int lessons = 0;
  for (size_t i = 0; lessons < 3 && i < 5000; i++) {
    const std::string digit = digit_names()[i % 10];
    const Picture picture   = made_picture(digit, Hands::reserved, 60, 300, random_of(3, i));
    if (before.read(picture).label == digit) continue;
    const std::string folder = folder_of("wrong");
    std::filesystem::create_directories(folder + "/lesson/" + digit);
    const Bytes png = encode_png(picture);
    write_file(folder + "/lesson/" + digit + "/0.png", png.data(), png.size());
    Reader after(taught(folder, drawn));
    const Said said           = after.read(picture);
    const double golden_after = after.accuracy(golden);
    std::printf("a %s is read as %s; tests/golden/digits %.2f %%, before %.2f %%\n", digit.c_str(),
                said.label.c_str(), golden_after, golden_before);
    CHECK(said.label == digit);
    CHECK(golden_after > golden_before - 1);
    lessons++;
  }
  CHECK(lessons == 3);
}

TEST_CASE("teaching beside MNIST: its test digits stay within half a point") {
  systems::Mnist mnist;
  if (!systems::read_mnist(mnist)) return;
  const std::string data = mnist_folder();
  const double before    = Reader(shipped).accuracy(data);
  const double after     = Reader(teach_symbol(folder_of("star_mnist"), "star", data)).accuracy(data);
  std::printf("MNIST test: %.2f %%, before %.2f %%\n", after, before);
  CHECK(after > before - 0.5);
}
