#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "nnlite.hpp"

namespace test_dispatch {
using namespace nnlite;

TEST_CASE("dispatch: the environment chooses among the instruction sets that are there") {
  const char* wish = std::getenv("NNLITE_ISA");
  for (int i = 0; i < isa_count; i++) {
    if (isa_present(Isa(i))) MESSAGE("present: " << std::string(isa_name(Isa(i))));
    if (wish != nullptr && std::strcmp(wish, isa_name(Isa(i))) == 0 && isa_present(Isa(i)))
      CHECK(current_isa() == Isa(i));
  }
  CHECK(isa_present(current_isa()));
}

TEST_CASE("dispatch: set_isa refuses what is not there and changes nothing") {
  const Isa before = current_isa();
  for (int i = 0; i < isa_count; i++) {
    CHECK(set_isa(Isa(i)) == isa_present(Isa(i)));
    if (isa_present(Isa(i))) CHECK(current_isa() == Isa(i));
  }
  CHECK(set_isa(before));
}

TEST_CASE("dispatch: every row runs on every instruction set that is compiled") {
  int rows = 0;
  const OpSet all = all_ops();
  for (int i = 0; i < all.count; i++) {
    for (const Kernel* const* k = all.ops[i]->kernels; k != nullptr && *k != nullptr; k++, rows++) {
      CAPTURE(std::string((*k)->name));
      CHECK(bool((*k)->plan != nullptr));
      for (int isa = 0; isa < isa_count; isa++)
        if (isa_present(Isa(isa))) CHECK(bool((*k)->run[isa] != nullptr));
    }
  }
  if (sizeof(real) == sizeof(float)) CHECK(rows > 0);
  else CHECK(rows == 0);
}
}  // namespace test_dispatch
