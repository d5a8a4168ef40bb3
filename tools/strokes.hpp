// Handwriting without a hand: digits, letters and symbols as the strokes of a pen, written down by us in several
// shapes each.
#pragma once

#include <string>
#include <vector>

#include "random.hpp"

struct Point {
  float x = 0, y = 0;
};
using Stroke = std::vector<Point>;  // a line from point to point, close enough to look curved
using Strokes = std::vector<Stroke>;

// Which shapes may be drawn. Those of `reserved` are kept for tests: no training picture has them.
enum class Hands { training, reserved };

// What can be drawn: "0" .. "9", and what is no digit, by name ("A", "star").
const std::vector<std::string>& digit_names();
const std::vector<std::string>& other_names(Hands hands);
bool can_draw(const std::string& name, Hands hands);
int shape_count(const std::string& name, Hands hands);

// One writing of a shape: its points shaken, joined by smooth curves, bent, slanted and turned. x and y are in
// units of the height of the writing, about 0 in the middle; y goes down.
Strokes write(const std::string& name, Hands hands, Random& random);
