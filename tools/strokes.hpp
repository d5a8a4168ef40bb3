// Handwriting without a hand: digits, letters and symbols as the strokes of a pen, several shapes of each.
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
// The shapes of one of them, each as the points that the pen passes; none for a name that nobody knows.
std::vector<std::string> shapes_of(const std::string& name, Hands hands);

// One writing of one of the shapes: its points shaken, joined by smooth curves, bent, slanted and turned. Its
// middle is at 0, the larger of its height and width is 1; y goes down.
Strokes write(const std::string& name, Hands hands, Random& random);
