#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "arch.hpp"
#include "attributes.hpp"
#include "evaluate.hpp"
#include "failure.hpp"
#include "lessons.hpp"
#include "network.hpp"

using namespace nnlite;

namespace {

std::string usage_of(const std::string& arch) {
  try {
    build_arch(arch, ArchWish{}, Seed{1});
  } catch (const UsageError& error) { return error.text; }
  return "";
}

Bytes small_file() {
  const std::unique_ptr<Network> network = build_arch("linear 3, relu", ArchWish{Dims(2), 0}, Seed{1});
  const Memory weights(network->model.weight_bytes());
  Arena arena = weights.arena();
  require(network->model.materialise(arena), network->model.problem(), "x");
  static const Metadata author = {"author", "nobody"};
  ModelExtras extras;
  extras.metadata = &author;
  extras.metadata_count = 1;
  return serialise(network->model, extras);
}

std::uint32_t u32(const Bytes& b, std::size_t at) {
  std::uint32_t v;
  std::memcpy(&v, b.data() + at, 4);
  return v;
}

void put_u32(Bytes& b, std::size_t at, std::uint32_t v) { std::memcpy(b.data() + at, &v, 4); }

// Makes every checksum right again: sections, table, header.
void repair(Bytes& b) {
  const std::uint32_t n = u32(b, 48);
  const std::size_t first = u32(b, 128 + 8);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t record = 128 + 48 * i, from = u32(b, record + 8);
    const std::size_t to = i + 1 < n ? u32(b, record + 48 + 8) : b.size();
    put_u32(b, record + 24, crc32c(0, b.data() + from, to - from));
  }
  put_u32(b, 120, crc32c(0, b.data() + 128, first - 128));
  put_u32(b, 124, crc32c(0, b.data(), 124));
}

std::string load_failure(const Bytes& bytes) {
  try {
    load_network(bytes, "m.nnl");
  } catch (const Failure& failure) { return one_line(failure); }
  return "";
}

}  // namespace

TEST_CASE("model: a file loads, and files from the future are refused with what they need") {
  const Bytes good = small_file();
  CHECK(load_failure(good) == "");
  Bytes major = good;
  major[8] = 2;
  repair(major);
  CHECK(load_failure(major).find("m.nnl") != std::string::npos);
  Bytes section = good;  // the first section is META, 0x0001: make it one that nobody knows and that matters
  section[128] = 2;
  section[128 + 6] = 1;
  repair(section);
  CHECK(load_failure(section).find("m.nnl") != std::string::npos);
  Bytes op = good;
  for (std::size_t i = 0; i + 4 < op.size(); ++i)
    if (std::memcmp(op.data() + i, "ReLU", 4) == 0) op[i] = 'X';
  repair(op);
  CHECK(load_failure(op).find("XeLU") != std::string::npos);
}

TEST_CASE("model: every truncation is refused in one line") {
  const Bytes good = small_file();
  for (std::size_t n = 1; n < good.size(); ++n) {
    const std::string line = load_failure(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)));
    CHECK(!line.empty());
    CHECK(line.find('\n') == std::string::npos);
  }
}

TEST_CASE("arch: a bad list says what is wrong with it") {
  CHECK(usage_of("conv").find("the number of channels is missing") != std::string::npos);
  CHECK(usage_of("conv 8 3 strude 2").find("'strude' is not known here") != std::string::npos);
  CHECK(usage_of("konv 8").find("'konv' is neither a network") != std::string::npos);
  CHECK(usage_of("relu,,relu").find("an empty layer") != std::string::npos);
  CHECK(usage_of("conv 8 x").find("'x' is not a size") != std::string::npos);
  CHECK(usage_of("mlp:4").find("only unet takes a number") != std::string::npos);
  CHECK(usage_of("unet:0").find("the base is 1 to 1024") != std::string::npos);
  CHECK(usage_of("flatten, conv 8 3").find("cannot be built") != std::string::npos);
}

TEST_CASE("arch: conv pads half its kernel unless told otherwise") {
  const std::unique_ptr<Network> a = build_arch("conv 8 5", ArchWish{}, Seed{1});
  CHECK(shape_text(a->model.output_shape(0)) == "28 x 28 x 8");
  const std::unique_ptr<Network> b = build_arch("conv 8 5 pad 0 stride 2", ArchWish{}, Seed{1});
  CHECK(shape_text(b->model.output_shape(0)) == "12 x 12 x 8");
}

TEST_CASE("arch: data decides the classes of a named network") {
  const std::unique_ptr<Network> network = build_arch("lenet", ArchWish{Dims(), 3}, Seed{1});
  CHECK(output_size(network->model) == 3);
}

TEST_CASE("attributes: settings by name") {
  const AnyOp sgd = parse_optimizer("sgd:momentum=0.9,nesterov");
  CHECK(get_attribute(sgd, "momentum") == doctest::Approx(0.9));
  CHECK(get_attribute(sgd, "nesterov") == 1);
  CHECK(get_attribute(parse_optimizer("adam:beta2=0.99"), "beta2") == doctest::Approx(0.99));
  CHECK(get_attribute(parse_schedule("step:step_size=5"), "step_size") == 5);
  CHECK(text_of(parse_optimizer("adam:beta1=0.9")) == "adam");
  CHECK(text_of(parse_optimizer("adam:lr=0.5,beta1=0.8")) == "adam:lr=0.5,beta1=0.8");
  CHECK(text_of(parse_optimizer("adam:lr=0.5"), {"lr"}) == "adam");
  CHECK_THROWS_AS(parse_optimizer("lion"), UsageError);
  CHECK_THROWS_AS(parse_optimizer("sgd:speed=1"), UsageError);
  CHECK_THROWS_AS(parse_optimizer("sgd:momentum=fast"), UsageError);
}

TEST_CASE("lessons: a model carries them in a section of its file, of each class the newest") {
  const std::unique_ptr<Network> network =
      build_arch("flatten, linear 3", ArchWish{Dims(2, 2, 1), 0}, Seed{1});
  const Memory weights(network->model.weight_bytes());
  Arena arena = weights.arena();
  require(network->model.materialise(arena), network->model.problem(), "x");
  Samples lessons = lessons_of(network->model);
  CHECK(lessons.count() == 0);
  for (int i = 0; i < 25; ++i) {
    lessons.labels.push_back(i == 7 ? 2 : 1);
    for (int k = 0; k < 4; ++k) lessons.bytes.push_back(static_cast<std::uint8_t>(4 * i + k));
  }
  Samples again = lessons;
  again.labels.resize(1);
  again.bytes.resize(4);
  again.labels[0] = 0;  // no, that is a 0
  CHECK(without_repeated(lessons, again).count() == 24);
  CHECK(without_repeated(lessons, again).bytes[0] == 4);
  lessons = newest(lessons);
  CHECK(lessons.count() == 21);
  Bytes section = lesson_section(lessons);
  const auto carried = [&]() {
    const std::vector<OtherSection> sections = sections_with({}, section);
    ModelExtras extras;
    extras.others = sections.data();
    extras.other_count = static_cast<int>(sections.size());
    const std::unique_ptr<Network> loaded = load_network(serialise(network->model, extras), "x");
    CHECK(sections_with(extras_of(loaded->model), {}).empty());
    return lessons_of(loaded->model);
  };
  CHECK(carried().labels == lessons.labels);
  CHECK(carried().bytes == lessons.bytes);
  CHECK(carried().bytes[0] == 4 * 4);
  section[0] = 3;  // a class that the model does not have
  section.resize(section.size() - 5);
  CHECK(carried().count() == 19);
}

TEST_CASE("threshold: at most the share of right answers that was asked for falls under it") {
  std::vector<double> right;
  for (int i = 1; i <= 100; ++i) right.push_back(i / 100.0);
  CHECK(threshold_for(right, 0.05) == doctest::Approx(0.06));
  CHECK(threshold_for(right, 0) == doctest::Approx(0.01));
  CHECK(threshold_for({}, 0.05) == 0);
}

TEST_CASE("threads: large networks are shared, small ones are not") {
  // counts the jobs that it is given
  int  jobs = 0;
  Pool pool;
  pool.workers = 2;
  pool.user = &jobs;
  pool.run = [](void* user, int workers, void (*job)(void*, int), void* context) {
    ++*static_cast<int*>(user);
    for (int worker = 0; worker < workers; worker++) job(context, worker);
  };
  for (const int batch : {1, 64}) {              // on every instruction set
    const std::unique_ptr<Network> network = build_arch(batch == 1 ? "flatten, linear 10" : "lenet", ArchWish{}, Seed{1});
    const Memory weights(network->model.weight_bytes());
    Arena at = weights.arena();
    require(network->model.materialise(at), network->model.problem(), "network");
    SessionOptions options;
    options.batch = batch;
    options.pool  = &pool;
    MemoryPlan plan;
    require(Session::plan(network->model, options, plan), plan.problem, "lenet");
    const Memory memory(plan.total);
    Arena arena = memory.arena();
    Session session;
    require(session.build(network->model, options, arena), session.problem(), "lenet");
    for (int i = 0; i < batch * 28 * 28; i++) session.input()[i] = 0.5f;
    jobs = 0;
    REQUIRE(ok(session.forward()));
    if (batch == 1) CHECK(jobs == 0);
    else CHECK(jobs >= 5);                       // convolutions, pools, linear layers but the last
  }
}
