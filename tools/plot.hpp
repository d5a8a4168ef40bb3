// Line charts as SVG.
#pragma once

#include <string>
#include <vector>

#include "file.hpp"

inline constexpr FileKind plot_kind = {"plot", "<!-- A plot, by nnlite. -->\n"};

struct Curve {
  std::string name;
  std::vector<double> x, y;
};

struct Chart {
  std::string title, x_label, y_label;
  std::vector<Curve> curves;
  bool percent = false;  // y from 0 to 1, written as percent
};

// The charts side by side under one title. Curves without points are left out.
std::string draw_charts(const std::string& title, const std::vector<Chart>& charts);
