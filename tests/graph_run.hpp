// What came of running a random network (graphs.hpp): neutral, it includes no engine.
#ifndef NNLITE_TESTS_GRAPH_RUN_HPP
#define NNLITE_TESTS_GRAPH_RUN_HPP

#include <cstdint>
#include <string>
#include <vector>

struct GraphRun {
  std::string problem;
  std::vector<std::vector<double>> outputs, gradients, after;   // of every parameter; none: not trained
  double loss = 0;
};

// In the double engine: by planner and executor, and by a walk over the graph that keeps every value apart.
GraphRun run_engine_in_double(uint64_t seed, bool keep_gradients);
GraphRun run_naive_in_double(uint64_t seed);

#endif
