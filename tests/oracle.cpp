// The engine in double, in the same program: its inline namespace differs. It judges the float one.
#define NNLITE_REAL double
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

#include "harness.hpp"
#include "naive.hpp"
#include "networks.hpp"

Outcome run_case_in_double(int index, const Arrays& given, const Way& way) {
  return run_one(all_cases()[static_cast<size_t>(index)], given, way);
}

NetworkRun run_network_in_double(int index, const std::vector<std::vector<double>>& parameters) {
  return step_network(networks[index], parameters);
}

GraphRun run_engine_in_double(uint64_t seed, bool keep_gradients) { return run_engine(seed, keep_gradients); }
GraphRun run_naive_in_double(uint64_t seed) { return run_naive(seed); }
