#include "csv.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <locale>
#include <sstream>

#include "failure.hpp"
#include "file.hpp"

namespace {

std::string trimmed(const std::string& text) {
  const char* const blank = " \t\r";
  const std::size_t from = text.find_first_not_of(blank);
  if (from == std::string::npos) return "";
  return text.substr(from, text.find_last_not_of(blank) - from + 1);
}

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> cells;
  std::size_t from = 0;
  for (;;) {
    const std::size_t to = line.find(',', from);
    cells.push_back(trimmed(line.substr(from, to == std::string::npos ? to : to - from)));
    if (to == std::string::npos) return cells;
    from = to + 1;
  }
}

// strtod also takes hexadecimal, "nan" and "inf": letters other than an exponent are refused.
bool is_number(const std::string& cell, double& value) {
  if (cell.empty() || cell.find_first_not_of("0123456789+-.eE") != std::string::npos) return false;
  char* end = nullptr;
  value = std::strtod(cell.c_str(), &end);
  return *end == '\0';
}

double number(const std::string& cell, const std::string& name, std::size_t line, std::size_t column) {
  const std::string where = fmt::format("{}, line {}, column {}", name, line, column);
  double value = 0;
  if (cell.empty()) fail("a hole in the table", where, "fill it in or leave the row out");
  if (!is_number(cell, value))
    fail(fmt::format("'{}' is not a number", cell.substr(0, 40)), where, "give a number");
  if (!std::isfinite(static_cast<float>(value)))
    fail(fmt::format("{} is too large", cell), where, "give a smaller number");
  return value;
}

std::vector<std::string> label_names(const std::vector<double>& values, std::vector<std::int32_t>& labels) {
  std::vector<double> known = values;
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  for (double v : values)
    labels.push_back(
        static_cast<std::int32_t>(std::lower_bound(known.begin(), known.end(), v) - known.begin()));
  std::vector<std::string> names;
  for (double v : known) names.push_back(fmt::format("{}", v));
  return names;
}

}  // namespace

Samples parse_csv(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  std::string line;
  Samples samples;
  samples.source = name;
  std::vector<double> last;
  std::size_t columns = 0, row = 0;
  for (std::size_t n = 1; std::getline(lines, line); ++n) {
    if (n == 1 && line.rfind("\xef\xbb\xbf", 0) == 0) line.erase(0, 3);  // byte order mark
    if (trimmed(line).empty()) continue;
    const std::vector<std::string> cells = split(line);
    double ignored = 0;
    if (row == 0 && columns == 0 && cells.size() > 1 &&
        std::none_of(cells.begin(), cells.end(),
                     [&](const std::string& c) { return c.empty() || is_number(c, ignored); }) &&
        std::none_of(cells.begin(), cells.end(),
                     [](const std::string& c) { return c == "nan" || c == "NaN" || c == "inf"; })) {
      columns = cells.size();
      continue;
    }
    if (columns == 0) columns = cells.size();
    if (columns < 2)
      fail("a single column", fmt::format("{}, line {}", name, n), "give features and, last, the label");
    if (cells.size() != columns)
      fail(fmt::format("{} columns in place of {}", cells.size(), columns),
           fmt::format("{}, line {}", name, n), "make all rows as long");
    for (std::size_t c = 0; c + 1 < columns; ++c)
      samples.floats.push_back(static_cast<float>(number(cells[c], name, n, c + 1)));
    last.push_back(number(cells[columns - 1], name, n, columns));
    if (last.back() != std::floor(last.back()) || last.back() < 0 || last.back() > 999)
      fail(fmt::format("'{}' is not a class", cells[columns - 1]),
           fmt::format("{}, line {}, column {}", name, n, columns), "give whole numbers, 0 to 999, in the last column");
    ++row;
  }
  if (row == 0) fail("a table without rows", name, "give rows of numbers, the last column the label");
  samples.shape = {static_cast<int>(columns - 1)};
  samples.label_names = label_names(last, samples.labels);
  return samples;
}

Samples read_csv(const std::string& path) {
  const Bytes bytes = read_file(path, "a CSV table");
  return parse_csv(std::string(bytes.begin(), bytes.end()), path);
}
