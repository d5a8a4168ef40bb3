// The op table: one row per case. A row gives golden values against PyTorch (make_golden.py reads the rows
// through dump_cases.cpp), a gradient check in double, every kernel row on every instruction set, and every
// thread count. Rows are grouped by op, alphabetical; the name is the op, a colon, what is special.
#ifndef NNLITE_TESTS_CASES_HPP
#define NNLITE_TESTS_CASES_HPP

#include <cstdio>
#include <string>
#include <vector>

#include "nnlite.hpp"

namespace {

struct Case {
  const char*  name;
  nnlite::AnyOp op;
  nnlite::Dims in[4];                          // without the batch and a loss's target. An optimizer: {count}
  int          rows      = 1;                  // of an optimizer: updates; of a schedule: steps
  float        scale     = 1;                  // of random inputs
  bool         ties      = false;              // inputs are multiples of 1/2, some equal: no gradient check
  bool         training  = true;
  double       tolerance = 1e-5;               // |a - b| <= tolerance max|b| for the float engine
  const char*  why       = "";                 // of a looser tolerance

  int n_in() const {
    int n = 0;
    while (n < 4 && in[n].rank > 0) n++;
    return n;
  }
};

using namespace nnlite;

const Case activation_cases[] = {
    {"ELU: image", ELU{}, {{5, 3, 7}}, 2},
    {"ELU: alpha 0", ELU{0.0f}, {{13}}, 3},
    {"ELU: alpha 2", ELU{2.0f}, {{17}}, 2},
    {"ELU: large values", ELU{}, {{33}}, 2, 40.0f},
    {"ELU: one value", ELU{}, {{1}}, 1},
    {"ELU: sequence", ELU{0.5f}, {{7, 9}}, 2},
    {"ELU: tiny values", ELU{}, {{33}}, 2, 1e-4f},
    {"ELU: whole vectors", ELU{}, {{64}}, 4},
    {"LeakyReLU: image", LeakyReLU{}, {{5, 3, 7}}, 2},
    {"LeakyReLU: large values", LeakyReLU{0.1f}, {{33}}, 2, 1e4f},
    {"LeakyReLU: one value", LeakyReLU{}, {{1}}, 1},
    {"LeakyReLU: sequence", LeakyReLU{0.3f}, {{7, 9}}, 2},
    {"LeakyReLU: slope 0", LeakyReLU{0.0f}, {{13}}, 3},
    {"LeakyReLU: slope 1", LeakyReLU{1.0f}, {{17}}, 2},
    {"LeakyReLU: ties at zero", LeakyReLU{}, {{31}}, 3, 1.0f, true},
    {"LeakyReLU: whole vectors", LeakyReLU{}, {{64}}, 4},
    {"ReLU: image", ReLU{}, {{5, 3, 7}}, 2},
    {"ReLU: large values", ReLU{}, {{33}}, 2, 1e4f},
    {"ReLU: one value", ReLU{}, {{1}}, 1},
    {"ReLU: prime length", ReLU{}, {{131}}, 1},
    {"ReLU: sequence", ReLU{}, {{7, 9}}, 2},
    {"ReLU: ties at zero", ReLU{}, {{31}}, 3, 1.0f, true},
    {"ReLU: tiny values", ReLU{}, {{19}}, 2, 1e-20f},
    {"ReLU: whole vectors", ReLU{}, {{64}}, 4},
    {"Sigmoid: image", Sigmoid{}, {{5, 3, 7}}, 2},
    {"Sigmoid: large values", Sigmoid{}, {{33}}, 2, 30.0f},
    {"Sigmoid: one value", Sigmoid{}, {{1}}, 1},
    {"Sigmoid: prime length", Sigmoid{}, {{131}}, 1},
    {"Sigmoid: sequence", Sigmoid{}, {{7, 9}}, 2},
    {"Sigmoid: tiny values", Sigmoid{}, {{19}}, 2, 1e-4f},
    {"Sigmoid: vector", Sigmoid{}, {{13}}, 3},
    {"Sigmoid: whole vectors", Sigmoid{}, {{64}}, 4},
    {"Tanh: image", Tanh{}, {{5, 3, 7}}, 2},
    {"Tanh: large values", Tanh{}, {{33}}, 2, 20.0f},
    {"Tanh: one value", Tanh{}, {{1}}, 1},
    {"Tanh: prime length", Tanh{}, {{131}}, 1},
    {"Tanh: sequence", Tanh{}, {{7, 9}}, 2},
    {"Tanh: tiny values", Tanh{}, {{19}}, 2, 1e-4f},
    {"Tanh: vector", Tanh{}, {{13}}, 3},
    {"Tanh: whole vectors", Tanh{}, {{64}}, 4},
};

const Case arithmetic_cases[] = {
    {"Add: four inputs", Add{}, {{9}, {9}, {9}, {9}}, 3},
    {"Add: image", Add{}, {{5, 3, 7}, {5, 3, 7}}, 2},
    {"Add: large values", Add{}, {{33}, {33}}, 2, 1e6f},
    {"Add: one value", Add{}, {{1}, {1}}, 1},
    {"Add: prime length", Add{}, {{131}, {131}}, 1},
    {"Add: sequence", Add{}, {{7, 9}, {7, 9}}, 2},
    {"Add: three inputs", Add{}, {{17}, {17}, {17}}, 2},
    {"Add: whole vectors", Add{}, {{64}, {64}}, 4},
    {"Mul: four inputs", Mul{}, {{9}, {9}, {9}, {9}}, 3},
    {"Mul: image", Mul{}, {{5, 3, 7}, {5, 3, 7}}, 2},
    {"Mul: large values", Mul{}, {{33}, {33}}, 2, 1e6f},
    {"Mul: one value", Mul{}, {{1}, {1}}, 1},
    {"Mul: prime length", Mul{}, {{131}, {131}}, 1},
    {"Mul: sequence", Mul{}, {{7, 9}, {7, 9}}, 2},
    {"Mul: three inputs", Mul{}, {{17}, {17}, {17}}, 2},
    {"Mul: whole vectors", Mul{}, {{64}, {64}}, 4},
};

const Case norm_cases[] = {
    {"BatchNorm1d: evaluation", BatchNorm1d{}, {{11}}, 5, 1.0f, false, false},
    {"BatchNorm1d: large eps", BatchNorm1d{7, 0.1f}, {{7}}, 4},
    {"BatchNorm1d: many channels", BatchNorm1d{}, {{67}}, 3},
    {"BatchNorm1d: no affine", BatchNorm1d{5, 1e-5f, 0.1f, false}, {{5}}, 6},
    {"BatchNorm1d: no affine, evaluation", BatchNorm1d{5, 1e-5f, 0.1f, false}, {{5}}, 6, 1.0f, false, false},
    {"BatchNorm1d: no statistics", BatchNorm1d{9, 1e-5f, 0.1f, true, false}, {{9}}, 5, 1.0f, false, false},
    {"BatchNorm1d: sequence", BatchNorm1d{0, 1e-5f, 0.3f}, {{7, 5}}, 3},
    {"BatchNorm1d: sixteen rows", BatchNorm1d{}, {{16}}, 16},
    {"BatchNorm2d: evaluation", BatchNorm2d{}, {{5, 3, 7}}, 2, 1.0f, false, false},
    {"BatchNorm2d: large values", BatchNorm2d{}, {{4, 4, 5}}, 3, 1e3f},
    {"BatchNorm2d: many pixels", BatchNorm2d{}, {{23, 27, 2}}, 1},
    {"BatchNorm2d: momentum 1", BatchNorm2d{0, 1e-5f, 1.0f}, {{3, 5, 6}}, 2},
    {"BatchNorm2d: no affine", BatchNorm2d{3, 1e-5f, 0.1f, false}, {{5, 5, 3}}, 2},
    {"BatchNorm2d: no statistics", BatchNorm2d{4, 1e-5f, 0.1f, true, false}, {{3, 3, 4}}, 2},
    {"BatchNorm2d: one pixel", BatchNorm2d{}, {{1, 1, 19}}, 4},
    {"BatchNorm2d: sixteen channels", BatchNorm2d{16, 1e-3f}, {{5, 4, 16}}, 2},
    {"BatchNorm2d: training", BatchNorm2d{}, {{5, 3, 7}}, 3},
};

const Case shape_cases[] = {
    {"Concat: channels", Concat{}, {{3, 5, 2}, {3, 5, 7}}, 2},
    {"Concat: channels of vectors", Concat{3}, {{2, 3, 16}, {2, 3, 32}}, 1},
    {"Concat: columns", Concat{2}, {{3, 5, 4}, {3, 1, 4}}, 2},
    {"Concat: features", Concat{1}, {{7}, {11}, {1}}, 3},
    {"Concat: from the end", Concat{-1}, {{5, 3}, {5, 4}}, 2},
    {"Concat: four inputs", Concat{1}, {{1}, {2}, {3}, {4}}, 2},
    {"Concat: one input", Concat{1}, {{9}}, 2},
    {"Concat: rows of images", Concat{1}, {{2, 5, 3}, {4, 5, 3}}, 2},
    {"Dropout: evaluation", Dropout{0.5f}, {{13}}, 3, 1.0f, false, false},
    {"Dropout: half", Dropout{}, {{31}}, 3},
    {"Dropout: image", Dropout{0.25f}, {{5, 3, 7}}, 2},
    {"Dropout: nearly all", Dropout{0.99f}, {{64}}, 4},
    {"Dropout: nothing", Dropout{0.0f}, {{17}}, 2},
    {"Dropout: one value", Dropout{0.3f}, {{1}}, 1},
    {"Dropout: sequence", Dropout{0.1f}, {{7, 9}}, 2},
    {"Dropout: whole blocks", Dropout{0.2f}, {{16}}, 4},
    {"Flatten: all", Flatten{}, {{3, 5, 2}}, 2},
    {"Flatten: already flat", Flatten{}, {{7}}, 3},
    {"Flatten: columns and channels", Flatten{2, 3}, {{3, 5, 2}}, 2},
    {"Flatten: from the end", Flatten{-2, -1}, {{3, 5, 2}}, 1},
    {"Flatten: nothing", Flatten{2, 2}, {{3, 5, 2}}, 2},
    {"Flatten: one pixel", Flatten{}, {{1, 1, 9}}, 2},
    {"Flatten: rows and columns", Flatten{1, 2}, {{3, 5, 2}}, 2},
    {"Flatten: sequence", Flatten{}, {{4, 6}}, 2},
    {"Upsample: columns only", Upsample{{1, 2}}, {{3, 4, 5}}, 2},
    {"Upsample: nothing", Upsample{1}, {{3, 5, 2}}, 2},
    {"Upsample: odd factor", Upsample{3}, {{2, 3, 3}}, 2},
    {"Upsample: one channel", Upsample{}, {{5, 3, 1}}, 2},
    {"Upsample: one pixel", Upsample{5}, {{1, 1, 7}}, 1},
    {"Upsample: rows and columns", Upsample{{2, 3}}, {{3, 2, 4}}, 1},
    {"Upsample: rows only", Upsample{{3, 1}}, {{2, 5, 3}}, 2},
    {"Upsample: twice", Upsample{}, {{3, 4, 16}}, 1},
};

const Case conv_cases[] = {
    {"Conv2d: depthwise", Conv2d{7, 7, 3, 1, 1, 1, 7}, {{6, 5, 7}}, 2},
    {"Conv2d: depthwise, odd window", Conv2d{19, 19, {3, 5}, 2, {1, 2}, 1, 19, false}, {{7, 8, 19}}, 1},
    {"Conv2d: depthwise, sixteen channels", Conv2d{16, 16, 3, 1, 1, 1, 16}, {{5, 5, 16}}, 2},
    {"Conv2d: dilation", Conv2d{2, 3, 3, 1, 2, 2}, {{9, 7, 2}}, 2},
    {"Conv2d: dilation and stride", Conv2d{3, 4, {2, 3}, {2, 1}, {0, 1}, {3, 2}}, {{8, 9, 3}}, 1},
    {"Conv2d: forty outputs", Conv2d{16, 40, 3, 1, 1}, {{5, 4, 16}}, 1},
    {"Conv2d: groups", Conv2d{6, 4, 3, 1, 1, 1, 2}, {{5, 6, 6}}, 2},
    {"Conv2d: groups, one input channel each", Conv2d{3, 6, 3, 1, 0, 1, 3}, {{5, 5, 3}}, 2},
    {"Conv2d: groups of more than a panel", Conv2d{4, 34, {1, 2}, 1, 0, 1, 2}, {{3, 4, 4}}, 1},
    {"Conv2d: kernel 1", Conv2d{17, 5, 1}, {{4, 5, 17}}, 2},
    {"Conv2d: kernel 1, stride 2, no bias", Conv2d{8, 19, 1, 2, 0, 1, 1, false}, {{5, 7, 8}}, 2},
    {"Conv2d: kernel as large as the image", Conv2d{3, 6, {4, 5}}, {{4, 5, 3}}, 2},
    {"Conv2d: more padding than image", Conv2d{2, 3, 3, 2, 3}, {{1, 2, 2}}, 2},
    {"Conv2d: no padding", Conv2d{0, 5, 3}, {{6, 7, 3}}, 2},
    {"Conv2d: one of everything", Conv2d{1, 1, 1}, {{1, 1, 1}}, 1},
    {"Conv2d: one input channel", Conv2d{1, 20, 5, 1, 2}, {{9, 8, 1}}, 1},
    {"Conv2d: panels", Conv2d{16, 32, 3, 1, 1}, {{5, 4, 16}}, 1},
    {"Conv2d: seventeen to twenty-four channels", Conv2d{17, 24, 3, 1, 1}, {{5, 7, 17}}, 2},
    {"Conv2d: sixteen channels, padding 2, no bias", Conv2d{16, 16, 3, 1, 2, 1, 1, false}, {{4, 5, 16}}, 2},
    {"Conv2d: stride 2, padding 1", Conv2d{3, 7, 3, 2, 1}, {{7, 9, 3}}, 2},
    {"Conv2d: stride larger than kernel", Conv2d{2, 3, 2, 3}, {{8, 9, 2}}, 2},
    {"Conv2d: thirty-three outputs", Conv2d{3, 33, {3, 2}}, {{5, 4, 3}}, 2},
    {"Conv2d: twenty-four to seventeen channels, no padding", Conv2d{24, 17, 3}, {{7, 6, 24}}, 1},
    {"Conv2d: wide rows", Conv2d{1, 2, 3, 1, 1}, {{2, 530, 1}}, 1},
    {"ConvTranspose2d: dilation", ConvTranspose2d{2, 3, 3, 1, 1, 0, 1, true, 2}, {{4, 5, 2}}, 2},
    {"ConvTranspose2d: doubling", ConvTranspose2d{8, 4, 2, 2}, {{3, 4, 8}}, 2},
    {"ConvTranspose2d: groups", ConvTranspose2d{4, 6, 3, 2, 1, 1, 2}, {{3, 4, 4}}, 2},
    {"ConvTranspose2d: groups = channels", ConvTranspose2d{5, 5, 3, 1, 1, 0, 5}, {{4, 3, 5}}, 2},
    {"ConvTranspose2d: kernel 1", ConvTranspose2d{3, 5, 1}, {{4, 3, 3}}, 2},
    {"ConvTranspose2d: no bias", ConvTranspose2d{0, 5, {3, 2}, {1, 2}, 0, 0, 1, false}, {{3, 4, 3}}, 2},
    {"ConvTranspose2d: one pixel", ConvTranspose2d{7, 3, {4, 5}}, {{1, 1, 7}}, 2},
    {"ConvTranspose2d: panels", ConvTranspose2d{16, 32, 2, 2}, {{2, 3, 16}}, 1},
    {"ConvTranspose2d: stride larger than kernel", ConvTranspose2d{2, 3, 2, 3, 0, {1, 0}}, {{3, 3, 2}}, 2},
    {"ConvTranspose2d: thirty-three outputs", ConvTranspose2d{3, 33, 3, 2, 1}, {{3, 2, 3}}, 1},
};

const Case linear_cases[] = {
    {"Linear: inferred", Linear{0, 10}, {{23}}, 5},
    {"Linear: large values", Linear{9, 7}, {{9}}, 3, 100.0f},
    {"Linear: many inputs", Linear{131, 3}, {{131}}, 2},
    {"Linear: many rows", Linear{5, 3}, {{5}}, 33},
    {"Linear: no bias", Linear{7, 17, false}, {{7}}, 3},
    {"Linear: one output", Linear{13, 1}, {{13}}, 4},
    {"Linear: one row", Linear{20, 18}, {{20}}, 1},
    {"Linear: one weight", Linear{1, 1}, {{1}}, 1},
    {"Linear: panels", Linear{16, 32}, {{16}}, 8},
    {"Linear: pixels", Linear{5, 6}, {{2, 3, 5}}, 2},
    {"Linear: sequence", Linear{6, 19}, {{5, 6}}, 3},
    {"Linear: thirty-three outputs", Linear{12, 33}, {{12}}, 7},
};

const Case pool_cases[] = {
    {"AdaptiveAvgPool2d: columns", AdaptiveAvgPool2d{{1, 3}}, {{5, 7, 4}}, 2},
    {"AdaptiveAvgPool2d: global", AdaptiveAvgPool2d{}, {{7, 5, 3}}, 2},
    {"AdaptiveAvgPool2d: global, many channels", AdaptiveAvgPool2d{1}, {{3, 3, 35}}, 2},
    {"AdaptiveAvgPool2d: larger than the input", AdaptiveAvgPool2d{5}, {{3, 2, 3}}, 1},
    {"AdaptiveAvgPool2d: one pixel", AdaptiveAvgPool2d{}, {{1, 1, 6}}, 2},
    {"AdaptiveAvgPool2d: overlapping regions", AdaptiveAvgPool2d{{3, 4}}, {{7, 9, 3}}, 2},
    {"AdaptiveAvgPool2d: same size", AdaptiveAvgPool2d{{3, 4}}, {{3, 4, 2}}, 2},
    {"AdaptiveAvgPool2d: whole windows", AdaptiveAvgPool2d{2}, {{6, 8, 16}}, 1},
    {"AvgPool2d: ceil_mode", AvgPool2d{3, 2, 0, true}, {{6, 8, 3}}, 2},
    {"AvgPool2d: ceil_mode, padding", AvgPool2d{3, 2, 1, true}, {{6, 7, 3}}, 2},
    {"AvgPool2d: ceil_mode, padding not counted", AvgPool2d{3, 2, 1, true, false}, {{6, 7, 3}}, 2},
    {"AvgPool2d: kernel 2", AvgPool2d{2}, {{5, 6, 7}}, 2},
    {"AvgPool2d: overlap", AvgPool2d{{3, 2}, 1}, {{5, 4, 3}}, 2},
    {"AvgPool2d: padding", AvgPool2d{{2, 3}, {1, 2}, {1, 1}}, {{4, 5, 3}}, 2},
    {"AvgPool2d: padding not counted", AvgPool2d{3, 1, 1, false, false}, {{4, 5, 2}}, 2},
    {"AvgPool2d: stride larger than kernel", AvgPool2d{2, 3}, {{8, 7, 16}}, 1},
    {"AvgPool2d: whole image", AvgPool2d{{4, 3}}, {{4, 3, 5}}, 2},
    {"MaxPool2d: ceil_mode", MaxPool2d{3, 2, 0, 1, true}, {{6, 8, 3}}, 2},
    {"MaxPool2d: ceil_mode, padding", MaxPool2d{3, 2, 1, 1, true}, {{6, 7, 3}}, 2},
    {"MaxPool2d: dilation", MaxPool2d{2, 1, 0, 2}, {{5, 6, 3}}, 2},
    {"MaxPool2d: kernel 2", MaxPool2d{2}, {{6, 8, 7}}, 2},
    {"MaxPool2d: large window", MaxPool2d{{17, 16}, 1}, {{18, 17, 2}}, 1},
    {"MaxPool2d: odd image", MaxPool2d{2}, {{5, 7, 17}}, 2},
    {"MaxPool2d: overlap", MaxPool2d{3, 1}, {{5, 6, 4}}, 2},
    {"MaxPool2d: padding", MaxPool2d{3, 2, 1}, {{7, 6, 5}}, 2},
    {"MaxPool2d: sixteen channels", MaxPool2d{2}, {{4, 4, 16}}, 2},
    {"MaxPool2d: ties", MaxPool2d{2}, {{6, 6, 9}}, 2, 1.0f, true},
    {"MaxPool2d: ties and padding", MaxPool2d{3, 2, 1}, {{5, 5, 3}}, 2, 1.0f, true},
};

const Case softmax_cases[] = {
    {"LogSoftmax: channels", LogSoftmax{}, {{3, 2, 7}}, 2},
    {"LogSoftmax: classes", LogSoftmax{}, {{10}}, 5},
    {"LogSoftmax: columns", LogSoftmax{2}, {{3, 5, 4}}, 2},
    {"LogSoftmax: large values", LogSoftmax{}, {{17}}, 3, 50.0f},
    {"LogSoftmax: many classes", LogSoftmax{}, {{131}}, 2},
    {"LogSoftmax: one class", LogSoftmax{}, {{1}}, 3},
    {"LogSoftmax: rows of images", LogSoftmax{1}, {{5, 3, 2}}, 2},
    {"LogSoftmax: two classes", LogSoftmax{1}, {{2}}, 9},
    {"Softmax: channels", Softmax{}, {{3, 2, 7}}, 2},
    {"Softmax: classes", Softmax{}, {{10}}, 5},
    {"Softmax: columns", Softmax{2}, {{3, 5, 4}}, 2},
    {"Softmax: large values", Softmax{}, {{17}}, 3, 50.0f},
    {"Softmax: many classes", Softmax{}, {{131}}, 2},
    {"Softmax: one class", Softmax{}, {{1}}, 3},
    {"Softmax: rows of images", Softmax{1}, {{5, 3, 2}}, 2},
    {"Softmax: two classes", Softmax{1}, {{2}}, 9},
};

const Case loss_cases[] = {
    {"BCELoss: image", BCELoss{}, {{5, 3, 2}}, 2},
    {"BCELoss: many rows", BCELoss{}, {{3}}, 37},
    {"BCELoss: more than a chunk", BCELoss{}, {{131}}, 9},
    {"BCELoss: one output", BCELoss{}, {{1}}, 5},
    {"BCELoss: one value", BCELoss{}, {{1}}, 1},
    {"BCELoss: sequence", BCELoss{}, {{7, 3}}, 2},
    {"BCELoss: vector", BCELoss{}, {{13}}, 3},
    {"BCELoss: whole vectors", BCELoss{}, {{64}}, 4},
    {"BCEWithLogitsLoss: image", BCEWithLogitsLoss{}, {{5, 3, 2}}, 2},
    {"BCEWithLogitsLoss: large values", BCEWithLogitsLoss{}, {{33}}, 2, 60.0f},
    {"BCEWithLogitsLoss: many rows", BCEWithLogitsLoss{}, {{3}}, 37},
    {"BCEWithLogitsLoss: more than a chunk", BCEWithLogitsLoss{}, {{131}}, 9},
    {"BCEWithLogitsLoss: one output", BCEWithLogitsLoss{}, {{1}}, 5},
    {"BCEWithLogitsLoss: one value", BCEWithLogitsLoss{}, {{1}}, 1},
    {"BCEWithLogitsLoss: sequence", BCEWithLogitsLoss{}, {{7, 3}}, 2},
    {"BCEWithLogitsLoss: whole vectors", BCEWithLogitsLoss{}, {{64}}, 4},
    {"CrossEntropyLoss: classes", CrossEntropyLoss{}, {{10}}, 5},
    {"CrossEntropyLoss: label_smoothing", CrossEntropyLoss{0.1f}, {{7}}, 4},
    {"CrossEntropyLoss: label_smoothing 1", CrossEntropyLoss{1.0f}, {{7}}, 4},
    {"CrossEntropyLoss: large values", CrossEntropyLoss{}, {{17}}, 3, 50.0f},
    {"CrossEntropyLoss: many classes", CrossEntropyLoss{}, {{131}}, 5},
    {"CrossEntropyLoss: one class", CrossEntropyLoss{}, {{1}}, 2},
    {"CrossEntropyLoss: one row", CrossEntropyLoss{}, {{5}}, 1},
    {"CrossEntropyLoss: pixels", CrossEntropyLoss{0.05f}, {{3, 4, 6}}, 2},
    {"CrossEntropyLoss: probabilities", CrossEntropyLoss{0.0f, true}, {{9}}, 4},
    {"CrossEntropyLoss: probabilities of pixels, smoothed", CrossEntropyLoss{0.2f, true}, {{2, 3, 5}}, 2},
    {"CrossEntropyLoss: sixteen classes", CrossEntropyLoss{}, {{16}}, 8},
    {"CrossEntropyLoss: two classes, many rows", CrossEntropyLoss{}, {{2}}, 67},
    {"HuberLoss: delta 1", HuberLoss{}, {{31}}, 3},
    {"HuberLoss: delta 5", HuberLoss{5.0f}, {{13}}, 3},
    {"HuberLoss: image", HuberLoss{}, {{5, 3, 2}}, 2},
    {"HuberLoss: large values", HuberLoss{}, {{33}}, 2, 1e3f},
    {"HuberLoss: more than a chunk", HuberLoss{}, {{131}}, 9},
    {"HuberLoss: one value", HuberLoss{}, {{1}}, 1},
    {"HuberLoss: small delta", HuberLoss{0.1f}, {{7, 3}}, 2},
    {"HuberLoss: whole vectors", HuberLoss{}, {{64}}, 4},
    {"L1Loss: image", L1Loss{}, {{5, 3, 2}}, 2},
    {"L1Loss: large values", L1Loss{}, {{33}}, 2, 1e3f},
    {"L1Loss: many rows", L1Loss{}, {{3}}, 37},
    {"L1Loss: more than a chunk", L1Loss{}, {{131}}, 9},
    {"L1Loss: one value", L1Loss{}, {{1}}, 1},
    {"L1Loss: sequence", L1Loss{}, {{7, 3}}, 2},
    {"L1Loss: ties", L1Loss{}, {{31}}, 3, 1.0f, true},
    {"L1Loss: whole vectors", L1Loss{}, {{64}}, 4},
    {"MSELoss: image", MSELoss{}, {{5, 3, 2}}, 2},
    {"MSELoss: large values", MSELoss{}, {{33}}, 2, 1e3f},
    {"MSELoss: many rows", MSELoss{}, {{3}}, 37},
    {"MSELoss: more than a chunk", MSELoss{}, {{131}}, 9},
    {"MSELoss: one output", MSELoss{}, {{1}}, 5},
    {"MSELoss: one value", MSELoss{}, {{1}}, 1},
    {"MSELoss: sequence", MSELoss{}, {{7, 3}}, 2},
    {"MSELoss: whole vectors", MSELoss{}, {{64}}, 4},
    {"NLLLoss: classes", NLLLoss{}, {{10}}, 5},
    {"NLLLoss: large values", NLLLoss{}, {{17}}, 3, 50.0f},
    {"NLLLoss: many classes", NLLLoss{}, {{131}}, 5},
    {"NLLLoss: one class", NLLLoss{}, {{1}}, 2},
    {"NLLLoss: one row", NLLLoss{}, {{5}}, 1},
    {"NLLLoss: pixels", NLLLoss{}, {{3, 4, 6}}, 2},
    {"NLLLoss: sixteen classes", NLLLoss{}, {{16}}, 8},
    {"NLLLoss: two classes, many rows", NLLLoss{}, {{2}}, 67},
};

// rows = updates, all by the same gradients as PyTorch.
const Case optimizer_cases[] = {
    {"Adagrad: defaults", Adagrad{}, {{37}}, 50},
    {"Adagrad: everything", Adagrad{0.05f, 0.01f, 0.1f, 0.2f, 1e-6f}, {{19}}, 50},
    {"Adagrad: initial value", Adagrad{0.1f, 0.0f, 0.0f, 1.0f}, {{16}}, 50},
    {"Adagrad: large gradients", Adagrad{}, {{11}}, 50, 1e3f},
    {"Adagrad: one weight", Adagrad{}, {{1}}, 50},
    {"Adagrad: rate decay", Adagrad{0.1f, 0.1f}, {{13}}, 50},
    {"Adagrad: small gradients", Adagrad{}, {{11}}, 50, 1e-4f},
    {"Adagrad: weight decay", Adagrad{0.01f, 0.0f, 0.01f}, {{33}}, 50},
    {"Adam: betas", Adam{1e-2f, {0.5f, 0.9f}}, {{13}}, 50},
    {"Adam: defaults", Adam{}, {{37}}, 50},
    {"Adam: everything", Adam{0.05f, {0.8f, 0.99f}, 1e-4f, 0.1f}, {{19}}, 50},
    {"Adam: large gradients", Adam{}, {{11}}, 50, 1e3f},
    {"Adam: no first moment", Adam{1e-2f, {0.0f, 0.99f}}, {{16}}, 50},
    {"Adam: one weight", Adam{}, {{1}}, 50},
    {"Adam: small gradients", Adam{}, {{11}}, 50, 1e-4f},
    {"Adam: weight decay", Adam{1e-3f, {}, 1e-8f, 0.01f}, {{33}}, 50},
    {"AdamW: betas", AdamW{1e-2f, {0.5f, 0.9f}}, {{13}}, 50},
    {"AdamW: defaults", AdamW{}, {{37}}, 50},
    {"AdamW: everything", AdamW{0.05f, {0.8f, 0.99f}, 1e-4f, 0.3f}, {{19}}, 50},
    {"AdamW: large gradients", AdamW{}, {{11}}, 50, 1e3f},
    {"AdamW: no decay", AdamW{1e-2f, {}, 1e-8f, 0.0f}, {{16}}, 50},
    {"AdamW: no first moment", AdamW{1e-2f, {0.0f, 0.99f}}, {{16}}, 50},
    {"AdamW: one weight", AdamW{}, {{1}}, 50},
    {"AdamW: small gradients", AdamW{}, {{11}}, 50, 1e-4f},
    {"RMSprop: alpha", RMSprop{1e-2f, 0.9f}, {{13}}, 50},
    {"RMSprop: defaults", RMSprop{}, {{37}}, 50},
    {"RMSprop: everything", RMSprop{0.02f, 0.95f, 1e-4f, 0.1f, 0.8f}, {{19}}, 50},
    {"RMSprop: large gradients", RMSprop{}, {{11}}, 50, 1e3f},
    {"RMSprop: momentum", RMSprop{1e-3f, 0.99f, 1e-8f, 0.0f, 0.9f}, {{16}}, 50},
    {"RMSprop: one weight", RMSprop{}, {{1}}, 50},
    {"RMSprop: small gradients", RMSprop{}, {{11}}, 50, 1e-4f},
    {"RMSprop: weight decay", RMSprop{1e-2f, 0.99f, 1e-8f, 0.01f}, {{33}}, 50},
    {"SGD: dampening", SGD{0.1f, 0.9f, 0.5f}, {{13}}, 50},
    {"SGD: defaults", SGD{}, {{37}}, 50},
    {"SGD: everything", SGD{0.05f, 0.8f, 0.0f, 0.01f, true}, {{19}}, 50},
    {"SGD: large gradients", SGD{1e-4f, 0.9f}, {{11}}, 50, 1e3f},
    {"SGD: momentum", SGD{0.1f, 0.9f}, {{33}}, 50},
    {"SGD: nesterov", SGD{0.1f, 0.9f, 0.0f, 0.0f, true}, {{16}}, 50},
    {"SGD: one weight", SGD{0.1f}, {{1}}, 50},
    {"SGD: weight decay", SGD{0.1f, 0.0f, 0.0f, 0.1f}, {{33}}, 50},
};

// rows = steps, 3 in an epoch, of an optimizer with lr 0.1.
const Case schedule_cases[] = {
    {"ConstantLR: constant", ConstantLR{}, {}, 30},
    {"CosineAnnealingLR: all epochs", CosineAnnealingLR{}, {}, 30},
    {"CosineAnnealingLR: seven epochs, not to zero", CosineAnnealingLR{7, 0.01f}, {}, 21},
    {"ExponentialLR: gamma 0.5", ExponentialLR{0.5f}, {}, 30},
    {"ExponentialLR: gamma 0.9", ExponentialLR{}, {}, 30},
    {"OneCycleLR: all steps", OneCycleLR{}, {}, 30},
    {"OneCycleLR: chosen", OneCycleLR{0.5f, 20, 0.4f, 10.0f, 100.0f}, {}, 20},
    {"ReduceLROnPlateau: nothing reported", ReduceLROnPlateau{}, {}, 30},
    {"StepLR: every epoch", StepLR{}, {}, 30},
    {"StepLR: every third", StepLR{3, 0.5f}, {}, 30},
};

// All rows, in the order of the tables above.
inline const std::vector<Case>& all_cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> v;
    const auto append = [&](const Case* rows, size_t n) { v.insert(v.end(), rows, rows + n); };
#define NNLITE_APPEND(table) append(table, sizeof(table) / sizeof(table[0]))
    NNLITE_APPEND(activation_cases);
    NNLITE_APPEND(arithmetic_cases);
    NNLITE_APPEND(norm_cases);
    NNLITE_APPEND(shape_cases);
    NNLITE_APPEND(conv_cases);
    NNLITE_APPEND(linear_cases);
    NNLITE_APPEND(pool_cases);
    NNLITE_APPEND(softmax_cases);
    NNLITE_APPEND(loss_cases);
    NNLITE_APPEND(optimizer_cases);
    NNLITE_APPEND(schedule_cases);
#undef NNLITE_APPEND
    return v;
  }();
  return all;
}

inline std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", x);
  return text;
}

inline std::string field_json(const Field& f, const void* attributes) {
  const char* at = static_cast<const char*>(attributes) + f.offset;
  const auto pair = [](double a, double b) { return "[" + number(a) + ", " + number(b) + "]"; };
  if (f.type == FieldType::i32) return number(*reinterpret_cast<const int*>(at));
  if (f.type == FieldType::f32) return number(double(*reinterpret_cast<const float*>(at)));
  if (f.type == FieldType::boolean) return *reinterpret_cast<const bool*>(at) ? "true" : "false";
  if (f.type == FieldType::pair) {
    const Pair p = *reinterpret_cast<const Pair*>(at);
    return pair(p.h, p.w);
  }
  const Betas b = *reinterpret_cast<const Betas*>(at);
  return pair(double(b.first), double(b.second));
}

// One line that says everything that the golden values of a case depend on.
inline std::string case_json(const Case& c) {
  const Op& op = *c.op.op();
  std::string s = std::string("{\"name\": \"") + c.name + "\", \"op\": \"" + op.name;
  s += "\", \"attributes\": {";
  for (int i = 0; i < op.n_fields; i++) {
    const Field& f = op.fields[i];
    s += std::string(i > 0 ? ", \"" : "\"") + f.name + "\": " + field_json(f, c.op.attributes());
  }
  s += "}, \"in\": [";
  for (int i = 0; i < c.n_in(); i++) {
    s += i > 0 ? ", [" : "[";
    for (int d = 0; d < c.in[i].rank; d++) s += (d > 0 ? ", " : "") + number(c.in[i].dim[d]);
    s += "]";
  }
  s += "], \"rows\": " + number(c.rows) + ", \"scale\": " + number(double(c.scale));
  s += std::string(", \"ties\": ") + (c.ties ? "true" : "false");
  return s + ", \"training\": " + (c.training ? "true" : "false") + "}";
}

}  // namespace
#endif
