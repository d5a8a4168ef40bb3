#include <doctest/doctest.h>

#include <cmath>

#include "networks.hpp"
#include "support.hpp"

NetworkRun run_network(int index, const std::vector<std::vector<double>>& parameters) {
  return step_network(networks[index], parameters);
}
int network_count() { return static_cast<int>(sizeof(networks) / sizeof(networks[0])); }
const char* network_name(int index) { return networks[index].name; }

TEST_CASE("networks: gradients of the float engine agree with those of the double one") {
  double worst = 0;
  std::string where;
  for (int i = 0; i < network_count(); i++) {
    const std::string name = networks[i].name;
    CAPTURE(name);
    const NetworkRun fast = run_network(i), exact = run_network_in_double(i);
    REQUIRE(fast.status == "ok");
    REQUIRE(exact.status == "ok");
    CHECK(std::fabs(fast.loss - exact.loss) <= 1e-5 * std::fabs(exact.loss));
    REQUIRE(fast.names == exact.names);
    int trained = 0;
    for (size_t p = 0; p < exact.gradients.size(); p++) {
      CHECK(fast.parameters[p] == exact.parameters[p]);
      trained += !exact.gradients[p].empty();
      const double error = worst_error(fast.gradients[p], exact.gradients[p]);
      CHECK_MESSAGE(error <= 1e-5, exact.names[p] << ": " << error);
      if (error > worst) worst = error, where = std::string(networks[i].name) + ", " + exact.names[p];
    }
    CHECK(trained > 0);
  }
  MESSAGE(network_count() << " networks, worst " << worst << ": " << where);
}

TEST_CASE("networks: gradients of the double engine agree with differences of its loss") {
  double worst = 0;
  std::string where;
  for (int i = 0; i < network_count(); i++) {
    const std::string name = networks[i].name;
    CAPTURE(name);
    const NetworkRun exact = run_network_in_double(i);
    REQUIRE(exact.status == "ok");
    for (size_t p = 0; p < exact.gradients.size(); p++) {
      const std::vector<double>& g = exact.gradients[p];
      double size = 0, error = 0;
      for (double v : g) size = std::fmax(size, std::fabs(v));
      for (size_t k = 0; k < g.size(); k += g.size() / 4 + 1) {
        const double h = 1e-5;
        auto near = exact.parameters;
        near[p][k] = exact.parameters[p][k] + h;
        const double above = run_network_in_double(i, near).loss;
        near[p][k] = exact.parameters[p][k] - h;
        error = std::fmax(error, std::fabs(g[k] - (above - run_network_in_double(i, near).loss) / (2 * h)));
      }
      CHECK_MESSAGE(error <= 1e-6 * size, exact.names[p] << ": " << error / size);
      if (size > 0 && error / size > worst)
        worst = error / size, where = std::string(networks[i].name) + ", " + exact.names[p];
    }
  }
  MESSAGE("worst " << worst << ": " << where);
}
