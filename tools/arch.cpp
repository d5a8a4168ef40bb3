#include "arch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <vector>

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
  bool at_number() const { return more() && (words[at][0] >= '0' && words[at][0] <= '9'); }
  float real_number(const char* what) {
    if (!more()) bad_layer(item, fmt::format("{} is missing", what));
    char* end = nullptr;
    const float value = std::strtof(words[at].c_str(), &end);
    if (*end) bad_layer(item, fmt::format("'{}' is not a number", words[at]));
    ++at;
    return value;
  }
  int part(const std::string& text) const {
    char* end = nullptr;
    const long value = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end || value < 0 || value > 1 << 20)
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
    const int value = part(words[at++]);
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
    const AnyOp layer = parse_layer(words, rank);
    if (words.more()) words.unknown();
    if (words.words[0] == "flatten") rank = 1;
    x = model.add_any(nullptr, layer, &x, 1);
    if (to == list.size()) return x;
    from = to + 1;
  }
}

// ---- networks of the reference table
Tensor conv_bn(Model& m, Tensor x, int channels, int kernel, int stride, int groups = 1) {
  return m.chain(x, Conv2d{0, channels, kernel, stride, (kernel - 1) / 2, 1, groups, false}, BatchNorm2d{});
}

Tensor cbr(Model& m, Tensor x, int channels, int kernel, int stride, int groups = 1) {
  return m.add(ReLU{}, conv_bn(m, x, channels, kernel, stride, groups));
}

Tensor head(Model& m, Tensor x, int classes) {
  return m.chain(x, AdaptiveAvgPool2d{1}, Flatten{}, Linear{0, classes});
}

// He et al. 2016, three blocks, as in MLPerf Tiny.
Tensor resnet8(Model& m, Tensor x, int classes) {
  x = cbr(m, x, 16, 3, 1);
  for (int channels : {16, 32, 64}) {
    const int stride = channels == 16 ? 1 : 2;
    const Tensor y = conv_bn(m, cbr(m, x, channels, 3, stride), channels, 3, 1);
    const Tensor around = stride == 1 ? x : m.add(Conv2d{0, channels, 1, stride}, x);
    x = m.add(ReLU{}, m.add(Add{}, y, around));
  }
  return head(m, x, classes);
}

// Zhang et al. 2017, the small one of MLPerf Tiny.
Tensor dscnn(Model& m, Tensor x, int classes) {
  x = m.chain(x, Conv2d{0, 64, {10, 4}, 2, {5, 1}, 1, 1, false}, BatchNorm2d{}, ReLU{});
  for (int i = 0; i < 4; ++i) x = cbr(m, cbr(m, x, 64, 3, 1, 64), 64, 1, 1);
  return head(m, x, classes);
}

// Howard et al. 2017, width 0.25.
Tensor mbv1(Model& m, Tensor x, int classes) {
  struct Block {
    int channels, stride;
  };
  x = cbr(m, x, 8, 3, 2);
  int in = 8;
  for (Block b : {Block{64, 1},
                  {128, 2},
                  {128, 1},
                  {256, 2},
                  {256, 1},
                  {512, 2},
                  {512, 1},
                  {512, 1},
                  {512, 1},
                  {512, 1},
                  {512, 1},
                  {1024, 2},
                  {1024, 1}}) {
    const int out = std::max(8, b.channels / 4);
    x = cbr(m, cbr(m, x, in, 3, b.stride, in), out, 1, 1);
    in = out;
  }
  return head(m, x, classes);
}

// Sandler et al. 2018, width 1.
Tensor mbv2(Model& m, Tensor x, int classes) {
  struct Stage {
    int expand, channels, count, stride;
  };
  x = cbr(m, x, 32, 3, 2);
  int in = 32;
  for (Stage s : {Stage{1, 16, 1, 1},
                  {6, 24, 2, 2},
                  {6, 32, 3, 2},
                  {6, 64, 4, 2},
                  {6, 96, 3, 1},
                  {6, 160, 3, 2},
                  {6, 320, 1, 1}})
    for (int i = 0; i < s.count; ++i) {
      const int wide = in * s.expand, stride = i == 0 ? s.stride : 1;
      Tensor y = s.expand == 1 ? x : cbr(m, x, wide, 1, 1);
      y = conv_bn(m, cbr(m, y, wide, 3, stride, wide), s.channels, 1, 1);
      x = stride == 1 && in == s.channels ? m.add(Add{}, x, y) : y;
      in = s.channels;
    }
  return head(m, cbr(m, x, 1280, 1, 1), classes);
}

// Ronneberger, Fischer, Brox 2015, padded and with batch norm.
Tensor unet(Model& m, Tensor x, int base) {
  std::vector<Tensor> skips;
  for (int level = 0; level < 5; ++level) {
    if (level > 0) x = m.add(MaxPool2d{2}, x);
    x = cbr(m, cbr(m, x, base << level, 3, 1), base << level, 3, 1);
    skips.push_back(x);
  }
  for (int level = 3; level >= 0; --level) {
    const Tensor up = m.add(ConvTranspose2d{0, base << level, 2, 2}, x);
    x = m.add(Concat{3}, skips[static_cast<std::size_t>(level)], up);
    x = cbr(m, cbr(m, x, base << level, 3, 1), base << level, 3, 1);
  }
  return m.add(Conv2d{0, 1, 1}, x);
}

struct Named {
  const char* name;
  Dims input;
  int classes;
  const char* list;  // nullptr: built by `build`
  Tensor (*build)(Model&, Tensor, int);
};

const Named networks[] = {
    {"cnn99",
     {28, 28, 1},
     10,
     "conv 32 3, relu, conv 32 3, relu, maxpool 2, conv 64 3, relu, conv 64 3, relu, maxpool 2, flatten, "
     "linear 128, relu",
     nullptr},
    {"dscnn", {49, 10, 1}, 12, nullptr, dscnn},
    {"lenet",
     {28, 28, 1},
     10,
     "conv 6 5, relu, maxpool 2, conv 16 5 pad 0, relu, maxpool 2, flatten, linear 120, relu, linear 84, "
     "relu",
     nullptr},
    {"mbv1", {96, 96, 3}, 2, nullptr, mbv1},
    {"mbv2", {224, 224, 3}, 1000, nullptr, mbv2},
    {"mlp", {28, 28, 1}, 10, "flatten, linear 200, relu, linear 200, relu", nullptr},
    {"resnet8", {32, 32, 3}, 10, nullptr, resnet8},
    {"unet", {128, 128, 3}, 0, nullptr, unet},
};

const Named* find_named(const std::string& arch) {
  const std::string name = arch.substr(0, arch.find(':'));
  for (const Named& network : networks)
    if (name == network.name) return &network;
  return nullptr;
}

Tensor add_named(Model& model, Tensor x, const Named& network, const std::string& arch, int rank,
                 int classes) {
  const std::size_t colon = arch.find(':');
  if (std::string(network.name) == "unet") {
    int base = 16;
    if (colon != std::string::npos) base = std::atoi(arch.c_str() + colon + 1);
    if (base < 1 || base > 1024) throw UsageError{fmt::format("--arch '{}': the base is 1 to 1024", arch)};
    return network.build(model, x, base);
  }
  if (colon != std::string::npos)
    throw UsageError{fmt::format("--arch '{}': only unet takes a number", arch)};
  if (classes == 0) classes = network.classes;
  if (network.build) return network.build(model, x, classes);
  return model.add(Linear{0, classes}, add_list(model, x, rank, network.list));
}

}  // namespace

std::string arch_names() {
  std::string text;
  for (const Named& network : networks) text += std::string(text.empty() ? "" : ", ") + network.name;
  return text + "[:BASE]";
}

bool named_arch(const std::string& arch, Dims& input) {
  const Named* network = find_named(arch);
  if (network) input = network->input;
  return network != nullptr;
}

std::unique_ptr<Network> build_arch(const std::string& arch, const ArchWish& wish, Seed seed) {
  std::unique_ptr<Network> network = std::make_unique<Network>(std::size_t{1} << 20);
  network->name = arch;
  const Named* named = find_named(arch);
  const Dims input = wish.input.rank ? wish.input : named ? named->input : Dims(28, 28, 1);
  Model& model = network->model;
  const Tensor x = model.input(input.rank == 3 ? "image" : "features", input);
  const Tensor y = named ? add_named(model, x, *named, arch, input.rank, wish.classes)
                         : add_list(model, x, input.rank, arch);
  model.output("logits", y);
  if (!ok(model.finish(seed))) {
    const Problem& problem = model.problem();
    throw UsageError{fmt::format("--arch '{}' cannot be built: {}: {}", arch, problem.where,
                                 problem.what[0] ? problem.what : describe(problem.status))};
  }
  return network;
}
