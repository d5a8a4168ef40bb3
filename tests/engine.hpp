// What tests of the whole engine share: guarded memory, a model with its records, numbers by seed. Everything
// is in an unnamed namespace, as the float and the double engine include it side by side.
#ifndef NNLITE_TESTS_ENGINE_HPP
#define NNLITE_TESTS_ENGINE_HPP

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "nnlite.hpp"

namespace {

// `size` bytes of 0xFF, which is not a number as a float, aligned to 64, with a canary before and behind.
class Guarded {
 public:
  explicit Guarded(size_t size = 0)
      : size_(size), bytes_(static_cast<unsigned char*>(::operator new(size + 128, std::align_val_t(64)))) {
    std::memset(bytes_.get(), 0xA5, size + 128);
    std::memset(data(), 0xFF, size);
  }
  unsigned char* data() const { return bytes_.get() + 64; }
  size_t         size() const { return size_; }
  nnlite::Arena  arena() const { return nnlite::Arena(data(), size_); }
  bool untouched() const { return all(data(), size_, 0xFF); }
  bool intact() const { return all(bytes_.get(), 64, 0xA5) && all(data() + size_, 64, 0xA5); }

 private:
  static bool all(const unsigned char* at, size_t n, unsigned char value) {
    for (size_t i = 0; i < n; i++) if (at[i] != value) return false;
    return true;
  }
  struct Free { void operator()(unsigned char* p) const { ::operator delete(p, std::align_val_t(64)); } };
  size_t size_;
  std::unique_ptr<unsigned char, Free> bytes_;
};

// A model that owns its records and, once given, its weights.
struct Net {
  Guarded        records;
  nnlite::Model model;
  Guarded        weights;

  explicit Net(size_t bytes = 1 << 16) : records(bytes), model(records.data(), records.size()) {}
  nnlite::Status materialise() {
    weights = Guarded(model.weight_bytes());
    nnlite::Arena arena = weights.arena();
    return model.materialise(arena);
  }
};

// Numbers by seed (Steele, Lea, Flood 2014: SplitMix64).
struct Draws {
  uint64_t state;
  explicit Draws(uint64_t seed) : state(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint32_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<uint32_t>((z ^ (z >> 31)) >> 32);
  }
  int   below(int n) { return static_cast<int>(next() % static_cast<uint32_t>(n)); }
  bool  chance(int percent) { return below(100) < percent; }
  float uniform() { return static_cast<float>(next() >> 8) * 0x1p-23f - 1.0f; }         // -1 .. 1
};

// Guarded for a trainer or a session of exactly the planned size, and the object built in it.
template <class Built, class Options>
struct Placed {
  nnlite::MemoryPlan plan;
  Guarded         memory;
  Built          it;
  nnlite::Status status;
  size_t         used = 0;

  Placed(const nnlite::Model& model, const Options& options) : status(Built::plan(model, options, plan)) {
    if (ok(status)) build(model, options);
  }
  template <class On>
  void build(const On& on, const Options& options) {
    memory = Guarded(plan.total);
    nnlite::Arena arena = memory.arena();
    status = it.build(on, options, arena);
    used   = arena.used();
  }
  std::string problem() const {
    const nnlite::Problem& p = ok(plan.problem.status) ? it.problem() : plan.problem;
    return std::string(p.where) + ": " + p.what;
  }
};
using PlacedTrainer = Placed<nnlite::Trainer, nnlite::TrainerOptions>;
using PlacedSession = Placed<nnlite::Session, nnlite::SessionOptions>;

// All parameters of a trainer or model, in logical order, one after another.
template <class Owner>
std::vector<nnlite::real> all_parameters(const nnlite::Model& model, const Owner& owner) {
  std::vector<nnlite::real> values;
  for (int i = 0; i < model.parameter_count(); i++) {
    std::vector<nnlite::real> one(static_cast<size_t>(model.parameter(i).count));
    if (!ok(owner.get(i, one.data()))) one.clear();
    values.insert(values.end(), one.begin(), one.end());
  }
  return values;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline std::vector<nnlite::real> random_values(uint64_t seed, size_t n) {
  Draws random(seed);
  std::vector<nnlite::real> v(n);
  for (nnlite::real& x : v) x = nnlite::real(random.uniform());
  return v;
}

inline std::vector<int32_t> random_labels(uint64_t seed, size_t n, int classes) {
  Draws random(seed);
  std::vector<int32_t> v(n);
  for (int32_t& x : v) x = random.below(classes);
  return v;
}

}  // namespace
#endif
