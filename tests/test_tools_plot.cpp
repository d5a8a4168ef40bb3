#include <doctest/doctest.h>

#include <string>

#include "plot.hpp"

TEST_CASE("plot: one polyline a curve, empty curves left out, text escaped") {
  const Curve train{"train", {1, 2, 3}, {0.9, 0.5, 0.3}}, none{"none", {}, {}};
  const std::string svg = draw_charts("a < b", {{"Loss", "epoch", "loss", {train, none}, false}});
  CHECK(svg.find("a &lt; b") != std::string::npos);
  std::size_t lines = 0;
  for (std::size_t at = svg.find("<polyline"); at != std::string::npos; at = svg.find("<polyline", at + 1))
    ++lines;
  CHECK(lines == 1);
  CHECK(svg.find("none</text>") == std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.substr(svg.size() - 7) == "</svg>\n");
}

TEST_CASE("plot: one point and no points draw axes") {
  for (const Curve& c : {Curve{"one", {1}, {0.5}}, Curve{"none", {}, {}}}) {
    const std::string svg = draw_charts("t", {{"Loss", "epoch", "loss", {c}, true}});
    CHECK(svg.find("nan") == std::string::npos);
    CHECK(svg.find("inf") == std::string::npos);
  }
}
