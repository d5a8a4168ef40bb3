// The reference networks by name: one table for the program, the benchmarks and the tests.
#pragma once

#include <vector>

#include "nnlite.hpp"

namespace reference {

using namespace nnlite;

inline Tensor conv_bn(Model& m, Tensor x, int channels, int kernel, int stride, int groups = 1) {
  return m.chain(x, Conv2d{0, channels, kernel, stride, (kernel - 1) / 2, 1, groups, false}, BatchNorm2d{});
}

inline Tensor cbr(Model& m, Tensor x, int channels, int kernel, int stride, int groups = 1) {
  return m.add(ReLU{}, conv_bn(m, x, channels, kernel, stride, groups));
}

inline Tensor head(Model& m, Tensor x, int classes) {
  return m.chain(x, AdaptiveAvgPool2d{1}, Flatten{}, Linear{0, classes});
}

inline Tensor mlp(Model& m, Tensor x, int classes) {
  return m.chain(x, Flatten{}, Linear{0, 200}, ReLU{}, Linear{0, 200}, ReLU{}, Linear{0, classes});
}

// LeCun et al. 1998, with ReLU and max pooling.
inline Tensor lenet(Model& m, Tensor x, int classes) {
  x = m.chain(x, Conv2d{0, 6, 5, 1, 2}, ReLU{}, MaxPool2d{2}, Conv2d{0, 16, 5}, ReLU{}, MaxPool2d{2});
  return m.chain(x, Flatten{}, Linear{0, 120}, ReLU{}, Linear{0, 84}, ReLU{}, Linear{0, classes});
}

inline Tensor cnn99(Model& m, Tensor x, int classes) {
  for (int channels : {32, 64})
    x = m.chain(x, Conv2d{0, channels, 3, 1, 1}, ReLU{}, Conv2d{0, channels, 3, 1, 1}, ReLU{}, MaxPool2d{2});
  return m.chain(x, Flatten{}, Linear{0, 128}, ReLU{}, Linear{0, classes});
}

// He et al. 2016, three blocks, as in MLPerf Tiny.
inline Tensor resnet8(Model& m, Tensor x, int classes) {
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
inline Tensor dscnn(Model& m, Tensor x, int classes) {
  x = m.chain(x, Conv2d{0, 64, {10, 4}, 2, {5, 1}, 1, 1, false}, BatchNorm2d{}, ReLU{});
  for (int i = 0; i < 4; ++i) x = cbr(m, cbr(m, x, 64, 3, 1, 64), 64, 1, 1);
  return head(m, x, classes);
}

// Howard et al. 2017, width 0.25: max(8, c / 4) channels.
inline Tensor mbv1(Model& m, Tensor x, int classes) {
  const struct { int channels, stride; } blocks[] = {
      {64, 1},  {128, 2}, {128, 1}, {256, 2}, {256, 1},  {512, 2}, {512, 1},
      {512, 1}, {512, 1}, {512, 1}, {512, 1}, {1024, 2}, {1024, 1}};
  x = cbr(m, x, 8, 3, 2);
  int in = 8;
  for (const auto& b : blocks) {
    const int out = b.channels / 4 > 8 ? b.channels / 4 : 8;
    x = cbr(m, cbr(m, x, in, 3, b.stride, in), out, 1, 1);
    in = out;
  }
  return head(m, x, classes);
}

// Sandler et al. 2018, width 1.
inline Tensor mbv2(Model& m, Tensor x, int classes) {
  const struct { int expand, channels, count, stride; } stages[] = {
      {1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2},
      {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
  x = cbr(m, x, 32, 3, 2);
  int in = 32;
  for (const auto& s : stages) {
    for (int i = 0; i < s.count; ++i) {
      const int wide = in * s.expand, stride = i == 0 ? s.stride : 1;
      Tensor y = s.expand == 1 ? x : cbr(m, x, wide, 1, 1);
      y = conv_bn(m, cbr(m, y, wide, 3, stride, wide), s.channels, 1, 1);
      x = stride == 1 && in == s.channels ? m.add(Add{}, x, y) : y;
      in = s.channels;
    }
  }
  return head(m, cbr(m, x, 1280, 1, 1), classes);
}

// Ronneberger, Fischer, Brox 2015, padded and with batch norm.
inline Tensor unet_of(Model& m, Tensor x, int base) {
  std::vector<Tensor> skips;
  for (int level = 0; level < 5; ++level) {
    if (level > 0) x = m.add(MaxPool2d{2}, x);
    x = cbr(m, cbr(m, x, base << level, 3, 1), base << level, 3, 1);
    skips.push_back(x);
  }
  for (int level = 3; level >= 0; --level) {
    const Tensor up = m.add(ConvTranspose2d{0, base << level, 2, 2}, x);
    x = m.add(Concat{3}, skips[static_cast<size_t>(level)], up);
    x = cbr(m, cbr(m, x, base << level, 3, 1), base << level, 3, 1);
  }
  return m.add(Conv2d{0, 1, 1}, x);
}
inline Tensor unet(Model& m, Tensor x, int) { return unet_of(m, x, 16); }

struct Named {
  const char* name;
  Dims    input;
  int     classes;                             // 0: a mask, binary cross-entropy with logits
  int64_t parameters;                          // by PyTorch's count
  Tensor (*build)(Model&, Tensor, int);
};
inline const Named networks[] = {
    {"cnn99",   {28, 28, 1},   10,   467818,  cnn99},
    {"dscnn",   {49, 10, 1},   12,   23180,   dscnn},
    {"lenet",   {28, 28, 1},   10,   61706,   lenet},
    {"mbv1",    {96, 96, 3},   2,    213586,  mbv1},
    {"mbv2",    {224, 224, 3}, 1000, 3504872, mbv2},
    {"mlp",     {28, 28, 1},   10,   199210,  mlp},
    {"resnet8", {32, 32, 3},   10,   77946,   resnet8},
    {"unet",    {128, 128, 3}, 0,    1942577, unet},
};

}  // namespace reference
