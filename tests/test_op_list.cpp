#include <doctest/doctest.h>

#include <set>

#include "harness.hpp"

Outcome run_case(int index, const Arrays& given, const Way& way) {
  const Isa before = current_isa();
  if (way.isa >= 0) (void)set_isa(Isa(way.isa));
  Outcome o = run_one(all_cases()[static_cast<size_t>(index)], given, way);
  (void)set_isa(before);
  return o;
}

namespace test_op_list {

static bool is_schedule(const Case& c) { return (c.op.op()->traits & traits::schedule) != 0; }
static bool is_optimizer(const Case& c) { return (c.op.op()->traits & traits::optimizer) != 0; }

// The golden arrays of every case, read once.
static const Arrays& golden(const Case& c) {
  static std::map<std::string, std::map<std::string, Arrays>> files;
  const std::string op = c.op.op()->name;
  if (files.count(op) == 0) files[op] = load_golden(op);
  return files[op][case_json(c)];
}

// Compares all results that `o` has with those of `with`.
struct Worst {
  double error = 0;
  std::string where = "none";
  int compared = 0;

  void compare(const Case& c, const Outcome& o, const Arrays& with, bool accumulated = false) {
    for (const auto& [name, values] : o.arrays) {
      if (with.count(name) == 0) continue;
      Array expected = with.at(name);
      for (size_t k = 0; k < expected.size() && accumulated && name.compare(0, 2, "dx") == 0; k++)
        expected[k] += already_there(k);
      const double e = worst_error(values, expected);
      compared++;
      if (e > error)
        error = e, where = std::string(c.name) + ", " + name + (o.rows.empty() ? "" : " by ") + o.rows;
    }
  }
};

// Every case that has golden values, with its number.
template <class F>
static void each_case(F f) {
  const auto& all = all_cases();
  for (size_t i = 0; i < all.size(); i++) {
    const std::string name = all[i].name;
    CAPTURE(name);
    const Arrays& given = golden(all[i]);
    REQUIRE_MESSAGE(!given.empty(), "no golden values for " << case_json(all[i]) << ": run make_golden.py");
    f(static_cast<int>(i), all[i], given);
  }
}

TEST_CASE("op_list: names are sorted, found, and nothing else is") {
  const OpSet set = all_ops();
  for (int i = 0; i < set.count; i++) {
    if (i > 0) CHECK(std::strcmp(set.ops[i - 1]->name, set.ops[i]->name) < 0);
    const std::string name = set.ops[i]->name;
    CHECK(find_op(set, name.c_str()) == set.ops[i]);
    CHECK(find_op(set, (name + "x").c_str()) == nullptr);
    CHECK(find_op(set, name.substr(0, name.size() - 1).c_str()) != set.ops[i]);
  }
  CHECK(find_op(set, "") == nullptr);
  CHECK(find_op(set, "\xFF") == nullptr);
}

TEST_CASE("op_list: what runs, trains, and every op has its cases") {
  std::map<std::string, int> cases;
  std::set<std::string> names;
  for (const Case& c : all_cases()) {
    cases[c.op.op()->name]++;
    CHECK_MESSAGE(names.insert(c.name).second, c.name << " is there twice");
    CHECK(find_op(all_ops(), c.op.op()->name) == c.op.op());
    CHECK_MESSAGE(std::string(c.name).find(c.op.op()->name + std::string(":")) == 0,
                  c.name << " is named after another op");
    if (c.tolerance > 1e-5) CHECK_MESSAGE(c.why[0] != '\0', c.name << " is tolerant without a reason");
  }
  const OpSet set = all_ops();
  for (int i = 0; i < set.count; i++) {
    const Op& op = *set.ops[i];
    const std::string name = op.name;
    CAPTURE(name);
    const bool schedule = (op.traits & traits::schedule) != 0,
               optimizer = (op.traits & traits::optimizer) != 0;
    if (!schedule) CHECK((op.forward != nullptr));
    if (!schedule && !optimizer) CHECK((op.backward != nullptr));
    CHECK(((op.traits & traits::stateful) != 0) == (op.commit != nullptr));
    CHECK(cases[op.name] >= (schedule ? 1 : 8));
    CHECK(op.attr_size <= max_attributes);
    std::set<int> ids;
    for (int f = 0; f < op.n_fields; f++) {
      CHECK(op.fields[f].id > 0);
      CHECK(ids.insert(op.fields[f].id).second);
      CHECK(op.fields[f].offset < op.attr_size);
    }
  }
}

TEST_CASE("op_list: plain loops in double agree with PyTorch") {
  Worst worst;
  each_case([&](int i, const Case& c, const Arrays& given) {
    const Outcome o = run_case_in_double(i, given);
    CHECK(o.status == "ok");
    CHECK(o.broken == "");
    Worst mine;
    mine.compare(c, o, given);
    worst.compare(c, o, given);
    CHECK_MESSAGE(mine.error <= 1e-7, mine.where << ": " << mine.error);          // the files hold floats
    CHECK(mine.compared >= (is_schedule(c) ? 1 : 2));
  });
  MESSAGE("worst " << worst.error << " of " << worst.compared << " arrays: " << worst.where);
}

// y and gradients of the float engine against PyTorch and against the double one.
static void check_float(const Way& way, Worst& worst, std::set<std::string>* rows = nullptr) {
  each_case([&](int i, const Case& c, const Arrays& given) {
    if (way.accumulate && (c.op.op()->traits & traits::accumulates) == 0) return;
    const Arrays exact = run_case_in_double(i, given).arrays;
    Way mine = way;
    for (int choices = 1; mine.choice < choices; mine.choice++) {
      const Outcome o = run_case(i, given, mine);
      choices = o.choices;
      CHECK(o.status == "ok");
      CHECK(o.broken == "");
      Worst here;
      here.compare(c, o, given, way.accumulate);
      here.compare(c, o, exact, way.accumulate);
      worst.compare(c, o, given, way.accumulate);
      CHECK_MESSAGE(here.error <= c.tolerance, here.where << ": " << here.error);
      if (rows != nullptr && !o.rows.empty()) rows->insert(o.rows);
    }
  });
}

TEST_CASE("op_list: plain loops in float agree with PyTorch and with double") {
  Worst worst;
  check_float(Way{}, worst);
  MESSAGE("worst " << worst.error << ": " << worst.where);
}

TEST_CASE("op_list: plain loops write only the gradients that are wanted, and add where told") {
  Worst worst;
  Way way;
  way.parameters = false;
  check_float(way, worst);
  way.accumulate = true;
  check_float(way, worst);
  way = Way{};
  way.inputs = false;
  check_float(way, worst);
}

TEST_CASE("op_list: kernel rows of every instruction set agree with PyTorch and with double") {
  for (int isa = 0; isa < isa_count; isa++) {
    if (!isa_present(Isa(isa))) continue;
    Worst worst;
    std::set<std::string> rows;
    for (int workers : {1, 3}) {
      Way way;
      way.isa     = isa;
      way.workers = workers;
      check_float(way, worst, &rows);
      way.accumulate = true;
      check_float(way, worst, &rows);
    }
    Way way;
    way.isa = isa;
    way.inputs = false;
    check_float(way, worst, &rows);
    way.inputs = true, way.parameters = false;
    check_float(way, worst, &rows);
    MESSAGE(std::string(isa_name(Isa(isa)))
            << ": " << rows.size() << " combinations of rows, worst " << worst.error << ": " << worst.where);
  }
}

// True where all results have the same bits, zeros of both signs included.
static bool same_bits(const Arrays& a, const Arrays& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, values] : a) {
    const auto other = b.find(name);
    if (other == b.end() || other->second.size() != values.size()) return false;
    if (std::memcmp(values.data(), other->second.data(), values.size() * sizeof(double)) != 0) return false;
  }
  return true;
}

TEST_CASE("op_list: the same bits from every instruction set of a class and every worker count") {
  each_case([&](int i, const Case&, const Arrays& given) {
    Way first;
    first.isa = static_cast<int>(Isa::scalar);
    if (!isa_present(Isa::scalar)) return;
    const Arrays fused = run_case(i, given, first).arrays;
    first.isa = static_cast<int>(Isa::base);
    const Arrays twice = isa_present(Isa::base) ? run_case(i, given, first).arrays : fused;
    for (int isa = 0; isa < isa_count; isa++) {
      if (!isa_present(Isa(isa))) continue;
      for (int workers : {1, 2, 3, 7}) {
        Way way;
        way.isa = isa, way.workers = workers;
        CHECK_MESSAGE(same_bits(run_case(i, given, way).arrays, Isa(isa) == Isa::base ? twice : fused),
                      std::string(isa_name(Isa(isa))) << ", " << workers << " workers");
      }
    }
  });
}

// sum y dy, or the loss, as a function of one element.
static double objective(int i, const Arrays& given) {
  Way forward;
  forward.inputs = forward.parameters = false;
  const Array y = run_case_in_double(i, given, forward).arrays.at("y");
  if (given.count("dy") == 0) return y[0];
  double sum = 0;
  for (size_t k = 0; k < y.size(); k++) sum += y[k] * given.at("dy")[k];
  return sum;
}

TEST_CASE("op_list: gradients in double agree with differences") {
  double worst = 0;
  each_case([&](int i, const Case& c, const Arrays& given) {
    if (is_optimizer(c) || is_schedule(c) || c.ties) return;
    const Arrays exact = run_case_in_double(i, given).arrays;
    for (const auto& result : exact) {
      const std::string& name = result.first;
      const Array& gradient   = result.second;
      if (name[0] != 'd') continue;
      const std::string of = name.substr(1);
      const double h = 1e-5 * (of[0] == 'x' ? double(c.scale) : 1.0);
      Array differences, analytic;
      for (size_t k = 0; k < gradient.size(); k += gradient.size() / 12 + 1) {
        Arrays near = given;
        near[of][k] = given.at(of)[k] + h;
        const double above = objective(i, near);
        near[of][k] = given.at(of)[k] - h;
        differences.push_back((above - objective(i, near)) / (2 * h));
        analytic.push_back(gradient[k]);
      }
      double size = 0, error = 0;
      for (double g : gradient) size = std::fmax(size, std::fabs(g));
      for (size_t k = 0; k < analytic.size(); k++)
        error = std::fmax(error, std::fabs(analytic[k] - differences[k]));
      CHECK_MESSAGE(error <= 1e-6 * size, name << ": " << error / size);
      if (size > 0) worst = std::fmax(worst, error / size);
    }
  });
  MESSAGE("worst " << worst);
}

}  // namespace test_op_list
