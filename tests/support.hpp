// What several test files share: named arrays, comparing them, golden files, and running one op in the float
// engine or in the double one (oracle.cpp) by plain loops or by kernel rows. Neutral: it includes no engine.
#ifndef NNLITE_TESTS_SUPPORT_HPP
#define NNLITE_TESTS_SUPPORT_HPP

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

// Arrays by the names that make_golden.py gives them: x0, p0, dy, y, dx0, dp0, ... Parameters are in logical
// order.
using Array  = std::vector<double>;
using Arrays = std::map<std::string, Array>;

// How an op is run. Without an instruction set: by plain loops. With one (a number of enum Isa): by the
// `choice`-th accepted row of each phase, of the ones there are; the plain loop stands in where there is
// none.
struct Way {
  int  isa        = -1;
  int  choice     = 0;
  int  workers    = 1;
  // input gradients are added to already_there(k), which the results contain
  bool accumulate = false;
  bool inputs     = true;                      // gradients wanted
  bool parameters = true;
};
inline double already_there(size_t k) { return double(k % 7) - 3; }

// What came of it. `status` is the shape function's, "ok" or its name; `rows` the kernel rows used, "" for
// plain loops.
struct Outcome {
  std::string status;
  Arrays      arrays;
  std::string rows;
  int         choices = 1;                     // the most rows that one phase accepted
  // a broken rule: read before written, padding not zero, input changed
  std::string broken;
};

// Runs case number `index` of all_cases() on `given` (x.., p.., dy; an optimizer: p0, g).
Outcome run_case(int index, const Arrays& given, const Way& way = {});
Outcome run_case_in_double(int index, const Arrays& given, const Way& way = {});

// The largest |a - b| as a share of the largest |b|; infinity where sizes differ or a value is not finite in
// one alone.
inline double worst_error(const Array& a, const Array& b) {
  if (a.size() != b.size()) return HUGE_VAL;
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); i++) {
    if (std::isnan(a[i]) != std::isnan(b[i])) return HUGE_VAL;
    if (a[i] == b[i]) continue;                                  // also infinities
    error = std::fmax(error, std::fabs(a[i] - b[i]));
    size  = std::fmax(size, std::fabs(b[i]));
  }
  for (double v : b) size = std::isfinite(v) ? std::fmax(size, std::fabs(v)) : size;
  return error > 0 ? error / size : 0;
}

inline std::string test_folder() {
  const std::string file = __FILE__;
  return file.substr(0, file.find_last_of("/\\") + 1);
}

// The golden arrays of one op by the JSON line of the case. Empty when there is no file.
inline std::map<std::string, Arrays> load_golden(const std::string& op) {
  std::map<std::string, Arrays> cases;
  std::FILE* file = std::fopen((test_folder() + "golden/" + op + ".bin").c_str(), "rb");
  if (file == nullptr) return cases;
  uint32_t n = 0;
  const auto read = [&](void* to, size_t bytes) { return std::fread(to, 1, bytes, file) == bytes; };
  while (read(&n, 4)) {
    std::string json(n, ' ');
    uint32_t arrays = 0;
    if (!read(&json[0], n) || !read(&arrays, 4)) break;
    for (uint32_t k = 0; k < arrays; k++) {
      char name[5] = {};
      if (!read(name, 4) || !read(&n, 4)) break;
      std::vector<float> values(n);
      if (!read(values.data(), n * sizeof(float))) break;
      cases[json][name] = Array(values.begin(), values.end());
    }
  }
  std::fclose(file);
  return cases;
}

#endif
