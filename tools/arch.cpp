#include "arch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <vector>

#include "reference.hpp"

using namespace nnlite;

namespace {

// ---- layer lists
[[noreturn]] void bad_layer(const std::string& item, const std::string& why) {
  throw UsageError{fmt::format("--arch: '{}': {}", item, why)};
}

// The words of one layer, read from left to right.
struct Words {
  std::string item;
  std::vector<std::string> words;
  std::size_t at = 1;

  explicit Words(const std::string& text) : item(text) {
    std::istringstream in(text);
    for (std::string word; in >> word;) words.push_back(word);
    if (words.empty()) throw UsageError{"--arch: an empty layer between two commas"};
  }
  bool more() const { return at < words.size(); }
  float real_number(const char* what) {
    if (!more()) bad_layer(item, fmt::format("{} is missing", what));
    char* end = nullptr;
    const float value = std::strtof(words[at].c_str(), &end);
    if (*end || !std::isfinite(value)) bad_layer(item, fmt::format("'{}' is not a number", words[at]));
    ++at;
    return value;
  }
  int part(const std::string& text) const {
    char* end = nullptr;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end || value < 0 || value > 1000000)
      bad_layer(item, fmt::format("'{}' is not a size", words[at]));
    return static_cast<int>(value);
  }
  Pair size(const char* what) {
    if (!more()) bad_layer(item, fmt::format("{} is missing", what));
    const std::size_t x = words[at].find('x');
    const Pair pair = x == std::string::npos
                          ? Pair(part(words[at]))
                          : Pair(part(words[at].substr(0, x)), part(words[at].substr(x + 1)));
    ++at;
    return pair;
  }
  int count(const char* what) {
    if (!more()) bad_layer(item, fmt::format("{} is missing", what));
    const int value = part(words[at]);
    ++at;
    if (value == 0) bad_layer(item, fmt::format("{} is 0", what));
    return value;
  }
  // Reads one option if it is called `name`.
  bool option(const char* name, Pair& value) {
    if (!more() || words[at] != name) return false;
    ++at;
    value = size(name);
    return true;
  }
  bool option(const char* name, int& value) {
    if (!more() || words[at] != name) return false;
    ++at;
    value = count(name);
    return true;
  }
  bool flag(const char* name, bool& value, bool to) {
    if (!more() || words[at] != name) return false;
    ++at;
    value = to;
    return true;
  }
  [[noreturn]] void unknown() const { bad_layer(item, fmt::format("'{}' is not known here", words[at])); }
};

AnyOp parse_conv(Words& w) {
  Conv2d c;
  c.out_channels = w.count("the number of channels");
  c.kernel_size = w.size("the kernel size");
  c.padding = Pair((c.kernel_size.h - 1) / 2, (c.kernel_size.w - 1) / 2);
  while (w.more())
    if (!w.option("stride", c.stride) && !w.option("pad", c.padding) && !w.option("dilation", c.dilation) &&
        !w.option("groups", c.groups) && !w.flag("nobias", c.bias, false))
      w.unknown();
  return c;
}

AnyOp parse_conv_transpose(Words& w) {
  ConvTranspose2d c;
  c.out_channels = w.count("the number of channels");
  c.kernel_size = w.size("the kernel size");
  while (w.more())
    if (!w.option("stride", c.stride) && !w.option("pad", c.padding) &&
        !w.option("outpad", c.output_padding) && !w.option("groups", c.groups) &&
        !w.flag("nobias", c.bias, false))
      w.unknown();
  return c;
}

template <class Pool>
AnyOp parse_pool(Words& w) {
  Pool p;
  p.kernel_size = w.size("the window size");
  while (w.more())
    if (!w.option("stride", p.stride) && !w.option("pad", p.padding)) w.unknown();
  return p;
}

AnyOp parse_linear(Words& w) {
  Linear l;
  l.out_features = w.count("the number of features");
  while (w.more())
    if (!w.flag("nobias", l.bias, false)) w.unknown();
  return l;
}

// One layer; `rank` is that of its input without the batch.
AnyOp parse_layer(Words& w, int rank) {
  const std::string& name = w.words[0];
  if (name == "avgpool") return parse_pool<AvgPool2d>(w);
  if (name == "batchnorm") return rank > 1 ? AnyOp(BatchNorm2d{}) : AnyOp(BatchNorm1d{});
  if (name == "conv") return parse_conv(w);
  if (name == "convtranspose") return parse_conv_transpose(w);
  if (name == "dropout") return w.more() ? Dropout{w.real_number("the probability")} : Dropout{};
  if (name == "elu") return w.more() ? ELU{w.real_number("alpha")} : ELU{};
  if (name == "flatten") return Flatten{};
  if (name == "globalavgpool") return AdaptiveAvgPool2d{};
  if (name == "leakyrelu") return w.more() ? LeakyReLU{w.real_number("the slope")} : LeakyReLU{};
  if (name == "linear") return parse_linear(w);
  if (name == "logsoftmax") return LogSoftmax{};
  if (name == "maxpool") return parse_pool<MaxPool2d>(w);
  if (name == "relu") return ReLU{};
  if (name == "sigmoid") return Sigmoid{};
  if (name == "softmax") return Softmax{};
  if (name == "tanh") return Tanh{};
  if (name == "upsample") return Upsample{w.size("the factor")};
  throw UsageError{fmt::format(
      "--arch '{}' is neither a network ({}) nor a layer (avgpool, batchnorm, conv, convtranspose, dropout, "
      "elu, flatten, "
      "globalavgpool, leakyrelu, linear, logsoftmax, maxpool, relu, sigmoid, softmax, tanh, upsample)",
      name, arch_names())};
}

Tensor add_list(Model& model, Tensor x, int rank, const std::string& list) {
  std::size_t from = 0;
  for (;;) {
    const std::size_t to = std::min(list.find(',', from), list.size());
    Words words(list.substr(from, to - from));
    if (words.words[0] == "linear" && rank > 1) bad_layer(words.item, "put flatten before linear");
    const AnyOp layer = parse_layer(words, rank);
    if (words.more()) words.unknown();
    if (words.words[0] == "flatten") rank = 1;
    x = model.add_any(nullptr, layer, &x, 1);
    if (to == list.size()) return x;
    from = to + 1;
  }
}

// ---- networks of the reference table
const reference::Named* find_named(const std::string& arch) {
  const std::string name = arch.substr(0, arch.find(':'));
  for (const reference::Named& network : reference::networks)
    if (name == network.name) return &network;
  return nullptr;
}

Tensor add_named(Model& model, Tensor x, const reference::Named& network, const std::string& arch,
                 int classes) {
  const std::size_t colon = arch.find(':');
  if (colon == std::string::npos) return network.build(model, x, classes ? classes : network.classes);
  if (std::string(network.name) != "unet")
    throw UsageError{fmt::format("--arch '{}': only unet takes a number", arch)};
  const int base = std::atoi(arch.c_str() + colon + 1);
  if (base < 1 || base > 1024) throw UsageError{fmt::format("--arch '{}': the base is 1 to 1024", arch)};
  return reference::unet_of(model, x, base);
}

}  // namespace

std::string arch_names() {
  std::string text;
  for (const reference::Named& network : reference::networks) text += std::string(text.empty() ? "" : ", ") + network.name;
  return text + "[:BASE]";
}

bool named_arch(const std::string& arch, Dims& input) {
  const reference::Named* network = find_named(arch);
  if (network) input = network->input;
  return network != nullptr;
}

std::unique_ptr<Network> build_arch(const std::string& arch, const ArchWish& wish, Seed seed) {
  std::unique_ptr<Network> network = std::make_unique<Network>(std::size_t{1} << 20);
  network->name = arch;
  const reference::Named* named = find_named(arch);
  const Dims input = wish.input.rank ? wish.input : named ? named->input : Dims(28, 28, 1);
  Model& model = network->model;
  const Tensor x = model.input(input.rank == 3 ? "image" : "features", input);
  const Tensor y = named ? add_named(model, x, *named, arch, wish.classes)
                         : add_list(model, x, input.rank, arch);
  model.output("logits", y);
  if (!ok(model.finish(seed))) {
    const Problem& problem = model.problem();
    throw UsageError{fmt::format("--arch '{}' cannot be built: {}: {}", arch, problem.where,
                                 problem.what[0] ? problem.what : describe(problem.status))};
  }
  return network;
}
