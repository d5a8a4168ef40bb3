#include <doctest/doctest.h>

#include "op_shape.hpp"

using namespace nnlite;

TEST_CASE("op_flatten: dimensions start_dim .. end_dim become one") {
  CHECK(shape_of(Flatten{}, {{3, 4, 5}}).out() == Sizes{60});
  CHECK(shape_of(Flatten{1, 2}, {{3, 4, 5}}).out() == Sizes{12, 5});
  CHECK(shape_of(Flatten{2, -1}, {{3, 4, 5}}).out() == Sizes{3, 20});
  CHECK(shape_of(Flatten{2, 2}, {{3, 4, 5}}).out() == Sizes{3, 4, 5});
  CHECK(shape_of(Flatten{}, {{7}}).out() == Sizes{7});
}

TEST_CASE("op_flatten: the batch stays, and dimensions must be there in order") {
  CHECK(status_of(Flatten{0, 1}, {{3, 4}}) == Status::bad_attribute);
  CHECK(status_of(Flatten{2, 1}, {{3, 4}}) == Status::bad_attribute);
  CHECK(status_of(Flatten{1, 3}, {{3, 4}}) == Status::bad_attribute);
  CHECK(status_of(Flatten{-4, -1}, {{3, 4}}) == Status::bad_attribute);
}

TEST_CASE("op_flatten: it is a view, and the shape beyond its rank is zero") {
  CHECK((Flatten::op.traits & traits::view) != 0);
  const Shaped s = shape_of(Flatten{}, {{3, 4, 5}});
  for (int d = s.s.out.rank; d < max_rank; d++) CHECK(s.s.out.dim[d] == 0);
}
