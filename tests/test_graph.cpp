// Building a model: names, handles, order, sharing, and what poisons it.
#include <doctest/doctest.h>

#include "engine.hpp"

using namespace nnlite;

namespace {

std::string names_of(const Model& m) {
  std::string all;
  for (int i = 0; i < m.node_count(); i++) all += std::string(m.node(i).name) + " ";
  for (int i = 0; i < m.parameter_count(); i++) all += std::string(m.parameter(i).name) + " ";
  return all;
}

// Two branches, the layers of each added in the order that `left_first` says.
std::unique_ptr<Net> two_branches(bool left_first) {
  std::unique_ptr<Net> net = std::make_unique<Net>();
  Model& m = net->model;
  const Tensor x = m.input("x", {6});
  Tensor left, right;
  if (left_first) left = m.add(Linear{0, 5}, x), right = m.add(Linear{0, 5, false}, x);
  else right = m.add(Linear{0, 5, false}, x), left = m.add(Linear{0, 5}, x);
  m.output("y", m.add(Linear{0, 3}, m.add(Add{}, left, right)));
  CHECK(m.finish(Seed{5}) == Status::ok);
  CHECK(net->materialise() == Status::ok);
  return net;
}

bool says(const Model& m, const char* text) {
  return std::string(m.problem().what).find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("graph: siblings may be added in any order, names, parameters and first weights are the same") {
  const std::unique_ptr<Net> a = two_branches(true), b = two_branches(false);
  CHECK(names_of(a->model) == names_of(b->model));
  CHECK(names_of(a->model).find("linear_1 linear_2") != std::string::npos);
  CHECK(same_bytes(all_parameters(a->model, a->model), all_parameters(b->model, b->model)));
}

TEST_CASE("graph: a handle of another model is caught") {
  Net a, b;
  const Tensor x = a.model.input("x", {4}), other = b.model.input("x", {4});
  a.model.output("y", a.model.add("layer", Linear{0, 2}, other));
  CHECK(a.model.finish(Seed{}) == Status::foreign_tensor);
  CHECK(std::string(a.model.problem().where) == "layer");
  b.model.output("y", x);
  CHECK(b.model.finish(Seed{}) == Status::foreign_tensor);
}

TEST_CASE("graph: the first failure poisons the rest and is what finish says") {
  Net n;
  Tensor x = n.model.input("x", {4, 4, 2});
  x = n.model.add("too big", Conv2d{0, 3, 7}, x);
  x = n.model.add("later", Linear{3, -1}, x);
  n.model.output("y", x);
  CHECK(n.model.finish(Seed{}) == Status::bad_shape);
  CHECK(std::string(n.model.problem().where) == "too big");
  CHECK(says(n.model, "[N, 4, 4, 2] into Conv2d"));
  CHECK(!n.model.finished());
}

TEST_CASE("graph: a layer that does not fit says which it is, what it expected and what it got") {
  const auto refused = [](auto layer, const Dims& dims, const char* where, const char* text) {
    Net n;
    const Tensor x = n.model.chain(n.model.input("x", dims), Conv2d{0, 4, 1}, BatchNorm2d{}, Flatten{},
                                   Linear{0, 4}, layer);
    n.model.output("y", x);
    CHECK(n.model.finish(Seed{}) == Status::bad_shape);
    CHECK(std::string(n.model.problem().where) == where);
    CHECK(says(n.model, text));
  };
  refused(Linear{8, 1}, {2, 2, 1}, "linear_2", "[N, 4] into Linear, expected [N, 8]");
  refused(BatchNorm1d{3}, {2, 2, 1}, "batchnorm1d_1", "[N, 4] into BatchNorm1d, expected [N, 3]");
  refused(Conv2d{4, 4, 1}, {2, 2, 1}, "conv2d_2", "[N, 4] into Conv2d, expected [N, ?, ?, ?]");
  Net small;  // the channels fit, the size does not: nothing is expected that it has
  small.model.output("y", small.model.chain(small.model.input("x", {4, 4, 1}), Conv2d{1, 2, 7}));
  CHECK(small.model.finish(Seed{}) == Status::bad_shape);
  CHECK(says(small.model, "[N, 4, 4, 1] into Conv2d"));
  CHECK(!says(small.model, "expected"));
  Net n;
  const Tensor a = n.model.input("a", {4}), b = n.model.input("b", {5});
  n.model.output("y", n.model.add(Add{}, a, b));
  CHECK(n.model.finish(Seed{}) == Status::bad_shape);
  CHECK(std::string(n.model.problem().where) == "add_1");
  CHECK(says(n.model, "[N, 4] [N, 5] into Add, expected [N, 4]"));
}

TEST_CASE("graph: a node that reaches no output is named") {
  Net n;
  const Tensor x = n.model.input("x", {4});
  n.model.output("y", n.model.add(ReLU{}, x));
  (void)n.model.add("aside", Linear{0, 2}, x);
  CHECK(n.model.finish(Seed{}) == Status::bad_graph);
  CHECK(std::string(n.model.problem().where) == "aside");
}

TEST_CASE("graph: names are not used twice, not empty, not longer than 40 characters") {
  for (const char* name : {"x", "", "a name that is longer than forty characters"}) {
    CAPTURE(name);
    Net n;
    const Tensor x = n.model.input("x", {4});
    n.model.output("y", n.model.add(name, ReLU{}, x));
    CHECK(n.model.finish(Seed{}) == Status::bad_graph);
  }
  Net n;                                       // a name that a layer without one gets by itself
  const Tensor x = n.model.input("x", {4});
  n.model.output("y", n.model.add("relu_2", Linear{0, 4}, n.model.add(ReLU{}, n.model.add(ReLU{}, x))));
  CHECK(n.model.finish(Seed{}) == Status::bad_graph);
}

TEST_CASE("graph: a model without output, and adding to a finished one, are refused") {
  Net empty;
  (void)empty.model.input("x", {4});
  CHECK(empty.model.finish(Seed{}) == Status::bad_graph);
  Net n;
  const Tensor x = n.model.input("x", {4});
  n.model.output("y", n.model.add(ReLU{}, x));
  CHECK(n.model.finish(Seed{}) == Status::ok);
  (void)n.model.add(ReLU{}, x);
  CHECK(n.model.problem().status == Status::bad_graph);
}

TEST_CASE("graph: a records buffer of any size is enough or out_of_memory, and is never left") {
  int fine = 0;
  for (size_t bytes = 0; bytes < 6000; bytes += 40) {
    Net n(bytes);
    const Tensor x = n.model.input("x", {6, 6, 3});
    n.model.output("y", n.model.chain(x, Conv2d{0, 4, 3}, BatchNorm2d{}, ReLU{}, Flatten{}, Linear{0, 2}));
    const Status s = n.model.finish(Seed{});
    CHECK((s == Status::ok || s == Status::out_of_memory));
    CHECK(n.records.intact());
    CHECK((s != Status::ok || n.model.record_bytes() <= bytes));
    fine += s == Status::ok;
  }
  CHECK(fine > 0);
}

TEST_CASE("graph: a shared layer has one set of parameters, of the lowest node") {
  Net n;
  const Tensor a = n.model.input("a", {4}), b = n.model.input("b", {4});
  const Tensor first = n.model.add("twin", Linear{0, 3}, a);
  n.model.output("y", n.model.add(Add{}, n.model.share(first, b), first));
  REQUIRE(n.model.finish(Seed{}) == Status::ok);
  CHECK(n.model.parameter_count() == 2);
  CHECK(n.model.parameter_elements() == 15);
  CHECK(n.model.find_parameter("twin.weight") == 0);
}

TEST_CASE("graph: a layer with statistics, and one of another size, cannot be shared") {
  Net n;
  const Tensor x = n.model.input("x", {4});
  const Tensor y = n.model.add(BatchNorm1d{}, x);
  n.model.output("y", n.model.share(y, y));
  CHECK(n.model.finish(Seed{}) == Status::bad_graph);
  Net m;
  const Tensor z = m.model.input("x", {4});
  const Tensor first = m.model.add(Linear{0, 3}, z);
  m.model.output("y", m.model.share(first, first));
  CHECK(m.model.finish(Seed{}) == Status::bad_shape);
}

TEST_CASE("graph: inputs, outputs and layers can be asked for") {
  Net n;
  const Tensor x = n.model.input("image", {8, 6, 3});
  const Tensor c = n.model.add("conv", Conv2d{0, 5, 3, 1, 1}, x);
  n.model.output("features", c);
  n.model.output("scores", n.model.chain(c, Flatten{}, Linear{0, 2}));
  n.model.freeze(c);
  REQUIRE(n.model.finish(Seed{}) == Status::ok);
  CHECK(n.model.input_count() == 1);
  CHECK(std::string(n.model.input_name(0)) == "image");
  CHECK(n.model.output_count() == 2);
  CHECK(std::string(n.model.output_name(1)) == "scores");
  CHECK(n.model.output_shape(0).row_numel() == 8 * 6 * 5);
  CHECK(n.model.node(1).macs == 8 * 6 * 5 * 27);
  CHECK(n.model.node(1).parameters == 5 * 27 + 5);
  CHECK(!n.model.parameter(0).trainable);
  CHECK(n.model.parameter(n.model.find_parameter("linear_1.bias")).trainable);
  CHECK(n.model.find_parameter("nobody.weight") == -1);
}

TEST_CASE("graph: a grown model has the old outputs in their places, and new ones from the seed") {
  Net a, b;
  Tensor x = a.model.input("x", {5});
  x = a.model.chain(x, Linear{0, 7}, BatchNorm1d{}, ReLU{});
  const Tensor shared = a.model.add("same", Linear{0, 7}, x);
  a.model.freeze(shared);
  x = a.model.share(shared, a.model.add(Add{}, shared, x));
  a.model.output("y", a.model.chain(x, Linear{0, 3}, Softmax{}));
  REQUIRE(a.model.finish(Seed{5}) == Status::ok);
  REQUIRE(a.materialise() == Status::ok);
  b.weights = Guarded(1 << 14);
  Arena arena = b.weights.arena();
  REQUIRE(b.model.grow(a.model, 18, Seed{9}, arena) == Status::ok);
  CHECK(names_of(a.model) == names_of(b.model));
  CHECK(b.model.output_shape(0).last() == 18);
  for (int i = 0; i < a.model.parameter_count(); i++) {
    std::vector<real> old(size_t(a.model.parameter(i).count)), now(size_t(b.model.parameter(i).count));
    REQUIRE(a.model.get(i, old.data()) == Status::ok);
    REQUIRE(b.model.get(i, now.data()) == Status::ok);
    REQUIRE(now.size() >= old.size());
    CHECK(std::memcmp(old.data(), now.data(), old.size() * sizeof(real)) == 0);
    CHECK(a.model.parameter(i).trainable == b.model.parameter(i).trainable);
    for (size_t k = old.size(); k < now.size(); k++) CHECK(now[k] != 0);
  }
}

TEST_CASE("graph: a model grows only where its last Linear is output 0, and never shrinks") {
  Net a, b, c, d;
  Tensor x = a.model.input("x", {5});
  x = a.model.add(Linear{0, 4}, x);
  a.model.output("y", a.model.add(BatchNorm1d{}, x));
  REQUIRE(a.model.finish(Seed{5}) == Status::ok);
  Guarded memory(1 << 14);
  Arena arena = memory.arena();
  CHECK(b.model.grow(a.model, 6, Seed{}, arena) == Status::no_weights);
  REQUIRE(a.materialise() == Status::ok);
  CHECK(c.model.grow(a.model, 3, Seed{}, arena) == Status::bad_graph);
  CHECK(a.model.grow(a.model, 6, Seed{}, arena) == Status::bad_graph);        // not empty
  CHECK(memory.untouched());
  CHECK(d.model.grow(a.model, 6, Seed{}, arena) == Status::bad_shape);        // BatchNorm1d was made for 4
}
