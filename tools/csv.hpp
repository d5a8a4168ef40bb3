// Tables: comma-separated numbers, the last column the label.
#pragma once

#include <string>

#include "samples.hpp"

// Features as floats, labels as the index of the sorted distinct values of the last column. A first line
// without a number in it is a heading. A hole, a word, NaN, infinity or a row of another length fails with
// line and column.
Samples read_csv(const std::string& path);

// Reads what read_csv reads from text in memory; `name` is for messages.
Samples parse_csv(const std::string& text, const std::string& name);
