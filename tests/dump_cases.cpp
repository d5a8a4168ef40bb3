// Prints the op table as JSON, one case a line, for make_golden.py.
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"

#include "cases.hpp"

int main() {
  for (const Case& c : all_cases()) std::puts(case_json(c).c_str());
}
