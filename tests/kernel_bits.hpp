// Whether the kernel rows of an op give the same bits on every instruction set of a class and for every
// number of workers, with and without accumulation, and agree with its plain loops.
#ifndef NNLITE_TESTS_KERNEL_BITS_HPP
#define NNLITE_TESTS_KERNEL_BITS_HPP

#include <doctest/doctest.h>

#include <memory>

#include "harness.hpp"

namespace {

// Numbers in [-scale, scale], the same for the same state.
struct Random {
  uint32_t state;
  double next(double scale = 1) {
    state = state * 1664525u + 1013904223u;
    return (static_cast<double>(state >> 8) * 0x1p-23 - 1) * scale;
  }
  Array array(int64_t n, double scale, double shift = 0) {
    Array a(static_cast<size_t>(n));
    for (double& v : a) v = static_cast<double>(static_cast<float>(next(scale) + shift));
    return a;
  }
};

// What a case is run on. Targets of classes are any class; what must lie in (0, 1) does.
Arrays random_arrays(const Case& c) {
  Arrays given;
  Random random{static_cast<uint32_t>(c.rows) * 7919u + 17u};
  const bool loss = (c.op.op()->traits & traits::loss) != 0;
  if ((c.op.op()->traits & traits::optimizer) != 0) {
    given["p0"] = random.array(c.in[0].dim[0], 1);
    given["g"]  = random.array(int64_t(c.in[0].dim[0]) * c.rows, double(c.scale));
    return given;
  }
  OpShape s;
  AnyOp   op = c.op;
  s.n_in = c.n_in();
  for (int i = 0; i < s.n_in; i++) {
    s.in[i].rank   = c.in[i].rank + 1;
    s.in[i].dim[0] = Shape::batch_dim;
    for (int d = 0; d < c.in[i].rank; d++) s.in[i].dim[d + 1] = c.in[i].dim[d];
    s.in_dtype[i] = real_dtype;
  }
  if (loss) s.n_in++;
  REQUIRE(op.op()->shape(op.attributes(), s) == Status::ok);
  const bool shares = loss && std::strcmp(op.op()->name, "BCELoss") == 0;
  for (int i = 0; i < s.n_in; i++) {
    Array& x = given["x" + std::to_string(i)];
    const bool target = loss && i + 1 == s.n_in;
    const bool within = shares || target;                                // 0.05 .. 0.95
    x = random.array(s.in[i].numel(c.rows), within ? 0.45 : double(c.scale), within ? 0.5 : 0);
    for (double& v : x)
      if (s.index_bound[i] > 0) v = std::floor(v * s.index_bound[i]);
  }
  for (int p = 0; p < s.n_parameters; p++)
    given["p" + std::to_string(p)] = random.array(s.parameters[p].shape.row_numel(), 0.9, 1);
  given["dy"] = random.array(s.out.numel(c.rows), 1);
  return given;
}

void check_bits(const Case& c) {
  CAPTURE(c.name);
  const Isa    before = current_isa();
  const Arrays given  = random_arrays(c);
  for (bool accumulate : {false, true}) {
    if (accumulate && (c.op.op()->traits & traits::accumulates) == 0) continue;
    Way way;
    way.accumulate = accumulate;
    const Outcome plain = run_one(c, given, way);
    REQUIRE(plain.status == "ok");
    for (bool fused : {true, false}) {
      std::unique_ptr<Outcome> first;
      for (int isa = 0; isa < isa_count; isa++) {
        if ((Isa(isa) != Isa::base) != fused || !set_isa(Isa(isa))) continue;
        for (int workers : {1, 2, 3, 7}) {
          way.isa     = isa;
          way.workers = workers;
          CAPTURE(std::string(isa_name(Isa(isa))));
          CAPTURE(workers);
          auto got = std::make_unique<Outcome>(run_one(c, given, way));
          CHECK(got->broken == "");
          CHECK(!got->rows.empty());
          for (const auto& result : plain.arrays) {
            const std::string& name = result.first;
            CAPTURE(name);
            CHECK(worst_error(got->arrays.at(name), result.second) <= c.tolerance);
            if (first) CHECK((got->arrays.at(name) == first->arrays.at(name)));
          }
          if (!first) first = std::move(got);
        }
      }
    }
  }
  (void)set_isa(before);
}

template <size_t n>
void check_bits(const Case (&cases)[n]) {
  for (const Case& c : cases) check_bits(c);
}

}  // namespace
#endif
