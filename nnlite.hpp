// nnlite: runs and trains neural networks from one C++17 header. No heap, no exceptions, no dependencies.
//
//   #define NNLITE_IMPLEMENTATION             // in exactly one source file
//   #include "nnlite.hpp"
//
// Search for ">>room" to jump: every name below appears twice, here and at its room. MIT licence.
//
// Part 1, interface:   >>config >>status >>memory >>pool >>tensor >>layers >>losses >>optim >>model
//                      >>session >>trainer >>image >>metrics >>io >>extension
// Part 2, foundation:  >>platform >>math >>rng >>augment >>context >>threads >>text >>records
// Part 2, kernels:     >>simd >>formulas >>kernel_gemm >>kernel_linear >>kernel_conv >>kernel_col2im
//                      >>kernel_winograd >>kernel_depthwise >>kernel_elementwise >>kernel_pool >>kernel_norm
//                      >>kernel_loss >>kernel_optim >>dispatch
// Part 2, ops:         >>op_activation >>op_arithmetic >>op_batch_norm >>op_concat >>op_conv2d
//                      >>op_conv_transpose2d >>op_dropout >>op_flatten >>op_linear >>op_loss_class
//                      >>op_loss_elementwise >>op_optimizer >>op_pool >>op_softmax >>op_upsample >>op_list
// Part 2, engine:      >>schedule >>sampler >>graph >>init >>planner >>plan_steps >>packing
//                      >>executor >>layout >>trainer_impl >>session_impl >>metrics_impl >>image_impl >>digit
// Part 2, files:       >>hash >>container >>fields >>extras >>reader >>load >>writer >>save
//                      >>checkpoint >>golden
#ifndef NNLITE_HPP
#define NNLITE_HPP

#include <stddef.h>
#include <stdint.h>

// ================================================================================ >>config
// Define these before the include, the same in every source file of a program.
//   NNLITE_IMPLEMENTATION   put the implementation into this source file (one of them)
//   NNLITE_REAL             float (default) or double: the arithmetic of everything; double has no fast
//                           kernels and exists as the oracle of the tests
//   NNLITE_NO_FUSION        every op is a step of its own: the same bits, slower
//   NNLITE_NO_SIMD          plain C++ only, chosen by itself where no vector unit is known
//   NNLITE_NO_STDIO         no files: load from memory or a callback, save to a callback
//   NNLITE_NO_STRINGS       no texts of problems
//   NNLITE_NO_THREADS       no ThreadPool; a Pool of your own still works
//   NNLITE_NO_TRAINING      no Trainer, no gradients: the smallest build that runs models
//   NNLITE_SHARED_FROM      mean multiply-adds of a step, per float of a vector, to share it (20000)
//   NNLITE_SELF             how this file includes itself, "nnlite.hpp" unless you renamed it
//   NNLITE_ASSERT(c)        what to do about a bug in the calling program; nothing by default
#define NNLITE_VERSION "0.1.0"
#define NNLITE_ARITHMETIC 2  // raised when a kernel's arithmetic changes on purpose; stored in checkpoints

#ifndef NNLITE_REAL
#define NNLITE_REAL float
#define NNLITE_CONFIGURATION f32
#else
#define NNLITE_CONFIGURATION real_chosen
#endif
#define NNLITE_COLD __attribute__((cold))       // seldom run: small, and compiled fast
#ifndef NNLITE_SELF
#define NNLITE_SELF "nnlite.hpp"
#endif
#ifndef NNLITE_SHARED_FROM
#define NNLITE_SHARED_FROM 20000
#endif
#ifndef NNLITE_ASSERT
#define NNLITE_ASSERT(condition) ((void)0)
#endif
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__)
#error "nnlite promises the same bits everywhere and cannot under -ffast-math"
#endif

namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
using real = NNLITE_REAL;

constexpr int max_rank       = 8;      // dimensions of a tensor
constexpr int max_inputs     = 16;     // of one op, and of one model
constexpr int max_outputs    = 8;      // of one model
constexpr int max_parameters = 4;      // of one op
constexpr int max_slots      = 4;      // of one op
constexpr int max_attributes = 64;     // bytes of one attribute struct
constexpr int max_workers    = 64;     // threads of a pool
#ifdef NNLITE_NO_FUSION
constexpr bool fuses_rows = false;
#else
constexpr bool fuses_rows = true;
#endif

// ================================================================================ >>status
// Every fallible call returns a Status; ok is zero. problem() of the object says where and what was expected.
#define NNLITE_STATUSES(X)                                                                                   \
  X(ok,                "ok")                                                                                 \
  X(bad_argument,      "an argument is out of range")                                                        \
  X(bad_attribute,     "an attribute of the layer is out of range")                                          \
  X(bad_checksum,      "the file is damaged: a checksum differs")                                            \
  X(bad_format,        "not a valid .nnl file")                                                              \
  X(bad_graph,         "the graph is not valid")                                                             \
  X(bad_image,         "the image cannot be used")                                                           \
  X(bad_label,         "a label is out of range")                                                            \
  X(bad_shape,         "the shapes do not fit")                                                              \
  X(device_error,      "the device failed; of a GPU, cuda_problem(n) says why")                              \
  X(foreign_tensor,    "the tensor belongs to another model")                                                \
  X(io_error,          "reading or writing failed")                                                          \
  X(limit_exceeded,    "larger than the limits allow")                                                       \
  X(misaligned,        "memory is not aligned to 64 bytes")                                                  \
  X(no_data,           "no data set was given")                                                              \
  X(no_loss,           "training needs a loss")                                                              \
  X(no_weights,        "the model has no weights yet: load or materialise them")                             \
  X(not_built,         "build was not called or failed")                                                     \
  X(not_finite,        "a value became infinite or not a number")                                            \
  X(out_of_memory,     "the memory given is too small")                                                      \
  X(unknown_op,        "the op is not known here")                                                           \
  X(unsupported,       "not supported")                                                                      \
  X(wrong_arithmetic,  "the checkpoint was made with other arithmetic")                                      \
  X(wrong_data,        "the data set is not the one the checkpoint was made with")

#define NNLITE_STATUS_ENUMERATOR(name, text) name,
enum class [[nodiscard]] Status : uint8_t { NNLITE_STATUSES(NNLITE_STATUS_ENUMERATOR) };
#undef NNLITE_STATUS_ENUMERATOR

constexpr bool ok(Status s) { return s == Status::ok; }
const char* to_string(Status s);               // the name: "bad_shape"
const char* describe(Status s);                // the sentence: "the shapes do not fit"

// What went wrong: the status, the layer or section where, the sentence with what was expected and got.
struct Problem {
  Status   status    = Status::ok;
  uint64_t offset    = 0;                      // in the file, where a file is to blame
  char     where[64] = {};
  char     what[128] = {};
};

#define NNLITE_TRY(expression)                                          \
  do {                                                                  \
    const ::nnlite::Status nnlite_status_ = (expression);               \
    if (nnlite_status_ != ::nnlite::Status::ok) return nnlite_status_;  \
  } while (0)

// ================================================================================ >>memory
// The base of what cannot be copied.
struct NotCopied {
  NotCopied() = default;
  NotCopied(const NotCopied&) = delete;
  NotCopied& operator=(const NotCopied&) = delete;
};

// Hands out 64-byte-aligned pieces of the caller's memory. A base that is not aligned gives nothing at all.
class Arena {
 public:
  Arena() = default;
  Arena(void* memory, size_t bytes) : base_(static_cast<unsigned char*>(memory)), size_(bytes) {}
  void*  take(size_t bytes);                   // nullptr when too little is left
  size_t used() const { return used_; }
  size_t size() const { return size_; }
  size_t left() const { return size_ - used_; }
  bool   aligned() const { return (reinterpret_cast<uintptr_t>(base_) & 63u) == 0; }

 private:
  unsigned char* base_ = nullptr;
  size_t         size_ = 0, used_ = 0;
};

// Exact bytes, known before any memory exists. total is what build takes from the arena, to the byte.
struct MemoryPlan {
  size_t  total       = 0;
  size_t  weights     = 0;                     // trainable parameters that a Trainer owns
  size_t  gradients   = 0;  // parameter gradients that outlive their layer; 0 where each is used at once
  size_t  optimizer   = 0;
  size_t  activations = 0;  // inputs, activations, their gradients, what backward keeps: packed together
  size_t  state       = 0;                     // running statistics, step records
  size_t  derived     = 0;                     // rearranged copies of weights that kernels keep
  size_t  scratch     = 0;  // grows with the number of workers, never with the instruction set
  size_t  in_place    = 0;                     // weights used where the model has them; not part of total
  size_t  lower_bound = 0;  // persistent bytes + the largest sum of live tensors; without scratch
  Problem problem;                             // why the plan failed
};

// ================================================================================ >>pool
// Runs job(context, worker) once for every worker in [0, workers), at the same time where it can, and returns
// when all are done. Fill one in to use threads of your own.
struct Pool {
  int   workers = 1;
  void* user    = nullptr;
  void (*run)(void* user, int workers, void (*job)(void* context, int worker), void* context) = nullptr;
};

#ifndef NNLITE_NO_THREADS
// Threads that spin for a moment between the jobs of a step, then sleep. No result depends on their count.
class ThreadPool : public Pool, NotCopied {
 public:
  explicit ThreadPool(int threads);            // the caller is one of them; at most max_workers
  ~ThreadPool();

 private:
  alignas(64) unsigned char storage_[64 * (max_workers + 4)];
};
#endif

// ================================================================================ >>tensor
enum class DType : uint8_t { f32, f64, i32, u8 };
constexpr DType real_dtype = sizeof(real) == 4 ? DType::f32 : DType::f64;
constexpr size_t size_of(DType t) { return t == DType::f64 ? 8 : t == DType::u8 ? 1 : 4; }

// Dimensions without the batch, as the caller writes them: {28, 28, 1}. Images are height, width, channels.
struct Dims {
  int32_t dim[max_rank] = {};
  int     rank          = 0;
  template <class... I>
  constexpr Dims(I... i) : dim{static_cast<int32_t>(i)...}, rank(static_cast<int>(sizeof...(I))) {}
};

// The shape of a tensor. dim[0] is batch_dim where the rows of the batch are its first dimension.
struct Shape {
  static constexpr int32_t batch_dim = -1;
  int32_t dim[max_rank] = {};
  int32_t rank          = 0;

  int32_t last() const { return rank > 0 ? dim[rank - 1] : 1; }
  bool    batched() const { return rank > 0 && dim[0] == batch_dim; }
  int64_t row_numel() const;  // elements of one row (of all where there is no batch dimension)
  int64_t numel(int64_t rows) const { return batched() ? rows * row_numel() : row_numel(); }
};
bool operator==(const Shape& a, const Shape& b);
inline bool operator!=(const Shape& a, const Shape& b) { return !(a == b); }
// A handle in a graph. One from another model is caught.
struct Tensor { uint16_t id = 0xFFFF, model = 0; };

// Data: rows x row_numel elements, dense, NHWC.
template <class T> struct View {
  T*    data = nullptr;
  Shape shape;
  int   rows = 0;
  int64_t size() const { return shape.numel(rows); }
  T& operator[](int64_t i) const { return data[i]; }
  T* row(int64_t i) const { return data + i * shape.row_numel(); }
};

// Height and width; one int gives both.
struct Pair {
  int h = 0, w = 0;
  constexpr Pair() = default;
  constexpr Pair(int both) : h(both), w(both) {}
  constexpr Pair(int height, int width) : h(height), w(width) {}
};

struct Op;                                     // >>extension
#define NNLITE_OP static const ::nnlite::Op op

// A copy of any layer, loss, optimizer or schedule: its row and its attributes.
class AnyOp {
 public:
  AnyOp() = default;
  template <class L> AnyOp(const L& attributes) : AnyOp(&L::op, &attributes, sizeof(L)) {
    static_assert(sizeof(L) <= max_attributes, "attribute struct too large");
  }
  AnyOp(const Op* op, const void* attributes, size_t size);
  explicit operator bool() const { return op_ != nullptr; }
  const Op*   op() const { return op_; }
  const void* attributes() const { return bytes_; }
  void*       attributes() { return bytes_; }

 private:
  const Op* op_ = nullptr;
  alignas(8) unsigned char bytes_[max_attributes] = {};
};

// ================================================================================ >>layers
// PyTorch's names, argument order and defaults. x and y are [N, ...]; images are [N, H, W, C]. 0 for a count
// of input channels or features means: infer it. All return bad_shape or bad_attribute through Model::finish.

// y = mean over each of output_size regions, region i of n covers floor(i H / n) .. ceil((i + 1) H / n).
struct AdaptiveAvgPool2d { Pair output_size = 1; NNLITE_OP; };
struct Add { NNLITE_OP; };                     // y = a + b (+ c ...), all of one shape
// y = mean of the window. stride 0 means kernel_size. count_include_pad: all windows count as whole.
struct AvgPool2d {
  Pair kernel_size;
  Pair stride  = 0;
  Pair padding = 0;
  bool ceil_mode = false, count_include_pad = true;
  NNLITE_OP;
};

// y = (x - mean) / sqrt(var + eps) * weight + bias over the rows (and steps) of [N, C]; by running statistics
// in evaluation. momentum weighs the new statistic; only running_var is unbiased. Ioffe, Szegedy 2015.
struct BatchNorm1d {
  int   num_features = 0;
  float eps = 1e-5f, momentum = 0.1f;
  bool  affine = true, track_running_stats = true;
  NNLITE_OP;
};

// The same over N, H, W of [N, H, W, C].
struct BatchNorm2d {
  int   num_features = 0;
  float eps = 1e-5f, momentum = 0.1f;
  bool  affine = true, track_running_stats = true;
  NNLITE_OP;
};

// y = the inputs one after another along dim (0 is the batch and not allowed; of an image 3 is channels).
struct Concat { int dim = 3; NNLITE_OP; };
// y[o] = b[o] + sum x * w[o]; y is floor((H + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 high.
// weight [O, I / groups, kH, kW].
struct Conv2d {
  int  in_channels = 0, out_channels = 0;
  Pair kernel_size;
  Pair stride   = 1;
  Pair padding  = 0;
  Pair dilation = 1;
  int  groups   = 1;
  bool bias     = true;
  NNLITE_OP;
};

// The transpose of Conv2d; y is (H - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1 high.
// weight [I, O / groups, kH, kW].
struct ConvTranspose2d {
  int  in_channels = 0, out_channels = 0;
  Pair kernel_size;
  Pair stride         = 1;
  Pair padding        = 0;
  Pair output_padding = 0;
  int  groups         = 1;
  bool bias           = true;
  Pair dilation       = 1;
  NNLITE_OP;
};

// While training y = x / (1 - p) with probability 1 - p, else 0, by (seed, step, node, element); else y = x.
struct Dropout { float p = 0.5f; NNLITE_OP; };
struct ELU { float alpha = 1.0f; NNLITE_OP; };          // y = x for x > 0, else alpha (exp(x) - 1)
// y = x with dimensions start_dim .. end_dim as one, in H, W, C order.
struct Flatten { int start_dim = 1, end_dim = -1; NNLITE_OP; };
struct LeakyReLU { float negative_slope = 0.01f; NNLITE_OP; };  // y = x for x > 0, else negative_slope x
// y = x W^T + b. x [N, ..., in_features] -> y [N, ..., out_features]. weight [out_features, in_features].
struct Linear { int in_features = 0, out_features = 0; bool bias = true; NNLITE_OP; };
struct LogSoftmax { int dim = -1; NNLITE_OP; };         // y = x - log(sum(exp(x))) along dim
// y = maximum of the window; padding counts as minus infinity. stride 0 means kernel_size.
struct MaxPool2d {
  Pair kernel_size;
  Pair stride    = 0;
  Pair padding   = 0;
  Pair dilation  = 1;
  bool ceil_mode = false;
  NNLITE_OP;
};

struct Mul { NNLITE_OP; };                     // y = a b (c ...), all of one shape
struct ReLU { NNLITE_OP; };                    // y = max(x, 0)
struct Sigmoid { NNLITE_OP; };                 // y = 1 / (1 + exp(-x))
struct Softmax { int dim = -1; NNLITE_OP; };   // y = exp(x) / sum(exp(x)) along dim
struct Tanh { NNLITE_OP; };                    // y = tanh(x)
// y[h, w] = x[h / scale_factor, w / scale_factor] (nearest).
struct Upsample { Pair scale_factor = 2; NNLITE_OP; };

// ================================================================================ >>losses
// A loss is an op whose last input is the target; its output is one number, the mean over rows and positions.

// Target: class index (i32) in [0, C) for logits [N, ..., C], or with probabilities = true a tensor like the
// logits. loss = -sum_c q_c log softmax(x)_c with q = (1 - label_smoothing) target + label_smoothing / C.
struct CrossEntropyLoss { float label_smoothing = 0.0f; bool probabilities = false; NNLITE_OP; };
// loss = -x[target] for log-probabilities x [N, ..., C] and class index target.
struct NLLLoss { NNLITE_OP; };
struct BCELoss { NNLITE_OP; };                 // loss = -(t log x + (1 - t) log(1 - x)), logarithms >= -100
struct BCEWithLogitsLoss { NNLITE_OP; };       // loss = max(x, 0) - x t + log(1 + exp(-|x|))
struct MSELoss { NNLITE_OP; };                 // loss = (x - t)^2
struct L1Loss { NNLITE_OP; };                  // loss = |x - t|
// loss = (x - t)^2 / 2 where |x - t| < delta, else delta (|x - t| - delta / 2).
struct HuberLoss { float delta = 1.0f; NNLITE_OP; };

// ================================================================================ >>optim
// PyTorch's formulas and defaults; g is the gradient, t counts updates from 1.
struct Betas { float first = 0.9f, second = 0.999f; };

// g += weight_decay w; m = momentum m + (1 - dampening) g, first g; w -= lr (nesterov ? g + momentum m : m).
struct SGD {
  float lr = 1e-3f;
  float momentum = 0.0f, dampening = 0.0f, weight_decay = 0.0f;
  bool  nesterov = false;
  NNLITE_OP;
};

// s += g^2;  w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).  Duchi, Hazan, Singer 2011.
struct Adagrad {
  float lr = 1e-2f, lr_decay = 0.0f, weight_decay = 0.0f;
  float initial_accumulator_value = 0.0f, eps = 1e-10f;
  NNLITE_OP;
};

// s = alpha s + (1 - alpha) g^2;  m = momentum m + g / (sqrt(s) + eps);  w -= lr m.
struct RMSprop {
  float lr = 1e-2f, alpha = 0.99f, eps = 1e-8f;
  float weight_decay = 0.0f, momentum = 0.0f;
  NNLITE_OP;
};

// m, v: moving averages of g, g^2;  w -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps).  Kingma, Ba 2014.
struct Adam {
  float lr           = 1e-3f;
  Betas betas        = {};
  float eps          = 1e-8f;
  float weight_decay = 0.0f;
  NNLITE_OP;
};

// Adam with weight_decay lr w subtracted from w instead of added to g.  Loshchilov, Hutter 2017.
struct AdamW {
  float lr           = 1e-3f;
  Betas betas        = {};
  float eps          = 1e-8f;
  float weight_decay = 1e-2f;
  NNLITE_OP;
};

// Schedules give the learning rate before every step from the optimizer's lr. Epoch schedules count whole
// epochs. Any of them may be preceded by TrainerOptions::warmup_steps of linear growth.

struct ConstantLR { NNLITE_OP; };              // lr
// lr eta_min + (lr - eta_min) (1 + cos(pi epoch / T_max)) / 2; T_max 0 means TrainerOptions::epochs.
struct CosineAnnealingLR { int T_max = 0; float eta_min = 0.0f; NNLITE_OP; };
struct ExponentialLR { float gamma = 0.9f; NNLITE_OP; };               // lr gamma^epoch
// From max_lr / div_factor up to max_lr during pct_start of the steps, then down to its final_div_factor-th
// part; cosine both ways. max_lr 0 means the optimizer's lr; total_steps 0 means all steps of
// TrainerOptions::epochs. Smith, Topin 2017.
struct OneCycleLR {
  float max_lr      = 0.0f;
  int   total_steps = 0;
  float pct_start   = 0.3f;
  float div_factor = 25.0f, final_div_factor = 1e4f;
  NNLITE_OP;
};

// lr times factor after more than patience reports (Trainer::report) not below 1 - threshold times the best.
struct ReduceLROnPlateau {
  float factor    = 0.1f;
  int   patience  = 10;
  float threshold = 1e-4f;
  float min_lr    = 0.0f;
  NNLITE_OP;
};

struct StepLR { int step_size = 1; float gamma = 0.1f; NNLITE_OP; };   // lr gamma^(epoch / step_size)

// ================================================================================ >>model
// Where the weights of a model come from when none are loaded. pytorch is each layer's default: uniform in
// +-1 / sqrt(fan_in). glorot and he set weights (Glorot, Bengio 2010; He et al. 2015) and leave biases zero.
enum class Init : uint8_t { pytorch, glorot_normal, glorot_uniform, he_normal, he_uniform };

struct Seed { uint64_t value = 0; Init init = Init::pytorch; };

// What a parameter is: weights and biases are trained, statistics (running_mean) are kept by their op.
enum class Role : uint8_t { weight, bias, statistic };

// How a parameter lies in memory; its bytes follow from layout and shape. Tails are zero.
//   vector      [n], padded to a multiple of 16
//   linear      logical [O, I]                    as [O/16][I][16]
//   conv        logical [O, I/groups, kH, kW]     as [group][O/groups/16][kH][kW][I/groups][16]
//   transposed  logical [I, O/groups, kH, kW]     as [group][O/groups/16][kH][kW][I/groups][16]
//   depthwise   logical [C, 1, kH, kW]            as [kH][kW][C padded to a multiple of 16]
enum class Layout : uint8_t { vector, linear, conv, transposed, depthwise };

// A parameter as a user sees it: name "conv1.weight", shape in PyTorch's order without padding.
struct ParameterInfo {
  char    name[64] = {};
  Shape   shape;
  Role    role      = Role::weight;
  bool    trainable = true;
  int64_t count     = 0;                       // logical elements
};

// A layer as `nnlite info` prints it.
struct NodeInfo {
  char      name[48] = {};
  const Op* op       = nullptr;                // nullptr for an input
  Shape     shape;
  int64_t   parameters = 0;
  int64_t   macs       = 0;                    // multiply-adds of one row, forward
};

// What other rooms declare in detail.
struct Image; struct LoadOptions; struct ModelExtras; struct Node; struct Parameter; struct Source;

// The graph of a network and, once loaded or materialised, its weights. Immutable after finish or load; many
// sessions in many threads may use one model. It, and the caller's memory of its records, must outlive them.
class Model : NotCopied {
 public:
  Model() = default;                                                    // for load
  Model(void* records, size_t bytes);                                   // for building; a few KB
  template <size_t bytes> explicit Model(unsigned char (&records)[bytes]) : Model(records, bytes) {}

  // Building. A failed call poisons the rest: check once, at finish. Shapes are without the batch.
  Tensor input(const char* name, const Dims& dims, DType dtype = real_dtype);
  template <class L, class... T> Tensor add(const char* name, const L& layer, Tensor x, T... more) {
    const Tensor in[] = {x, Tensor(more)...};
    return add_any(name, AnyOp(layer), in, 1 + static_cast<int>(sizeof...(T)));
  }
  template <class L, class... T> Tensor add(const L& layer, Tensor x, T... more) {
    return add(static_cast<const char*>(nullptr), layer, x, more...);
  }
  template <class L, class... More> Tensor chain(Tensor x, const L& layer, const More&... more) {
    x = add(layer, x);
    if constexpr (sizeof...(More) > 0) return chain(x, more...);
    return x;
  }
  template <class... T>
  Tensor share(Tensor made_by, Tensor x, T... more) {  // the same layer and parameters on another input
    const Tensor in[] = {x, Tensor(more)...};
    return share_any(made_by, in, 1 + static_cast<int>(sizeof...(T)));
  }
  Tensor add_any(const char* name, const AnyOp& layer, const Tensor* inputs, int n);
  Tensor share_any(Tensor made_by, const Tensor* inputs, int n);
  void   initialise(Tensor made_by, Init init);  // for this layer's weight instead of the seed's
  void   freeze(Tensor made_by);                                        // its parameters are not trainable
  void   output(const char* name, Tensor x);
  Status finish(Seed seed);

  // Weights. Bytes for materialise: weight_bytes().
  Status materialise(Arena& arena);
  // For an empty model: the network of `from` with `outputs` features in its last Linear, to learn new
  // classes. What exists keeps its weights, the rest starts from the seed. bad_graph: that Linear does not
  // make output 0, or has more features already.
  Status grow(const Model& from, int outputs, Seed seed, Arena& arena);
  Status load(const void* file, size_t bytes, Arena& arena);            // all ops, in place
  Status load(const void* file, size_t bytes, Arena& arena, const LoadOptions& options);
  template <size_t bytes>
  Status load(const unsigned char (&file)[bytes], Arena& arena, const LoadOptions& options) {
    return load(file, bytes, arena, options);
  }
  Status load(const Source& source, Arena& arena, const LoadOptions& options);    // weights into the arena
#ifndef NNLITE_NO_STDIO
  Status load(const char* path, Arena& arena);                          // all ops, weights into the arena
  Status load(const char* path, Arena& arena, const LoadOptions& options);
#endif

  bool   finished() const { return finished_; }
  bool   has_weights() const { return weights_ != nullptr || weight_bytes() == 0; }
  size_t weight_bytes() const { return weight_bytes_; }
  size_t record_bytes() const { return size_ - (back_ - front_); }      // of the caller's record memory, used
  int    node_count() const { return node_count_; }
  NodeInfo node(int i) const;
  int    parameter_count() const { return parameter_count_; }
  ParameterInfo parameter(int i) const;
  int64_t parameter_elements() const;  // weights and biases, as PyTorch counts them
  int    find_parameter(const char* name) const;                        // -1 when there is none
  Status get(int parameter, real* to) const;                            // logical order
  int    input_count() const { return input_count_; }
  int    output_count() const { return output_count_; }
  Shape  input_shape(int i) const;
  DType  input_dtype(int i) const;
  const char* input_name(int i) const;
  Shape  output_shape(int i) const;
  const char* output_name(int i) const;
  Seed   seed() const { return seed_; }
  const Problem& problem() const { return problem_; }
  const ModelExtras* extras() const { return extras_; }  // labels, preprocessing, ... of a loaded file

 private:
  friend struct ModelAccess;
  struct Failed;
  Failed fail(Status status, const char* where, const char* what = nullptr);
  // records grow from the front, attributes, names and lists from the back
  Node*      nodes_        = nullptr;
  size_t     size_ = 0, front_ = 0, back_ = 0, weight_bytes_ = 0;
  const unsigned char* weights_ = nullptr;
  const ModelExtras*   extras_  = nullptr;
  uint16_t*  id_map_       = nullptr;          // handle -> node after finish; nullptr where they are equal
  Seed       seed_;
  uint16_t   node_count_   = 0, parameter_count_ = 0;
  uint16_t   self_         = 0;                // tells our handles from another model's
  uint8_t    input_count_  = 0, output_count_ = 0;
  bool       finished_     = false;
  uint16_t   inputs_[max_inputs]   = {};
  uint16_t   outputs_[max_outputs] = {};
  const char* output_names_[max_outputs] = {};
  Problem    problem_;
};

// ================================================================================ >>session
class Trainer;
struct StepRecord;
struct Backend;                                // >>extension
struct Watch;
enum class Seen : uint8_t;                     // >>image

// What build leaves in an arena: the list of steps and where their data lies, as references of 32 bits.
struct Engine {
  const Model*   model = nullptr;
  const Node*    extra = nullptr;              // target and loss of options.loss, behind the model's nodes
  StepRecord*    steps = nullptr;
  uint32_t*      refs  = nullptr;
  uint32_t*      io    = nullptr;              // of every node's output
  uint32_t*      parameters = nullptr;         // a trainer's: of values, kept gradients, optimizer slots
  unsigned char* arena = nullptr;
  unsigned char* scratch = nullptr;
  const Engine*  trainer = nullptr;            // of a session on a trainer
  uint64_t       version = 0;  // a trainer's: of its weights; a session's: of those its derived ones are from
  Pool*          pool  = nullptr;
  const Watch*   watch = nullptr;
  const Backend* backend = nullptr;            // where the steps run; nullptr: here
  void          *device = nullptr, *device_weights = nullptr;    // its copies of arena and model
  uint32_t       forward_count = 0, step_count = 0;     // steps [0, forward_count) are the forward pass
  int            node_count = 0, parameter_stride = 0, batch = 0;
  int            workers = 1;                  // of the pool at build: scratch is planned for them
  bool           shared = false;               // by them: steps are large enough
};

struct SessionOptions {
  int   batch = 1;                             // the largest; forward runs any number of rows up to it
  AnyOp loss;                                  // optional: adds a target input and loss() on output 0
  Pool* pool = nullptr;                        // absent: one thread
  const Backend* backend = nullptr;            // cuda_backend(0) of nnlite_cuda.cu; absent: the CPU
  bool  derived_weights = true;                // Winograd convolutions; off: less memory, other bits
  Pair  max_image;                             // the largest that set_image takes, where that needs scratch
};

// Runs a model, or looks through the weights a trainer has at the moment (not while a step runs).
class Session : NotCopied {
 public:
  static Status plan(const Model& model, const SessionOptions& options, MemoryPlan& plan);
  Status build(const Model& model, const SessionOptions& options, Arena& arena);
  Status build(const Trainer& trainer, const SessionOptions& options, Arena& arena);

  View<real>    input(int i = 0);              // write here before each forward, which uses the place anew
  View<int32_t> input_i32(int i);  // of an i32 input (the target of a classification loss is the last)
  // by the model's preprocessing; bad_image, limit_exceeded: larger than max_image
  Status set_image(const Image& image, int row = 0);
  Seen   seen() const { return seen_; }        // by the last set_image
  Status forward(int rows = 1);                // bad_argument if rows are not in 1 .. batch; bad_label
  View<const real> output(int i = 0) const;
  real loss() const;                           // of the last forward, with SessionOptions::loss
  void watch(const Watch* w) { engine_.watch = w; }     // from now until build; nullptr: nobody
  int  batch() const { return engine_.batch; }
  const Model* model() const { return engine_.model; }
  const Problem& problem() const { return problem_; }

 private:
  Status build_on(const Model* model, const Trainer* trainer, const SessionOptions& options, Arena& arena);
  Engine engine_;
  AnyOp  loss_;
  int    rows_ = 0;
  Pair   max_image_;
  Seen   seen_ = Seen();
  Problem problem_;
};

// ================================================================================ >>trainer
// Which parameters are trained, of those that the model does not freeze: all, biases, those of the last op
// that has some (head), those that TrainerOptions::names lists by their own or their node's name (named).
enum class Trainable : uint8_t { all, bias, head, named };

// Random changes to the pictures of input 0, [N, height, width, channels], each time the sampler draws one:
// uniform within the ranges, by (seed, epoch, sample) alone. 0: none. Batches of your own stay as they are.
struct Augment {
  float degrees    = 0.0f;                     // turned by +-degrees, 0 .. 180
  float scale      = 0.0f;                     // made larger by a factor of 1 +- scale, 0 .. 0.9
  float shear      = 0.0f;                     // slanted: x moves by +-shear a row, 0 .. 1
  float shift      = 0.0f;                     // moved by +-shift pixels both ways, 0 .. 16384
  float thinner    = 0.0f;                     // light strokes lose up to so much of a pixel on every side,
  float thicker    = 0.0f;                     // or gain it, 0 .. 1; pictures of one channel
  float background = 0.0f;                     // the value around the picture
};

struct TrainerOptions {
  int      batch = 1;                          // the largest; a smaller last one runs as it is
  AnyOp    loss;  // on output 0, with a target input of its own; empty: losses are in the graph
  AnyOp    optimizer;                          // SGD, Adagrad, RMSprop, Adam, AdamW
  AnyOp    schedule;                           // empty: constant
  int      warmup_steps = 0;                   // lr grows linearly over the first steps
  int      epochs = 1;                         // the length that cosine and one-cycle schedules mean
  float    clip_value = 0.0f;                  // 0: off; each gradient into +-clip_value
  float    clip_norm  = 0.0f;  // 0: off; all gradients scaled so that their 2-norm is at most this
  Trainable trainable = Trainable::all;
  const char* const* names = nullptr;          // for Trainable::named; kept by the caller
  int      name_count = 0;
  uint64_t seed = 0;                           // of shuffling and dropout
  bool     shuffle = true;
  Augment  augment;
  bool     drop_last = false;                  // leave out the smaller last batch of an epoch
  bool     keep_gradients = false;             // for inspection after a step
  bool     derived_weights = true;
  Pool*    pool = nullptr;
  const Backend* backend = nullptr;            // as SessionOptions has it
};

// Rows of data for one step: one pointer for every model input in order, the short-form loss's target last.
struct Batch {
  const void* data[max_inputs + 1] = {};
  int         rows = 0;
  Batch() = default;
  Batch(const void* x, const void* target, int n) : data{x, target}, rows(n) {}
};

// Where rows come from: resident columns, or a read function for those that have no data pointer. One column
// for every model input in order, the target last. Values of an f32 input are data * scale + shift.
struct Column {
  const void* data  = nullptr;
  DType       dtype = real_dtype;
  float       scale = 1.0f, shift = 0.0f;
};
struct Dataset {
  uint32_t count = 0;
  Column   columns[max_inputs + 1];
  // writes one row as the input's dtype
  bool   (*read)(void* user, uint32_t index, int column, void* row) = nullptr;
  void*    user = nullptr;
};

// Owns trained parameters, optimizer state and the place in the data. Order: plan, build, set_data, resume.
class Trainer : NotCopied {
 public:
  static Status plan(const Model& model, const TrainerOptions& options, MemoryPlan& plan);
  Status build(const Model& model, const TrainerOptions& options, Arena& arena);
  Status set_data(const Dataset& data);        // outlives the trainer; bad_shape when columns are missing
  Status set_data(Dataset&& data) = delete;
  Status step();                               // the next batch of the data set
  Status step(const Batch& batch);  // your own batch. Both: bad_label, not_finite: nothing was changed
  Status steps(int n);                         // a GPU waits once, and keeps its loss() where one fails
  // Goes on as if it had never stopped, with the seed of the checkpoint. The other options must be those of
  // the checkpoint, as read_options gives them, but epochs, pool and keep_gradients: bad_argument names the
  // one that differs. Else: wrong_arithmetic, wrong_data, bad_graph. For other options, load it as a model.
  Status resume(const Source& source, bool any_arithmetic = false);
#ifndef NNLITE_NO_STDIO
  Status resume(const char* path, bool any_arithmetic = false);
#endif
  Status report(real metric);                  // for ReduceLROnPlateau: smaller is better

  real     loss() const { return loss_; }      // of the last step, before its update
  double   loss_sum() const { return losses_; }         // over all rows of the last step() or steps(n), if ok
  uint64_t step_number() const { return step_; }        // steps done
  uint32_t epoch() const;                      // whole epochs done
  uint32_t epoch_position() const;             // samples done in this one
  float    learning_rate() const { return lr_; }        // of the last step
  real     gradient_norm() const { return gradient_norm_; }     // before clipping, with clip_norm
  Status   get(int parameter, real* to) const;           // the weights of the moment, logical order
  Status   set(int parameter, const real* from);
  Status   get_gradient(int parameter, real* to) const;  // with keep_gradients
  bool     is_trained(int parameter) const;
  void     watch(const Watch* w) { engine_.watch = w; }  // from now until build; nullptr: nobody
  const Model* model() const { return engine_.model; }
  const TrainerOptions& options() const { return options_; }
  const Problem& problem() const { return problem_; }

 private:
  friend struct CheckpointAccess;
  friend struct TrainerAccess;
  struct Plateau { float best = 0, factor = 1.0f; uint32_t bad = 0, reports = 0; };
  Engine   engine_;
  TrainerOptions options_;
  const Dataset* data_ = nullptr;
  uint64_t step_    = 0;                       // optimizer updates done
  uint64_t samples_ = 0;  // position in the data: samples drawn so far, whole epochs included
  real     loss_ = 0, gradient_norm_ = 0;
  double   losses_ = 0;
  float    lr_ = 0;
  Plateau  plateau_;
  Problem  problem_;
};

// ================================================================================ >>image
// Pixels as stb_image gives them: height rows of width pixels of 1 to 4 channels, 8 bits each.
struct Image { const uint8_t* pixels = nullptr; int width = 0, height = 0, channels = 0; };

// How an image becomes the model's input; travels inside the model file. value = (pixel * scale - mean[c]) /
// std[c]. The image is resized to the input's height and width, gray = 0.299 R + 0.587 G + 0.114 B where the
// model has one channel.
//   plain  as said here
//   digit  one handwritten digit, in ink of any colour on paper of any colour, of any size and anywhere in
//          the image, becomes a grey one as MNIST has them, light on dark. Of the fields above box it takes
//          scale, mean[0] and std[0]; the input has one channel.
enum class Resize : uint8_t { stretch, letterbox, centre_crop };
enum class PreprocessingKind : uint8_t { plain, digit };
struct Preprocessing {
  PreprocessingKind kind = PreprocessingKind::plain;
  Resize  resize     = Resize::stretch;
  bool    invert     = false;  // 255 - pixel first: dark ink on light paper for a model of light on dark
  uint8_t background = 0;                      // around a letterboxed image, before invert
  float   scale      = 1.0f / 255.0f;
  float   mean[4]    = {0, 0, 0, 0};
  float   std[4]     = {1, 1, 1, 1};
  uint8_t  box       = 20;                     // the digit's longest side in the input, 8 .. 64
  uint8_t  speck     = 10;                     // ink smaller than the largest part / speck is dropped
  uint8_t  contrast  = 16;                     // blank where ink and paper differ by less, of 255
  uint8_t  clarity   = 82;                     // noise where two levels explain less of the variance, in %
  uint16_t side      = 256;                    // the image is first reduced to this, 64 .. 256
};

// What the digit kind saw. A best guess is made of several digits and of noise. Reject the former; the latter
// where confidence() is below a threshold too, for lines and wrinkles of paper are noise as well.
enum class Seen : uint8_t { one, blank, several, noise };

// Bytes that preprocess takes of its scratch for images up to this size: 0 (plain), below 300 KiB (digit).
size_t prepare_bytes(const Preprocessing& how, int width, int height);

// to gets height x width x channels values. bad_image where the sizes are not in 1 .. 16384 or channels not
// in 1 .. 4; out_of_memory where scratch is too small; bad_argument where the digit kind does not fit.
Status preprocess(const Image& image, const Preprocessing& how, int height, int width, int channels,
                  real* to, Arena scratch = Arena(), Seen* seen = nullptr);

// ================================================================================ >>metrics
int argmax(View<const real> row);              // of the first row
int argmax(const real* values, int count);
// Softmax of the largest of scores: an answer with less than ModelExtras::threshold is rejected.
real confidence(const real* scores, int count);

// Counts answers by (target, answer) in memory of the caller: classes * classes counters.
struct Confusion {
  uint32_t* counts  = nullptr;
  int       classes = 0;
  void   clear();
  void   add(int target, int answer);
  void   add(const real* scores, const int32_t* targets, int rows);    // answers are the largest scores
  double accuracy() const;                     // of all; 0 when empty
  double precision(int c) const;               // right answers of all answers c; 0 when there are none
  double recall(int c) const;                  // right answers of all targets c; 0 when there are none
};

// Dice coefficient 2 |A and B| / (|A| + |B|) of two masks, set above their thresholds; 1 when both are empty.
double dice(const real* a, const real* b, int64_t count, real threshold_a = real(0.5),
            real threshold_b = real(0.5));

// ================================================================================ >>io
// The `.nnl` file of models/FORMAT.md. Any bytes are safe to load: refused with a named reason, or valid.

// Limits on what a file may ask for; lower them on a small device.
struct LoadLimits {
  uint64_t file_bytes = uint64_t(1) << 31;
  uint32_t tensors = 16384, nodes = 8192;
};
struct OpSet {
  const Op* const* ops = nullptr;              // sorted by name
  int count = 0;
};
OpSet all_ops();                               // every op of this header

struct LoadOptions {
  OpSet      ops = all_ops();                  // a set of your own keeps the linker from keeping every op
  LoadLimits limits = {};
  bool       copy = false;  // weights into the arena instead of in place; needs no alignment
};

// Where a file comes from: read gives n bytes at offset, or false. It is never asked for bytes beyond size.
struct Source {
  bool   (*read)(void* user, uint64_t offset, void* to, size_t n) = nullptr;
  void*    user = nullptr;
  uint64_t size = 0;
};
Source memory_source(const void* file, size_t bytes);

// Where a file goes: write takes its bytes from first to last, or gives false.
struct Sink {
  bool (*write)(void* user, const void* from, size_t n) = nullptr;
  void* user = nullptr;
};

// What turns output 0 into an answer: softmax says that it holds logits, and an answer of a confidence below
// the threshold is rejected (0: none is); threshold that a larger value is a yes.
enum class Answer : uint8_t { none, softmax, sigmoid, argmax, threshold };

struct Metadata {
  const char* key = nullptr;  // "name", "author", "licence", "task", "converter", "source.format", ...
  const char* value = nullptr;
};

// Inputs and the outputs they gave when the model was saved: dense rows of every input in order, as its
// dtype; of every output; and for every node the mean and the largest magnitude of its output.
struct Golden {
  int          rows      = 0;
  float        tolerance = 1e-4f;              // |a - b| <= tolerance max|b|
  const void*  inputs    = nullptr;
  const float* outputs   = nullptr;
  const float* nodes     = nullptr;
};

// A section that this version does not know: kept when the file is saved again.
struct OtherSection {
  uint32_t    type    = 0;
  uint16_t    version = 0;
  const void* data    = nullptr;
  uint64_t    size    = 0;
};

// What a model file carries beside graph and weights. Texts are UTF-8 with a terminating zero. Metadata is
// sorted by key, other sections by type.
struct ModelExtras {
  const Preprocessing* preprocessing  = nullptr;         // of input 0
  const char* const*   labels         = nullptr;         // of output 0, as many as its last dimension
  int                  label_count    = 0;
  Answer               answer         = Answer::none;
  float                threshold      = 0.0f;
  const Metadata*      metadata       = nullptr;
  int                  metadata_count = 0;
  const Golden*        golden         = nullptr;
  int                  golden_count   = 0;
  const OtherSection*  others         = nullptr;
  int                  other_count    = 0;
};

// Bytes that Model::load takes from its arena: records and extras, and the weights where they are copied.
Status load_size(const Source& source, const LoadOptions& options, size_t& bytes, Problem* problem = nullptr);

// Saves the model, or a trainer's model with the weights of the moment. Extras: those given, else those it
// was loaded with. To a path: a temporary file in the same directory takes its place when all is written, so
// that a crash at any moment leaves the old file or the new one. The same content gives the same bytes.
Status save(const Model& model, const Sink& sink, const ModelExtras* extras = nullptr,
            Problem* problem = nullptr);
Status save(const Trainer& trainer, const Sink& sink, const ModelExtras* extras = nullptr,
            Problem* problem = nullptr);
Status save_checkpoint(const Trainer& trainer, const Sink& sink, const ModelExtras* extras = nullptr,
                       Problem* problem = nullptr);

// The options that a checkpoint was made with, to plan and build the trainer that resumes it; pool and
// keep_gradients stay as they are. Trainable::named takes its list of names from the arena. ops: where loss,
// optimizer and schedule are looked for, when one is your own.
Status read_options(const Source& source, TrainerOptions& options, Arena* arena = nullptr,
                    Problem* problem = nullptr, const OpSet& ops = all_ops());

// bad_checksum where a file does not hold what its content id says; else what load would say of the file.
Status verify_content(const Source& source, Problem* problem = nullptr);

#ifndef NNLITE_NO_STDIO
Status save(const Model& model, const char* path, const ModelExtras* extras = nullptr,
            Problem* problem = nullptr);
Status save(const Trainer& trainer, const char* path, const ModelExtras* extras = nullptr,
            Problem* problem = nullptr);
Status save_checkpoint(const Trainer& trainer, const char* path, const ModelExtras* extras = nullptr,
                       Problem* problem = nullptr);
Status read_options(const char* path, TrainerOptions& options, Arena* arena = nullptr,
                    Problem* problem = nullptr, const OpSet& ops = all_ops());

// A file mapped into memory, for Model::load in place. It outlives what was loaded from it.
class MappedFile : NotCopied {
 public:
  ~MappedFile();
  Status      open(const char* path);          // io_error
  const void* data() const { return data_; }
  size_t      size() const { return size_; }
  Source      source() const { return memory_source(data_, size_); }

 private:
  void*  data_ = nullptr;
  size_t size_ = 0;
};
#endif

// What a model's golden vectors say of it.
struct GoldenReport {
  bool   ok              = true;
  int    count           = 0;                  // vectors run
  double max_abs_error   = 0;
  int    first_diverging = -1;                 // a node, when not ok
};
// Runs them; or makes one of `rows` rows from inputs, with outputs and nodes in the arena, as sessions are.
Status run_golden(const Model& model, Arena& arena, GoldenReport& report);
Status make_golden(const Model& model, const void* inputs, int rows, float tolerance, Arena& arena,
                   Golden& golden);

// CRC-32C of what `crc` covers and n more bytes; of nothing it is 0. join: of two strings, from that of each.
uint32_t crc32c(uint32_t crc, const void* bytes, size_t n);
uint32_t crc32c_join(uint32_t first, uint32_t second, uint64_t second_length);

// SHA-256 (FIPS 180-4), for content ids and data fingerprints.
struct Sha256 {
  Sha256();
  void add(const void* bytes, size_t n);
  void finish(uint8_t digest[32]);                           // once
  uint32_t state[8];
  uint64_t length;                                           // bytes added
  uint8_t  block[64];
};

// ================================================================================ >>extension
// What ops, kernels and backends are made of: for user ops and the CUDA file, other code can skip it.

enum class FieldType : uint8_t { i32 = 1, f32 = 2, boolean = 3, pair = 4, betas = 5 };
struct Field {
  uint8_t     id = 0;                          // in files; never reused. 0: no field
  FieldType   type = FieldType::i32;
  uint16_t    offset = 0;
  const char* name = nullptr;
};
template <class T> struct FieldTypeOf;
template <> struct FieldTypeOf<int>   { static constexpr FieldType value = FieldType::i32; };
template <> struct FieldTypeOf<float> { static constexpr FieldType value = FieldType::f32; };
template <> struct FieldTypeOf<bool>  { static constexpr FieldType value = FieldType::boolean; };
template <> struct FieldTypeOf<Pair>  { static constexpr FieldType value = FieldType::pair; };
template <> struct FieldTypeOf<Betas> { static constexpr FieldType value = FieldType::betas; };

namespace traits {
constexpr uint32_t elementwise = 1;  // y[i] depends on x[i] alone: y may lie over any input, dx(0) over dy
constexpr uint32_t view        = 2;            // y is x with another shape: no work, no memory
constexpr uint32_t mixes_batch = 4;            // rows of the batch influence each other
constexpr uint32_t random      = 8;            // draws random numbers
constexpr uint32_t stateful    = 16;           // has statistics; cannot be shared
// last input is the target, the output is one number and a root of backward
constexpr uint32_t loss        = 32;
constexpr uint32_t accumulates = 64;           // backward honours OpRun::accumulate(i)
constexpr uint32_t optimizer   = 128, schedule = 256;
constexpr uint32_t identity_in_evaluation = 512;       // y = x when not training
constexpr uint32_t norm        = 1024;         // BatchNorm2d's attributes, parameters and formula
constexpr uint32_t relu        = 2048;         // y = max(0, x)
}

// How a parameter starts: zeros, ones, or uniform in +-1 / sqrt(fan_in); Seed::init may choose for weights.
enum class Fill : uint8_t { zeros, ones, fan_in };
struct ParameterSpec {
  const char* name   = nullptr;                // "weight"
  Role    role       = Role::weight;
  Layout  layout     = Layout::vector;
  Fill    fill       = Fill::fan_in;
  int     groups     = 1;                      // for the conv layouts
  int32_t fan_in     = 1, fan_out = 1;
  Shape   shape;                               // logical, PyTorch's order
};

// Memory of a node beside its outputs, from forward to backward: saved where that reads it, scratch always.
enum class Keep : uint8_t { saved, scratch };
struct SlotSpec {
  Keep    keep     = Keep::saved;
  DType   dtype    = real_dtype;
  bool    per_row  = true;                     // count is for one row
  int64_t count    = 0;
};

// Filled by an op's shape function from in[] and the attributes (0 for a count means: infer and write back).
struct OpShape {
  int   n_in = 0;
  Shape in[max_inputs];
  DType in_dtype[max_inputs] = {};
  Shape out;
  int   n_parameters = 0;
  ParameterSpec parameters[max_parameters];
  int   n_slots = 0;
  SlotSpec slots[max_slots];
  int32_t index_bound[max_inputs] = {};        // i32 inputs must be in [0, bound); 0: anything
  // What backward reads, as bits (input i: 1 << i). Only what the wanted gradients read is kept from forward.
  uint32_t dx_reads_in = 0, dw_reads_in = 0;   // for input gradients, for weight gradients (role weight)
  bool  dx_reads_out = false, dw_reads_out = false, dx_reads_slots = true, dw_reads_slots = true;
  int64_t macs = 0;                            // of one row
  Shape expected;                              // with bad_shape: of the input at fault; 0: any size
  // A loss in the short form does not know its target (rank 0): the op sets in[last] and in_dtype[last].
};

struct Kernel;
struct StepContext;  // rows, seed, step, learning rate, workers of the step that runs
struct Gather;       // rows of a data set for an input
// What a kernel does beside its op where the planner merges neighbours into one step: bits of Kernel::fuses
// and OpRun::fused. The bits of every result are those of the steps one by one.
namespace fusion {
constexpr uint8_t norm    = 1;                 // forward: a batch norm in evaluation follows (OpRun::norm)
constexpr uint8_t relu    = 2;                 // forward: then ReLU
constexpr uint8_t mask_dx = 4;                 // backward: and that of the ReLU whose output in(0) is
constexpr uint8_t mask_dy = 8;                 // backward: that of the fused ReLU, whose output y() is, first
constexpr uint8_t update  = 16;                // backward: parameter 0 is updated, its gradient never stored
constexpr uint8_t mask_max = 32;               // backward: that of a ReLU, whose maxima y() are, first
}
struct FusedNorm {
  const real *weight, *bias, *mean, *var;      // weight and bias are nullptr without `affine`
  float       eps;
};

// Everything an op or kernel gets to run: shapes, pointers to the real data, what is wanted. Inputs i and
// parameters p are numbered as in OpShape. Pointers that are not there are nullptr.
struct OpRun {
  const StepContext* context;
  const void*  attributes;
  const Shape* in_shapes[max_inputs];
  const Shape* out_shape_;
  void*    in_[max_inputs];
  void*    out_;
  void*    dx_[max_inputs];
  void*    dy_;
  void*    parameter_[max_parameters];
  void*    dparameter_[max_parameters];
  void*    slot_[max_slots];
  unsigned char* scratch;  // workers * scratch_per_worker of the kernel's plan, then its shared bytes
  unsigned char* derived;                      // KernelPlan::derived bytes; nullptr: not allowed
  uint32_t accumulate_bits;
  int32_t  rows;                               // rows of the batch that are there
  int16_t  workers;
  uint8_t  n_in, n_parameters;
  bool     training;
  uint8_t  fused;                              // bits of fusion
  uint16_t node;
  FusedNorm norm;                              // with fusion::norm
  const OpRun*  update;                        // with fusion::update: its call, without a gradient,
  const Kernel* update_kernel;                 // and its kernel, of one stage

  const Shape& in_shape(int i) const { return *in_shapes[i]; }
  const Shape& out_shape() const { return *out_shape_; }
  const real* in(int i) const { return static_cast<const real*>(in_[i]); }
  const int32_t* in_i32(int i) const { return static_cast<const int32_t*>(in_[i]); }
  real*       out() const { return static_cast<real*>(out_); }
  const real* y() const { return static_cast<const real*>(out_); }  // the output, in backward (dx_reads_out)
  const real* dy() const { return static_cast<const real*>(dy_); }          // nullptr for a loss: 1
  real*       dx(int i) const { return static_cast<real*>(dx_[i]); }        // nullptr: not wanted
  bool        accumulate(int i) const { return (accumulate_bits >> i & 1u) != 0; }   // dx(i) += instead of =
  // nullptr: no such parameter. dparameter, always =: or its gradient is not wanted
  real* parameter(int p) const { return p < n_parameters ? static_cast<real*>(parameter_[p]) : nullptr; }
  real* dparameter(int p) const { return p < n_parameters ? static_cast<real*>(dparameter_[p]) : nullptr; }
  template <class T = real> T* slot(int s) const { return static_cast<T*>(slot_[s]); }
  int64_t     in_numel(int i) const { return in_shapes[i]->numel(rows); }
  int64_t     out_numel() const { return out_shape_->numel(rows); }
};

// What a schedule's rate depends on: lr of the optimizer, step (from 0), place in the data, plateau.
struct RateContext {
  float    lr = 0;
  uint64_t step = 0;
  uint32_t epoch = 0;
  uint32_t steps_per_epoch = 0;                // 0 where there is no data set
  int      epochs = 1;
  float    plateau_factor = 1.0f;
};

// What is computed: a layer, a loss, an optimizer or a schedule. One row each, made by NNLITE_DEFINE_OP.
struct Op {
  const char*  name;
  uint16_t     version;
  uint8_t      n_fields;
  const Field* fields;
  uint8_t      min_in, max_in;
  uint16_t     attr_size;
  uint32_t     traits;
  const void*  defaults;                                                 // a default attribute struct
  Status (*shape)(void* attributes, OpShape&);
  void   (*forward)(const void* attributes, const OpRun&);  // an optimizer: parameter 0, its gradient, slots
  void   (*backward)(const void* attributes, const OpRun&);  // fills the wanted ones of dx(), dparameter()
  void   (*commit)(const void* attributes, const OpRun&);  // stateful ops: statistics, with the update
  float  (*rate)(const void* attributes, const RateContext&);            // schedules
  const Kernel* const* kernels;                                          // fast ways, ended by nullptr
};

// How it is computed: a row for one phase of one op, the same text for every instruction set.
enum class Phase : uint8_t { forward, backward, grad_input, grad_parameter, update, commit };
enum class Isa : uint8_t { scalar, base, avx2, avx512, neon };
constexpr int isa_count = 5;
const char* isa_name(Isa isa);                 // "avx2"
bool isa_present(Isa isa);                     // compiled in, and this machine has it
Isa  current_isa();  // the fastest present; NNLITE_ISA=name in the environment chooses another present one
bool set_isa(Isa isa);                         // for tests, while nothing runs; false when it is not present

struct KernelPlan {
  uint32_t stages = 1;
  uint32_t tasks[4] = {1, 1, 1, 1};  // of each stage; all tasks of a stage end before the next begins
  size_t   scratch_per_worker = 0;             // bytes, from the largest rows; never from the instruction set
  size_t   scratch_shared = 0;
  size_t   derived = 0;  // bytes that stage 0 makes of the parameters alone: a session runs it once
};
struct Kernel {
  const char* name;
  Phase       phase;
  uint16_t    chain;                           // rows with the same chain give the same bits
  uint8_t     fuses;                           // bits of fusion that it can do
  // accepts this? reads shapes, rows, workers and whether pointers are null, no data
  bool (*plan)(const OpRun& shapes, KernelPlan&);
  void (*run[isa_count])(const OpRun&, uint32_t stage, uint32_t first, uint32_t last, uint32_t worker);
};

// A device beside the CPU: rows by the name of an op, whose run[0] does a whole stage on the device's memory,
// and what the engine needs of it. Steps that fail say so at the next copy or sync: device_error.
enum class Copy : uint8_t { to_device, from_device };
// A parameter lies as [outer][panels][lines][16] here and as [outer][lines][panels][16] on the device.
struct Blocks { int64_t outer, panels, lines; };
// What it tells of its steps.
struct Waited {
  uint64_t failed;  // 1 + the step whose loss was not finite: nothing changes from then on; or 0
  double   losses;                             // their sum over the rows
  float    norm;                               // of the last gradients, with clip_norm
};
struct Backend {
  void* user;
  uint8_t arithmetic;  // from 1: its number in checkpoints, as another one gives other bits; 0 is the CPU
  const Kernel* const* (*rows)(const char* op);          // ended by nullptr; nullptr: none
  // device memory for what lies at `host`; the same bytes again, or others over them, take its place
  Status (*mirror)(void* user, const void* host, size_t bytes, void** device);
  Status (*copy)(void* user, void* device, void* host, size_t bytes, Copy way);
  Status (*copy_parameter)(void* user, void* device, void* host, const Blocks& blocks, Copy way);
  // Steps of this thread follow, in the arena `device`, and end. The device may record those of a key once
  // (first, last, rows) and run them itself from then on: begin returns false where it has.
  bool   (*begin)(void* user, void* device, const uint32_t key[3], const StepContext& context);
  void   (*end)(void* user);
  void   (*add)(void* user, real* to, const real* from, int64_t count, bool accumulate);
  // gradients one by one, then 0 of them: gradient_scale from their norm, for the updates behind
  void   (*clip)(void* user, const real* gradient, int64_t count);
  // a column that was mirrored, into an input; false: it was not
  bool   (*gather)(void* user, const Gather& g);
  // until all is done; of the steps since StepContext::first, unless that is nullptr
  Status (*wait)(void* user, void* device, Waited* steps);
};

// In nnlite_cuda.cu. What is built on a GPU that cannot be used is device_error, never run elsewhere. tf32,
// bf16: products have factors of 11 or 8 bits, and are faster; what is in memory, and every sum, stays fp32.
enum class Precision : uint8_t { fp32, tf32, bf16 };
const Backend* cuda_backend(int number, Precision precision = Precision::fp32);
const char* cuda_problem(int number);          // opens it: why it cannot be used, in CUDA's words; "": it can
// The same without a GPU, for plan(); what is built on it launches nothing, but tells the latest `see` of it.
struct CudaLaunch { const char* kernel; unsigned blocks, threads; size_t shared; };
const Backend* cuda_rows(Precision precision = Precision::fp32,
                         void (*see)(void* user, const CudaLaunch&) = nullptr, void* user = nullptr);
// Free what GPUs keep for arenas, models, data sets in these bytes, or what one has: when what was built
// there is used no more. (It has room for 256, or says limit_exceeded.)
void free_cuda(const void* host, size_t bytes);
void close_cuda(int number);

// A step that a session or trainer has just run. add: to = from, or to += from, of gradients.
enum class StepKind : uint8_t { forward, backward, add, update, commit };
struct StepView {
  StepKind      kind;
  int64_t       count;                         // elements of an update or an add
  const Op*     op;                            // of an update: the optimizer; nullptr: an add
  const Kernel* kernel;                        // nullptr: the plain loop of the op
  const OpRun&  run;
};
// Told on the calling thread where steps begin (nullptr), then after each one: to profile, or to look at
// values.
struct Watch {
  void (*see)(void* user, const StepView* step);
  void* user;
};

template <class T, void (*f)(const T&, const OpRun&)>
void op_thunk(const void* attributes, const OpRun& run) { f(*static_cast<const T*>(attributes), run); }
template <class T, Status (*f)(T&, OpShape&)>
NNLITE_COLD Status shape_thunk(void* attributes, OpShape& s) { return f(*static_cast<T*>(attributes), s); }

template <class T> constexpr T op_defaults = {};

// NNLITE_DEFINE_OP(Swish2, swish2, "acme.Swish2", 1, traits::elementwise, NNLITE_FIELD(1, beta))
// needs swish2_shape, swish2_forward, swish2_backward. Without attributes the list is NNLITE_NO_FIELDS. With
// other than one input: NNLITE_DEFINE_OP_INPUTS, with the fewest and the most of them behind the version.
#define NNLITE_NO_FIELDS ::nnlite::Field{}
#define NNLITE_FIELD(id, member)                                                                             \
  ::nnlite::Field{id, ::nnlite::FieldTypeOf<decltype(Self::member)>::value, offsetof(Self, member), #member}
#define NNLITE_DEFINE_OP(Type, prefix, text, version, trait_bits, ...)                                       \
  NNLITE_DEFINE_OP_INPUTS(Type, prefix, text, version, 1, 1, trait_bits, __VA_ARGS__)
#define NNLITE_DEFINE_OP_INPUTS(Type, prefix, text, version, min_in, max_in, trait_bits, ...)                \
  NNLITE_DEFINE_ROW(Type, prefix, text, version, min_in, max_in, trait_bits,                                 \
                    (::nnlite::shape_thunk<Type, prefix##_shape>),                                           \
                    (::nnlite::op_thunk<Type, prefix##_forward>),                                            \
                    NNLITE_BACKWARD(::nnlite::op_thunk, Type, prefix##_backward), nullptr, nullptr, nullptr, \
                    __VA_ARGS__)
#define NNLITE_DEFINE_ROW(Type, prefix, text, version, min_in, max_in, trait_bits, shape, forward, backward, \
                          commit, rate, kernels, ...)                                                        \
  struct prefix##_fields {                                                                                   \
    using Self = Type;                                                                                       \
    static constexpr ::nnlite::Field list[] = {__VA_ARGS__};                                                 \
    static constexpr uint8_t count = list[0].id == 0 ? 0 : sizeof(list) / sizeof(list[0]);                   \
  };                                                                                                         \
  const ::nnlite::Op Type::op = {text, version, prefix##_fields::count, prefix##_fields::list, min_in,       \
                                 max_in, sizeof(Type), trait_bits, &::nnlite::op_defaults<Type>,             \
                                 shape, forward, backward, commit, rate, kernels}
#ifdef NNLITE_NO_TRAINING
#define NNLITE_BACKWARD(thunk, Type, function) (false ? thunk<Type, function> : nullptr)
#else
#define NNLITE_BACKWARD(thunk, Type, function) thunk<Type, function>
#endif

}  // inline namespace
}  // namespace nnlite

#endif  // NNLITE_HPP

#if defined(NNLITE_IMPLEMENTATION) && !defined(NNLITE_IMPLEMENTED)
#define NNLITE_IMPLEMENTED
#define NNLITE_ONCE                    // not while the file includes itself for another instruction set
#define NNLITE_SHARED                  // what nnlite_cuda.cu reads, too: functions of host and device,
#define NNLITE_DEVICE                  // or of the device alone

// ================================================================================ >>platform
// Everything that depends on the compiler or the operating system.
#include <new>
#if defined(_WIN32) && !(defined(NNLITE_NO_THREADS) && defined(NNLITE_NO_STDIO))
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#endif
#ifndef NNLITE_NO_THREADS
#include <atomic>
#ifndef _WIN32
#include <pthread.h>
#include <sched.h>
#endif
#endif
#ifndef NNLITE_NO_STDIO
#include <errno.h>
#include <stdio.h>
#ifdef _WIN32
#include <io.h>
#define NNLITE_PATH_SEPARATOR '\\'
#else
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define NNLITE_PATH_SEPARATOR '/'
#endif
#endif
#if __STDC_HOSTED__ || !defined(NNLITE_NO_STDIO)
#include <stdlib.h>
#include <string.h>
#endif

// Kernels exist for float. NNLITE_X86, NNLITE_NEON: vector units that kernels are compiled for; without one
// there is a single pass: scalar where the processor has an fma, else base (multiply, then add).
#define NNLITE_PASS_SCALAR 0
#define NNLITE_PASS_BASE   1
#define NNLITE_PASS_AVX2   2
#define NNLITE_PASS_AVX512 3
#define NNLITE_PASS_NEON   4
#define NNLITE_JOIN_(a, b) a##b
#define NNLITE_JOIN(a, b)  NNLITE_JOIN_(a, b)
#define NNLITE_IS_KERNEL_TYPE_float 1
#if NNLITE_JOIN(NNLITE_IS_KERNEL_TYPE_, NNLITE_REAL)
#define NNLITE_KERNELS
#endif
#if !defined(NNLITE_NO_SIMD) && defined(__SSE2__)
#define NNLITE_X86
#include <cpuid.h>
#include <immintrin.h>
#ifndef __OPTIMIZE_SIZE__  // at -Os scalar and AVX-512 stay out: AVX2 gives the same bits
#define NNLITE_AVX512
#endif
#elif !defined(NNLITE_NO_SIMD) && defined(__aarch64__)
#define NNLITE_NEON
#include <arm_neon.h>
#endif
#ifdef __OPTIMIZE_SIZE__
#define NNLITE_SMALL true                        // few tiles
#else
#define NNLITE_SMALL false
#endif
#if defined(NNLITE_AVX512) || defined(NNLITE_NEON) || (defined(__FP_FAST_FMAF) && !defined(NNLITE_X86))
#define NNLITE_FIRST_PASS NNLITE_PASS_SCALAR
#define NNLITE_FIRST_ISA  isa_scalar
#else
#define NNLITE_FIRST_PASS NNLITE_PASS_BASE
#define NNLITE_FIRST_ISA  isa_base
#endif

// Target regions: what stands between may use the set. g++ 12 warns falsely inside avx512fintrin.h.
#ifdef __clang__
#define NNLITE_REGION_AVX2 \
  _Pragma("clang attribute push(__attribute__((target(\"avx2,fma\"))), apply_to = function)")
#define NNLITE_REGION_AVX512 \
  _Pragma("clang attribute push(__attribute__((target(\"avx512f,avx2,fma\"))), apply_to = function)")
#define NNLITE_REGION_END _Pragma("clang attribute pop")
#define NNLITE_UNROLL_FULLY _Pragma("clang loop unroll(full)")
#else
#define NNLITE_REGION_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma\")")
#define NNLITE_REGION_AVX512                                                        \
  _Pragma("GCC push_options") _Pragma("GCC target(\"avx512f,avx2,fma\")")           \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"")   \
  _Pragma("GCC diagnostic ignored \"-Wuninitialized\"")
#define NNLITE_REGION_END _Pragma("GCC pop_options")
#define NNLITE_UNROLL_FULLY _Pragma("GCC unroll 32")
#endif
#define NNLITE_VERB static inline __attribute__((always_inline))
// The head of a Kernel::run.
#define NNLITE_RUN(name)                                                                                     \
  [[maybe_unused]] static NNLITE_RUN_KIND void name(                                                         \
      const OpRun& r, [[maybe_unused]] uint32_t stage, [[maybe_unused]] uint32_t first,                      \
      [[maybe_unused]] uint32_t last, [[maybe_unused]] uint32_t worker)
#define NNLITE_NOINLINE __attribute__((noinline))
#define NNLITE_INLINED __attribute__((always_inline))                  // of a lambda

// Keeps a product in a register of its own, so that no compiler merges it with an addition into one fma.
#if defined(__x86_64__) || defined(__i386__)
#define NNLITE_PIN(x) asm("" : "+x"(x))
#elif defined(__aarch64__) || (defined(__arm__) && defined(__ARM_FP) && (__ARM_FP & 8))
#define NNLITE_PIN(x) asm("" : "+w"(x))
#elif defined(__arm__) || defined(__riscv) || defined(__powerpc__)
#define NNLITE_PIN(x) asm("" : "+m"(x))
#else
#define NNLITE_PIN(x) ((void)(x))
#endif
#ifdef NNLITE_X86
#define NNLITE_PIN_VECTOR(x) asm("" : "+v"(x))
#else
#define NNLITE_PIN_VECTOR(x) NNLITE_PIN(x)
#endif
#define NNLITE_PIN_POINTER(p) asm("" : "+r"(p))   // compilers may not derive it from other pointers
#ifdef __FP_FAST_FMAF
#define NNLITE_FMAF(a, b, c) __builtin_fmaf(a, b, c)
#endif

namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
// Round to nearest, subnormal numbers kept, whatever the program has set; put back at the end of the scope.
class FloatControl : NotCopied {
 public:
  FloatControl() : before_(get()) { set(plain); }
  ~FloatControl() { set(before_); }

 private:
#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))
  static constexpr uint64_t plain = 0x1F80u;
  static uint64_t get() { return __builtin_ia32_stmxcsr(); }
  static void set(uint64_t word) { __builtin_ia32_ldmxcsr(unsigned(word)); }
#elif defined(__aarch64__)
  static constexpr uint64_t plain = 0;
  static uint64_t get() {
    uint64_t word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void set(uint64_t word) { asm volatile("msr fpcr, %0" : : "r"(word) : "memory"); }
#else
  static constexpr uint64_t plain = 0;
  static uint64_t get() { return plain; }
  static void set(uint64_t) {}
#endif
  const uint64_t before_;
};

#ifndef NNLITE_NO_THREADS
// A moment's rest for a thread that waits for a word to change.
static inline void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  asm volatile("yield");
#endif
}

#ifdef _WIN32
using ThreadHandle = HANDLE;
using ThreadResult = DWORD;
#define NNLITE_THREAD_CALL WINAPI
struct Sleeper {
  SRWLOCK lock = SRWLOCK_INIT;
  CONDITION_VARIABLE changed = CONDITION_VARIABLE_INIT;
  void enter() { AcquireSRWLockExclusive(&lock); }
  void leave() { ReleaseSRWLockExclusive(&lock); }
  void sleep() { SleepConditionVariableSRW(&changed, &lock, INFINITE, 0); }
  void wake() { WakeAllConditionVariable(&changed); }
};
static inline bool thread_start(ThreadHandle& thread, ThreadResult (WINAPI* run)(void*), void* argument) {
  thread = CreateThread(nullptr, 0, run, argument, 0, nullptr);
  return thread != nullptr;
}
static inline void thread_join(ThreadHandle thread) {
  WaitForSingleObject(thread, INFINITE);
  CloseHandle(thread);
}
static inline void thread_yield() { SwitchToThread(); }
#else
using ThreadHandle = pthread_t;
using ThreadResult = void*;
#define NNLITE_THREAD_CALL
struct Sleeper {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  ~Sleeper() { pthread_cond_destroy(&changed); pthread_mutex_destroy(&lock); }
  void enter() { pthread_mutex_lock(&lock); }
  void leave() { pthread_mutex_unlock(&lock); }
  void sleep() { pthread_cond_wait(&changed, &lock); }
  void wake() { pthread_cond_broadcast(&changed); }
};
static inline bool thread_start(ThreadHandle& thread, ThreadResult (*run)(void*), void* argument) {
  return pthread_create(&thread, nullptr, run, argument) == 0;
}
static inline void thread_join(ThreadHandle thread) { pthread_join(thread, nullptr); }
static inline void thread_yield() { sched_yield(); }
#endif
#endif

#ifndef NNLITE_NO_STDIO
// Files: whole, ordinary ones. Every function gives false when the system refuses; file_error says why.
#ifdef _WIN32
struct FileHandle {
  FILE* handle = nullptr;
  bool  valid() const { return handle != nullptr; }
  bool  open(const char* path, uint64_t& size) {
    handle = fopen(path, "rb");
    if (!valid() || _fseeki64(handle, 0, SEEK_END) != 0) return false;
    size = uint64_t(_ftelli64(handle));
    return true;
  }
  bool create(const char* path) { return (handle = fopen(path, "wbx")) != nullptr; }
  bool read(uint64_t offset, void* to, size_t n) {
    return _fseeki64(handle, int64_t(offset), SEEK_SET) == 0 && fread(to, 1, n, handle) == n;
  }
  bool write(const void* from, size_t n) { return fwrite(from, 1, n, handle) == n; }
  bool flush() { return fflush(handle) == 0 && _commit(_fileno(handle)) == 0; }
  bool close() {
    FILE* const h = handle;
    handle        = nullptr;
    return h != nullptr && fclose(h) == 0;
  }
};
static inline bool file_map(const char*, void*&, size_t&) { return false; }
static inline void file_unmap(void*, size_t) {}
static inline bool file_replace(const char* from, const char* to, const char*) {
  return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) != 0;
}
static inline void file_remove(const char* path) { (void)remove(path); }
static inline unsigned process_number() { return unsigned(GetCurrentProcessId()); }
static inline void remove_stale(const char*, const char*) {}
#else
struct FileHandle {
  int  handle = -1;
  bool valid() const { return handle >= 0; }
  bool open(const char* path, uint64_t& size) {
    struct stat s;
    handle = ::open(path, O_RDONLY | O_CLOEXEC);
    if (!valid() || fstat(handle, &s) != 0) return false;
    if (!S_ISREG(s.st_mode)) errno = S_ISDIR(s.st_mode) ? EISDIR : EINVAL;
    size = uint64_t(s.st_size);
    return S_ISREG(s.st_mode);
  }
  // Locked while its writer lives, so that others can tell a left file from one that is being written.
  bool create(const char* path) {
    struct stat s;
    handle = ::open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return valid() && flock(handle, LOCK_EX | LOCK_NB) == 0 && fstat(handle, &s) == 0 && s.st_nlink > 0;
  }
  bool read(uint64_t offset, void* to, size_t n) {
    for (size_t done = 0; done < n;) {
      const ssize_t got = pread(handle, static_cast<char*>(to) + done, n - done, off_t(offset + done));
      if (got == 0 || (got < 0 && errno != EINTR)) return false;
      if (got > 0) done += size_t(got);
    }
    return true;
  }
  bool write(const void* from, size_t n) {
    for (size_t done = 0; done < n;) {
      const ssize_t put = ::write(handle, static_cast<const char*>(from) + done, n - done);
      if (put < 0 && errno != EINTR) return false;
      if (put > 0) done += size_t(put);
    }
    return true;
  }
  bool flush() { return fsync(handle) == 0; }
  bool close() {
    const int h = handle;
    handle      = -1;
    return h >= 0 && ::close(h) == 0;
  }
};
static inline bool file_map(const char* path, void*& data, size_t& size) {
  FileHandle f;
  uint64_t   bytes = 0;
  data             = nullptr;
  if (f.open(path, bytes) && bytes > 0 && bytes <= SIZE_MAX) {
    data = mmap(nullptr, size_t(bytes), PROT_READ, MAP_PRIVATE, f.handle, 0);
    if (data == MAP_FAILED) data = nullptr;
  }
  const int reason = errno;
  (void)f.close();
  errno = data == nullptr && bytes == 0 && reason == 0 ? EINVAL : reason;
  size  = size_t(bytes);
  return data != nullptr;
}
static inline void file_unmap(void* data, size_t size) { munmap(data, size); }

// The mode of the file that is replaced stays; the directory is written too, or the new name could be lost.
static inline bool file_replace(const char* from, const char* to, const char* directory) {
  struct stat s;
  if (stat(to, &s) == 0 && (!S_ISREG(s.st_mode) || chmod(from, s.st_mode & 07777) != 0)) {
    if (!S_ISREG(s.st_mode)) errno = S_ISDIR(s.st_mode) ? EISDIR : EINVAL;
    return false;
  }
  if (rename(from, to) != 0) return false;
  const int handle = ::open(*directory == 0 ? "." : directory, O_RDONLY | O_CLOEXEC);
  if (handle < 0) return true;                 // a directory that cannot be read cannot be flushed
  (void)fsync(handle);
  (void)::close(handle);
  return true;
}
static inline void file_remove(const char* path) { (void)unlink(path); }
static inline unsigned process_number() { return unsigned(getpid()); }

// Removes the temporary files of killed processes: those that start like `prefix` and that nobody has locked.
static inline void remove_stale(const char* prefix, const char* directory) {
  DIR* d = opendir(*directory == 0 ? "." : directory);
  if (d == nullptr) return;
  const size_t n = strlen(prefix);
  while (const struct dirent* e = readdir(d)) {
    char path[1024];
    if (strncmp(e->d_name, prefix, n) != 0 ||
        snprintf(path, sizeof path, "%s%s", directory, e->d_name) >= int(sizeof path)) continue;
    const int handle = ::open(path, O_RDONLY | O_CLOEXEC);
    if (handle < 0) continue;
    if (flock(handle, LOCK_EX | LOCK_NB) == 0) (void)unlink(path);
    (void)::close(handle);
  }
  closedir(d);
}
#endif
static inline const char* file_error() { return strerror(errno); }
#endif

}  // inline namespace
}  // namespace nnlite
#endif  // NNLITE_ONCE

#if defined(NNLITE_ONCE) || (defined(NNLITE_PLAIN) && !defined(NNLITE_IMPLEMENTED))
namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
// ================================================================================ >>math
// Integer helpers; numbers and their bits; multiply-add; the polynomials of >>formulas.
NNLITE_SHARED static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
NNLITE_SHARED static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Shell's sort: in place, without recursion.
template <class F> static void sort(uint16_t* list, int n, F before) {
  for (int gap = n / 2; gap > 0; gap /= 2)
    for (int i = gap; i < n; i++) {
      const uint16_t v = list[i];
      int k = i;
      for (; k >= gap && before(v, list[k - gap]); k -= gap) list[k] = list[k - gap];
      list[k] = v;
    }
}

template <class To, class From> NNLITE_SHARED static inline To same_bits(From from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
NNLITE_SHARED static inline uint32_t bits_of(float x) { return same_bits<uint32_t>(x); }
NNLITE_SHARED static inline float    float_of(uint32_t u) { return same_bits<float>(u); }

// The first n <= 8 bytes as a number, the first byte lowest (on a little-endian machine); and back.
static inline uint64_t get_bytes(const uint8_t* p, int n) {
  uint64_t all = 0;
  if (n < 4) {
    for (int i = 0; i < n; i++) all |= uint64_t(p[i]) << 8 * i;
    return all;
  }
  uint32_t low, high;
  __builtin_memcpy(&low, p, 4);
  __builtin_memcpy(&high, p + n - 4, 4);
  return low | uint64_t(high) << 8 * (n - 4);
}
static inline void put_bytes(uint8_t* p, uint64_t all, int n) {
  if (n < 4) {
    for (int i = 0; i < n; i++) p[i] = static_cast<uint8_t>(all >> 8 * i);
    return;
  }
  const uint32_t low = static_cast<uint32_t>(all), high = static_cast<uint32_t>(all >> 8 * (n - 4));
  __builtin_memcpy(p, &low, 4);
  __builtin_memcpy(p + n - 4, &high, 4);
}

// A product that no compiler may merge with the addition that follows it.
template <class T> NNLITE_SHARED static inline T product(T a, T b) {
  T r = a * b;
  NNLITE_PIN(r);
  return r;
}

// The bit class in force: multiply-adds round once, or twice. Set by >>dispatch with the instruction set.
#ifdef NNLITE_ONCE
static bool multiply_adds_fuse = true;
static inline bool fuses() { return __atomic_load_n(&multiply_adds_fuse, __ATOMIC_RELAXED); }
#else
NNLITE_SHARED static inline bool fuses() { return true; }
#endif

// a b + c rounded once, without the instruction: the product is exact in double, its sum with c is rounded to
// odd, which keeps what the last rounding needs (Boldo, Melquiond 2008).
#ifdef NNLITE_FMAF
NNLITE_SHARED static inline float fma_exact(float a, float b, float c) { return NNLITE_FMAF(a, b, c); }
#else
NNLITE_SHARED static NNLITE_NOINLINE float fma_exact(float a, float b, float c) {
  const double p = static_cast<double>(a) * static_cast<double>(b), z = static_cast<double>(c);
  const double s = p + z, t = s - p, error = (p - (s - t)) + (z - t);
  uint64_t u = same_bits<uint64_t>(s);
  if ((error > 0 || error < 0) && (u & 1u) == 0) u = (error > 0) == (s > 0) ? u + 1 : u - 1;
  return static_cast<float>(same_bits<double>(u));
}
#endif

// a b + c as the bit class in force wants it.
NNLITE_SHARED static inline float madd(float a, float b, float c) {
  return fuses() ? fma_exact(a, b, c) : product(a, b) + c;
}
NNLITE_SHARED static inline double madd(double a, double b, double c) { return a * b + c; }
NNLITE_SHARED static inline float  real_abs(float x) { return float_of(bits_of(x) & 0x7FFFFFFFu); }
NNLITE_SHARED static inline float  real_sqrt(float x) { return __builtin_sqrtf(x); }
NNLITE_SHARED static inline double real_abs(double x) { return __builtin_fabs(x); }
NNLITE_SHARED static inline double real_sqrt(double x) { return __builtin_sqrt(x); }
NNLITE_SHARED static inline bool   is_finite(float x) { return (bits_of(x) & 0x7F800000u) != 0x7F800000u; }
NNLITE_SHARED static inline bool   is_finite(double x) { return x - x == 0; }

// x = n ln 2 + r with |r| <= ln 2 / 2, so exp(x) = 2^n (1 + r q(r)), q as in ONNX Runtime's MLAS; 1.1 ulp.
// log(x): m in [sqrt(1/2), sqrt(2)), Cephes' polynomial in m - 1; 0.8 ulp. tanh below 0.625: Cephes; 1.4.
// expm1: 2 ulp; log1p from 0 to 1: 1.3; sigmoid: 2.6. Of every 4001st float, in both bit classes.
constexpr float exp_lowest = -87.33f, exp_highest = 88.37f;        // results stay normal numbers
constexpr float log2_e = 1.44269504f, ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f;
constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
NNLITE_DEVICE constexpr float exp_poly[5] = {0x1.694000p-10f, 0x1.125edcp-7f, 0x1.555b5ap-5f, 0x1.555450p-3f,
                               0x1.fffff6p-2f};
NNLITE_DEVICE constexpr float log_poly[9] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                               -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                               2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
constexpr float log_ln2_high = 0.693359375f, log_ln2_low = -2.12194440e-4f;
NNLITE_DEVICE constexpr float tanh_poly[5] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                                              1.33314422036e-1f, -3.33332819422e-1f};

// ================================================================================ >>rng
// Random numbers without a state: Philox4x32-10 (Salmon et al. 2011) keyed by the seed, counted by (block,
// step, purpose, node). Block b has the words of elements 4 b .. 4 b + 3. The same floats everywhere.
enum class Purpose : uint32_t { init = 1, shuffle = 2, dropout = 3, sample = 4, augment = 5 };
struct Words { uint32_t word[4]; };
NNLITE_SHARED static inline Words philox(Words counter, uint32_t key_low, uint32_t key_high) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * counter.word[0];
    const uint64_t b = uint64_t(0xCD9E8D57u) * counter.word[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.word[1] ^ key_low, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.word[3] ^ key_high, static_cast<uint32_t>(a)}};
    key_low  += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return counter;
}

NNLITE_SHARED static inline Words random_block(uint64_t seed, uint64_t step, Purpose purpose, uint32_t node,
                                 uint32_t block) {
  const Words counter = {{block, uint32_t(step), uint32_t(step >> 32), uint32_t(purpose) << 24 | node}};
  return philox(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// [0, 1) in steps of 2^-24.
NNLITE_SHARED static inline float uniform_of(uint32_t word) { return float(word >> 8) * 0x1p-24f; }
NNLITE_SHARED static inline double horner(double x, const double* coefficients, int count) {
  double r = coefficients[0];
  for (int i = 1; i < count; i++) r = product(r, x) + coefficients[i];
  return r;
}

// log(u), u in (0, 1]: 2 atanh((m - 1) / (m + 1)) + e ln 2, m in [sqrt(1/2), sqrt(2)); error below 1e-13.
static inline double log_unit(double u) {
  static constexpr double series[8] = {1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3, 1.0};
  int e = 0;
  for (; u < 0.70710678118654752; e--) u = product(u, 2.0);
  const double s = (u - 1) / (u + 1);
  return product(product(s, 2.0), horner(product(s, s), series, 8)) + product(double(e), 0.69314718055994531);
}

// Taylor series: within an eighth of a turn they end below 1e-15, within half a turn below 1e-6.
NNLITE_SHARED static inline void sine_cosine(double angle, double& s, double& c) {
  static constexpr double sine[8]   = {-1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880,
                                       -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1.0};
  static constexpr double cosine[9] = {1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600,
                                       -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -1.0 / 2, 1.0};
  const double square = product(angle, angle);
  s = product(angle, horner(square, sine, 8));
  c = horner(square, cosine, 9);
}

// Two independent standard normals (Box, Muller 1958) in double without fma, then rounded. The angle word /
// 2^32 of a turn is a quadrant and a rest within an eighth of a turn.
static inline void normals_of(uint32_t radius_word, uint32_t angle_word, float out[2]) {
  const double u = product(static_cast<double>(radius_word) + 0.5, 0x1p-32);
  const double radius = __builtin_sqrt(product(-2.0, log_unit(u)));
  const uint32_t quadrant = (angle_word + 0x20000000u) >> 30;                  // mod 4, as the sum wraps
  const int32_t rest = static_cast<int32_t>(angle_word - (quadrant << 30));
  double s, c;
  sine_cosine(product(static_cast<double>(rest), 6.283185307179586477 * 0x1p-32), s, c);
  const double x = (quadrant & 1u) != 0 ? s : c, y = (quadrant & 1u) != 0 ? c : s;
  out[0] = static_cast<float>(product(radius, quadrant == 1 || quadrant == 2 ? -x : x));
  out[1] = static_cast<float>(product(radius, quadrant >= 2 ? -y : y));
}

// Which row comes when: a permutation of [0, count) computed from (seed, epoch) alone, with nothing stored: a
// Feistel network over the next power of four, walked until it falls into the range (Black, Rogaway 2002).
struct Permutation {
  uint32_t count = 1, half_bits = 1;
  uint32_t keys[4] = {};
  bool     shuffle = true;

  Permutation() = default;
  Permutation(uint64_t seed, uint32_t epoch, uint32_t n, bool shuffled) : count(n), shuffle(shuffled) {
    while ((uint64_t(1) << (2 * half_bits)) < n) half_bits++;
    const Words w = random_block(seed, epoch, Purpose::shuffle, 0, 0);
    for (int i = 0; i < 4; i++) keys[i] = w.word[i];
  }
  NNLITE_SHARED uint32_t once(uint32_t x) const {
    const uint32_t mask = (1u << half_bits) - 1;
    uint32_t left = x >> half_bits, right = x & mask;
    for (uint32_t key : keys) {
      uint32_t mixed = (right ^ key) * 0x9E3779B1u;  // a finaliser in the manner of MurmurHash3
      mixed = (mixed ^ mixed >> 15) * 0x85EBCA77u;
      mixed ^= mixed >> 13;
      const uint32_t next = left ^ ((mixed * 0xC2B2AE3Du) >> (32 - half_bits));
      left  = right;
      right = next;
    }
    return left << half_bits | right;
  }
  NNLITE_SHARED uint32_t operator[](uint32_t i) const {
    if (!shuffle) return i;
    do i = once(i);
    while (i >= count);
    return i;
  }
};

// Rows of the data set that a step draws: `rows` from `position` on in the order of the epoch.
struct Rows {
  Permutation order;
  uint32_t position = 0;
  int      rows = 0;
  NNLITE_SHARED uint32_t operator[](uint32_t row) const { return order[position + row]; }
};
// Those of a column into an input of so many values a row.
struct Gather {
  Rows    rows;
  Column  column;
  int64_t values;
  DType   dtype;
  void*   to;
  const Augment* augment;                      // pictures of such a shape change; nullptr: they stay
  Shape    shape;
  uint64_t seed;
  uint32_t epoch;
};

// ================================================================================ >>augment
// Pictures changed at random. Places are whole numbers, in units of 2^-16 of a pixel, and values need no
// fused multiply-add, so that every machine gives the same bits.
static inline bool augments(const Augment& a) {
  return a.degrees > 0 || a.scale > 0 || a.shear > 0 || a.shift > 0 || a.thinner > 0 || a.thicker > 0;
}
static inline bool augment_fits(const Augment& a) {
  const auto within = [](float v, float most) { return v >= 0 && v <= most; };
  return within(a.degrees, 180) && within(a.scale, 0.9f) && within(a.shear, 1) && within(a.shift, 16384) &&
         within(a.thinner, 1) && within(a.thicker, 1) && is_finite(a.background);
}

// The change of one sample in one epoch: (x, y) shows what was at middle + by + m ((x, y) - middle).
struct Change {
  int64_t m[4], by[2];
  real    thicker;                             // below 0: thinner

  NNLITE_SHARED Change(const Augment& a, uint64_t seed, uint32_t epoch, uint32_t sample) {
    const uint64_t key  = uint64_t(epoch) << 32 | sample;
    const Words words[] = {random_block(seed, key, Purpose::augment, 0, 0),
                           random_block(seed, key, Purpose::augment, 0, 1)};
    const auto draw = [&](int i, float range) {
      return product(2 * double(uniform_of(words[i / 4].word[i % 4])) - 1, double(range));
    };
    const auto whole = [](double v) { return static_cast<int64_t>(v < 0 ? v - 0.5 : v + 0.5); };
    double s, c;
    sine_cosine(product(draw(0, a.degrees), 3.14159265358979324 / 180), s, c);
    const double unit = 65536 / (1 + draw(1, a.scale)), slant = draw(2, a.shear);
    m[0]  = whole(product(c, unit));
    m[1]  = whole(product(product(c, slant) - s, unit));
    m[2]  = whole(product(s, unit));
    m[3]  = whole(product(product(s, slant) + c, unit));
    by[0] = whole(product(draw(3, a.shift), 65536.0));
    by[1] = whole(product(draw(4, a.shift), 65536.0));
    const double middle = (double(a.thicker) - double(a.thinner)) / 2;
    thicker = static_cast<real>(middle + draw(5, (a.thicker + a.thinner) / 2));
  }
  // Where pixel (0, y) of a picture comes from; each next one is (m[0], m[2]) further.
  struct Place { int64_t x, y; };
  NNLITE_SHARED Place row(int64_t H, int64_t W, int64_t y) const {
    const int64_t u = 1 - W, v = 2 * y + 1 - H;                  // twice the way from the middle
    return {((m[0] * u + m[1] * v - 65536 * u) >> 1) + by[0],
            ((m[2] * u + m[3] * v + 65536 * (H - 1)) >> 1) + by[1]};
  }
};

// A picture, values[i], and what is around it.
template <class Values>
struct Canvas {
  Values  values;
  int64_t H, W, C;
  real    background;
  NNLITE_SHARED real at(int64_t x, int64_t y, int64_t c) const {
    return x >= 0 && y >= 0 && x < W && y < H ? values[(y * W + x) * C + c] : background;
  }
};
NNLITE_SHARED static inline real between(real a, real b, real share) { return a + product(b - a, share); }

// A pixel towards the largest of itself and its four neighbours, or towards the smallest.
template <class V>
NNLITE_SHARED static inline real thickened(const Canvas<V>& from, real by, int64_t x, int64_t y) {
  const real here = from.at(x, y, 0), around[] = {from.at(x - 1, y, 0), from.at(x + 1, y, 0),
                                                  from.at(x, y - 1, 0), from.at(x, y + 1, 0)};
  real most = here;
  for (const real v : around) most = (by > 0 ? v > most : v < most) ? v : most;
  return between(here, most, by > 0 ? by : -by);
}

// What is at a place, between four pixels.
template <class V>
NNLITE_SHARED static inline real sampled(const Canvas<V>& from, Change::Place at, int64_t c) {
  const int64_t i = at.x >> 16, j = at.y >> 16;
  const real across = static_cast<real>(at.x & 65535) * real(0x1p-16),
             down   = static_cast<real>(at.y & 65535) * real(0x1p-16);
  return between(between(from.at(i, j, c), from.at(i + 1, j, c), across),
                 between(from.at(i, j + 1, c), from.at(i + 1, j + 1, c), across), down);
}

// Scratch of a worker: the picture, and the picture with thicker strokes.
static inline size_t augment_bytes(const Shape& shape) {
  return 2 * static_cast<size_t>(round_up(shape.row_numel() * int64_t(sizeof(real)), 64));
}

// Changes a picture where it lies.
static inline void augment_row(const Augment& how, const Change& change, const Shape& shape, real* picture,
                               unsigned char* scratch) {
  const int64_t H = shape.dim[1], W = shape.dim[2], C = shape.dim[3];
  real *const copy = reinterpret_cast<real*>(scratch),
       *const other = reinterpret_cast<real*>(scratch + augment_bytes(shape) / 2);
  Canvas<const real*> from = {copy, H, W, C, real(how.background)};
  __builtin_memcpy(copy, picture, static_cast<size_t>(H * W * C) * sizeof(real));
  const bool strokes = how.thinner > 0 || how.thicker > 0;
  for (int64_t y = 0; y < H && strokes; y++)
    for (int64_t x = 0; x < W; x++) other[y * W + x] = thickened(from, change.thicker, x, y);
  if (strokes) from.values = other;
  for (int64_t y = 0; y < H; y++) {
    Change::Place at = change.row(H, W, y);
    for (int64_t x = 0; x < W; x++, at.x += change.m[0], at.y += change.m[2])
      for (int64_t c = 0; c < C; c++) *picture++ = sampled(from, at, c);
  }
}

// ================================================================================ >>context
// The step that runs, for ops that need more than data.
struct StepContext {
  uint64_t seed    = 0;
  uint64_t step    = 0;                        // from 0; the random streams of this step
  uint64_t update  = 1;                        // from 1; optimizers' t
  uint64_t first   = 0;                        // the step since which nobody waited for a device
  float    lr      = 0;                        // of the optimizer, after the schedule
  real     gradient_scale = 1;                 // from clipping by norm; optimizers multiply g by it
  float    clip_value = 0, clip_norm = 0;
  int32_t  rows = 0;
};

// Numbers of one update that optimizers compute once, in double and without fma.
NNLITE_SHARED static double power(double base, uint64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1, base = product(base, base))
    if ((exponent & 1u) != 0) result = product(result, base);
  return result;
}

NNLITE_SHARED static real adagrad_rate(const Adagrad& a, const StepContext& context) {
  const double decay = product(static_cast<double>(context.update - 1), static_cast<double>(a.lr_decay));
  return static_cast<real>(static_cast<double>(context.lr) / (1 + decay));
}

// lr over the correction of m, the root of that of v, the decay that is added to g, the share that w loses.
struct AdamRates { real step, root, added, shrink; };
NNLITE_SHARED static inline bool coupled_decay(const Adam&) { return true; }
NNLITE_SHARED static inline bool coupled_decay(const AdamW&) { return false; }
template <class A> NNLITE_SHARED static AdamRates adam_rates(const A& a, const StepContext& context) {
  const double c1 = 1 - power(double(a.betas.first), context.update),
               c2 = 1 - power(double(a.betas.second), context.update);
  const real   decay = real(a.weight_decay);
  return {static_cast<real>(static_cast<double>(context.lr) / c1), static_cast<real>(real_sqrt(c2)),
          coupled_decay(a) ? decay : 0, coupled_decay(a) ? 0 : product(real(context.lr), decay)};
}

}  // inline namespace
}  // namespace nnlite
#endif

#ifdef NNLITE_ONCE
namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
// ================================================================================ >>threads
// A job is published by a new epoch and answered in every worker's own cache line; between jobs the workers
// spin for some 20 to 50 us, then sleep. Tasks are split statically, so that nothing depends on who is fast.

struct Share { uint32_t first, last; };        // the tasks of one worker: [first, last)
static inline Share share_of(uint32_t tasks, int workers, int worker) {
  const uint64_t n = tasks, w = static_cast<uint64_t>(workers), i = static_cast<uint64_t>(worker);
  return {static_cast<uint32_t>(n * i / w), static_cast<uint32_t>(n * (i + 1) / w)};
}

// job(worker) for every worker, under the float control that bits need; without a pool, here.
template <class F> static inline void run_workers(const Pool* pool, int workers, F job) {
  const auto run = [](void* context, int worker) {
    const FloatControl control;
    (*static_cast<F*>(context))(worker);
  };
  if (pool != nullptr && pool->run != nullptr && workers > 1)
    return pool->run(pool->user, workers, run, &job);
  for (int worker = 0; worker < workers; worker++) run(&job, worker);
}

#ifndef NNLITE_NO_THREADS
// What ThreadPool::storage_ holds. The caller is worker 0; threads[i] is worker i + 1.
struct PoolState {
  struct alignas(64) Thread {
    std::atomic<uint32_t> done{0};                         // the last epoch this thread has answered
    int          number = 0;
    PoolState*   state  = nullptr;
    ThreadHandle handle = {};
  };
  static constexpr int spins = 1500;                       // about 20 us of pauses on Zen, 50 on Skylake

  alignas(64) std::atomic<uint32_t> epoch{0};
  std::atomic<int>  sleepers{0};
  std::atomic<bool> busy{false};                           // somebody's job is under way
  alignas(64) void (*job)(void*, int) = nullptr;           // nullptr: end
  void* context = nullptr;
  int   workers = 0;                                       // that the job wants
  int   started = 0;                                       // threads
  Sleeper sleeper;
  Thread  threads[max_workers - 1];

  void publish(void (*new_job)(void*, int), void* new_context, int new_workers) {
    job     = new_job;
    context = new_context;
    workers = new_workers;
    epoch.fetch_add(1);
    if (sleepers.load() == 0) return;
    sleeper.enter();
    sleeper.wake();
    sleeper.leave();
  }

  // Returns the epoch that follows `seen`. A sleeper has counted itself before it looks at the epoch for the
  // last time, and publish() raises the epoch before it looks at the count: one of the two sees the other.
  uint32_t await(uint32_t seen) {
    for (int i = 0; i < spins; i++) {
      const uint32_t now = epoch.load(std::memory_order_acquire);
      if (now != seen) return now;
      cpu_relax();
    }
    sleeper.enter();
    sleepers.fetch_add(1);
    uint32_t now = epoch.load();
    for (; now == seen; now = epoch.load()) sleeper.sleep();
    sleepers.fetch_sub(1);
    sleeper.leave();
    return now;
  }

  // Workers that have no thread, because there are fewer than the job wants, are done by those that have.
  void work(int number) {
    for (int worker = number; worker < workers; worker += started + 1) job(context, worker);
  }

  static ThreadResult NNLITE_THREAD_CALL main(void* self) {
    Thread&    thread = *static_cast<Thread*>(self);
    PoolState& state  = *thread.state;
    for (uint32_t seen = 0;;) {
      seen = state.await(seen);
      if (state.job == nullptr) return ThreadResult();
      state.work(thread.number);
      thread.done.store(seen, std::memory_order_release);
    }
  }

  static void run(void* user, int workers, void (*job)(void*, int), void* context) {
    PoolState& state = *static_cast<PoolState*>(user);
    if (workers <= 1 || state.started == 0 || state.busy.exchange(true, std::memory_order_acquire)) {
      for (int worker = 0; worker < workers; worker++) job(context, worker);
      return;
    }
    state.publish(job, context, workers);
    const uint32_t epoch = state.epoch.load(std::memory_order_relaxed);
    state.work(0);
    for (int i = 0; i < state.started; i++)
      for (int spin = 0; state.threads[i].done.load(std::memory_order_acquire) != epoch; spin++)
        if (spin < spins) cpu_relax();
        else thread_yield();
    state.busy.store(false, std::memory_order_release);
  }
};

ThreadPool::ThreadPool(int threads) {
  static_assert(sizeof(PoolState) <= sizeof storage_ && alignof(PoolState) <= 64,
                "ThreadPool::storage_ is too small");
  PoolState& state = *new (storage_) PoolState;
  if (threads > max_workers) threads = max_workers;
  for (int i = 0; i + 1 < threads; i++) {
    PoolState::Thread& thread = state.threads[i];
    thread.number = i + 1;
    thread.state  = &state;
    if (!thread_start(thread.handle, PoolState::main, &thread)) break;
    state.started++;
  }
  Pool::workers = state.started + 1;
  Pool::user    = &state;
  Pool::run     = PoolState::run;
}

ThreadPool::~ThreadPool() {
  PoolState& state = *static_cast<PoolState*>(user);
  state.publish(nullptr, nullptr, 0);
  for (int i = 0; i < state.started; i++) thread_join(state.threads[i].handle);
  state.~PoolState();
}
#endif

// ================================================================================ >>text
// Writes text into a fixed buffer, always terminated, cut where it does not fit.
struct Text {
  char*  at;
  char*  end;
  Status status = Status::ok;                  // of the problem that it tells
  Text(char* buffer, size_t size) : at(buffer), end(buffer + size - 1) { *at = 0; }
  operator Status() const { return status; }
  Text& put(char c) {
    if (at < end) *at++ = c;
    *at = 0;
    return *this;
  }
  NNLITE_COLD Text& operator<<(const char* s) {
    for (; s && *s; s++) put(*s);
    return *this;
  }
  NNLITE_COLD Text& operator<<(int64_t n) {
    char digits[24];
    int count = 0;
    if (n < 0) put('-');
    uint64_t v = n < 0 ? uint64_t(0) - static_cast<uint64_t>(n) : static_cast<uint64_t>(n);
    do digits[count++] = static_cast<char>('0' + v % 10);
    while ((v /= 10) != 0);
    while (count > 0) put(digits[--count]);
    return *this;
  }
  Text& operator<<(int n) { return *this << static_cast<int64_t>(n); }
  Text& operator<<(const Shape& s) {
    put('[');
    for (int d = 0; d < s.rank; d++) {
      if (d > 0) *this << ", ";
      if (s.dim[d] == Shape::batch_dim) put('N');
      else if (s.dim[d] == 0) put('?');
      else *this << static_cast<int64_t>(s.dim[d]);
    }
    return put(']');
  }
};

#ifdef NNLITE_NO_STRINGS
const char* to_string(Status) { return ""; }
const char* describe(Status) { return ""; }
#else
#define NNLITE_STATUS_NAME(name, text) #name,
#define NNLITE_STATUS_TEXT(name, text) text,
static const char* const status_names[] = {NNLITE_STATUSES(NNLITE_STATUS_NAME)};
static const char* const status_texts[] = {NNLITE_STATUSES(NNLITE_STATUS_TEXT)};
const char* to_string(Status s) { return status_names[static_cast<int>(s)]; }
const char* describe(Status s) { return status_texts[static_cast<int>(s)]; }
#endif

// Starts a problem; the caller may stream details to the returned text, and return it as the status.
static NNLITE_COLD Text set_problem(Problem& p, Status status, const char* where,
                                    const char* what = nullptr) {
  p.status = status;
  p.offset = 0;
  Text(p.where, sizeof p.where) << where;
  Text text(p.what, sizeof p.what);
  text.status = status;
  text << describe(status);
  return what ? text << ": " << what : text;
}

// Of a call that needs a build and 1 to `most` rows.
static Status check_rows(Problem& p, bool built, const char* where, int rows, int most) {
  if (!built) return set_problem(p, Status::not_built, where);
  if (rows < 1 || rows > most) return set_problem(p, Status::bad_argument, where, "rows 1 to ") << most;
  return Status::ok;
}

static size_t text_bytes(const char* s) {
  size_t n = 0;
  while (s[n] != 0) ++n;
  return n;
}
static int compare_text(const char* a, const char* b) {
  while (*a != 0 && *a == *b) ++a, ++b;
  return int(static_cast<unsigned char>(*a)) - int(static_cast<unsigned char>(*b));
}
static bool same_text(const char* a, const char* b) { return compare_text(a, b) == 0; }
// UTF-8 without zeros, of the shortest form, and no surrogates (RFC 3629).
static bool valid_utf8(const char* s, size_t n) {
  static constexpr uint32_t least[4] = {1, 0x80, 0x800, 0x10000};     // by the number of bytes that follow
  for (size_t i = 0; i < n;) {
    const uint8_t c    = uint8_t(s[i++]);
    const size_t  more = c < 0x80 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3, end = i + more;
    if ((c & 0xC0u) == 0x80u || c > 0xF4 || end > n) return false;
    uint32_t code = more == 0 ? c : c & (0x3Fu >> more);
    for (; i < end; ++i) {
      if ((uint8_t(s[i]) & 0xC0u) != 0x80u) return false;
      code = code << 6 | (uint8_t(s[i]) & 0x3Fu);
    }
    if (code < least[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
  }
  return true;
}

// ================================================================================ >>records
// What the engine's rooms share: the records of a graph and the context of a step.
void* Arena::take(size_t bytes) {
  const size_t size = (bytes + 63) & ~static_cast<size_t>(63);
  if (size < bytes || size > size_ - used_ || !aligned()) return nullptr;
  void* p = base_ + used_;
  used_ += size;
  return p;
}

int64_t Shape::row_numel() const {
  int64_t n = 1;
  for (int d = batched() ? 1 : 0; d < rank; d++) n *= dim[d];
  return n;
}
bool operator==(const Shape& a, const Shape& b) {
  bool same = a.rank == b.rank;
  for (int d = 0; same && d < a.rank; d++) same = a.dim[d] == b.dim[d];
  return same;
}
static Shape flat_shape(int64_t count) { return {{static_cast<int32_t>(count)}, 1}; }
AnyOp::AnyOp(const Op* op, const void* attributes, size_t size) : op_(op) {
  __builtin_memcpy(bytes_, attributes, size < sizeof bytes_ ? size : sizeof bytes_);
}

// A parameter of a node. Its values lie `offset` units of 64 bytes into the model's weights.
struct Parameter {
  ParameterSpec spec;
  int64_t  stored    = 0;                      // elements in memory, padding included: whole panels
  uint32_t offset    = 0;
  Init     init      = Init::pytorch;          // of a weight, when has_init
  bool     has_init  = false, trainable = true;
};

// A node: an input (op is nullptr) or a layer. Once the model is finished, a node's inputs are before it.
struct Node {
  const Op*   op         = nullptr;
  void*       attributes = nullptr;            // as the shape function completed them
  const char* name       = nullptr;            // nullptr: made from op and number on demand
  uint16_t*   inputs     = nullptr;
  Parameter*  parameters = nullptr;            // of the owner, for a shared node
  Shape       shape;
  DType       dtype      = real_dtype;
  uint8_t     n_in       = 0, n_parameters = 0;
  uint16_t    first_parameter = 0;             // number of parameters[0] in the model
  uint16_t    owner      = 0;                  // this node, or the one it shares parameters with
};

// The most elements that one row of a tensor, or a parameter with its padding, may have.
constexpr int64_t max_elements = 0x7FFFFFFF;
// a b for sizes from outside: what is too large, and a negative size, gives max_elements + 1. So one
// comparison at the end checks a whole chain of products.
static inline int64_t size_product(int64_t a, int64_t b) {
  if (a < 0 || b < 0 || a > max_elements || b > max_elements) return max_elements + 1;
  return a * b > max_elements ? max_elements + 1 : a * b;
}

// Outputs come in panels of 16 that never cross a group.
constexpr int panel = 16;
// A parameter lies as [outer][panels][lines][16]; `width` of the lanes of all panels hold values.
struct Panels {
  int64_t outer = 1, lines = 1, width = 0;
  explicit Panels(const ParameterSpec& p) {
    const int32_t* d      = p.shape.dim;
    const int64_t  window = size_product(d[2], d[3]);
    if (p.layout == Layout::vector) width = p.shape.row_numel();
    if (p.layout == Layout::linear) lines = d[1], width = d[0];
    if (p.layout == Layout::depthwise) outer = window, width = d[0];
    if (p.layout == Layout::conv || p.layout == Layout::transposed) outer = p.groups;
    if (p.layout == Layout::conv) lines = size_product(window, d[1]), width = d[0] / outer;
    if (p.layout == Layout::transposed) lines = size_product(window, d[0] / outer), width = d[1];
  }
  int64_t count() const { return (width + panel - 1) / panel; }      // of the panels of one outer
};

// Elements of a parameter in memory, padding included; max_elements + 1 when that is too many.
static int64_t parameter_stored(const ParameterSpec& p) {
  const Panels in(p);
  return size_product(size_product(in.outer, in.lines), in.count() * panel);
}

// Where the element [a, b, h, w] of the logical shape lies in memory.
static inline int64_t parameter_index(const ParameterSpec& p, int64_t a, int64_t b = 0, int64_t h = 0,
                                      int64_t w = 0) {
  const int32_t* d = p.shape.dim;
  if (p.layout == Layout::vector) return a;
  if (p.layout == Layout::linear) return (a / panel * d[1] + b) * panel + a % panel;
  if (p.layout == Layout::depthwise) return (h * d[3] + w) * round_up(d[0], panel) + a;
  const bool    transposed = p.layout == Layout::transposed;
  const int64_t in = transposed ? d[0] / p.groups : d[1], out = transposed ? d[1] : d[0] / p.groups;
  const int64_t group = a / (transposed ? in : out), i = transposed ? a % in : b,
                o = transposed ? b : a % out;
  const int64_t first = group * ((out + panel - 1) / panel) + o / panel;
  return (((first * d[2] + h) * d[3] + w) * in + i) * panel + o % panel;
}

// One side of a window that slides: place k of output o is input o stride - padding + k dilation.
struct Axis {
  int64_t in, out;
  int     kernel, stride, padding, dilation;

  int64_t input(int64_t o, int64_t k) const {                   // -1 in the padding
    const int64_t i = o * stride - padding + k * dilation;
    return i >= 0 && i < in ? i : -1;
  }
  int64_t output(int64_t i, int64_t k) const {                  // -1 where no output reads input i at place k
    const int64_t o = i + padding - k * dilation;
    return o >= 0 && o % stride == 0 && o / stride < out ? o / stride : -1;
  }
  // Places first .. last - 1 of output o lie inside, `first` at `input`; huge paddings cost nothing.
  struct Inside { int64_t first, last, input; };
  Inside inside(int64_t o) const {
    const int64_t start = o * stride - padding, room = in - start;
    const int64_t first = start >= 0 ? 0 : (dilation - 1 - start) / dilation;
    const int64_t last = room >= extent() ? kernel : room <= 0 ? 0 : (room + dilation - 1) / dilation;
    return {first, last, start + first * dilation};
  }
  bool    valid() const { return kernel > 0 && stride > 0 && padding >= 0 && dilation > 0; }
  int64_t extent() const { return int64_t(dilation) * (kernel - 1) + 1; }
  // 0 where the window is larger than the padded input. PyTorch's ceil_mode: a last window may hang over, but
  // must start inside the input or its left padding.
  int64_t places(bool ceil_mode = false) const {
    const int64_t slack = in + 2 * int64_t(padding) - extent();
    const int64_t n = slack < 0 ? 0 : (slack + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    return ceil_mode && n > 0 && (n - 1) * stride >= in + padding ? n - 1 : n;
  }
};

// Both sides of a window that slides over images of shape x and gives y.
struct Axes { Axis h, w; };
template <class A> static Axes axes_of(const A& a, Pair dilation, const Shape& x, const Shape& y) {
  return {{x.dim[1], y.dim[1], a.kernel_size.h, a.stride.h, a.padding.h, dilation.h},
          {x.dim[2], y.dim[2], a.kernel_size.w, a.stride.w, a.padding.w, dilation.w}};
}
static bool small_window(const MaxPool2d& a) { return int64_t(a.kernel_size.h) * a.kernel_size.w <= 256; }
// The sum of inputs [first, last) of each side (1: rows, 2: columns), divided by `count` of both, is a mean.
struct Region { int64_t first, last, count; };
static Region region_of(const AvgPool2d& a, int side, int64_t o, const Shape& x, const Shape& y) {
  const Axes    axes = axes_of(a, 1, x, y);
  const Axis&   k = side == 1 ? axes.h : axes.w;
  const int64_t start = o * k.stride - k.padding, end = smaller(start + k.kernel, k.in + k.padding);
  const int64_t first = start > 0 ? start : 0, last = smaller(end, k.in);
  return {first, last, a.count_include_pad ? end - start : last - first};
}
static Region region_of(const AdaptiveAvgPool2d&, int side, int64_t o, const Shape& x, const Shape& y) {
  const int64_t in = x.dim[side], out = y.dim[side];
  const int64_t first = o * in / out, last = ((o + 1) * in + out - 1) / out;
  return {first, last, last - first};
}

// Both convolutions relate a big image (input of Conv2d, output of ConvTranspose2d) to a small one:
//   down   small[o] = start + sum over places k of  big[o stride - padding + k dilation] w[k]
//   up     big[i]   = start + sum over places k of small[(i + padding - k dilation) / stride] w[k]
//   grad   dw[k]    = sum over o of big[o stride - padding + k dilation] small[o]
// Forward is down for Conv2d and up for ConvTranspose2d; the gradient for the input is the other one. Weights
// are [small channels][big channels of a group] for both.
constexpr int64_t narrow_taps = 64;            // at most, where down is by multiply_narrow
struct Conv : Axes {                           // in: big, out: small
  int64_t images, groups, big, small;          // channels of one group
  int64_t workers;

  struct Side { int64_t H, W, channels; };
  Side    side(bool of_big) const { return of_big ? Side{h.in, w.in, big} : Side{h.out, w.out, small}; }
  int64_t taps() const { return int64_t(h.kernel) * w.kernel; }
  int64_t big_pitch() const { return groups * big; }
  int64_t small_pitch() const { return groups * small; }
  bool    is_narrow() const { return big * groups * w.stride == 1 && small <= 8 && taps() <= narrow_taps; }
};
static NNLITE_NOINLINE Conv conv_sizes(const Conv2d& a, const OpRun& r) {
  return {axes_of(a, a.dilation, r.in_shape(0), r.out_shape()), r.rows, a.groups, a.in_channels / a.groups,
          a.out_channels / a.groups, r.workers};
}
static NNLITE_NOINLINE Conv conv_sizes(const ConvTranspose2d& a, const OpRun& r) {
  return {axes_of(a, a.dilation, r.out_shape(), r.in_shape(0)), r.rows, a.groups, a.out_channels / a.groups,
          a.in_channels / a.groups, r.workers};
}
// A depthwise convolution has weights of its own, [kH][kW][C], and rows in >>kernel_depthwise.
static bool is_depthwise(const Conv2d& a) {
  return a.groups > 1 && a.groups == a.in_channels && a.groups == a.out_channels;
}
static inline bool is_depthwise(const ConvTranspose2d&) { return false; }
// y of Concat is runs, each made of one run of every input.
static NNLITE_NOINLINE int64_t concat_length(const OpRun& r, int k) {
  const Shape& x = r.in_shape(k);
  const int    dim = static_cast<const Concat*>(r.attributes)->dim;
  int64_t length = 1;
  for (int d = dim < 0 ? dim + x.rank : dim; d < x.rank; d++) length *= x.dim[d];
  return length;
}
static int64_t concat_runs(const OpRun& r) { return r.in_numel(0) / concat_length(r, 0); }
// Calls f(input, place in the input, place in y, length) for what each gives to runs first .. last - 1.
template <class F> static void each_concat_run(const OpRun& r, int64_t first, int64_t last, const F& f) {
  for (int64_t run = first, at = run * (r.out_numel() / concat_runs(r)); run < last; run++)
    for (int k = 0; k < r.n_in; k++) {
      const int64_t length = concat_length(r, k);
      f(k, run * length, at, length);
      at += length;
    }
}

// The stored index of logical element e (row-major in PyTorch's order) of a parameter.
static int64_t parameter_at(const ParameterSpec& spec, int64_t e) {
  int64_t index[4] = {};
  for (int d = spec.shape.rank - 1; d >= 0; d--) {
    index[d] = e % spec.shape.dim[d];
    e /= spec.shape.dim[d];
  }
  return parameter_index(spec, index[0], index[1], index[2], index[3]);
}

// What the shape functions of ops share.
static bool real_input(const OpShape& s, int i) { return s.in[i].rank > 0 && s.in_dtype[i] == real_dtype; }
static bool rows_input(const OpShape& s, int i) { return real_input(s, i) && s.in[i].batched(); }
static bool image_input(OpShape& s) {
  s.expected.rank   = s.in[0].rank == 4 ? 0 : 4;
  s.expected.dim[0] = Shape::batch_dim;
  return rows_input(s, 0) && s.in[0].rank == 4;
}
// The last dimension of in[0] is n, which 0 leaves to it.
static Status infer_last(OpShape& s, int& n) {
  if (n == 0) n = s.in[0].last();
  s.expected = s.in[0];
  s.expected.dim[s.expected.rank - 1] = n;
  return s.expected == s.in[0] ? Status::ok : Status::bad_shape;
}

static Status set_out(OpShape& s, const Shape& out) {
  int64_t numel = 1;
  for (int i = out.batched() ? 1 : 0; i < out.rank; i++) {
    if (out.dim[i] <= 0) return Status::bad_shape;
    numel = size_product(numel, out.dim[i]);
  }
  s.out = out;
  return numel > max_elements ? Status::limit_exceeded : Status::ok;
}

// y is an image of h x w pixels.
static Status set_image_out(OpShape& s, int64_t h, int64_t w, int32_t channels) {
  if (h <= 0 || w <= 0) return Status::bad_shape;
  if (h > max_elements || w > max_elements) return Status::limit_exceeded;
  Shape out  = s.in[0];
  out.dim[1] = static_cast<int32_t>(h);
  out.dim[2] = static_cast<int32_t>(w);
  out.dim[3] = channels;
  return set_out(s, out);
}

static Status add_parameter(OpShape& s, const ParameterSpec& p) {
  s.parameters[s.n_parameters++] = p;
  return parameter_stored(p) > max_elements ? Status::limit_exceeded : Status::ok;
}
static ParameterSpec vector_parameter(const char* name, Role role, Fill fill, int32_t count,
                                      int32_t fan_in = 1) {
  return {name, role, Layout::vector, fill, 1, fan_in, count, flat_shape(count)};
}

// [d0, d1] of a linear layer, [d0, d1, kH, kW] of a convolution; PyTorch's fans are those of d1 and d0.
static ParameterSpec weight_parameter(Layout layout, int d0, int d1, Pair kernel = 1, int groups = 1) {
  const auto fan = [&](int d) {
    return static_cast<int32_t>(smaller(size_product(d, size_product(kernel.h, kernel.w)), max_elements));
  };
  Shape shape = {{d0, d1}, 2};
  if (layout != Layout::linear) shape = {{d0, d1, kernel.h, kernel.w}, 4};
  return {"weight", Role::weight, layout, Fill::fan_in, groups, fan(d1), fan(d0), shape};
}
static Status add_weight_and_bias(OpShape& s, const ParameterSpec& weight, bool bias, int32_t outputs) {
  s.dw_reads_in = 1;
  NNLITE_TRY(add_parameter(s, weight));
  if (!bias) return Status::ok;
  return add_parameter(s, vector_parameter("bias", Role::bias, Fill::fan_in, outputs, weight.fan_in));
}

// -1 is the last dimension. 0, the batch, and what is not there give -1.
static int dimension(int dim, int rank) {
  if (dim < 0) dim += rank;
  return dim > 0 && dim < rank ? dim : -1;
}

// dx += value or dx = value, as the planner asked.
static inline void give(real* dx, int64_t i, real value, bool accumulate) {
  dx[i] = accumulate ? dx[i] + value : value;
}
static inline void zero(real* to, int64_t count) { for (int64_t i = 0; i < count; i++) to[i] = 0; }
// Calls f(at, n, h, w, c) for every value of images of this shape, in their order.
template <class F> static inline void each_value(int64_t images, const Shape& shape, F f) {
  int64_t at = 0;
  for (int64_t n = 0; n < images; n++)
  for (int64_t h = 0; h < shape.dim[1]; h++)
  for (int64_t w = 0; w < shape.dim[2]; w++)
  for (int64_t c = 0; c < shape.dim[3]; c++) f(at++, n, h, w, c);
}

#ifdef NNLITE_KERNELS
#define NNLITE_PASS NNLITE_FIRST_PASS          // the first pass of the kernel rooms stands in place
#define NNLITE_ISA  NNLITE_FIRST_ISA
#endif
}  // inline namespace
}  // namespace nnlite
#endif  // NNLITE_IMPLEMENTATION

#ifdef NNLITE_PASS
// ================================================================================ >>simd
// Vectors. Everything between here and >>dispatch is one text, compiled once for every instruction set: this
// file includes itself with NNLITE_PASS and NNLITE_ISA set to the number and the namespace of the set
// (>>dispatch). The first pass stands in place, without a target region, and also compiles what is under
// NNLITE_ONCE: shapes and plans, shared by all sets.
//
//   vf, vi, vm   a vector of `lanes` floats, 32-bit integers, truth values. 16 = parts * lanes on every set.
//   fma          rounds once; in the class without fma (base) the product is rounded, too.
//   mul          keeps its product from being merged into a later addition, so write fma where you mean it.
//   max, min     compare and select: the second argument where one of them is not a number.
//   wins         a is larger, or not a number.
//   load_part    the first n floats (0 <= n <= lanes) and zeros; like store_part it touches no more.
//   load_bytes_part   numbers 0 .. 255 from the first n bytes, store_bytes_part into them.
// Where vector units are compiled, too, scalar is their oracle and need not be fast: its code stays small.
#undef NNLITE_UNROLL
#undef NNLITE_RUN_KIND
#if NNLITE_PASS == NNLITE_PASS_SCALAR && (defined(NNLITE_X86) || defined(NNLITE_NEON))
#define NNLITE_UNROLL
#define NNLITE_RUN_KIND NNLITE_COLD
#else
#define NNLITE_UNROLL NNLITE_UNROLL_FULLY
#define NNLITE_RUN_KIND
#endif

namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
namespace NNLITE_ISA {

#undef NNLITE_VECTOR                            // the attribute of a vector; plain numbers have none
#define NNLITE_VECTOR vector_size(4 * lanes),
#if NNLITE_PASS == NNLITE_PASS_AVX512
constexpr int lanes = 16;
#elif NNLITE_PASS == NNLITE_PASS_AVX2
constexpr int lanes = 8;
#elif NNLITE_PASS == NNLITE_PASS_NEON || (NNLITE_PASS == NNLITE_PASS_BASE && defined(NNLITE_X86))
constexpr int lanes = 4;
#else  // scalar with a true fma, base where there is no vector unit
constexpr int lanes = 1;
#undef NNLITE_VECTOR
#define NNLITE_VECTOR
#endif
typedef float    Floats __attribute__((NNLITE_VECTOR aligned(4 * lanes)));
typedef int32_t  Ints __attribute__((NNLITE_VECTOR aligned(4 * lanes)));
typedef uint32_t Bits __attribute__((NNLITE_VECTOR aligned(4 * lanes)));
typedef float    FloatsInMemory __attribute__((NNLITE_VECTOR aligned(4), may_alias));
typedef uint32_t BitsInMemory __attribute__((NNLITE_VECTOR aligned(4), may_alias));
struct vf { Floats v; };
struct vi { Bits v; };
struct vm { decltype(Floats() < Floats()) v; };
template <class To, class From> NNLITE_VERB To same_bits(From from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
NNLITE_VERB vf   load(const float* p) { return {*reinterpret_cast<const FloatsInMemory*>(p)}; }
NNLITE_VERB void store(float* p, vf a) { *reinterpret_cast<FloatsInMemory*>(p) = a.v; }
NNLITE_VERB vi   load(const int32_t* p) { return {*reinterpret_cast<const BitsInMemory*>(p)}; }
NNLITE_VERB void store(int32_t* p, vi a) { *reinterpret_cast<BitsInMemory*>(p) = a.v; }
NNLITE_VERB vf   set(float a) { return {a - Floats{}}; }                       // -0 - 0 is -0, too
NNLITE_VERB vi   set(int32_t a) { return {static_cast<uint32_t>(a) + Bits{}}; }
NNLITE_VERB vf   add(vf a, vf b) { return {a.v + b.v}; }
NNLITE_VERB vf   sub(vf a, vf b) { return {a.v - b.v}; }
NNLITE_VERB vf   mul(vf a, vf b) { vf r = {a.v * b.v}; NNLITE_PIN_VECTOR(r.v); return r; }
NNLITE_VERB vf   div(vf a, vf b) { return {a.v / b.v}; }
NNLITE_VERB vm   less(vf a, vf b) { return {a.v < b.v}; }
NNLITE_VERB vm   equal(vf a, vf b) { return {a.v == b.v}; }
NNLITE_VERB vm   wins(vf a, vf b) { return {decltype(vm::v)((a.v > b.v) | (a.v != a.v))}; }
NNLITE_VERB vm   less(vi a, vi b) { return {same_bits<Ints>(a.v) < same_bits<Ints>(b.v)}; }
NNLITE_VERB vm   equal(vi a, vi b) { return {a.v == b.v}; }
NNLITE_VERB vf   select(vm m, vf a, vf b) { return {m.v ? a.v : b.v}; }
NNLITE_VERB vi   select(vm m, vi a, vi b) { return {m.v ? a.v : b.v}; }
NNLITE_VERB vi   add(vi a, vi b) { return {a.v + b.v}; }
NNLITE_VERB vi   sub(vi a, vi b) { return {a.v - b.v}; }
NNLITE_VERB vi   bit_and(vi a, vi b) { return {a.v & b.v}; }
NNLITE_VERB vi   bit_or(vi a, vi b) { return {a.v | b.v}; }
template <int n> NNLITE_VERB vi shift_left(vi a) { return {a.v << n}; }
template <int n> NNLITE_VERB vi shift_right_signed(vi a) {
  return {same_bits<Bits>(same_bits<Ints>(a.v) >> n)};
}
NNLITE_VERB vi   as_int(vf a) { return {same_bits<Bits>(a.v)}; }
NNLITE_VERB vf   as_float(vi a) { return {same_bits<Floats>(a.v)}; }

#if NNLITE_PASS == NNLITE_PASS_AVX512
NNLITE_VERB vf   fma(vf a, vf b, vf c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
NNLITE_VERB vf   sqrt(vf a) { return {_mm512_maskz_sqrt_ps(0xFFFF, a.v)}; }
NNLITE_VERB vf   max(vf a, vf b) { return {_mm512_max_ps(a.v, b.v)}; }
NNLITE_VERB vf   min(vf a, vf b) { return {_mm512_min_ps(a.v, b.v)}; }
NNLITE_VERB __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
NNLITE_VERB vf   load_few(const float* p, int n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
NNLITE_VERB void store_few(float* p, vf a, int n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
NNLITE_VERB vi   from_bytes(__m128i a) { return {reinterpret_cast<Bits>(_mm512_cvtepu8_epi32(a))}; }
NNLITE_VERB vi   load_bytes_part(const uint8_t* p, int n) {
  if (n == lanes) return from_bytes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const uint64_t high = n > 8 ? get_bytes(p + 8, n - 8) : 0, low = get_bytes(p, n < 8 ? n : 8);
  return from_bytes(_mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low)));
}
NNLITE_VERB void store_bytes(uint8_t* p, vi a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(a.v)));
}
#elif NNLITE_PASS == NNLITE_PASS_AVX2
NNLITE_VERB vf   fma(vf a, vf b, vf c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
NNLITE_VERB vf   sqrt(vf a) { return {_mm256_sqrt_ps(a.v)}; }
NNLITE_VERB vf   max(vf a, vf b) { return {_mm256_max_ps(a.v, b.v)}; }
NNLITE_VERB vf   min(vf a, vf b) { return {_mm256_min_ps(a.v, b.v)}; }
NNLITE_VERB __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
NNLITE_VERB vf   load_few(const float* p, int n) { return {_mm256_maskload_ps(p, first(n))}; }
// A masked store takes tens of cycles on AMD's processors.
static NNLITE_NOINLINE void store_few(float* p, vf a, int n) {
  __m128 four = _mm256_castps256_ps128(a.v);
  if ((n & 4) != 0) {
    _mm_storeu_ps(p, four);
    four = _mm256_extractf128_ps(a.v, 1);
  }
  if ((n & 2) != 0) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p + (n & 4)), four);
    four = _mm_movehl_ps(four, four);
  }
  if ((n & 1) != 0) _mm_store_ss(p + (n & 6), four);
}
NNLITE_VERB vi   from_bytes(__m128i a) { return {reinterpret_cast<Bits>(_mm256_cvtepu8_epi32(a))}; }
NNLITE_VERB vi   load_bytes_part(const uint8_t* p, int n) {
  if (n == lanes) return from_bytes(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return from_bytes(_mm_set_epi64x(0, static_cast<int64_t>(get_bytes(p, n))));
}
NNLITE_VERB void store_bytes(uint8_t* p, vi a) {
  const __m256i all = reinterpret_cast<__m256i>(a.v);
  const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(w, w));
}
#elif NNLITE_PASS == NNLITE_PASS_BASE && defined(NNLITE_X86)
NNLITE_VERB vf   fma(vf a, vf b, vf c) { return add(mul(a, b), c); }
NNLITE_VERB vf   sqrt(vf a) { return {_mm_sqrt_ps(a.v)}; }
NNLITE_VERB vf   max(vf a, vf b) { return {_mm_max_ps(a.v, b.v)}; }
NNLITE_VERB vf   min(vf a, vf b) { return {_mm_min_ps(a.v, b.v)}; }
#else
#if NNLITE_PASS == NNLITE_PASS_NEON
NNLITE_VERB vf   fma(vf a, vf b, vf c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
NNLITE_VERB vf   sqrt(vf a) { return {vsqrtq_f32(a.v)}; }
#else
NNLITE_VERB vf   fma(vf a, vf b, vf c) {
  return NNLITE_PASS == NNLITE_PASS_BASE ? add(mul(a, b), c) : vf{fma_exact(a.v, b.v, c.v)};
}
NNLITE_VERB vf   sqrt(vf a) { return {real_sqrt(a.v)}; }
#endif
NNLITE_VERB vf   max(vf a, vf b) { return select(less(b, a), a, b); }
NNLITE_VERB vf   min(vf a, vf b) { return select(less(a, b), a, b); }
#endif

#if NNLITE_PASS == NNLITE_PASS_SCALAR || (NNLITE_PASS == NNLITE_PASS_BASE && !defined(NNLITE_X86))
NNLITE_VERB vf   to_float(vi a) { return {static_cast<float>(same_bits<Ints>(a.v))}; }
#else
NNLITE_VERB vf   to_float(vi a) { return {__builtin_convertvector(same_bits<Ints>(a.v), Floats)}; }
#endif
#if NNLITE_PASS != NNLITE_PASS_AVX512 && NNLITE_PASS != NNLITE_PASS_AVX2
static NNLITE_NOINLINE vf load_few(const float* p, int n) {
  float t[lanes] = {};
  for (int i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
static NNLITE_NOINLINE void store_few(float* p, vf a, int n) {
  float t[lanes];
  store(t, a);
  for (int i = 0; i < n; i++) p[i] = t[i];
}
NNLITE_VERB vi load_bytes_part(const uint8_t* p, int n) {
  int32_t t[lanes] = {};
  for (int i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
NNLITE_VERB void store_bytes(uint8_t* p, vi a) {
  int32_t t[lanes];
  store(t, a);
  for (int i = 0; i < lanes; i++) p[i] = static_cast<uint8_t>(t[i]);
}
#endif
NNLITE_VERB vf   load_part(const float* p, int n) { return n == lanes ? load(p) : load_few(p, n); }
NNLITE_VERB void store_part(float* p, vf a, int n) { n == lanes ? store(p, a) : store_few(p, a, n); }
NNLITE_VERB void store_bytes_part(uint8_t* p, vi a, int n) {
  if (n == lanes) return store_bytes(p, a);
  uint8_t t[16] = {};
  store_bytes(t, a);
  put_bytes(p, get_bytes(t, 8), n < 8 ? n : 8);
  if (n > 8) put_bytes(p + 8, get_bytes(t + 8, 8), n - 8);
}

// Four rows of four numbers, 16 apart, turned over into rows `step` apart, written one after another.
NNLITE_VERB void transpose_4x4(const float* from, float* to, int64_t step = 16) {
#if defined(NNLITE_X86) && NNLITE_PASS != NNLITE_PASS_SCALAR
  const __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + 16), c = _mm_loadu_ps(from + 32),
               d = _mm_loadu_ps(from + 48);
  const __m128 ab = _mm_unpacklo_ps(a, b), cd = _mm_unpacklo_ps(c, d), AB = _mm_unpackhi_ps(a, b),
               CD = _mm_unpackhi_ps(c, d);
  _mm_storeu_ps(to, _mm_movelh_ps(ab, cd));
  _mm_storeu_ps(to + step, _mm_movehl_ps(cd, ab));
  _mm_storeu_ps(to + 2 * step, _mm_movelh_ps(AB, CD));
  _mm_storeu_ps(to + 3 * step, _mm_movehl_ps(CD, AB));
#elif NNLITE_PASS == NNLITE_PASS_NEON
  const float32x4_t a = vld1q_f32(from), b = vld1q_f32(from + 16), c = vld1q_f32(from + 32),
                    d = vld1q_f32(from + 48);
  const float32x4_t ac = vzip1q_f32(a, c), bd = vzip1q_f32(b, d), AC = vzip2q_f32(a, c),
                    BD = vzip2q_f32(b, d);
  vst1q_f32(to, vzip1q_f32(ac, bd));
  vst1q_f32(to + step, vzip2q_f32(ac, bd));
  vst1q_f32(to + 2 * step, vzip1q_f32(AC, BD));
  vst1q_f32(to + 3 * step, vzip2q_f32(AC, BD));
#else
  for (int c = 0; c < 4; c++) for (int r = 0; r < 4; r++) to[c * step + r] = from[r * 16 + c];
#endif
}

constexpr int parts = 16 / lanes;
#undef NNLITE_EACH_PART  // a loop where speed is not the point, or the code would grow sixteenfold
#if NNLITE_PASS == NNLITE_PASS_SCALAR || NNLITE_PASS == NNLITE_PASS_BASE
#define NNLITE_EACH_PART for (int j = 0; j < parts; j++)
#else
#define NNLITE_EACH_PART NNLITE_UNROLL for (int j = 0; j < parts; j++)
#endif
NNLITE_VERB vf  abs(vf a) { return as_float(bit_and(as_int(a), set(int32_t(0x7FFFFFFF)))); }
// of n, in the part at from
NNLITE_VERB int within(int n, int from) { return n < from ? 0 : n - from < lanes ? n - from : lanes; }

// Folds 16 virtual lanes: lane i with i + 8, then + 4, + 2, + 1. The same tree on every instruction set.
template <bool of_sum> static inline float tree(const vf (&a)[parts]) {
  float t[16];
  for (int j = 0; j < parts; j++) store(t + j * lanes, a[j]);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++)
      t[i] = of_sum ? t[i] + t[i + half] : t[i] > t[i + half] ? t[i] : t[i + half];
  return t[0];
}
static inline float tree_sum(const vf (&a)[parts]) { return tree<true>(a); }
static inline float tree_max(const vf (&a)[parts]) { return tree<false>(a); }
}  // namespace NNLITE_ISA

}  // inline namespace
}  // namespace nnlite
#endif  // NNLITE_PASS

#if defined(NNLITE_PASS) || defined(NNLITE_PLAIN)
// ================================================================================ >>formulas
// Functions of single numbers stand once: for vectors of every instruction set, and in namespace plain for
// the loops of ops, with the words of >>simd for a `real`. The same steps in the same order: the same bits.
#undef NNLITE_FORMULA
#ifdef NNLITE_PLAIN
#undef NNLITE_UNROLL
#define NNLITE_UNROLL
#define NNLITE_FORMULA NNLITE_DEVICE static inline
#define NNLITE_ISA plain
#else
#define NNLITE_FORMULA NNLITE_VERB
#endif

namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
namespace NNLITE_ISA {
#ifdef NNLITE_PLAIN
using vf = real;
using vm = bool;
template <class T> NNLITE_FORMULA vf set(T a) { return static_cast<vf>(a); }
NNLITE_FORMULA vf add(vf a, vf b) { return a + b; }
NNLITE_FORMULA vf sub(vf a, vf b) { return a - b; }
NNLITE_FORMULA vf mul(vf a, vf b) { return product(a, b); }
NNLITE_FORMULA vf div(vf a, vf b) { return a / b; }
NNLITE_FORMULA vf fma(vf a, vf b, vf c) { return madd(a, b, c); }
NNLITE_FORMULA vf sqrt(vf a) { return real_sqrt(a); }
NNLITE_FORMULA vf abs(vf a) { return real_abs(a); }
NNLITE_FORMULA vf max(vf a, vf b) { return a > b ? a : b; }
NNLITE_FORMULA vf min(vf a, vf b) { return a < b ? a : b; }
NNLITE_FORMULA vm less(vf a, vf b) { return a < b; }
NNLITE_FORMULA vf select(vm m, vf a, vf b) { return m ? a : b; }
#endif
#if defined(NNLITE_PLAIN) && defined(NNLITE_KERNELS)
using vi = uint32_t;
NNLITE_FORMULA vi set(int32_t a) { return static_cast<vi>(a); }
NNLITE_FORMULA vi add(vi a, vi b) { return a + b; }
NNLITE_FORMULA vi sub(vi a, vi b) { return a - b; }
NNLITE_FORMULA vi bit_and(vi a, vi b) { return a & b; }
NNLITE_FORMULA vi bit_or(vi a, vi b) { return a | b; }
template <int n> NNLITE_FORMULA vi shift_left(vi a) { return a << n; }
template <int n> NNLITE_FORMULA vi shift_right_signed(vi a) { return static_cast<vi>(int32_t(a) >> n); }
NNLITE_FORMULA vi as_int(vf a) { return bits_of(a); }
NNLITE_FORMULA vf as_float(vi a) { return float_of(a); }
NNLITE_FORMULA vf to_float(vi a) { return static_cast<vf>(static_cast<int32_t>(a)); }
NNLITE_FORMULA vm equal(vf a, vf b) { return a == b; }
#endif

#ifdef NNLITE_KERNELS
// r q(r) of exp, and 2^n.
NNLITE_FORMULA vf exp_parts(vf x, vf& power) {
  x = max(set(exp_lowest), min(set(exp_highest), x));
  const vf b = fma(x, set(log2_e), set(round_magic)), n = sub(b, set(round_magic));
  const vf r = fma(n, set(-ln2_low), fma(n, set(-ln2_high), x));
  vf q = set(exp_poly[0]);
  NNLITE_UNROLL for (int i = 1; i < 5; i++) q = fma(q, r, set(exp_poly[i]));
  q = fma(q, r, set(1.0f));
  power = as_float(add(shift_left<23>(as_int(b)), set(int32_t(0x3F800000))));
  return mul(q, r);
}

NNLITE_FORMULA vf exp(vf x) {
  vf power;
  const vf rq = exp_parts(x, power);
  return mul(add(rq, set(1.0f)), power);
}

// exp(x) - 1 without cancellation near zero.
NNLITE_FORMULA vf expm1(vf x) {
  vf power;
  const vf rq = exp_parts(x, power);
  return fma(rq, power, sub(power, set(1.0f)));
}

NNLITE_DEVICE static NNLITE_NOINLINE vf log(vf x) {
  const vm small = less(x, set(0x1p-126f));
  const vi root = set(int32_t(0x3F3504F3)), u = sub(as_int(select(small, mul(x, set(0x1p23f)), x)), root);
  const vf e = sub(to_float(shift_right_signed<23>(u)), select(small, set(23.0f), set(0.0f)));
  const vf m = sub(as_float(add(bit_and(u, set(int32_t(0x007FFFFF))), root)), set(1.0f)), z = mul(m, m);
  vf p = set(log_poly[0]);
  NNLITE_UNROLL for (int i = 1; i < 9; i++) p = fma(p, m, set(log_poly[i]));
  p = mul(mul(p, m), z);
  p = fma(e, set(log_ln2_low), p);
  p = fma(z, set(-0.5f), p);
  const vf inside = fma(e, set(log_ln2_high), add(m, p));
  const vf special = select(equal(x, set(0.0f)), as_float(set(static_cast<int32_t>(0xFF800000u))),
                            select(less(set(0.0f), x), x, as_float(set(int32_t(0x7FC00000)))));
  const vm finite = less(x, as_float(set(int32_t(0x7F800000))));
  return select(less(set(0.0f), x), select(finite, inside, special), special);
}

// log(1 + x) for x in [0, 1]: the rounding of 1 + x is put back.
NNLITE_FORMULA vf log1p(vf x) {
  const vf u = add(set(1.0f), x);
  return add(log(u), div(sub(x, sub(u, set(1.0f))), u));
}

NNLITE_FORMULA vf sigmoid(vf x) {
  const vf z = exp(as_float(bit_or(as_int(x), set(int32_t(INT32_MIN)))));
  const vf s = div(set(1.0f), add(set(1.0f), z));
  return select(less(x, set(0.0f)), mul(z, s), s);
}

NNLITE_FORMULA vf copy_sign(vf a, vf sign) {
  return as_float(bit_or(as_int(abs(a)), bit_and(as_int(sign), set(int32_t(INT32_MIN)))));
}
NNLITE_FORMULA vf tanh(vf x) {
  const vf a = abs(x), z = mul(a, a);
  vf p = set(tanh_poly[0]);
  NNLITE_UNROLL for (int i = 1; i < 5; i++) p = fma(p, z, set(tanh_poly[i]));
  const vf near = fma(mul(p, z), a, a);
  const vf far  = sub(set(1.0f), div(set(2.0f), add(exp(add(a, a)), set(1.0f))));
  return copy_sign(select(less(a, set(0.625f)), near, far), x);
}
#else
NNLITE_FORMULA vf exp(vf x) { return __builtin_exp(x); }
NNLITE_FORMULA vf expm1(vf x) { return __builtin_expm1(x); }
NNLITE_FORMULA vf log(vf x) { return __builtin_log(x); }
NNLITE_FORMULA vf log1p(vf x) { return __builtin_log1p(x); }
NNLITE_FORMULA vf sigmoid(vf x) { return 1 / (1 + __builtin_exp(-x)); }
NNLITE_FORMULA vf tanh(vf x) { return __builtin_tanh(x); }
#endif

NNLITE_FORMULA vf one_minus(vf a) { return sub(set(1.0f), a); }
NNLITE_FORMULA vf by_sign(vf x, vf above, vf other) { return select(less(set(0.0f), x), above, other); }

// Activations y = f(x), and dy times dy/dx, which is written by y alone, so that x need not be kept.
NNLITE_FORMULA vf value_of(const ELU& a, vf x) { return by_sign(x, x, mul(set(a.alpha), expm1(x))); }
NNLITE_FORMULA vf value_of(const LeakyReLU& a, vf x) { return by_sign(x, x, mul(set(a.negative_slope), x)); }
NNLITE_FORMULA vf value_of(const ReLU&, vf x) { return max(set(0.0f), x); }          // keeps not-a-number
NNLITE_FORMULA vf value_of(const Sigmoid&, vf x) { return sigmoid(x); }
NNLITE_FORMULA vf value_of(const Tanh&, vf x) { return tanh(x); }
NNLITE_FORMULA vf slope_times(const ELU& a, vf y, vf dy) {
  return by_sign(y, dy, mul(dy, add(y, set(a.alpha))));
}
NNLITE_FORMULA vf slope_times(const LeakyReLU& a, vf y, vf dy) {
  return by_sign(y, dy, mul(dy, set(a.negative_slope)));
}
NNLITE_FORMULA vf slope_times(const ReLU&, vf y, vf dy) { return by_sign(y, dy, set(0.0f)); }
NNLITE_FORMULA vf slope_times(const Sigmoid&, vf y, vf dy) { return mul(dy, mul(y, one_minus(y))); }
NNLITE_FORMULA vf slope_times(const Tanh&, vf y, vf dy) {
  return mul(dy, mul(one_minus(y), add(set(1.0f), y)));                  // no cancellation near 1
}

// Losses of an element, their derivatives by x and by the target t.
NNLITE_FORMULA vf negative(vf a) { return sub(set(0.0f), a); }
NNLITE_FORMULA vf clamped_log(vf x) { return max(set(-100.0f), log(x)); }                  // PyTorch's bound

NNLITE_FORMULA vf loss_of(const BCELoss&, vf x, vf t) {
  return negative(fma(t, clamped_log(x), mul(one_minus(t), clamped_log(one_minus(x)))));
}
NNLITE_FORMULA vf slope_by_x(const BCELoss&, vf x, vf t) {
  return div(sub(x, t), max(set(1e-12f), mul(x, one_minus(x))));                        // PyTorch's bound
}
NNLITE_FORMULA vf slope_by_t(const BCELoss&, vf x, vf) {
  return sub(clamped_log(one_minus(x)), clamped_log(x));
}

NNLITE_FORMULA vf loss_of(const BCEWithLogitsLoss&, vf x, vf t) {
  return add(fma(negative(x), t, max(set(0.0f), x)), log1p(exp(negative(abs(x)))));
}
NNLITE_FORMULA vf slope_by_x(const BCEWithLogitsLoss&, vf x, vf t) { return sub(sigmoid(x), t); }
NNLITE_FORMULA vf slope_by_t(const BCEWithLogitsLoss&, vf x, vf) { return negative(x); }

NNLITE_FORMULA vf loss_of(const HuberLoss& a, vf x, vf t) {
  const vf d = abs(sub(x, t));
  return select(less(d, set(a.delta)), mul(mul(d, d), set(0.5f)),
                mul(set(a.delta), sub(d, set(a.delta / 2))));
}
NNLITE_FORMULA vf slope_by_x(const HuberLoss& a, vf x, vf t) {
  return max(set(-a.delta), min(set(a.delta), sub(x, t)));
}

NNLITE_FORMULA vf loss_of(const L1Loss&, vf x, vf t) { return abs(sub(x, t)); }
NNLITE_FORMULA vf slope_by_x(const L1Loss&, vf x, vf t) {
  return select(less(t, x), set(1.0f), select(less(x, t), set(-1.0f), set(0.0f)));
}

NNLITE_FORMULA vf loss_of(const MSELoss&, vf x, vf t) { return mul(sub(x, t), sub(x, t)); }
NNLITE_FORMULA vf slope_by_x(const MSELoss&, vf x, vf t) { return mul(set(2.0f), sub(x, t)); }
template <class A>                              // of a difference
NNLITE_FORMULA vf slope_by_t(const A& a, vf x, vf t) { return negative(slope_by_x(a, x, t)); }

// Moments that small would become denormal and slow; they are nothing to any weight.
NNLITE_FORMULA vf moment(vf m) { return select(less(abs(m), set(0x1p-100f)), set(0.0f), m); }

NNLITE_FORMULA vf clipped(vf g, bool clip, vf bound) {                       // keeps not-a-number
  return clip ? max(sub(set(0.0f), bound), min(bound, g)) : g;
}

// Optimizers: what a weight w becomes by its gradient d, to which the decay was added. They change the states
// m and v, of which they have as many as their shape function says. This one is Adam and AdamW.
template <class A> struct Update {
  vf decay, step, root, shrink, eps, b1, rest1, b2, rest2;
  NNLITE_DEVICE Update(const A& a, const StepContext& c) : Update(a, adam_rates(a, c)) {}
  NNLITE_DEVICE Update(const A& a, const AdamRates& k)
      : decay(set(k.added)), step(set(-k.step)), root(set(k.root)), shrink(set(-k.shrink)), eps(set(a.eps)),
        b1(set(a.betas.first)), rest1(one_minus(b1)), b2(set(a.betas.second)), rest2(one_minus(b2)) {}
  NNLITE_DEVICE NNLITE_INLINED vf operator()(vf w, vf d, vf& m, vf& v) const {
    m = moment(fma(b1, m, mul(rest1, d)));
    v = moment(fma(b2, v, mul(mul(rest2, d), d)));
    return fma(step, div(m, add(div(sqrt(v), root), eps)), fma(shrink, w, w));
  }
};

// m is the sum of g^2 alone: the initial value is added on reading, so that the state starts as zeros.
template <> struct Update<Adagrad> {
  vf decay, lr, initial, eps;
  NNLITE_DEVICE Update(const Adagrad& a, const StepContext& c)
      : decay(set(a.weight_decay)), lr(set(-adagrad_rate(a, c))), initial(set(a.initial_accumulator_value)),
        eps(set(a.eps)) {}
  NNLITE_DEVICE NNLITE_INLINED vf operator()(vf w, vf d, vf& m, vf&) const {
    m = moment(fma(d, d, m));
    return fma(lr, div(d, add(sqrt(add(initial, m)), eps)), w);
  }
};

template <> struct Update<RMSprop> {
  vf decay, lr, alpha, rest, eps, momentum;
  bool buffered;
  NNLITE_DEVICE Update(const RMSprop& a, const StepContext& c)
      : decay(set(a.weight_decay)), lr(set(-c.lr)), alpha(set(a.alpha)), rest(sub(set(1.0f), alpha)),
        eps(set(a.eps)), momentum(set(a.momentum)), buffered(a.momentum > 0) {}
  NNLITE_DEVICE NNLITE_INLINED vf operator()(vf w, vf d, vf& m, vf& v) const {
    m = moment(fma(alpha, m, mul(mul(rest, d), d)));
    d = div(d, add(sqrt(m), eps));
    if (buffered) d = v = moment(fma(momentum, v, d));
    return fma(lr, d, w);
  }
};

template <> struct Update<SGD> {
  vf decay, lr, momentum, given;
  bool start, nesterov, buffered;
  NNLITE_DEVICE Update(const SGD& a, const StepContext& c)
      : decay(set(a.weight_decay)), lr(set(-c.lr)), momentum(set(a.momentum)),
        given(sub(set(1.0f), set(a.dampening))), start(c.update == 1), nesterov(a.nesterov),
        buffered(a.momentum > 0) {}
  NNLITE_DEVICE NNLITE_INLINED vf operator()(vf w, vf d, vf& m, vf&) const {
    if (buffered) m = moment(start ? d : fma(momentum, m, mul(given, d)));
    if (buffered) d = nesterov ? fma(momentum, m, d) : m;
    return fma(lr, d, w);
  }
};
}  // namespace NNLITE_ISA
}  // inline namespace
}  // namespace nnlite
#ifdef NNLITE_PLAIN
#undef NNLITE_PLAIN
#undef NNLITE_ISA
#endif
#endif

#ifdef NNLITE_PASS
namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
// ================================================================================ >>kernel_gemm
// The one microkernel behind linear layers and convolutions, in all directions:
//
//   C[m, j] = start[j] + sum over three nested loops of A[m, k] B[k, j]
//
// A is read one number at a time and so may have any strides; B is read in rows of a panel (16 columns); the
// values of C stay in registers. An element of C is one chain of fmas from its start, in the order of the
// loops: bits do not depend on tiles.
#ifdef NNLITE_ONCE
struct Loop {
  int64_t count = 1, a = 0, b = 0;             // steps in A and B, in floats
};
// What becomes of a finished element v of C, in this order.
struct Epilogue {
  const float *scale = nullptr, *shift = nullptr;      // by column: v scale + shift
  float        floor = -__builtin_inff();      // max(floor, v): 0 is ReLU
  const float *mask = nullptr, *base = nullptr;        // zero unless mask[i] > 0, where v becomes base[i]
  bool         add = false;                    // the value is added to what C holds
  void from(const Epilogue& e, int64_t column) {       // that column of e is the first
    *this = e;
    if (scale != nullptr) scale += column, shift += column;
  }
};
struct Product : Epilogue {
  Loop    outer, middle, inner;                // the chain
  int64_t lines = 1, a_line = 0, c_line = 0;   // the elements of C: lines of rows of columns
  int64_t rows  = 1, a_row = 0, c_row = 0;
  int64_t b_panel = 16, c_panel = 16;          // from one panel of columns to the next
  bool    followed = false;                    // a tile: what its last row writes behind itself is replaced
};

// Floats of a fused batch norm's coefficients in the scratch of a worker.
static inline int64_t norm_floats(const OpRun& r) {
  return (r.fused & fusion::norm) != 0 ? 2 * round_up(r.out_shape().last(), 16) : 0;
}
// max(floor, y) is y or, fused, its ReLU.
static inline float floor_of(const OpRun& r) {
  return (r.fused & fusion::relu) != 0 ? 0.0f : -__builtin_inff();
}
// Of grad_input.
static inline void set_gradient_epilogue(const OpRun& r, Epilogue& e) {
  e.add = r.accumulate(0);
  if ((r.fused & fusion::mask_dx) != 0) e.mask = r.in(0), e.base = r.dx(0);
}

// Tasks are numbered block * panels + panel: a run [first, last) is a few stretches of panels in one block.
struct Stretch { int64_t block, panel, count; };
static inline Stretch stretch_at(uint32_t task, uint32_t last, int64_t panels) {
  const int64_t block = task / panels, from = task % panels, left = int64_t(last) - task;
  return {block, from, from + left < panels ? left : panels - from};
}

// One instruction set's way to compute a product; `columns` of C exist.
using Multiply = void(const Product&, const float* A, const float* B, float* C, const float* start,
                      int64_t columns);
// Rows of n numbers, `step` apart, to rows of whole sixteens with zeros behind them.
using PadRows = void(const float* from, int64_t rows, int64_t step, int64_t n, float* to);
// Tiles of so many columns and at most so many rows.
struct Tiles {
  int64_t columns, rows;
  Multiply* (*of)(int64_t rows);
};
constexpr float zeros[128] = {};               // where a product starts without a bias
template <class A>
static inline const A& attributes_of(const OpRun& r) { return *static_cast<const A*>(r.attributes); }
// Scratch: a piece of so many floats for every worker, then the piece that they share.
static inline size_t scratch_bytes(int64_t floats) {
  return static_cast<size_t>(round_up(floats, 16)) * sizeof(float);
}
static inline float* worker_scratch(const OpRun& r, uint32_t worker, int64_t floats) {
  return reinterpret_cast<float*>(r.scratch + worker * scratch_bytes(floats));
}
static inline float* shared_scratch(const OpRun& r, int64_t floats_per_worker) {
  return worker_scratch(r, static_cast<uint32_t>(r.workers), floats_per_worker);
}
#endif

namespace NNLITE_ISA {
// Vectors across and most rows of a tile: what the registers hold. Narrow tiles are for the last columns,
// long ones for a single row.
#if NNLITE_PASS == NNLITE_PASS_AVX512
constexpr int wide = 2, wide_rows = 14, narrow = 1, narrow_rows = 14, depthwise_rows = 12;
#elif NNLITE_PASS == NNLITE_PASS_AVX2
constexpr int wide = 2, wide_rows = 6, narrow = 1, narrow_rows = NNLITE_SMALL ? 8 : 10, depthwise_rows = 10;
#elif NNLITE_PASS == NNLITE_PASS_NEON
constexpr int wide = 2, wide_rows = 8, narrow = 2, narrow_rows = 8, depthwise_rows = 12;
#elif NNLITE_PASS == NNLITE_PASS_BASE
constexpr int wide = 2, wide_rows = 4, narrow = 2, narrow_rows = 4, depthwise_rows = 6;
#else
constexpr int wide = 4, wide_rows = 2, narrow = 4, narrow_rows = 2, depthwise_rows = 1;
#endif

NNLITE_VERB vf inverse_deviation(vf var, float eps) { return div(set(1.0f), sqrt(add(var, set(eps)))); }
// Scale and shift of a batch norm: shift = bias - mean scale.
NNLITE_VERB void norm_line(vf weight, vf bias, vf mean, vf inverse, vf& scale, vf& shift) {
  scale = mul(weight, inverse);
  shift = fma(sub(set(0.0f), mean), scale, bias);
}
// The epilogue of forward; the coefficients of a fused norm are made in scratch.
static NNLITE_NOINLINE void set_epilogue(const OpRun& r, float* scratch, Epilogue& e) {
  e.floor = floor_of(r);
  if ((r.fused & fusion::norm) == 0) return;
  const int64_t C = round_up(r.out_shape().last(), 16);
  e.scale = scratch, e.shift = scratch + C;
  for (int64_t c = 0; c < C; c += lanes) {
    vf scale, shift;
    norm_line(r.norm.weight != nullptr ? load(r.norm.weight + c) : set(1.0f),
              r.norm.bias != nullptr ? load(r.norm.bias + c) : set(0.0f), load(r.norm.mean + c),
              inverse_deviation(load(r.norm.var + c), r.norm.eps), scale, shift);
    store(scratch + c, scale);
    store(scratch + C + c, shift);
  }
}
// M rows of n columns, in V vectors, through a norm and ReLU.
template <int M, int V>
NNLITE_VERB void activate(const Epilogue& e, vf (*c)[static_cast<size_t>(V)], int n, int64_t column = 0) {
  if (e.scale != nullptr)
    NNLITE_UNROLL for (int j = 0; j < V; j++, column += lanes) {
      const int w = within(n, j * lanes);
      const vf  s = load_part(e.scale + column, w), t = load_part(e.shift + column, w);
      NNLITE_UNROLL for (int i = 0; i < M; i++) c[i][j] = fma(c[i][j], s, t);
    }
  const vf floor = set(e.floor);
  NNLITE_UNROLL for (int i = 0; i < M; i++)
    NNLITE_UNROLL for (int j = 0; j < V; j++) c[i][j] = max(floor, c[i][j]);
}

// Rows of a finished tile into C, whole vectors. Branches are around all rows: little code.
template <int M, int V>
NNLITE_VERB void put_rows(const Product& t, vf (*c)[static_cast<size_t>(V)], float* C) {
  const int64_t row = t.c_row, step = t.c_panel;
  const auto at = [=](int i, int j) NNLITE_INLINED { return i * row + j / parts * step + j % parts * lanes; };
  if (t.mask != nullptr) {
    const float* const mask = t.mask + (C - t.base);
    NNLITE_UNROLL for (int i = 0; i < M; i++)
      NNLITE_UNROLL for (int j = 0; j < V; j++)
        c[i][j] = select(less(set(0.0f), load(mask + at(i, j))), c[i][j], set(0.0f));
  }
  if (t.add)
    NNLITE_UNROLL for (int i = 0; i < M; i++)
      NNLITE_UNROLL for (int j = 0; j < V; j++) c[i][j] = add(load(C + at(i, j)), c[i][j]);
  NNLITE_UNROLL for (int i = 0; i < M; i++)
    NNLITE_UNROLL for (int j = 0; j < V; j++) store(C + at(i, j), c[i][j]);
}
// A finished tile of which only n columns exist: one text for all sizes.
static NNLITE_NOINLINE void finish_tile(const Product& t, const float* from, int rows, int vectors, float* C,
                                        int n) {
  for (int j = 0; j < vectors; j++) {
    const int    w = within(n, j * lanes);
    float*       to = C + j / parts * t.c_panel + j % parts * lanes;
    const float* mask = t.mask == nullptr ? to : t.mask + (to - t.base);
    for (int i = 0; i < rows && w > 0; i++, to += t.c_row, mask += t.c_row) {
      vf v = load(from + (i * vectors + j) * lanes);
      if (t.mask != nullptr) v = select(less(set(0.0f), load_part(mask, w)), v, set(0.0f));
      store_part(to, t.add ? add(load_part(to, w), v) : v, w);
    }
  }
}

// Vector j of a tile lies in panel j / parts, at part j % parts of it. All of `start` is read. With L > 0 the
// rows are several lines of L each, whose rows of C follow each other.
template <int M, int V, int L = 0>
static void tile(const Product& t, const float* A, const float* B, float* C, const float* start,
                 int64_t columns) {
  constexpr size_t down = static_cast<size_t>(M), across = static_cast<size_t>(V);
  vf c[down][across];
  const int n = static_cast<int>(columns < V * lanes ? columns : V * lanes);
  NNLITE_UNROLL for (int j = 0; j < V; j++) {
    const vf from = load(start + j * lanes);
    NNLITE_UNROLL for (int i = 0; i < M; i++) c[i][j] = from;
  }
  // Some rows share a pointer: one for each is more than there are registers for.
  constexpr int    shared = L > 0 ? L : 4;
  constexpr size_t groups = (M + shared - 1) / shared;
  const int64_t    group = L > 0 ? t.a_line : 4 * t.a_row;
  for (int64_t p = 0; p < t.outer.count; p++, A += t.outer.a, B += t.outer.b) {
    const float *a1 = A, *b1 = B;
    for (int64_t q = 0; q < t.middle.count; q++, a1 += t.middle.a, b1 += t.middle.b) {
      const float* a[groups];
      const float* b = b1;
      NNLITE_UNROLL for (size_t g = 0; g < groups; g++) a[g] = a1 + static_cast<int64_t>(g) * group;
      for (int64_t k = 0; k < t.inner.count; k++, b += t.inner.b) {
        vf v[across];
        NNLITE_UNROLL for (int j = 0; j < V; j++) v[j] = load(b + j / parts * t.b_panel + j % parts * lanes);
        NNLITE_UNROLL for (int i = 0; i < M; i++) {
          const vf x = set(a[i / shared][i % shared * t.a_row]);
          NNLITE_UNROLL for (int j = 0; j < V; j++) c[i][j] = fma(x, v[j], c[i][j]);
        }
        NNLITE_UNROLL for (size_t g = 0; g < groups; g++) {
          a[g] += t.inner.a;
          NNLITE_PIN_POINTER(a[g]);
        }
      }
    }
  }
  activate<M, V>(t, c, n);
  // Where rows follow each other without a gap, the next one covers what a row writes behind its end.
  const bool apart = t.add || t.c_row != n || 2 * n < V * lanes;
  const int  whole = n == V * lanes || (t.followed && !apart) ? M : apart ? 0 : M - 1;
  if (whole > 0) {
    put_rows<M - 1, V>(t, c, C);
    if (whole == M) return put_rows<1, V>(t, c + (M - 1), C + (M - 1) * t.c_row);
  }
  float held[static_cast<size_t>(M * V * lanes)];
  NNLITE_UNROLL for (int i = 0; i < M; i++)
    NNLITE_UNROLL for (int j = 0; j < V; j++) store(held + (i * V + j) * lanes, c[i][j]);
  finish_tile(t, held + whole * V * lanes, M - whole, V, C + whole * t.c_row, n);
}

// Small code has tiles of `most` rows, half of them and so on; else of each height, above 10 of even ones.
constexpr int  lower(int rows) { return NNLITE_SMALL ? rows / 2 : rows > 10 ? rows - 2 : rows - 1; }
static int64_t fitting(int64_t most, int64_t rows) { return most > rows ? fitting(most / 2, rows) : most; }
template <int V, int M> static Multiply* tile_of(int64_t rows) {
  if constexpr (M == 1) return tile<1, V>;
  else return rows >= M ? tile<M, V> : tile_of<V, lower(M)>(rows);
}

// All rows, in tiles of nearly equal height.
static void stripe(Product& t, const float* A, const float* B, float* C, const float* start, int64_t columns,
                   const Tiles& by) {
  const int64_t tiles = (t.rows + by.rows - 1) / by.rows, unit = t.rows > 10 * tiles ? 2 : 1;
  const int64_t units = t.rows >> (unit - 1), height = units / tiles * unit, taller = units % tiles;
  Multiply *const high = by.of(height + unit), *const low = by.of(height);
  for (int64_t line = 0; line < t.lines; line++, A += t.a_line, C += t.c_line) {
    const float* a = A;
    float*       c = C;
    for (int64_t i = 0, done = 0, step; done < t.rows; i++, done += step) {
      const int64_t left = t.rows - done, next = smaller(i < taller ? height + unit : height, left);
      step = NNLITE_SMALL ? fitting(by.rows, left) : left == next + 1 ? (left + 1) / 2 : next;  // no odd rest
      t.followed = step < left;
      (step == height ? low : step == height + unit ? high : by.of(step))(t, a, B, c, start, columns);
      a += step * t.a_row;
      c += step * t.c_row;
    }
  }
}

// For `left` columns of C, of which B holds `held`. After few steps C takes the time: whole rows are best.
static inline Tiles tiles_for(int64_t rows, int64_t left, int64_t held, [[maybe_unused]] bool few) {
  constexpr Tiles large = {wide * lanes, wide_rows, tile_of<wide, wide_rows>};
  constexpr Tiles small = {narrow * lanes, narrow_rows, tile_of<narrow, narrow_rows>};
  if (8 * lanes > 16 && rows == 1 && held >= 8 * lanes) return {8 * lanes, 1, tile_of<8, 1>};
#if NNLITE_PASS == NNLITE_PASS_AVX512
  constexpr Tiles half = {8, isa_avx2::narrow_rows, isa_avx2::tile_of<1, isa_avx2::narrow_rows>};
  if (few && held >= 96 && left > 80) return {6 * lanes, 4, tile_of<6, 4>};
  if (few && held >= 64 && left > 48) return {4 * lanes, 6, tile_of<4, 6>};
  if (left <= 16) return left <= 8 ? half : small;
#endif
  return left > small.columns && held >= large.columns ? large : small;
}

// The product: columns from the start of a panel of B and C on.
static void multiply(const Product& t, const float* A, const float* B, float* C, const float* start,
                     int64_t columns) {
  const bool few = t.outer.count * t.middle.count * t.inner.count <= 64;
  for (int64_t j = 0; j < columns && t.rows > 0;) {
    const int64_t left = columns - j;
    const Tiles   tiles = tiles_for(t.rows, left, round_up(columns, 16) - j, few);  // B holds whole panels
    float         last[8 * lanes];
    const float*  s = start == nullptr ? zeros : start + j;
    if (start != nullptr && left < tiles.columns) {
      for (int64_t i = 0; i < tiles.columns; i++) last[i] = i < left ? s[i] : 0;
      s = last;
    }
    Product p = t;
    p.from(t, j);
    stripe(p, A, B + j / 16 * t.b_panel + j % 16, C + j / 16 * t.c_panel + j % 16, s, left, tiles);
    j += tiles.columns;
  }
}

// The product where rows of A follow each other and columns are few, which would leave vectors half empty:
// they run along the rows instead, 32 at a time. Their sums [2][8][16] are turned over.
template <int O>
static void narrow_tile(const Product& t, const int64_t* places, int64_t taps, const float* A, const float* B,
                        const float* start, float* sums, int64_t rows) {
  constexpr int V = O <= 6 || lanes == 16 ? 2 : 1;
  for (int64_t i = 0; i < rows; i += V * lanes, A += V * lanes) {
    vf c[static_cast<size_t>(O)][static_cast<size_t>(V)], a[static_cast<size_t>(V)];
    NNLITE_UNROLL for (int o = 0; o < O; o++)
      NNLITE_UNROLL for (int j = 0; j < V; j++) c[o][j] = set(start[o]);
    const float* b = B;
    for (int64_t k = 0; k < taps; k++, b += 16) {
      NNLITE_UNROLL for (int j = 0; j < V; j++) a[j] = load(A + places[k] + j * lanes);
      NNLITE_UNROLL for (int o = 0; o < O; o++)
        NNLITE_UNROLL for (int j = 0; j < V; j++) c[o][j] = fma(a[j], set(b[o]), c[o][j]);
    }
    const vf floor = set(t.floor);
    NNLITE_UNROLL for (int o = 0; o < O; o++)
      NNLITE_UNROLL for (int j = 0; j < V; j++) {
        const int64_t at = i + j * lanes;
        if (t.scale != nullptr) c[o][j] = fma(c[o][j], set(t.scale[o]), set(t.shift[o]));
        store(sums + at / 16 * 128 + o * 16 + at % 16, max(floor, c[o][j]));
      }
  }
}
static void multiply_narrow(const Product& t, const float* A, const float* B, float* C, const float* start,
                            int64_t columns) {
  int64_t places[narrow_taps], taps = 0;
  for (int64_t p = 0; p < t.outer.count; p++)
    for (int64_t q = 0; q < t.middle.count; q++)
      for (int64_t k = 0; k < t.inner.count; k++)
        places[taps++] = p * t.outer.a + q * t.middle.a + k * t.inner.a;
  float sums[256], held[64];
  for (int64_t line = 0; line < t.lines; line++, A += t.a_line, C += t.c_line)
    for (int64_t at = 0; at < t.rows; at += 32) {
      const int64_t rows = smaller(t.rows - at, 32);
      (columns > 6 ? narrow_tile<8> : narrow_tile<6>)(t, places, taps, A + at, B,
                                                      start == nullptr ? zeros : start, sums, rows);
      for (int64_t i = 0; i < rows; i += 4) {
        const bool    inside = i + 8 <= rows;  // later rows cover what is written behind these
        const int64_t step = inside ? columns : 16;
        float* const  c = C + (at + i) * columns;
        for (int64_t o = (columns - 1) / 4 * 4; o >= 0; o -= 4)
          transpose_4x4(sums + i / 16 * 128 + o * 16 + i % 16, (inside ? c : held) + o, step);
        for (int64_t r = 0; !inside && r < smaller(4, rows - i); r++)
          for (int64_t o = 0; o < columns; o++) c[r * columns + o] = held[r * 16 + o];
      }
    }
}

static void pad_rows(const float* from, int64_t rows, int64_t step, int64_t n, float* to) {
  for (int64_t r = 0; r < rows; r++, from += step)
    for (int64_t j = 0; j < round_up(n, 16); j += lanes, to += lanes)
      store(to, load_part(from + j, within(static_cast<int>(n), static_cast<int>(j))));
}

// The tile of two lines of so many rows and 8 columns, where it helps: few rows alone wait for each other.
static Multiply* pair_of(int64_t rows) {
#if NNLITE_PASS == NNLITE_PASS_AVX512
  return isa_avx2::pair_of(rows);
#elif NNLITE_PASS == NNLITE_PASS_AVX2 || NNLITE_PASS == NNLITE_PASS_NEON
  return rows == 3   ? tile<6, narrow, 3>
         : rows == 4 ? tile<8, narrow, 4>
         : rows == 5 ? tile<10, narrow, 5>
         : rows == 6 ? tile<12, narrow, 6>
                     : nullptr;
#else
  return rows > 0 ? nullptr : tile<1, narrow>;
#endif
}

// to[c][r] = from[r][c] of two panels' blocks of 16 x 16. `from` has rows x columns; more rows are zeros.
static void transpose_block(const float* from, int64_t rows, int64_t columns, float* to) {
  if (rows >= 16 && columns >= 16) {
#if NNLITE_PASS == NNLITE_PASS_AVX512                   // four times rows i and i + 8 become 2 i and 2 i + 1
    const __m512i low  = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    vf row[5][16];
    NNLITE_UNROLL for (int i = 0; i < 16; i++) row[0][i] = load(from + i * 16);
    NNLITE_UNROLL for (int k = 0; k < 4; k++)
      NNLITE_UNROLL for (int i = 0; i < 16; i++)
        row[k + 1][i] = {_mm512_permutex2var_ps(row[k][i / 2].v, i % 2 ? high : low, row[k][i / 2 + 8].v)};
    NNLITE_UNROLL for (int i = 0; i < 16; i++) store(to + i * 16, row[4][i]);
#else
    for (int r = 0; r < 16; r += 4)
      for (int c = 0; c < 16; c += 4) transpose_4x4(from + r * 16 + c, to + c * 16 + r);
#endif
    return;
  }
  for (int64_t c = 0; c < columns && c < 16; c++)
    for (int64_t r = 0; r < 16; r++) to[c * 16 + r] = r < rows ? from[r * 16 + c] : 0.0f;
}

// Panels of X columns [X/16][taps][Y][16] into one panel of Y columns, [taps][X][16], from row y on.
static void transpose_panel(const float* from, int64_t X, int64_t taps, int64_t Y, int64_t y, float* to) {
  for (int64_t x = 0; x < X; x += 16)
    for (int64_t tap = 0; tap < taps; tap++)
      transpose_block(from + ((x / 16 * taps + tap) * Y + y) * 16, Y - y, X - x, to + (tap * X + x) * 16);
}

// to[0..16) = sums over rows of n <= 16 numbers, one chain each; added to what is there if asked.
static void sum_rows(const float* from, int64_t rows, int64_t step, int n, float* to, bool more) {
  vf s[parts];
  NNLITE_UNROLL for (int j = 0; j < parts; j++) s[j] = set(0.0f);
  if (n >= 16) {
    for (int64_t r = 0; r < rows; r++, from += step)
      NNLITE_UNROLL for (int j = 0; j < parts; j++) s[j] = add(s[j], load(from + j * lanes));
  } else {
    for (int64_t r = 0; r < rows; r++, from += step)
      NNLITE_UNROLL for (int j = 0; j < parts; j++) s[j] =
          add(s[j], load_part(from + j * lanes, within(n, j * lanes)));
  }
  NNLITE_UNROLL for (int j = 0; j < parts; j++)
      store(to + j * lanes, more ? add(load(to + j * lanes), s[j]) : s[j]);
}
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_linear
// forward          y[n, o]  = b[o] + sum_i x[n, i] w[i, o]     weights are panels already: [O/16][I][16]
// grad_input       dx[n, i] = sum_o dy[n, o] w[i, o]           two panels at a time, turned over in scratch
// grad_parameter   dw[i, o] = sum_n x[n, i] dy[n, o], db[o] = sum_n dy[n, o]
#ifdef NNLITE_ONCE
struct LinearSizes { int64_t N, I, O, panels; };
static NNLITE_NOINLINE LinearSizes linear_sizes(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  return {r.in_numel(0) / a.in_features, a.in_features, a.out_features, round_up(a.out_features, 16) / 16};
}
constexpr int64_t linear_rows = 64;            // of the batch, in one task of forward
constexpr int64_t linear_inputs = 56;          // in one product of grad_parameter
static inline int64_t linear_blocks(const LinearSizes& s) { return (s.I - 1) / linear_inputs + 1; }
// A piece of dw from which weights are updated, of two panels; then the last panel of dy, padded.
static inline int64_t piece_panel(const LinearSizes& s) { return smaller(s.I, linear_inputs) * 16; }
static inline int64_t linear_scratch(const LinearSizes& s, bool updates) {
  return (updates ? smaller(s.panels, 2) * piece_panel(s) : 0) + (s.O % 16 != 0 ? s.N * 16 : 0);
}
// Then a worker has the panels that it had in forward of a small batch, whose weights are in its cache.
static inline bool updates_whole_panels(const OpRun& r, const LinearSizes& s) {
  return (r.fused & fusion::update) != 0 && s.panels >= r.workers;
}
static bool linear_forward_plan(const OpRun& r, KernelPlan& p) {
  const LinearSizes s = linear_sizes(r);
  p.tasks[0] = static_cast<uint32_t>((s.N + linear_rows - 1) / linear_rows * s.panels);
  return true;
}
static inline bool linear_grad_input_plan(const OpRun& r, KernelPlan& p) {
  const LinearSizes s = linear_sizes(r);
  p.tasks[0] = static_cast<uint32_t>((s.I + 31) / 32);
  p.scratch_per_worker = scratch_bytes(s.O * 32);
  return true;
}
static inline bool linear_grad_parameter_plan(const OpRun& r, KernelPlan& p) {
  const LinearSizes s = linear_sizes(r);
  p.tasks[0] = static_cast<uint32_t>((updates_whole_panels(r, s) ? 1 : linear_blocks(s)) * s.panels);
  p.scratch_per_worker = scratch_bytes(linear_scratch(s, (r.fused & fusion::update) != 0));
  return true;
}
#endif

namespace NNLITE_ISA {
NNLITE_RUN(linear_forward) {
  const LinearSizes s = linear_sizes(r);
  const float* b = r.parameter(1);
  for (uint32_t task = first; task < last;) {
    const Stretch at = stretch_at(task, last, s.panels);
    const int64_t n = at.block * linear_rows, o = at.panel * 16;
    if (n >= s.N) return;                                            // a batch with fewer rows than planned
    Product p;
    p.floor   = floor_of(r);
    p.inner   = {s.I, 1, 16};
    p.rows    = s.N - n < linear_rows ? s.N - n : linear_rows;
    p.a_row = s.I, p.c_row = s.O;
    p.b_panel = s.I * 16;
    const int64_t columns = o + at.count * 16 < s.O ? at.count * 16 : s.O - o;
    multiply(p, r.in(0) + n * s.I, r.parameter(0) + o * s.I, r.out() + n * s.O + o, b == nullptr ? b : b + o,
             columns);
    task += static_cast<uint32_t>(at.count);
  }
}
NNLITE_RUN(linear_grad_input) {
  const LinearSizes s = linear_sizes(r);
  float* turned = worker_scratch(r, worker, s.O * 32);
  for (uint32_t task = first; task < last; task++) {
    const int64_t i = int64_t(task) * 32;
    for (int64_t half = 0; half < 32 && i + half < s.I; half += 16)
      transpose_panel(r.parameter(0), s.O, 1, s.I, i + half, turned + half * s.O);
    Product p;
    p.inner   = {s.O, 1, 16};
    p.rows = s.N, p.a_row = s.O, p.c_row = s.I;
    p.b_panel = s.O * 16;
    set_gradient_epilogue(r, p);
    multiply(p, r.dy(), turned, r.dx(0) + i, nullptr, s.I - i < 32 ? s.I - i : 32);
  }
}

// Updates n weights from `at` on by a piece of their gradient. u is a copy of r.update.
NNLITE_VERB void update_piece(const OpRun& r, OpRun& u, float* gradient, int64_t at, int64_t n) {
  const OpRun& all = *r.update;
  const Shape  flat = flat_shape(n);
  u.in_shapes[0] = u.out_shape_ = &flat;
  u.dparameter_[0] = gradient;
  u.parameter_[0] = all.parameter(0) + at;
  for (int k = 0; k < max_slots && u.slot(k) != nullptr; k++) u.slot_[k] = all.slot(k) + at;
  r.update_kernel->run[NNLITE_PASS](u, 0, 0, 1, 0);
}

// c[k, o] = x[k] dy[o]: a panel of dw of a batch of one row.
static void outer_product(const float* x, const float* dy, int64_t n, float* c) {
  vf d[parts];
  NNLITE_UNROLL for (int j = 0; j < parts; j++) d[j] = load(dy + j * lanes);
  for (int64_t k = 0; k < n; k++)
    NNLITE_UNROLL for (int j = 0; j < parts; j++)
        store(c + k * 16 + j * lanes, fma(set(x[k]), d[j], set(0.0f)));
}
NNLITE_RUN(linear_grad_parameter) {
  const LinearSizes s = linear_sizes(r);
  const int64_t whole = s.O / 16, blocks = linear_blocks(s);         // whole: panels without a tail
  const bool    updates = r.update != nullptr, by_panel = updates_whole_panels(r, s);
  float *const  dw = r.dparameter(0), *const db = r.dparameter(1);
  float* const  piece = worker_scratch(r, worker, linear_scratch(s, updates));
  float* const  tail = piece + (updates ? smaller(s.panels, 2) * piece_panel(s) : 0);
  OpRun         u = updates ? *r.update : OpRun();
  bool          padded = whole == s.panels;
  int64_t       block = 0;
  for (uint32_t task = first; task < last;) {
    Stretch at = by_panel ? Stretch{block, task, last - task} : stretch_at(task, last, s.panels);
    if (updates) at.count = smaller(at.count, 2);
    block = by_panel && block + 1 < blocks ? block + 1 : 0;
    if (block == 0) task += static_cast<uint32_t>(at.count);
    if (!padded && at.panel + at.count > whole) {
      pad_rows(r.dy() + whole * 16, s.N, s.O, s.O - whole * 16, tail);
      padded = true;
    }
    const int64_t i = at.block * linear_inputs;
    for (int64_t panel = at.panel, end = at.panel + at.count; panel < end;) {
      const bool    last_one = panel >= whole;
      const int64_t count = last_one ? 1 : smaller(end, whole) - panel;
      const float*  dy = last_one ? tail : r.dy() + panel * 16;
      float* const  to = updates ? piece : dw == nullptr ? dw : dw + (panel * s.I + i) * 16;
      Product p;
      p.inner = {s.N, s.I, last_one ? 16 : s.O};
      p.rows = smaller(s.I - i, linear_inputs), p.a_row = 1, p.c_row = 16;
      p.c_panel = updates ? piece_panel(s) : s.I * 16;
      if (to != nullptr && !(updates && s.N == 1)) multiply(p, r.in(0) + i, dy, to, nullptr, count * 16);
      for (int64_t j = 0; j < count && updates; j++) {
        if (s.N == 1) outer_product(r.in(0) + i, dy + j * 16, p.rows, piece + j * p.c_panel);
        update_piece(r, u, piece + j * p.c_panel, ((panel + j) * s.I + i) * 16, p.rows * 16);
      }
      for (int64_t j = 0; j < count && i == 0 && db != nullptr; j++)
        sum_rows(dy + j * 16, s.N, p.inner.b, 16, db + (panel + j) * 16, false);
      panel += count;
    }
  }
}
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_conv
// down, up and grad of both convolutions (see Conv). The other op's forward is the gradient for the input
// over weights turned over in scratch. Each works on bands of rows: the patch of the image that a band reads
// is copied into scratch with zeros around it, or read in place where it needs none. Weights are panels
// [group][columns/16][kH][kW][rows][16]; the columns are the channels of the forward output.
#ifdef NNLITE_ONCE
static inline int64_t panels_of(int64_t channels) { return (channels + 15) / 16; }
static inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
// From `first`, `count` places of one side of an image; some may lie outside it.
struct Span {
  int64_t first, count;
  bool inside(int64_t size) const { return first >= 0 && first + count <= size; }
  Span within(int64_t size) const {
    const int64_t from = first > 0 ? first : 0, end = smaller(first + count, size);
    return {from, end > from ? end - from : 0};
  }
};
// what outputs o .. o + count read of big
static inline Span down_span(const Axis& a, int64_t o, int64_t count) {
  return {o * a.stride - a.padding, (count - 1) * a.stride + a.extent()};
}
// what i .. i + count of big read of small
static inline Span up_span(const Axis& a, int64_t i, int64_t count) {
  const int64_t from = -floor_div(a.extent() - 1 - i - a.padding, a.stride);
  const int64_t places = floor_div(i + count - 1 + a.padding, a.stride) - from + 1;
  return {from, places < 1 ? 1 : places};                            // none: a zero that nobody reads
}

// The places k where stride divides phase + padding - k dilation (shift times for the first): first,
// first + step, ...
struct Places { int64_t first, step, count, shift; };
static inline Places places_of(const Axis& a, int64_t phase) {
  Places p = {0, 1, 0, 0};
  for (int64_t k = 0; k < a.kernel; k++) {
    if ((phase + a.padding - k * a.dilation) % a.stride != 0) continue;
    if (p.count == 0) p.first = k;
    if (p.count == 1) p.step = k - p.first;
    p.count++;
  }
  p.shift = (phase + a.padding - p.first * a.dilation) / a.stride;
  return p;
}

// Bands: so many rows that a patch stays near 256 KB and, where there are enough, every worker finds some.
constexpr int64_t patch_floats = 65536;
struct Area {                                  // of one image: rows and columns from y and x on
  int64_t image, y, x, rows, columns;
};
struct Bands {
  int64_t rows, count;                         // of one image
  int64_t patch;                               // floats of the largest
  bool    in_place;                            // no zeros beside the image are read

  int64_t scratch() const { return in_place ? 0 : patch; }
  Area    at(int64_t task, int64_t H, int64_t W) const {
    const int64_t y = task % count * rows;
    return {task / count, y, 0, smaller(H - y, rows), W};
  }
};
static inline int64_t band_rows(int64_t rows, int64_t fit, int64_t workers) {
  const int64_t wish = smaller(fit, (rows + workers - 1) / workers);
  return smaller(wish < 4 ? 4 : wish, rows);
}
static NNLITE_NOINLINE Bands down_bands(const Conv& c) {
  const int64_t line = down_span(c.w, 0, c.w.out).count * c.big_pitch();
  const int64_t rows = band_rows(c.h.out, (patch_floats / line - c.h.extent()) / c.h.stride + 1, c.workers);
  return {rows, (c.h.out + rows - 1) / rows, down_span(c.h, 0, rows).count * line + (c.is_narrow() ? 32 : 0),
          c.w.padding == 0 && !c.is_narrow()};
}
static NNLITE_NOINLINE Bands up_bands(const Conv& c) {
  const Span    across = up_span(c.w, 0, c.w.in);
  // rows of small: (rows + reach) / stride + 2
  const int64_t line = across.count * c.small_pitch(), reach = c.h.extent() - 2;
  const int64_t rows = band_rows(c.h.in, (patch_floats / line - 2) * c.h.stride - reach, c.workers);
  const bool    in_place = across.inside(c.w.out);
  return {rows, (c.h.in + rows - 1) / rows, ((rows + reach) / c.h.stride + 2) * line, in_place};
}

// Chunks of the gradients of weights and bias: whole rows of the small image, at most 512 pixels, a wider row
// in pieces of 512. One chain each, summed in order of image and chunk: bits depend on it.
constexpr int64_t chunk_pixels = 512;
struct Chunks {
  int64_t H, W, rows, columns, down, across;   // of the image; of a chunk; chunks of an image
  Chunks(int64_t height, int64_t width)
      : H(height), W(width), rows(width > chunk_pixels ? 1 : smaller(chunk_pixels / width, height)),
        columns(smaller(width, chunk_pixels)), down((height + rows - 1) / rows),
        across((width + columns - 1) / columns) {}
  int64_t count(int64_t images) const { return images * down * across; }
};
static inline Area chunk_area(const Chunks& k, int64_t chunk) {
  const int64_t y = chunk / k.across % k.down * k.rows, x = chunk % k.across * k.columns;
  return {chunk / (k.down * k.across), y, x, smaller(k.H - y, k.rows), smaller(k.W - x, k.columns)};
}

// Tasks of grad: (group, unit, block of rows) x panel. A unit is a tap; or, where pixels of big follow each
// other without a gap, a row of taps, whose places are rows of one product; or two, where that gives few.
struct GradTasks {
  int64_t columns, panels, panel_size, units, lines, rows, blocks;
  bool    joined;
};
constexpr int64_t grad_rows = 28;
static NNLITE_NOINLINE GradTasks grad_tasks(const Conv& c, bool columns_are_small) {
  const int64_t columns = columns_are_small ? c.small : c.big, rows = columns_are_small ? c.big : c.small;
  GradTasks g = {columns, panels_of(columns), c.taps() * rows * 16, c.taps(), 1, rows, 0, false};
  g.joined = columns_are_small && c.groups == 1 && c.w.dilation == 1;
  if (g.joined) {
    g.rows  = c.w.kernel * rows;
    g.lines = columns <= 8 && g.rows <= 6 ? 2 : 1;
    g.units = (c.h.kernel + g.lines - 1) / g.lines;
  }
  g.blocks = (g.rows + grad_rows - 1) / grad_rows;
  return g;
}
// What a task gives: lines of rows of a tap or row of taps, which lie at `to` in the first of its panels.
struct GradPart { int64_t group, kh, kw, from, lines, rows, to; };
static NNLITE_NOINLINE GradPart grad_part(const Conv& c, const GradTasks& g, const Stretch& at) {
  const int64_t block = at.block % g.blocks, unit = at.block / g.blocks % g.units;
  const int64_t height = g.rows / g.blocks, taller = g.rows % g.blocks, line = unit * g.lines;
  const int64_t group = at.block / g.blocks / g.units, from = block * height + smaller(block, taller);
  return {group, g.joined ? line : unit / c.w.kernel, g.joined ? 0 : unit % c.w.kernel, from,
          g.joined ? smaller(g.lines, c.h.kernel - line) : 1, block < taller ? height + 1 : height,
          (group * g.panels + at.panel) * g.panel_size + (line * g.rows + from) * 16};
}

// Scratch for the patches of a worker: big is copied where zeros are around it. Tiles read whole sixteens of
// columns; where such would end behind their tensor, columns are copied, too.
struct GradPatches {
  int64_t big, small;
  size_t  bytes() const { return scratch_bytes(big) + scratch_bytes(small); }
  float*  scratch(const OpRun& r, uint32_t worker) const {
    return worker_scratch(r, worker, round_up(big, 16) + round_up(small, 16));
  }
};
static NNLITE_NOINLINE GradPatches grad_patches(const Conv& c, bool columns_are_small) {
  const Chunks  k(c.h.out, c.w.out);
  const int64_t pixels = down_span(c.h, 0, k.rows).count * down_span(c.w, 0, k.columns).count;
  const bool    padded = c.h.padding != 0 || c.w.padding != 0;
  if (columns_are_small)
    return {padded ? pixels * c.big_pitch() : 0,
            c.small % 16 == 0 ? 0 : k.rows * k.columns * c.small_pitch() + 16};
  return {padded || c.big % 16 != 0 ? pixels * c.big_pitch() + 16 : 0, 0};
}

// A patch of an image: where it begins and how far its rows and pixels are apart.
struct Patch {
  const float* data;
  int64_t      line, pixel;
};

// Outputs that read the same places.
struct Segment {
  int64_t first, count, place, places;
  int64_t end() const { return first + count; }
};
// One side of a sum: output t of `count`, place to + t hop of its image, reads start + t step + q pace of the
// `size` inputs there, for each q of `places` where that is inside; place first + q next of the kernel.
struct Walk {
  int64_t count, to, hop, start, step, pace, size, places, first, next;
  int64_t input(const Segment& s) const { return start + s.first * step + s.place * pace; }
};
// Up goes in phases: outputs i, i + stride, ...
static NNLITE_NOINLINE Walk walk_of(const Axis& a, bool down, Span there, int64_t i, int64_t end) {
  if (down) {
    return {end - i, i, 1, i * a.stride - a.padding - there.first, a.stride, a.dilation, there.count,
            a.kernel, 0, 1};
  }
  const Places p = places_of(a, i % a.stride);
  return {(end - i + a.stride - 1) / a.stride, i, a.stride, i / a.stride + p.shift - there.first, 1,
          -(p.step * a.dilation / a.stride), there.count, p.count, p.first, p.step};
}
static NNLITE_NOINLINE Segment segment_at(const Walk& w, int64_t t) {
  Segment s = {t, 0, 0, 0};
  for (; t < w.count; t++, s.count++) {
    int64_t place = 0, places = 0;
    for (int64_t q = w.places - 1; q >= 0; q--) {
      const int64_t i = w.start + t * w.step + q * w.pace;
      if (i >= 0 && i < w.size) place = q, places++;
    }
    if (s.count > 0 && (place != s.place || places != s.places)) break;
    s.place = place, s.places = places;
  }
  return s;
}

// The products of one area of the outputs, one after another: what lies outside the image is left out. `from`
// holds rows and columns of the input; weights have `tap` floats for each place; outputs are `pitch` apart.
// Product p begins at a, b and c.
struct Sum {
  const Conv& conv;
  const bool  down;
  const Area  to;
  const Patch from;
  const Span  rows, columns;
  const int64_t tap, pitch;
  Product p = {};
  int64_t a = 0, b = 0, c = 0, phase = 0;
  Walk    h = {}, w = {};
  Segment y = {}, x = {};

  bool next_phase() {
    const int64_t high = down ? 1 : smaller(conv.h.stride, to.rows);
    const int64_t wide = down ? 1 : smaller(conv.w.stride, to.columns);
    if (phase == high * wide) return false;
    h = walk_of(conv.h, down, rows, to.y + phase / wide, to.y + to.rows);
    w = walk_of(conv.w, down, columns, phase % wide, to.columns);
    x = {};
    phase++;
    return true;
  }
  void turn() {                                // rows for lines
    const Product q = p;
    p.lines = q.rows, p.a_line = q.a_row, p.c_line = q.c_row;
    p.rows = q.lines, p.a_row = q.a_line, p.c_row = q.c_line;
  }
  void backward() {                            // rows from the last to the first
    a += (p.rows - 1) * p.a_row, p.a_row = -p.a_row;
    c += (p.rows - 1) * p.c_row, p.c_row = -p.c_row;
  }
  NNLITE_NOINLINE bool next() {
    if (y.end() == h.count) {
      if (x.end() == w.count && !next_phase()) return false;
      x = segment_at(w, x.end());
      y = {};
    }
    y = segment_at(h, y.end());
    const int64_t across = conv.w.kernel, line = to.columns * pitch;
    const bool    some = x.places > 0 && y.places > 0;
    p.outer  = {some ? y.places : 0, h.pace * from.line, h.next * across * tap};
    p.middle = {x.places, w.pace * from.pixel, w.next * tap};
    p.lines = y.count, p.a_line = h.step * from.line, p.c_line = h.hop * line;
    p.rows  = x.count, p.a_row = w.step * from.pixel, p.c_row = w.hop * pitch;
    a = some ? h.input(y) * from.line + w.input(x) * from.pixel : 0;
    b = ((h.first + y.place * h.next) * across + w.first + x.place * w.next) * tap;
    c = (h.to + y.first * h.hop) * line + (w.to + x.first * w.hop) * pitch;
    if (p.a_line == p.rows * p.a_row && p.c_line == p.rows * p.c_row) p.rows *= p.lines, p.lines = 1;
    return true;
  }
};

// Rows and columns of an image of H x W pixels copied to scratch, zeros where they lie outside. The `each`
// channels of a group are padded, unless `pad` is nullptr.
static NNLITE_NOINLINE Patch copy_patch(const float* image, int64_t H, int64_t W, Span rows, Span columns,
                                        int64_t groups, int64_t each, PadRows* pad, float* to) {
  const bool    padded = pad != nullptr && each % 16 != 0;
  const int64_t pixel = groups * (padded ? round_up(each, 16) : each), line = columns.count * pixel;
  const int64_t left = columns.first < 0 ? smaller(-columns.first, columns.count) : 0;
  const int64_t end = smaller(W - columns.first, columns.count), right = end < left ? left : end;
  for (int64_t y = 0; y < rows.count; y++) {
    float* const  t = to + y * line;
    const int64_t row = rows.first + y, count = row < 0 || row >= H ? 0 : right - left;
    const float*  from = image + (row * W + columns.first + left) * groups * each;
    const size_t  before = static_cast<size_t>(left * pixel), inside = static_cast<size_t>(count * pixel);
    __builtin_memset(t, 0, before * sizeof(float));
    if (padded) pad(from, count * groups, each, each, t + before);
    else __builtin_memcpy(t + before, from, inside * sizeof(float));
    __builtin_memset(t + before + inside, 0, (static_cast<size_t>(line) - before - inside) * sizeof(float));
  }
  return {to, line, pixel};
}
static inline Patch patch_in_place(const float* image, int64_t W, Span rows, Span columns, int64_t channels) {
  return {image + (rows.first * W + columns.first) * channels, W * channels, channels};
}

// What the gradient of a chunk reads of big or small; it is the columns, or else the rows of the product.
static NNLITE_NOINLINE Patch grad_patch(const Conv& c, bool of_big, const float* images, const Area& o,
                                        bool is_columns, float* to) {
  const Conv::Side s = c.side(of_big);
  const int64_t    C = c.groups * s.channels;
  const Span       rows = of_big ? down_span(c.h, o.y, o.rows) : Span{o.y, o.rows};
  const Span       columns = of_big ? down_span(c.w, o.x, o.columns) : Span{o.x, o.columns};
  const float*     image = images + o.image * s.H * s.W * C;
  const int64_t    behind = (c.images - o.image) * s.H * s.W -
                         ((rows.first + rows.count - 1) * s.W + columns.first + columns.count);
  const bool       padded = of_big && (c.h.padding != 0 || c.w.padding != 0);
  if (padded || (is_columns && s.channels % 16 != 0 && behind * C < 16))
    return copy_patch(image, s.H, s.W, rows, columns, 1, C, nullptr, to);
  return patch_in_place(image, s.W, rows, columns, C);
}

// to = start + from * w for bands [first, last), down or up; w has columns of the channels of `to`.
static NNLITE_NOINLINE void conv_sum(const Conv& c, bool down, const float* from, const float* w,
                                     const float* start, float* to, const Epilogue& e, float* scratch,
                                     uint32_t first, uint32_t last, Multiply* multiply) {
  const Bands      b = down ? down_bands(c) : up_bands(c);
  const Conv::Side in = c.side(down), out = c.side(!down);
  const int64_t    F = c.groups * in.channels, T = c.groups * out.channels;
  for (int64_t task = first; task < last && task / b.count < c.images; task++) {
    const Area   area = b.at(task, out.H, out.W);
    const float* image = from + area.image * in.H * in.W * F;
    const auto   span = down ? down_span : up_span;
    const Span   rows = b.in_place ? Span{0, in.H} : span(c.h, area.y, area.rows).within(in.H);
    const Span   columns = b.in_place ? Span{0, in.W} : span(c.w, 0, out.W);
    const Patch  patch = b.in_place ? patch_in_place(image, in.W, rows, columns, F)
                                    : copy_patch(image, in.H, in.W, rows, columns, 1, F, nullptr, scratch);
    Sum s = {c, down, area, patch, rows, columns, in.channels * 16, T};
    s.p.b_panel = c.taps() * s.tap;
    while (s.next()) {
      if (s.p.rows < s.p.lines && !c.is_narrow()) s.turn();
      s.p.inner = {in.channels, 1, 16};
      if (s.p.middle.a == in.channels) s.p.inner.count *= s.p.middle.count, s.p.middle.count = 1;
      for (int64_t g = 0; g < c.groups; g++) {
        s.p.from(e, g * out.channels);
        multiply(s.p, patch.data + s.a + g * in.channels, w + s.b + g * panels_of(out.channels) * s.p.b_panel,
                 to + area.image * out.H * out.W * T + s.c + g * out.channels,
                 start == nullptr ? start : start + g * out.channels, out.channels);
      }
    }
  }
}

// Turning takes a stage of its own: a task is a panel of columns.
static bool conv_plan(const Conv& c, bool down, bool turned, int64_t more, KernelPlan& p) {
  const Bands   b = down ? down_bands(c) : up_bands(c);
  const int64_t panels = c.groups * panels_of(down ? c.small : c.big), rows = down ? c.big : c.small;
  p.stages = turned ? 2 : 1;
  p.tasks[0] = static_cast<uint32_t>(panels);
  p.tasks[p.stages - 1] = static_cast<uint32_t>(c.images * b.count);
  p.scratch_per_worker = scratch_bytes(b.scratch() + more);
  if (turned) p.scratch_shared = scratch_bytes(panels * c.taps() * rows * 16);
  return true;
}
static bool conv_grad_plan(const Conv& c, bool columns_are_small, KernelPlan& p) {
  const GradTasks   g = grad_tasks(c, columns_are_small);
  const GradPatches s = grad_patches(c, columns_are_small);
  p.stages = 2;
  p.tasks[0] = static_cast<uint32_t>(c.groups * g.units * g.blocks * g.panels);
  p.tasks[1] = static_cast<uint32_t>(panels_of(columns_are_small ? c.small_pitch() : c.big_pitch()));
  p.scratch_per_worker = s.bytes();
  return true;
}

template <class A, bool down, bool turned> static bool conv_sum_plan(const OpRun& r, KernelPlan& p) {
  const A& a = attributes_of<A>(r);
  return !is_depthwise(a) && conv_plan(conv_sizes(a, r), down, turned, turned ? 0 : norm_floats(r), p);
}
static constexpr auto conv2d_forward_plan = conv_sum_plan<Conv2d, true, false>;
static constexpr auto conv_transpose2d_forward_plan = conv_sum_plan<ConvTranspose2d, false, false>;
template <class A, bool in_is_big> static bool conv_grad_plan(const OpRun& r, KernelPlan& p) {
  const A& a = attributes_of<A>(r);
  return !is_depthwise(a) && conv_grad_plan(conv_sizes(a, r), in_is_big, p);
}
static constexpr auto conv2d_grad_input_plan = conv_sum_plan<Conv2d, false, true>;
static constexpr auto conv2d_grad_parameter_plan = conv_grad_plan<Conv2d, true>;
static constexpr auto conv_transpose2d_grad_input_plan = conv_sum_plan<ConvTranspose2d, true, true>;
static constexpr auto conv_transpose2d_grad_parameter_plan = conv_grad_plan<ConvTranspose2d, false>;
#endif

namespace NNLITE_ISA {
// Panels of X columns into panels of Y columns, [first, last) of the new ones.
static void turn_weights(const Conv& c, const float* w, int64_t X, int64_t Y, float* to, uint32_t first,
                         uint32_t last) {
  for (int64_t task = first; task < last; task++) {
    const int64_t group = task / panels_of(Y), y = task % panels_of(Y) * 16;
    transpose_panel(w + group * panels_of(X) * c.taps() * Y * 16, X, c.taps(), Y, y,
                    to + task * c.taps() * X * 16);
  }
}

// The two sides of a chunk: A gives rows of dw, B its columns.
struct GradSides {
  Patch   a, b;
  int64_t a_group, b_group;                    // from one group's channels to the next
  int64_t a_stride, b_stride;                  // pixels of the image for one of the chunk
};

static void grad_chunk(const Conv& c, const GradTasks& g, const GradSides& s, bool columns_are_small,
                       int64_t rows, int64_t columns, bool add, float* dw, uint32_t first, uint32_t last) {
  const Patch& big = columns_are_small ? s.a : s.b;
  for (uint32_t task = first; task < last;) {
    const Stretch  at = stretch_at(task, last, g.panels);
    const GradPart part = grad_part(c, g, at);
    const int64_t  place = part.kh * c.h.dilation * big.line + part.kw * c.w.dilation * big.pixel;
    task += static_cast<uint32_t>(at.count);
    Product p;
    p.middle = {rows, (columns_are_small ? c.h.stride : 1) * s.a.line,
                (columns_are_small ? 1 : c.h.stride) * s.b.line};
    p.inner  = {columns, s.a_stride * s.a.pixel, s.b_stride * s.b.pixel};
    if (p.middle.a == columns * p.inner.a && p.middle.b == columns * p.inner.b)  // no gap between rows
      p.inner.count *= rows, p.middle.count = 1;
    p.lines = part.lines, p.a_line = c.h.dilation * big.line, p.c_line = g.rows * 16;
    p.rows = part.rows, p.a_row = 1, p.c_row = 16;
    p.c_panel = g.panel_size;
    p.add = add;
    Multiply* const pair = p.lines == 2 ? pair_of(p.rows) : nullptr;
    (pair != nullptr ? pair : multiply)(
        p, s.a.data + (columns_are_small ? place : 0) + part.group * s.a_group + part.from,
        s.b.data + (columns_are_small ? 0 : place) + part.group * s.b_group + at.panel * 16, dw + part.to,
        pair != nullptr ? zeros : nullptr, smaller(at.count * 16, round_up(g.columns - at.panel * 16, 8)));
  }
}

// The columns that do not exist are zeros.
static void zero_tails(const Conv& c, const GradTasks& g, float* dw, uint32_t first, uint32_t last) {
  const size_t tail = static_cast<size_t>(g.columns % 16);
  for (uint32_t task = first; task < last && tail != 0; task++) {
    const Stretch  at = stretch_at(task, task + 1, g.panels);
    const GradPart part = grad_part(c, g, at);
    for (int64_t i = 0; i < part.lines * part.rows && at.panel + 1 == g.panels; i++)
      __builtin_memset(dw + part.to + i * 16 + tail, 0, (16 - tail) * sizeof(float));
  }
}

// dw, chunk after chunk, for tasks [first, last).
static void conv_grad(const Conv& c, const float* big, const float* small, bool columns_are_small, float* dw,
                      float* scratch, uint32_t first, uint32_t last) {
  const Chunks    k(c.h.out, c.w.out);
  const GradTasks g = grad_tasks(c, columns_are_small);
  float* const    second = scratch + round_up(grad_patches(c, columns_are_small).big, 16);
  for (int64_t chunk = 0; chunk < k.count(c.images); chunk++) {
    const Area  o = chunk_area(k, chunk);
    const Patch b = grad_patch(c, true, big, o, !columns_are_small, scratch);
    const Patch s = grad_patch(c, false, small, o, columns_are_small, second);
    const GradSides sides = columns_are_small ? GradSides{b, s, c.big, c.small, c.w.stride, 1}
                                              : GradSides{s, b, c.small, c.big, 1, c.w.stride};
    grad_chunk(c, g, sides, columns_are_small, o.rows, o.columns, chunk > 0, dw, first, last);
  }
  zero_tails(c, g, dw, first, last);
}

// db[o] = sum of dy[..., o], chunk after chunk, for panels [first, last).
static void bias_grad(const OpRun& r, uint32_t first, uint32_t last) {
  const Shape&  y = r.out_shape();
  const int64_t H = y.dim[1], W = y.dim[2], O = y.dim[3];
  const Chunks  k(H, W);
  float* const  db = r.dparameter(1);
  for (int64_t panel = first; panel < last && db != nullptr; panel++) {
    for (int64_t chunk = 0; chunk < k.count(r.rows); chunk++) {
      const Area o = chunk_area(k, chunk);
      sum_rows(r.dy() + ((o.image * H + o.y) * W + o.x) * O + panel * 16, o.rows * o.columns, O,
               static_cast<int>(smaller(O - panel * 16, 16)), db + panel * 16, chunk > 0);
    }
  }
}
template <class A, bool down> NNLITE_RUN(conv_forward) {
  const Conv    c = conv_sizes(attributes_of<A>(r), r);
  const int64_t patch = (down ? down_bands(c) : up_bands(c)).scratch();
  float* const  scratch = worker_scratch(r, worker, patch + norm_floats(r));
  Epilogue      e;
  set_epilogue(r, scratch + patch, e);
  conv_sum(c, down, r.in(0), r.parameter(0), r.parameter(1), r.out(), e, scratch, first, last,
           down && c.is_narrow() && !NNLITE_SMALL ? multiply_narrow : multiply);
}
static constexpr auto conv2d_forward = conv_forward<Conv2d, true>;
static constexpr auto conv_transpose2d_forward = conv_forward<ConvTranspose2d, false>;
template <class A, bool down> NNLITE_RUN(conv_grad_input) {
  const Conv    c = conv_sizes(attributes_of<A>(r), r);
  const int64_t patch = (down ? down_bands(c) : up_bands(c)).scratch();
  float* const  turned = shared_scratch(r, patch);
  const int64_t rows = down ? c.big : c.small, columns = down ? c.small : c.big;     // of the turned weights
  if (stage == 0) return turn_weights(c, r.parameter(0), rows, columns, turned, first, last);
  Epilogue e;
  set_gradient_epilogue(r, e);
  float* const scratch = worker_scratch(r, worker, patch);
  conv_sum(c, down, r.dy(), turned, nullptr, r.dx(0), e, scratch, first, last, multiply);
}
template <class A, bool in_is_big> NNLITE_RUN(conv_grad_parameter) {
  const Conv   c = conv_sizes(attributes_of<A>(r), r);
  float* const scratch = grad_patches(c, in_is_big).scratch(r, worker);
  if (stage == 0 && r.dparameter(0) != nullptr)
    conv_grad(c, in_is_big ? r.in(0) : r.dy(), in_is_big ? r.dy() : r.in(0), in_is_big, r.dparameter(0),
              scratch, first, last);
  if (stage == 1) bias_grad(r, first, last);
}
static constexpr auto conv2d_grad_input = conv_grad_input<Conv2d, false>;
static constexpr auto conv2d_grad_parameter = conv_grad_parameter<Conv2d, true>;
static constexpr auto conv_transpose2d_grad_input = conv_grad_input<ConvTranspose2d, true>;
static constexpr auto conv_transpose2d_grad_parameter = conv_grad_parameter<ConvTranspose2d, false>;
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_col2im
// The gradient for the input of a Conv2d of few channels with steps of 1. P is up of dy by a kernel of one
// column with kW C channels, which fill tiles where C would not; behind it the kernel's columns are added up:
//   P[h][ow][kw][c] = sum over kh and o of dy[h + padding - kh][ow][o] weight[o][kh][kw][c]
//   dx[h][w][c]     = sum over ow of P[h][ow][w + padding - ow][c]
#ifdef NNLITE_ONCE
struct Col2im : Conv {
  Conv    product;
  int64_t band, bands;                         // rows of dx in a task, tasks of an image
  int64_t line, row, scratch;                  // floats: a row of P, before a row of dx, all
};
static NNLITE_NOINLINE Col2im col2im_sizes(const OpRun& r) {
  Col2im s = {conv_sizes(attributes_of<Conv2d>(r), r), {}, 0, 0, 0, 0, 0};
  s.product = {{s.h, {s.w.out, s.w.out, 1, 1, 0, 1}}, 1, 1, round_up(s.w.kernel * s.big, 8), s.small, 1};
  s.line    = s.w.out * s.product.big;
  s.band    = band_rows(s.h.in, patch_floats / s.line, (s.workers - 1) / s.images + 1);
  s.bands   = (s.h.in + s.band - 1) / s.band;
  s.row     = s.band * s.line + 16;            // whole vectors are read, and written
  s.scratch = s.row + s.w.in * s.big + 16;
  return s;
}
// By the shape of the layer alone: bits depend on it. 12 channels gain little, and rows of P stay small.
static inline bool col2im_grad_input_plan(const OpRun& r, KernelPlan& p) {
  const Conv2d& a = attributes_of<Conv2d>(r);
  if ((a.stride.h | a.stride.w | a.dilation.h | a.dilation.w | a.groups) != 1 || a.kernel_size.w == 1 ||
      a.in_channels > 10 || int64_t(a.kernel_size.w) * r.out_shape().dim[2] > patch_floats / 16)
    return false;
  const Col2im s = col2im_sizes(r);
  p.stages = 2, p.tasks[0] = static_cast<uint32_t>(panels_of(s.product.big));
  p.tasks[1] = static_cast<uint32_t>(s.images * s.bands);
  p.scratch_per_worker = scratch_bytes(s.scratch);
  p.scratch_shared = scratch_bytes(panels_of(s.product.big) * s.h.kernel * s.small * 16);
  return true;
}
#endif

namespace NNLITE_ISA {
// A row of dx from one of P, in whole vectors: the next pixel covers what they write behind one.
static void col2im_row(const Col2im& s, const float* P, float* dx) {
  for (int64_t x = s.w.padding; x < s.w.in + s.w.padding; x++, dx += s.big) {
    const Span of = Span{x - s.w.kernel + 1, s.w.kernel}.within(s.w.out);
    for (int64_t c = 0; c < s.big; c += lanes) {
      const float* from = P + of.first * s.product.big + (x - of.first) * s.big + c;
      vf v = set(0.0f);
      for (int64_t i = 0; i < of.count; i++, from += s.product.big - s.big) v = add(v, load(from));
      store(dx + c, v);
    }
  }
}
NNLITE_RUN(col2im_grad_input) {
  const Col2im  s = col2im_sizes(r);
  const int64_t n = s.w.in * s.big;
  float* const  P = worker_scratch(r, worker, s.scratch);
  float* const  w = shared_scratch(r, s.scratch);
  if (stage == 0) return turn_weights(s.product, r.parameter(0), s.small, s.w.kernel * s.big, w, first, last);
  Product p;
  set_gradient_epilogue(r, p);
  for (int64_t task = first; task < last; task++) {
    const int64_t image = task / s.bands, y = task % s.bands * s.band;
    Conv          part = s.product;            // as if rows of a task were an image
    part.h.in = smaller(s.h.in - y, s.band), part.h.padding += static_cast<int>(y);
    conv_sum(part, false, r.dy() + image * s.h.out * s.w.out * s.small, w, nullptr, P, {}, nullptr, 0,
             static_cast<uint32_t>(s.h.in), multiply);
    float* dx = r.dx(0) + (image * s.h.in + y) * n;
    for (int64_t i = 1; i <= part.h.in; i++, dx += n) {     // in place where later rows cover what is behind
      float* const to = p.mask == nullptr && !p.add && (part.h.in - i) * n >= lanes ? dx : P + s.row;
      col2im_row(s, P + (i - 1) * s.line, to);
      if (to != dx) finish_tile(p, to, 1, static_cast<int>((n + lanes - 1) / lanes), dx, static_cast<int>(n));
    }
  }
}
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_winograd
// Conv2d of 3 x 3 with steps of 1, by F(2x2, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional
// Neural Networks" (2016): 16 products for 4 outputs in place of 36, and half the rounding error.
//
//   V = B' d B  of a tile, the 4 x 4 pixels d that 2 x 2 outputs read;  U = G g G'  of the 3 x 3 taps g
//   M[k] = V[k] U[k], a product of tiles and channels for each of the 16 places k;  y = A' M A
//   B' d: d0 - d2, d1 + d2, d2 - d1, d1 - d3     G g: g0, (g0 + g2 + g1) / 2, (g0 + g2 - g1) / 2, g2
//   A' m: m0 + m1 + m2, m1 - m2 - m3
//
// The gradient for the input is the same of dy, with the taps in reverse. U is derived from the weights, in
// panels [columns/16][16 places][rows][16]. Tiles of all images are numbered in one line and worked on in
// blocks: an output is 16 chains and a fixed sum of them, whatever the blocks.
//
// The gradient for the weights is F(3x3, 2x2), where dy takes the place of the taps:
//
//   D = H dy H' of a tile's 2 x 2 gradients;  M[k] = V[k]' D[k], a sum over tiles;  dw = T' M T
//   H d: d0, d0 + d1, d0 - d1, d1     T' m: m0 + (m1 + m2) / 2, (m1 - m2) / 2, (m1 + m2) / 2 - m3
#ifdef NNLITE_ONCE
struct Winograd {
  int64_t H, W, C, oH, oW, O;                  // of what is read, and of what is written
  int64_t pitch;                               // channels of a pixel that is read
  int64_t top, left;                           // zeros around what is read; negative: pixels that are not
  bool    forward;
  int64_t across, of_image, count;             // tiles: of a row, of an image, of all
  int64_t most, block;                         // tiles of a task, at most and for these rows
  // floats from place to place, 16 more than are used: powers of two would share a set of a cache
  int64_t u_step, v_step, m_step, m_pixel;

  int64_t scratch() const { return 16 * (v_step + m_step); }
};
constexpr int64_t winograd_tiles = 42;         // fills tiles of the product on every instruction set
static NNLITE_NOINLINE Winograd winograd_sizes(const OpRun& r, bool forward) {
  const Pair   padding = attributes_of<Conv2d>(r).padding;
  const Shape& x = forward ? r.in_shape(0) : r.out_shape();
  const Shape& y = forward ? r.out_shape() : r.in_shape(0);
  Winograd s;
  s.H = x.dim[1], s.W = x.dim[2], s.C = s.pitch = x.dim[3];
  s.oH = y.dim[1], s.oW = y.dim[2], s.O = y.dim[3];
  s.top  = forward ? padding.h : 2 - padding.h;
  s.left = forward ? padding.w : 2 - padding.w;
  s.forward  = forward;
  s.across   = (s.oW + 1) / 2;
  s.of_image = (s.oH + 1) / 2 * s.across;
  s.count    = r.rows * s.of_image;
  s.most     = smaller(winograd_tiles, s.count);
  s.block    = (s.count - 1) / round_up((s.count - 1) / s.most + 1, r.workers) + 1;
  s.m_pixel  = smaller(32, round_up(s.O, 16));
  s.u_step   = s.C * 16 + 16;
  s.v_step   = s.most * s.C + 16;
  s.m_step   = s.most * s.m_pixel + 16;
  return s;
}

// By the shape of the layer alone: bits depend on it.
static bool takes_winograd(const OpRun& r, const Winograd& s) {
  const Conv2d& a = attributes_of<Conv2d>(r);
  return r.derived != nullptr && a.kernel_size.h == 3 && a.kernel_size.w == 3 &&
         (a.stride.h | a.stride.w | a.dilation.h | a.dilation.w | a.groups) == 1 &&  // all of them are 1
         s.C >= 16 && s.O >= 16 && s.of_image >= 4;
}
template <bool forward> static bool winograd_plan(const OpRun& r, KernelPlan& p) {
  const Winograd s = winograd_sizes(r, forward);
  if (!takes_winograd(r, s)) return false;
  p.stages   = 2;
  p.tasks[0] = static_cast<uint32_t>(panels_of(s.O) * panels_of(s.C));
  p.tasks[1] = static_cast<uint32_t>((s.count - 1) / s.block + 1);
  p.scratch_per_worker = scratch_bytes(s.scratch() + norm_floats(r));
  p.derived  = scratch_bytes(panels_of(s.O) * 16 * s.u_step);
  return true;
}
static constexpr auto winograd_forward_plan = winograd_plan<true>;
#ifdef NNLITE_NO_TRAINING
constexpr bool winograd_derives_once = true;
#else
constexpr bool winograd_derives_once = false;
static constexpr auto winograd_grad_input_plan = winograd_plan<false>;
#endif

// The gradient for the weights. Tasks of stage 0 are (part of the tiles, block of rows) x panel of M, with
// parts where there are few of the others; up to four panels go together. Bits depend on the chunks of tiles
// and on their parts. Stage 1 adds the parts and makes dw, 16 rows of a panel in a task.
struct WinogradGrad {
  int64_t chunks, parts, blocks, panels;
  int64_t v_step, d_step, m_step;              // from place to place
  int64_t of_worker() const { return 16 * (v_step + d_step); }
};
constexpr int64_t winograd_chunk = 64, winograd_rows = 32, winograd_panels = 4, winograd_tasks = 8;
static NNLITE_NOINLINE WinogradGrad winograd_grad_sizes(const Winograd& s) {
  WinogradGrad g;
  g.chunks = (s.count - 1) / winograd_chunk + 1;
  g.blocks = (s.C - 1) / winograd_rows + 1;
  g.panels = panels_of(s.O);
  g.parts  = smaller(g.chunks, (winograd_tasks - 1) / (g.blocks * g.panels) + 1);
  const int64_t tiles = smaller(winograd_chunk, s.count);
  g.v_step = tiles * ((s.C - 1) / g.blocks + 1) + 16;
  g.d_step = tiles * smaller(g.panels, winograd_panels) * 16 + 16;
  g.m_step = g.panels * s.C * 16 + 16;
  return g;
}
static inline bool winograd_grad_parameter_plan(const OpRun& r, KernelPlan& p) {
  const Winograd s = winograd_sizes(r, true);
  if (!takes_winograd(r, s)) return false;
  const WinogradGrad g = winograd_grad_sizes(s);
  p.stages   = 2;
  p.tasks[0] = static_cast<uint32_t>(g.parts * g.blocks * g.panels);
  p.tasks[1] = static_cast<uint32_t>(panels_of(s.C) * g.panels);
  p.scratch_per_worker = scratch_bytes(g.of_worker());
  p.scratch_shared = scratch_bytes(g.parts * 16 * g.m_step);
  return true;
}

// Tiles of one row of tiles: the first of them in the block, how many, its image and its first output.
struct TileRow { int64_t first, count, image, i, j; };
static NNLITE_NOINLINE TileRow tile_row(const Winograd& s, int64_t tile, int64_t first, int64_t last) {
  const int64_t at = (tile + first) % s.of_image, j = at % s.across;
  return {first, smaller(last - first, s.across - j), (tile + first) / s.of_image, at / s.across * 2, j * 2};
}

// What is compiled for every instruction set. Deriving and reading have no fma, so base, which hardly runs,
// borrows them from the first pass.
struct WinogradParts {
  void (*derive)(const Winograd&, const float* w, int64_t column, int64_t row, float* U);
  void (*read)(const Winograd&, const float* x, const TileRow&, float* V);
  Multiply* multiply;
  void (*write)(const Winograd&, const float* M, const TileRow&, const Epilogue&, int columns, float* y);
};

// Tiles first .. first + count - 1. The bias starts the chains of place 5, which every output adds once.
static void winograd_block(const Winograd& s, const WinogradParts& parts, const float* x, const float* U,
                           const float* bias, const Epilogue& e, float* y, float* V, int64_t first,
                           int64_t count) {
  float* const M = V + 16 * s.v_step;
  for (int64_t t = 0; t < count;) {
    const TileRow row = tile_row(s, first, t, count);
    parts.read(s, x, row, V);
    t += row.count;
  }
  Product p;
  p.inner   = {s.C, 1, 16};
  p.rows = count, p.a_row = s.C, p.c_row = s.m_pixel;
  p.b_panel = 16 * s.u_step;
  for (int64_t o = 0; o < s.O; o += 32) {
    const int columns = static_cast<int>(smaller(s.O - o, 32));
    Epilogue  end;
    end.from(e, o);
    for (int64_t k = 0; k < 16; k++)
      parts.multiply(p, V + k * s.v_step, U + (o + k) * s.u_step, M + k * s.m_step,
                     k == 5 && bias != nullptr ? bias + o : nullptr, round_up(columns, 16));
    for (int64_t t = 0; t < count;) {
      const TileRow row = tile_row(s, first, t, count);
      parts.write(s, M, row, end, columns, y + o);
      t += row.count;
    }
  }
}

// Tasks of stage 0 are panels of columns x blocks of 16 rows of U.
static void winograd_run(const WinogradParts& parts, const OpRun& r, const Winograd& s, const Epilogue& e,
                         float* scratch, uint32_t stage, uint32_t first, uint32_t last) {
  const bool     forward = s.forward;
  float* const   U = reinterpret_cast<float*>(r.derived);
  const int64_t  blocks = panels_of(s.C);
  for (int64_t task = first; task < last; task++) {
    if (stage == 0) {
      parts.derive(s, r.parameter(0), task / blocks * 16, task % blocks * 16, U);
      continue;
    }
    winograd_block(s, parts, forward ? r.in(0) : r.dy(), U, forward ? r.parameter(1) : nullptr,
                   e, forward ? r.out() : r.dx(0), scratch, task * s.block,
                   smaller(s.block, s.count - task * s.block));
  }
}

using WinogradReadDy = void(const Winograd&, const WinogradGrad&, const float* dy, const TileRow&,
                            int columns, float* D);
// M of tasks [first, last); V is scratch.
static void winograd_grad(const WinogradParts& parts, WinogradReadDy* read_dy, const OpRun& r, Winograd s,
                          const WinogradGrad& g, float* M, float* V, uint32_t first, uint32_t last) {
  float* const D = V + 16 * g.v_step;
  s.v_step = g.v_step;
  for (uint32_t task = first; task < last;) {
    const Stretch at = stretch_at(task, last, g.panels);
    const int64_t part = at.block / g.blocks, block = at.block % g.blocks, o = at.panel * 16;
    const int64_t panels = smaller(at.count, winograd_panels), from = s.pitch * block / g.blocks;
    const int64_t end = smaller(g.chunks * (part + 1) / g.parts * winograd_chunk, s.count);
    const int     columns = static_cast<int>(smaller(panels * 16, s.O - o));
    task += static_cast<uint32_t>(panels);
    s.C = s.pitch * (block + 1) / g.blocks - from;
    Product p;
    p.rows = s.C, p.a_row = 1, p.c_row = 16, p.c_panel = s.pitch * 16;
    float* const to = M + part * 16 * g.m_step + at.panel * p.c_panel + from * 16;
    for (int64_t tile = g.chunks * part / g.parts * winograd_chunk; tile < end; tile += winograd_chunk) {
      const int64_t count = smaller(winograd_chunk, end - tile);
      for (int64_t t = 0; t < count;) {
        const TileRow row = tile_row(s, tile, t, count);
        parts.read(s, r.in(0) + from, row, V);
        read_dy(s, g, r.dy() + o, row, columns, D);
        t += row.count;
      }
      p.inner = {count, s.C, panels * 16};
      for (int64_t k = 0; k < 16; k++)
        parts.multiply(p, V + k * g.v_step, D + k * g.d_step, to + k * g.m_step, nullptr, panels * 16);
      p.add = true;
    }
  }
}
#endif

namespace NNLITE_ISA {
// G of three vectors that lie `step` floats apart.
NNLITE_VERB void winograd_taps(const float* g, int64_t step, float* to, int64_t to_step) {
  const vf g0 = load(g), g1 = load(g + step), g2 = load(g + 2 * step), half = set(0.5f), sum = add(g0, g2);
  store(to, g0);
  store(to + to_step, mul(half, add(sum, g1)));
  store(to + 2 * to_step, mul(half, sub(sum, g1)));
  store(to + 3 * to_step, g2);
}

// U of 16 columns and of at most 16 rows.
static void winograd_derive(const Winograd& s, const float* w, int64_t column, int64_t row, float* U) {
  const int64_t rows = smaller(s.C - row, 16);
  const float*  from = w + (column / 16 * 9 * s.C + row) * 16;
  int64_t       tap = s.C * 16;
  float turned[9 * 256];
  if (!s.forward) {
    for (int64_t k = 0; k < 9; k++)
      transpose_block(w + ((row / 16 * 9 + k) * s.O + column) * 16, s.O - column, rows, turned + k * 256);
    from = turned + 8 * 256, tap = -256;
  }
  U += column * s.u_step + row * 16;
  for (int64_t i = 0; i < rows * 16; i += lanes, from += lanes, U += lanes) {
    float half[12 * lanes];                                          // [4][3] vectors
    for (int k = 0; k < 3; k++) winograd_taps(from + k * tap, 3 * tap, half + k * lanes, 3 * lanes);
    for (int k = 0; k < 4; k++) winograd_taps(half + 3 * k * lanes, lanes, U + 4 * k * s.u_step, s.u_step);
  }
}

// V of a row of tiles. A tile's first two columns are the last two of the one before.
static void winograd_read(const Winograd& s, const float* x, const TileRow& r, float* V) {
  const int64_t y = r.i - s.top, left = r.j - s.left;
  for (int64_t at = 0; at < s.C; at += lanes) {
    const int64_t c = smaller(at, s.C - lanes);                      // the last vector may overlap another
    const float*  line[4];
    int64_t       pixel[4];
    for (int i = 0; i < 4; i++) {
      const bool there = y + i >= 0 && y + i < s.H;
      line[i]  = there ? x + (r.image * s.H + y + i) * s.W * s.pitch + c : zeros;
      pixel[i] = there ? s.pitch : 0;
    }
    vf a[4] = {}, b[4] = {}, e[4];                                   // the columns 2 before, 1 before, this
    float* v = V + r.first * s.C + c;
    for (int64_t j = left, last = left + 2 * r.count + 2; j < last; j++) {
      const bool there = j >= 0 && j < s.W;
      vf d[4];
      NNLITE_UNROLL for (int i = 0; i < 4; i++) d[i] = load(there ? line[i] + j * pixel[i] : zeros);
      e[0] = sub(d[0], d[2]), e[1] = add(d[1], d[2]), e[2] = sub(d[2], d[1]), e[3] = sub(d[1], d[3]);
      const bool odd = ((j - left) & 1) != 0;
      float* to = v + (odd ? 3 * s.v_step : 0);
      if (j >= left + 2) {
        NNLITE_UNROLL for (int i = 0; i < 4; i++, to += 4 * s.v_step) {
          store(to, sub(a[i], e[i]));
          if (odd) continue;
          store(to + s.v_step, add(b[i], e[i]));
          store(to + 2 * s.v_step, sub(e[i], b[i]));
        }
        if (odd) v += s.C;
      }
      NNLITE_UNROLL for (int i = 0; i < 4; i++) a[i] = b[i], b[i] = e[i];
    }
  }
}

// y of a row of tiles.
static void winograd_write(const Winograd& s, const float* M, const TileRow& r, const Epilogue& e,
                           int columns, float* y) {
  const int64_t down = s.oW * s.O;
  M += r.first * s.m_pixel;
  y += (r.image * s.oH + r.i) * down + r.j * s.O;
  const bool below = r.i + 1 < s.oH;
  for (int64_t t = 0; t < r.count; t++, M += s.m_pixel, y += 2 * s.O) {
    const bool right = r.j + 2 * t + 1 < s.oW;
    for (int c = 0; c < columns; c += lanes) {
      const int n = within(columns, c);
      vf m[2][4], v[4][1];
      NNLITE_UNROLL for (int j = 0; j < 4; j++) {
        const float* from = M + j * s.m_step + c;
        const vf m1 = load(from + 4 * s.m_step), m2 = load(from + 8 * s.m_step);
        m[0][j] = add(add(load(from), m1), m2);
        m[1][j] = sub(sub(m1, m2), load(from + 12 * s.m_step));
      }
      NNLITE_UNROLL for (int i = 0; i < 2; i++) {
        v[2 * i][0]     = add(add(m[i][0], m[i][1]), m[i][2]);
        v[2 * i + 1][0] = sub(sub(m[i][1], m[i][2]), m[i][3]);
      }
      activate<4, 1>(e, v, n, c);
      NNLITE_UNROLL for (int i = 0; i < 4; i++) {                    // a finished vector of outputs
        float* const to = y + (i & 1) * s.O + (i >> 1) * down + c;
        if (((i & 1) != 0 && !right) || ((i & 2) != 0 && !below)) continue;
        vf out = v[i][0];
        if (e.mask != nullptr)
          out = select(less(set(0.0f), load_part(e.mask + (to - e.base), n)), out, set(0.0f));
        store_part(to, e.add ? add(load_part(to, n), out) : out, n);
      }
    }
  }
}

// D of a row of tiles; beyond the image dy is zero.
static void winograd_read_dy(const Winograd& s, const WinogradGrad& g, const float* dy, const TileRow& r,
                             int columns, float* D) {
  const int     pitch = static_cast<int>(round_up(columns, 16));
  const int64_t down = s.oW * s.O;
  const bool    below = r.i + 1 < s.oH;
  dy += (r.image * s.oH + r.i) * down + r.j * s.O;
  D += r.first * pitch;
  for (int64_t t = 0; t < r.count; t++, dy += 2 * s.O, D += pitch) {
    const bool right = r.j + 2 * t + 1 < s.oW;
    for (int c = 0; c < pitch; c += lanes) {
      const int n = within(columns, c);
      vf e[4][2];
      NNLITE_UNROLL for (int j = 0; j < 2; j++) {
        const int w = j > 0 && !right ? 0 : n;
        e[0][j] = load_part(dy + j * s.O + c, w);
        e[3][j] = load_part(dy + j * s.O + down + c, below ? w : 0);
        e[1][j] = add(e[0][j], e[3][j]);
        e[2][j] = sub(e[0][j], e[3][j]);
      }
      float* to = D + c;
      NNLITE_UNROLL for (int i = 0; i < 4; i++, to += 4 * g.d_step) {
        store(to, e[i][0]);
        store(to + g.d_step, add(e[i][0], e[i][1]));
        store(to + 2 * g.d_step, sub(e[i][0], e[i][1]));
        store(to + 3 * g.d_step, e[i][1]);
      }
    }
  }
}
// T' of four vectors that lie `step` floats apart.
NNLITE_VERB void winograd_turn(const float* m, int64_t step, float* to, int64_t to_step) {
  const vf half = set(0.5f), m1 = load(m + step), m2 = load(m + 2 * step), sum = mul(half, add(m1, m2));
  store(to, add(load(m), sum));
  store(to + to_step, mul(half, sub(m1, m2)));
  store(to + 2 * to_step, sub(sum, load(m + 3 * step)));
}
// dw of at most 16 rows of a panel.
static void winograd_write_dw(const Winograd& s, const WinogradGrad& g, int64_t row, int64_t panel,
                              const float* M, float* dw) {
  const int64_t rows = smaller(s.C - row, 16), tap = s.C * 16, at = panel * tap + row * 16;
  for (int64_t i = 0; i < rows * 16; i += lanes) {
    const int n = within(static_cast<int>(s.O - panel * 16), static_cast<int>(i % 16));
    float m[16 * lanes], half[12 * lanes];                           // [4][4] and [3][4] vectors
    for (int k = 0; k < 16; k++) {
      const float* from = M + k * g.m_step + at + i;
      vf sum = load_part(from, n);
      for (int64_t part = 1; part < g.parts; part++) sum = add(sum, load_part(from += 16 * g.m_step, n));
      store(m + k * lanes, sum);
    }
    float* const to = dw + panel * 8 * tap + at + i;
    for (int k = 0; k < 4; k++) winograd_turn(m + k * lanes, 4 * lanes, half + k * lanes, 4 * lanes);
    for (int k = 0; k < 3; k++) winograd_turn(half + 4 * k * lanes, lanes, to + 3 * k * tap, tap);
  }
}

constexpr bool is_base = NNLITE_PASS == NNLITE_PASS_BASE;
static constexpr WinogradParts winograd_parts = {
    is_base || winograd_derives_once ? NNLITE_FIRST_ISA::winograd_derive : winograd_derive,
    is_base ? NNLITE_FIRST_ISA::winograd_read : winograd_read, multiply, winograd_write};
NNLITE_RUN(winograd_forward) {
  const Winograd s = winograd_sizes(r, true);
  float* const   scratch = worker_scratch(r, worker, s.scratch() + norm_floats(r));
  Epilogue       e;
  set_epilogue(r, scratch + s.scratch(), e);
  winograd_run(winograd_parts, r, s, e, scratch, stage, first, last);
}
NNLITE_RUN(winograd_grad_input) {
  const Winograd s = winograd_sizes(r, false);
  Epilogue       e;
  set_gradient_epilogue(r, e);
  winograd_run(winograd_parts, r, s, e, worker_scratch(r, worker, s.scratch()), stage, first, last);
}
NNLITE_RUN(winograd_grad_parameter) {
  const Winograd     s = winograd_sizes(r, true);
  const WinogradGrad g = winograd_grad_sizes(s);
  float* const dw = r.dparameter(0);
  float* const M = shared_scratch(r, g.of_worker());
  const auto   write = is_base ? NNLITE_FIRST_ISA::winograd_write_dw : winograd_write_dw;
  if (stage == 0 && dw != nullptr)
    winograd_grad(winograd_parts, is_base ? NNLITE_FIRST_ISA::winograd_read_dy : winograd_read_dy, r, s, g, M,
                  worker_scratch(r, worker, g.of_worker()), first, last);
  for (uint32_t task = first; task < last && stage == 1; task++) {
    const uint32_t panels = static_cast<uint32_t>(g.panels), row = task / panels * 16, panel = task % panels;
    if (dw != nullptr) write(s, g, row, panel, M, dw);
    if (row == 0) bias_grad(r, panel, panel + 1);
  }
}
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_depthwise
// Conv2d with one channel a group: nothing is summed over channels, so vectors run along them. Weights
// [kH][kW][C], C padded to whole panels; so are patches, unless the image can be read in place.
#ifdef NNLITE_ONCE
struct Depthwise {
  Conv    c;                                   // one group of `wide` channels
  int64_t channels;
  bool    whole;                               // no padding of channels
};
static NNLITE_NOINLINE Depthwise depthwise_sizes(const OpRun& r) {
  Depthwise d = {conv_sizes(attributes_of<Conv2d>(r), r), r.in_shape(0).last(), false};
  d.c.groups = 1;
  d.c.big = d.c.small = round_up(d.channels, 16);
  d.whole = d.channels == d.c.big;
  return d;
}
// The last channels of a band, where they do not make half a panel, are read from a copy.
static NNLITE_NOINLINE int64_t depthwise_scratch(const OpRun& r, bool down) {
  const Depthwise d = depthwise_sizes(r);
  return d.channels % 8 == 0 ? 0 : (down ? down_bands(d.c) : up_bands(d.c)).patch / d.c.big * 16;
}

// to = start + from * w for bands [first, last), down or up.
static NNLITE_NOINLINE void depthwise_sum(const OpRun& r, bool down, const float* from, const float* start,
                                          float* to, const Epilogue& e, float* scratch, uint32_t first,
                                          uint32_t last, Multiply* stripe, PadRows* pad) {
  const Depthwise  d = depthwise_sizes(r);
  const Conv&      c = d.c;
  const Bands      b = down ? down_bands(c) : up_bands(c);
  const Conv::Side in = c.side(down), out = c.side(!down);
  const int64_t    C = d.channels;
  for (int64_t task = first; task < last && task / b.count < c.images; task++) {
    const Area   area = b.at(task, out.H, out.W);
    const float* image = from + area.image * in.H * in.W * C;
    float*       t = to + area.image * out.H * out.W * C;
    const auto   span = down ? down_span : up_span;
    const Span   rows = span(c.h, area.y, area.rows).within(in.H);
    const Span   columns = span(c.w, 0, out.W).within(in.W);
    for (int64_t v = 0, end = C / 8 * 8; v < C; v = end, end = C) {   // whole halves of panels, then the rest
      Patch patch = patch_in_place(image + v, in.W, rows, columns, C);
      if (end % 8 != 0) {
        for (int64_t y = 0; y < rows.count; y++)
          pad(patch.data + y * patch.line, columns.count, C, C - v, scratch + y * columns.count * 16);
        patch = {scratch, columns.count * 16, 16};
      }
      Sum s = {c, down, area, patch, rows, columns, c.big, C};
      while (v < end && s.next()) {
        if (s.p.rows < s.p.lines) s.turn();
        if (s.p.middle.a == -s.p.a_row) s.backward();
        for (int64_t u = v; u < end; u += 128) {       // whose weights and input stay near
          s.p.from(e, u);
          stripe(s.p, patch.data + s.a + u - v, r.parameter(0) + s.b + u, t + s.c + u,
                 start == nullptr ? zeros : start + u, smaller(end - u, 128));
        }
      }
    }
  }
}

static bool depthwise_plan(const OpRun& r, bool down, KernelPlan& p) {
  if (!is_depthwise(attributes_of<Conv2d>(r))) return false;
  const Depthwise d = depthwise_sizes(r);
  const Bands     b = down ? down_bands(d.c) : up_bands(d.c);
  p.tasks[0] = static_cast<uint32_t>(d.c.images * b.count);
  p.scratch_per_worker = scratch_bytes(depthwise_scratch(r, down) + norm_floats(r));
  return true;
}
static bool depthwise_forward_plan(const OpRun& r, KernelPlan& p) { return depthwise_plan(r, true, p); }
static inline bool depthwise_grad_input_plan(const OpRun& r, KernelPlan& p) {
  return depthwise_plan(r, false, p);
}
static NNLITE_NOINLINE GradPatches depthwise_patches(const Depthwise& d) {
  const Chunks  k(d.c.h.out, d.c.w.out);
  const bool    padded = d.c.h.padding != 0 || d.c.w.padding != 0;
  const int64_t big = down_span(d.c.h, 0, k.rows).count * down_span(d.c.w, 0, k.columns).count * d.c.big;
  return {padded || !d.whole ? big : 0, d.whole ? 0 : k.rows * k.columns * d.c.small};
}
static inline bool depthwise_grad_parameter_plan(const OpRun& r, KernelPlan& p) {
  if (!is_depthwise(attributes_of<Conv2d>(r))) return false;
  const Depthwise d = depthwise_sizes(r);
  p.stages = 2;
  p.tasks[0] = p.tasks[1] = static_cast<uint32_t>(d.c.big / 16);
  p.scratch_per_worker = depthwise_patches(d).bytes();
  return true;
}
#endif

namespace NNLITE_ISA {
// M pixels of `columns` channels, vector by vector: a chain over places each. Where pixels and places are
// equally far apart, three places share the loads.
template <int M, bool three>
static void depthwise_tile(const Product& t, const float* x, const float* w, float* C, const float* start,
                           int64_t columns) {
  for (int64_t u = 0; u < columns; u += lanes, C += lanes) {
    const float *A = x + u, *B = w + u;
    vf c[static_cast<size_t>(M)][1];
    const vf from = load(start + u);
    NNLITE_UNROLL for (int i = 0; i < M; i++) c[i][0] = from;
    for (int64_t p = 0; p < t.outer.count; p++, A += t.outer.a, B += t.outer.b) {
      const float *a = A, *b = B;
      if constexpr (three) {
        const vf g[3] = {load(b), load(b + t.middle.b), load(b + 2 * t.middle.b)};
        NNLITE_UNROLL for (int i = 0; i < M + 2; i++, a += t.a_row) {
          const vf v = load(a);
          NNLITE_UNROLL for (int q = 0; q < 3; q++)
            if (i - q >= 0 && i - q < M) c[i - q][0] = fma(v, g[q], c[i - q][0]);
        }
      } else {
        for (int64_t q = 0; q < t.middle.count; q++, a += t.middle.a, b += t.middle.b) {
          const vf g = load(b);
          NNLITE_UNROLL for (int i = 0; i < M; i++) c[i][0] = fma(load(a + i * t.a_row), g, c[i][0]);
        }
      }
    }
    const int n = static_cast<int>(smaller(columns - u, lanes));
    activate<M, 1>(t, c, n, u);
    if (n == lanes) put_rows<M, 1>(t, c, C);
    else {
      float held[static_cast<size_t>(M * lanes)];
      NNLITE_UNROLL for (int i = 0; i < M; i++) store(held + i * lanes, c[i][0]);
      finish_tile(t, held, M, 1, C, n);
    }
  }
}
template <int M, bool three> static Multiply* depthwise_tile_of(int64_t rows) {
  if constexpr (M == 1) return depthwise_tile<1, three>;
  else return rows >= M ? depthwise_tile<M, three> : depthwise_tile_of<lower(M), three>(rows);
}

constexpr int apart_rows = depthwise_rows < 8 ? depthwise_rows : 8;    // of tiles whose pixels are apart
static void depthwise_stripe(const Product& t, const float* A, const float* B, float* C, const float* start,
                             int64_t columns) {
  Product p = t;
#if NNLITE_PASS == NNLITE_PASS_AVX512
  if (const int64_t whole = (columns + 7) / 16 * 16; whole < columns) {  // half a vector is one of AVX2
    p.from(t, whole);
    isa_avx2::depthwise_stripe(p, A + whole, B + whole, C + whole, start + whole, columns - whole);
    if (whole == 0) return;
    p = t, columns = whole;
  }
#endif
  stripe(p, A, B, C, start, columns,
         !NNLITE_SMALL && t.middle.count == 3 && t.middle.a == t.a_row
             ? Tiles{lanes, depthwise_rows, depthwise_tile_of<depthwise_rows, true>}
             : Tiles{lanes, apart_rows, depthwise_tile_of<apart_rows, false>});
}
NNLITE_RUN(depthwise_forward) {
  const int64_t patch = depthwise_scratch(r, true);
  float* const  scratch = worker_scratch(r, worker, patch + norm_floats(r));
  Epilogue      e;
  set_epilogue(r, scratch + patch, e);
  depthwise_sum(r, true, r.in(0), r.parameter(1), r.out(), e, scratch, first, last, depthwise_stripe,
                pad_rows);
}
NNLITE_RUN(depthwise_grad_input) {
  Epilogue e;
  set_gradient_epilogue(r, e);
  depthwise_sum(r, false, r.dy(), nullptr, r.dx(0), e, worker_scratch(r, worker, depthwise_scratch(r, false)),
                first, last, depthwise_stripe, pad_rows);
}

static Patch depthwise_patch(const Depthwise& d, const float* image, int64_t H, int64_t W, Span rows,
                             Span columns, float* to, bool in_place) {
  return in_place && d.whole ? patch_in_place(image, W, rows, columns, d.channels)
                             : copy_patch(image, H, W, rows, columns, 1, d.channels, pad_rows, to);
}

// T places of the weight for one vector of channels: a chain over the pixels of the chunk each.
template <int T>
static inline void depthwise_grad_tile(const Patch& x, const Patch& dy, int64_t rows, int64_t columns,
                                       int64_t x_line, int64_t x_pixel, const int64_t* places, float* dw,
                                       int64_t step, bool more) {
  constexpr size_t count = static_cast<size_t>(T);
  vf s[count];
  NNLITE_UNROLL for (int t = 0; t < T; t++) s[t] = set(0.0f);
  for (int64_t i = 0; i < rows; i++) {
    const float* a = x.data + i * x_line;
    const float* b = dy.data + i * dy.line;
    for (int64_t j = 0; j < columns; j++, a += x_pixel, b += dy.pixel) {
      const vf g = load(b);
      NNLITE_UNROLL for (int t = 0; t < T; t++) s[t] = fma(load(a + places[t]), g, s[t]);
    }
  }
  NNLITE_UNROLL for (int t = 0; t < T; t++, dw += step) store(dw, more ? add(load(dw), s[t]) : s[t]);
}

static void depthwise_grad_chunk(const Conv& c, Patch x, Patch dy, int64_t rows, int64_t columns, float* dw,
                                 bool more) {
  const int64_t line = c.h.stride * x.line, pixel = c.w.stride * x.pixel;
  for (int64_t t = 0, left = c.taps(); left > 0;) {
    int64_t places[9], count = left >= 9 ? 9 : left >= 3 ? 3 : 1;
    for (int64_t k = 0; k < count; k++) {
      const int64_t kh = (t + k) / c.w.kernel, kw = (t + k) % c.w.kernel;
      places[k] = kh * c.h.dilation * x.line + kw * c.w.dilation * x.pixel;
    }
    const auto tile = count == 9   ? depthwise_grad_tile<9>
                      : count == 3 ? depthwise_grad_tile<3>
                                   : depthwise_grad_tile<1>;
    tile(x, dy, rows, columns, line, pixel, places, dw + t * c.big, c.big, more);
    t += count;
    left -= count;
  }
}
NNLITE_RUN(depthwise_grad_parameter) {
  if (stage == 1) return bias_grad(r, first, last);
  if (r.dparameter(0) == nullptr) return;
  const Depthwise   d = depthwise_sizes(r);
  const Conv&       c = d.c;
  const int64_t     C = d.channels;
  const GradPatches s = depthwise_patches(d);
  const Chunks      k(c.h.out, c.w.out);
  float* const      scratch = s.scratch(r, worker);
  for (int64_t chunk = 0; chunk < k.count(c.images); chunk++) {
    const Area o = chunk_area(k, chunk);
    const Span  down = down_span(c.h, o.y, o.rows), across = down_span(c.w, o.x, o.columns);
    const Patch big = depthwise_patch(d, r.in(0) + o.image * c.h.in * c.w.in * C, c.h.in, c.w.in, down,
                                      across, scratch, s.big == 0);
    const Patch small = depthwise_patch(d, r.dy() + o.image * c.h.out * c.w.out * C, c.h.out, c.w.out,
                                        {o.y, o.rows}, {o.x, o.columns}, scratch + round_up(s.big, 16),
                                        s.small == 0);
    for (int64_t v = int64_t(first) * 16; v < int64_t(last) * 16; v += lanes) {
      depthwise_grad_chunk(c, {big.data + v, big.line, big.pixel}, {small.data + v, small.line, small.pixel},
                           o.rows, o.columns, r.dparameter(0) + v, chunk > 0);
    }
  }
}
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_elementwise
// One element at a time: activations, Add, Mul, Dropout. A task is a block of elements.
#ifdef NNLITE_ONCE
constexpr int64_t element_block = 4096;
static uint32_t blocks_of(int64_t n, int64_t block) { return static_cast<uint32_t>((n + block - 1) / block); }
static bool plan_tasks(KernelPlan& plan, int64_t count) {
  plan.tasks[0] = static_cast<uint32_t>(count);
  return true;
}
static bool plan_elements(const OpRun& r, KernelPlan& plan) {
  return plan_tasks(plan, blocks_of(r.in_numel(0), element_block));
}
#endif

namespace NNLITE_ISA {
// to = a, or to += a, in its first n elements.
NNLITE_VERB void give(float* to, vf a, int n, bool accumulate) {
  store_part(to, accumulate ? add(load_part(to, n), a) : a, n);
}

// f(i, n) for every vector of [i, end): n is lanes, for the last one what is left.
template <class F> NNLITE_VERB void each_vector(int64_t i, int64_t end, const F& f) {
  for (; i < end; i += lanes) f(i, static_cast<int>(smaller(end - i, lanes)));
}
template <class F> NNLITE_VERB void each_element(const OpRun& r, uint32_t first, uint32_t last, const F& f) {
  each_vector(first * element_block, smaller(last * element_block, r.out_numel()), f);
}

// dy at i, or through the ReLU that was fused; y is nullptr where none was.
NNLITE_VERB const float* mask_of(const OpRun& r) {
  return (r.fused & (fusion::mask_dy | fusion::mask_max)) != 0 ? r.y() : nullptr;
}
NNLITE_VERB vf masked(const float* y, const float* dy, int64_t i, int n) {
  const vf d = load_part(dy + i, n);
  return y == nullptr ? d : select(less(set(0.0f), load_part(y + i, n)), d, set(0.0f));
}
template <class A> NNLITE_RUN(activation_forward) {
  const A&     a = attributes_of<A>(r);
  const float* x = r.in(0);
  float*       y = r.out();
  each_element(r, first, last, [&a, x, y](int64_t i, int n) NNLITE_INLINED {
    store_part(y + i, value_of(a, load_part(x + i, n)), n);
  });
}
NNLITE_RUN(add_forward) {
  const vf floor = set(floor_of(r));
  each_element(r, first, last, [&r, floor](int64_t i, int n) NNLITE_INLINED {
    vf sum = load_part(r.in(0) + i, n);
    for (int k = 1; k < r.n_in; k++) sum = add(sum, load_part(r.in(k) + i, n));
    store_part(r.out() + i, max(floor, sum), n);
  });
}
NNLITE_RUN(mul_forward) {
  each_element(r, first, last, [&r](int64_t i, int n) NNLITE_INLINED {
    vf y = load_part(r.in(0) + i, n);
    for (int k = 1; k < r.n_in; k++) y = mul(y, load_part(r.in(k) + i, n));
    store_part(r.out() + i, y, n);
  });
}

// The random numbers of the elements of the vector at i.
NNLITE_VERB vf dropout_numbers(const OpRun& r, int64_t i) {
  constexpr int count = lanes < 4 ? 4 : lanes;
  float drawn[count];
  for (int k = 0; k < count; k += 4) {
    const Words w = random_block(r.context->seed, r.context->step, Purpose::dropout, r.node,
                                 static_cast<uint32_t>((i + k) / 4));
    for (int j = 0; j < 4; j++) drawn[k + j] = uniform_of(w.word[j]);
  }
  return load(drawn + (lanes < 4 ? i % 4 : 0));
}
// Where the element's random number is below p, zero; else x / (1 - p). Drawn again in backward.
NNLITE_VERB void drop(const OpRun& r, uint32_t first, uint32_t last, const float* from, float* to,
                      bool more) {
  const float p = attributes_of<Dropout>(r).p;
  const vf    limit = set(p), keep = set(1 / (1 - p));
  each_element(r, first, last, [=, &r](int64_t i, int n) NNLITE_INLINED {
    vf x = load_part(from + i, n);
    if (r.training) x = select(less(dropout_numbers(r, i), limit), set(0.0f), mul(x, keep));
    give(to + i, x, n, more);
  });
}
NNLITE_RUN(dropout_forward) { drop(r, first, last, r.in(0), r.out(), false); }

template <class A> NNLITE_RUN(activation_backward) {
  if (r.dx(0) == nullptr) return;
  const A&     a = attributes_of<A>(r);
  const float *y = r.y(), *dy = r.dy();
  float*       dx = r.dx(0);
  const bool   more = r.accumulate(0);
  each_element(r, first, last, [&a, y, dy, dx, more](int64_t i, int n) NNLITE_INLINED {
    give(dx + i, slope_times(a, load_part(y + i, n), load_part(dy + i, n)), n, more);
  });
}

// dx_k = dy; a dx may lie over dy.
NNLITE_RUN(add_backward) {
  const float* const y = mask_of(r);
  each_element(r, first, last, [&r, y](int64_t i, int n) NNLITE_INLINED {
    const vf dy = masked(y, r.dy(), i, n);
    for (int k = 0; k < r.n_in; k++) if (r.dx(k) != nullptr) give(r.dx(k) + i, dy, n, r.accumulate(k));
  });
}

// dx_k = dy times the other inputs
NNLITE_RUN(mul_backward) {
  each_element(r, first, last, [&r](int64_t i, int n) NNLITE_INLINED {
    const vf dy = load_part(r.dy() + i, n);
    for (int k = 0; k < r.n_in; k++) {
      if (r.dx(k) == nullptr) continue;
      vf dx = dy;
      for (int j = 0; j < r.n_in; j++) if (j != k) dx = mul(dx, load_part(r.in(j) + i, n));
      give(r.dx(k) + i, dx, n, r.accumulate(k));
    }
  });
}
NNLITE_RUN(dropout_backward) {
  if (r.dx(0) != nullptr) drop(r, first, last, r.dy(), r.dx(0), r.accumulate(0));
}

// to = from or to += from; the latter is what the executor does where an op does not accumulate by itself.
NNLITE_VERB void give_all(float* to, const float* from, int64_t count, bool accumulate) {
  each_vector(0, count, [=](int64_t i, int n) NNLITE_INLINED {
    give(to + i, load_part(from + i, n), n, accumulate);
  });
}
static void add_into(float* to, const float* from, int64_t n) { give_all(to, from, n, true); }
// to = from scale + shift: numbers of a data set as an input wants them.
NNLITE_VERB vf number(const float* p, int n) { return load_part(p, n); }
NNLITE_VERB vf number(const uint8_t* p, int n) { return to_float(load_bytes_part(p, n)); }
template <class T> static void convert(const T* from, int64_t count, float scale, float shift, float* to) {
  each_vector(0, count, [=](int64_t i, int n) NNLITE_INLINED {
    store_part(to + i, fma(number(from + i, n), set(scale), set(shift)), n);
  });
}

// Of a padded parameter: 16 lanes, folded as a tree.
static float sum_of_squares(const float* v, int64_t n) {
  vf sum[parts];
  NNLITE_EACH_PART sum[j] = set(0.0f);
  for (int64_t i = 0; i < n; i += 16)
    NNLITE_EACH_PART {
      const vf x = load(v + i + j * lanes);
      sum[j] = fma(x, x, sum[j]);
    }
  return tree_sum(sum);
}
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_pool
// Windows, channels as lanes. A task is one row of the tensor that is written, so no two tasks write the same
// place: forward gathers windows, backward goes through the windows that touch its row of x, in their order.
#ifdef NNLITE_ONCE
static bool plan_rows_of_y(const OpRun& r, KernelPlan& plan) {
  return plan_tasks(plan, int64_t(r.rows) * r.out_shape().dim[1]);
}
static bool plan_rows_of_x(const OpRun& r, KernelPlan& plan) {
  return r.dx(0) != nullptr && plan_tasks(plan, int64_t(r.rows) * r.in_shape(0).dim[1]);
}
static bool plan_max_pool2d(const OpRun& r, KernelPlan& plan) {
  return small_window(attributes_of<MaxPool2d>(r)) && plan_rows_of_y(r, plan);
}
static inline bool plan_max_pool2d_gradient(const OpRun& r, KernelPlan& plan) {
  return small_window(attributes_of<MaxPool2d>(r)) && plan_rows_of_x(r, plan);
}

static inline bool twos(const Axis& a) {
  return a.kernel == 2 && a.stride == 2 && a.padding == 0 && a.dilation == 1 && 2 * a.out <= a.in;
}
// Floats of a row of outputs that a vector may touch behind the channels of one: what is read there is not
// used, what is written there the next output replaces.
static inline int64_t spare_floats(const Axis& w, int64_t C) {
  return w.padding == 0 && (w.out - 1) * w.stride + w.extent() <= w.in ? w.out * C : 0;
}

static bool plan_concat(const OpRun& r, KernelPlan& plan) { return plan_tasks(plan, concat_runs(r)); }
// Outputs first .. last - 1 of an axis are those whose windows may read input i.
struct Reach { int64_t first, last; };
static inline Reach reach_of(const Axis& a, int64_t i) {
  const int64_t from = i + a.padding - (a.extent() - 1), last = (i + a.padding) / a.stride + 1;
  return {from <= 0 ? 0 : (from + a.stride - 1) / a.stride, smaller(last, a.out)};
}

static inline Reach row_reach(const AvgPool2d& a, int64_t h, const Shape& x, const Shape& y) {
  return reach_of(axes_of(a, 1, x, y).h, h);
}
static inline Reach row_reach(const AdaptiveAvgPool2d& a, int64_t h, const Shape& x, const Shape& y) {
  const Region back = region_of(a, 1, h, y, x);
  return {back.first, back.last};
}

static inline bool regions_overlap(const AvgPool2d& a, const Shape&, const Shape&) {
  return a.stride.h < a.kernel_size.h || a.stride.w < a.kernel_size.w;
}
static inline bool regions_overlap(const AdaptiveAvgPool2d&, const Shape& x, const Shape& y) {
  return x.dim[1] % y.dim[1] != 0 || x.dim[2] % y.dim[2] != 0;
}
#endif

namespace NNLITE_ISA {
// A row of windows over the channels: the first of the largest values, and its place kh kW + kw where
// backward will ask for it. All of them are 2 x 2, side by side, or they are any.
template <bool side_by_side>
static void max_row(const Axes& k, const Axis::Inside& down, const float* x, int64_t C, float* y,
                    uint8_t* place) {
  const int64_t row_step = k.w.in * C * k.h.dilation, column_step = C * k.w.dilation;
  const int64_t spare = spare_floats(k.w, C);
  for (int64_t ow = 0; ow < k.w.out; ow++, y += C, place += place == nullptr ? 0 : C) {
    const Axis::Inside across = side_by_side ? Axis::Inside{0, 2, 2 * ow} : k.w.inside(ow);
    const int64_t rows = side_by_side ? 2 : down.last - down.first;
    const int64_t columns = side_by_side ? 2 : across.last - across.first;
    const int64_t kernel_w = side_by_side ? 2 : k.w.kernel, first = down.first * kernel_w + across.first;
    const float* const from = x + across.input * C;
    each_vector(0, C, [=](int64_t c, int part) NNLITE_INLINED {
      const int n = spare - ow * C - c < lanes ? part : lanes;
      vf largest = rows <= 0 || columns <= 0 ? as_float(set(int32_t(0xFF800000u))) : load_part(from + c, n);
      vi where   = set(static_cast<int32_t>(first));
      for (int64_t kh = 0; kh < rows; kh++)
        for (int64_t kw = 0; kw < columns; kw++) {
          const vf value = load_part(from + kh * row_step + kw * column_step + c, n);
          const vm more  = wins(value, largest);
          largest = select(more, value, largest);
          where   = select(more, set(static_cast<int32_t>(first + kh * kernel_w + kw)), where);
        }
      store_part(y + c, largest, n);
      if (place != nullptr) store_bytes_part(place + c, where, n);
    });
  }
}
NNLITE_RUN(max_pool2d_forward) {
  const MaxPool2d& a = attributes_of<MaxPool2d>(r);
  const Axes       k = axes_of(a, a.dilation, r.in_shape(0), r.out_shape());
  const int64_t    C = r.out_shape().last();
  uint8_t* const   places = r.slot<uint8_t>(0);
  for (int64_t task = first; task < last; task++) {
    const Axis::Inside down = k.h.inside(task % k.h.out);
    const int64_t      at = task * k.w.out * C;
    (twos(k.h) && twos(k.w) ? max_row<true> : max_row<false>)(
        k, down, r.in(0) + (task / k.h.out * k.h.in + down.input) * k.w.in * C, C, r.out() + at,
        places == nullptr ? nullptr : places + at);
  }
}

// The mean of a region for the channels of every output.
template <class A> NNLITE_RUN(average_forward) {
  const A& a = attributes_of<A>(r);
  const Shape &x = r.in_shape(0), &y = r.out_shape();
  const int64_t W = x.dim[2], C = x.dim[3], oW = y.dim[2];
  for (int64_t task = first; task < last; task++) {
    const Region  rows  = region_of(a, 1, task % y.dim[1], x, y);
    const int64_t above = (task / y.dim[1] * x.dim[1] + rows.first) * W;
    for (int64_t ow = 0; ow < oW; ow++) {
      const Region  columns = region_of(a, 2, ow, x, y);
      const int64_t height = rows.last - rows.first, width = columns.last - columns.first;
      const float*  from = r.in(0) + (above + columns.first) * C;
      float* const  to = r.out() + (task * oW + ow) * C;
      const vf      count = set(static_cast<float>(rows.count * columns.count));
      each_vector(0, C, [=](int64_t c, int n) NNLITE_INLINED {
        vf sum = set(0.0f);
        for (int64_t h = 0; h < height; h++)
          for (int64_t w = 0; w < width; w++) sum = add(sum, load_part(from + (h * W + w) * C + c, n));
        store_part(to + c, div(sum, count), n);
      });
    }
  }
}
NNLITE_RUN(upsample_forward) {
  const Pair f = attributes_of<Upsample>(r).scale_factor;
  const Shape &x = r.in_shape(0), &y = r.out_shape();
  for (int64_t task = first; task < last; task++) {
    const int64_t above = task / y.dim[1] * x.dim[1] + task % y.dim[1] / f.h;
    float* to = r.out() + task * y.dim[2] * y.dim[3];
    for (int64_t w = 0; w < x.dim[2]; w++)
      for (int copy = 0; copy < f.w; copy++, to += y.dim[3])
        give_all(to, r.in(0) + (above * x.dim[2] + w) * x.dim[3], y.dim[3], false);
  }
}

// A task is one run of y.
NNLITE_RUN(concat_forward) {
  each_concat_run(r, first, last, [&r](int k, int64_t from, int64_t to, int64_t length) {
    give_all(r.out() + to, r.in(k) + from, length, false);
  });
}

// dy of a row of windows to the pixels that they chose in one row of x, whose places there start at `line`.
template <bool side_by_side>
static void max_row_backward(const Axes& k, const float* dy, const uint8_t* place, int64_t line, int64_t C,
                             const float* y, float* dx) {
  const bool    overlap = k.h.stride < k.h.extent() || k.w.stride < k.w.extent();
  const int64_t spare = side_by_side && C <= lanes ? spare_floats(k.w, C) : 0, step = C * k.w.dilation;
  for (int64_t ow = 0; ow < k.w.out; ow++, dy += C, y += y == nullptr ? 0 : C, place += C) {
    const Axis::Inside across = side_by_side ? Axis::Inside{0, 2, 2 * ow} : k.w.inside(ow);
    float* const       to = dx + across.input * C;
    each_vector(0, C, [=](int64_t c, int part) NNLITE_INLINED {
      const int n = spare - ow * C - c < lanes ? part : lanes;
      const vf  g = masked(y, dy, c, n);
      const vi  chosen = load_bytes_part(place + c, n);
      for (int64_t kw = across.first; kw < across.last; kw++) {
        const vf given = select(equal(chosen, set(static_cast<int32_t>(line + kw))), g, set(0.0f));
        give(to + (kw - across.first) * step + c, given, n, !side_by_side && overlap);
      }
    });
  }
}
NNLITE_RUN(max_pool2d_backward) {
  const MaxPool2d& a = attributes_of<MaxPool2d>(r);
  const Axes       k = axes_of(a, a.dilation, r.in_shape(0), r.out_shape());
  const int64_t    C = r.out_shape().last(), line = k.w.in * C;
  const bool       by_twos = twos(k.h) && twos(k.w);
  const float* const y = mask_of(r);
  for (int64_t task = first; task < last; task++) {
    float* const row = r.dx(0) + task * line;
    const Reach  down = reach_of(k.h, task % k.h.in);
    if (!by_twos || 2 * k.w.out < k.w.in || down.first == down.last)
      __builtin_memset(row, 0, static_cast<size_t>(line) * sizeof(float));
    for (int64_t oh = down.first; oh < down.last; oh++) {
      const int64_t above = task % k.h.in + k.h.padding - oh * k.h.stride;
      const int64_t at = (task / k.h.in * k.h.out + oh) * k.w.out * C;
      if (above % k.h.dilation == 0)
        (by_twos ? max_row_backward<true> : max_row_backward<false>)(
            k, r.dy() + at, r.slot<uint8_t>(0) + at, above / k.h.dilation * k.w.kernel, C,
            y == nullptr ? y : y + at, row);
    }
  }
}

// dy / count of one region to every pixel of one of its rows.
template <class A> NNLITE_RUN(average_backward) {
  const A& a = attributes_of<A>(r);
  const Shape &x = r.in_shape(0), &y = r.out_shape();
  const int64_t C = x.dim[3], row = x.dim[2] * C;
  const bool    overlap = regions_overlap(a, x, y);
  for (int64_t task = first; task < last; task++) {
    __builtin_memset(r.dx(0) + task * row, 0, static_cast<size_t>(row) * sizeof(float));
    const Reach down = row_reach(a, task % x.dim[1], x, y);
    for (int64_t oh = down.first; oh < down.last; oh++) {
      const int64_t height = region_of(a, 1, oh, x, y).count;
      const float*  dy     = r.dy() + (task / x.dim[1] * y.dim[1] + oh) * y.dim[2] * C;
      for (int64_t ow = 0; ow < y.dim[2]; ow++, dy += C) {
        const Region  columns = region_of(a, 2, ow, x, y);
        const int64_t width = columns.last - columns.first;
        const vf      count = set(static_cast<float>(height * columns.count));
        float* const  dx = r.dx(0) + task * row + columns.first * C;
        each_vector(0, C, [=](int64_t c, int n) NNLITE_INLINED {
          const vf share = div(load_part(dy + c, n), count);
          for (int64_t w = 0; w < width; w++) give(dx + w * C + c, share, n, overlap);
        });
      }
    }
  }
}

// dx of one pixel: the sum of dy over its copies.
NNLITE_RUN(upsample_backward) {
  const Pair    f = attributes_of<Upsample>(r).scale_factor;
  const int64_t W = r.in_shape(0).dim[2], C = r.in_shape(0).dim[3], row_step = W * f.w * C;
  const bool    more = r.accumulate(0);
  for (int64_t task = first; task < last; task++) {
    for (int64_t x = 0; x < W; x++) {
      const float* const dy = r.dy() + task * f.h * row_step + x * f.w * C;
      float* const       dx = r.dx(0) + (task * W + x) * C;
      each_vector(0, C, [=](int64_t c, int n) NNLITE_INLINED {
        vf sum = set(0.0f);
        for (int h = 0; h < f.h; h++)
          for (int w = 0; w < f.w; w++) sum = add(sum, load_part(dy + h * row_step + w * C + c, n));
        give(dx + c, sum, n, more);
      });
    }
  }
}
NNLITE_RUN(concat_backward) {
  each_concat_run(r, first, last, [&r](int k, int64_t to, int64_t from, int64_t length) {
    if (r.dx(k) != nullptr) give_all(r.dx(k) + to, r.dy() + from, length, r.accumulate(k));
  });
}
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_norm
// Batch norm over the pixels of a channel. x, y [P, C]. Statistics: chunks of 512 pixels, in each one chain
// per channel in pixel order, twice (the mean, then M2 = sum (x - mean)^2), merged in order: by P, C alone.
// Normalising goes over the flat tensor with a pattern of coefficients that makes whole vectors.
#ifdef NNLITE_ONCE
constexpr int64_t norm_chunk = 512;
// What both ops have in common, and how the shared scratch is divided.
struct NormRun {
  const OpRun& r;
  bool    affine, by_batch;
  float   eps;
  int64_t C, padded, pixels, chunks, pattern;  // pattern: floats of one

  explicit NNLITE_NOINLINE NormRun(const OpRun& run) : r(run) {
    BatchNorm2d a;
    __builtin_memcpy(&a, run.attributes, sizeof a);
    affine   = a.affine;
    by_batch = run.training || !a.track_running_stats;
    eps      = a.eps;
    C        = r.out_shape().last();
    padded   = round_up(C, 16);
    pixels   = r.out_numel() / C;
    chunks   = (pixels + norm_chunk - 1) / norm_chunk;
    for (pattern = C; pattern % 16 != 0 || pattern < 64; pattern *= 2) {}
  }
  size_t   bytes() const { return static_cast<size_t>(4 * pattern + chunks * 2 * padded) * sizeof(float); }
  // i: 0 .. 3
  float*   coefficients(int i) const { return reinterpret_cast<float*>(r.scratch) + i * pattern; }
  float*   sums(int64_t chunk, int i) const { return coefficients(4) + (chunk * 2 + i) * padded; }  // i: 0, 1
  int64_t  chunk_pixels(int64_t chunk) const { return smaller(norm_chunk, pixels - chunk * norm_chunk); }
  // A unit is sixteen channels of a chunk.
  int64_t  groups() const { return padded / 16; }
  int64_t  unit_pixels(int64_t unit) const { return chunk_pixels(unit / groups()); }
  int64_t  unit_place(int64_t unit) const { return unit / groups() * norm_chunk * C + unit % groups() * 16; }
  float*   unit_sums(int64_t unit, int i) const { return sums(unit / groups(), i) + unit % groups() * 16; }
  int64_t  block() const { return round_up(element_block, pattern); }
  const float* weight() const { return affine ? r.parameter(0) : nullptr; }
  const float* bias() const { return affine ? r.parameter(1) : nullptr; }
  const float* mean() const { return by_batch ? r.slot(0) : r.parameter(affine ? 2 : 0); }
  const float* var() const { return by_batch ? r.slot(1) : r.parameter(affine ? 3 : 1); }
};

static_assert(sizeof(BatchNorm1d) == sizeof(BatchNorm2d) &&
                  offsetof(BatchNorm1d, eps) == offsetof(BatchNorm2d, eps) &&
                  offsetof(BatchNorm1d, affine) == offsetof(BatchNorm2d, affine) &&
                  offsetof(BatchNorm1d, track_running_stats) == offsetof(BatchNorm2d, track_running_stats),
              "NormRun reads both");

// Stages: sums of chunks, where statistics are those of the batch; coefficients by channel; elements.
static bool plan_norm(const OpRun& r, KernelPlan& plan) {
  const NormRun n(r);
  plan.stages   = 3;
  plan.tasks[0] = n.by_batch ? static_cast<uint32_t>(n.chunks) : 0;
  plan.tasks[1] = static_cast<uint32_t>(n.groups());
  plan.tasks[2] = blocks_of(r.out_numel(), n.block());
  plan.scratch_shared = n.bytes();
  return true;
}
static inline bool plan_norm_gradient(const OpRun& r, KernelPlan& plan) {
  const NormRun n(r);
  (void)plan_norm(r, plan);
  plan.tasks[0] = static_cast<uint32_t>(n.chunks);
  if (r.dx(0) == nullptr) plan.tasks[2] = 0;
  return true;
}
#endif

namespace NNLITE_ISA {
struct Sixteen { vf part[parts]; };            // sixteen channels, zeros where there are fewer
NNLITE_VERB Sixteen load_sixteen(const float* p, int count = 16) {
  Sixteen s;
  NNLITE_EACH_PART s.part[j] = load_part(p + j * lanes, within(count, j * lanes));
  return s;
}
NNLITE_VERB void store_sixteen(float* p, const Sixteen& s, int count = 16) {
  NNLITE_EACH_PART store_part(p + j * lanes, s.part[j], within(count, j * lanes));
}
NNLITE_VERB void add_to(Sixteen& sum, const Sixteen& s) {
  NNLITE_EACH_PART sum.part[j] = add(sum.part[j], s.part[j]);
}
NNLITE_VERB int channels_of(const NormRun& n, int64_t c) { return static_cast<int>(smaller(16, n.C - c)); }

// Sums run over units: sixteen channels of a chunk. Several at once, so that no chain waits for itself.
constexpr int together = lanes == 16 ? 4 : lanes == 8 ? 2 : 1;
using SumUnits = void (*)(const NormRun&, int64_t unit, int channels);
static void sum_units(const NormRun& n, uint32_t first, uint32_t last, SumUnits one, SumUnits several) {
  const int64_t end = last * n.groups();
  for (int64_t unit = first * n.groups(); unit < end;) {
    const int64_t final = unit + together - 1;
    const bool    many = n.C % 16 == 0 && final < end && n.unit_pixels(final) == n.unit_pixels(unit);
    (many ? several : one)(n, unit, channels_of(n, unit % n.groups() * 16));
    unit += many ? together : 1;
  }
}

// Mean and M2 of K units; `channels` where they may be fewer than 16.
template <int K> static void unit_statistics(const NormRun& n, int64_t unit, int channels) {
  constexpr size_t units = static_cast<size_t>(K);
  const int        count = K > 1 ? 16 : channels;
  const int64_t    end = n.unit_pixels(unit) * n.C;
  const vf         pixels = set(static_cast<float>(n.unit_pixels(unit)));
  const float*     x[units];
  Sixteen          mean[units] = {}, m2[units] = {};
  NNLITE_UNROLL for (int k = 0; k < K; k++) x[k] = n.r.in(0) + n.unit_place(unit + k);
  for (int64_t at = 0; at < end; at += n.C)
    NNLITE_UNROLL for (int k = 0; k < K; k++) add_to(mean[k], load_sixteen(x[k] + at, count));
  NNLITE_UNROLL for (int k = 0; k < K; k++)
    NNLITE_EACH_PART mean[k].part[j] = div(mean[k].part[j], pixels);
  for (int64_t at = 0; at < end; at += n.C)
    NNLITE_UNROLL for (int k = 0; k < K; k++) {
      const Sixteen v = load_sixteen(x[k] + at, count);
      NNLITE_EACH_PART {
        const vf d = sub(v.part[j], mean[k].part[j]);
        m2[k].part[j] = fma(d, d, m2[k].part[j]);
      }
    }
  for (int k = 0; k < K; k++) {
    store_sixteen(n.unit_sums(unit + k, 0), mean[k]);
    store_sixteen(n.unit_sums(unit + k, 1), m2[k]);
  }
}

// Chan, Golub, LeVeque 1979. Leaves mean and biased variance in the slots.
static void merge_statistics(const NormRun& n, int64_t c, int count) {
  Sixteen mean = load_sixteen(n.sums(0, 0) + c), m2 = load_sixteen(n.sums(0, 1) + c);
  for (int64_t chunk = 1; chunk < n.chunks; chunk++) {
    const float before = float(chunk * norm_chunk), more = float(n.chunk_pixels(chunk));
    const float share  = more / (before + more);
    const Sixteen mean_b = load_sixteen(n.sums(chunk, 0) + c), m2_b = load_sixteen(n.sums(chunk, 1) + c);
    NNLITE_EACH_PART {
      const vf d = sub(mean_b.part[j], mean.part[j]);
      mean.part[j] = fma(d, set(share), mean.part[j]);
      m2.part[j]   = fma(mul(d, d), set(product(before, share)), add(m2.part[j], m2_b.part[j]));
    }
  }
  NNLITE_EACH_PART m2.part[j] = div(m2.part[j], set(static_cast<float>(n.pixels)));
  store_sixteen(n.r.slot(0) + c, mean, count);
  store_sixteen(n.r.slot(1) + c, m2, count);
}

// One coefficient of the channels c .. into every repeat of its pattern.
static NNLITE_NOINLINE void fill_pattern(const NormRun& n, int i, int64_t c, const Sixteen& s, int count) {
  for (int64_t at = c; at < n.pattern; at += n.C) store_sixteen(n.coefficients(i) + at, s, count);
}

// y = x scale + shift
static void normal_coefficients(const NormRun& n, int64_t c, int count) {
  const Sixteen mean = load_sixteen(n.mean() + c, count), var = load_sixteen(n.var() + c, count);
  Sixteen scale, shift;
  NNLITE_EACH_PART {
    const int64_t at = c + j * lanes;  // parameters are padded to whole sixteens
    norm_line(n.affine ? load(n.weight() + at) : set(1.0f), n.affine ? load(n.bias() + at) : set(0.0f),
              mean.part[j], inverse_deviation(var.part[j], n.eps), scale.part[j], shift.part[j]);
  }
  fill_pattern(n, 0, c, scale, count);
  fill_pattern(n, 1, c, shift, count);
}
NNLITE_RUN(batch_norm_forward) {
  const NormRun n(r);
  if (stage == 0) return sum_units(n, first, last, unit_statistics<1>, unit_statistics<together>);
  for (int64_t task = first; task < last && stage == 1; task++) {
    const int64_t c = task * 16;
    if (n.by_batch) merge_statistics(n, c, channels_of(n, c));
    normal_coefficients(n, c, channels_of(n, c));
  }
  if (stage < 2) return;
  const float *const scale = n.coefficients(0), *const shift = n.coefficients(1);
  const vf      floor = set(floor_of(r));
  const int64_t end = smaller(last * n.block(), r.out_numel());
  for (int64_t i = first * n.block(); i < end; i += n.pattern) {
    const float* const x = r.in(0) + i;
    float* const       y = r.out() + i;
    each_vector(0, smaller(n.pattern, end - i), [=](int64_t at, int few) NNLITE_INLINED {
      const vf s = load_part(scale + at, few), t = load_part(shift + at, few);
      store_part(y + at, max(floor, fma(load_part(x + at, few), s, t)), few);
    });
  }
}

// sum dy and sum dy (x - mean) of K units.
template <int K> static void unit_gradients(const NormRun& n, int64_t unit, int channels) {
  constexpr size_t units = static_cast<size_t>(K);
  const int        count = K > 1 ? 16 : channels;
  const int64_t    end = n.unit_pixels(unit) * n.C;
  const float*     x = n.r.in(0) != nullptr ? n.r.in(0) : n.r.dy();    // not kept where only sum dy is wanted
  const float     *y = mask_of(n.r), *dy = n.r.dy();
  int64_t          place[units];
  Sixteen          mean[units], sum[units] = {}, sum_x[units] = {};
  NNLITE_UNROLL for (int k = 0; k < K; k++) {
    place[k] = n.unit_place(unit + k);
    mean[k] = load_sixteen(n.mean() + (unit + k) % n.groups() * 16, count);
  }
  for (int64_t at = 0; at < end; at += n.C)
    NNLITE_UNROLL for (int k = 0; k < K; k++)
      NNLITE_EACH_PART {
        const int64_t i = place[k] + at + j * lanes;
        const int     few = within(count, j * lanes);
        const vf      d = masked(y, dy, i, few);
        sum[k].part[j]   = add(sum[k].part[j], d);
        sum_x[k].part[j] = fma(d, sub(load_part(x + i, few), mean[k].part[j]), sum_x[k].part[j]);
      }
  for (int k = 0; k < K; k++) {
    store_sixteen(n.unit_sums(unit + k, 0), sum[k]);
    store_sixteen(n.unit_sums(unit + k, 1), sum_x[k]);
  }
}

// With s = weight / sqrt(var + eps), t = x - mean, and through batch statistics:
//   dx = s dy + t (-s sum_x / (P (var + eps))) - s sum / P;   through stored ones dx = s dy.
//   dw = sum_x / sqrt(var + eps)      db = sum
static void gradient_coefficients(const NormRun& n, int64_t c, int count) {
  const Sixteen mean = load_sixteen(n.mean() + c, count), var = load_sixteen(n.var() + c, count);
  Sixteen sum = {}, sum_x = {}, scale, slope, shift;
  for (int64_t chunk = 0; chunk < n.chunks; chunk++) {
    add_to(sum, load_sixteen(n.sums(chunk, 0) + c));
    add_to(sum_x, load_sixteen(n.sums(chunk, 1) + c));
  }
  const vf share = set(n.by_batch ? -1.0f / static_cast<float>(n.pixels) : 0.0f);
  NNLITE_EACH_PART {
    const vf inverse = inverse_deviation(var.part[j], n.eps);
    sum_x.part[j] = mul(sum_x.part[j], inverse);
    scale.part[j] = n.affine ? mul(load(n.weight() + c + j * lanes), inverse) : inverse;
    slope.part[j] = mul(mul(mul(scale.part[j], inverse), sum_x.part[j]), share);
    shift.part[j] = mul(mul(scale.part[j], sum.part[j]), share);
  }
  if (n.affine && n.r.dparameter(0) != nullptr) store_sixteen(n.r.dparameter(0) + c, sum_x);
  if (n.affine && n.r.dparameter(1) != nullptr) store_sixteen(n.r.dparameter(1) + c, sum);
  if (n.r.dx(0) == nullptr) return;
  const Sixteen* const all[4] = {&mean, &scale, &slope, &shift};
  for (int i = 0; i < 4; i++) fill_pattern(n, i, c, *all[i], count);
}
NNLITE_RUN(batch_norm_backward) {
  const NormRun n(r);
  if (stage == 0) return sum_units(n, first, last, unit_gradients<1>, unit_gradients<together>);
  for (int64_t task = first; task < last && stage == 1; task++)
    gradient_coefficients(n, task * 16, channels_of(n, task * 16));
  if (stage < 2) return;
  const float *const mean = n.coefficients(0), *const scale = n.coefficients(1);
  const float *const slope = n.coefficients(2), *const shift = n.coefficients(3);
  const float* const mask = mask_of(r);
  const bool    more = r.accumulate(0);
  const int64_t end = smaller(last * n.block(), r.out_numel());
  for (int64_t i = first * n.block(); i < end; i += n.pattern) {
    const float *const x = r.in(0) + i, *const dy = r.dy() + i, *const y = mask == nullptr ? mask : mask + i;
    float* const       dx = r.dx(0) + i;
    each_vector(0, smaller(n.pattern, end - i), [=](int64_t at, int few) NNLITE_INLINED {
      const vf t = sub(load_part(x + at, few), load_part(mean + at, few));
      const vf rest = fma(t, load_part(slope + at, few), load_part(shift + at, few));
      give(dx + at, fma(load_part(scale + at, few), masked(y, dy, at, few), rest), few, more);
    });
  }
}
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_loss
// Softmax, LogSoftmax and the losses. A task is a chunk of 512 positions or elements; a sum over lanes is 16
// virtual lanes folded by a fixed tree; a loss adds its chunks in order and divides by the count.
#ifdef NNLITE_ONCE
constexpr int64_t loss_chunk = 512;
static int64_t positions_of(const OpRun& r) { return r.in_numel(0) / r.in_shape(0).last(); }
static bool plan_positions(const OpRun& r, KernelPlan& plan) {
  return plan_tasks(plan, blocks_of(positions_of(r), loss_chunk));
}
template <class A>
static bool plan_lines(const OpRun& r, KernelPlan& plan) {           // along the last dimension only
  const int dim = attributes_of<A>(r).dim;
  return (dim == -1 || dim == r.in_shape(0).rank - 1) && plan_positions(r, plan);
}
static bool plan_chunks(KernelPlan& plan, int64_t count) {
  plan.stages   = 2;
  plan.tasks[0] = blocks_of(count, loss_chunk);
  plan.scratch_shared = plan.tasks[0] * sizeof(float);
  return true;
}
static bool plan_class_loss(const OpRun& r, KernelPlan& plan) { return plan_chunks(plan, positions_of(r)); }
static bool plan_element_loss(const OpRun& r, KernelPlan& plan) { return plan_chunks(plan, r.in_numel(0)); }
// The second stage: the mean from the sums of the chunks.
static float* chunk_losses(const OpRun& r) { return reinterpret_cast<float*>(r.scratch); }
static void finish_loss(const OpRun& r, int64_t count) {
  float total = 0;
  for (int64_t i = 0; i < blocks_of(count, loss_chunk); i++) total += chunk_losses(r)[i];
  r.out()[0] = total / static_cast<float>(count);
}

alignas(64) constexpr int32_t lane_table[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#endif

namespace NNLITE_ISA {
#if NNLITE_PASS == NNLITE_PASS_AVX512           // few numbers of a network meet a loss: half a vector will do
using isa_avx2::cross_entropy_backward, isa_avx2::cross_entropy_forward, isa_avx2::element_loss_backward,
    isa_avx2::element_loss_forward, isa_avx2::log_softmax_backward, isa_avx2::log_softmax_forward,
    isa_avx2::nll_backward, isa_avx2::nll_forward, isa_avx2::softmax_backward, isa_avx2::softmax_forward;
#else
// Places c + j lanes + 0, 1, ...; and a where they are below count, else b.
NNLITE_VERB vi places(int64_t c, int j) {
  return add(load(lane_table), set(static_cast<int32_t>(c) + j * lanes));
}
NNLITE_VERB vf where_below(int64_t count, int64_t c, int j, vf a, vf b) {
  return c + (j + 1) * lanes <= count ? a : select(less(places(c, j), set(int32_t(count))), a, b);
}
NNLITE_VERB Sixteen load_line(const float* x, int64_t C, int64_t c) {
  return load_sixteen(x + c, static_cast<int>(smaller(16, C - c)));
}
NNLITE_VERB void store_line(float* y, int64_t C, int64_t c, const Sixteen& s) {
  store_sixteen(y + c, s, static_cast<int>(smaller(16, C - c)));
}
static float line_max(const float* x, int64_t C) {
  Sixteen largest;
  NNLITE_EACH_PART largest.part[j] = set(x[0]);
  for (int64_t c = 0; c < C; c += 16) {
    const Sixteen s = load_line(x, C, c);
    NNLITE_EACH_PART largest.part[j] = max(where_below(C, c, j, s.part[j], set(x[0])), largest.part[j]);
  }
  return tree_max(largest.part);
}

// exp(x - largest), zero beyond the line: subtracting the largest keeps exp in range for any logit.
static NNLITE_NOINLINE Sixteen line_exp(const float* x, int64_t C, int64_t c, float largest) {
  Sixteen s = load_line(x, C, c);
  NNLITE_EACH_PART s.part[j] = where_below(C, c, j, exp(sub(s.part[j], set(largest))), set(0.0f));
  return s;
}
static float line_exp_sum(const float* x, int64_t C, float largest, float* keep = nullptr) {
  Sixteen sum = {};
  for (int64_t c = 0; c < C; c += 16) {
    const Sixteen e = line_exp(x, C, c, largest);
    add_to(sum, e);
    if (keep != nullptr) store_line(keep, C, c, e);
  }
  return tree_sum(sum.part);
}
static float log_of(float x) {
  float all[lanes];
  store(all, log(set(x)));
  return all[0];
}

// Lines first .. last - 1 of the tasks.
struct Lines {
  int64_t first, last, C;
  Lines(const OpRun& r, uint32_t first_task, uint32_t last_task)
      : first(first_task * loss_chunk), last(smaller(last_task * loss_chunk, positions_of(r))),
        C(r.in_shape(0).last()) {}
};

static void softmax_values(const OpRun& r, uint32_t first, uint32_t last, bool of_log) {
  const Lines l(r, first, last);
  for (int64_t p = l.first; p < l.last; p++) {
    const float* x = r.in(0) + p * l.C;
    float*       y = r.out() + p * l.C;
    const float  largest = line_max(x, l.C), sum = line_exp_sum(x, l.C, largest, of_log ? nullptr : y);
    const vf     top = set(largest), total = set(of_log ? log_of(sum) : sum);
    for (int64_t c = 0; c < l.C; c += 16) {
      Sixteen s = load_line(of_log ? x : y, l.C, c);
      NNLITE_EACH_PART s.part[j] = of_log ? sub(sub(s.part[j], top), total) : div(s.part[j], total);
      store_line(y, l.C, c, s);
    }
  }
}
NNLITE_RUN(softmax_forward) { softmax_values(r, first, last, false); }
NNLITE_RUN(log_softmax_forward) { softmax_values(r, first, last, true); }

// The target's distribution q over the classes, from an index or from probabilities.
struct Target {
  const float*   probabilities;                // nullptr: index
  const int32_t* index;
  int64_t        C;
  float          keep, smooth;
  explicit Target(const OpRun& r) : C(r.in_shape(0).last()) {
    const CrossEntropyLoss& a = attributes_of<CrossEntropyLoss>(r);
    probabilities = a.probabilities ? r.in(1) : nullptr;
    index  = a.probabilities ? nullptr : r.in_i32(1);
    keep   = 1 - a.label_smoothing;
    smooth = a.label_smoothing / static_cast<float>(C);
  }
  NNLITE_NOINLINE Sixteen at(int64_t position, int64_t c) const {
    Sixteen q = {};
    if (probabilities != nullptr) q = load_line(probabilities + position * C, C, c);
    NNLITE_EACH_PART {
      const vf value = probabilities != nullptr ? fma(set(keep), q.part[j], set(smooth))
                                                : select(equal(places(c, j), set(index[position])),
                                                         set(keep + smooth), set(smooth));
      q.part[j] = where_below(C, c, j, value, set(0.0f));
    }
    return q;
  }
  float sum(int64_t position) const {
    if (probabilities == nullptr) return 1;
    Sixteen all = {};
    for (int64_t c = 0; c < C; c += 16) add_to(all, at(position, c));
    return tree_sum(all.part);
  }
};

// sum_c q_c (log sum - (x_c - largest)); of one class where q is 1, as 0 times infinity would be no number.
static float cross_entropy_at(const Target& target, const float* x, int64_t position) {
  const int64_t C = target.C;
  const float largest = line_max(x, C), log_sum = log_of(line_exp_sum(x, C, largest));
  if (target.index != nullptr && !(target.smooth > 0)) return log_sum - (x[target.index[position]] - largest);
  Sixteen loss = {};
  for (int64_t c = 0; c < C; c += 16) {
    const Sixteen s = load_line(x, C, c), q = target.at(position, c);
    NNLITE_EACH_PART
      loss.part[j] = fma(q.part[j], sub(set(log_sum), sub(s.part[j], set(largest))), loss.part[j]);
  }
  return tree_sum(loss.part);
}
NNLITE_RUN(cross_entropy_forward) {
  if (stage == 1) return finish_loss(r, positions_of(r));
  const Target target(r);
  for (uint32_t task = first; task < last; task++) {
    const Lines l(r, task, task + 1);
    float sum = 0;
    for (int64_t p = l.first; p < l.last; p++) sum += cross_entropy_at(target, r.in(0) + p * l.C, p);
    chunk_losses(r)[task] = sum;
  }
}
NNLITE_RUN(nll_forward) {
  if (stage == 1) return finish_loss(r, positions_of(r));
  for (uint32_t task = first; task < last; task++) {
    const Lines l(r, task, task + 1);
    float sum = 0;
    for (int64_t p = l.first; p < l.last; p++) sum -= r.in(0)[p * l.C + r.in_i32(1)[p]];
    chunk_losses(r)[task] = sum;
  }
}

// Losses of elements differ in formulas, which are called: few values of a network meet a loss.
using LossFormula = vf (*)(const void* attributes, vf x, vf t);
template <class A>
static vf loss_formula(const void* a, vf x, vf t) { return loss_of(*static_cast<const A*>(a), x, t); }
static void element_losses(const OpRun& r, uint32_t stage, uint32_t first, uint32_t last, LossFormula f) {
  const int64_t n = r.in_numel(0);
  if (stage == 1) return finish_loss(r, n);
  for (int64_t task = first; task < last; task++) {
    const int64_t end = smaller((task + 1) * loss_chunk, n);
    Sixteen sum = {};
    for (int64_t i = task * loss_chunk; i < end; i += 16) {
      const Sixteen x = load_line(r.in(0), end, i), t = load_line(r.in(1), end, i);
      NNLITE_EACH_PART {
        const vf loss = f(r.attributes, x.part[j], t.part[j]);
        sum.part[j] = add(sum.part[j], where_below(end - i, 0, j, loss, set(0.0f)));
      }
    }
    chunk_losses(r)[task] = tree_sum(sum.part);
  }
}
template <class A>
NNLITE_RUN(element_loss_forward) { element_losses(r, stage, first, last, loss_formula<A>); }

NNLITE_VERB void give_line(float* y, int64_t C, int64_t c, Sixteen s, bool accumulate) {
  if (accumulate) {
    const Sixteen before = load_line(y, C, c);
    NNLITE_EACH_PART s.part[j] = add(before.part[j], s.part[j]);
  }
  store_line(y, C, c, s);
}

// dx = y (dy - sum dy y), of the logarithm dx = dy - exp(y) sum dy
static void softmax_gradient(const OpRun& r, uint32_t first, uint32_t last, bool of_log) {
  const Lines l(r, first, last);
  for (int64_t p = l.first; p < l.last && r.dx(0) != nullptr; p++) {
    const float *y = r.y() + p * l.C, *dy = r.dy() + p * l.C;
    Sixteen sum = {};
    for (int64_t c = 0; c < l.C; c += 16) {
      const Sixteen a = load_line(y, l.C, c), b = load_line(dy, l.C, c);
      NNLITE_EACH_PART
        sum.part[j] = of_log ? add(sum.part[j], b.part[j]) : fma(a.part[j], b.part[j], sum.part[j]);
    }
    const float whole = tree_sum(sum.part);
    const vf    total = set(whole), minus = set(-whole);
    for (int64_t c = 0; c < l.C; c += 16) {
      Sixteen a = load_line(y, l.C, c), b = load_line(dy, l.C, c);
      NNLITE_EACH_PART
        a.part[j] = of_log ? fma(exp(a.part[j]), minus, b.part[j]) : mul(a.part[j], sub(b.part[j], total));
      give_line(r.dx(0) + p * l.C, l.C, c, a, r.accumulate(0));
    }
  }
}
NNLITE_RUN(softmax_backward) { softmax_gradient(r, first, last, false); }
NNLITE_RUN(log_softmax_backward) { softmax_gradient(r, first, last, true); }

// dx_c = (softmax(x)_c sum q - q_c) / positions
// and for probabilities dtarget_c = -keep log softmax(x)_c / positions
NNLITE_RUN(cross_entropy_backward) {
  const Target target(r);
  const Lines  l(r, first, last);
  const float  share = 1 / static_cast<float>(positions_of(r)), kept = product(-target.keep, share);
  for (int64_t p = l.first; p < l.last; p++) {
    const float* x = r.in(0) + p * l.C;
    const float  largest = line_max(x, l.C), sum = line_exp_sum(x, l.C, largest), sum_q = target.sum(p);
    for (int64_t c = 0; c < l.C && r.dx(0) != nullptr; c += 16) {
      Sixteen s = line_exp(x, l.C, c, largest), q = target.at(p, c);
      NNLITE_EACH_PART s.part[j] = mul(sub(mul(div(s.part[j], set(sum)), set(sum_q)), q.part[j]), set(share));
      give_line(r.dx(0) + p * l.C, l.C, c, s, r.accumulate(0));
    }
    if (r.dx(1) == nullptr) continue;
    const float log_sum = log_of(sum);
    for (int64_t c = 0; c < l.C; c += 16) {
      Sixteen s = load_line(x, l.C, c);
      NNLITE_EACH_PART s.part[j] = mul(sub(sub(s.part[j], set(largest)), set(log_sum)), set(kept));
      give_line(r.dx(1) + p * l.C, l.C, c, s, r.accumulate(1));
    }
  }
}
NNLITE_RUN(nll_backward) {
  if (r.dx(0) == nullptr) return;
  const Lines l(r, first, last);
  const float minus = -1 / static_cast<float>(positions_of(r));
  for (int64_t p = l.first; p < l.last; p++) {
    float* dx = r.dx(0) + p * l.C;
    if (!r.accumulate(0)) __builtin_memset(dx, 0, static_cast<size_t>(l.C) * sizeof(float));
    dx[r.in_i32(1)[p]] += minus;
  }
}

template <class A>
static vf slope_formula_x(const void* a, vf x, vf t) { return slope_by_x(*static_cast<const A*>(a), x, t); }
template <class A>
static vf slope_formula_t(const void* a, vf x, vf t) { return slope_by_t(*static_cast<const A*>(a), x, t); }
static inline void element_slopes(const OpRun& r, uint32_t first, uint32_t last, const LossFormula (&by)[2]) {
  const int64_t end = smaller(last * element_block, r.in_numel(0));
  const vf share = set(1 / static_cast<float>(r.in_numel(0)));
  for (int64_t i = first * element_block; i < end; i += lanes) {
    const int n = static_cast<int>(smaller(end - i, lanes));
    const vf  x = load_part(r.in(0) + i, n), t = load_part(r.in(1) + i, n);
    for (int k = 0; k < 2; k++)
      if (r.dx(k) != nullptr) give(r.dx(k) + i, mul(by[k](r.attributes, x, t), share), n, r.accumulate(k));
  }
}
template <class A> NNLITE_RUN(element_loss_backward) {
  element_slopes(r, first, last, {slope_formula_x<A>, slope_formula_t<A>});
}
#endif
}  // namespace NNLITE_ISA

// ================================================================================ >>kernel_optim
// One update each over a parameter and its state, whose padding to sixteens is zero and stays so.
#ifdef NNLITE_ONCE
static_assert(linear_inputs * 16 <= element_block, "linear_grad_parameter updates a piece in one task");
static inline bool plan_update(const OpRun& r, KernelPlan& plan) {
  return r.in_numel(0) % 16 == 0 && plan_elements(r, plan);
}
#endif

namespace NNLITE_ISA {
template <class A> NNLITE_RUN(optimizer_update) {
  const Update<A> rule(attributes_of<A>(r), *r.context);
  const float*  g = r.dparameter(0);
  float *const  w = r.parameter(0), *const m = r.slot(0), *const v = r.slot(1);
  const vf      scale = set(r.context->gradient_scale), bound = set(r.context->clip_value);
  const bool    clip = r.context->clip_value > 0;
  const int64_t end = smaller(last * element_block, r.in_numel(0));
  for (int64_t i = first * element_block; i < end; i += lanes) {
    const vf x = load(w + i), d = clipped(mul(load(g + i), scale), clip, bound);
    vf a = m != nullptr ? load(m + i) : set(0.0f), b = v != nullptr ? load(v + i) : set(0.0f);
    store(w + i, rule(x, fma(rule.decay, x, d), a, b));
    if (m != nullptr) store(m + i, a);
    if (v != nullptr) store(v + i, b);
  }
}
}  // namespace NNLITE_ISA
}  // inline namespace
}  // namespace nnlite
#undef NNLITE_PASS
#undef NNLITE_ISA
#endif  // NNLITE_PASS

#ifdef NNLITE_ONCE
#undef NNLITE_ONCE
#if !__has_include(NNLITE_SELF)
#error "nnlite includes itself: define NNLITE_SELF as the name by which it is found"
#endif
#define NNLITE_PLAIN                   // >>formulas for plain numbers
#include NNLITE_SELF

// ================================================================================ >>dispatch
// The passes of the kernel rooms for the other instruction sets, the choice of one, the rows of every op.
#if defined(NNLITE_KERNELS) && (defined(NNLITE_X86) || defined(NNLITE_NEON))
#if NNLITE_FIRST_PASS != NNLITE_PASS_BASE
#define NNLITE_PASS NNLITE_PASS_BASE
#define NNLITE_ISA  isa_base
#include NNLITE_SELF
#endif
#ifdef NNLITE_X86
NNLITE_REGION_AVX2
#define NNLITE_PASS NNLITE_PASS_AVX2
#define NNLITE_ISA  isa_avx2
#include NNLITE_SELF
NNLITE_REGION_END
#ifdef NNLITE_AVX512
NNLITE_REGION_AVX512
#define NNLITE_PASS NNLITE_PASS_AVX512
#define NNLITE_ISA  isa_avx512
#include NNLITE_SELF
NNLITE_REGION_END
#endif
#else
#define NNLITE_PASS NNLITE_PASS_NEON
#define NNLITE_ISA  isa_neon
#include NNLITE_SELF
#endif
#endif

// The run functions of a row, in the order of Isa; nullptr for a set that is not compiled here.
#ifdef NNLITE_AVX512
#define NNLITE_RUNS(f) {isa_scalar::f, isa_base::f, isa_avx2::f, isa_avx512::f, nullptr}
#elif defined(NNLITE_X86)
#define NNLITE_RUNS(f) {nullptr, isa_base::f, isa_avx2::f, nullptr, nullptr}
#elif defined(NNLITE_NEON)
#define NNLITE_RUNS(f) {isa_scalar::f, isa_base::f, nullptr, nullptr, isa_neon::f}
#elif NNLITE_FIRST_PASS == NNLITE_PASS_SCALAR
#define NNLITE_RUNS(f) {isa_scalar::f, nullptr, nullptr, nullptr, nullptr}
#else
#define NNLITE_RUNS(f) {nullptr, isa_base::f, nullptr, nullptr, nullptr}
#endif
namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
const char* isa_name(Isa isa) {
  static const char* const names[isa_count] = {"scalar", "base", "avx2", "avx512", "neon"};
  return names[static_cast<int>(isa)];
}

#ifdef NNLITE_X86
// Leaf 1: OSXSAVE, AVX, FMA. Leaf 7: AVX2, AVX512F. XCR0: the system keeps upper halves and mask registers.
static bool x86_has(Isa isa) {
  unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (~c & (1u << 27 | 1u << 28 | 1u << 12)) != 0) return false;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((~low & 0x06u) != 0 || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (b & 1u << 5) == 0) return false;
#ifdef NNLITE_AVX512
  if (isa == Isa::avx512) return (~low & 0xE0u) == 0 && (b & 1u << 16) != 0;
#endif
  return isa == Isa::avx2;
}
#endif

bool isa_present(Isa isa) {
#ifdef NNLITE_X86
  return static_cast<int>(isa) == NNLITE_FIRST_PASS || isa == Isa::base || x86_has(isa);
#elif defined(NNLITE_NEON)
  return isa == Isa::scalar || isa == Isa::base || isa == Isa::neon;
#else
  return static_cast<int>(isa) == NNLITE_FIRST_PASS;
#endif
}

static Isa chosen_isa() {
#if __STDC_HOSTED__
  const char* wish = getenv("NNLITE_ISA");
  for (int i = 0; wish != nullptr && i < isa_count; i++)
    if (strcmp(wish, isa_name(Isa(i))) == 0 && isa_present(Isa(i))) return Isa(i);
#endif
  static const Isa fastest_first[] = {Isa::avx512, Isa::avx2, Isa::neon, Isa::base};
  for (Isa isa : fastest_first) if (isa_present(isa)) return isa;
  return Isa::scalar;
}

static int isa_in_force = -1;  // not chosen yet; threads that choose at once choose the same
Isa current_isa() {
  if (__atomic_load_n(&isa_in_force, __ATOMIC_ACQUIRE) < 0) (void)set_isa(chosen_isa());
  return static_cast<Isa>(__atomic_load_n(&isa_in_force, __ATOMIC_ACQUIRE));
}
bool set_isa(Isa isa) {
  if (!isa_present(isa)) return false;
  __atomic_store_n(&multiply_adds_fuse, isa != Isa::base, __ATOMIC_RELAXED);
  __atomic_store_n(&isa_in_force, static_cast<int>(isa), __ATOMIC_RELEASE);
  return true;
}

// The rows of every op; the first whose plan accepts is used. f is the run function of all instruction sets.
#ifdef NNLITE_KERNELS
#define NNLITE_LOOPS NNLITE_COLD                 // plain loops hardly run
#define NNLITE_ROW(name, text, phase, chain, fuses, plan, f)                                                 \
  static const Kernel name##_row = {text, phase, chain, fuses, plan, NNLITE_RUNS(f)};
#define NNLITE_ROWS(op, ...) static const Kernel* const op##_kernels[] = {__VA_ARGS__ nullptr};
#else
#define NNLITE_LOOPS
#define NNLITE_ROW(...)
#define NNLITE_ROWS(op, ...) static const Kernel* const op##_kernels[] = {nullptr};
#endif
#ifdef NNLITE_NO_TRAINING
#define NNLITE_TRAINING(...)
#else
#define NNLITE_TRAINING(...) __VA_ARGS__
#endif

// Rows: forward and both gradients, whose names begin with f; forward f and backward b; an optimizer.
#define NNLITE_PHASE(f, phase, chain, fuses)                                                                 \
  NNLITE_ROW(f##_##phase, #f, Phase::phase, chain, fuses, f##_##phase##_plan, f##_##phase)
#define NNLITE_THREE(f, chain, fuses_y, fuses_dw)                                                            \
  NNLITE_PHASE(f, forward, chain, fuses_y)                                                                   \
  NNLITE_TRAINING(NNLITE_PHASE(f, grad_input, chain, fusion::mask_dx)                                        \
                  NNLITE_PHASE(f, grad_parameter, chain, fuses_dw))
#define NNLITE_THREE_ROWS(f) &f##_forward_row, NNLITE_TRAINING(&f##_grad_input_row, &f##_grad_parameter_row,)
#define NNLITE_PAIR(op, plan_f, f, plan_b, b) NNLITE_FUSED_PAIR(op, 0, plan_f, f, 0, plan_b, b)
#define NNLITE_FUSED_PAIR(op, fuses_f, plan_f, f, fuses_b, plan_b, b)                                        \
  NNLITE_ROW(op##_forward, #op, Phase::forward, 1, fuses_f, plan_f, f)                                       \
  NNLITE_TRAINING(NNLITE_ROW(op##_backward, #op, Phase::backward, 1, fuses_b, plan_b, b))                    \
  NNLITE_ROWS(op, &op##_forward_row, NNLITE_TRAINING(&op##_backward_row,))
#define NNLITE_UPDATE(Type, op)                                                                              \
  NNLITE_TRAINING(NNLITE_ROW(op, #op, Phase::update, 1, 0, plan_update, optimizer_update<Type>))             \
  NNLITE_ROWS(op, NNLITE_TRAINING(&op##_row,))
#define NNLITE_ACTIVATION(Type, op)                                                                          \
  NNLITE_PAIR(op, plan_elements, activation_forward<Type>, plan_elements, activation_backward<Type>)
#define NNLITE_AVERAGE(Type, op)                                                                             \
  NNLITE_PAIR(op, plan_rows_of_y, average_forward<Type>, plan_rows_of_x, average_backward<Type>)
#define NNLITE_NORM(op)                                                                                      \
  NNLITE_FUSED_PAIR(op, fusion::relu, plan_norm, batch_norm_forward, fusion::mask_dy, plan_norm_gradient,    \
                    batch_norm_backward)
#define NNLITE_ELEMENT_LOSS(Type, op)                                                                        \
  NNLITE_PAIR(op, plan_element_loss, element_loss_forward<Type>, plan_elements, element_loss_backward<Type>)

NNLITE_TRAINING(NNLITE_PHASE(col2im, grad_input, 4, fusion::mask_dx))
NNLITE_THREE(conv2d, 1, fusion::norm | fusion::relu, 0)
NNLITE_THREE(conv_transpose2d, 1, fusion::norm | fusion::relu, 0)
NNLITE_THREE(depthwise, 2, fusion::norm | fusion::relu, 0)
NNLITE_THREE(linear, 1, fusion::relu, fusion::update)
NNLITE_THREE(winograd, 3, fusion::norm | fusion::relu, 0)
NNLITE_ROWS(conv2d, NNLITE_TRAINING(&col2im_grad_input_row,) NNLITE_THREE_ROWS(winograd)
                    NNLITE_THREE_ROWS(conv2d) NNLITE_THREE_ROWS(depthwise))
NNLITE_ROWS(conv_transpose2d, NNLITE_THREE_ROWS(conv_transpose2d))
NNLITE_ROWS(flatten, )
NNLITE_ROWS(linear, NNLITE_THREE_ROWS(linear))
NNLITE_UPDATE(Adagrad, adagrad)
NNLITE_UPDATE(Adam, adam)
NNLITE_UPDATE(AdamW, adamw)
NNLITE_AVERAGE(AdaptiveAvgPool2d, adaptive_avg_pool2d)
NNLITE_FUSED_PAIR(add, fusion::relu, plan_elements, add_forward, fusion::mask_dy, plan_elements, add_backward)
NNLITE_AVERAGE(AvgPool2d, avg_pool2d)
NNLITE_NORM(batch_norm1d)
NNLITE_NORM(batch_norm2d)
NNLITE_ELEMENT_LOSS(BCELoss, bce_loss)
NNLITE_ELEMENT_LOSS(BCEWithLogitsLoss, bce_with_logits_loss)
NNLITE_PAIR(concat, plan_concat, concat_forward, plan_concat, concat_backward)
NNLITE_PAIR(cross_entropy_loss, plan_class_loss, cross_entropy_forward, plan_positions,
            cross_entropy_backward)
NNLITE_PAIR(dropout, plan_elements, dropout_forward, plan_elements, dropout_backward)
NNLITE_ACTIVATION(ELU, elu)
NNLITE_ELEMENT_LOSS(HuberLoss, huber_loss)
NNLITE_ELEMENT_LOSS(L1Loss, l1_loss)
NNLITE_ACTIVATION(LeakyReLU, leaky_relu)
NNLITE_PAIR(log_softmax, plan_lines<LogSoftmax>, log_softmax_forward, plan_lines<LogSoftmax>,
            log_softmax_backward)
NNLITE_FUSED_PAIR(max_pool2d, 0, plan_max_pool2d, max_pool2d_forward, fusion::mask_max,
                  plan_max_pool2d_gradient, max_pool2d_backward)
NNLITE_ELEMENT_LOSS(MSELoss, mse_loss)
NNLITE_PAIR(mul, plan_elements, mul_forward, plan_elements, mul_backward)
NNLITE_PAIR(nll_loss, plan_class_loss, nll_forward, plan_positions, nll_backward)
NNLITE_ACTIVATION(ReLU, relu)
NNLITE_UPDATE(RMSprop, rmsprop)
NNLITE_UPDATE(SGD, sgd)
NNLITE_ACTIVATION(Sigmoid, sigmoid)
NNLITE_PAIR(softmax, plan_lines<Softmax>, softmax_forward, plan_lines<Softmax>, softmax_backward)
NNLITE_ACTIVATION(Tanh, tanh)
NNLITE_PAIR(upsample, plan_rows_of_y, upsample_forward, plan_rows_of_x, upsample_backward)

// Loops over whole arrays, for the executor and the trainer, by the instruction set in force: to += from,
// to = from scale + shift, and the sum of the squares of a multiple of 16.
#ifdef NNLITE_KERNELS
#define NNLITE_BY_ISA(f, ...)                                                             \
  static const decltype(&NNLITE_FIRST_ISA::f) runs[isa_count] = NNLITE_RUNS(f);           \
  return runs[static_cast<int>(current_isa())](__VA_ARGS__)
static inline void add_into(real* to, const real* from, int64_t n) { NNLITE_BY_ISA(add_into, to, from, n); }
template <class T> static void convert(const T* from, int64_t n, float scale, float shift, real* to) {
  NNLITE_BY_ISA(convert<T>, from, n, scale, shift, to);
}
static inline real sum_of_squares(const real* v, int64_t n) { NNLITE_BY_ISA(sum_of_squares, v, n); }
#else
static inline void add_into(real* to, const real* from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] += from[i];
}
template <class T> static void convert(const T* from, int64_t n, float scale, float shift, real* to) {
  for (int64_t i = 0; i < n; i++) to[i] = madd(real(from[i]), real(scale), real(shift));
}
static inline real sum_of_squares(const real* v, int64_t n) {
  real sum = 0;
  for (int64_t i = 0; i < n; i++) sum += v[i] * v[i];
  return sum;
}
#endif

// ================================================================================ >>op_activation
// y = f(x) and dx = dy dy/dx by >>formulas. y alone gives dy/dx, so that x need not be kept: its sign must be
// that of x, so a negative slope or alpha is a bad attribute.        x [...] -> y [...]
template <class A> static bool valid(const A&) { return true; }          // unless one of the next says more
static bool valid(const ELU& a) { return a.alpha >= 0 && is_finite(a.alpha); }
static bool valid(const LeakyReLU& a) { return a.negative_slope >= 0 && is_finite(a.negative_slope); }
template <class A> static Status activation_shape(A& a, OpShape& s) {
  if (!valid(a)) return Status::bad_attribute;
  if (!real_input(s, 0)) return Status::bad_shape;
  s.dx_reads_out = true;
  return set_out(s, s.in[0]);
}

template <class A> static void activation_forward(const A& a, const OpRun& r) {
  const real* x = r.in(0);
  real*       y = r.out();
  for (int64_t i = 0, n = r.out_numel(); i < n; i++) y[i] = plain::value_of(a, x[i]);
}

template <class A> static void activation_backward(const A& a, const OpRun& r) {
  if (r.dx(0) == nullptr) return;
  const real *y = r.y(), *dy = r.dy();
  for (int64_t i = 0, n = r.out_numel(); i < n; i++)
    give(r.dx(0), i, plain::slope_times(a, y[i], dy[i]), r.accumulate(0));
}

template <class T, void (*f)(const T&, const OpRun&)>
NNLITE_LOOPS void loops_thunk(const void* attributes, const OpRun& run) { op_thunk<T, f>(attributes, run); }

// A layer or loss of this header, whose functions are called family_shape, family_forward, family_backward.
#define NNLITE_DEFINE_BUILT_IN(Type, prefix, family, min_in, max_in, trait_bits, commit, ...)                \
  NNLITE_DEFINE_ROW(Type, prefix, #Type, 1, min_in, max_in, trait_bits, (shape_thunk<Type, family##_shape>), \
                    (loops_thunk<Type, family##_forward>),                                                   \
                    NNLITE_BACKWARD(loops_thunk, Type, family##_backward), commit, nullptr,                  \
                    prefix##_kernels, __VA_ARGS__)
#define NNLITE_DEFINE_LAYER(Type, prefix, family, trait_bits, ...)                                           \
  NNLITE_DEFINE_BUILT_IN(Type, prefix, family, 1, 1, trait_bits, nullptr, __VA_ARGS__)

constexpr uint32_t pointwise = traits::elementwise | traits::accumulates;
NNLITE_DEFINE_LAYER(ELU, elu, activation, pointwise, NNLITE_FIELD(1, alpha));
NNLITE_DEFINE_LAYER(LeakyReLU, leaky_relu, activation, pointwise, NNLITE_FIELD(1, negative_slope));
NNLITE_DEFINE_LAYER(ReLU, relu, activation, traits::relu | pointwise, NNLITE_NO_FIELDS);
NNLITE_DEFINE_LAYER(Sigmoid, sigmoid, activation, pointwise, NNLITE_NO_FIELDS);
NNLITE_DEFINE_LAYER(Tanh, tanh, activation, pointwise, NNLITE_NO_FIELDS);

// ================================================================================ >>op_arithmetic
// y = a + b (+ c ...) and y = a b (c ...), left to right. All inputs and y [...]
static inline real combined(const Add&, real a, real b) { return a + b; }
static inline real combined(const Mul&, real a, real b) { return a * b; }
// Element i of dx_k: dy, and dy times the product of the other inputs.
static inline real slope_times(const Add&, const OpRun&, int, int64_t, real dy) { return dy; }
static inline real slope_times(const Mul&, const OpRun& r, int k, int64_t i, real dy) {
  for (int j = 0; j < r.n_in; j++) if (j != k) dy = product(dy, r.in(j)[i]);
  return dy;
}

static Status arithmetic_shape(Add&, OpShape& s) {
  s.expected = s.in[0];
  for (int i = 0; i < s.n_in; i++) if (!real_input(s, i) || s.in[i] != s.in[0]) return Status::bad_shape;
  return set_out(s, s.in[0]);
}
static Status arithmetic_shape(Mul&, OpShape& s) {
  Add same;
  s.dx_reads_in = (1u << s.n_in) - 1;
  return arithmetic_shape(same, s);
}

template <class A> static void arithmetic_forward(const A& a, const OpRun& r) {
  for (int64_t i = 0, n = r.out_numel(); i < n; i++) {
    real y = r.in(0)[i];
    for (int k = 1; k < r.n_in; k++) y = combined(a, y, r.in(k)[i]);
    r.out()[i] = y;
  }
}

template <class A> static void arithmetic_backward(const A& a, const OpRun& r) {
  for (int64_t i = 0, n = r.out_numel(); i < n; i++) {
    const real dy = r.dy()[i];                               // first: dx may lie over dy
    for (int k = 0; k < r.n_in; k++)
      if (r.dx(k) != nullptr) give(r.dx(k), i, slope_times(a, r, k, i, dy), r.accumulate(k));
  }
}
NNLITE_DEFINE_BUILT_IN(Add, add, arithmetic, 2, max_inputs, pointwise, nullptr, NNLITE_NO_FIELDS);
NNLITE_DEFINE_BUILT_IN(Mul, mul, arithmetic, 2, max_inputs, pointwise, nullptr, NNLITE_NO_FIELDS);

// ================================================================================ >>op_batch_norm
// y = x scale + shift by channel, scale = weight / sqrt(var + eps), shift = bias - mean scale.
// x, y [N, ..., C]   weight, bias, running_mean, running_var [C]
// mean and var are those of the batch while training (slot 0 and slot 1, var biased), else the running ones.
static bool norm_input(const BatchNorm1d&, OpShape& s) {
  return rows_input(s, 0) && (s.in[0].rank == 2 || s.in[0].rank == 3);
}
static bool norm_input(const BatchNorm2d&, OpShape& s) { return image_input(s); }
template <class A> static Status batch_norm_shape(A& a, OpShape& s) {
  if (!norm_input(a, s)) return Status::bad_shape;
  if (!(a.eps > 0) || !is_finite(a.eps) || !(a.momentum >= 0 && a.momentum <= 1))
    return Status::bad_attribute;
  NNLITE_TRY(infer_last(s, a.num_features));
  NNLITE_TRY(set_out(s, s.in[0]));
  const int32_t C = a.num_features;
  if (a.affine) {
    NNLITE_TRY(add_parameter(s, vector_parameter("weight", Role::weight, Fill::ones, C)));
    NNLITE_TRY(add_parameter(s, vector_parameter("bias", Role::bias, Fill::zeros, C)));
  }
  if (a.track_running_stats) {
    NNLITE_TRY(add_parameter(s, vector_parameter("running_mean", Role::statistic, Fill::zeros, C)));
    NNLITE_TRY(add_parameter(s, vector_parameter("running_var", Role::statistic, Fill::ones, C)));
  }
  s.n_slots  = 2;
  // statistics of the batch alone: forward reads them, too, whether or not backward will
  const Keep keep = a.track_running_stats ? Keep::saved : Keep::scratch;
  s.slots[0] = s.slots[1] = SlotSpec{keep, real_dtype, false, C};
  s.dx_reads_in = s.dw_reads_in = 1;
  return Status::ok;
}

// Statistics of channel c: of the batch while training, and always where none are kept.
template <class A>
static bool by_batch(const A& a, const OpRun& r) { return r.training || !a.track_running_stats; }
template <class A> static real mean_of(const A& a, const OpRun& r, int c) {
  return by_batch(a, r) ? r.slot(0)[c] : r.parameter(a.affine ? 2 : 0)[c];
}
template <class A> static real inverse_deviation(const A& a, const OpRun& r, int c) {
  const real var = by_batch(a, r) ? r.slot(1)[c] : r.parameter(a.affine ? 3 : 1)[c];
  return 1 / real_sqrt(var + real(a.eps));
}

// Mean and biased variance of channel c; two passes, so that nothing cancels.
static void channel_statistics(const OpRun& r, int C, int c) {
  const real*   x = r.in(0);
  const int64_t n = r.in_numel(0) / C;
  real sum = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i * C + c];
  const real mean = sum / static_cast<real>(n);
  for (int64_t i = 0; i < n; i++) squares = madd(x[i * C + c] - mean, x[i * C + c] - mean, squares);
  r.slot(0)[c] = mean;
  r.slot(1)[c] = squares / static_cast<real>(n);
}

template <class A> static void batch_norm_forward(const A& a, const OpRun& r) {
  const int C = a.num_features;
  for (int c = 0; c < C; c++) {
    if (by_batch(a, r)) channel_statistics(r, C, c);
    const real inverse = inverse_deviation(a, r, c);
    const real scale   = a.affine ? product(r.parameter(0)[c], inverse) : inverse;
    const real shift   = madd(-mean_of(a, r, c), scale, a.affine ? r.parameter(1)[c] : real(0));
    for (int64_t i = c, n = r.in_numel(0); i < n; i += C) r.out()[i] = madd(r.in(0)[i], scale, shift);
  }
}

// With xhat = (x - mean) / sqrt(var + eps) over the n values of a channel:
//   dw = sum dy xhat     db = sum dy     dx = weight / sqrt(var + eps) (dy - db / n - xhat dw / n)
// and through stored statistics, which do not depend on x: dx = weight / sqrt(var + eps) dy.
template <class A> static void batch_norm_backward(const A& a, const OpRun& r) {
  const int     C = a.num_features;
  const int64_t numel = r.in_numel(0);
  const real   *x = r.in(0), *dy = r.dy();
  real *const   dw = a.affine ? r.dparameter(0) : nullptr, *const db = a.affine ? r.dparameter(1) : nullptr;
  if (dw != nullptr) zero(dw, round_up(C, panel));
  if (db != nullptr) zero(db, round_up(C, panel));
  const bool through = by_batch(a, r) && r.dx(0) != nullptr;
  for (int c = 0; c < C; c++) {
    const real mean = mean_of(a, r, c), inverse = inverse_deviation(a, r, c);
    real sum = 0, sum_xhat = 0;
    for (int64_t i = c; i < numel; i += C) sum += dy[i];
    for (int64_t i = c; i < numel && (through || dw != nullptr); i += C)
      sum_xhat = madd(dy[i], product(x[i] - mean, inverse), sum_xhat);
    if (dw != nullptr) dw[c] = sum_xhat;
    if (db != nullptr) db[c] = sum;
    if (r.dx(0) == nullptr) continue;
    const real scale = a.affine ? product(r.parameter(0)[c], inverse) : inverse;
    const real n = static_cast<real>(numel / C), by_mean = sum / n, by_xhat = sum_xhat / n;
    for (int64_t i = c; i < numel; i += C) {
      const real left = through ? madd(-product(x[i] - mean, inverse), by_xhat, dy[i] - by_mean) : dy[i];
      give(r.dx(0), i, product(scale, left), r.accumulate(0));
    }
  }
}

// running = (1 - momentum) running + momentum statistic; var is unbiased; of one value a channel it is zero.
template <class A> static void batch_norm_commit(const void* attributes, const OpRun& r) {
  const A& a = *static_cast<const A*>(attributes);
  if (!a.track_running_stats) return;
  const int64_t n = r.in_numel(0) / a.num_features;
  const real unbias = real(n) / real(n > 1 ? n - 1 : 1), momentum = real(a.momentum);
  real *const mean = r.parameter(a.affine ? 2 : 0), *const var = r.parameter(a.affine ? 3 : 1);
  for (int c = 0; c < a.num_features; c++) {
    mean[c] = madd(momentum, r.slot(0)[c] - mean[c], mean[c]);
    var[c]  = madd(momentum, product(r.slot(1)[c], unbias) - var[c], var[c]);
  }
}

constexpr uint32_t norm_traits = traits::norm | traits::mixes_batch | traits::stateful | traits::accumulates;
#define NNLITE_DEFINE_BATCH_NORM(Type, prefix)                                                               \
  NNLITE_DEFINE_BUILT_IN(Type, prefix, batch_norm, 1, 1, norm_traits, batch_norm_commit<Type>,               \
                         NNLITE_FIELD(1, num_features), NNLITE_FIELD(2, eps), NNLITE_FIELD(3, momentum),     \
                         NNLITE_FIELD(4, affine), NNLITE_FIELD(5, track_running_stats))
NNLITE_DEFINE_BATCH_NORM(BatchNorm1d, batch_norm1d);
NNLITE_DEFINE_BATCH_NORM(BatchNorm2d, batch_norm2d);

// ================================================================================ >>op_concat
// y = the inputs one after another along dim. x_k [N, A.., D_k, B..] -> y [N, A.., sum D_k, B..]
static Status concat_shape(Concat& a, OpShape& s) {
  const int dim = dimension(a.dim, s.in[0].rank);
  if (dim < 0) return Status::bad_attribute;
  Shape   out   = s.in[0];
  int64_t total = 0;
  for (int k = 0; k < s.n_in; k++) {
    if (!rows_input(s, k)) return Status::bad_shape;
    Shape other = s.in[k];
    s.expected = out;
    other.dim[dim] = s.expected.dim[dim] = 0;
    if (other != s.expected) return Status::bad_shape;
    total += s.in[k].dim[dim];
  }
  if (total > max_elements) return Status::limit_exceeded;
  out.dim[dim] = static_cast<int32_t>(total);
  return set_out(s, out);
}

static void concat_forward(const Concat&, const OpRun& r) {
  each_concat_run(r, 0, concat_runs(r), [&](int k, int64_t from, int64_t to, int64_t length) {
    for (int64_t i = 0; i < length; i++) r.out()[to + i] = r.in(k)[from + i];
  });
}
static void concat_backward(const Concat&, const OpRun& r) {
  each_concat_run(r, 0, concat_runs(r), [&](int k, int64_t to, int64_t from, int64_t length) {
    if (r.dx(k) == nullptr) return;
    for (int64_t i = 0; i < length; i++) give(r.dx(k), to + i, r.dy()[from + i], r.accumulate(k));
  });
}
NNLITE_DEFINE_BUILT_IN(Concat, concat, concat, 1, max_inputs, traits::accumulates, nullptr,
                       NNLITE_FIELD(1, dim));

// ================================================================================ >>op_conv2d
// y[n,oh,ow,o] = b[o] + sum x[n,ih,iw,i] w[o,i,kh,kw], ih = oh stride - padding + kh dilation, likewise iw
// x [N, H, W, I]   weight [O, I/groups, kH, kW]   bias [O]   ->   y [N, oH, oW, O]
// An output channel sees the I/groups inputs of its own group. groups = I = O is a depthwise convolution.
static ParameterSpec weight_of(const Conv2d& a) {
  if (is_depthwise(a)) return weight_parameter(Layout::depthwise, a.out_channels, 1, a.kernel_size);
  return weight_parameter(Layout::conv, a.out_channels, a.in_channels / a.groups, a.kernel_size, a.groups);
}

// The rest is that of both convolutions but for the size of y, and which way forward goes (see Conv).
template <class A> constexpr bool goes_down = false;
template <> constexpr bool goes_down<Conv2d> = true;
static int64_t conv_pixels(const Conv2d&, const Axis& k, int Pair::*) { return k.places(); }
template <class A> static Status conv_shape(A& a, OpShape& s) {
  if (!image_input(s)) return Status::bad_shape;
  NNLITE_TRY(infer_last(s, a.in_channels));
  const Axes k = axes_of(a, a.dilation, s.in[0], s.in[0]);
  if (a.out_channels <= 0 || a.groups <= 0 || !k.h.valid() || !k.w.valid()) return Status::bad_attribute;
  if (a.in_channels % a.groups != 0 || a.out_channels % a.groups != 0 || !valid(a))
    return Status::bad_attribute;
  NNLITE_TRY(set_image_out(s, conv_pixels(a, k.h, &Pair::h), conv_pixels(a, k.w, &Pair::w), a.out_channels));
  NNLITE_TRY(add_weight_and_bias(s, weight_of(a), a.bias, a.out_channels));
  s.macs = (goes_down<A> ? s.out : s.in[0]).row_numel() * s.parameters[0].fan_in;
  return Status::ok;
}

// small = start + down of big, and big = start + up of small (see Conv); added to what is there if asked.
template <bool down>
static void conv_sum(const Conv& c, const ParameterSpec& weight, const real* from, const real* w,
                     const real* start, real* to, bool more) {
  const Conv::Side in = c.side(down), out = c.side(!down);
  const int64_t    I = in.channels, O = out.channels;
  for (int64_t n = 0; n < c.images; n++)
  for (int64_t h = 0; h < out.H; h++)
  for (int64_t x = 0; x < out.W; x++)
  for (int64_t o = 0; o < c.groups * O; o++) {
    const int64_t first = o / O * I;
    real sum = start == nullptr ? 0 : start[o];
    for (int64_t kh = 0; kh < c.h.kernel; kh++)
    for (int64_t kw = 0; kw < c.w.kernel; kw++) {
      const int64_t from_h = down ? c.h.input(h, kh) : c.h.output(h, kh);
      const int64_t from_x = down ? c.w.input(x, kw) : c.w.output(x, kw);
      if (from_h < 0 || from_x < 0) continue;
      const real* v = from + ((n * in.H + from_h) * in.W + from_x) * c.groups * I + first;
      for (int64_t i = 0; i < I; i++) {
        const int64_t s = down ? o : first + i, b = down ? i : o % O;      // channels, small and big
        sum = madd(v[i], w[parameter_index(weight, s, b, kh, kw)], sum);
      }
    }
    give(to++, 0, sum, more);
  }
}

static void conv_grad(const Conv& c, const ParameterSpec& weight, const real* big, const real* small,
                      real* dw) {
  zero(dw, parameter_stored(weight));
  for (int64_t n = 0; n < c.images; n++)
  for (int64_t oh = 0; oh < c.h.out; oh++)
  for (int64_t ow = 0; ow < c.w.out; ow++, small += c.small_pitch())
  for (int64_t kh = 0; kh < c.h.kernel; kh++)
  for (int64_t kw = 0; kw < c.w.kernel; kw++) {
    const int64_t ih = c.h.input(oh, kh), iw = c.w.input(ow, kw);
    if (ih < 0 || iw < 0) continue;
    const real* x = big + ((n * c.h.in + ih) * c.w.in + iw) * c.big_pitch();
    for (int64_t o = 0; o < c.small_pitch(); o++)
    for (int64_t i = 0; i < c.big; i++) {
      real& sum = dw[parameter_index(weight, o, i, kh, kw)];
      sum = madd(x[o / c.small * c.big + i], small[o], sum);
    }
  }
}

// db[o] = sum dy[..., o]; the tail of the panel stays zero.
static void bias_backward(const OpRun& r, int O) {
  real* const db = r.dparameter(1);
  if (db == nullptr) return;
  zero(db, round_up(O, panel));
  for (int64_t i = 0, n = r.out_numel(); i < n; i += O)
    for (int64_t o = 0; o < O; o++) db[o] += r.dy()[i + o];
}

template <class A> static void conv_forward(const A& a, const OpRun& r) {
  const Conv c = conv_sizes(a, r);
  conv_sum<goes_down<A>>(c, weight_of(a), r.in(0), r.parameter(0), r.parameter(1), r.out(), false);
}
template <class A> static void conv_backward(const A& a, const OpRun& r) {
  const Conv  c   = conv_sizes(a, r);
  const real *big = goes_down<A> ? r.in(0) : r.dy(), *small = goes_down<A> ? r.dy() : r.in(0);
  if (r.dx(0) != nullptr)
    conv_sum<!goes_down<A>>(c, weight_of(a), r.dy(), r.parameter(0), nullptr, r.dx(0), r.accumulate(0));
  if (r.dparameter(0) != nullptr) conv_grad(c, weight_of(a), big, small, r.dparameter(0));
  bias_backward(r, a.out_channels);
}
NNLITE_DEFINE_LAYER(Conv2d, conv2d, conv, traits::accumulates, NNLITE_FIELD(1, in_channels),
                    NNLITE_FIELD(2, out_channels), NNLITE_FIELD(3, kernel_size), NNLITE_FIELD(4, stride),
                    NNLITE_FIELD(5, padding), NNLITE_FIELD(6, dilation), NNLITE_FIELD(7, groups),
                    NNLITE_FIELD(8, bias));

// ================================================================================ >>op_conv_transpose2d
// Every input gives x[n,ih,iw,i] w[i,o,kh,kw] to oh = ih stride - padding + kh dilation, likewise ow
// x [N, H, W, I]   weight [I, O/groups, kH, kW]   bias [O]   ->   y [N, oH, oW, O]
static ParameterSpec weight_of(const ConvTranspose2d& a) {
  const int outputs = a.out_channels / a.groups;
  return weight_parameter(Layout::transposed, a.in_channels, outputs, a.kernel_size, a.groups);
}

static bool valid(const ConvTranspose2d& a) {
  const Pair more = a.output_padding;
  return more.h >= 0 && more.w >= 0 && (more.h < a.stride.h || more.h < a.dilation.h) &&
         (more.w < a.stride.w || more.w < a.dilation.w);
}
static int64_t conv_pixels(const ConvTranspose2d& a, const Axis& k, int Pair::*side) {
  return (k.out - 1) * k.stride - 2 * int64_t(k.padding) + k.extent() + a.output_padding.*side;
}
NNLITE_DEFINE_LAYER(ConvTranspose2d, conv_transpose2d, conv, traits::accumulates,
                    NNLITE_FIELD(1, in_channels), NNLITE_FIELD(2, out_channels), NNLITE_FIELD(3, kernel_size),
                    NNLITE_FIELD(4, stride), NNLITE_FIELD(5, padding), NNLITE_FIELD(6, output_padding),
                    NNLITE_FIELD(7, groups), NNLITE_FIELD(8, bias), NNLITE_FIELD(9, dilation));

// ================================================================================ >>op_dropout
// While training y = x / (1 - p) where the element's random number is at least p, else 0; otherwise y = x.
// x, y [N, ...] Nothing is kept: backward draws the same numbers again.
static Status dropout_shape(Dropout& a, OpShape& s) {
  if (!(a.p >= 0 && a.p <= 1)) return Status::bad_attribute;
  return rows_input(s, 0) ? set_out(s, s.in[0]) : Status::bad_shape;
}

// to = from times the mask over all elements.
static void drop(const Dropout& a, const OpRun& r, const real* from, real* to, bool accumulate) {
  const real keep = 1 / (1 - real(a.p));
  Words words = {};
  for (int64_t i = 0, n = r.out_numel(); i < n; i++) {
    if (r.training && i % 4 == 0)
      words = random_block(r.context->seed, r.context->step, Purpose::dropout, r.node, uint32_t(i / 4));
    const bool dropped = r.training && uniform_of(words.word[i % 4]) < a.p;
    give(to, i, dropped ? 0 : r.training ? product(from[i], keep) : from[i], accumulate);
  }
}
static void dropout_forward(const Dropout& a, const OpRun& r) { drop(a, r, r.in(0), r.out(), false); }
static void dropout_backward(const Dropout& a, const OpRun& r) {
  if (r.dx(0) != nullptr) drop(a, r, r.dy(), r.dx(0), r.accumulate(0));
}
NNLITE_DEFINE_LAYER(Dropout, dropout, dropout, pointwise | traits::random | traits::identity_in_evaluation,
                    NNLITE_FIELD(1, p));

// ================================================================================ >>op_flatten
// y = x with dimensions start_dim .. end_dim as one. x [N, A.., B.., C..] -> y [N, A.., prod B, C..]
static Status flatten_shape(Flatten& a, OpShape& s) {
  const int rank = s.in[0].rank, first = dimension(a.start_dim, rank), last = dimension(a.end_dim, rank);
  if (!s.in[0].batched() || rank < 2) return Status::bad_shape;
  if (first < 0 || last < first) return Status::bad_attribute;
  Shape   out = s.in[0];
  int64_t flat = 1;
  for (int d = first; d <= last; d++) flat = size_product(flat, out.dim[d]);
  if (flat > max_elements) return Status::limit_exceeded;
  out.dim[first] = static_cast<int32_t>(flat);
  for (int d = last + 1; d < rank; d++) out.dim[d - last + first] = out.dim[d];
  out.rank = rank - last + first;
  for (int d = out.rank; d < rank; d++) out.dim[d] = 0;
  return set_out(s, out);
}

static void flatten_forward(const Flatten&, const OpRun& r) {
  if (r.out() == r.in(0)) return;
  for (int64_t i = 0, n = r.out_numel(); i < n; i++) r.out()[i] = r.in(0)[i];
}
static void flatten_backward(const Flatten&, const OpRun& r) {
  if (r.dx(0) == nullptr || (r.dx(0) == r.dy() && !r.accumulate(0))) return;
  for (int64_t i = 0, n = r.out_numel(); i < n; i++) give(r.dx(0), i, r.dy()[i], r.accumulate(0));
}
NNLITE_DEFINE_LAYER(Flatten, flatten, flatten, traits::view | traits::accumulates,
                    NNLITE_FIELD(1, start_dim), NNLITE_FIELD(2, end_dim));

// ================================================================================ >>op_linear
// y[n,o] = b[o] + sum_i x[n,i] w[o,i].   x [N, ..., I]   weight [O, I]   bias [O]   ->   y [N, ..., O]
static ParameterSpec weight_of(const Linear& a) {
  return weight_parameter(Layout::linear, a.out_features, a.in_features);
}

static Status linear_shape(Linear& a, OpShape& s) {
  if (!rows_input(s, 0) || s.in[0].rank < 2) return Status::bad_shape;
  if (a.out_features <= 0) return Status::bad_attribute;
  NNLITE_TRY(infer_last(s, a.in_features));
  Shape out = s.in[0];
  out.dim[out.rank - 1] = a.out_features;
  NNLITE_TRY(set_out(s, out));
  NNLITE_TRY(add_weight_and_bias(s, weight_of(a), a.bias, a.out_features));
  s.macs = out.row_numel() * a.in_features;
  return Status::ok;
}

static void linear_forward(const Linear& a, const OpRun& r) {
  const int64_t I = a.in_features, O = a.out_features, N = r.in_numel(0) / I;
  const ParameterSpec weight = weight_of(a);
  for (int64_t n = 0; n < N; n++)
    for (int64_t o = 0; o < O; o++) {
      const real* x = r.in(0) + n * I;
      const real* w = r.parameter(0) + parameter_index(weight, o);
      real sum = a.bias ? r.parameter(1)[o] : 0;
      for (int64_t i = 0; i < I; i++) sum = madd(x[i], w[i * panel], sum);
      r.out()[n * O + o] = sum;
    }
}

// dx[n,i] = sum_o dy[n,o] w[o,i]      dw[o,i] = sum_n x[n,i] dy[n,o]      db[o] = sum_n dy[n,o]
static void linear_backward(const Linear& a, const OpRun& r) {
  const int64_t I = a.in_features, O = a.out_features, N = r.in_numel(0) / I;
  const ParameterSpec weight = weight_of(a);
  for (int64_t n = 0; n < N && r.dx(0) != nullptr; n++)
    for (int64_t i = 0; i < I; i++) {
      real sum = 0;
      for (int64_t o = 0; o < O; o++)
        sum = madd(r.dy()[n * O + o], r.parameter(0)[parameter_index(weight, o, i)], sum);
      give(r.dx(0), n * I + i, sum, r.accumulate(0));
    }
  if (r.dparameter(0) != nullptr) zero(r.dparameter(0), parameter_stored(weight));
  for (int64_t n = 0; n < N && r.dparameter(0) != nullptr; n++)
    for (int64_t o = 0; o < O; o++) {
      const real* x  = r.in(0) + n * I;
      real*       dw = r.dparameter(0) + parameter_index(weight, o);
      for (int64_t i = 0; i < I; i++) dw[i * panel] = madd(x[i], r.dy()[n * O + o], dw[i * panel]);
    }
  bias_backward(r, a.out_features);
}
NNLITE_DEFINE_LAYER(Linear, linear, linear, traits::accumulates, NNLITE_FIELD(1, in_features),
                    NNLITE_FIELD(2, out_features), NNLITE_FIELD(3, bias));

// ================================================================================ >>op_loss_class
// Losses of a class for every position: x [N, ..., C], target [N, ...] (i32) or [N, ..., C] -> y [1], a mean
static Status set_target(OpShape& s, const Shape& shape, DType dtype) {
  if (s.in[1].rank == 0) {                                       // the short form: we say what the target is
    s.in[1]       = shape;
    s.in_dtype[1] = dtype;
  }
  s.expected = shape;
  return s.in[1] != shape || s.in_dtype[1] != dtype ? Status::bad_shape : set_out(s, flat_shape(1));
}

static Status set_class_target(OpShape& s) {
  if (!rows_input(s, 0) || s.in[0].rank < 2) return Status::bad_shape;
  Shape positions = s.in[0];
  s.index_bound[1] = positions.last();
  positions.dim[--positions.rank] = 0;
  return set_target(s, positions, DType::i32);
}

// y = mean of -sum_c q_c logp_c, logp_c = x_c - m - log sum exp(x - m), q = (1 - label_smoothing) target +
// label_smoothing / C
static Status cross_entropy_loss_shape(CrossEntropyLoss& a, OpShape& s) {
  if (!(a.label_smoothing >= 0 && a.label_smoothing <= 1)) return Status::bad_attribute;
  s.dx_reads_in = 3;
  if (!a.probabilities) return set_class_target(s);
  if (!rows_input(s, 0) || s.in[0].rank < 2) return Status::bad_shape;
  return set_target(s, s.in[0], real_dtype);
}

// q_c of the position whose target starts at position * C (or is number `position`).
static inline real target_of(const CrossEntropyLoss& a, const OpRun& r, int64_t position, int64_t C,
                             int64_t c) {
  const real smooth = real(a.label_smoothing) / static_cast<real>(C), keep = 1 - real(a.label_smoothing);
  if (a.probabilities) return madd(keep, r.in(1)[position * C + c], smooth);
  return r.in_i32(1)[position] == c ? keep + smooth : smooth;
}

// m + log sum exp(x - m): subtracting the largest keeps exp in range for any logit.
static real log_sum_exp(const real* x, int64_t C, real& largest) {
  largest = x[0];
  for (int64_t c = 1; c < C; c++) largest = x[c] > largest ? x[c] : largest;
  real sum = 0;
  for (int64_t c = 0; c < C; c++) sum += plain::exp(x[c] - largest);
  return plain::log(sum);
}

static void cross_entropy_loss_forward(const CrossEntropyLoss& a, const OpRun& r) {
  const int64_t C = r.in_shape(0).last(), positions = r.in_numel(0) / C;
  real total = 0;
  for (int64_t p = 0; p < positions; p++) {
    const real* x = r.in(0) + p * C;
    real largest, loss = 0;
    const real log_sum = log_sum_exp(x, C, largest);
    for (int64_t c = 0; c < C; c++) loss = madd(target_of(a, r, p, C, c), log_sum - (x[c] - largest), loss);
    total += loss;
  }
  r.out()[0] = total / static_cast<real>(positions);
}

// dx_c = (softmax(x)_c sum q - q_c) / positions, and for probabilities dtarget_c = -keep logp_c / positions
static void cross_entropy_loss_backward(const CrossEntropyLoss& a, const OpRun& r) {
  const int64_t C = r.in_shape(0).last(), positions = r.in_numel(0) / C;
  const real share = 1 / static_cast<real>(positions), kept = product(1 - real(a.label_smoothing), share);
  for (int64_t p = 0; p < positions; p++) {
    const real* x = r.in(0) + p * C;
    real largest, sum_q = 0;
    const real log_sum = log_sum_exp(x, C, largest);
    for (int64_t c = 0; c < C; c++) sum_q += target_of(a, r, p, C, c);
    for (int64_t c = 0; c < C; c++) {
      const real logp = x[c] - largest - log_sum;
      const real dx   = madd(plain::exp(logp), sum_q, -target_of(a, r, p, C, c));
      if (r.dx(0) != nullptr) give(r.dx(0), p * C + c, product(dx, share), r.accumulate(0));
      if (r.dx(1) != nullptr) give(r.dx(1), p * C + c, product(-logp, kept), r.accumulate(1));
    }
  }
}

#define NNLITE_DEFINE_LOSS(Type, prefix, family, ...)                                                        \
  NNLITE_DEFINE_BUILT_IN(Type, prefix, family, 2, 2, traits::loss | traits::accumulates, nullptr, __VA_ARGS__)
NNLITE_DEFINE_LOSS(CrossEntropyLoss, cross_entropy_loss, cross_entropy_loss, NNLITE_FIELD(1, label_smoothing),
                   NNLITE_FIELD(2, probabilities));

// y = mean of -x[target], x are log-probabilities
static Status nll_loss_shape(NLLLoss&, OpShape& s) { s.dx_reads_in = 2; return set_class_target(s); }
static void nll_loss_forward(const NLLLoss&, const OpRun& r) {
  const int64_t C = r.in_shape(0).last(), positions = r.in_numel(0) / C;
  real total = 0;
  for (int64_t p = 0; p < positions; p++) total -= r.in(0)[p * C + r.in_i32(1)[p]];
  r.out()[0] = total / static_cast<real>(positions);
}

// dx[target] = -1 / positions, the others 0
static void nll_loss_backward(const NLLLoss&, const OpRun& r) {
  if (r.dx(0) == nullptr) return;
  const int64_t C = r.in_shape(0).last(), positions = r.in_numel(0) / C;
  const real share = 1 / static_cast<real>(positions);
  for (int64_t p = 0; p < positions; p++)
    for (int64_t c = 0; c < C; c++)
      give(r.dx(0), p * C + c, r.in_i32(1)[p] == c ? -share : 0, r.accumulate(0));
}
NNLITE_DEFINE_LOSS(NLLLoss, nll_loss, nll_loss, NNLITE_NO_FIELDS);

// ================================================================================ >>op_loss_elementwise
// The loss of an element and its derivatives by x and by the target t, all by >>formulas. x, t [...] -> y [1]
static bool valid(const HuberLoss& a) { return a.delta > 0 && is_finite(a.delta); }
template <class A> static Status elementwise_loss_shape(A& a, OpShape& s) {
  if (!valid(a)) return Status::bad_attribute;
  if (!rows_input(s, 0)) return Status::bad_shape;
  s.dx_reads_in = 3;
  return set_target(s, s.in[0], real_dtype);
}

// The sum is made of sums over 512 elements, so its rounding error grows with n / 512.
template <class A> static void elementwise_loss_forward(const A& a, const OpRun& r) {
  const int64_t n = r.in_numel(0);
  real total = 0;
  for (int64_t first = 0; first < n; first += 512) {
    real sum = 0;
    for (int64_t i = first; i < n && i < first + 512; i++) sum += plain::loss_of(a, r.in(0)[i], r.in(1)[i]);
    total += sum;
  }
  r.out()[0] = total / static_cast<real>(n);
}

template <class A> static void elementwise_loss_backward(const A& a, const OpRun& r) {
  const int64_t n = r.in_numel(0);
  const real share = 1 / static_cast<real>(n);
  for (int64_t i = 0; i < n; i++) {
    const real x = r.in(0)[i], t = r.in(1)[i];
    if (r.dx(0) != nullptr) give(r.dx(0), i, product(plain::slope_by_x(a, x, t), share), r.accumulate(0));
    if (r.dx(1) != nullptr) give(r.dx(1), i, product(plain::slope_by_t(a, x, t), share), r.accumulate(1));
  }
}
NNLITE_DEFINE_LOSS(BCELoss, bce_loss, elementwise_loss, NNLITE_NO_FIELDS);
NNLITE_DEFINE_LOSS(BCEWithLogitsLoss, bce_with_logits_loss, elementwise_loss, NNLITE_NO_FIELDS);
NNLITE_DEFINE_LOSS(HuberLoss, huber_loss, elementwise_loss, NNLITE_FIELD(1, delta));
NNLITE_DEFINE_LOSS(L1Loss, l1_loss, elementwise_loss, NNLITE_NO_FIELDS);
NNLITE_DEFINE_LOSS(MSELoss, mse_loss, elementwise_loss, NNLITE_NO_FIELDS);

// ================================================================================ >>op_optimizer
// One update each of a parameter w by its gradient g and the slots of its state; padding stays zero.
template <class... T> static bool at_least_zero(T... x) { return (... && (x >= 0 && is_finite(x))); }
static bool positive(float x) { return x > 0 && is_finite(x); }
static bool below_one(float x) { return x >= 0 && x < 1; }
static Status optimizer_slots(bool valid, OpShape& s, int count) {
  if (!valid) return Status::bad_attribute;
  if (!real_input(s, 0)) return Status::bad_shape;
  s.n_slots = count;
  for (int i = 0; i < count; i++) s.slots[i] = SlotSpec{Keep::saved, real_dtype, false, s.in[0].numel(1)};
  return set_out(s, s.in[0]);
}

static Status sgd_shape(SGD& a, OpShape& s) {
  const bool nesterov = a.momentum > 0 && !(a.dampening > 0) && !(a.dampening < 0);      // can be
  const bool valid    = at_least_zero(a.lr, a.momentum, a.weight_decay) && is_finite(a.dampening);
  return optimizer_slots(valid && (nesterov || !a.nesterov), s, a.momentum > 0 ? 1 : 0);
}
static Status adagrad_shape(Adagrad& a, OpShape& s) {
  const bool valid = at_least_zero(a.lr, a.lr_decay, a.weight_decay, a.initial_accumulator_value);
  return optimizer_slots(valid && positive(a.eps), s, 1);
}
static Status rmsprop_shape(RMSprop& a, OpShape& s) {
  const bool valid = at_least_zero(a.lr, a.alpha, a.weight_decay, a.momentum) && positive(a.eps);
  return optimizer_slots(valid, s, a.momentum > 0 ? 2 : 1);
}
template <class A> static Status adam_shape(A& a, OpShape& s) {
  const bool betas = below_one(a.betas.first) && below_one(a.betas.second);
  return optimizer_slots(at_least_zero(a.lr, a.weight_decay) && betas && positive(a.eps), s, 2);
}

template <class A> static void optimizer_update(const A& a, const OpRun& r) {
  const plain::Update<A> rule(a, *r.context);
  const real  scale = r.context->gradient_scale, bound = real(r.context->clip_value);
  real *const w = r.parameter(0), *const m = r.slot(0), *const v = r.slot(1), none = 0;
  for (int64_t i = 0, n = r.in_numel(0); i < n; i++) {
    const real g = plain::clipped(product(r.dparameter(0)[i], scale), bound > 0, bound);
    w[i] = rule(w[i], madd(rule.decay, w[i], g), m != nullptr ? m[i] : none, v != nullptr ? v[i] : none);
  }
}

#define NNLITE_DEFINE_OPTIMIZER(Type, prefix, family, ...)                                                   \
  NNLITE_DEFINE_ROW(Type, prefix, #Type, 1, 1, 1, traits::optimizer, (shape_thunk<Type, family##_shape>),    \
                    (loops_thunk<Type, optimizer_update<Type>>), nullptr, nullptr, nullptr,                  \
                    prefix##_kernels, __VA_ARGS__)
NNLITE_DEFINE_OPTIMIZER(Adagrad, adagrad, adagrad, NNLITE_FIELD(1, lr), NNLITE_FIELD(2, lr_decay),
                        NNLITE_FIELD(3, weight_decay), NNLITE_FIELD(4, initial_accumulator_value),
                        NNLITE_FIELD(5, eps));
NNLITE_DEFINE_OPTIMIZER(Adam, adam, adam, NNLITE_FIELD(1, lr), NNLITE_FIELD(2, betas), NNLITE_FIELD(3, eps),
                        NNLITE_FIELD(4, weight_decay));
NNLITE_DEFINE_OPTIMIZER(AdamW, adamw, adam, NNLITE_FIELD(1, lr), NNLITE_FIELD(2, betas), NNLITE_FIELD(3, eps),
                        NNLITE_FIELD(4, weight_decay));
NNLITE_DEFINE_OPTIMIZER(RMSprop, rmsprop, rmsprop, NNLITE_FIELD(1, lr), NNLITE_FIELD(2, alpha),
                        NNLITE_FIELD(3, eps), NNLITE_FIELD(4, weight_decay), NNLITE_FIELD(5, momentum));
NNLITE_DEFINE_OPTIMIZER(SGD, sgd, sgd, NNLITE_FIELD(1, lr), NNLITE_FIELD(2, momentum),
                        NNLITE_FIELD(3, dampening), NNLITE_FIELD(4, weight_decay), NNLITE_FIELD(5, nesterov));

// ================================================================================ >>op_pool
// Windows over images. x [N, H, W, C] -> y [N, oH, oW, C]
template <class A> static Status pool_shape(A& a, Pair dilation, OpShape& s) {
  if (!image_input(s)) return Status::bad_shape;
  if (a.stride.h == 0) a.stride.h = a.kernel_size.h;
  if (a.stride.w == 0) a.stride.w = a.kernel_size.w;
  const Axes k = axes_of(a, dilation, s.in[0], s.in[0]);
  if (!k.h.valid() || !k.w.valid() || k.h.padding > k.h.extent() / 2 || k.w.padding > k.w.extent() / 2)
    return Status::bad_attribute;
  return set_image_out(s, k.h.places(a.ceil_mode), k.w.places(a.ceil_mode), s.in[0].last());
}

// Slot 0 keeps which place kh kW + kw of a window was largest (the first of equals): u8, of over 256 i32.
static Status max_pool2d_shape(MaxPool2d& a, OpShape& s) {
  NNLITE_TRY(pool_shape(a, a.dilation, s));
  if (size_product(a.kernel_size.h, a.kernel_size.w) > max_elements) return Status::limit_exceeded;
  s.n_slots  = 1;
  s.slots[0] = SlotSpec{Keep::saved, small_window(a) ? DType::u8 : DType::i32, true, s.out.row_numel()};
  return Status::ok;
}

static void max_pool2d_forward(const MaxPool2d& a, const OpRun& r) {
  const Axes k = axes_of(a, a.dilation, r.in_shape(0), r.out_shape());
  const int  C = r.out_shape().last();
  each_value(r.rows, r.out_shape(), [&](int64_t at, int64_t n, int64_t oh, int64_t ow, int64_t c) {
    const Axis::Inside down = k.h.inside(oh), across = k.w.inside(ow);
    real    largest = -static_cast<real>(__builtin_inff());
    int64_t where = 0;
    bool    found = false;
    for (int64_t kh = down.first; kh < down.last; kh++)
    for (int64_t kw = across.first; kw < across.last; kw++) {
      const int64_t ih = k.h.input(oh, kh), iw = k.w.input(ow, kw);
      const real x = r.in(0)[((n * k.h.in + ih) * k.w.in + iw) * C + c];
      if (found && !(x > largest || x != x)) continue;     // not-a-number wins, as in PyTorch
      found = true, largest = x, where = kh * k.w.kernel + kw;
    }
    r.out()[at] = largest;
    if (r.slot(0) == nullptr) return;
    if (small_window(a)) r.slot<uint8_t>(0)[at] = static_cast<uint8_t>(where);
    else r.slot<int32_t>(0)[at] = static_cast<int32_t>(where);
  });
}

// dx at the largest place += dy; where windows overlap in the order of the outputs.
static void max_pool2d_backward(const MaxPool2d& a, const OpRun& r) {
  if (r.dx(0) == nullptr) return;
  const Axes k = axes_of(a, a.dilation, r.in_shape(0), r.out_shape());
  const int  C = r.out_shape().last();
  zero(r.dx(0), r.in_numel(0));
  each_value(r.rows, r.out_shape(), [&](int64_t at, int64_t n, int64_t oh, int64_t ow, int64_t c) {
    const int     place = small_window(a) ? r.slot<uint8_t>(0)[at] : r.slot<int32_t>(0)[at];
    const int64_t ih = k.h.input(oh, place / k.w.kernel), iw = k.w.input(ow, place % k.w.kernel);
    if (ih >= 0 && iw >= 0) r.dx(0)[((n * k.h.in + ih) * k.w.in + iw) * C + c] += r.dy()[at];
  });
}
NNLITE_DEFINE_LAYER(MaxPool2d, max_pool2d, max_pool2d, 0, NNLITE_FIELD(1, kernel_size),
                    NNLITE_FIELD(2, stride), NNLITE_FIELD(3, padding), NNLITE_FIELD(4, dilation),
                    NNLITE_FIELD(5, ceil_mode));

static Status average_shape(AvgPool2d& a, OpShape& s) { return pool_shape(a, 1, s); }
static Status average_shape(AdaptiveAvgPool2d& a, OpShape& s) {
  if (!image_input(s)) return Status::bad_shape;
  if (a.output_size.h <= 0 || a.output_size.w <= 0) return Status::bad_attribute;
  return set_image_out(s, a.output_size.h, a.output_size.w, s.in[0].last());
}

template <class A> static void average_forward(const A& a, const OpRun& r) {
  const Shape &x = r.in_shape(0), &y = r.out_shape();
  const int64_t H = x.dim[1], W = x.dim[2], C = x.dim[3];
  each_value(r.rows, y, [&](int64_t at, int64_t n, int64_t oh, int64_t ow, int64_t c) {
    const Region rows = region_of(a, 1, oh, x, y), columns = region_of(a, 2, ow, x, y);
    real sum = 0;
    for (int64_t h = rows.first; h < rows.last; h++)
    for (int64_t w = columns.first; w < columns.last; w++) sum += r.in(0)[((n * H + h) * W + w) * C + c];
    r.out()[at] = sum / static_cast<real>(rows.count * columns.count);
  });
}

// dx of every input of the region += dy / count
template <class A> static void average_backward(const A& a, const OpRun& r) {
  if (r.dx(0) == nullptr) return;
  const Shape &x = r.in_shape(0), &y = r.out_shape();
  const int64_t H = x.dim[1], W = x.dim[2], C = x.dim[3];
  zero(r.dx(0), r.in_numel(0));
  each_value(r.rows, y, [&](int64_t at, int64_t n, int64_t oh, int64_t ow, int64_t c) {
    const Region rows = region_of(a, 1, oh, x, y), columns = region_of(a, 2, ow, x, y);
    const real   share = r.dy()[at] / static_cast<real>(rows.count * columns.count);
    for (int64_t h = rows.first; h < rows.last; h++)
    for (int64_t w = columns.first; w < columns.last; w++) r.dx(0)[((n * H + h) * W + w) * C + c] += share;
  });
}
NNLITE_DEFINE_LAYER(AdaptiveAvgPool2d, adaptive_avg_pool2d, average, 0, NNLITE_FIELD(1, output_size));
NNLITE_DEFINE_LAYER(AvgPool2d, avg_pool2d, average, 0, NNLITE_FIELD(1, kernel_size), NNLITE_FIELD(2, stride),
                    NNLITE_FIELD(3, padding), NNLITE_FIELD(4, ceil_mode), NNLITE_FIELD(5, count_include_pad));

// ================================================================================ >>op_softmax
// Along dim of x, y [N, ...], with m the largest, S = sum exp(x - m): y = exp(x - m) / S or y = x - m - log S
template <class A> static Status softmax_shape(A& a, OpShape& s) {
  if (!rows_input(s, 0) || s.in[0].rank < 2) return Status::bad_shape;
  if (dimension(a.dim, s.in[0].rank) < 0) return Status::bad_attribute;
  s.dx_reads_out = true;
  return set_out(s, s.in[0]);
}

// Calls f(first, count, stride) for every line of values along dim.
template <class A, class F> static void each_line(const A& a, const OpRun& r, F f) {
  const Shape& shape = r.out_shape();
  const int    dim = dimension(a.dim, shape.rank);
  const int64_t count = shape.dim[dim], total = r.out_numel();
  int64_t stride = 1;
  for (int d = dim + 1; d < shape.rank; d++) stride *= shape.dim[d];
  for (int64_t block = 0; block < total; block += count * stride)
    for (int64_t i = 0; i < stride; i++) f(block + i, count, stride);
}

static inline bool of_log(const Softmax&) { return false; }
static inline bool of_log(const LogSoftmax&) { return true; }
template <class A> static void softmax_forward(const A& a, const OpRun& r) {
  each_line(a, r, [&](int64_t first, int64_t count, int64_t stride) {
    const real* x = r.in(0) + first;
    real *const y = r.out() + first, largest = x[0], sum = 0;
    for (int64_t i = 1; i < count; i++) largest = x[i * stride] > largest ? x[i * stride] : largest;
    for (int64_t i = 0; i < count; i++) sum += y[i * stride] = plain::exp(x[i * stride] - largest);
    const real log_sum = plain::log(sum);
    for (int64_t i = 0, at = 0; i < count; i++, at += stride)
      y[at] = of_log(a) ? x[at] - largest - log_sum : y[at] / sum;
  });
}

// dx = y (dy - sum dy y), of the logarithm dx = dy - exp(y) sum dy
template <class A> static void softmax_backward(const A& a, const OpRun& r) {
  if (r.dx(0) == nullptr) return;
  each_line(a, r, [&](int64_t first, int64_t count, int64_t stride) {
    real sum = 0;
    for (int64_t i = 0, at = first; i < count; i++, at += stride)
      sum = of_log(a) ? sum + r.dy()[at] : madd(r.dy()[at], r.y()[at], sum);
    for (int64_t i = 0, at = first; i < count; i++, at += stride) {
      const real y = r.y()[at], dy = r.dy()[at];
      give(r.dx(0), at, of_log(a) ? madd(-plain::exp(y), sum, dy) : product(y, dy - sum), r.accumulate(0));
    }
  });
}
NNLITE_DEFINE_LAYER(LogSoftmax, log_softmax, softmax, traits::accumulates, NNLITE_FIELD(1, dim));
NNLITE_DEFINE_LAYER(Softmax, softmax, softmax, traits::accumulates, NNLITE_FIELD(1, dim));

// ================================================================================ >>op_upsample
// y[n,h,w,c] = x[n,h / fh,w / fw,c].   x [N, H, W, C] -> y [N, H fh, W fw, C]
static Status upsample_shape(Upsample& a, OpShape& s) {
  if (!image_input(s)) return Status::bad_shape;
  if (a.scale_factor.h <= 0 || a.scale_factor.w <= 0) return Status::bad_attribute;
  return set_image_out(s, size_product(s.in[0].dim[1], a.scale_factor.h),
                       size_product(s.in[0].dim[2], a.scale_factor.w), s.in[0].last());
}

static void upsample_forward(const Upsample& a, const OpRun& r) {
  const Pair    f = a.scale_factor;
  const int64_t H = r.in_shape(0).dim[1], W = r.in_shape(0).dim[2], C = r.in_shape(0).dim[3];
  each_value(r.rows, r.out_shape(), [&](int64_t at, int64_t n, int64_t h, int64_t w, int64_t c) {
    r.out()[at] = r.in(0)[((n * H + h / f.h) * W + w / f.w) * C + c];
  });
}

// dx = the sum of dy over the copies
static void upsample_backward(const Upsample& a, const OpRun& r) {
  if (r.dx(0) == nullptr) return;
  const Pair    f = a.scale_factor;
  const int64_t H = r.in_shape(0).dim[1], W = r.in_shape(0).dim[2], C = r.in_shape(0).dim[3];
  each_value(r.rows, r.in_shape(0), [&](int64_t at, int64_t n, int64_t h, int64_t w, int64_t c) {
    real sum = 0;
    for (int64_t i = 0; i < f.h; i++)
      for (int64_t j = 0; j < f.w; j++)
        sum += r.dy()[(((n * H + h) * f.h + i) * W * f.w + w * f.w + j) * C + c];
    give(r.dx(0), at, sum, r.accumulate(0));
  });
}
NNLITE_DEFINE_LAYER(Upsample, upsample, upsample, traits::accumulates, NNLITE_FIELD(1, scale_factor));

// ================================================================================ >>op_list
// Every op of this header, sorted as strcmp sorts its names.
#define NNLITE_OPS(X)   \
  X(Adagrad)            \
  X(Adam)               \
  X(AdamW)              \
  X(AdaptiveAvgPool2d)  \
  X(Add)                \
  X(AvgPool2d)          \
  X(BCELoss)            \
  X(BCEWithLogitsLoss)  \
  X(BatchNorm1d)        \
  X(BatchNorm2d)        \
  X(Concat)             \
  X(ConstantLR)         \
  X(Conv2d)             \
  X(ConvTranspose2d)    \
  X(CosineAnnealingLR)  \
  X(CrossEntropyLoss)   \
  X(Dropout)            \
  X(ELU)                \
  X(ExponentialLR)      \
  X(Flatten)            \
  X(HuberLoss)          \
  X(L1Loss)             \
  X(LeakyReLU)          \
  X(Linear)             \
  X(LogSoftmax)         \
  X(MSELoss)            \
  X(MaxPool2d)          \
  X(Mul)                \
  X(NLLLoss)            \
  X(OneCycleLR)         \
  X(RMSprop)            \
  X(ReLU)               \
  X(ReduceLROnPlateau)  \
  X(SGD)                \
  X(Sigmoid)            \
  X(Softmax)            \
  X(StepLR)             \
  X(Tanh)               \
  X(Upsample)

#define NNLITE_OP_ADDRESS(Type) &Type::op,
static const Op* const op_table[] = {NNLITE_OPS(NNLITE_OP_ADDRESS)};
#undef NNLITE_OP_ADDRESS

// A variable has a section of its own, so that a linker can drop it with all ops; a constant in code has not.
OpSet all_ops() {
  static const OpSet every = {op_table, sizeof(op_table) / sizeof(op_table[0])};
  return every;
}

// The op of this name; nullptr when the set has none.
static const Op* find_op(const OpSet& set, const char* name) {
  for (int i = 0; i < set.count; i++) if (same_text(set.ops[i]->name, name)) return set.ops[i];
  return nullptr;
}

// ================================================================================ >>schedule
// Rates in double, every product rounded by itself, so that every machine and compiler gets the same float.

// cos(pi t) for t in [0, 1], as 1 - 2 sin^2(pi t / 2) up to a half and mirrored after it.
static double cos_pi(double t) {
  double sine, cosine;
  sine_cosine(product(t > 0.5 ? 1 - t : t, 1.5707963267948966), sine, cosine);
  const double c = 1 - product(2.0, product(sine, sine));
  return t > 0.5 ? -c : c;
}

// From a to b as t goes from 0 to 1 through half a cosine.
static float anneal(double a, double b, double t) {
  return static_cast<float>(b + product(a - b, product(cos_pi(t) + 1, 0.5)));
}

static float constant_lr_rate(const ConstantLR&, const RateContext& c) { return c.lr; }
static float cosine_annealing_lr_rate(const CosineAnnealingLR& a, const RateContext& c) {
  const int last = a.T_max > 0 ? a.T_max : c.epochs > 0 ? c.epochs : 1;
  const double t = c.epoch >= static_cast<uint32_t>(last) ? 1.0 : static_cast<double>(c.epoch) / last;
  return anneal(double(c.lr), double(a.eta_min), t);
}

static float exponential_lr_rate(const ExponentialLR& a, const RateContext& c) {
  return static_cast<float>(product(double(c.lr), power(double(a.gamma), c.epoch)));
}

static float one_cycle_lr_rate(const OneCycleLR& a, const RateContext& c) {
  const double top   = double(a.max_lr > 0 ? a.max_lr : c.lr);
  const double start = top / double(a.div_factor), end = start / double(a.final_div_factor);
  const uint64_t all = a.total_steps > 0
                           ? static_cast<uint64_t>(a.total_steps)
                           : uint64_t(c.steps_per_epoch) * static_cast<uint64_t>(c.epochs > 0 ? c.epochs : 1);
  const double total = double(all > 0 ? all : 1), step = double(c.step < all ? c.step : all);
  const double up    = product(double(a.pct_start), total) - 1, down = total - 1 - up;
  if (step <= up) return anneal(start, top, up > 0 ? step / up : 1.0);
  const double t = down > 0 ? (step - up) / down : 1.0;
  return anneal(top, end, t < 1 ? t : 1.0);
}

static float reduce_lr_on_plateau_rate(const ReduceLROnPlateau& a, const RateContext& c) {
  const float lr = static_cast<float>(product(double(c.lr), double(c.plateau_factor)));
  return lr > a.min_lr ? lr : a.min_lr;
}
static float step_lr_rate(const StepLR& a, const RateContext& c) {
  return float(product(double(c.lr), power(double(a.gamma), c.epoch / uint32_t(a.step_size))));
}

static bool in_range(float v, float low, float high) { return v >= low && v <= high; }
static bool valid(const CosineAnnealingLR& a) { return a.T_max >= 0 && in_range(a.eta_min, 0, 1e9f); }
static bool valid(const ExponentialLR& a) { return in_range(a.gamma, 0, 10); }
static bool valid(const OneCycleLR& a) {
  return in_range(a.max_lr, 0, 1e9f) && a.total_steps >= 0 && in_range(a.pct_start, 0, 1) &&
         in_range(a.div_factor, 1, 1e9f) && in_range(a.final_div_factor, 1, 1e9f);
}
static bool valid(const ReduceLROnPlateau& a) {
  return in_range(a.factor, 0, 1) && a.patience >= 0 && in_range(a.threshold, 0, 1) &&
         in_range(a.min_lr, 0, 1e9f);
}
static bool valid(const StepLR& a) { return a.step_size > 0 && in_range(a.gamma, 0, 10); }
template <class A>
static Status schedule_shape(A& a, OpShape&) { return valid(a) ? Status::ok : Status::bad_attribute; }
template <class T, float (*f)(const T&, const RateContext&)>
static float rate_thunk(const void* attributes, const RateContext& c) {
  return f(*static_cast<const T*>(attributes), c);
}

#define NNLITE_DEFINE_SCHEDULE(Type, prefix, ...)                                                            \
  NNLITE_DEFINE_ROW(Type, prefix, #Type, 1, 0, 0, traits::schedule, (shape_thunk<Type, schedule_shape>),     \
                    nullptr, nullptr, nullptr, (rate_thunk<Type, prefix##_rate>), nullptr, __VA_ARGS__)
NNLITE_DEFINE_SCHEDULE(ConstantLR, constant_lr, NNLITE_NO_FIELDS);
NNLITE_DEFINE_SCHEDULE(CosineAnnealingLR, cosine_annealing_lr, NNLITE_FIELD(1, T_max),
                       NNLITE_FIELD(2, eta_min));
NNLITE_DEFINE_SCHEDULE(ExponentialLR, exponential_lr, NNLITE_FIELD(1, gamma));
NNLITE_DEFINE_SCHEDULE(OneCycleLR, one_cycle_lr, NNLITE_FIELD(1, max_lr), NNLITE_FIELD(2, total_steps),
                       NNLITE_FIELD(3, pct_start), NNLITE_FIELD(4, div_factor),
                       NNLITE_FIELD(5, final_div_factor));
NNLITE_DEFINE_SCHEDULE(ReduceLROnPlateau, reduce_lr_on_plateau, NNLITE_FIELD(1, factor),
                       NNLITE_FIELD(2, patience), NNLITE_FIELD(3, threshold), NNLITE_FIELD(4, min_lr));
NNLITE_DEFINE_SCHEDULE(StepLR, step_lr, NNLITE_FIELD(1, step_size), NNLITE_FIELD(2, gamma));

// ================================================================================ >>sampler
// Values of class labels.
static int32_t label_at(const Column& c, int64_t i) {
  if (c.dtype == DType::u8) return static_cast<const uint8_t*>(c.data)[i];
  return static_cast<const int32_t*>(c.data)[i];
}

struct Draw : Rows {
  // Copies a column of them into an input.
  bool column(const Dataset& data, int c, const Shape& shape, DType dtype, void* to) const {
    const Column& from = data.columns[c];
    const int64_t n    = shape.row_numel();
    const bool plain = from.scale == 1.0f && from.shift == 0.0f && from.dtype == real_dtype;
    for (int r = 0; r < rows; r++, to = static_cast<unsigned char*>(to) + size_t(n) * size_of(dtype)) {
      const uint32_t index = (*this)[static_cast<uint32_t>(r)];
      const int64_t  first = int64_t(index) * n;
      real* const    out   = static_cast<real*>(to);
      if (!from.data) {
        if (!data.read(data.user, index, c, to)) return false;
      } else if (dtype == DType::i32) {
        for (int64_t i = 0; i < n; i++) static_cast<int32_t*>(to)[i] = label_at(from, first + i);
      } else if (plain) {
        __builtin_memcpy(to, static_cast<const real*>(from.data) + first, size_t(n) * sizeof(real));
      } else if (from.dtype == DType::u8) {
        convert(static_cast<const uint8_t*>(from.data) + first, n, from.scale, from.shift, out);
      } else if (from.dtype == DType::f32) {
        convert(static_cast<const float*>(from.data) + first, n, from.scale, from.shift, out);
      } else {
        const double* p = static_cast<const double*>(from.data) + first;
        for (int64_t i = 0; i < n; i++) out[i] = madd(real(p[i]), real(from.scale), real(from.shift));
      }
    }
    return true;
  }
};

// Whether a column can feed an input: a number type that converts, labels from u8 or i32.
static bool column_fits(const Column& c, const Dataset& data, DType input) {
  if (!c.data) return data.read != nullptr;
  if (input == DType::i32) return c.dtype == DType::u8 || c.dtype == DType::i32;
  return c.dtype != DType::i32;
}

// ================================================================================ >>graph
Model::Model(void* records, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(records), start = (at + 15) & ~uintptr_t(15);
  const size_t skipped = start - at;
  nodes_ = reinterpret_cast<Node*>(start);
  size_  = back_ = bytes > skipped ? (bytes - skipped) & ~size_t(15) : 0;
  self_  = static_cast<uint16_t>(reinterpret_cast<uintptr_t>(this) >> 4);
}

// What a call that fails gives: its status, or no tensor.
struct Model::Failed {
  Status status;
  operator Status() const { return status; }
  operator Tensor() const { return {}; }
};
Model::Failed Model::fail(Status status, const char* where, const char* what) {
  return {set_problem(problem_, status, where, what)};
}

// The name of a node, its own or made from its op and its number among the nodes of that op: "conv2d_2".
struct NodeName {
  char text[48];
  operator const char*() const { return text; }
  NodeName(const Node* nodes, int index, const Node& n) {
    Text to(text, sizeof text);
    if (n.name || !n.op) {
      to << (n.name ? n.name : "input");
      return;
    }
    int ordinal = 1;
    for (int i = 0; i < index; i++) ordinal += nodes[i].op == n.op ? 1 : 0;
    for (const char* c = n.op->name; *c; c++) to.put(*c >= 'A' && *c <= 'Z' ? char(*c + 32) : *c);
    to << "_" << ordinal;
  }
  NodeName(const Node* nodes, int index) : NodeName(nodes, index, nodes[index]) {}
};

// What building, the loader, the saver and the planner do to a model beyond its interface.
struct ModelAccess {
  // From the back of the records: attributes, lists, names, parameters. nullptr when full.
  static void* take(Model& m, size_t bytes) {
    const size_t size = (bytes + 7) & ~size_t(7);
    if (m.back_ < size || m.back_ - size < m.front_) return nullptr;
    m.back_ -= size;
    return reinterpret_cast<unsigned char*>(m.nodes_) + m.back_;
  }
  static void* keep(Model& m, const void* from, size_t bytes) {
    void* to = take(m, bytes);
    return to ? __builtin_memcpy(to, from, bytes) : nullptr;
  }
  static const char* keep_text(Model& m, const char* text) {
    return static_cast<const char*>(keep(m, text, text_bytes(text) + 1));
  }
  static bool append(Model& m, Node& n) {
    if (m.node_count_ == 0xFFF0 || m.back_ - m.front_ < sizeof n) return false;
    m.front_ += sizeof n;
    n.owner = m.node_count_++;
    m.nodes_[n.owner] = n;
    return true;
  }
  static bool attach_parameters(Model& m, Node& node, const OpShape& s) {
    if (s.n_parameters == 0) return true;
    Parameter* p = static_cast<Parameter*>(take(m, sizeof(Parameter) * static_cast<size_t>(s.n_parameters)));
    for (int i = 0; p && i < s.n_parameters; i++) {
      const ParameterSpec& spec = s.parameters[i];
      p[i] = {spec, parameter_stored(spec), 0, Init::pytorch, false, spec.role != Role::statistic};
    }
    node.parameters   = p;
    node.n_parameters = static_cast<uint8_t>(s.n_parameters);
    return p != nullptr;
  }
  static Node& node(const Model& m, int i) { return m.nodes_[i]; }
  static NodeName name(const Model& m, int i) { return NodeName(m.nodes_, i); }
  static const unsigned char* weights(const Model& m) { return m.weights_; }
  static uint16_t input_node(const Model& m, int i) { return m.inputs_[i]; }
  static uint16_t output_node(const Model& m, int i) { return m.outputs_[i]; }
  static bool poisoned(const Model& m) { return !ok(m.problem_.status); }
  // Whether a handle is one of this model, which is still being built and well.
  static bool owns(Model& m, Tensor x, const char* where) {
    if (poisoned(m)) return false;
    const bool own = x.model == m.self_ && x.id < m.node_count_ && !m.finished_;
    if (!own) m.fail(Status::foreign_tensor, where);
    return own;
  }
  static bool name_fits(Model& m, const char* name) {
    const size_t n = text_bytes(name);
    const bool fits = n >= 1 && n <= 40 && valid_utf8(name, n);
    if (!fits) m.fail(Status::bad_graph, name, "a name has 1 to 40 bytes of UTF-8");
    return fits;
  }
  static bool node_name_fits(Model& m, const char* name) {
    bool twice = false;
    for (int i = 0; i < m.node_count_; i++) twice |= m.nodes_[i].name && same_text(m.nodes_[i].name, name);
    if (twice) m.fail(Status::bad_graph, name, "the name is used twice");
    return !twice && name_fits(m, name);
  }
  static Parameter* parameter(const Model& m, int index, int* node_index = nullptr) {
    for (int i = 0; i < m.node_count_; i++) {
      const Node& n = m.nodes_[i];
      if (n.owner != i || index < n.first_parameter || index >= n.first_parameter + n.n_parameters) continue;
      if (node_index) *node_index = i;
      return n.parameters + (index - n.first_parameter);
    }
    return nullptr;
  }

  // Post-order from the outputs in their order: map[old] = new. stack holds node, next input.
  static Status order(Model& m, uint16_t* map, uint16_t* stack) {
    constexpr uint16_t unseen = 0xFFFF;
    for (int i = 0; i < m.node_count_; i++) map[i] = unseen;
    uint16_t next = 0;
    int      depth = 0;
    const auto enter = [&](uint16_t node) {
      if (map[node] != unseen) return;
      stack[2 * depth]     = node;
      stack[2 * depth + 1] = 0;
      depth++;
    };
    for (int o = 0; o < m.output_count_; o++) {
      enter(m.outputs_[o]);
      while (depth > 0) {
        uint16_t* top = stack + 2 * (depth - 1);
        const Node& n = m.nodes_[top[0]];
        if (top[1] < n.n_in) enter(n.inputs[top[1]++]);
        else map[top[0]] = next++, depth--;
      }
    }
    for (int i = 0; i < m.node_count_; i++)
      if (map[i] == unseen) return m.fail(Status::bad_graph, name(m, i), "it reaches no output");
    return Status::ok;
  }

  // Moves every node to its new number, following the cycles of the permutation.
  static void renumber(Model& m, const uint16_t* map) {
    for (int i = 0; i < m.node_count_; i++) {
      Node& n = m.nodes_[i];
      for (int k = 0; k < n.n_in; k++) n.inputs[k] = map[n.inputs[k]];
      n.owner = map[n.owner];
      n.first_parameter = map[i];  // where it goes, until the parameters are numbered
    }
    for (int i = 0; i < m.node_count_; i++) {
      while (m.nodes_[i].first_parameter != i) {
        Node& to = m.nodes_[m.nodes_[i].first_parameter];
        const Node other = to;
        to          = m.nodes_[i];
        m.nodes_[i] = other;
      }
    }
    for (int i = 0; i < m.input_count_; i++) m.inputs_[i] = map[m.inputs_[i]];
    for (int i = 0; i < m.output_count_; i++) m.outputs_[i] = map[m.outputs_[i]];
  }

  // The lowest node of a shared group owns the parameters and has the name.
  static Status share_owners(Model& m) {
    for (int i = 0; i < m.node_count_; i++) {
      const uint16_t owner = m.nodes_[i].owner;
      if (owner <= i) continue;
      const char* name     = m.nodes_[owner].name;              // i is the lowest of the group
      m.nodes_[owner].name = m.nodes_[i].name;
      m.nodes_[i].name     = name;
      for (int k = i; k < m.node_count_; k++)
        if (m.nodes_[k].owner == owner) m.nodes_[k].owner = static_cast<uint16_t>(i);
    }
    for (int i = 0; i < m.node_count_; i++) {
      const NodeName made = name(m, i);
      for (int k = 0; k < m.node_count_; k++)
        if (k != i && m.nodes_[k].name && same_text(m.nodes_[k].name, made))
          return m.fail(Status::bad_graph, made, "the name is used twice");
    }
    return Status::ok;
  }

  // Numbers the parameters in node order and places them one after another.
  static void place_parameters(Model& m) {
    size_t units = 0;
    int count    = 0;
    for (int i = 0; i < m.node_count_; i++) {
      Node& n = m.nodes_[i];
      n.first_parameter = n.owner == i ? static_cast<uint16_t>(count) : m.nodes_[n.owner].first_parameter;
      if (n.owner != i) continue;
      for (int p = 0; p < n.n_parameters; p++) {
        n.parameters[p].offset = static_cast<uint32_t>(units);
        units += static_cast<size_t>(n.parameters[p].stored) * sizeof(real) / 64;      // whole panels
      }
      count += n.n_parameters;
    }
    m.parameter_count_ = static_cast<uint16_t>(count);
    m.weight_bytes_    = units * 64;
  }
  static void   copy_graph(const Model& from, int last, int outputs, Model& m);
  static void   cut(const Model& m, int node, Model& to);
  static Status read_graph(const struct File& f, Model& m, const OpSet& ops);
};

// The nodes of a model and, for a loss in options, its target and itself behind them.
struct Graph {
  const Model* model = nullptr;
  const Node*  extra = nullptr;
  int model_nodes = 0, count = 0;
  Graph() = default;
  explicit Graph(const Model& m, const Node* behind = nullptr, int more = 0)
      : model(&m), extra(behind), model_nodes(m.node_count()), count(model_nodes + more) {}
  const Node& node(int i) const {
    return i < model_nodes ? ModelAccess::node(*model, i) : extra[i - model_nodes];
  }
  bool with_loss() const { return count > model_nodes; }
  bool is_loss(int i) const { return node(i).op && (node(i).op->traits & traits::loss) != 0; }
};

// What an op says of inputs that are nodes of the graph; it completes its attributes.
static Status infer_shape(const Graph& g, const uint16_t* inputs, int n, AnyOp& layer, OpShape& s) {
  s.n_in = n;
  for (int i = 0; i < n; i++) {
    s.in[i]       = g.node(inputs[i]).shape;
    s.in_dtype[i] = g.node(inputs[i]).dtype;
  }
  return layer.op()->shape(layer.attributes(), s);
}
static OpShape shape_of(const Graph& g, int i) {
  const Node& n = g.node(i);
  OpShape s;
  AnyOp copy(n.op, n.attributes, n.op->attr_size);
  (void)infer_shape(g, n.inputs, n.n_in, copy, s);
  return s;
}

Tensor Model::input(const char* name, const Dims& dims, DType dtype) {
  if (ModelAccess::poisoned(*this)) return {};
  if (finished_) return fail(Status::bad_graph, name, "the model is finished");
  if (input_count_ == max_inputs) return fail(Status::limit_exceeded, name, "too many inputs");
  if (dims.rank + 1 > max_rank) return fail(Status::bad_shape, name, "too many dimensions");
  if (dtype != real_dtype && dtype != DType::i32)
    return fail(Status::unsupported, name, "an input is real or i32");
  if (!ModelAccess::node_name_fits(*this, name)) return {};
  Node node;
  node.name         = ModelAccess::keep_text(*this, name);
  node.dtype        = dtype;
  node.shape.rank   = dims.rank + 1;
  node.shape.dim[0] = Shape::batch_dim;
  int64_t count = 1;
  for (int d = 0; d < dims.rank; d++) {
    if (dims.dim[d] < 1 || count > INT32_MAX / dims.dim[d])
      return fail(Status::bad_shape, name, "dimensions must be at least 1 and not huge");
    count *= dims.dim[d];
    node.shape.dim[d + 1] = dims.dim[d];
  }
  if (!node.name || !ModelAccess::append(*this, node))
    return fail(Status::out_of_memory, name, "the records buffer is full");
  inputs_[input_count_++] = node.owner;
  return {node.owner, self_};
}

NNLITE_COLD Tensor Model::add_any(const char* name, const AnyOp& layer, const Tensor* inputs, int n) {
  if (ModelAccess::poisoned(*this)) return {};
  const Op* op      = layer.op();
  const char* where = name ? name : op->name;
  uint16_t ids[max_inputs];
  if (finished_) return fail(Status::bad_graph, where, "the model is finished");
  if (n > max_inputs) return fail(Status::bad_graph, where, "too many inputs");
  for (int i = 0; i < n; i++) {
    if (!ModelAccess::owns(*this, inputs[i], where)) return {};
    ids[i] = inputs[i].id;
  }
  Node fresh;
  fresh.op   = op;
  fresh.name = name;
  const NodeName made(nodes_, node_count_, fresh);
  if (!name) where = made;
  if ((op->traits & (traits::optimizer | traits::schedule)) != 0)
    return fail(Status::bad_graph, where, "not a layer");
  if (n < op->min_in || n > op->max_in) return fail(Status::bad_graph, where, "wrong number of inputs");
  if (name && !ModelAccess::node_name_fits(*this, name)) return {};
  OpShape s;
  AnyOp copy = layer;
  const Status shaped = infer_shape(Graph(*this), ids, n, copy, s);
  if (!ok(shaped)) {
    Text t = set_problem(problem_, shaped, where) << ":";
    bool fits = true;
    for (int i = 0; i < n; i++) {
      t << " " << s.in[i];
      fits = fits && s.in[i] == s.expected;
    }
    t << " into " << op->name;
    if (shaped == Status::bad_shape && s.expected.rank > 0 && !fits) t << ", expected " << s.expected;
    return {};
  }
  fresh.name       = name ? ModelAccess::keep_text(*this, name) : nullptr;
  fresh.attributes = ModelAccess::keep(*this, copy.attributes(), op->attr_size);
  fresh.inputs     = static_cast<uint16_t*>(ModelAccess::keep(*this, ids, sizeof(uint16_t) * size_t(n)));
  fresh.n_in       = static_cast<uint8_t>(n);
  fresh.shape      = s.out;
  const bool kept = fresh.attributes && fresh.inputs && (fresh.name || !name);
  if (!kept || !ModelAccess::attach_parameters(*this, fresh, s) || !ModelAccess::append(*this, fresh))
    return fail(Status::out_of_memory, where, "the records buffer is full");
  return {fresh.owner, self_};
}

NNLITE_COLD Tensor Model::share_any(Tensor made_by, const Tensor* inputs, int n) {
  if (!ModelAccess::owns(*this, made_by, "share")) return {};
  const Node& first = nodes_[made_by.id];
  if (!first.op) return fail(Status::foreign_tensor, "share");
  const NodeName name(nodes_, made_by.id);
  if ((first.op->traits & traits::stateful) != 0)
    return fail(Status::bad_graph, name, "a layer with statistics cannot be shared");
  const Tensor made = add_any(nullptr, AnyOp(first.op, first.attributes, first.op->attr_size), inputs, n);
  if (ModelAccess::poisoned(*this)) return {};
  Node &node = nodes_[made.id], &owner = nodes_[first.owner];
  bool same  = node.n_parameters == owner.n_parameters;
  for (int p = 0; same && p < node.n_parameters; p++)
    same = node.parameters[p].spec.shape == owner.parameters[p].spec.shape;
  if (!same) return fail(Status::bad_shape, name, "the shared layer needs other parameters here");
  node.owner      = owner.owner;
  node.parameters = owner.parameters;
  return made;
}

void Model::initialise(Tensor made_by, Init init) {
  if (!ModelAccess::owns(*this, made_by, "initialise")) return;
  Node& n = nodes_[made_by.id];
  for (int p = 0; p < n.n_parameters; p++) {
    n.parameters[p].init     = init;
    n.parameters[p].has_init = true;
  }
}
void Model::freeze(Tensor made_by) {
  if (!ModelAccess::owns(*this, made_by, "freeze")) return;
  Node& n = nodes_[made_by.id];
  for (int p = 0; p < n.n_parameters; p++) n.parameters[p].trainable = false;
}

NNLITE_COLD void Model::output(const char* name, Tensor x) {
  if (!ModelAccess::owns(*this, x, name) || !ModelAccess::name_fits(*this, name)) return;
  bool twice = false;
  for (int i = 0; i < output_count_; i++) twice |= same_text(output_names_[i], name);
  if (twice) fail(Status::bad_graph, name, "two outputs have this name");
  else if (output_count_ == max_outputs) fail(Status::limit_exceeded, name, "too many outputs");
  else if (const char* kept = ModelAccess::keep_text(*this, name)) {
    outputs_[output_count_]        = x.id;
    output_names_[output_count_++] = kept;
  } else fail(Status::out_of_memory, name, "the records buffer is full");
}

Status Model::finish(Seed seed) {
  if (ModelAccess::poisoned(*this)) return problem_.status;
  if (finished_) return fail(Status::bad_graph, "finish", "the model is finished");
  if (output_count_ == 0) return fail(Status::bad_graph, "finish", "the model has no output");
  const size_t numbers = sizeof(uint16_t) * node_count_;
  id_map_ = static_cast<uint16_t*>(ModelAccess::take(*this, numbers));
  const size_t kept = back_;
  void* stack = id_map_ ? ModelAccess::take(*this, 2 * (numbers + sizeof(uint16_t))) : nullptr;
  if (!stack) return fail(Status::out_of_memory, "finish", "the records buffer is full");
  NNLITE_TRY(ModelAccess::order(*this, id_map_, static_cast<uint16_t*>(stack)));
  back_ = kept;
  ModelAccess::renumber(*this, id_map_);
  NNLITE_TRY(ModelAccess::share_owners(*this));
  ModelAccess::place_parameters(*this);
  seed_     = seed;
  finished_ = true;
  return Status::ok;
}

NodeInfo Model::node(int i) const {
  NodeInfo info;
  if (i < 0 || i >= node_count_) return info;
  const Node& n = nodes_[i];
  Text(info.name, sizeof info.name) << NodeName(nodes_, i);
  info.op    = n.op;
  info.shape = n.shape;
  if (n.op) info.macs = shape_of(Graph(*this), i).macs;
  for (int p = 0; n.owner == i && p < n.n_parameters; p++)
    if (n.parameters[p].spec.role != Role::statistic)
      info.parameters += n.parameters[p].spec.shape.row_numel();
  return info;
}

ParameterInfo Model::parameter(int i) const {
  ParameterInfo info;
  int owner = 0;
  const Parameter* p = ModelAccess::parameter(*this, i, &owner);
  if (!p) return info;
  Text(info.name, sizeof info.name) << NodeName(nodes_, owner) << "." << p->spec.name;
  info.shape     = p->spec.shape;
  info.role      = p->spec.role;
  info.trainable = p->trainable;
  info.count     = p->spec.shape.row_numel();
  return info;
}

int64_t Model::parameter_elements() const {
  int64_t n = 0;
  for (int i = 0; i < node_count_; i++) n += node(i).parameters;
  return n;
}
int Model::find_parameter(const char* name) const {
  for (int i = 0; i < parameter_count_; i++) if (same_text(parameter(i).name, name)) return i;
  return -1;
}

// Copies a stored parameter into logical order.
static void copy_logical(const Parameter& p, const real* stored, real* to) {
  for (int64_t e = 0; e < p.spec.shape.row_numel(); e++) to[e] = stored[parameter_at(p.spec, e)];
}

Status Model::get(int i, real* to) const {
  const Parameter* p = ModelAccess::parameter(*this, i);
  if (!p) return Status::bad_argument;
  if (!weights_) return Status::no_weights;
  copy_logical(*p, reinterpret_cast<const real*>(weights_ + size_t(p->offset) * 64), to);
  return Status::ok;
}

// Input or output i of a model; where it is not there nothing, with an empty name.
static const Node& end_of(const Node* nodes, const uint16_t* ends, int count, int i) {
  static const Node none = {nullptr, nullptr, "", nullptr, nullptr, Shape()};
  return i >= 0 && i < count ? nodes[ends[i]] : none;
}
Shape Model::input_shape(int i) const { return end_of(nodes_, inputs_, input_count_, i).shape; }
DType Model::input_dtype(int i) const { return end_of(nodes_, inputs_, input_count_, i).dtype; }
const char* Model::input_name(int i) const { return end_of(nodes_, inputs_, input_count_, i).name; }
Shape Model::output_shape(int i) const { return end_of(nodes_, outputs_, output_count_, i).shape; }
const char* Model::output_name(int i) const { return i >= 0 && i < output_count_ ? output_names_[i] : ""; }

// ================================================================================ >>init
static bool is_normal(Init init) { return init == Init::glorot_normal || init == Init::he_normal; }
// Largest or standard deviation of a fresh weight (PyTorch: kaiming_uniform with a = sqrt(5); Glorot, Bengio
// 2010: sqrt(6 / (in + out)); He et al. 2015: sqrt(6 / in)); a normal has the variance of its uniform.
static float init_scale(const ParameterSpec& spec, Init init) {
  const bool  glorot = init == Init::glorot_normal || init == Init::glorot_uniform;
  const float above  = init == Init::pytorch ? 1.0f : is_normal(init) ? 2.0f : 6.0f;
  const float below  = static_cast<float>(glorot ? spec.fan_in + spec.fan_out : spec.fan_in);
  return static_cast<float>(real_sqrt(real(above / below)));
}

// Writes the first values of a parameter; element e is drawn by (seed, parameter, e) in logical order.
static void init_parameter(const Parameter& p, int index, Seed seed, real* to) {
  zero(to, p.stored);
  const Init init    = p.has_init ? p.init : seed.init;
  const bool pytorch = init == Init::pytorch, normal = is_normal(init);
  if (p.spec.fill == Fill::zeros || (p.spec.role == Role::bias && p.spec.fill == Fill::fan_in && !pytorch))
    return;
  const int64_t n   = p.spec.shape.row_numel();
  const float scale = init_scale(p.spec, init);
  Words words = {};
  for (int64_t e = 0; e < n; e++) {
    if (e % 4 == 0)
      words = random_block(seed.value, 0, Purpose::init, uint32_t(index), uint32_t(e / 4));
    float pair[2] = {};
    if (normal) normals_of(words.word[e % 4 / 2 * 2], words.word[e % 4 / 2 * 2 + 1], pair);
    const float draw = normal ? pair[e % 2] : 2.0f * uniform_of(words.word[e % 4]) - 1.0f;
    to[parameter_at(p.spec, e)] = p.spec.fill == Fill::ones ? real(1) : real(draw * scale);
  }
}

Status Model::materialise(Arena& arena) {
  if (!finished_) return fail(Status::bad_graph, "materialise", "call finish first");
  if (!arena.aligned()) return fail(Status::misaligned, "materialise");
  unsigned char* to = static_cast<unsigned char*>(arena.take(weight_bytes_));
  if (!to) return fail(Status::out_of_memory, "materialise");
  const FloatControl control;
  for (int i = 0; i < parameter_count_; i++) {
    const Parameter* p = ModelAccess::parameter(*this, i);
    init_parameter(*p, i, seed_, reinterpret_cast<real*>(to + size_t(p->offset) * 64));
  }
  weights_ = to;
  return Status::ok;
}

// The nodes of `from` in their order, with other out_features in node `last`.
NNLITE_COLD void ModelAccess::copy_graph(const Model& from, int last, int outputs, Model& m) {
  const auto handle = [&](int node) { return Tensor{static_cast<uint16_t>(node), m.self_}; };
  for (int i = 0; i < from.node_count_; i++) {
    const Node& n = from.nodes_[i];
    Tensor in[max_inputs];
    Dims   dims;
    for (int k = 0; k < n.n_in; k++) in[k] = handle(n.inputs[k]);
    for (int d = 1; d < n.shape.rank && !n.op; d++) dims.dim[dims.rank++] = n.shape.dim[d];
    if (!n.op) m.input(n.name, dims, n.dtype);
    else if (n.owner != i) m.share_any(handle(n.owner), in, n.n_in);
    else {
      AnyOp layer(n.op, n.attributes, n.op->attr_size);
      if (i == last) static_cast<Linear*>(layer.attributes())->out_features = outputs;
      m.add_any(n.name, layer, in, n.n_in);
    }
    for (int p = 0; p < n.n_parameters && n.owner == i && !poisoned(m); p++) {
      m.nodes_[i].parameters[p].trainable = n.parameters[p].trainable;
      m.nodes_[i].parameters[p].init      = n.parameters[p].init;
      m.nodes_[i].parameters[p].has_init  = n.parameters[p].has_init;
    }
  }
  for (int i = 0; i < from.input_count_; i++) m.inputs_[i] = from.inputs_[i];
  for (int i = 0; i < from.output_count_; i++) m.output(from.output_names_[i], handle(from.outputs_[i]));
}

NNLITE_COLD Status Model::grow(const Model& from, int outputs, Seed seed, Arena& arena) {
  int last = from.node_count_ - 1;
  while (last >= 0 && from.nodes_[last].op != &Linear::op) last--;
  const int before = last < 0 ? 0 : from.nodes_[last].shape.last();
  if (!from.finished_ || node_count_ > 0 || last < 0 || outputs < before ||
      from.output_shape(0).last() != before)
    return fail(Status::bad_graph, "grow", "not empty, or no smaller last Linear");
  if (!from.has_weights()) return fail(Status::no_weights, "grow");
  ModelAccess::copy_graph(from, last, outputs, *this);
  NNLITE_TRY(finish(seed));
  if (output_shape(0).last() != outputs)
    return fail(Status::bad_graph, "grow", "the last Linear does not make output 0");
  NNLITE_TRY(materialise(arena));
  unsigned char* const weights = const_cast<unsigned char*>(weights_);
  for (int i = 0; i < parameter_count_; i++) {
    const Parameter &p = *ModelAccess::parameter(*this, i), &q = *ModelAccess::parameter(from, i);
    real* const       to = reinterpret_cast<real*>(weights + size_t(p.offset) * 64);
    const real* const at = reinterpret_cast<const real*>(from.weights_ + size_t(q.offset) * 64);
    for (int64_t e = 0; e < q.spec.shape.row_numel(); e++)
      to[parameter_at(p.spec, e)] = at[parameter_at(q.spec, e)];
  }
  return Status::ok;
}

// ================================================================================ >>planner
// From a model and options to a flat list of steps with every byte placed. One walk over the graph emits it,
// twice: to see when each value lives, then, after packing and not in plan(), to write records.

// Where data lies: the base in the top 3 bits, the offset from it in units of 64 bytes below.
using Ref = uint32_t;
constexpr Ref no_ref = 0xFFFFFFFFu;
enum class Base : uint8_t { arena, model, trainer };
static Ref make_ref(Base base, uint32_t units) { return static_cast<uint32_t>(base) << 29 | units; }
// One step. Its refs: forward: in, out, parameters, slots; backward: in, out, dx, dy, parameters, their
// gradients, slots; update: parameter, gradient, slots; add: to, from. Then: derived weights that are kept;
// with fusion::norm its parameters, with fusion::update the refs of an update. Everywhere of one size.
struct StepRecord {
  union {
    const Kernel* kernel;                      // nullptr: the plain loop of the op
    uint64_t      room;
  };
  int64_t  count      = 0;                     // of an update or an add: elements, per row where per_row
  uint32_t refs       = 0;                     // index of the first
  uint16_t node       = 0;
  uint16_t accumulate = 0;                     // bits: dx(i) +=
  StepKind kind       = StepKind::forward;
  uint8_t  n_slots    = 0;
  uint8_t  parameter  = 0;                     // which of the node's, for an update
  bool     training : 1, per_row : 1;
  bool     derived : 1;                        // there is a ref of derived weights that are kept
  uint8_t  fused      = 0;                     // bits of fusion
  uint16_t norm       = 0;                     // with fusion::norm: its node
  StepRecord() : room(0), training(false), per_row(false), derived(false) {}
};
static_assert(sizeof(StepRecord) == 32, "a plan made on a PC holds on a microcontroller");
// The two nodes of a loss in options.
struct LossNodes {
  Node     nodes[2];
  uint16_t inputs[2] = {};
};

static Status make_loss(const Model& model, AnyOp& loss, LossNodes& to, Graph& g, Problem& problem) {
  g = Graph(model, to.nodes);
  if (!loss) return Status::ok;
  const Op* op = loss.op();
  if ((op->traits & traits::loss) == 0 || model.output_count() == 0)
    return set_problem(problem, Status::no_loss, op->name) << ": not a loss";
  to.inputs[0] = ModelAccess::output_node(model, 0);
  to.inputs[1] = static_cast<uint16_t>(g.model_nodes);
  OpShape s;
  s.n_in  = 2;
  s.in[0] = model.output_shape(0);
  s.in_dtype[0] = real_dtype;
  const Status shaped = op->shape(loss.attributes(), s);
  if (!ok(shaped)) return set_problem(problem, shaped, op->name) << ": on output 0 of shape " << s.in[0];
  to.nodes[0] = {nullptr, nullptr, "target", nullptr, nullptr, s.in[1], s.in_dtype[1]};
  to.nodes[1] = {op, loss.attributes(), "loss", to.inputs, nullptr, s.out, real_dtype, 2};
  g.count += 2;
  return Status::ok;
}

// What a backward step is asked for: the values to write and which of them are added to.
struct Wanted {
  uint32_t dx_bits = 0, parameter_bits = 0, add_bits = 0, sum_bits = 0;    // of a sum: aside, then added
  bool     training = false;
  uint8_t  fused = 0;
  uint16_t dx[max_inputs];
  uint16_t gradients[max_parameters];          // transient ones; no_value where the gradient is kept
};

// A piece of memory with a lifetime in steps.
struct PlanValue {
  uint32_t units = 0, offset = 0, best = 0;    // of 64 bytes
  uint16_t first = 0xFFFF, last = 0;
  uint16_t root  = 0;                          // the value whose memory this one uses
};

constexpr uint16_t no_value = 0xFFFF;
struct PlanNode {
  uint16_t out = no_value, grad = no_value;
  uint16_t slots = no_value;                   // first of the node's slots
  bool     requires_grad = false;              // a parameter at or before this node is trained
  bool     reaches_loss = false;
  bool     frozen_before = false;              // part of a frozen beginning of the network
  bool     runs = false;
  bool     has_grad = false;                   // a gradient of its output was written already, in this walk
  bool     has_parameter_grad = false;         // the same for its parameters
  uint16_t forward_step = 0, dx_step = 0;
  uint8_t  fused = 0, fused_backward = 0;      // bits of fusion
  bool     absorbed = false;                   // forward is part of the step before
  bool     masked = false;                     // a ReLU whose backward is part of another step
  uint16_t norm = 0;                           // the batch norm that was absorbed
};

struct PlanRequest {
  const Graph* graph = nullptr;
  const TrainerOptions* training = nullptr;    // nullptr: a session
  bool   keep_loss = false;                    // a session with a loss
  const Engine* trainer = nullptr;             // of a session on a trainer
  const Backend* backend = nullptr;
  bool   derived_weights = true;
  int    batch = 1, workers = 1;
  size_t image_bytes = 0;                      // for set_image, or for augmentation
};

// Whether the options train a parameter of this node.
static bool trained(const Graph& g, const TrainerOptions& o, int node, const Parameter& p) {
  if (!p.trainable || p.spec.role == Role::statistic) return false;
  switch (o.trainable) {
    case Trainable::all:  return true;
    case Trainable::bias: return p.spec.role == Role::bias;
    case Trainable::head:
      for (int i = node + 1; i < g.model_nodes; i++)
        for (int k = 0; k < g.node(i).n_parameters; k++)
          if (g.node(i).parameters[k].spec.role != Role::statistic && g.node(i).owner != node) return false;
      return true;
    case Trainable::named: break;
  }
  char full[64];
  const NodeName name(&g.node(0), node);
  Text(full, sizeof full) << name << "." << p.spec.name;
  for (int k = 0; k < o.name_count; k++)
    if (same_text(o.names[k], name) || same_text(o.names[k], full)) return true;
  return false;
}

// What a run of node i says beside pointers.
static void describe_run(const Graph& g, int i, int rows, int workers, OpRun& run) {
  const Node& n    = g.node(i);
  run.attributes   = n.attributes;
  run.out_shape_   = &n.shape;
  run.rows         = rows;
  run.workers      = static_cast<int16_t>(workers);
  run.n_in         = n.n_in;
  run.n_parameters = n.n_parameters;
  run.node         = static_cast<uint16_t>(i);
  for (int k = 0; k < n.n_in; k++) run.in_shapes[k] = &g.node(n.inputs[k]).shape;
}

// What every node does, and with which values.
struct NodePlanner {
  PlanRequest request;
  PlanNode*  nodes;
  PlanValue* values;
  uint16_t*  order;
  uint16_t*  placed;
  int max_values = 0, value_count = 0, step_count = 0, ref_count = 0, forward_steps = 0;
  uint32_t pool_units = 0, lower_units = 0, pool_base = 0, derived_base = 0;
  uint64_t derived_units = 0;
  size_t   scratch_bytes = 0, derived_bytes = 0;        // the latter: of the kernel last found, to be kept
  int      walk_values = 0;  // next of the values made while walking, in the same order both times
  bool     overflow = false;                   // give up: the table is full, or a tensor is too large
  bool     table_full = false;
  const Op* missing = nullptr;                 // the backend has no row for it
  static constexpr int64_t too_large = int64_t(1) << 34;
  StepRecord unused;                           // what the first walk fills
  StepRecord* steps = nullptr;                 // where the second walk writes
  Ref*     refs = nullptr;
  const Ref* parameter_refs = nullptr;         // per parameter: value, gradient, slots
  int      parameter_stride = 0;

  const Graph& graph() const { return *request.graph; }
  bool training() const { return request.training != nullptr; }

  uint16_t new_value(int64_t bytes) {
    table_full |= value_count >= max_values;
    overflow |= table_full || bytes > too_large;
    if (overflow) return no_value;
    PlanValue& v = values[value_count];
    v       = PlanValue();
    v.units = static_cast<uint32_t>((bytes + 63) / 64);
    v.root  = static_cast<uint16_t>(value_count);
    return static_cast<uint16_t>(value_count++);
  }
  uint16_t root(uint16_t v) const {
    while (values[v].root != v) v = values[v].root;
    return v;
  }
  // Elements are below 2^62, as rows and elements of a row are below 2^31; bytes stay there too.
  static int64_t bytes_of(int64_t count, DType t) {
    return count > too_large ? count : count * static_cast<int64_t>(size_of(t));
  }
  int64_t bytes_of(const Shape& s, DType t) const { return bytes_of(s.numel(request.batch), t); }

  bool is_trained(const Parameter& p, int node) const {
    return training() && trained(graph(), *request.training, graph().node(node).owner, p);
  }

  // When one of its parameters is trained; a normalisation that has none when it is not frozen.
  bool node_trains(int i) const {
    const Node& n = graph().node(i);
    bool weights = false;
    for (int p = 0; p < n.n_parameters; p++) {
      if (is_trained(n.parameters[p], i)) return true;
      weights |= n.parameters[p].spec.role != Role::statistic;
    }
    return training() && n.op && (n.op->traits & traits::stateful) != 0 && !weights &&
           !nodes[i].frozen_before && request.training->trainable == Trainable::all;
  }

  // In training mode: batch statistics, dropout. Not if frozen, nor dropout before the first trained layer.
  bool runs_training(int i) const {
    const Node& n = graph().node(i);
    if (!training()) return false;
    if ((n.op->traits & traits::stateful) != 0) return node_trains(i);
    return !nodes[i].frozen_before;
  }

  // Statistics that change and trained parameters are the trainer's own.
  bool owns(const Parameter& p, int node) const {
    return is_trained(p, node) || (p.spec.role == Role::statistic && node_trains(node));
  }

  // Nodes whose output is their input under another shape.
  bool skipped(int i) const {
    const uint32_t t = graph().node(i).op->traits;
    return (t & traits::view) != 0 || ((t & traits::identity_in_evaluation) != 0 && !runs_training(i));
  }

  bool skipped_forward(int i) const { return skipped(i) || nodes[i].absorbed; }
  bool skipped_backward(int i) const { return skipped(i) || nodes[i].masked; }

  NNLITE_COLD void mark() {
    const Graph& g = graph();
    for (int i = 0; i < g.count; i++) nodes[i] = PlanNode();
    for (int i = 0; i < g.count; i++) {
      const Node& n = g.node(i);
      bool frozen = false, before = false;
      for (int k = 0; k < n.n_in; k++) {
        const PlanNode& in = nodes[n.inputs[k]];
        nodes[i].requires_grad |= in.requires_grad;
        frozen |= in.frozen_before;
      }
      for (int p = 0; p < n.n_parameters; p++) {
        before |= n.parameters[p].spec.role != Role::statistic && !is_trained(n.parameters[p], i);
        nodes[i].requires_grad |= is_trained(n.parameters[p], i);
      }
      nodes[i].frozen_before = training() && !nodes[i].requires_grad && (frozen || before);
    }
    for (int i = g.count - 1; i >= 0; i--)        // what only feeds the frozen part belongs to it
      for (int k = 0; k < g.node(i).n_in && nodes[i].frozen_before; k++)
        nodes[g.node(i).inputs[k]].frozen_before |= !nodes[g.node(i).inputs[k]].requires_grad;
    for (int i = g.count - 1; i >= 0; i--) {
      if (g.is_loss(i)) nodes[i].reaches_loss = true;
      nodes[i].runs |= nodes[i].reaches_loss && (training() || request.keep_loss);
      for (int o = 0; o < g.model->output_count() && !training(); o++)
        nodes[i].runs |= ModelAccess::output_node(*g.model, o) == i && !g.is_loss(i);
      if (!nodes[i].runs) continue;
      for (int k = 0; k < g.node(i).n_in; k++) {
        nodes[g.node(i).inputs[k]].runs = true;
        nodes[g.node(i).inputs[k]].reaches_loss |= nodes[i].reaches_loss;
      }
    }
  }

  // Gradients that outlive their layer: for clipping by norm, inspection, layers used more than once, and
  // devices, whose updates are one launch.
  bool materialised(int i) const {
    const TrainerOptions& o = *request.training;
    if (o.clip_norm > 0 || o.keep_gradients || request.backend) return true;
    const int owner = graph().node(i).owner;
    for (int k = 0; k < graph().model_nodes; k++)
      if (k != owner && graph().node(k).owner == owner) return true;
    return false;
  }

  Wanted wanted(int i) const {
    const Node& n = graph().node(i);
    Wanted w;
    w.training = runs_training(i);
    if (!training() || !nodes[i].requires_grad || !nodes[i].reaches_loss) return w;
    for (int k = 0; k < n.n_in; k++)
      if (nodes[n.inputs[k]].requires_grad && graph().node(n.inputs[k]).op) w.dx_bits |= 1u << k;
    for (int p = 0; p < n.n_parameters; p++)
      if (is_trained(n.parameters[p], i)) w.parameter_bits |= 1u << p;
    return w;
  }

  // A slot that is saved is there where something reads it later.
  bool has_slot(int i, const OpShape& s, int k) const {
    const Wanted w = wanted(i);
    return s.slots[k].keep == Keep::scratch || (w.dx_bits != 0 && s.dx_reads_slots) ||
           (w.parameter_bits != 0 && s.dw_reads_slots) || (graph().node(i).op->commit && w.training);
  }

  void assign_slots(int i) {
    const OpShape s = shape_of(graph(), i);
    if (s.n_slots == 0) return;
    nodes[i].slots = static_cast<uint16_t>(value_count);
    for (int k = 0; k < s.n_slots; k++) {
      const int64_t bytes =
          bytes_of(s.slots[k].count * (s.slots[k].per_row ? request.batch : 1), s.slots[k].dtype);
      (void)new_value(has_slot(i, s, k) ? bytes : 0);
    }
  }

  NNLITE_COLD void assign_values() {
    const Graph& g = graph();
    for (int i = 0; i < g.count && !overflow; i++) {
      const Node& n = g.node(i);
      if (!nodes[i].runs) continue;
      if (n.op && skipped_forward(i)) {
        nodes[i].out = nodes[n.inputs[0]].out;
        continue;
      }
      nodes[i].out = new_value(bytes_of(n.shape, n.dtype));
      if (n.op) assign_slots(i);
    }
    for (int i = g.count - 1; i >= 0 && training() && !overflow; i--) {
      const PlanNode& node = nodes[i];
      if (!node.runs || !g.node(i).op || !node.requires_grad || !node.reaches_loss || g.is_loss(i)) continue;
      const int  user = only_user(i);
      const bool through = user >= 0 && skipped_backward(user);  // a view hands its gradient on as it is
      nodes[i].grad = through ? nodes[user].grad : new_value(bytes_of(g.node(i).shape, real_dtype));
    }
  }

  // The one place where the output of node i is read; -1 where there are others, or none.
  int only_user(int i) const {
    const Graph& g = graph();
    int users = 0, user = -1;
    for (int k = i + 1; k < g.count; k++)
      for (int q = 0; q < g.node(k).n_in && nodes[k].runs && (!training() || nodes[k].reaches_loss); q++)
        if (g.node(k).inputs[q] == i) users++, user = k;
    for (int o = 0; o < g.model->output_count() && !training(); o++)
      if (ModelAccess::output_node(*g.model, o) == i) users++;
    return users == 1 ? user : -1;
  }

  // The first row that accepts.
  NNLITE_COLD const Kernel* find_kernel(const Op& op, Phase phase, const OpRun& run,
                                                 KernelPlan& plan) const {
    const Kernel* const* k = request.backend ? request.backend->rows(op.name) : op.kernels;
    for (; k && *k; k++) {
      plan = KernelPlan();
      if ((*k)->phase == phase && (*k)->plan(run, plan)) return *k;
    }
    plan = KernelPlan();
    return nullptr;
  }
  // The same, of node i: shapes, and which pointers will be there once memory exists.
  NNLITE_COLD const Kernel* find_kernel(int i, Phase phase, const Wanted& w, KernelPlan& plan) const {
    static unsigned char there;
    const Graph& g   = graph();
    const Node&  n   = g.node(i);
    const OpShape s  = shape_of(g, i);
    OpRun run = OpRun();
    describe_run(g, i, request.batch, request.workers, run);
    run.training        = w.training;
    run.accumulate_bits = w.add_bits;
    run.fused           = w.fused;
    run.out_            = &there;
    run.dy_             = g.is_loss(i) ? nullptr : &there;
    run.derived         = request.derived_weights ? &there : nullptr;
    for (int k = 0; k < n.n_in; k++) {
      run.in_[k] = &there;
      run.dx_[k] = (w.dx_bits >> k & 1u) != 0 ? &there : nullptr;
    }
    for (int p = 0; p < n.n_parameters; p++) {
      run.parameter_[p]  = &there;
      run.dparameter_[p] = (w.parameter_bits >> p & 1u) != 0 ? &there : nullptr;
    }
    for (int k = 0; k < s.n_slots; k++) run.slot_[k] = has_slot(i, s, k) ? &there : nullptr;
    return find_kernel(*n.op, phase, run, plan);
  }
  const Kernel* update_kernel(int i, int p, KernelPlan& plan) const {
    OpRun run = OpRun();
    static real there;
    run.attributes   = request.training->optimizer.attributes();
    const Shape flat = flat_shape(graph().node(i).parameters[p].stored);
    run.in_shapes[0] = run.out_shape_ = &flat;
    run.parameter_[0] = run.dparameter_[0] = &there;
    run.n_in = run.n_parameters = 1;
    run.workers = static_cast<int16_t>(request.workers);
    return find_kernel(*request.training->optimizer.op(), Phase::update, run, plan);
  }

  // What follows node i alone joins its step where the kernel can: batch norm by stored statistics that no
  // gradient passes, then ReLU.
  NNLITE_COLD void fuse_forward(int i) {
    const Graph& g = graph();
    PlanNode&    n = nodes[i];
    if (!g.node(i).op || !n.runs || skipped(i) || n.absorbed) return;
    Wanted w;
    w.training = runs_training(i);
    KernelPlan plan;
    const Kernel* const kernel = find_kernel(i, Phase::forward, w, plan);
    if (!kernel || kernel->fuses == 0) return;
    int user = only_user(i);
    const auto is = [&](uint32_t trait) { return user >= 0 && (g.node(user).op->traits & trait) != 0; };
    if ((kernel->fuses & fusion::norm) != 0 && is(traits::norm) &&
        !runs_training(user) && !(training() && nodes[user].requires_grad) && g.node(user).n_parameters > 0 &&
        g.node(user).parameters[g.node(user).n_parameters - 1].spec.role == Role::statistic) {
      n.fused |= fusion::norm;
      n.norm = static_cast<uint16_t>(user);
      nodes[user].absorbed = true;
      user = only_user(user);
    }
    if ((kernel->fuses & fusion::relu) == 0 || !is(traits::relu)) return;
    n.fused |= fusion::relu;
    nodes[user].absorbed = true;
  }

  // The kernel for backward, or for a part of it where no kernel does it all.
  NNLITE_COLD bool can_fuse(int i, Phase part, uint8_t bit) const {
    Wanted w = wanted(i);
    KernelPlan plan;
    const Kernel* kernel = find_kernel(i, Phase::backward, w, plan);
    if (kernel) return (kernel->fuses & bit) != 0;
    if (part == Phase::grad_input) w.parameter_bits = 0;
    else w.dx_bits = 0;
    if ((w.dx_bits & 1u) == 0 && (w.parameter_bits & 1u) == 0) return false;
    w.fused = bit;
    kernel = find_kernel(i, part, w, plan);
    return kernel && (kernel->fuses & bit) != 0;
  }

  // A weight whose gradient nothing else reads is updated as that is made, piece by piece.
  NNLITE_COLD void fuse_update(int i) {
    KernelPlan plan;
    if (!graph().node(i).op || !nodes[i].runs || !nodes[i].reaches_loss || !nodes[i].requires_grad) return;
    if (graph().node(i).n_parameters == 0 || !is_trained(graph().node(i).parameters[0], i)) return;
    if (materialised(i) || !can_fuse(i, Phase::grad_parameter, fusion::update)) return;
    const Kernel* const kernel = update_kernel(i, 0, plan);
    if (kernel && kernel == request.training->optimizer.op()->kernels[0] && plan.stages == 1)
      nodes[i].fused_backward |= fusion::update;
  }

  // The backward of a ReLU becomes part of that of its one reader, or of the step that absorbed it.
  NNLITE_COLD void fuse_backward(int i) {
    const Graph& g = graph();
    if (!nodes[i].runs || !g.node(i).op || (g.node(i).op->traits & traits::relu) == 0) return;
    if (wanted(i).dx_bits == 0) return;
    const int reader = only_user(i), before = g.node(i).inputs[0];
    const auto give_to = [&](int step, uint8_t mask) {
      if (step < 0 || nodes[i].masked || !can_fuse(step, Phase::grad_input, mask)) return;
      nodes[step].fused_backward |= mask;
      nodes[i].masked = true;
    };
    const int maker = nodes[i].absorbed ? before : -1;
    // a device's norm makes the mask of what it reads anyway
    if (request.backend && maker >= 0 && (g.node(maker).op->traits & traits::norm) != 0)
      give_to(maker, fusion::mask_dy);
    give_to(reader, fusion::mask_dx);
    give_to(reader, fusion::mask_max);
    give_to(maker, fusion::mask_dy);
  }
};

// ================================================================================ >>plan_steps
// The walk: it emits the steps of a pass and touches every value where it is used.

struct StepPlanner : NodePlanner {
  // Where a parameter lies (which 0), its kept gradient (1) or its optimizer slots (2, 3, ...).
  Ref parameter_ref(int i, int p, int which) const {
    const Node& n   = graph().node(i);
    const int index = n.first_parameter + p;
    if (parameter_refs) return parameter_refs[index * parameter_stride + which];
    const Ref in_model = make_ref(Base::model, n.parameters[p].offset);
    if (!request.trainer) return in_model;
    const Ref r = request.trainer->parameters[index * request.trainer->parameter_stride];
    return (r >> 29) == static_cast<uint32_t>(Base::arena) ? make_ref(Base::trainer, r) : r;
  }

  void use(uint16_t v) {
    if (v == no_value || steps) return;
    PlanValue& p = values[v];
    const uint16_t step = static_cast<uint16_t>(step_count);
    if (p.first == 0xFFFF) p.first = step;
    if (p.last < step) p.last = step;
  }

  void put_ref(Ref r) {
    if (steps) refs[ref_count] = r;
    ref_count++;
  }

  void put(uint16_t v) {
    use(v);
    const bool there = v != no_value && values[root(v)].units > 0;
    put_ref(there ? make_ref(Base::arena, pool_base + values[root(v)].best) : no_ref);
  }

  void put_parameters(int i) {
    for (int p = 0; p < graph().node(i).n_parameters; p++) put_ref(steps ? parameter_ref(i, p, 0) : no_ref);
  }

  void put_slots(int i, StepRecord& r) {
    if (nodes[i].slots == no_value) return;
    const OpShape s = shape_of(graph(), i);
    for (int k = 0; k < s.n_slots; k++) put(static_cast<uint16_t>(nodes[i].slots + k));
    r.n_slots = static_cast<uint8_t>(s.n_slots);
  }

  StepRecord& begin(StepKind kind, int node) {
    if (step_count >= 0xFFF0) overflow = table_full = true;
    StepRecord& r = steps ? steps[step_count] : unused;
    r      = StepRecord();
    r.kind = kind;
    r.node = static_cast<uint16_t>(node);
    r.refs = static_cast<uint32_t>(ref_count);
    return r;
  }

  // A value that lives between the steps of one node; both walks make the same ones in the same order.
  uint16_t walk_value(int64_t bytes) {
    if (!steps) return new_value(bytes);
    return static_cast<uint16_t>(walk_values++);
  }

  // Weights change in every step of a trainer, so what is derived from them is scratch there.
  void plan_scratch(const KernelPlan& plan) {
    derived_bytes = training() ? 0 : plan.derived;
    const size_t bytes = plan.scratch_per_worker * size_t(request.workers) + plan.scratch_shared +
                         plan.derived - derived_bytes;
    if (bytes > scratch_bytes) scratch_bytes = bytes;
  }
  const Kernel* use_kernel(int i, Phase phase, const Wanted& w) {
    KernelPlan plan;
    const Kernel* const kernel = find_kernel(i, phase, w, plan);
    plan_scratch(plan);
    return kernel;
  }
  // On a device there is no plain loop to take its place.
  void need(const Kernel* kernel, const Op* op) {
    if (!kernel && request.backend && !missing) missing = op;
  }

  void forward_node(int i) {
    const Node& n = graph().node(i);
    StepRecord& r = begin(StepKind::forward, i);
    Wanted w;
    w.training = r.training = runs_training(i);
    w.fused = r.fused = nodes[i].fused;
    r.norm     = nodes[i].norm;
    r.kernel   = use_kernel(i, Phase::forward, w);
    need(r.kernel, n.op);
    nodes[i].forward_step = static_cast<uint16_t>(step_count);
    for (int k = 0; k < n.n_in; k++) put(nodes[n.inputs[k]].out);
    put(nodes[i].out);
    put_parameters(i);
    put_slots(i, r);
    if (r.kernel && derived_bytes > 0) {
      r.derived = true;
      put_ref(make_ref(Base::arena, derived_base + static_cast<uint32_t>(derived_units)));
      derived_units += (derived_bytes + 63) / 64;
    }
    if ((r.fused & fusion::norm) != 0) put_parameters(r.norm);
    step_count++;
  }

  NNLITE_COLD void backward_step(int i, const Kernel* kernel, const Wanted& w) {
    const Node& n = graph().node(i);
    StepRecord& r = begin(StepKind::backward, i);
    r.kernel      = kernel;
    need(kernel, n.op);
    r.training    = w.training;
    r.accumulate  = static_cast<uint16_t>(w.add_bits);
    r.fused       = w.fused;
    const OpShape s = shape_of(graph(), i);
    uint32_t weight_bits = 0;
    for (int p = 0; p < n.n_parameters; p++)
      if ((w.parameter_bits >> p & 1u) != 0 && n.parameters[p].spec.role == Role::weight)
        weight_bits |= 1u << p;
    const uint32_t in_bits = (w.dx_bits ? s.dx_reads_in : 0) | (weight_bits ? s.dw_reads_in : 0) |
                             ((w.fused & fusion::mask_dx) != 0 ? 1u : 0u);
    const bool out         = (w.dx_bits && s.dx_reads_out) || (weight_bits && s.dw_reads_out) ||
                     (w.fused & (fusion::mask_dy | fusion::mask_max)) != 0;
    for (int k = 0; k < n.n_in; k++) put((in_bits >> k & 1u) != 0 ? nodes[n.inputs[k]].out : no_value);
    put(out ? nodes[i].out : no_value);
    for (int k = 0; k < n.n_in; k++) put((w.dx_bits >> k & 1u) != 0 ? w.dx[k] : no_value);
    put(graph().is_loss(i) ? no_value : nodes[i].grad);
    put_parameters(i);
    for (int p = 0; p < n.n_parameters; p++) {
      if ((w.parameter_bits >> p & 1u) == 0) put_ref(no_ref);
      else if (w.gradients[p] != no_value) put(w.gradients[p]);
      else put_ref(steps ? parameter_ref(i, p, 1) : no_ref);
    }
    put_slots(i, r);
    if ((w.fused & fusion::update) != 0) put_update(i, 0, no_value);
    if (w.dx_bits) nodes[i].dx_step = static_cast<uint16_t>(step_count);
    step_count++;
  }

  // to = from, or to += from. to is a value, or a kept gradient.
  void sum_step(uint16_t to, Ref to_ref, uint16_t from, const Shape& shape, bool add) {
    StepRecord& r = begin(StepKind::add, 0);
    r.count       = shape.row_numel();
    r.per_row     = shape.batched();
    r.accumulate  = add ? 1 : 0;
    if (to != no_value) put(to);
    else put_ref(to_ref);
    put(from);
    step_count++;
  }

  // The first finished gradient of a tensor is stored, later ones are added: by the op if it can, else aside.
  NNLITE_COLD void choose_targets(int i, Wanted& w) {
    const Node& n = graph().node(i);
    for (int k = 0; k < n.n_in; k++) {
      if ((w.dx_bits >> k & 1u) == 0) continue;
      PlanNode& in = nodes[n.inputs[k]];
      bool twice   = false;
      for (int q = 0; q < k; q++) twice |= n.inputs[q] == n.inputs[k];
      w.dx[k] = in.grad;
      if (in.has_grad && (twice || (n.op->traits & traits::accumulates) == 0)) {
        w.sum_bits |= 1u << k;
        w.dx[k] = walk_value(bytes_of(graph().node(n.inputs[k]).shape, real_dtype));
      } else if (in.has_grad) {
        w.add_bits |= 1u << k;
      }
      in.has_grad = true;
    }
  }

  // A view's gradient is its input's, unless that has other users.
  void view_gradient(int i) {
    PlanNode& in = nodes[graph().node(i).inputs[0]];
    if (in.requires_grad && in.grad != no_value && in.grad != nodes[i].grad)
      sum_step(in.grad, no_ref, nodes[i].grad, graph().node(i).shape, in.has_grad);
    in.has_grad = true;
  }

  void put_update(int i, int p, uint16_t gradient) {
    for (int k = 0; k < parameter_stride; k++) {
      if (k == 1 && gradient != no_value) put(gradient);
      else put_ref(steps ? parameter_ref(i, p, k) : no_ref);
    }
  }

  NNLITE_COLD void update_step(int i, int p, uint16_t gradient) {
    const Parameter& q = graph().node(i).parameters[p];
    StepRecord& r      = begin(StepKind::update, i);
    r.parameter        = static_cast<uint8_t>(p);
    r.count            = q.stored;
    put_update(i, p, gradient);
    KernelPlan plan;
    r.kernel = update_kernel(i, p, plan);
    need(r.kernel, request.training->optimizer.op());
    plan_scratch(plan);
    step_count++;
  }

  // After a node's gradients: update at once if nothing else needs them; add up if the layer is used again.
  NNLITE_COLD void parameter_steps(int i, const Wanted& w) {
    const Node& n = graph().node(i);
    for (int p = 0; p < n.n_parameters; p++) {
      if ((w.parameter_bits >> p & 1u) == 0) continue;
      if (p == 0 && (w.fused & fusion::update) != 0) continue;
      if (!materialised(i)) update_step(i, p, w.gradients[p]);
      else if (w.gradients[p] != no_value) {
        sum_step(no_value, steps ? parameter_ref(i, p, 1) : no_ref, w.gradients[p],
                 flat_shape(n.parameters[p].stored), true);
      }
    }
  }

  NNLITE_COLD void backward_node(int i) {
    const Node& n = graph().node(i);
    Wanted w = wanted(i);
    if ((w.dx_bits | w.parameter_bits) == 0) return;
    if (skipped_backward(i)) return view_gradient(i);
    w.fused = nodes[i].fused_backward;
    for (int p = 0; p < n.n_parameters; p++) {
      w.gradients[p] = no_value;
      if ((w.parameter_bits >> p & 1u) == 0) continue;
      const bool later_use = nodes[n.owner].has_parameter_grad;
      if (p == 0 && (w.fused & fusion::update) != 0) continue;
      if (!materialised(i) || later_use)
        w.gradients[p] = walk_value(n.parameters[p].stored * static_cast<int64_t>(sizeof(real)));
    }
    if (w.parameter_bits) nodes[n.owner].has_parameter_grad = true;
    choose_targets(i, w);
    Wanted dx_only = w, dw_only = w;
    dx_only.parameter_bits = dw_only.dx_bits = dw_only.add_bits = 0;
    dx_only.fused &= fusion::mask_dx;
    dw_only.fused &= fusion::update;
    const Kernel* both = use_kernel(i, Phase::backward, w);
    const Kernel* dx   = both || !w.dx_bits ? nullptr : use_kernel(i, Phase::grad_input, dx_only);
    const Kernel* dw   = both || !w.parameter_bits ? nullptr : use_kernel(i, Phase::grad_parameter, dw_only);
    if (!both && (dx || !w.dx_bits) && (dw || !w.parameter_bits)) {
      if (dx) backward_step(i, dx, dx_only);
      if (dw) backward_step(i, dw, dw_only);
    } else {
      backward_step(i, both, w);
    }
    for (int k = 0; k < n.n_in; k++)
      if ((w.sum_bits >> k & 1u) != 0)
        sum_step(nodes[n.inputs[k]].grad, no_ref, w.dx[k], graph().node(n.inputs[k]).shape, true);
    parameter_steps(i, w);
  }

  void commit_step(int i) {
    StepRecord& r = begin(StepKind::commit, i);
    if (request.backend) r.kernel = use_kernel(i, Phase::commit, wanted(i));
    need(r.kernel, graph().node(i).op);
    for (int k = 0; k <= graph().node(i).n_in; k++) put_ref(no_ref);
    put_parameters(i);
    put_slots(i, r);
    step_count++;
  }

  // Updates that had to wait for all gradients, then statistics.
  void final_steps() {
    for (int i = 0; i < graph().model_nodes; i++) {
      const Node& n = graph().node(i);
      if (!n.op) continue;
      for (int p = 0; p < n.n_parameters && nodes[i].has_parameter_grad; p++)    // set for owners alone
        if (is_trained(n.parameters[p], i) && materialised(i)) update_step(i, p, no_value);
    }
    for (int i = 0; i < graph().model_nodes; i++) {
      const Op* const op = graph().node(i).op;
      if (op && op->commit && nodes[i].runs && runs_training(i)) commit_step(i);
    }
  }

  NNLITE_COLD void walk() {
    step_count = ref_count = 0;
    derived_units = 0;
    const Graph& g = graph();
    for (int i = 0; i < g.count; i++) {
      nodes[i].has_grad = nodes[i].has_parameter_grad = false;
      if (!g.node(i).op && nodes[i].runs) use(nodes[i].out);
    }
    for (int i = 0; i < g.count && !overflow; i++)
      if (g.node(i).op && nodes[i].runs && !skipped_forward(i)) forward_node(i);
    forward_steps = step_count;
    if (training()) {
      for (int i = g.count - 1; i >= 0 && !overflow; i--)
        if (g.node(i).op && nodes[i].runs && nodes[i].reaches_loss) backward_node(i);
      final_steps();
    }
    for (int i = 0; i < g.count; i++) if (nodes[i].runs && g.is_loss(i)) use(nodes[i].out);
    for (int o = 0; o < g.model->output_count() && !training(); o++)
      use(nodes[ModelAccess::output_node(*g.model, o)].out);
  }
};

// ================================================================================ >>packing
// Lifetimes become offsets: what can lie over each other is merged, then packed.

struct Planner : StepPlanner {
  // from may lie over into when into is read for the last time in the very step that writes from.
  void try_merge(uint16_t into, uint16_t from, int step) {
    if (into == no_value || from == no_value) return;
    PlanValue& a = values[root(into)];
    PlanValue& b = values[from];
    if (b.root != from || root(into) == from || a.units != b.units || a.units == 0) return;
    if (a.last != step || b.first != step) return;
    a.last = b.last;
    b.root = root(into);
  }

  bool goes_by_element(int i) const {
    const Op* op = graph().node(i).op;
    return op && nodes[i].runs && (op->traits & traits::elementwise) != 0;
  }
  NNLITE_COLD void merge_in_place() {
    const Graph& g = graph();
    for (int i = 0; i < g.count; i++) {
      const Node& n = g.node(i);
      if (!goes_by_element(i) || skipped_forward(i)) continue;
      for (int k = 0; k < n.n_in; k++)
        if (g.node(n.inputs[k]).shape == n.shape && g.node(n.inputs[k]).dtype == real_dtype)
          try_merge(nodes[n.inputs[k]].out, nodes[i].out, nodes[i].forward_step);
    }
    for (int i = g.count - 1; i >= 0 && training(); i--) {
      const Node& n = g.node(i);
      if (!goes_by_element(i) || skipped_backward(i) || (wanted(i).dx_bits & 1u) == 0) continue;
      try_merge(nodes[i].grad, nodes[n.inputs[0]].grad, nodes[i].dx_step);
    }
  }

  // The order for packing: by size, by lifetime, by size times lifetime, by first use.
  bool before(uint16_t a, uint16_t b, int key) const {
    const PlanValue &x = values[a], &y = values[b];
    const auto rank = [key](const PlanValue& v) {
      const uint64_t length = uint64_t(v.last - v.first) + 1;
      return key == 0 ? v.units : key == 1 ? length : key == 2 ? v.units * length : 0xFFFFu - v.first;
    };
    const uint64_t kx = rank(x), ky = rank(y);
    if (kx != ky) return kx > ky;
    if (x.units != y.units) return x.units > y.units;
    return a < b;
  }

  // Places the values in order, each in the lowest gap (or the tightest) among those that live at its time.
  uint32_t place_all(int live, bool best_fit) {
    uint32_t end = 0;
    for (int i = 0; i < live; i++) {
      PlanValue& v = values[order[i]];
      uint32_t at = 0, chosen = 0xFFFFFFFFu, chosen_size = 0xFFFFFFFFu;
      for (int k = 0; k < i; k++) {                              // placed is sorted by offset
        const PlanValue& other = values[placed[k]];
        if (other.last < v.first || other.first > v.last) continue;
        if (other.offset >= at + v.units && other.offset - at < chosen_size) {
          chosen      = at;
          chosen_size = other.offset - at;
          if (!best_fit) break;
        }
        if (other.offset + other.units > at) at = other.offset + other.units;
      }
      v.offset = chosen != 0xFFFFFFFFu ? chosen : at;
      if (v.offset + v.units > end) end = v.offset + v.units;
      int k = i;
      for (; k > 0 && values[placed[k - 1]].offset > v.offset; k--) placed[k] = placed[k - 1];
      placed[k] = order[i];
    }
    return end;
  }

  // The smallest of eight packings; above 1.05 times the lower bound, which is the largest sum of what lives
  // at one time, four runs of 32 more.
  void pack() {
    int live = 0;
    for (int v = 0; v < value_count; v++)
      if (values[v].root == v && values[v].units > 0 && values[v].first != 0xFFFF)
        order[live++] = static_cast<uint16_t>(v);
    for (int i = 0; i < live; i++) {                             // the sum only grows where a value begins
      uint64_t sum = 0;
      const uint16_t step = values[order[i]].first;
      for (int k = 0; k < live; k++)
        if (values[order[k]].first <= step && values[order[k]].last >= step) sum += values[order[k]].units;
      if (sum > lower_units) lower_units = static_cast<uint32_t>(sum);
    }
    uint32_t size = pool_units = 0xFFFFFFFFu;
    for (int t = 0; t < 136 && pool_units > (t < 8 ? lower_units : lower_units + lower_units / 20); t++) {
      const int key = t < 8 ? t / 2 : t / 32;
      if (t < 8 || t % 32 == 8) sort(order, live, [&](uint16_t a, uint16_t b) { return before(a, b, key); });
      else {                                                     // what ended highest goes first
        int k = 0;
        while (values[order[k]].offset + values[order[k]].units != size) k++;
        for (const uint16_t top = order[k]; k >= 0; k--) order[k] = k > 0 ? order[k - 1] : top;
      }
      size = place_all(live, t % 2 == 1);
      if (size >= pool_units) continue;
      pool_units = size;
      for (int k = 0; k < live; k++) values[order[k]].best = values[order[k]].offset;
    }
  }

  Status run_first(Problem& problem) {
    mark();
    for (int i = 0; i < graph().count && fuses_rows; i++) fuse_forward(i);
    for (int i = 0; i < graph().count && fuses_rows && training(); i++) fuse_backward(i), fuse_update(i);
    assign_values();
    walk_values = value_count;
    const int first_walk_value = value_count;
    if (!overflow) walk();
    if (overflow)
      return set_problem(problem, Status::limit_exceeded, "plan")
          << (table_full ? ": the network is too large" : ": a tensor of more than 16 GiB in this batch");
    if (missing) return set_problem(problem, Status::unsupported, missing->name, "not on this backend");
    walk_values = first_walk_value;
    merge_in_place();
    pack();
    return Status::ok;
  }
};

// ================================================================================ >>executor
// Walks the step list. Every pointer is a base and an offset; workers of the pool share a kernel's tasks.

static bool all_finite(const real* v, int64_t n) {
  for (int64_t i = 0; i < n; i++) if (!(v[i] - v[i] == 0)) return false;
  return true;
}

// Inputs of the model, and the loss's target behind them.
static int input_count(const Engine& e) {
  return e.model->input_count() + (e.node_count > e.model->node_count() ? 1 : 0);
}
static int input_node(const Engine& e, int i) {
  return i < e.model->input_count() ? ModelAccess::input_node(*e.model, i) : e.model->node_count();
}

struct Executor {
  const Engine& engine;
  Graph       graph;
  StepContext context;
  int         rows = 0;
  int         isa;                             // row of Kernel::run
  const void* bases[3];                        // by Base

  explicit Executor(const Engine& e)
      : engine(e), graph(*e.model, e.extra, e.node_count - e.model->node_count()),
        isa(e.backend ? 0 : static_cast<int>(current_isa())),
        bases{e.backend ? e.device : e.arena, e.backend ? e.device_weights : ModelAccess::weights(*e.model),
              !e.trainer ? nullptr : e.backend ? e.trainer->device : e.trainer->arena} {}
  // Where steps see it, and where this side of a backend does, which has a copy of what the arena holds.
  static void* place(const void* base, Ref r) {
    return r == no_ref ? nullptr
                       : static_cast<unsigned char*>(const_cast<void*>(base)) + size_t(r & 0x1FFFFFFFu) * 64;
  }
  void* at(Ref r) const { return place(r == no_ref ? nullptr : bases[r >> 29], r); }
  void* host(Ref r) const { return place(engine.arena, r); }
  real* reals(Ref r) const { return static_cast<real*>(at(r)); }

  // The rows of the output of node i that are there, to or from the device.
  Status copy(int i, Ref r, Copy way) const {
    const Node& n = graph.node(i);
    if (!engine.backend || r == no_ref) return Status::ok;
    const size_t bytes = static_cast<size_t>(n.shape.numel(rows)) * size_of(n.dtype);
    return engine.backend->copy(engine.backend->user, at(r), host(r), bytes, way);
  }
  // Of a batch: its inputs there, or losses and a session's outputs back.
  Status copy_batch(Copy way) const {
    for (int i = 0; i < graph.count; i++) {
      bool moves = way == Copy::to_device ? !graph.node(i).op : graph.is_loss(i);
      for (int o = 0; o < graph.model->output_count() && way == Copy::from_device && !engine.parameters; o++)
        moves |= ModelAccess::output_node(*graph.model, o) == i;
      if (moves) NNLITE_TRY(copy(i, engine.io[i], way));
    }
    return Status::ok;
  }

  unsigned char* scratch() const {
    return static_cast<unsigned char*>(const_cast<void*>(bases[0])) + (engine.scratch - engine.arena);
  }

  // The pointers of a forward, backward or commit step. Returns the refs behind its own.
  const Ref* fill(const StepRecord& s, OpRun& run) const {
    const Node& n    = graph.node(s.node);
    const Ref* r     = engine.refs + s.refs;
    const bool grads = s.kind == StepKind::backward;
    describe_run(graph, s.node, rows, engine.workers, run);
    run.context         = &context;
    run.scratch         = scratch();
    run.training        = s.training;
    run.accumulate_bits = s.accumulate;
    run.fused           = s.fused;
    for (int k = 0; k < n.n_in; k++) run.in_[k] = at(*r++);
    run.out_ = at(*r++);
    for (int k = 0; k < n.n_in; k++) run.dx_[k] = grads ? at(*r++) : nullptr;
    run.dy_ = grads ? at(*r++) : nullptr;
    for (int p = 0; p < n.n_parameters; p++) run.parameter_[p] = at(*r++);
    for (int p = 0; p < n.n_parameters; p++) run.dparameter_[p] = grads ? at(*r++) : nullptr;
    for (int k = 0; k < max_slots; k++) run.slot_[k] = k < s.n_slots ? at(*r++) : nullptr;
    run.derived = s.derived ? static_cast<unsigned char*>(at(*r++)) : nullptr;
    if ((s.fused & fusion::norm) != 0) fill_norm(graph.node(s.norm), r, run.norm);
    return r;
  }

  void fill_norm(const Node& n, const Ref* r, FusedNorm& norm) const {
    BatchNorm2d a;                               // BatchNorm1d has the same fields
    __builtin_memcpy(&a, n.attributes, sizeof a);
    norm = FusedNorm{};
    if (a.affine) norm.weight = reals(*r++), norm.bias = reals(*r++);
    norm.mean = reals(*r++);
    norm.var  = reals(*r++);
    norm.eps  = a.eps;
  }

  // r: parameter, gradient, slots.
  void fill_update(const StepRecord& s, const Ref* r, const AnyOp& optimizer, Shape& flat, OpRun& run) const {
    flat               = flat_shape(s.count);
    run                = OpRun();
    run.context        = &context;
    run.attributes     = optimizer.attributes();
    run.in_shapes[0]   = run.out_shape_ = &flat;
    run.parameter_[0]  = at(*r++);
    run.dparameter_[0] = at(*r++);
    for (int k = 0; k < engine.parameter_stride - 2; k++) run.slot_[k] = at(*r++);
    run.scratch        = scratch();
    run.workers        = static_cast<int16_t>(engine.workers);
    run.n_in = run.n_parameters = 1;
    run.training       = true;
    run.node           = s.node;
  }

  // Stages first .. last - 1. Derived weights that are not kept lie behind the other scratch.
  void run_kernel(const Kernel* kernel, OpRun& run, uint32_t first, uint32_t last) const {
    KernelPlan plan;
    const bool kept = run.derived != nullptr;
    if (!kept) run.derived = run.scratch;
    (void)kernel->plan(run, plan);
    const size_t of_workers = plan.scratch_per_worker * static_cast<size_t>(run.workers);
    if (!kept) run.derived = run.scratch + of_workers + plan.scratch_shared;
    for (uint32_t stage = first; stage < plan.stages && stage < last; stage++) {
      const uint32_t tasks  = plan.tasks[stage];
      const int      shares = tasks < 2 || !engine.shared ? 1 : run.workers;
      run_workers(engine.pool, shares, [&](int worker) {
        const Share part = share_of(tasks, shares, worker);
        if (part.first == part.last) return;
        kernel->run[isa](run, stage, part.first, part.last, static_cast<uint32_t>(worker));
      });
    }
  }

  void run_step(const StepRecord& s, const AnyOp* optimizer) const {
    OpRun run = {}, update;                      // what the op has not is nullptr
    Shape flat;
    const Op* op  = nullptr;
    int64_t count = s.count;
    if (s.kind == StepKind::add) {
      const Ref* r = engine.refs + s.refs;
      if (s.per_row) count *= rows;
      const Backend* const b = engine.backend;
      if (b) b->add(b->user, reals(r[0]), reals(r[1]), count, s.accumulate != 0);
      else if (s.accumulate != 0) add_into(reals(r[0]), reals(r[1]), count);
      else __builtin_memcpy(at(r[0]), at(r[1]), size_t(count) * sizeof(real));
    } else if (s.kind == StepKind::update) {
      fill_update(s, engine.refs + s.refs, *optimizer, flat, run);
      op = optimizer->op();
    } else {
      const Ref* const more = fill(s, run);
      op = graph.node(s.node).op;
      if ((s.fused & fusion::update) != 0) {
        fill_update(s, more, *optimizer, flat, update);
        run.update = &update;
        run.update_kernel = optimizer->op()->kernels[0];
      }
    }
    if (s.kernel) run_kernel(s.kernel, run, s.derived ? 1 : 0, 4);
    else if (op)
      (s.kind == StepKind::backward ? op->backward
       : s.kind == StepKind::commit ? op->commit
                                    : op->forward)(run.attributes, run);
    if (!engine.watch) return;
    const StepView seen = {s.kind, count, op, s.kernel, run};
    engine.watch->see(engine.watch->user, &seen);
  }

  void clip(const StepRecord* s) const {
    const Backend& b = *engine.backend;
    for (; s < engine.steps + engine.step_count; s++)
      if (s->kind == StepKind::update) b.clip(b.user, reals(engine.refs[s->refs + 1]), s->count);
    b.clip(b.user, nullptr, 0);
  }

  void run_steps(uint32_t first, uint32_t last, const AnyOp* optimizer) const {
    const FloatControl control;
    if (engine.watch) engine.watch->see(engine.watch->user, nullptr);
    const Backend* const b = engine.backend;
    const uint32_t seen = engine.watch ? first : last, key[3] = {first, seen, static_cast<uint32_t>(rows)};
    if (b && (first == last || !b->begin(b->user, engine.device, key, context))) return;
    bool clips = b && context.clip_norm > 0;
    for (uint32_t i = first; i < last; i++) {
      if (clips && engine.steps[i].kind == StepKind::update) clip(engine.steps + i), clips = false;
      run_step(engine.steps[i], optimizer);
    }
    if (b) b->end(b->user);
  }

  // Makes the derived weights that are kept.
  void derive() const {
    const FloatControl control;
    for (uint32_t i = 0; i < engine.step_count; i++) {
      if (!engine.steps[i].derived) continue;
      OpRun run = {};
      (void)fill(engine.steps[i], run);
      run_kernel(engine.steps[i].kernel, run, 0, 1);
    }
  }

  // Every index is in the range its readers allow: those of a batch, or a column for the input `node`.
  Status check_labels(Problem& problem) const {
    for (int c = 0; c < input_count(engine); c++) {
      const int    node = input_node(engine, c);
      const Node&  in = graph.node(node);
      const Column column = {host(engine.io[node]), DType::i32};
      if (column.data && in.dtype == DType::i32)
        NNLITE_TRY(check_column(node, column, in.shape.numel(rows), problem));
    }
    return Status::ok;
  }
  Status check_column(int node, const Column& column, int64_t count, Problem& problem) const {
    for (uint32_t i = 0; i < engine.forward_count; i++) {
      const Node& n = graph.node(engine.steps[i].node);
      for (int k = 0; k < n.n_in; k++) {
        if (n.inputs[k] != node) continue;
        const int32_t bound = shape_of(graph, engine.steps[i].node).index_bound[k];
        for (int64_t e = 0; e < count && bound > 0; e++) {
          const int32_t label = label_at(column, e);
          if (label >= 0 && label < bound) continue;
          return set_problem(problem, Status::bad_label, graph.node(node).name)
              << ": row " << e / graph.node(node).shape.row_numel() << " has " << int(label)
              << ", allowed are 0 to " << int(bound - 1);
        }
      }
    }
    return Status::ok;
  }

  // Runs the forward steps one by one; the first node with a value that is not finite, or -1.
  int find_not_finite() const {
    const auto finite = [&](Ref r, const Node& n) {
      return all_finite(static_cast<const real*>(host(r)), n.shape.numel(rows));
    };
    for (int i = 0; i < graph.count; i++) {
      const Node& n = graph.node(i);
      if (!n.op && n.dtype == real_dtype && host(engine.io[i]) && !finite(engine.io[i], n)) return i;
    }
    for (uint32_t i = 0; i < engine.forward_count; i++) {
      const int   node = engine.steps[i].node;
      const Ref   out = engine.refs[engine.steps[i].refs + graph.node(node).n_in];
      run_steps(i, i + 1, nullptr);
      if (!ok(copy(node, out, Copy::from_device)) || !finite(out, graph.node(node))) return node;
    }
    return -1;
  }

  // The sum of all losses.
  real loss() const {
    real sum = 0;
    for (int i = 0; i < graph.count; i++)
      if (graph.is_loss(i) && host(engine.io[i])) sum += *static_cast<const real*>(host(engine.io[i]));
    return sum;
  }
};

// Input i; no data when it is not there.
struct InputData { void* data = nullptr; Shape shape; DType dtype = real_dtype; };
static InputData input_data(const Engine& e, int i) {
  if (!e.steps || i < 0 || i >= input_count(e)) return {};
  const Executor run(e);
  const Node& n = run.graph.node(input_node(e, i));
  return {run.host(e.io[input_node(e, i)]), n.shape, n.dtype};
}

// ================================================================================ >>layout
// What plan() and build() of sessions and trainers share: the same sizes, with or without memory behind them.

// A parameter at `host` to or from the device.
static Status copy_parameter(const Engine& e, const Parameter& p, void* device, const void* host, Copy way) {
  const Panels in(p.spec);
  const Blocks blocks = {in.outer, in.count(), in.lines};
  return e.backend->copy_parameter(e.backend->user, device, const_cast<void*>(host), blocks, way);
}
// Device memory for an engine, and for the model's weights where steps read them, which are sent.
static Status mirror(Engine& e, const Model& model, int refs, void* arena, size_t bytes) {
  NNLITE_TRY(e.backend->mirror(e.backend->user, arena, bytes, &e.device));
  const unsigned char* const weights = ModelAccess::weights(model);
  bool reads = false;
  for (int i = 0; i < refs; i++) reads = reads || e.refs[i] >> 29 == static_cast<uint32_t>(Base::model);
  if (!weights || !reads) return Status::ok;
  NNLITE_TRY(e.backend->mirror(e.backend->user, weights, model.weight_bytes(), &e.device_weights));
  for (int i = 0; i < model.parameter_count(); i++) {
    const Parameter& p = *ModelAccess::parameter(model, i);
    const size_t at = size_t(p.offset) * 64;
    unsigned char* const to = static_cast<unsigned char*>(e.device_weights) + at;
    NNLITE_TRY(copy_parameter(e, p, to, weights + at, Copy::to_device));
  }
  return Status::ok;
}
constexpr uint64_t loss_bytes = 256;           // the same on every machine
static_assert(sizeof(LossNodes) <= loss_bytes, "a plan made on a PC holds on a microcontroller");
// How the records of a session or trainer follow each other, and what comes behind them.
struct RecordPlaces { uint32_t loss, steps, refs, io, parameters, pool, scratch; };
struct Layouter {
  Graph       graph;
  LossNodes   loss;
  PlanRequest request;
  Planner     planner;
  MemoryPlan* plan    = nullptr;
  Arena*      arena   = nullptr;               // nullptr: plan only
  Engine*     engine  = nullptr;               // where build leaves its results
  Pool*       pool    = nullptr;
  int      slot_count = 0;                     // optimizer slots of a parameter
  uint32_t units = 0;                          // taken so far, of 64 bytes
  bool     huge = false;

  // What sessions and trainers begin with.
  NNLITE_COLD Status begin(const Model& model, int batch, Pool* workers, const Backend* backend,
                           MemoryPlan& to, Arena* from, Engine* built) {
    to = MemoryPlan();
    plan = &to, arena = from, engine = built, pool = workers;
    request.backend = backend;
    request.graph   = &graph;
    request.batch   = batch;
    request.workers = workers ? workers->workers : 1;
    if (!model.finished())
      return set_problem(plan->problem, Status::bad_graph, "model", "finish or load it first");
    if (batch >= 1 && request.workers >= 1 && request.workers <= max_workers) return Status::ok;
    return set_problem(plan->problem, Status::bad_argument, "options",
                       "batch must be at least 1, workers 1 to 64");
  }

  NNLITE_COLD Status count_slots() {
    slot_count = 0;
    if (!request.training) return Status::ok;
    AnyOp copy = request.training->optimizer;
    OpShape s;
    s.n_in  = 1;
    s.in[0] = flat_shape(panel);
    s.in_dtype[0] = real_dtype;
    if (!copy || (copy.op()->traits & traits::optimizer) == 0 || !ok(copy.op()->shape(copy.attributes(), s)))
      return set_problem(plan->problem, Status::bad_argument, copy ? copy.op()->name : "optimizer",
                         "not an optimizer, or its settings are out of range");
    slot_count = s.n_slots;
    return Status::ok;
  }

  uint32_t reserve(uint64_t bytes, size_t& counted) {
    const uint32_t at  = units;
    const uint64_t all = units + (bytes + 63) / 64;
    huge |= all >= (uint64_t(1) << 29);
    units = static_cast<uint32_t>(all);
    counted += static_cast<size_t>((bytes + 63) / 64 * 64);
    return at;
  }

  // Parameters in their order: of a trainer the trained ones, statistics that change, kept gradients and
  // optimizer slots; the others stay where they are.
  NNLITE_COLD void reserve_parameters(MemoryPlan& to, Ref* table) {
    const int stride = 2 + slot_count;
    for (int i = 0; i < graph.model_nodes; i++) {
      const Node& n = graph.node(i);
      for (int p = 0; p < n.n_parameters && n.owner == i; p++) {
        const Parameter& q = n.parameters[p];
        const size_t bytes = static_cast<size_t>(q.stored) * sizeof(real);
        const auto take = [&](size_t& counted) { return make_ref(Base::arena, reserve(bytes, counted)); };
        Ref row[2 + max_slots] = {make_ref(Base::model, q.offset)};
        for (int k = 1; k < stride; k++) row[k] = no_ref;
        if (planner.owns(q, i)) row[0] = take(q.spec.role == Role::statistic ? to.state : to.weights);
        else if (!request.trainer) to.in_place += bytes;
        if (planner.is_trained(q, i)) {
          if (planner.materialised(i)) row[1] = take(to.gradients);
          for (int k = 2; k < stride; k++) row[k] = take(to.optimizer);
        }
        for (int k = 0; k < stride && table; k++) table[(n.first_parameter + p) * stride + k] = row[k];
      }
    }
  }

  NNLITE_COLD Status run() {
    planner.request = request;
    planner.parameter_stride = 2 + slot_count;
    NNLITE_TRY(planner.run_first(plan->problem));
    const int parameters = request.training ? graph.model->parameter_count() * planner.parameter_stride : 0;
    RecordPlaces at;
    at.loss  = reserve(graph.with_loss() ? loss_bytes : 0, plan->state);
    at.steps = reserve(sizeof(StepRecord) * static_cast<uint64_t>(planner.step_count), plan->state);
    at.refs  = reserve(sizeof(Ref) * static_cast<uint64_t>(planner.ref_count), plan->state);
    at.io    = reserve(sizeof(Ref) * static_cast<uint64_t>(graph.count), plan->state);
    at.parameters = reserve(sizeof(Ref) * static_cast<uint64_t>(parameters), plan->state);
    const uint32_t parameters_at = units;
    reserve_parameters(*plan, nullptr);
    planner.derived_base = reserve(planner.derived_units * 64, plan->derived);
    const size_t persistent = size_t(units) * 64;
    const size_t image = request.image_bytes, steps = planner.scratch_bytes;     // never needed together
    at.pool     = reserve(uint64_t(planner.pool_units) * 64, plan->activations);
    at.scratch  = reserve(steps > image ? steps : image, plan->scratch);
    plan->total       = size_t(units) * 64;
    plan->lower_bound = persistent + size_t(planner.lower_units) * 64;
    if (huge) return set_problem(plan->problem, Status::limit_exceeded, "plan", "more than 32 GiB");
    if (!arena) return Status::ok;
    if (!arena->aligned()) return set_problem(plan->problem, Status::misaligned, "arena");
    unsigned char* base = static_cast<unsigned char*>(arena->take(plan->total));
    if (!base)
      return set_problem(plan->problem, Status::out_of_memory, "arena")
          << ": " << static_cast<int64_t>(plan->total) << " bytes are needed, "
          << static_cast<int64_t>(arena->left()) << " are left";
    MemoryPlan counted_already;
    units = parameters_at;
    if (request.training)
      reserve_parameters(counted_already, reinterpret_cast<Ref*>(base + size_t(at.parameters) * 64));
    write(base, at);
    if (!request.backend) return Status::ok;
    const Status s = mirror(*engine, *graph.model, static_cast<int>(planner.ref_count), base, plan->total);
    if (!ok(s)) *engine = Engine();
    if (!ok(s)) return set_problem(plan->problem, s, "backend");
    return Status::ok;
  }

  // Steps that are shared move their data between the caches of cores, which small ones do not repay.
  bool worth_sharing(const Engine& e) const {
    static constexpr int64_t lanes[] = {1, 4, 8, 16, 4};               // by Isa
    int64_t work = 0;
    for (uint32_t i = 0; i < e.step_count; i++) {
      if (e.steps[i].kind > StepKind::backward) continue;
      const OpShape s = shape_of(graph, e.steps[i].node);
      work += s.macs * e.batch + 2 * s.out.numel(e.batch);
    }
    return work >= NNLITE_SHARED_FROM * lanes[static_cast<int>(current_isa())] * e.step_count;
  }

  void write(unsigned char* base, const RecordPlaces& at) {
    const auto part = [&](uint32_t place) { return base + size_t(place) * 64; };
    if (graph.with_loss()) {
      LossNodes& kept = *reinterpret_cast<LossNodes*>(part(at.loss));
      kept            = loss;
      kept.nodes[1].inputs = kept.inputs;
      graph.extra     = kept.nodes;
    }
    planner.steps     = reinterpret_cast<StepRecord*>(part(at.steps));
    planner.refs      = reinterpret_cast<Ref*>(part(at.refs));
    planner.pool_base = at.pool;
    if (request.training) planner.parameter_refs = reinterpret_cast<Ref*>(part(at.parameters));
    planner.walk();
    Engine& e       = *engine;
    e.model         = graph.model;
    e.extra         = graph.extra;
    e.node_count    = graph.count;
    e.steps         = planner.steps;
    e.refs          = planner.refs;
    e.io            = reinterpret_cast<Ref*>(part(at.io));
    e.parameters    = const_cast<Ref*>(planner.parameter_refs);
    e.parameter_stride = planner.parameter_stride;
    e.arena         = base;
    e.scratch       = part(at.scratch);
    e.trainer       = request.trainer;
    e.forward_count = static_cast<uint32_t>(planner.forward_steps);
    e.step_count    = static_cast<uint32_t>(planner.step_count);
    e.batch         = request.batch;
    e.backend       = request.backend;
    e.pool          = pool;
    e.workers       = request.workers;
    e.shared        = !request.backend && worth_sharing(e);
    for (int i = 0; i < graph.count; i++) {
      const uint16_t v = planner.nodes[i].out;
      const PlanValue* at_v = v == no_value ? nullptr : planner.values + planner.root(v);
      e.io[i] = at_v && at_v->units > 0 ? make_ref(Base::arena, planner.pool_base + at_v->best) : no_ref;
    }
  }
};

// The planner's tables lie on the stack, in three sizes.
template <unsigned value_limit, unsigned node_limit>
NNLITE_NOINLINE static Status layout_within(Layouter& l) {
  PlanValue values[value_limit];
  PlanNode  nodes[node_limit];
  uint16_t  order[value_limit], placed[value_limit];
  l.planner            = Planner();
  l.planner.values     = values;
  l.planner.nodes      = nodes;
  l.planner.order      = order;
  l.planner.placed     = placed;
  l.planner.max_values = static_cast<int>(value_limit);
  const Status s       = l.run();
  l.planner.nodes      = nullptr;
  return s;
}

static Status run_tiers(Layouter& l) {
  static constexpr struct {
    int nodes;
    Status (*layout)(Layouter&);
  } tiers[] = {{48, layout_within<256, 48>}, {512, layout_within<2560, 512>},
               {4096, layout_within<20480, 4096>}};
  NNLITE_TRY(l.count_slots());
  for (const auto& tier : tiers) {
    if (l.graph.count > tier.nodes) continue;
    *l.plan = MemoryPlan();
    l.units = 0;
    const Status s = tier.layout(l);
    if (s != Status::limit_exceeded || !l.planner.table_full) return s;
  }
  if (!ok(l.plan->problem.status)) return Status::limit_exceeded;
  return set_problem(l.plan->problem, Status::limit_exceeded, "plan", "more than 4096 nodes");
}

static const Preprocessing& preprocessing_of(const Model& model) {
  static const Preprocessing plain;
  const ModelExtras* extras = model.extras();
  return extras && extras->preprocessing ? *extras->preprocessing : plain;
}

static Status layout_session(const Model& model, const SessionOptions& o, AnyOp& loss, MemoryPlan& plan,
                             Arena* arena, Engine* engine, const Engine* trainer) {
  Layouter l;
  NNLITE_TRY(l.begin(model, o.batch, o.pool, o.backend, plan, arena, engine));
  NNLITE_TRY(make_loss(model, loss, l.loss, l.graph, plan.problem));
  l.request.keep_loss = static_cast<bool>(loss);
  l.request.trainer   = trainer;
  l.request.derived_weights = o.derived_weights;
  l.request.image_bytes = prepare_bytes(preprocessing_of(model), o.max_image.w, o.max_image.h);
  return run_tiers(l);
}

// Whether pictures can be changed: input 0 is one, of one channel where strokes change, and nothing else is.
static bool augment_fits(const Augment& a, const Model& model, const Graph& g) {
  const Shape picture = model.input_shape(0);
  bool fits = augment_fits(a) && picture.rank == 4 && model.input_dtype(0) == real_dtype &&
              (picture.dim[3] == 1 || (a.thinner <= 0 && a.thicker <= 0));
  for (int i = 1; i < model.input_count(); i++) fits = fits && model.input_shape(i).rank != 4;
  return fits && !(g.with_loss() && g.node(g.model_nodes).shape.rank == 4);
}

static NNLITE_COLD Status layout_trainer(const Model& model, TrainerOptions& o, MemoryPlan& plan,
                                         Arena* arena, Engine* engine) {
  Layouter l;
  const Graph& g = l.graph;
  const auto bad = [&](const char* where, const char* what) -> Status {
    return set_problem(plan.problem, Status::bad_argument, where, what);
  };
  NNLITE_TRY(l.begin(model, o.batch, o.pool, o.backend, plan, arena, engine));
  if (!at_least_zero(o.clip_norm, o.clip_value) || o.warmup_steps < 0 || o.epochs < 1)
    return bad("options", "clip_norm, clip_value and warmup_steps must not be negative, epochs at least 1");
  OpShape none;
  const Op* schedule = o.schedule.op();
  if (schedule && ((schedule->traits & traits::schedule) == 0 ||
                   !ok(schedule->shape(o.schedule.attributes(), none))))
    return bad(schedule->name, "not a schedule, or out of range");
  NNLITE_TRY(make_loss(model, o.loss, l.loss, l.graph, plan.problem));
  if (augments(o.augment) || !augment_fits(o.augment)) {
    if (!augment_fits(o.augment, model, g))
      return bad("augment",
                 "out of range, or input 0 is no picture, or another input or the target is one too");
    l.request.image_bytes = augment_bytes(model.input_shape(0)) * static_cast<size_t>(l.request.workers);
  }
  bool has_loss = false, trains = o.trainable != Trainable::named;
  for (int i = 0; i < g.count; i++) has_loss |= g.is_loss(i);
  for (int i = 0; i < g.model_nodes; i++)
    for (int p = 0; p < g.node(i).n_parameters; p++)
      trains |= trained(g, o, g.node(i).owner, g.node(i).parameters[p]);
  if (!trains) return bad("options", "no parameter has one of the names given");
  if (!has_loss)
    return set_problem(plan.problem, Status::no_loss, "options",
                       "set options.loss or add a loss to the graph");
  l.request.training = &o;
  l.request.derived_weights = o.derived_weights;
  return run_tiers(l);
}

// ================================================================================ >>trainer_impl
// Samples of one epoch, without those that drop_last leaves out.
static uint32_t epoch_samples(const Dataset& data, const TrainerOptions& o) {
  const uint32_t batch = static_cast<uint32_t>(o.batch);
  return o.drop_last && data.count >= batch ? data.count / batch * batch : data.count;
}

// What a trainer does beyond its interface.
struct TrainerAccess {
  static const Engine& engine(const Trainer& t) { return t.engine_; }

  // Where the trainer keeps a parameter (which 0), its gradient (1), its slots (2, ...); nullptr: nowhere.
  static real* data(const Trainer& t, int parameter, int which) {
    const Engine& e = t.engine_;
    if (!e.parameters || parameter < 0 || parameter >= e.model->parameter_count()) return nullptr;
    const Ref r = e.parameters[parameter * e.parameter_stride + which];
    return r != no_ref && (r >> 29) == 0 ? reinterpret_cast<real*>(e.arena + size_t(r) * 64) : nullptr;
  }

  // What data() has of a parameter, or of all of them, to or from the device.
  static Status copy(const Trainer& t, int parameter, int which, Copy way) {
    const Engine& e = t.engine_;
    const real* const own = data(t, parameter, which);
    if (!own || !e.backend) return Status::ok;
    unsigned char* const there = static_cast<unsigned char*>(e.device);
    const ptrdiff_t at = reinterpret_cast<const unsigned char*>(own) - e.arena;
    return copy_parameter(e, *ModelAccess::parameter(*e.model, parameter), there + at, own, way);
  }
  static Status copy_all(const Trainer& t, Copy way) {
    for (int i = 0; t.engine_.backend && i < t.engine_.model->parameter_count(); i++)
      for (int which = 0; which < t.engine_.parameter_stride; which++) NNLITE_TRY(copy(t, i, which, way));
    return Status::ok;
  }

  static float rate(const Trainer& t) {
    const TrainerOptions& o = t.options_;
    const uint32_t batch = static_cast<uint32_t>(o.batch), samples = t.data_ ? epoch_samples(*t.data_, o) : 0;
    const float first = *static_cast<const float*>(o.optimizer.attributes());       // every optimizer's lr
    const RateContext c = {first,    t.step_,           t.epoch(), (samples + batch - 1) / batch,
                           o.epochs, t.plateau_.factor};
    const float lr = o.schedule ? o.schedule.op()->rate(o.schedule.attributes(), c) : first;
    if (t.step_ >= static_cast<uint64_t>(o.warmup_steps)) return lr;
    const double share = static_cast<double>(t.step_ + 1) / static_cast<double>(o.warmup_steps);
    return static_cast<float>(product(double(lr), share));
  }

  // 2-norm of all kept gradients, in parameter order, 16 lanes each.
  static real gradient_norm(const Trainer& t) {
    real sum = 0;
    for (int i = 0; i < t.engine_.model->parameter_count(); i++) {
      const real* g = data(t, i, 1);
      if (g) sum += sum_of_squares(g, ModelAccess::parameter(*t.engine_.model, i)->stored);
    }
    return real_sqrt(sum);
  }

  static Rows rows_of(const Trainer& t, int rows) {
    const TrainerOptions& o = t.options_;
    return {Permutation(o.seed, t.epoch(), t.data_->count, o.shuffle), t.epoch_position(), rows};
  }
  // Columns that lie in memory go to the device, if it has room; their labels are looked at now.
  static Status mirror_data(Trainer& t) {
    const Backend* const b = t.engine_.backend;
    const Executor run(t.engine_);
    for (int c = 0; b && c < input_count(t.engine_); c++) {
      const InputData to = input_data(t.engine_, c);
      const Column&   from = t.data_->columns[c];
      const int64_t   values = from.data ? to.shape.row_numel() * t.data_->count : 0;
      if (values == 0) continue;
      const int node = input_node(t.engine_, c);
      if (to.dtype == DType::i32) NNLITE_TRY(run.check_column(node, from, values, t.problem_));
      const size_t bytes = static_cast<size_t>(values) * size_of(from.dtype);
      void* there = nullptr;
      const Status s = b->mirror(b->user, from.data, bytes, &there);
      if (s == Status::out_of_memory) continue;
      NNLITE_TRY(s);
      NNLITE_TRY(b->copy(b->user, there, const_cast<void*>(from.data), bytes, Copy::to_device));
    }
    return Status::ok;
  }
  // The same on the device, where it has all columns.
  static bool gather(const Trainer& t, int rows) {
    const Engine& e = t.engine_;
    bool all = e.backend && t.data_;
    for (int c = 0; c < input_count(e) && all; c++) {
      const InputData to = input_data(e, c);
      if (!to.data) continue;
      const ptrdiff_t at = static_cast<unsigned char*>(to.data) - e.arena;
      const Augment* const how = c == 0 && augments(t.options_.augment) ? &t.options_.augment : nullptr;
      all = e.backend->gather(e.backend->user, {rows_of(t, rows), t.data_->columns[c], to.shape.row_numel(),
                                                to.dtype, static_cast<unsigned char*>(e.device) + at, how,
                                                to.shape, t.options_.seed, t.epoch()});
    }
    return all;
  }

  // The rows of a step into the inputs: the caller's own, or the next of the data set.
  static Status fill(Trainer& t, const Batch* own, int rows) {
    const Engine& e = t.engine_;
    const TrainerOptions& o = t.options_;
    for (int c = 0; c < input_count(e); c++) {
      const InputData to = input_data(e, c);
      if (own && !own->data[c])
        return set_problem(t.problem_, Status::no_data, "step", "data[") << c << "] is missing";
      if (!to.data) continue;
      if (own) {
        __builtin_memcpy(to.data, own->data[c], size_t(to.shape.numel(rows)) * size_of(to.dtype));
        continue;
      }
      const Draw draw = {rows_of(t, rows)};
      if (!draw.column(*t.data_, c, to.shape, to.dtype, to.data))
        return set_problem(t.problem_, Status::io_error, "data", "a row could not be read");
      if (c > 0 || !augments(o.augment)) continue;
      run_workers(e.pool, e.workers, [&](int worker) {
        const Share share = share_of(static_cast<uint32_t>(rows), e.workers, worker);
        unsigned char* const scratch = e.scratch + static_cast<size_t>(worker) * augment_bytes(to.shape);
        for (uint32_t r = share.first; r < share.last; r++)
          augment_row(o.augment, Change(o.augment, o.seed, t.epoch(), draw[r]), to.shape,
                      static_cast<real*>(to.data) + r * to.shape.row_numel(), scratch);
      });
    }
    return Status::ok;
  }

  // Rows that the next step draws.
  static int next_rows(const Trainer& t) {
    const int64_t left = int64_t(epoch_samples(*t.data_, t.options_)) - t.epoch_position();
    return static_cast<int>(smaller(left, t.options_.batch));
  }

  // Where the values of a step are not finite: it changed nothing.
  static Status not_finite(Trainer& t, Executor& run, const Batch* own) {
    NNLITE_TRY(fill(t, own, run.rows));          // forward may have used the memory of its inputs
    NNLITE_TRY(run.copy_batch(Copy::to_device));
    const int  bad   = run.find_not_finite();
    const bool found = bad >= 0 && bad < run.graph.model_nodes;
    const NodeName name(&run.graph.node(0), found ? bad : 0);
    return set_problem(t.problem_, Status::not_finite, found ? name : "loss", "the loss of step ")
           << static_cast<int64_t>(t.step_ + 1);
  }

  // The losses, when all steps of a run are done. Those of a device do nothing after one that is not finite:
  // then the trainer is as that one found it.
  static Status look_at_loss(Trainer& t, Executor& run, const Batch* own, uint64_t samples) {
    const Engine& e = t.engine_;
    NNLITE_TRY(run.copy_batch(Copy::from_device));
    const real loss = run.loss();
    const double before = t.step_ == run.context.first ? 0 : t.losses_;
    Waited all = {is_finite(loss) ? 0 : t.step_ + 1, before + double(loss) * run.rows, 0};
    if (e.backend) NNLITE_TRY(e.backend->wait(e.backend->user, e.device, &all));
    if (e.backend && run.context.clip_norm > 0 && all.failed != run.context.first + 1)
      t.gradient_norm_ = real(all.norm);       // of the last step that was one
    if (all.failed == 0) {
      t.loss_ = loss, t.losses_ = all.losses;
      return Status::ok;
    }
    t.samples_ = samples;
    for (t.step_ = run.context.first; t.step_ + 1 < all.failed; t.step_++)
      t.samples_ += uint64_t(next_rows(t));
    if (!own) run.rows = next_rows(t);
    run.context.step = t.step_, run.context.update = t.step_ + 1, run.context.rows = run.rows;
    return not_finite(t, run, own);
  }

  // Inputs, forward, the loss looked at, backward and update. Only the last step of a run waits for a device,
  // which looks at the loss itself.
  static Status step(Trainer& t, const Batch* own, int rows, uint64_t first, uint64_t samples, bool last) {
    const FloatControl control;
    const Engine& e = t.engine_;
    Executor run(e);
    run.rows    = rows;
    const float clip = t.options_.clip_norm, bound = t.options_.clip_value;
    run.context = {t.options_.seed, t.step_, t.step_ + 1, first, rate(t), 1, bound, clip, rows};
    if (own || !gather(t, rows)) {
      Status sent = fill(t, own, rows);          // while a device is busy with the step before
      if (ok(sent)) sent = run.check_labels(t.problem_);
      if (ok(sent)) sent = run.copy_batch(Copy::to_device);
      if (e.backend && !last && ok(sent)) sent = e.backend->wait(e.backend->user, e.device, nullptr);
      if (e.backend && !ok(sent) && t.step_ > first) NNLITE_TRY(look_at_loss(t, run, own, samples));
      NNLITE_TRY(sent);
    }
    uint32_t first_update = e.backend ? e.step_count : e.forward_count;
    run.run_steps(0, first_update, &t.options_.optimizer);
    if (!e.backend || last) NNLITE_TRY(look_at_loss(t, run, own, samples));
    t.lr_ = run.context.lr;
    if (clip > 0 && !e.backend) {
      while (first_update < e.step_count && e.steps[first_update].kind != StepKind::update) first_update++;
      run.run_steps(e.forward_count, first_update, nullptr);
      t.gradient_norm_ = gradient_norm(t);
      const real limit = real(clip), norm = t.gradient_norm_ + real(1e-6);
      if (norm > limit) run.context.gradient_scale = limit / norm;
    }
    run.run_steps(first_update, e.step_count, &t.options_.optimizer);
    t.step_++;
    t.engine_.version++;
    t.samples_ += static_cast<uint64_t>(rows);
    return Status::ok;
  }
};

Status Trainer::plan(const Model& model, const TrainerOptions& options, MemoryPlan& plan) {
  TrainerOptions copy = options;
  return layout_trainer(model, copy, plan, nullptr, nullptr);
}

Status Trainer::build(const Model& model, const TrainerOptions& options, Arena& arena) {
  engine_  = Engine();
  options_ = options;
  data_    = nullptr;
  step_ = samples_ = 0;
  loss_ = gradient_norm_ = 0;
  losses_ = 0;
  plateau_ = Plateau();
  MemoryPlan plan;
  const Status s = layout_trainer(model, options_, plan, &arena, &engine_);
  problem_       = plan.problem;
  if (!ok(s)) return s;
  for (int i = 0; i < model.parameter_count() && !model.has_weights(); i++) {
    if (TrainerAccess::data(*this, i, 0)) continue;
    engine_ = Engine();
    return set_problem(problem_, Status::no_weights, model.parameter(i).name,
                       "a frozen parameter is used where the model has it");
  }
  // Parameters begin as the model has them, or as its seed makes them; the rest as zeros.
  const FloatControl control;
  const unsigned char* weights = ModelAccess::weights(model);
  for (int i = 0; i < model.parameter_count(); i++) {
    const Parameter& p = *ModelAccess::parameter(model, i);
    for (int which = 0; which < engine_.parameter_stride; which++) {
      real* to = TrainerAccess::data(*this, i, which);
      if (!to) continue;
      if (which > 0) zero(to, p.stored);
      else if (!weights) init_parameter(p, i, model.seed(), to);
      else __builtin_memcpy(to, weights + size_t(p.offset) * 64, size_t(p.stored) * sizeof(real));
    }
  }
  const Status sent = TrainerAccess::copy_all(*this, Copy::to_device);
  if (!ok(sent)) engine_ = Engine();
  return sent;
}

Status Trainer::set_data(const Dataset& data) {
  if (!engine_.steps) return Status::not_built;
  if (data.count < 1) return set_problem(problem_, Status::no_data, "set_data", "the data set is empty");
  for (int c = 0; c < input_count(engine_); c++) {
    if (column_fits(data.columns[c], data, input_data(engine_, c).dtype)) continue;
    return set_problem(problem_, Status::bad_shape, "set_data", "column ") << c << " does not fit the input";
  }
  data_ = &data;
  return TrainerAccess::mirror_data(*this);
}

uint32_t Trainer::epoch() const { return data_ ? uint32_t(samples_ / epoch_samples(*data_, options_)) : 0; }
uint32_t Trainer::epoch_position() const {
  return data_ ? static_cast<uint32_t>(samples_ % epoch_samples(*data_, options_)) : 0;
}

Status Trainer::step(const Batch& batch) {
  NNLITE_TRY(check_rows(problem_, engine_.steps != nullptr, "step", batch.rows, options_.batch));
  return TrainerAccess::step(*this, &batch, batch.rows, step_, samples_, true);
}
Status Trainer::step() { return steps(1); }
Status Trainer::steps(int n) {
  if (!engine_.steps || !data_)
    return set_problem(problem_, engine_.steps ? Status::no_data : Status::not_built, "step");
  const uint64_t first = step_, samples = samples_;
  for (int i = 0; i < n; i++) {
    const int rows = TrainerAccess::next_rows(*this);
    NNLITE_TRY(TrainerAccess::step(*this, nullptr, rows, first, samples, i + 1 == n));
  }
  return Status::ok;
}

Status Trainer::report(real metric) {
  if (!is_finite(metric)) return Status::not_finite;
  if (!options_.schedule || options_.schedule.op() != &ReduceLROnPlateau::op) return Status::ok;
  const ReduceLROnPlateau& a = *static_cast<const ReduceLROnPlateau*>(options_.schedule.attributes());
  const float value = static_cast<float>(metric);
  if (plateau_.reports++ == 0 || double(value) < product(double(plateau_.best), 1 - double(a.threshold))) {
    plateau_.best = value;
    plateau_.bad  = 0;
  } else if (++plateau_.bad > static_cast<uint32_t>(a.patience)) {
    plateau_.factor = static_cast<float>(product(double(plateau_.factor), double(a.factor)));
    plateau_.bad    = 0;
  }
  return Status::ok;
}

bool Trainer::is_trained(int i) const {
  return TrainerAccess::data(*this, i, 0) &&
         ModelAccess::parameter(*engine_.model, i)->spec.role != Role::statistic;
}
Status Trainer::get(int i, real* to) const {
  const real* own = TrainerAccess::data(*this, i, 0);
  if (!own) return engine_.model ? engine_.model->get(i, to) : Status::bad_argument;
  NNLITE_TRY(TrainerAccess::copy(*this, i, 0, Copy::from_device));
  copy_logical(*ModelAccess::parameter(*engine_.model, i), own, to);
  return Status::ok;
}
Status Trainer::set(int i, const real* from) {
  real* own = TrainerAccess::data(*this, i, 0);
  if (!own) return Status::bad_argument;
  engine_.version++;
  const Parameter& p = *ModelAccess::parameter(*engine_.model, i);
  for (int64_t e = 0; e < p.spec.shape.row_numel(); e++) own[parameter_at(p.spec, e)] = from[e];
  return TrainerAccess::copy(*this, i, 0, Copy::to_device);
}
Status Trainer::get_gradient(int i, real* to) const {
  const real* g = TrainerAccess::data(*this, i, 1);
  if (!g) return Status::bad_argument;
  NNLITE_TRY(TrainerAccess::copy(*this, i, 1, Copy::from_device));
  copy_logical(*ModelAccess::parameter(*engine_.model, i), g, to);
  return Status::ok;
}

// ================================================================================ >>session_impl
Status Session::plan(const Model& model, const SessionOptions& options, MemoryPlan& plan) {
  AnyOp loss = options.loss;
  return layout_session(model, options, loss, plan, nullptr, nullptr, nullptr);
}

// Derived weights, of the weights of the moment.
static void derive(Engine& e) {
  Executor run(e);
  run.rows = e.batch;
  run.derive();
  if (e.trainer) e.version = e.trainer->version;
}

Status Session::build_on(const Model* model, const Trainer* trainer, const SessionOptions& options,
                         Arena& arena) {
  engine_    = Engine();
  problem_   = Problem();
  max_image_ = options.max_image;
  loss_      = options.loss;
  if (trainer && !model) return set_problem(problem_, Status::not_built, "trainer");
  if (!trainer && !model->has_weights()) return set_problem(problem_, Status::no_weights, "model");
  MemoryPlan plan;
  const Engine* const of_trainer = trainer ? &TrainerAccess::engine(*trainer) : nullptr;
  if (of_trainer && of_trainer->backend != options.backend)
    return set_problem(problem_, Status::bad_argument, "options", "backend: the trainer has another");
  const Status s = layout_session(*model, options, loss_, plan, &arena, &engine_, of_trainer);
  problem_       = plan.problem;
  if (ok(s)) derive(engine_);
  return s;
}
Status Session::build(const Model& model, const SessionOptions& options, Arena& arena) {
  return build_on(&model, nullptr, options, arena);
}
Status Session::build(const Trainer& trainer, const SessionOptions& options, Arena& arena) {
  return build_on(trainer.model(), &trainer, options, arena);
}

template <class T> static View<T> input_view(const Engine& e, int i, DType wanted) {
  const InputData in = input_data(e, i);
  return {in.dtype == wanted ? static_cast<T*>(in.data) : nullptr, in.shape, e.batch};
}
View<real> Session::input(int i) { return input_view<real>(engine_, i, real_dtype); }
View<int32_t> Session::input_i32(int i) { return input_view<int32_t>(engine_, i, DType::i32); }

Status Session::set_image(const Image& image, int row) {
  const View<real> to = input(0);
  if (!to.data || row < 0 || row >= engine_.batch || to.shape.rank != 4)
    return set_problem(problem_, to.data ? Status::bad_shape : Status::not_built, "set_image",
                       "input 0 must be [N, height, width, channels]");
  const Preprocessing& how = preprocessing_of(*engine_.model);
  Arena scratch(engine_.scratch, prepare_bytes(how, max_image_.w, max_image_.h));
  const int32_t* dim = to.shape.dim;
  Status s = preprocess(image, how, dim[1], dim[2], dim[3], to.row(row), scratch, &seen_);
  if (s == Status::out_of_memory) s = Status::limit_exceeded;
  if (ok(s)) return s;
  return set_problem(problem_, s, "set_image")
      << ": " << image.width << " x " << image.height << " pixels of " << image.channels << " channels"
      << (s == Status::limit_exceeded ? ": more than max_image" : "");
}

Status Session::forward(int rows) {
  NNLITE_TRY(check_rows(problem_, engine_.steps != nullptr, "forward", rows, engine_.batch));
  if (engine_.trainer && engine_.trainer->version != engine_.version) derive(engine_);
  Executor run(engine_);
  run.rows = rows_ = rows;
  NNLITE_TRY(run.check_labels(problem_));
  NNLITE_TRY(run.copy_batch(Copy::to_device));
  run.run_steps(0, engine_.step_count, nullptr);
  return run.copy_batch(Copy::from_device);
}

View<const real> Session::output(int i) const {
  if (!engine_.steps || i < 0 || i >= engine_.model->output_count()) return {};
  const Executor run(engine_);
  const int node = ModelAccess::output_node(*engine_.model, i);
  return {static_cast<const real*>(run.host(engine_.io[node])), run.graph.node(node).shape, rows_};
}

real Session::loss() const { return engine_.steps ? Executor(engine_).loss() : real(0); }

// ================================================================================ >>metrics_impl
int argmax(const real* values, int count) {
  int best = 0;
  for (int i = 1; i < count; i++) if (values[i] > values[best]) best = i;
  return best;
}

real confidence(const real* scores, int count) {
  const real largest = scores[argmax(scores, count)];
  real sum = 0;
  for (int i = 0; i < count; i++) sum += plain::exp(scores[i] - largest);
  return 1 / sum;
}

int argmax(View<const real> row) { return argmax(row.data, static_cast<int>(row.shape.row_numel())); }
void Confusion::clear() { for (int64_t i = 0; i < int64_t(classes) * classes; i++) counts[i] = 0; }
void Confusion::add(int target, int answer) {
  NNLITE_ASSERT(target >= 0 && target < classes && answer >= 0 && answer < classes);
  counts[int64_t(target) * classes + answer]++;
}
void Confusion::add(const real* scores, const int32_t* targets, int rows) {
  for (int r = 0; r < rows; r++) add(targets[r], argmax(scores + int64_t(r) * classes, classes));
}

static double ratio(uint64_t part, uint64_t all) {
  return all == 0 ? 0 : static_cast<double>(part) / static_cast<double>(all);
}

double Confusion::accuracy() const {
  uint64_t right = 0, all = 0;
  for (int64_t i = 0; i < int64_t(classes) * classes; i++) all += counts[i];
  for (int64_t c = 0; c < classes; c++) right += counts[c * classes + c];
  return ratio(right, all);
}

// counts[c] among `classes` counters that lie `apart`: a column or a row.
static double ratio_among(const uint32_t* counts, int classes, int64_t apart, int c) {
  uint64_t all = 0;
  for (int i = 0; i < classes; i++) all += counts[i * apart];
  return ratio(counts[c * apart], all);
}
double Confusion::precision(int c) const { return ratio_among(counts + c, classes, classes, c); }
double Confusion::recall(int c) const { return ratio_among(counts + int64_t(c) * classes, classes, 1, c); }

double dice(const real* a, const real* b, int64_t count, real threshold_a, real threshold_b) {
  int64_t both = 0, sum = 0;
  for (int64_t i = 0; i < count; i++) {
    const bool in_a = a[i] > threshold_a, in_b = b[i] > threshold_b;
    both += in_a && in_b;
    sum  += int64_t(in_a) + int64_t(in_b);
  }
  return sum == 0 ? 1 : 2 * static_cast<double>(both) / static_cast<double>(sum);
}

// ================================================================================ >>image_impl
// Resizing in whole numbers, so that every machine gives the same bits. Along one axis, output i of `to`
// reads the inputs first .. first + count - 1 of `from`: shrinking weighs them by the overlap in units of
// 1 / to of an input; growing is bilinear between pixel centres in units of 1 / (2 to).
struct Taps {
  int64_t from, to, first, count, position;    // of the centre when growing, of the left edge when shrinking

  Taps(int64_t inputs, int64_t outputs, int64_t i) : from(inputs), to(outputs) {
    const int64_t centre = (2 * i + 1) * from - to, last = (from - 1) * 2 * to;
    position = from >= to ? i * from : centre < 0 ? 0 : smaller(centre, last);
    first    = from >= to ? position / to : position / (2 * to);
    count    = from >= to ? (position + from + to - 1) / to - first : position % (2 * to) != 0 ? 2 : 1;
  }
  int64_t total() const { return from >= to ? from : 2 * to; }
  int64_t weight(int64_t k) const {
    const int64_t low = (first + k) * to, second = position - first * 2 * to;
    if (from < to) return k == 0 ? 2 * to - second : second;
    return smaller(low + to, position + from) - (low > position ? low : position);
  }
};

// The sum of all f(row, column) that two taps read, by their weights; they are total_weight together.
template <class F> static int64_t weighed(const Taps& down, const Taps& across, F f) {
  int64_t sum = 0;
  for (int64_t j = 0; j < down.count; j++) {
    int64_t row = 0;
    for (int64_t k = 0; k < across.count; k++) row += across.weight(k) * f(down.first + j, across.first + k);
    sum += down.weight(j) * row;
  }
  return sum;
}
static int64_t total_weight(const Taps& down, const Taps& across) { return down.total() * across.total(); }
// 1000 times channel c of a pixel, as a model of `channels` wants it: transparency is laid over white where
// the model has no alpha, gray made from colour, gray repeated for colour, alpha opaque where there is none.
static int64_t pixel_value(const uint8_t* p, int has, int channels, int c) {
  const bool has_alpha = has == 2 || has == 4, wants_alpha = channels == 2 || channels == 4;
  if (wants_alpha && c == channels - 1) return 1000 * (has_alpha ? p[has - 1] : 255);
  int value[3];
  for (int k = 0; k < 3; k++) {
    value[k] = p[has < 3 ? 0 : k];
    if (has_alpha && !wants_alpha) value[k] = (value[k] * p[has - 1] + 255 * (255 - p[has - 1]) + 127) / 255;
  }
  if (channels < 3) return has < 3 ? 1000 * value[0] : 299 * value[0] + 587 * value[1] + 114 * value[2];
  return 1000 * value[c];
}

// The part of an image that is shown and the part of the input that shows it.
struct Placement {
  int64_t x, y, width, height;                 // in the image
  int64_t to_x, to_y, to_width, to_height;     // in the input
};

static int64_t ratio_rounded(int64_t a, int64_t b, int64_t c) {      // a b / c, at least 1
  const int64_t r = (2 * a * b + c) / (2 * c);
  return r < 1 ? 1 : r;
}

static Placement place(const Image& image, Resize how, int height, int width) {
  const int64_t W = image.width, H = image.height;
  Placement p = {0, 0, W, H, 0, 0, width, height};
  const bool wide = W * height >= H * width;                         // wider than the input
  if (how == Resize::letterbox) {
    if (wide) p.to_height = ratio_rounded(H, width, W);
    else      p.to_width  = ratio_rounded(W, height, H);
    p.to_x = (width - p.to_width) / 2;
    p.to_y = (height - p.to_height) / 2;
  } else if (how == Resize::centre_crop) {
    if (wide) p.width  = ratio_rounded(H, width, height);
    else      p.height = ratio_rounded(W, height, width);
    p.x = (W - p.width) / 2;
    p.y = (H - p.height) / 2;
  }
  return p;
}

// The resized value, 0 .. 255, of channel c of the pixel that reads these taps.
static double resized_value(const Image& image, const Placement& p, const Taps& down, const Taps& across,
                            int channels, int c) {
  const int64_t sum = weighed(down, across, [&](int64_t y, int64_t x) {
    const uint8_t* pixel = image.pixels + ((p.y + y) * image.width + p.x + x) * image.channels;
    return pixel_value(pixel, image.channels, channels, c);
  });
  return static_cast<double>(sum) / static_cast<double>(1000 * total_weight(down, across));
}

// ================================================================================ >>digit
// The digit front end, in whole numbers. What differs from the paper around it in the colour of the ink is
// ink; its large connected parts are the digit. It gets the look of MNIST (LeCun et al. 1998): the longest
// side 20, grey edges, the centre of mass in the middle of 28 x 28.
constexpr int digit_cells = 16, digit_parts = 2048;          // of the background a side; of the ink
struct DigitPart { uint32_t area; uint8_t x0, y0, x1, y1; };  // its box, both ends inside
struct DigitScratch {
  uint32_t  sums[3 * 256];
  int32_t   back[256][3];                                    // of one row
  int32_t   cells[3][digit_cells * digit_cells];             // the background, in units of 1 / 16
  uint32_t  counts[digit_cells * digit_cells];
  DigitPart parts[digit_parts];
  uint16_t  parents[digit_parts];
};

// Parts values into low and high ones where that explains most of the variance (Otsu 1979). Gives the highest
// low value; how far apart the means of the two are; how many percent of the variance that explains.
static int two_classes(const uint32_t (&counts)[256], int& contrast, int& clarity) {
  uint64_t all = 0, sum = 0, squares = 0, below = 0, below_sum = 0, best = 0;
  for (uint32_t v = 0; v < 256; v++) {
    all += counts[v];
    sum += uint64_t(counts[v]) * v;
    squares += uint64_t(counts[v]) * v * v;
  }
  int first = 0, last = 0;
  contrast = 0;
  for (uint32_t v = 0; v < 255; v++) {
    below += counts[v];
    below_sum += uint64_t(counts[v]) * v;
    if (below == 0 || below == all) continue;
    const uint64_t apart   = (sum - below_sum) * 256 / (all - below) - below_sum * 256 / below;
    const uint64_t between = below * (all - below) * (apart * apart >> 4);         // below 2^60
    if (between > best) first = static_cast<int>(v), contrast = static_cast<int>(apart >> 8);
    if (between >= best) last = static_cast<int>(v), best = between;
  }
  const uint64_t variance = squares - sum * sum / all;       // times all
  clarity = variance == 0 ? 0 : static_cast<int>((best >> 12) / all * 100 / variance);
  return (first + last) / 2;
}

// A picture under way, W x H. planes: red, green, blue of every pixel; later its part (2 bytes), blurred ink.
struct Digit {
  const Preprocessing& how;
  DigitScratch& own;
  uint8_t *planes, *ink;
  int W, H, long_side = W > H ? W : H, cell = long_side < 64 ? 4 : long_side / digit_cells + 1;
  int cells_x = W < cell ? 1 : W / cell, cells_y = H < cell ? 1 : H / cell;        // of the background
  int skip = long_side > 128 ? 2 : 1;                        // every skip-th pixel tells the background
  int part_count = 0, noise = 0, threshold = 0, contrast = 0, clarity = 0;

  uint16_t* labels() const { return reinterpret_cast<uint16_t*>(planes); }
  uint8_t*  blurred() const { return planes + 2 * W * H; }
  bool      kept(int i) const { return own.parts[labels()[i]].area != 0; }

  // Averages of k x k pixels, fewer at the right and lower edges; transparency is laid over white.
  template <int channels> void reduce(const Image& image, int k) {
    constexpr int colours = channels < 3 ? 1 : 3;
    const uint8_t* p = image.pixels;
    const auto over_white = [&](uint32_t v) {
      const uint32_t a = channels % 2 == 0 ? p[channels - 1] : 255;
      return a == 255 ? v : (v * a + 255 * (255 - a) + 127) / 255;
    };
    for (int y = 0; y < H; y++) {
      const int rows = (y + 1) * k <= image.height ? k : image.height - y * k;
      for (int i = 0; i < colours * W; i++) own.sums[i] = 0;
      for (int r = 0; r < rows; r++)
        for (int x = 0; x < W; x++) {
          uint32_t red = 0, green = 0, blue = 0;               // an array would not stay in registers
          const uint8_t* const end = p + channels * ((x + 1) * k <= image.width ? k : image.width - x * k);
          for (; p != end; p += channels) {
            red += over_white(p[0]);
            if (colours == 3) green += over_white(p[1]), blue += over_white(p[2]);
          }
          uint32_t* const to = own.sums + colours * x;
          to[0] += red;
          if (colours == 3) to[1] += green, to[2] += blue;
        }
      uint32_t n = 0;
      uint64_t share = 0;                                      // multiplies like 1 / n
      for (int x = 0; x < W; x++) {
        const int columns = (x + 1) * k <= image.width ? k : image.width - x * k;
        if (x == 0 || columns < k) {
          n     = static_cast<uint32_t>(rows * columns);
          share = (uint64_t(1) << 32) / n + 1;
        }
        for (int c = 0; c < 3; c++)
          planes[3 * (y * W + x) + c] =
              static_cast<uint8_t>((own.sums[colours * x + (colours == 3 ? c : 0)] + n / 2) * share >> 32);
      }
    }
  }

  // The median of channel c in w x h pixels.
  int32_t median(int x, int y, int w, int h, int c) const {
    uint32_t counts[256] = {};
    for (int v = y; v < y + h; v++)
      for (int u = x; u < x + w; u++) counts[planes[3 * (v * W + u) + c]]++;
    int m = 0;
    for (uint32_t seen = counts[0]; seen * 2 < static_cast<uint32_t>(w * h); seen += counts[m]) m++;
    return m;
  }

  // A first background from the border alone, whatever the middle shows: f(x) + g(y) + a x y through the four
  // sides (Coons 1967), which are medians of stretches as long as a cell.
  void surround() {
    const int deep = cell / 8 + 1, deep_x = W < deep ? W : deep, deep_y = H < deep ? H : deep;
    const int nx = cells_x, ny = cells_y;
    for (int c = 0; c < 3; c++) {
      int32_t top[digit_cells], bottom[digit_cells], left[digit_cells], right[digit_cells];
      for (int i = 0; i < nx; i++) {
        const int x = i * cell, w = i + 1 < nx ? cell : W - x;
        top[i]    = median(x, 0, w, deep_y, c);
        bottom[i] = median(x, H - deep_y, w, deep_y, c);
      }
      for (int j = 0; j < ny; j++) {
        const int y = j * cell, h = j + 1 < ny ? cell : H - y;
        left[j]  = median(0, y, deep_x, h, c);
        right[j] = median(W - deep_x, y, deep_x, h, c);
      }
      const int32_t corner[4] = {top[0] + left[0], top[nx - 1] + right[0], bottom[0] + left[ny - 1],
                                 bottom[nx - 1] + right[ny - 1]};       // twice
      for (int j = 0; j < ny; j++)
        for (int i = 0; i < nx; i++) {
          const int32_t u = 2 * i + 1, u1 = 2 * nx - u, v = 2 * j + 1, v1 = 2 * ny - v;
          const int32_t sides   = nx * (v1 * top[i] + v * bottom[i]) + ny * (u1 * left[j] + u * right[j]);
          const int32_t corners =
              v1 * (u1 * corner[0] + u * corner[1]) + v * (u1 * corner[2] + u * corner[3]);
          own.cells[c][j * digit_cells + i] = (16 * sides - 4 * corners) / (2 * nx * ny);
        }
    }
  }

  // The background of row y: bilinear between the middles of the cells, straight on beyond the outer ones.
  void background(int y) {
    const int above = (2 * y + 1 - cell) / (2 * cell), last = cells_y > 1 ? cells_y - 2 : 0;
    const int j = 2 * y + 1 < cell ? 0 : above < last ? above : last;
    const int next = cells_x > 1 ? 1 : 0, below = cells_y > 1 ? digit_cells : 0;
    const int32_t share = (2 * y + 1 - cell - 2 * cell * j) * 64 / cell;             // of 128
    for (int c = 0; c < 3; c++) {
      const int32_t* at = own.cells[c] + j * digit_cells;
      for (int i = 0, x = 0; x < W; i++, at++) {
        const int end       = i + 2 < cells_x ? (cell * (2 * i + 3) + 1) / 2 : W;
        const int32_t left  = at[0] * (128 - share) + at[below] * share;
        const int32_t right = at[next] * (128 - share) + at[next + below] * share;
        const int32_t step  = (right - left) * 32 / cell;                            // of half a pixel
        int32_t v = left * 64 + step * (2 * x + 1 - cell * (2 * i + 1)) + 4096;
        for (; x < end; x++, v += 2 * step)
          own.back[x][c] = v < 0 ? 0 : v >= (255 * 16) << 13 ? 255 * 16 : v >> 13;
      }
    }
  }

  // Into ink: by how much the channel that differs most differs from the background. Gives the threshold, and
  // the mean difference of what lies above it, signed: the colour of the ink.
  int difference(int32_t (&mean)[3]) {
    uint32_t counts[256] = {};
    int32_t sums[256][3] = {}, all[3] = {}, n = 0;
    for (int y = 0; y < H; y += skip) {
      background(y);
      for (int x = 0; x < W; x += skip) {
        const int i = y * W + x;
        int most = 0, d[3];
        for (int c = 0; c < 3; c++) {
          d[c] = planes[3 * i + c] * 16 - own.back[x][c];
          const int size = d[c] < 0 ? -d[c] : d[c];
          most = size > most ? size : most;
        }
        most = (most + 8) >> 4;
        ink[i] = static_cast<uint8_t>(most);
        counts[most]++;
        for (int c = 0; c < 3; c++) sums[most][c] += d[c];
      }
    }
    const int level = two_classes(counts, contrast, clarity);
    for (int v = level + 1; v < 256; v++) {
      n += static_cast<int32_t>(counts[v]);
      for (int c = 0; c < 3; c++) all[c] += sums[v][c];
    }
    for (int c = 0; c < 3; c++) mean[c] = n == 0 ? 0 : all[c] / n;
    return level;
  }

  // The background once more: in every cell the mean of what is neither ink nor beside it.
  void refine(int level) {
    uint32_t sums[3][digit_cells * digit_cells] = {};
    for (uint32_t& n : own.counts) n = 0;
    for (int y = 0; y < H; y += skip)
      for (int x = 0; x < W; x += skip) {
        const int i = y * W + x, l = x < 2 ? 0 : 2, r = x + 2 < W ? 2 : 0, u = y < 2 ? 0 : 2 * W,
                  d = y + 2 < H ? 2 * W : 0;
        if (ink[i] * 2 > level || ink[i - l] > level || ink[i + r] > level || ink[i - u] > level ||
            ink[i + d] > level)
          continue;
        const int at_x = x / cell < cells_x ? x / cell : cells_x - 1;
        const int at   = (y / cell < cells_y ? y / cell : cells_y - 1) * digit_cells + at_x;
        own.counts[at]++;
        for (int c = 0; c < 3; c++) sums[c][at] += planes[3 * i + c];
      }
    const uint32_t enough = static_cast<uint32_t>(cell * cell / (4 * skip * skip));
    bool some = false;
    for (int at = 0; at < digit_cells * digit_cells; at++) some |= own.counts[at] >= enough;
    for (int at = 0; at < digit_cells * digit_cells && some; at++)
      for (int c = 0; c < 3 && own.counts[at] >= enough; c++)
        own.cells[c][at] = static_cast<int32_t>((sums[c][at] * 16 + own.counts[at] / 2) / own.counts[at]);
    while (some) some = fill(enough);
  }

  // Cells of ink take the mean of the cells around that know; false when all do.
  bool fill(uint32_t enough) {
    constexpr uint32_t filled = 0xFFFFFFFFu;                   // counts from the next round on
    bool missing = false;
    for (int j = 0; j < cells_y; j++)
      for (int i = 0; i < cells_x; i++) {
        const int at = j * digit_cells + i;
        if (own.counts[at] >= enough) continue;
        missing = true;
        int32_t n = 0, around[3] = {};
        for (int v = j > 0 ? j - 1 : 0; v <= j + 1 && v < cells_y; v++)
          for (int u = i > 0 ? i - 1 : 0; u <= i + 1 && u < cells_x; u++) {
            const int k = v * digit_cells + u;
            if (own.counts[k] < enough || own.counts[k] == filled) continue;
            n++;
            for (int c = 0; c < 3; c++) around[c] += own.cells[c][k];
          }
        for (int c = 0; c < 3 && n > 0; c++) own.cells[c][at] = around[c] / n;
        if (n > 0) own.counts[at] = filled;
      }
    for (uint32_t& n : own.counts) n = n == filled ? enough : n;
    return missing;
  }

  // Into ink: the difference from the background as far as it points the way of the ink, so that what is
  // lighter than paper is none. What points the other way tells the noise: half of it does, and 2.5 times its
  // mean is the deviation, were it normal. Two deviations are taken off later.
  void project(const int32_t (&mean)[3]) {
    int64_t square = 0, most = 0;
    for (int32_t m : mean) {
      square += int64_t(m) * m;
      most = m > most ? m : -m > most ? -m : most;
    }
    int32_t weight[3];
    for (int c = 0; c < 3; c++)
      weight[c] = static_cast<int32_t>(square == 0 ? 0 : mean[c] * most * 65536 / square);
    uint64_t below = 0, paper = 1;
    for (int y = 0, i = 0; y < H; y++) {
      background(y);
      for (int x = 0; x < W; x++, i++) {
        int32_t p = 1 << 15;
        for (int c = 0; c < 3; c++) p += (planes[3 * i + c] * 16 - own.back[x][c]) * weight[c];
        p >>= 16;
        paper += p * 2 <= most;
        if (p < 0) below += static_cast<uint64_t>(-p);
        p = p < 0 ? 0 : (p + 8) >> 4;
        ink[i] = static_cast<uint8_t>(p > 255 ? 255 : p);
      }
    }
    noise = static_cast<int>(below * 5 / (paper * 16));
  }

  // Ink blurred by 1 2 1 both ways if large; a threshold below Otsu's, so that faint strokes hold together.
  void blur() {
    uint32_t counts[256] = {};
    uint8_t* const to = blurred();
    const bool large = W > 64 || H > 64;
    for (int y = 0, i = 0; y < H; y++)
      for (int x = 0; x < W; x++, i++) {
        const int l = large && x > 0 ? 1 : 0, r = large && x + 1 < W ? 1 : 0, u = large && y > 0 ? W : 0,
                  d = large && y + 1 < H ? W : 0;
        const uint8_t* p = ink + i;
        const int sum = p[-u - l] + 2 * p[-u] + p[-u + r] + 2 * (p[-l] + 2 * p[0] + p[r]) + p[d - l] +
                        2 * p[d] + p[d + r];
        to[i] = static_cast<uint8_t>((sum + 8) >> 4);
        counts[to[i]]++;
      }
    threshold = two_classes(counts, contrast, clarity) * 3 / 4;
    threshold = threshold > noise ? threshold : noise;
  }

  int find(int label) {
    while (own.parents[label] != label) {
      own.parents[label] = own.parents[own.parents[label]];
      label = own.parents[label];
    }
    return label;
  }

  // Connected parts, corners included: their numbers, from 1, into labels(), areas and boxes into parts.
  // false when there are none or too many.
  bool connect() {
    uint16_t* const label = labels();
    part_count = 1;
    for (int y = 0, i = 0; y < H; y++)
      for (int x = 0; x < W; x++, i++) {
        label[i] = 0;
        if (blurred()[i] <= threshold) continue;
        const int near[4] = {x > 0 ? label[i - 1] : 0, x > 0 && y > 0 ? label[i - W - 1] : 0,
                             y > 0 ? label[i - W] : 0, y > 0 && x + 1 < W ? label[i - W + 1] : 0};
        int mine = 0;
        for (int n : near) {
          if (n == 0) continue;
          n = find(n);
          const int low = mine == 0 || n < mine ? n : mine;
          if (mine != 0) own.parents[n] = own.parents[mine] = static_cast<uint16_t>(low);
          mine = low;
        }
        if (mine == 0 && part_count == digit_parts) return false;
        if (mine == 0) {
          mine = part_count++;
          own.parents[mine] = static_cast<uint16_t>(mine);
        }
        label[i] = static_cast<uint16_t>(mine);
      }
    for (int k = 0; k < part_count; k++) own.parts[k] = {0, 255, 255, 0, 0};
    for (int y = 0, i = 0; y < H; y++)
      for (int x = 0; x < W; x++, i++) {
        if (label[i] == 0) continue;
        label[i] = static_cast<uint16_t>(find(label[i]));
        DigitPart& p    = own.parts[label[i]];
        const uint8_t u = static_cast<uint8_t>(x), v = static_cast<uint8_t>(y);
        p = {p.area + 1, u < p.x0 ? u : p.x0, v < p.y0 ? v : p.y0, u > p.x1 ? u : p.x1, v > p.y1 ? v : p.y1};
      }
    return part_count > 1;
  }

  // Drops specks. Several digits are two parts, both at least half as high as the highest, that are further
  // apart than the strokes of one digit: by a tenth of that height beside each other, above a quarter.
  Seen choose() {
    constexpr int most = 12;
    uint32_t largest = 0;
    int count = 0, highest = 0;
    DigitPart parts[most];
    for (int k = 1; k < part_count; k++) largest = own.parts[k].area > largest ? own.parts[k].area : largest;
    for (int k = 1; k < part_count; k++) {
      DigitPart& p = own.parts[k];
      if (p.area * how.speck < largest) p.area = 0;
      if (p.area == 0) continue;
      if (count == most) return Seen::noise;
      parts[count++] = p;
      highest = p.y1 - p.y0 + 1 > highest ? p.y1 - p.y0 + 1 : highest;
    }
    for (int a = 0; a < count; a++)
      for (int b = 0; b < a; b++) {
        const DigitPart &p = parts[a], &q = parts[b];
        const int beside = p.x0 > q.x1 ? p.x0 - q.x1 : q.x0 - p.x1;
        const int above  = p.y0 > q.y1 ? p.y0 - q.y1 : q.y0 - p.y1;
        const bool high = 2 * (p.y1 - p.y0 + 1) >= highest && 2 * (q.y1 - q.y0 + 1) >= highest;
        if (high && (beside * 10 > highest || above * 4 > highest)) return Seen::several;
      }
    return Seen::one;
  }

  // The ink of the kept parts and of one pixel around them, its longest side made how.box, its largest value
  // 255, its centre of mass put into the middle: as in MNIST, into the pixel right and below of it.
  void cut(int height, int width, real* to) {
    uint32_t counts[256] = {}, all = 0;
    int x0 = W, y0 = H, x1 = 0, y1 = 0;
    for (int y = 0, i = 0; y < H; y++)
      for (int x = 0; x < W; x++, i++) {
        bool near = false;
        for (int v = y > 0 ? -1 : 0; v <= 1 && y + v < H && !near && ink[i] > noise; v++)
          for (int u = x > 0 ? -1 : 0; u <= 1 && x + u < W && !near; u++) near = kept(i + v * W + u);
        ink[i] = static_cast<uint8_t>(near ? ink[i] - noise : 0);
        if (!near) continue;
        if (kept(i)) counts[ink[i]]++, all++;
        x0 = x < x0 ? x : x0, x1 = x > x1 ? x : x1;
        y0 = y < y0 ? y : y0, y1 = y > y1 ? y : y1;
      }
    int top = 255;                                             // a fifth of the ink is at least this
    for (uint32_t above = counts[255]; top > 1 && above * 5 < all; above += counts[top]) top--;
    const int w = x1 - x0 + 1, h = y1 - y0 + 1, longest = w > h ? w : h;
    const int64_t box_w = ratio_rounded(w, how.box, longest), box_h = ratio_rounded(h, how.box, longest);
    uint8_t picture[64 * 64];
    int64_t most = 1, mass = 0, mass_x = 0, mass_y = 0;
    for (int64_t y = 0; y < box_h; y++)
      for (int64_t x = 0; x < box_w; x++) {
        const Taps    down(h, box_h, y), across(w, box_w, x);
        const int64_t total = total_weight(down, across);
        const int64_t sum   = weighed(down, across, [&](int64_t j, int64_t k) {
          const int value = ink[(y0 + j) * W + x0 + k];
          return value < top ? value * 255 / top : 255;
        });
        const int64_t v = (sum + total / 2) / total;
        picture[y * 64 + x] = static_cast<uint8_t>(v);
        most = v > most ? v : most;
        mass += v, mass_x += v * (2 * x + 1), mass_y += v * (2 * y + 1);
      }
    mass += mass == 0 ? 1 : 0;
    const auto shift = [&](int side, int64_t box, int64_t moment) {
      const int64_t at = (side * mass - moment + 2 * mass - 1) / (2 * mass), last = side - box;
      return at < 0 ? 0 : at > last ? last : at;
    };
    const int64_t left = shift(width, box_w, mass_x), up = shift(height, box_h, mass_y);
    for (int64_t y = 0; y < box_h; y++)
      for (int64_t x = 0; x < box_w; x++)
        to[(y + up) * width + x + left] = static_cast<real>((picture[y * 64 + x] * 255 + most / 2) / most);
  }

  // Two rounds tell ink and paper apart, each from what the one before took for paper.
  Seen run(const Image& image, int k, int height, int width, real* to) {
    if (image.channels == 1) reduce<1>(image, k);
    if (image.channels == 2) reduce<2>(image, k);
    if (image.channels == 3) reduce<3>(image, k);
    if (image.channels == 4) reduce<4>(image, k);
    int32_t mean[3];
    surround();
    int level = difference(mean);
    for (int round = 0; round < 2; round++) {
      refine(level);
      level = difference(mean);
    }
    project(mean);
    blur();
    if (contrast < how.contrast) return Seen::blank;
    if (!connect()) return Seen::noise;
    const Seen seen = choose();
    cut(height, width, to);
    return clarity < how.clarity && seen == Seen::one ? Seen::noise : seen;
  }
};

static bool digit_fits(const Preprocessing& p, int height, int width, int channels) {
  return channels == 1 && p.box >= 8 && p.box <= 64 && p.box <= height && p.box <= width && p.speck >= 1 &&
         p.clarity <= 100 && p.side >= 64 && p.side <= 256;
}
size_t prepare_bytes(const Preprocessing& how, int width, int height) {
  if (how.kind != PreprocessingKind::digit || width < 1 || height < 1) return 0;
  const int64_t W = width < how.side ? width : how.side, H = height < how.side ? height : how.side;
  return static_cast<size_t>(round_up(int64_t(sizeof(DigitScratch)) + 4 * W * H, 64));
}

static Status preprocess_digit(const Image& image, const Preprocessing& how, int height, int width,
                               int channels, real* to, Arena scratch, Seen& seen) {
  if (!digit_fits(how, height, width, channels)) return Status::bad_argument;
  void* const memory = scratch.take(prepare_bytes(how, image.width, image.height));
  if (!memory) return Status::out_of_memory;
  const FloatControl control;
  const int longest = image.width > image.height ? image.width : image.height;
  const int k = (longest + how.side - 1) / how.side;
  const int W = (image.width + k - 1) / k, H = (image.height + k - 1) / k;
  uint8_t* const planes = static_cast<uint8_t*>(memory) + sizeof(DigitScratch);
  Digit digit = {how, *static_cast<DigitScratch*>(memory), planes, planes + 3 * W * H, W, H};
  zero(to, int64_t(height) * width);
  seen = digit.run(image, k, height, width, to);
  for (int i = 0; i < height * width; i++)
    to[i] = (product(to[i], real(how.scale)) - real(how.mean[0])) / real(how.std[0]);
  return Status::ok;
}

Status preprocess(const Image& image, const Preprocessing& how, int height, int width, int channels,
                  real* to, Arena scratch, Seen* seen) {
  constexpr int largest = 16384;
  const auto within = [](int n, int most) { return n >= 1 && n <= most; };
  if (image.pixels == nullptr || !within(image.width, largest) || !within(image.height, largest) ||
      !within(image.channels, 4) || !within(width, largest) || !within(height, largest) ||
      !within(channels, 4))
    return Status::bad_image;
  Seen unseen, &told = seen ? *seen : unseen;
  told = Seen::one;
  if (how.kind == PreprocessingKind::digit)
    return preprocess_digit(image, how, height, width, channels, to, scratch, told);
  const FloatControl control;
  const Placement p = place(image, how.resize, height, width);
  for (int64_t y = -p.to_y; y < height - p.to_y; y++) {   // in the part that shows the image
    const Taps down(p.height, p.to_height, y);
    for (int64_t x = -p.to_x; x < width - p.to_x; x++) {
      const Taps across(p.width, p.to_width, x);
      const bool inside = x >= 0 && y >= 0 && x < p.to_width && y < p.to_height;
      for (int c = 0; c < channels; c++) {
        double value = inside ? resized_value(image, p, down, across, channels, c) : double(how.background);
        if (how.invert) value = 255 - value;
        *to++ = (product(static_cast<real>(value), real(how.scale)) - real(how.mean[c])) / real(how.std[c]);
      }
    }
  }
  return Status::ok;
}

// ================================================================================ >>hash
// CRC-32C (Castagnoli, reflected, as in RFC 3720) guards files against accidents; SHA-256 (FIPS 180-4) names
// what they hold. Neither is a defence against somebody who wants to deceive.
constexpr uint32_t crc32c_polynomial = 0x82F63B78u;

#if defined(NNLITE_NO_SIMD) || defined(__OPTIMIZE_SIZE__)
constexpr int crc_slices = 1;                               // 1 KB of table where flash is short
#else
constexpr int crc_slices = 8;                               // 8 KB of table, five times as fast
#endif

struct CrcTable {
  uint32_t of[crc_slices][256];
  constexpr CrcTable() : of{} {
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c & 1u) ? (c >> 1) ^ crc32c_polynomial : c >> 1;
      of[0][i] = c;
    }
    for (int s = 1; s < crc_slices; ++s)
      for (uint32_t i = 0; i < 256; ++i) of[s][i] = (of[s - 1][i] >> 8) ^ of[0][of[s - 1][i] & 0xFFu];
  }
};
static constexpr CrcTable crc_table;

uint32_t crc32c(uint32_t crc, const void* bytes, size_t n) {
  const uint8_t* p = static_cast<const uint8_t*>(bytes);
  uint32_t       c = ~crc;
#if !defined(NNLITE_NO_SIMD) && !defined(__OPTIMIZE_SIZE__)
  for (; n >= 8; n -= 8, p += 8) {                          // bytewise loads fit any byte order and alignment
    const uint32_t a = c ^ (p[0] | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24);
    c = crc_table.of[7][a & 0xFFu] ^ crc_table.of[6][(a >> 8) & 0xFFu] ^ crc_table.of[5][(a >> 16) & 0xFFu] ^
        crc_table.of[4][a >> 24] ^ crc_table.of[3][p[4]] ^ crc_table.of[2][p[5]] ^ crc_table.of[1][p[6]] ^
        crc_table.of[0][p[7]];
  }
#endif
  for (; n > 0; --n, ++p) c = (c >> 8) ^ crc_table.of[0][(c ^ *p) & 0xFFu];
  return ~c;
}

// a b in GF(2)[x] modulo the polynomial; bit 31 is x^0.
static uint32_t crc_product(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b & 1u) ? (b >> 1) ^ crc32c_polynomial : b >> 1;
  }
  return product;
}

// The CRC-32C of two strings, one after the other, from theirs: first x^(8 second_length) + second. So one
// pass over the weights gives the CRC of every storage and of the section that they lie in.
uint32_t crc32c_join(uint32_t first, uint32_t second, uint64_t second_length) {
  uint32_t power = 0x80000000u, square = 0x00800000u;       // x^0, x^8
  for (uint64_t n = second_length; n != 0; n >>= 1) {
    if (n & 1u) power = crc_product(square, power);
    square = crc_product(square, square);
  }
  return crc_product(power, first) ^ second;
}

static constexpr uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate_right(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }
static void sha256_block(uint32_t h[8], const uint8_t* p) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; ++i, p += 4)
    w[i] = uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | uint32_t(p[3]);
  for (int i = 16; i < 64; ++i) {
    const uint32_t a = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t b = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  for (int i = 0; i < 8; ++i) s[i] = h[i];
  for (int i = 0; i < 64; ++i) {
    const uint32_t e1 = rotate_right(s[4], 6) ^ rotate_right(s[4], 11) ^ rotate_right(s[4], 25);
    const uint32_t t1 = s[7] + e1 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha256_k[i] + w[i];
    const uint32_t e0 = rotate_right(s[0], 2) ^ rotate_right(s[0], 13) ^ rotate_right(s[0], 22);
    const uint32_t t2 = e0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    s[7] = s[6]; s[6] = s[5]; s[5] = s[4]; s[4] = s[3] + t1;
    s[3] = s[2]; s[2] = s[1]; s[1] = s[0]; s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; ++i) h[i] += s[i];
}

Sha256::Sha256()
    : state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19},
      length(0), block{} {}

void Sha256::add(const void* bytes, size_t n) {
  const uint8_t* p = static_cast<const uint8_t*>(bytes);
  for (size_t i = 0; i < n; ++i) {
    block[length++ & 63u] = p[i];
    if ((length & 63u) == 0) sha256_block(state, block);
  }
}

void Sha256::finish(uint8_t digest[32]) {
  const uint64_t bits = length * 8u, n = 64 - (length + 8) % 64;
  uint8_t        tail[72] = {0x80};            // n bytes, then the bits as a number
  for (uint64_t i = 0; i < 8; ++i) tail[n + i] = uint8_t(bits >> (56 - 8 * i));
  add(tail, size_t(n) + 8);
  for (int i = 0; i < 32; ++i) digest[i] = uint8_t(state[i / 4] >> (24 - 8 * (i % 4)));
}

// ================================================================================ >>container
// The outside of a `.nnl` file, as models/FORMAT.md numbers it. A record is a struct with the bytes of the
// file on every machine: what is read and what is written stands in one place, reserved bytes too. Nothing is
// used before it was checked, and bounds are checked by subtraction, so that no sum can wrap.
static void copy_bytes(void* to, const void* from, size_t n) { if (n > 0) __builtin_memcpy(to, from, n); }
constexpr bool little_endian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
// Turns every element of a file on a big-endian machine.
static void swap_elements(void* elements, size_t bytes, size_t element) {
  unsigned char* p = static_cast<unsigned char*>(elements);
  for (size_t i = 0; i + element <= bytes; i += element)
    for (size_t k = 0; k < element / 2; ++k) {
      const unsigned char low = p[i + k];
      p[i + k]                = p[i + element - 1 - k];
      p[i + element - 1 - k]  = low;
    }
}

// A number of a record, little-endian.
template <class T> class Little {
 public:
  Little(T v = 0) : stored_(turned(v)) {}
  operator T() const { return turned(stored_); }

 private:
  static T turned(T v) { if (!little_endian) swap_elements(&v, sizeof v, sizeof v); return v; }
  T stored_;
};
using Le16 = Little<uint16_t>;
using Le32 = Little<uint32_t>;
using Le64 = Little<uint64_t>;
struct LeFloat {
  Le32 bits;
  LeFloat(float v = 0) : bits(bits_of(v)) {}
  operator float() const { return float_of(bits); }
};

constexpr uint32_t max_sections = 64, kind_model = 1, kind_checkpoint = 2, file_none = 0xFFFFFFFFu,
                   file_batch = 0xFFFFFFFFu, file_steps = 0xFFFFFFFEu;

struct FileHeader {
  uint8_t magic[8] = {0x89, 'N', 'N', 'L', 0x0D, 0x0A, 0x1A, 0x0A};
  Le16    major = 1, minor, needed_minor, header_bytes = 128;
  Le32    byte_order = 0x0A0B0C0D, kind = kind_model;
  Le64    file_bytes, incompatible, compatible;
  Le32    sections, section_bytes = 48;
  Le64    table = 128;
  uint8_t content_id[32] = {};
  Le64    generation;
  uint8_t zero[16] = {};
  Le32    table_crc, crc;
};
struct SectionRecord {
  Le32    type;                                // 0: not in this file
  Le16    version = 1, flags;
  Le64    offset, size;
  Le32    crc;
  uint8_t zero[20] = {};
};
struct StorageRecord { Le64 bytes; Le32 crc, zero; };
struct TensorRecord {
  Le32    name;                                // of a parameter
  uint8_t name_bytes = 0, dtype = 0, rank = 0, layout = 0, role = 0, flags = 0;
  Le16    zero;
  Le32    groups = 1, producer = file_none, storage = file_none;
  Le64    offset, bytes;
  Le32    quantisation = file_none, owner = file_none, slot, zero_too, dims[max_rank];
  Le64    zeros;
};
struct NodeRecord {
  Le32    name;
  uint8_t name_bytes = 0, op_bytes = 0;
  Le16    version;
  Le32    op;
  uint8_t n_in = 0, n_parameters = 0, n_out = 1, zero = 0;
  Le32    ids, attributes, attribute_bytes, shares = file_none;
  Le64    zeros;
};
struct GraphHeader { Le32 inputs, outputs; Le64 seed; Le32 init, zero; };
struct GraphEnd {                              // an input or an output
  Le32    node, name;
  uint8_t name_bytes = 0, zero[7] = {};
};
static_assert(sizeof(FileHeader) == 128 && sizeof(SectionRecord) == 48 && sizeof(StorageRecord) == 16 &&
              sizeof(TensorRecord) == 96 && sizeof(NodeRecord) == 40 && sizeof(GraphHeader) == 24 &&
              sizeof(GraphEnd) == 16);

enum class Presence : uint8_t { optional, always, checkpoint, in_checkpoint, reserved };
struct SectionKind { uint32_t type; char name[5]; bool critical; Presence presence; };
enum SectionId : int {
  id_meta, id_strs, id_tens, id_node, id_idxs, id_attr, id_grph, id_stor, id_qntz, id_prep, id_post, id_labl,
  id_test, id_arth, id_opts, id_schd, id_rngs, id_dpos, id_loss, id_base, id_augm, id_sign, id_data,
  section_kind_count
};
static constexpr SectionKind section_kinds[section_kind_count] = {
    {0x0001, "META", false, Presence::optional},  {0x0010, "STRS", true, Presence::always},
    {0x0011, "TENS", true, Presence::always},     {0x0012, "NODE", true, Presence::always},
    {0x0013, "IDXS", true, Presence::always},     {0x0014, "ATTR", true, Presence::always},
    {0x0015, "GRPH", true, Presence::always},     {0x0016, "STOR", true, Presence::always},
    {0x0017, "QNTZ", true, Presence::reserved},   {0x0020, "PREP", false, Presence::optional},
    {0x0021, "POST", false, Presence::optional},  {0x0022, "LABL", false, Presence::optional},
    {0x0023, "TEST", false, Presence::optional},  {0x0040, "ARTH", true, Presence::checkpoint},
    {0x0041, "OPTS", true, Presence::checkpoint}, {0x0042, "SCHD", true, Presence::checkpoint},
    {0x0043, "RNGS", true, Presence::checkpoint}, {0x0044, "DPOS", true, Presence::checkpoint},
    {0x0045, "LOSS", true, Presence::checkpoint}, {0x0046, "BASE", true, Presence::reserved},
    {0x0047, "AUGM", true, Presence::in_checkpoint}, {0x007F, "SIGN", false, Presence::reserved},
    {0xFFFF, "DATA", true, Presence::always}};

static int find_section_kind(uint32_t type) {
  for (int i = 0; i < section_kind_count; ++i) if (section_kinds[i].type == type) return i;
  return -1;
}

static inline uint64_t align64(uint64_t n) { return (n + 63u) & ~uint64_t(63); }
// Where two byte strings differ first; n where they do not.
static size_t first_difference(const void* a, const void* b, size_t n) {
  size_t i = 0;
  while (i < n && static_cast<const uint8_t*>(a)[i] == static_cast<const uint8_t*>(b)[i]) ++i;
  return i;
}
static bool same_bytes(const void* a, const void* b, size_t n) { return first_difference(a, b, n) == n; }
static bool all_zero(const uint8_t* p, size_t n) {
  while (n > 0 && p[n - 1] == 0) --n;
  return n == 0;
}

static bool read_memory(void* user, uint64_t offset, void* to, size_t n) {
  copy_bytes(to, static_cast<const uint8_t*>(user) + offset, n);
  return true;
}
Source memory_source(const void* file, size_t bytes) { return {read_memory, const_cast<void*>(file), bytes}; }

// A file that is being read.
struct File {
  Source         source;
  const uint8_t* memory  = nullptr;            // the whole file, where it lies in memory
  LoadLimits     limits;
  Problem*       problem = nullptr;
  FileHeader     header;
  SectionRecord  at[section_kind_count];
  uint32_t       others  = 0;                  // sections that this version does not know
  uint32_t       tensors = 0, parameters = 0, nodes = 0, storages = 0;
  uint64_t       names   = 0;                  // bytes of the parameters' names, which begin STRS

  File(const Source& from, const LoadLimits& most, Problem* why) : source(from), limits(most), problem(why) {
    if (from.read == read_memory) memory = static_cast<const uint8_t*>(from.user);
  }
  bool     there(SectionId id) const { return at[id].type != 0; }
  bool     checkpoint() const { return header.kind == kind_checkpoint; }
  uint64_t offset(SectionId id) const { return at[id].offset; }
  uint64_t size(SectionId id) const { return at[id].size; }
};

// Says what is wrong at an offset of the file; with numbers, where two are given that differ.
static NNLITE_COLD Status refuse(const File& f, Status status, uint64_t offset, const char* where,
                                 const char* what, uint64_t expected = 0, uint64_t got = 0) {
  if (f.problem == nullptr) return status;
  Text text = set_problem(*f.problem, status, where, what);
  if (expected != got) text << ": expected " << int64_t(expected) << ", got " << int64_t(got);
  f.problem->offset = offset;
  return status;
}
static NNLITE_COLD Status refuse(const File& f, Status status, SectionId id, const char* what,
                                 uint64_t expected = 0, uint64_t got = 0) {
  return refuse(f, status, f.offset(id), section_kinds[id].name, what, expected, got);
}
static Status bad(const File& f, uint64_t offset, const char* where, const char* what, uint64_t expected = 0,
                  uint64_t got = 0) {
  return refuse(f, Status::bad_format, offset, where, what, expected, got);
}
static Status unsupported(const File& f, uint64_t offset, const char* where, const char* what,
                          uint64_t expected = 0, uint64_t got = 0) {
  return refuse(f, Status::unsupported, offset, where, what, expected, got);
}
static Status bad(const File& f, SectionId id, const char* what, uint64_t expected = 0, uint64_t got = 0) {
  return refuse(f, Status::bad_format, id, what, expected, got);
}

// n bytes at offset: the only way from a file to the engine.
static Status fetch(const File& f, uint64_t offset, void* to, size_t n) {
  if (offset > f.source.size || n > f.source.size - offset)
    return bad(f, offset, "file", "ends early", offset + n, f.source.size);
  if (!f.source.read(f.source.user, offset, to, n))
    return refuse(f, Status::io_error, offset, "file", "cannot be read");
  return Status::ok;
}

// Record i of a section.
template <class R>
static uint64_t place(const File& f, SectionId id, uint64_t i) { return f.offset(id) + sizeof(R) * i; }
template <class R> static Status fetch(const File& f, SectionId id, uint64_t i, R& record) {
  if (f.size(id) / sizeof record <= i) return bad(f, id, "is cut off", sizeof record * (i + 1), f.size(id));
  return fetch(f, place<R>(f, id, i), &record, sizeof record);
}

static Status fetch_section(const File& f, uint32_t i, SectionRecord& s) {
  return fetch(f, sizeof(FileHeader) + sizeof s * i, &s, sizeof s);
}

// A record against the one that this version would write there: which byte differs.
template <class R>
static Status check_record(const File& f, uint64_t here, const char* where, const char* what, const R& own,
                           const R& got) {
  const size_t i = first_difference(&own, &got, sizeof own);
  if (i == sizeof own) return Status::ok;
  const auto byte = [i](const R& r) { return reinterpret_cast<const uint8_t*>(&r)[i]; };
  return bad(f, here + i, where, what, byte(own), byte(got));
}

// use(bytes, count) for n bytes at offset, piece by piece.
template <class F> static Status fetch_pieces(const File& f, uint64_t offset, uint64_t n, F use) {
  if (f.memory != nullptr && offset <= f.source.size && n <= f.source.size - offset) {
    use(f.memory + offset, size_t(n));
    return Status::ok;
  }
  uint8_t buffer[256];
  for (size_t piece = 0; n > 0; offset += piece, n -= piece) {
    piece = n < sizeof buffer ? size_t(n) : sizeof buffer;
    NNLITE_TRY(fetch(f, offset, buffer, piece));
    use(buffer, piece);
  }
  return Status::ok;
}

// The CRC goes on over n bytes at offset.
static Status fetch_crc(const File& f, uint64_t offset, uint64_t n, uint32_t& crc) {
  return fetch_pieces(f, offset, n, [&](const uint8_t* p, size_t count) { crc = crc32c(crc, p, count); });
}

// Padding: fewer than 64 zeros, which the CRC covers too.
static Status fetch_padding(const File& f, uint64_t offset, uint32_t& crc) {
  uint8_t      buffer[64];
  const size_t n = size_t(align64(offset) - offset);
  NNLITE_TRY(fetch(f, offset, buffer, n));
  crc = crc32c(crc, buffer, n);
  return all_zero(buffer, n) ? Status::ok : bad(f, offset, "padding", "is not zero");
}

static NNLITE_COLD Status read_header(File& f) {
  const FileHeader own;
  FileHeader&      h = f.header;
  if (f.source.read == nullptr) return refuse(f, Status::bad_argument, 0, "file", "no source");
  if (f.source.size < sizeof h) return bad(f, 0, "header", "the file is too short", sizeof h, f.source.size);
  if (f.source.size > f.limits.file_bytes)
    return refuse(f, Status::limit_exceeded, 0, "header", "bytes of the file", f.limits.file_bytes,
                  f.source.size);
  NNLITE_TRY(fetch(f, 0, &h, sizeof h));
  if (!same_bytes(h.magic, own.magic, 8)) return bad(f, 0, "header", "this is not a .nnl file");
  if (h.byte_order != own.byte_order) return bad(f, 16, "header", "the byte order is wrong");
  if (crc32c(0, &h, sizeof h - sizeof h.crc) != h.crc)
    return refuse(f, Status::bad_checksum, 124, "header", "is damaged");
  if (h.major != own.major)
    return unsupported(f, 8, "header", "needs a newer nnlite, major version", own.major, h.major);
  if (h.needed_minor > own.minor)
    return unsupported(f, 12, "header", "needs a newer nnlite, minor version", own.minor, h.needed_minor);
  if (h.header_bytes != own.header_bytes || h.section_bytes != own.section_bytes || h.table != own.table)
    return bad(f, 14, "header", "sizes of header and section record");
  if (h.incompatible != 0)
    return unsupported(f, 32, "header", "needs a newer nnlite, feature bits", 0, h.incompatible);
  if (h.kind == 3) return unsupported(f, 20, "header", "needs a newer nnlite: kind 3, delta");
  if (h.kind != kind_model && h.kind != kind_checkpoint)
    return unsupported(f, 20, "header", "needs a newer nnlite, kind of file", 1, h.kind);
  if (h.file_bytes != f.source.size || f.source.size % 64 != 0)
    return bad(f, 24, "header", "bytes of the file", h.file_bytes, f.source.size);
  if (h.sections < 1 || h.sections > max_sections)
    return bad(f, 48, "header", "number of sections", max_sections, h.sections);
  if (!all_zero(h.zero, sizeof h.zero) || (!f.checkpoint() && h.generation != 0))
    return bad(f, 96, "header", "reserved bytes are not zero");
  const uint64_t bytes = sizeof(SectionRecord) * h.sections;
  if (align64(sizeof h + bytes) > f.source.size) return bad(f, 48, "header", "the section table is cut off");
  uint32_t crc = 0;
  NNLITE_TRY(fetch_crc(f, sizeof h, bytes, crc));
  NNLITE_TRY(fetch_padding(f, sizeof h + bytes, crc));
  return crc == h.table_crc ? Status::ok
                            : refuse(f, Status::bad_checksum, 120, "section table", "is damaged");
}

// One record of the table. `end` is where the section before it ends, padding included.
static Status read_section(File& f, uint32_t i, uint32_t& last_type, uint64_t& end) {
  SectionRecord  s;
  const uint64_t here = sizeof(FileHeader) + sizeof s * i;
  NNLITE_TRY(fetch_section(f, i, s));
  if (s.type <= last_type || s.type > 0xFFFF || s.flags > 1 || !all_zero(s.zero, 20) || s.version == 0)
    return bad(f, here, "section table", "order, flags or reserved bytes");
  if (s.offset != end || s.size > f.source.size - end || align64(s.size) > f.source.size - end)
    return bad(f, here, "section table", "the sections do not fill the file");
  last_type = s.type;
  end += align64(s.size);
  const int         id       = find_section_kind(s.type);
  const char*       name     = id < 0 ? "unknown section" : section_kinds[id].name;
  const Presence    presence = id < 0 ? Presence::reserved : section_kinds[id].presence;
  if (id >= 0 && section_kinds[id].critical != (s.flags == 1))
    return bad(f, here, name, "flags of the section");
  const bool known = s.version == 1 && presence != Presence::reserved;
  if (!known && s.flags == 1)
    return unsupported(f, here, name, "needs a newer nnlite: section type and version", s.type, s.version);
  const bool of_checkpoint = presence == Presence::checkpoint || presence == Presence::in_checkpoint;
  if (known && of_checkpoint && !f.checkpoint()) return bad(f, here, name, "belongs into a checkpoint");
  if (known && (presence == Presence::optional || presence == Presence::in_checkpoint) && s.size == 0)
    return bad(f, here, name, "is empty");
  if (known) f.at[id] = s;
  f.others += known ? 0 : 1;
  if (id == id_data) return Status::ok;        // with the storages
  uint32_t crc = 0;
  NNLITE_TRY(fetch_crc(f, s.offset, s.size, crc));
  NNLITE_TRY(fetch_padding(f, s.offset + s.size, crc));
  return crc == s.crc ? Status::ok : refuse(f, Status::bad_checksum, s.offset, name, "is damaged");
}

// DATA and its storages in one pass: the CRC of each, zeros between them, and the CRC of all.
static Status read_storages(File& f) {
  StorageRecord  r;
  const uint64_t data = f.offset(id_data), size = f.size(id_data);
  uint64_t       at   = 0;
  uint32_t       all  = 0;
  for (uint32_t k = 0; k < f.storages; ++k) {
    uint32_t crc = 0, gap = 0;
    NNLITE_TRY(fetch(f, id_stor, k, r));
    if (r.bytes == 0 || at > size || r.bytes > size - at || r.zero != 0)
      return bad(f, place<StorageRecord>(f, id_stor, k), "STOR", "the storages do not fill DATA");
    NNLITE_TRY(fetch_crc(f, data + at, r.bytes, crc));
    if (crc != r.crc) return refuse(f, Status::bad_checksum, data + at, "DATA", "a storage is damaged");
    NNLITE_TRY(fetch_padding(f, data + at + r.bytes, gap));
    const uint64_t padding = align64(r.bytes) - r.bytes;
    all = crc32c_join(crc32c_join(all, crc, r.bytes), gap, padding);
    at += r.bytes + (k + 1 < f.storages ? padding : 0);
  }
  if (at != size) return bad(f, id_data, "bytes", at, size);
  return all == f.at[id_data].crc ? Status::ok : refuse(f, Status::bad_checksum, id_data, "is damaged");
}

static Status count_records(const File& f, SectionId id, size_t bytes, uint32_t limit, uint32_t& count) {
  const uint64_t n = f.size(id) / bytes;
  if (f.size(id) % bytes != 0) return bad(f, id, "bytes of a record");
  if (n > limit) return refuse(f, Status::limit_exceeded, id, "number of records", limit, n);
  count = uint32_t(n);
  return Status::ok;
}

// Header, table, every checksum, and the number of records: what any use of a file begins with.
static NNLITE_COLD Status read_container(File& f) {
  NNLITE_TRY(read_header(f));
  uint32_t last_type = 0;
  uint64_t end       = align64(sizeof(FileHeader) + sizeof(SectionRecord) * f.header.sections);
  for (uint32_t i = 0; i < f.header.sections; ++i) NNLITE_TRY(read_section(f, i, last_type, end));
  if (end != f.source.size) return bad(f, end, "file", "bytes after the last section");
  for (const SectionKind& kind : section_kinds) {
    const bool needed = kind.presence == Presence::always ||
                        (kind.presence == Presence::checkpoint && f.checkpoint());
    if (needed && f.at[&kind - section_kinds].type == 0)
      return bad(f, sizeof(FileHeader), kind.name, "the section is missing");
  }
  NNLITE_TRY(count_records(f, id_tens, sizeof(TensorRecord), f.limits.tensors, f.tensors));
  NNLITE_TRY(count_records(f, id_node, sizeof(NodeRecord), f.limits.nodes, f.nodes));
  NNLITE_TRY(count_records(f, id_stor, sizeof(StorageRecord), f.limits.tensors, f.storages));
  return read_storages(f);
}

// ================================================================================ >>fields
// What writes a file, and what reads or writes the fields of a section.

// A file that is written; without a sink it is only measured. Counts the bytes of a section, and their CRC.
class Emit {
 public:
  explicit Emit(const Sink* sink = nullptr) : sink_(sink) {}
  NNLITE_COLD void put(const void* bytes, size_t n) {
    if (n > sizeof buffer_ - held_) flush();
    if (n > sizeof buffer_) return pass(static_cast<const uint8_t*>(bytes), n);
    copy_bytes(buffer_ + held_, bytes, n);
    held_ += n;
  }
  // Records, and numbers of them.
  template <class... R> void write(const R&... record) { (put(&record, sizeof record), ...); }
  // Elements of 1, 4 or 8 bytes in the order of this machine.
  void elements(const void* values, size_t bytes, size_t element) {
    if (little_endian) return put(values, bytes);
    const unsigned char* p = static_cast<const unsigned char*>(values);
    for (size_t i = 0; i < bytes; i += element)
      for (size_t k = 0; k < element; ++k) put(p + i + element - 1 - k, 1);
  }
  void align(uint64_t n) { while (at() % n != 0) put("", 1); }         // zeros up to a multiple of n
  // The place of a string: in STRS they have the order in which the sections after it refer to them.
  uint32_t place_string(size_t bytes) {
    strings_ += uint32_t(bytes);
    return bytes == 0 ? 0 : strings_ - uint32_t(bytes);
  }
  void     flush() { pass(buffer_, held_); held_ = 0; }
  uint64_t at() const { return at_ + held_; }
  uint32_t crc() { flush(); return crc_; }
  void     begin() { flush(); at_ = crc_ = 0; }          // a section
  bool failed() const { return failed_; }

 private:
  void pass(const uint8_t* p, size_t n) {
    at_ += n;
    crc_ = crc32c(crc_, p, n);
    if (sink_ != nullptr && n > 0 && !failed_) failed_ = !sink_->write(sink_->user, p, n);
  }
  const Sink* sink_;
  uint64_t    at_ = 0;
  uint32_t    crc_ = 0, strings_ = 0;
  bool        failed_ = false;
  size_t      held_ = 0;
  uint8_t     buffer_[512] = {};               // g++ 12 at -O2 thinks that flush reads what is not there
};

// A section that holds one thing is a list of its fields, `fields(Io&, thing)`: one list reads and writes it.
// A setting must be what it is here where Io is to match, a constant and what is required in every file.
class Io {
 public:
  const OpSet* ops   = nullptr;                // where rows are looked for
  bool         match = false;
  Status       other = Status::bad_argument;   // a setting differs

  explicit Io(Emit& e) : e_(&e) {}
  Io(const File& f, SectionId id) : f_(&f), id_(id), at_(f.offset(id)), end_(at_ + f.size(id)) {}
  template <class... T> void state(T&... v) { (number(v), ...); }
  template <class T> void setting(const char* name, T& v) {
    const T own = v;
    number(v);
    if (match && ok(status_) && v != own)
      status_ = refuse(*f_, other, at_ - sizeof v, name, "the checkpoint has another", whole(own), whole(v));
  }
  template <class... T> void constant(T... v) { (same(v), ...); }
  void zeros(size_t n) { for (; n > 0; --n) constant(uint8_t(0)); }
  void require(bool right) {
    if (!right && ok(status_))
      status_ = bad(*f_, at_, section_kinds[id_].name, "a field is out of range, or does not fit");
  }
  void   row(const char* setting, uint32_t trait, AnyOp& row);
  Status finish() { require(at_ == end_); return status_; }

 private:
  NNLITE_COLD void bytes(void* p, size_t n) {
    if (e_ != nullptr) return e_->put(p, n);
    require(n <= end_ - at_);
    if (ok(status_)) status_ = fetch(*f_, at_, p, n);
    if (ok(status_)) at_ += n;
  }
  template <class T> void number(T& v) {
    Little<T> l(v);
    bytes(&l, sizeof l);
    v = l;
  }
  void number(float& v) {
    uint32_t bits = bits_of(v);
    number(bits);
    v = float_of(bits);
  }
  void number(bool& v) {
    uint8_t b = v;
    number(b);
    require(b <= 1);
    v = b == 1;
  }
  template <class T, size_t n> void number(T (&list)[n]) { for (T& v : list) number(v); }
  template <class T> void same(T expected) {
    T v = expected;
    number(v);
    require(v == expected);
  }
  template <class T> static uint64_t whole(T v) { return uint64_t(v); }
  static uint64_t whole(float) { return 0; }   // not shown
  Status read_row(const OpSet& known, uint32_t trait, AnyOp& row);

  Emit*       e_   = nullptr;                  // writing
  const File* f_   = nullptr;                  // reading
  SectionId   id_  = section_kind_count;
  uint64_t    at_  = 0, end_ = 0;
  Status      status_ = Status::ok;
};

// ================================================================================ >>extras
// Preprocessing, labels, metadata, golden vectors and sections that this version does not know. Of each: what
// is valid, how it is read, how it is written.

// Reads views into the file where it stays in memory, else copies. Without a base it only measures.
struct ExtrasReader {
  const File&    f;
  const Model&   m;
  bool           in_place;
  unsigned char* base   = nullptr;
  size_t         used   = 0;
  ModelExtras*   extras = nullptr;             // nullptr while measuring

  template <class T> T* take(uint64_t count) {
    unsigned char* p = base == nullptr ? nullptr : base + used;
    used += (sizeof(T) * size_t(count) + 15) & ~size_t(15);
    return reinterpret_cast<T*>(p);
  }
  Status view(const SectionRecord& s, const uint8_t*& bytes) {
    uint8_t* to = in_place ? nullptr : take<uint8_t>(s.size);
    bytes       = in_place ? f.memory + s.offset : to;
    return to == nullptr ? Status::ok : fetch(f, s.offset, to, size_t(s.size));
  }
};

static bool valid_text(const char* s) { return valid_utf8(s, text_bytes(s)); }
static NNLITE_COLD void fields(Io& io, Preprocessing& p, const Model& m) {
  const Shape s = m.input_shape(0);
  uint16_t    kind = uint16_t(1 + int(p.kind));
  io.constant(uint32_t(0));                    // input
  io.state(kind);
  io.require(kind == 1 || kind == 2);
  io.constant(uint16_t(1));                    // version of the kind
  io.constant(uint8_t(s.dim[3] == 1 ? 0 : s.dim[3] == 3 ? 1 : 2));
  p.kind = kind == 2 ? PreprocessingKind::digit : PreprocessingKind::plain;
  const bool digit = p.kind == PreprocessingKind::digit;
  if (digit) io.zeros(3);
  else       io.state(p.resize, p.invert, p.background);
  io.constant(uint32_t(s.dim[1]), uint32_t(s.dim[2]));
  io.state(p.scale, p.mean, p.std);
  if (digit) io.state(p.box, p.speck, p.contrast, p.clarity, p.side);
  io.zeros(digit ? 66 : 72);
}
static Status read_picture(ExtrasReader& x) {
  Preprocessing* p = x.take<Preprocessing>(1);
  if (x.f.size(id_prep) != 128)
    return refuse(x.f, Status::unsupported, id_prep, "bytes; one input can have a picture", 128,
                  x.f.size(id_prep));
  if (p == nullptr) return Status::ok;
  Io io(x.f, id_prep);
  *p = Preprocessing();
  fields(io, *p, x.m);
  x.extras->preprocessing = p;
  return io.finish();
}

static NNLITE_COLD void fields(Io& io, ModelExtras& x) {
  io.constant(uint32_t(0));                    // output
  io.state(x.answer);
  io.zeros(3);
  io.state(x.threshold);
  io.zeros(4);
}
static Status read_answer(ExtrasReader& x) {
  ModelExtras none;
  Io          io(x.f, id_post);
  if (x.f.size(id_post) != 16)
    return refuse(x.f, Status::unsupported, id_post, "bytes; one output has an answer", 16,
                  x.f.size(id_post));
  fields(io, x.extras == nullptr ? none : *x.extras);
  io.require(x.extras == nullptr || x.extras->answer != Answer::none);
  return io.finish();
}

static Status read_labels(ExtrasReader& x) {
  struct { Le32 output, count; } h;
  const uint8_t* bytes = nullptr;
  NNLITE_TRY(fetch(x.f, id_labl, 0, h));
  const uint64_t most = (x.f.size(id_labl) - sizeof h) / 5;             // an offset and an end each
  if (h.count == 0 || h.count > most || h.output != 0)
    return bad(x.f, id_labl, "number of labels", most, h.count);
  const char** labels = x.take<const char*>(h.count);
  NNLITE_TRY(x.view(x.f.at[id_labl], bytes));
  if (labels == nullptr) return Status::ok;
  const Le32* const offsets = reinterpret_cast<const Le32*>(bytes + sizeof h);
  const char* const text    = reinterpret_cast<const char*>(offsets + h.count);
  const uint64_t    size    = x.f.size(id_labl) - sizeof h - sizeof(Le32) * h.count;
  uint64_t          at      = 0;
  if (text[size - 1] != 0) return bad(x.f, id_labl, "the last label has no end");
  for (uint32_t i = 0; i < h.count; ++i) {
    if (at == size || offsets[i] != at) return bad(x.f, id_labl, "labels are not in order");
    labels[i] = text + at;
    at += text_bytes(labels[i]) + 1;
  }
  if (at != size) return bad(x.f, id_labl, "bytes after the last label");
  x.extras->labels      = labels;
  x.extras->label_count = int(h.count);
  return Status::ok;
}
static void emit_labels(const ModelExtras& x, Emit& e) {
  uint32_t at = 0;
  e.write(Le32(0), Le32(uint32_t(x.label_count)));
  for (int i = 0; i < x.label_count; ++i) {
    e.write(Le32(at));
    at += uint32_t(text_bytes(x.labels[i]) + 1);
  }
  for (int i = 0; i < x.label_count; ++i) e.put(x.labels[i], text_bytes(x.labels[i]) + 1);
}

struct EntryHeader { uint8_t key_bytes = 0, type = 1; Le16 value_bytes; };
constexpr size_t max_metadata_bytes = 65536;
static Status read_metadata(ExtrasReader& x) {
  const SectionRecord& s     = x.f.at[id_meta];
  const uint8_t*       bytes = nullptr;
  EntryHeader          h;
  size_t               count = 0;
  if (s.size > max_metadata_bytes)
    return refuse(x.f, Status::limit_exceeded, id_meta, "bytes", max_metadata_bytes, s.size);
  for (uint64_t at = 0; at < s.size; ++count) {
    if (s.size - at < sizeof h + 2) return bad(x.f, s.offset + at, "META", "an entry is cut off");
    NNLITE_TRY(fetch(x.f, s.offset + at, &h, sizeof h));
    const uint64_t all = sizeof h + h.key_bytes + 1u + h.value_bytes + 1u;
    if (h.key_bytes < 1 || h.key_bytes > 63 || h.type != 1 || all > s.size - at)
      return bad(x.f, s.offset + at, "META", "an entry is out of range");
    at += all;
  }
  Metadata* to = x.take<Metadata>(count);
  NNLITE_TRY(x.view(s, bytes));
  if (to == nullptr) return Status::ok;
  for (size_t i = 0; i < count; ++i, bytes += h.key_bytes + 1u + h.value_bytes + 1u) {
    copy_bytes(&h, bytes, sizeof h);
    bytes += sizeof h;
    to[i].key   = reinterpret_cast<const char*>(bytes);
    to[i].value = to[i].key + h.key_bytes + 1;
    if (to[i].key[h.key_bytes] != 0 || to[i].value[h.value_bytes] != 0 ||
        text_bytes(to[i].key) != h.key_bytes || text_bytes(to[i].value) != h.value_bytes)
      return bad(x.f, id_meta, "a text ends too early or too late");
  }
  x.extras->metadata       = to;
  x.extras->metadata_count = int(count);
  return Status::ok;
}
static void emit_metadata(const ModelExtras& x, Emit& e) {
  for (int i = 0; i < x.metadata_count; ++i) {
    const Metadata& m = x.metadata[i];
    const size_t    key = text_bytes(m.key), value = text_bytes(m.value);
    e.write(EntryHeader{uint8_t(key), 1, uint16_t(value)});
    e.put(m.key, key + 1);
    e.put(m.value, value + 1);
  }
}

// A golden vector: its header, all inputs, all outputs, two floats of every node; each filled up to 8 bytes.
struct GoldenHeader { Le32 rows; LeFloat tolerance; };
static bool valid(const Golden& g) {
  return g.rows >= 1 && g.rows <= 64 && is_finite(g.tolerance) && g.tolerance > 0;
}
static size_t input_bytes(const Model& m, int i, int rows) {
  return size_t(m.input_shape(i).numel(rows)) * size_of(m.input_dtype(i));
}
static size_t output_floats(const Model& m, int rows) {
  size_t n = 0;
  for (int i = 0; i < m.output_count(); ++i) n += size_t(m.output_shape(i).numel(rows));
  return n;
}

static Status read_golden(ExtrasReader& x) {
  struct { Le32 count, zero; } h;
  const uint8_t* bytes = nullptr;
  NNLITE_TRY(fetch(x.f, id_test, 0, h));
  if (h.count < 1 || h.count > 16 || h.zero != 0) return bad(x.f, id_test, "vectors", 16, h.count);
  Golden* to = x.take<Golden>(h.count);
  NNLITE_TRY(x.view(x.f.at[id_test], bytes));
  if (to == nullptr) return Status::ok;
  uint64_t   at = sizeof h, size = x.f.size(id_test);
  const auto take = [&](uint64_t n) -> const void* {                    // nullptr where it is not there
    const uint64_t all = (n + 7) & ~uint64_t(7);
    if (all > size - at || !all_zero(bytes + at + n, size_t(all - n))) return nullptr;
    at += all;
    return bytes + at - all;
  };
  for (uint32_t i = 0; i < h.count; ++i) {
    const GoldenHeader* g = static_cast<const GoldenHeader*>(take(sizeof(GoldenHeader)));
    if (g == nullptr) return bad(x.f, x.f.offset(id_test) + at, "TEST", "is cut off");
    to[i] = {int(g->rows), g->tolerance, nullptr, nullptr, nullptr};
    if (!valid(to[i])) return bad(x.f, x.f.offset(id_test) + at - sizeof *g, "TEST", "rows or tolerance");
    uint64_t inputs = 0;
    for (int k = 0; k < x.m.input_count(); ++k) inputs += input_bytes(x.m, k, to[i].rows);
    to[i].inputs  = take(inputs);
    to[i].outputs = static_cast<const float*>(take(sizeof(float) * output_floats(x.m, to[i].rows)));
    to[i].nodes   = static_cast<const float*>(take(2 * sizeof(float) * uint64_t(x.m.node_count())));
    if (to[i].inputs == nullptr || to[i].outputs == nullptr || to[i].nodes == nullptr)
      return bad(x.f, x.f.offset(id_test) + at, "TEST", "is cut off, or its fill is not zero");
  }
  if (at != size) return bad(x.f, x.f.offset(id_test) + at, "TEST", "bytes after the last vector");
  if (!little_endian) swap_elements(const_cast<uint8_t*>(bytes) + sizeof h, size_t(size) - sizeof h, 4);
  x.extras->golden       = to;
  x.extras->golden_count = int(h.count);
  return Status::ok;
}
static void emit_golden(const Model& m, const ModelExtras& x, Emit& e) {
  e.write(Le32(uint32_t(x.golden_count)), Le32());
  for (int i = 0; i < x.golden_count; ++i) {
    const Golden&        g    = x.golden[i];
    const unsigned char* from = static_cast<const unsigned char*>(g.inputs);
    e.write(Le32(uint32_t(g.rows)), LeFloat(g.tolerance));
    for (int k = 0; k < m.input_count(); ++k) {
      e.elements(from, input_bytes(m, k, g.rows), size_of(m.input_dtype(k)));
      from += input_bytes(m, k, g.rows);
    }
    e.align(8);
    e.elements(g.outputs, sizeof(float) * output_floats(m, g.rows), sizeof(float));
    e.align(8);
    e.elements(g.nodes, 2 * sizeof(float) * size_t(m.node_count()), sizeof(float));
  }
}

// Sections that were skipped, for a writer to keep.
static Status read_others(ExtrasReader& x) {
  OtherSection* to = x.take<OtherSection>(x.f.others);
  int           n  = 0;
  for (uint32_t i = 0; i < x.f.header.sections; ++i) {
    SectionRecord  s;
    const uint8_t* bytes = nullptr;
    NNLITE_TRY(fetch_section(x.f, i, s));
    const int id = find_section_kind(s.type);
    if (id >= 0 && x.f.there(SectionId(id))) continue;
    NNLITE_TRY(x.view(s, bytes));
    if (to != nullptr) to[n++] = OtherSection{s.type, s.version, bytes, s.size};
  }
  if (x.extras == nullptr) return Status::ok;
  x.extras->others      = to;
  x.extras->other_count = n;
  return Status::ok;
}

// What a file may not hold, whether it is read or written; nullptr: nothing.
static NNLITE_COLD const char* find_bad_extras(const Model& m, const ModelExtras& x, SectionId& id) {
  const Shape in = m.input_shape(0);
  bool     right = true;
  id = id_prep;
  if (const Preprocessing* p = x.preprocessing) {
    right = in.rank == 4 && m.input_dtype(0) == real_dtype && p->kind <= PreprocessingKind::digit &&
            p->resize <= Resize::centre_crop && is_finite(p->scale) &&
            (p->kind == PreprocessingKind::plain || digit_fits(*p, in.dim[1], in.dim[2], in.last()));
    for (int c = 0; c < 4; ++c)
      right = right && is_finite(p->mean[c]) && is_finite(p->std[c]) && p->std[c] > 0;
    if (!right) return "preprocessing is out of range or does not fit the input";
  }
  id = id_post;
  if (!is_finite(x.threshold) || x.answer > Answer::threshold ||
      (x.answer == Answer::none && x.threshold != 0))
    return "the answer is out of range";
  id = id_labl;
  if (x.label_count != 0 && x.label_count != m.output_shape(0).last()) return "number of labels";
  for (int i = 0; i < x.label_count; ++i) if (!valid_text(x.labels[i])) return "a label is not UTF-8";
  id = id_meta;
  size_t bytes = 0;
  for (int i = 0; i < x.metadata_count; ++i) {
    const char * key = x.metadata[i].key, *value = x.metadata[i].value;
    const size_t k = text_bytes(key), v = text_bytes(value);
    bytes += sizeof(EntryHeader) + k + 1 + v + 1;
    if (k < 1 || k > 63 || v > 65535 || bytes > max_metadata_bytes)
      return "metadata is too long, or a key is empty";
    if (!valid_text(key) || !valid_text(value)) return "metadata is not UTF-8";
    if (i > 0 && compare_text(x.metadata[i - 1].key, key) >= 0) return "keys of metadata are not in order";
  }
  id    = id_test;
  right = x.golden_count <= 16;
  for (int i = 0; right && i < x.golden_count; ++i) right = valid(x.golden[i]);
  if (!right) return "golden vectors: number, rows or tolerance";
  id    = id_data;
  right = x.other_count <= 32;
  for (int i = 0; right && i < x.other_count; ++i)
    right = x.others[i].version > 0 && x.others[i].type > 0 && x.others[i].type < 0xFFFF &&
            (i == 0 || x.others[i - 1].type < x.others[i].type);
  return right ? nullptr : "other sections: number, order, type or version";
}

static NNLITE_COLD Status read_extras(ExtrasReader& x) {
  x.used   = 0;
  x.extras = x.take<ModelExtras>(1);
  if (x.extras != nullptr) *x.extras = ModelExtras();
  if (x.f.there(id_prep)) NNLITE_TRY(read_picture(x));
  if (x.f.there(id_post)) NNLITE_TRY(read_answer(x));
  if (x.f.there(id_labl)) NNLITE_TRY(read_labels(x));
  if (x.f.there(id_meta)) NNLITE_TRY(read_metadata(x));
  if (x.f.there(id_test)) NNLITE_TRY(read_golden(x));
  if (x.f.others > 0) NNLITE_TRY(read_others(x));
  if (x.extras == nullptr) return Status::ok;
  SectionId   id;
  const char* wrong = find_bad_extras(x.m, *x.extras, id);
  return wrong == nullptr ? Status::ok : bad(x.f, id, wrong);
}

// ================================================================================ >>reader
// The parts of a graph in the file: tensors, names, attributes. In constant memory; names are compared where
// they lie. What a record must be is made from the engine's own nodes and parameters, for reader and writer.
constexpr uint8_t role_activation = 5, role_input = 6, role_state = 7;
constexpr size_t  file_name_bytes = 64;        // of the longest name that the engine keeps, with its end
static uint8_t file_dtype(DType t) {
  return t == DType::f32 ? 1 : t == DType::f64 ? 4 : t == DType::u8 ? 6 : 8;
}
static TensorRecord form_record(const Shape& s, DType dtype) {
  TensorRecord t;
  t.dtype = file_dtype(dtype);
  t.rank  = uint8_t(s.rank);
  for (int d = 0; d < s.rank; ++d) t.dims[d] = s.dim[d] == Shape::batch_dim ? file_batch : uint32_t(s.dim[d]);
  return t;
}
static TensorRecord output_record(const Node& n, uint32_t number) {
  TensorRecord t = form_record(n.shape, n.dtype);
  t.role     = n.op == nullptr ? role_input : role_activation;
  t.producer = number;
  return t;
}
// But for name and flags.
static TensorRecord parameter_record(const Parameter& p, uint32_t storage) {
  TensorRecord t = form_record(p.spec.shape, real_dtype);
  t.layout  = uint8_t(1 + int(p.spec.layout));
  t.role    = uint8_t(1 + int(p.spec.role));
  t.groups  = uint32_t(p.spec.groups);
  t.storage = storage;
  t.bytes   = uint64_t(p.stored) * sizeof(real);
  return t;
}
// A state of the parameter with this record and id.
static TensorRecord state_record(TensorRecord t, uint32_t owner, uint32_t slot, uint32_t storage) {
  t.name       = 0;
  t.name_bytes = t.flags = 0;
  t.role    = role_state;
  t.storage = storage;
  t.owner   = owner;
  t.slot    = slot;
  return t;
}
// But for the places of names, ids and attributes.
static NodeRecord node_record(const Node& n, uint32_t number) {
  NodeRecord r;
  r.name_bytes   = uint8_t(n.name == nullptr ? 0 : text_bytes(n.name));
  r.op_bytes     = uint8_t(n.op == nullptr ? 0 : text_bytes(n.op->name));
  r.version      = n.op == nullptr ? uint16_t(0) : n.op->version;
  r.n_in         = n.n_in;
  r.n_parameters = n.n_parameters;
  if (n.owner != number) r.shares = n.owner;
  return r;
}
static bool has_attributes(const Node& n, uint32_t number) { return n.op != nullptr && n.owner == number; }
// The string at a reference, with its end. It must lie where the last one ended, unless it is absent.
static Status fetch_string(const File& f, uint64_t here, uint32_t offset, uint8_t bytes, uint64_t& cursor,
                           char* to) {
  const uint64_t expected = bytes == 0 ? 0 : cursor;
  if (offset != expected) return bad(f, here, "STRS", "offset of a string", expected, offset);
  if (bytes > f.size(id_strs) - cursor) return bad(f, here, "STRS", "a string leaves the pool");
  if (bytes >= file_name_bytes)
    return refuse(f, Status::limit_exceeded, here, "STRS", "bytes of a name", file_name_bytes - 1, bytes);
  NNLITE_TRY(fetch(f, f.offset(id_strs) + cursor, to, bytes));
  to[bytes] = 0;
  cursor += bytes;
  return valid_utf8(to, bytes) ? Status::ok : bad(f, here, "STRS", "a name is not UTF-8");
}

// What must hold before a tensor can be compared with what the engine makes of the file.
static Status read_tensor(const File& f, uint32_t i, TensorRecord& t) {
  const uint64_t here = place<TensorRecord>(f, id_tens, i);
  NNLITE_TRY(fetch(f, id_tens, i, t));
  if (t.quantisation != file_none) return unsupported(f, here, "TENS", "needs a newer nnlite: quantisation");
  if (t.rank > max_rank) return bad(f, here, "TENS", "rank", max_rank, t.rank);
  for (const Le32& dim : t.dims)
    if (dim == file_steps) return unsupported(f, here, "TENS", "needs a newer nnlite: dim T");
  return Status::ok;
}

static Status check_storage(const File& f, uint64_t here, const TensorRecord& t) {
  StorageRecord r;
  if (t.storage >= f.storages) return bad(f, here, "TENS", "storage of a tensor", f.storages, t.storage);
  NNLITE_TRY(fetch(f, id_stor, t.storage, r));
  return r.bytes == t.bytes ? Status::ok : bad(f, here, "STOR", "bytes of a storage", t.bytes, r.bytes);
}

// The three groups of records. The outputs of nodes are compared later, with what the engine makes of them.
static NNLITE_COLD Status read_tensors(File& f) {
  char         name[file_name_bytes] = {}, last[file_name_bytes] = {};
  TensorRecord t, owner;
  uint32_t     i = 0;
  for (; i < f.tensors; ++i) {
    const uint64_t here = place<TensorRecord>(f, id_tens, i);
    NNLITE_TRY(read_tensor(f, i, t));
    if (t.name_bytes == 0) break;
    NNLITE_TRY(fetch_string(f, here, t.name, t.name_bytes, f.names, name));
    if (i > 0 && compare_text(last, name) >= 0) return bad(f, here, name, "names are not in order");
    copy_bytes(last, name, sizeof name);
    if (t.flags > (f.checkpoint() ? 3 : 1)) return bad(f, here, name, "flags of a parameter");
    if (t.dtype != file_dtype(real_dtype))
      return unsupported(f, here, name, "dtype of a stored tensor", file_dtype(real_dtype), t.dtype);
    NNLITE_TRY(check_storage(f, here, t));
  }
  f.parameters = i;
  if (f.tensors - i < f.nodes || f.storages != f.tensors - f.nodes)
    return bad(f, id_tens, "number of tensors", uint64_t(f.nodes) + f.storages, f.tensors);
  uint64_t least = 0;                          // owner and slot of the next state
  for (; i < f.parameters + f.nodes; ++i) NNLITE_TRY(read_tensor(f, i, t));
  for (; i < f.tensors; ++i) {
    const uint64_t here = place<TensorRecord>(f, id_tens, i);
    NNLITE_TRY(read_tensor(f, i, t));
    const uint64_t order = uint64_t(t.owner) << 32 | t.slot;
    if (!f.checkpoint() || t.owner >= f.parameters)
      return bad(f, here, "TENS", "fields of an optimizer state");
    if (order < least) return bad(f, here, "TENS", "optimizer states are not in order");
    least = order + 1;
    NNLITE_TRY(read_tensor(f, t.owner, owner));
    if ((owner.flags & 2) == 0) return bad(f, here, "TENS", "the owner of an optimizer state is not trained");
    NNLITE_TRY(check_record(f, here, "TENS", "an optimizer state differs from its owner",
                            state_record(owner, t.owner, t.slot, i - f.nodes), t));
    NNLITE_TRY(check_storage(f, here, t));
  }
  return Status::ok;
}

// Zeros fill what a panel or vector does not use: the kernels count on it.
static Status check_tail(const File& f, const ParameterSpec& p, uint64_t at) {
  const Panels  in(p);
  const int64_t last = in.count() - 1;
  const size_t  used = size_t(in.width - panel * last) * sizeof(real);
  uint8_t       line[panel * sizeof(real)];
  if (used == sizeof line) return Status::ok;
  for (int64_t o = 0; o < in.outer; ++o)
    for (int64_t l = 0; l < in.lines; ++l) {
      const uint64_t offset = at + uint64_t((o * in.count() + last) * in.lines + l) * sizeof line + used;
      NNLITE_TRY(fetch(f, offset, line, sizeof line - used));
      if (!all_zero(line, sizeof line - used))
        return bad(f, offset, "DATA", "the fill of a panel is not zero");
    }
  return Status::ok;
}

// The op of this name and version.
static Status find_known(const File& f, const OpSet& ops, uint64_t here, const char* name, uint32_t version,
                         const Op*& op) {
  op = find_op(ops, name);
  if (op == nullptr) return refuse(f, Status::unknown_op, here, name, "not among LoadOptions::ops");
  if (op->version == version) return Status::ok;
  return refuse(f, Status::unknown_op, here, name, "needs a newer nnlite, version", op->version, version);
}

static size_t field_bytes(FieldType t) {
  return t == FieldType::boolean ? 1 : t == FieldType::pair || t == FieldType::betas ? 8 : 4;
}
static bool same_field(const Field& f, const void* a, const void* b) {
  const uint8_t* p = static_cast<const uint8_t*>(a) + f.offset;
  const uint8_t* q = static_cast<const uint8_t*>(b) + f.offset;
  return same_bytes(p, q, field_bytes(f.type));
}

// Attributes in the file to a struct that holds the defaults. A default that is written, an unknown field,
// another order or type are refused, so there is one way to write them.
static NNLITE_COLD Status read_attributes(const File& f, uint64_t at, uint32_t bytes, AnyOp& row) {
  const Op&      op   = *row.op();
  const uint64_t end  = at + bytes;
  unsigned char* to   = static_cast<unsigned char*>(row.attributes());
  uint8_t        last = 0, r[8];
  while (at < end) {
    if (end - at < 3) return bad(f, at, op.name, "an attribute is cut off");
    NNLITE_TRY(fetch(f, at, r, 2));
    const Field* field = nullptr;
    for (int i = 0; i < op.n_fields; ++i) if (op.fields[i].id == r[0]) field = &op.fields[i];
    if (field == nullptr) return unsupported(f, at, op.name, "needs a newer nnlite: unknown field", 0, r[0]);
    if (r[1] != uint8_t(field->type))
      return bad(f, at, op.name, "type of a field", uint8_t(field->type), r[1]);
    if (r[0] <= last) return bad(f, at, op.name, "fields are not in order");
    last = r[0];
    const size_t size = field_bytes(field->type);
    if (size > end - at - 2) return bad(f, at, op.name, "an attribute is cut off");
    NNLITE_TRY(fetch(f, at + 2, r, size));
    if (size == 1 && r[0] > 1) return bad(f, at, op.name, "a truth value", 1, r[0]);
    if (size > 1 && !little_endian) swap_elements(r, size, 4);
    if (same_bytes(to + field->offset, r, size)) return bad(f, at, op.name, "a default is written");
    copy_bytes(to + field->offset, r, size);
    at += 2 + size;
  }
  return Status::ok;
}

// ================================================================================ >>load
// From a checked container to a model, by the engine's own builder: what the file says of shapes, parameters
// and order must be what the engine makes of it.

// The walk over the nodes of a file, their names, ids and attributes; it goes once to measure, once to build.
struct GraphCursor {
  const OpSet& ops;
  uint64_t     strings, ids = 0, attributes = 0;
  NodeRecord   n;
  uint64_t     here = 0;                       // of this record
  const Op*    op   = nullptr;                 // nullptr: an input
  char         name[file_name_bytes] = {}, op_name[file_name_bytes] = {};
  GraphCursor(const File& f, const OpSet& known) : ops(known), strings(f.names) {}
};

// The next node, number k: everything lies where that of the one before ended.
static Status next_node(const File& f, uint32_t k, GraphCursor& c) {
  c.here = place<NodeRecord>(f, id_node, k);
  NNLITE_TRY(fetch(f, id_node, k, c.n));
  NNLITE_TRY(fetch_string(f, c.here, c.n.name, c.n.name_bytes, c.strings, c.name));
  NNLITE_TRY(fetch_string(f, c.here, c.n.op, c.n.op_bytes, c.strings, c.op_name));
  if (c.n.n_in > max_inputs || c.n.n_parameters > max_parameters)
    return refuse(f, Status::limit_exceeded, c.here, "NODE", "inputs or parameters of a node");
  if (c.n.ids != c.ids || c.n.attributes != c.attributes ||
      c.n.attribute_bytes > f.size(id_attr) - c.attributes)
    return bad(f, c.here, c.name, "place in IDXS or ATTR");
  c.ids += uint64_t(c.n.n_in) + c.n.n_parameters + 1;
  c.attributes += c.n.attribute_bytes;
  Le32 id;
  for (uint32_t i = 0; i < c.n.n_in; ++i) {
    NNLITE_TRY(fetch(f, id_idxs, c.n.ids + i, id));
    if (id < f.parameters || id - f.parameters >= k)
      return bad(f, c.here, c.name, "an input is not made by an earlier node");
  }
  NNLITE_TRY(fetch(f, id_idxs, c.ids - 1, id));
  if (id != f.parameters + k) return bad(f, c.here, c.name, "id of the output", f.parameters + k, id);
  if (c.n.shares != file_none && c.n.shares >= k) return bad(f, c.here, c.name, "shares with a later node");
  c.op = nullptr;
  if (c.n.op_bytes == 0) return Status::ok;
  NNLITE_TRY(find_known(f, c.ops, c.here, c.op_name, c.n.version, c.op));
  if ((c.op->traits & (traits::optimizer | traits::schedule)) == 0) return Status::ok;
  return refuse(f, Status::unknown_op, c.here, c.op_name, "is not a layer");
}

// The next input or output, number i, and its name.
static Status next_end(const File& f, const GraphHeader& h, uint32_t i, GraphCursor& c, GraphEnd& end) {
  const uint64_t here = f.offset(id_grph) + sizeof h + sizeof end * i;
  NNLITE_TRY(fetch(f, here, &end, sizeof end));
  if (end.node >= f.nodes || !all_zero(end.zero, 7) || (end.name_bytes == 0) != (i < h.inputs))
    return bad(f, here, "GRPH", "node or name of an input or output");
  return fetch_string(f, here, end.name, end.name_bytes, c.strings, c.name);
}

// Bytes of the caller's arena that the records of the graph take: what the builder takes, to the byte.
static Status measure_records(const File& f, const OpSet& ops, uint64_t& bytes) {
  const auto  round8 = [](uint64_t n) { return (n + 7) & ~uint64_t(7); };
  GraphCursor c(f, ops);
  GraphHeader h;
  GraphEnd    end;
  bytes = round8(2 * uint64_t(f.nodes)) + round8(4 * (uint64_t(f.nodes) + 1));
  for (uint32_t k = 0; k < f.nodes; ++k) {
    NNLITE_TRY(next_node(f, k, c));
    bytes += sizeof(Node) + (c.n.name_bytes == 0 ? 0 : round8(c.n.name_bytes + uint64_t(1)));
    if (c.op == nullptr) continue;
    bytes += round8(c.op->attr_size) + round8(2 * uint64_t(c.n.n_in)) +
             round8(sizeof(Parameter) * uint64_t(c.n.n_parameters));
  }
  if (c.ids * 4 != f.size(id_idxs) || c.attributes != f.size(id_attr))
    return bad(f, id_idxs, "bytes after the last node");
  NNLITE_TRY(fetch(f, id_grph, 0, h));
  if (h.inputs > max_inputs || h.outputs > max_outputs)
    return refuse(f, Status::limit_exceeded, id_grph, "inputs or outputs of the graph");
  if (f.size(id_grph) != sizeof h + sizeof end * (h.inputs + h.outputs) || h.init > 4 || h.zero != 0)
    return bad(f, id_grph, "size or fields");
  for (uint32_t i = 0; i < h.inputs + h.outputs; ++i) {
    NNLITE_TRY(next_end(f, h, i, c, end));
    if (i >= h.inputs) bytes += round8(end.name_bytes + uint64_t(1));
  }
  return c.strings == f.size(id_strs) ? Status::ok : bad(f, id_strs, "bytes after the last name");
}

// What the builder said, with the place in the file.
static Status built(const File& f, const Model& m, uint64_t here) {
  if (f.problem != nullptr && !ok(m.problem().status)) {
    *f.problem        = m.problem();
    f.problem->offset = here;
  }
  return m.problem().status;
}

static Status add_input_node(const File& f, Model& m, uint32_t k, const GraphCursor& c, uint16_t& self) {
  const uint64_t here = place<TensorRecord>(f, id_tens, f.parameters + k);
  TensorRecord   t;
  Dims           dims;
  NNLITE_TRY(read_tensor(f, f.parameters + k, t));
  if (t.rank < 1 || t.dims[0] != file_batch || t.role != role_input)
    return bad(f, here, c.name, "role or dims of an input");
  for (int d = 1; d < t.rank; ++d) dims.dim[d - 1] = int32_t(t.dims[d]);
  dims.rank = t.rank - 1;
  const DType dtype = t.dtype == file_dtype(DType::i32) ? DType::i32 : real_dtype;
  if (t.dtype != file_dtype(dtype))
    return unsupported(f, here, c.name, "dtype of an input", file_dtype(dtype), t.dtype);
  self = m.input(c.name, dims, dtype).model;
  return built(f, m, c.here);
}

// The next node through the builder; `self` is what its handles carry.
static Status add_file_node(const File& f, Model& m, uint32_t k, GraphCursor& c, uint16_t& self) {
  Tensor in[max_inputs];
  NNLITE_TRY(next_node(f, k, c));
  if (c.op == nullptr) return add_input_node(f, m, k, c, self);
  for (uint32_t i = 0; i < c.n.n_in; ++i) {
    Le32 id;
    NNLITE_TRY(fetch(f, id_idxs, c.n.ids + i, id));
    in[i] = {uint16_t(id - f.parameters), self};
  }
  if (c.n.shares != file_none) {
    if (ModelAccess::node(m, int(c.n.shares)).op != c.op)
      return bad(f, c.here, c.op_name, "owner of a sharing node");
    (void)m.share_any({uint16_t(c.n.shares), self}, in, c.n.n_in);
    return built(f, m, c.here);
  }
  AnyOp layer(c.op, c.op->defaults, c.op->attr_size);
  NNLITE_TRY(read_attributes(f, f.offset(id_attr) + c.n.attributes, c.n.attribute_bytes, layer));
  (void)m.add_any(c.n.name_bytes == 0 ? nullptr : c.name, layer, in, c.n.n_in);
  NNLITE_TRY(built(f, m, c.here));
  const bool same = same_bytes(layer.attributes(), ModelAccess::node(m, int(k)).attributes, c.op->attr_size);
  return same ? Status::ok : bad(f, c.here, c.op_name, "an attribute is not complete");
}

// A parameter of the engine against its record: one name, role, form and place.
static Status check_parameter(const File& f, const Node& node, int p, const char* owner, uint32_t id) {
  char             name[file_name_bytes], stored[file_name_bytes];
  const Parameter& q    = node.parameters[p];
  const uint64_t   here = place<TensorRecord>(f, id_tens, id);
  TensorRecord     t, own = parameter_record(q, uint32_t(node.first_parameter + p));
  NNLITE_TRY(read_tensor(f, id, t));
  Text(name, sizeof name) << owner << "." << q.spec.name;
  uint64_t cursor = t.name;
  NNLITE_TRY(fetch_string(f, here, t.name, t.name_bytes, cursor, stored));
  if (!same_text(name, stored) || (t.flags != 0 && q.spec.role == Role::statistic) || t.flags == 2)
    return bad(f, here, name, "the layer has another parameter");
  own.name       = t.name;
  own.name_bytes = t.name_bytes;
  own.flags      = t.flags;
  return check_record(f, here, name, "the layer has another parameter", own, t);
}

// Node k of the engine, its output and its parameters, against the records.
static Status check_node(const File& f, const Model& m, uint32_t k) {
  const Node&    node = ModelAccess::node(m, int(k));
  const uint64_t here = place<TensorRecord>(f, id_tens, f.parameters + k);
  const NodeName name = ModelAccess::name(m, int(k));
  NodeRecord     n, own = node_record(node, k);
  TensorRecord   t;
  NNLITE_TRY(fetch(f, id_node, k, n));
  NNLITE_TRY(read_tensor(f, f.parameters + k, t));
  const TensorRecord out = output_record(node, k);
  if (t.rank != out.rank || !same_bytes(t.dims, out.dims, sizeof t.dims))
    return refuse(f, Status::bad_shape, here, name, "the layer gives another shape than the stored one");
  NNLITE_TRY(check_record(f, here, name, "a field of its output differs", out, t));
  own.name       = n.name;
  own.op         = n.op;
  own.ids        = n.ids;
  own.attributes = n.attributes;
  if (has_attributes(node, k)) own.attribute_bytes = n.attribute_bytes;
  NNLITE_TRY(check_record(f, place<NodeRecord>(f, id_node, k), name, "a field of the node differs", own, n));
  const NodeName owner = ModelAccess::name(m, node.owner);
  for (int p = 0; p < n.n_parameters; ++p) {
    Le32 id;
    NNLITE_TRY(fetch(f, id_idxs, uint64_t(n.ids) + n.n_in + uint32_t(p), id));
    if (id >= f.parameters)
      return bad(f, place<NodeRecord>(f, id_node, k), name, "not a parameter", f.parameters, id);
    NNLITE_TRY(check_parameter(f, node, p, owner, id));
    if (node.owner != k) continue;
    const Parameter& q = node.parameters[p];
    NNLITE_TRY(check_tail(f, q.spec, f.offset(id_data) + uint64_t(q.offset) * 64));
    NNLITE_TRY(read_tensor(f, id, t));
    node.parameters[p].trainable = (t.flags & 1) != 0;
  }
  return Status::ok;
}

// Nodes, then inputs and outputs in the order in which the user has them, then the builder's last word.
NNLITE_COLD Status ModelAccess::read_graph(const File& f, Model& m, const OpSet& ops) {
  GraphCursor c(f, ops);
  GraphHeader h;
  GraphEnd    end;
  uint16_t    self = 0, given[max_inputs];
  for (uint32_t k = 0; k < f.nodes; ++k) NNLITE_TRY(add_file_node(f, m, k, c, self));
  NNLITE_TRY(fetch(f, id_grph, 0, h));
  bool right = h.inputs == m.input_count_ && h.outputs > 0;
  for (uint32_t i = 0; right && i < h.inputs + h.outputs; ++i) {
    NNLITE_TRY(next_end(f, h, i, c, end));
    const uint16_t node = uint16_t(end.node);
    if (i >= h.inputs) {
      m.output(c.name, {node, self});
      continue;
    }
    given[i] = node;
    right    = m.nodes_[node].op == nullptr;
    for (uint32_t k = 0; k < i; ++k) right = right && given[k] != node;
  }
  if (!right) return bad(f, id_grph, "inputs are not the input nodes");
  for (uint32_t i = 0; i < h.inputs; ++i) m.inputs_[i] = given[i];
  (void)m.finish({h.seed, Init(uint8_t(h.init))});
  NNLITE_TRY(built(f, m, f.offset(id_node)));
  for (int k = 0; m.id_map_ != nullptr && k < m.node_count_; ++k)
    if (m.id_map_[k] != k) return bad(f, id_node, "nodes are not in post-order");
  for (uint32_t k = 0; k < f.nodes; ++k) NNLITE_TRY(check_node(f, m, k));
  if (m.parameter_count() == int(f.parameters)) return Status::ok;
  return bad(f, id_tens, "parameters", uint64_t(m.parameter_count()), f.parameters);
}

// Everything but graph and weights, in the order of Loading; the bytes of the graph's records; whether the
// file is used where it lies, for which its memory is aligned and this machine is little-endian.
static Status read_checked(File& f, const LoadOptions& options, uint64_t& records, bool& in_place) {
  NNLITE_TRY(read_container(f));
  NNLITE_TRY(read_tensors(f));
  NNLITE_TRY(measure_records(f, options.ops, records));
  in_place = f.memory != nullptr && !options.copy && little_endian;
  if (in_place && (reinterpret_cast<uintptr_t>(f.memory) & 63u) != 0)
    return refuse(f, Status::misaligned, 0, "file", "align it to 64 bytes, or load a copy");
  return Status::ok;
}

Status load_size(const Source& source, const LoadOptions& options, size_t& bytes, Problem* problem) {
  File     f(source, options.limits, problem);
  uint64_t records  = 0;
  bool     in_place = false;
  Model    none;
  NNLITE_TRY(read_checked(f, options, records, in_place));
  ExtrasReader extras = {f, none, in_place};
  NNLITE_TRY(read_extras(extras));
  bytes = size_t(align64(records) + align64(extras.used));
  for (uint32_t i = 0; !in_place && i < f.parameters; ++i) {
    TensorRecord t;
    NNLITE_TRY(read_tensor(f, i, t));
    bytes += size_t(align64(t.bytes));
  }
  return Status::ok;
}

static Status take_memory(const File& f, Arena& arena, size_t bytes, unsigned char*& memory) {
  memory = static_cast<unsigned char*>(arena.take(bytes));
  if (memory != nullptr) return Status::ok;
  return refuse(f, Status::out_of_memory, 0, "arena", "too small", bytes, arena.left());
}

Status Model::load(const Source& source, Arena& arena, const LoadOptions& options) {
  if (nodes_ != nullptr || finished_) return fail(Status::bad_argument, "load", "the model is not empty");
  Problem     problem;
  const Arena before = arena;
  File       f(source, options.limits, &problem);
  const auto everything = [&]() -> Status {
    uint64_t       records  = 0;
    bool           in_place = false;
    unsigned char* memory   = nullptr;
    NNLITE_TRY(read_checked(f, options, records, in_place));
    if (!arena.aligned()) return refuse(f, Status::misaligned, 0, "arena", "align it to 64 bytes");
    NNLITE_TRY(take_memory(f, arena, size_t(records), memory));
    new (this) Model(memory, size_t(align64(records)));
    NNLITE_TRY(ModelAccess::read_graph(f, *this, options.ops));
    ExtrasReader extras = {f, *this, in_place};
    NNLITE_TRY(read_extras(extras));
    NNLITE_TRY(take_memory(f, arena, extras.used, extras.base));
    NNLITE_TRY(read_extras(extras));
    memory = nullptr;
    if (in_place && weight_bytes_ > 0) weights_ = f.memory + f.offset(id_data);
    if (!in_place && weight_bytes_ > 0) {
      NNLITE_TRY(take_memory(f, arena, weight_bytes_, memory));
      NNLITE_TRY(fetch(f, f.offset(id_data), memory, weight_bytes_));
      if (!little_endian) swap_elements(memory, weight_bytes_, sizeof(real));
      weights_ = memory;
    }
    extras_ = extras.extras;
    return Status::ok;
  };
  const Status s = everything();
  if (ok(s)) return s;
  new (this) Model;                            // that nothing was loaded into, and why
  problem_ = problem;
  arena    = before;
  return s;
}

Status Model::load(const void* file, size_t bytes, Arena& arena, const LoadOptions& options) {
  return load(memory_source(file, bytes), arena, options);
}
Status Model::load(const void* file, size_t bytes, Arena& arena) {
  return load(file, bytes, arena, LoadOptions());
}

// ================================================================================ >>writer
// A file is emitted twice by the same functions: first to learn sizes, checksums and the content id, then
// to the sink. Nothing depends on anything but the content, so the same content gives the same bytes.
constexpr int max_saved_parameters = sizeof(void*) == 8 ? 16384 : 1024;
struct Content {
  const Model*       model;
  const Trainer*     trainer;                  // where trained values come from; nullptr: the model alone
  const ModelExtras* extras;
  void (*checkpoint)(const Content&, int id, Emit&);     // emits a section of one; nullptr: a model
  uint16_t order[max_saved_parameters];                  // of the parameters, by name

  Content(const Model* m, const Trainer* t, const ModelExtras* x, decltype(checkpoint) all = nullptr)
      : model(m), trainer(t), extras(x), checkpoint(all) {}
};

// The values of a parameter (slot -1) or of one of its optimizer states.
static const real* stored_values(const Content& c, int parameter, int slot) {
  const int   which = slot < 0 ? 0 : 2 + slot;
  const real* own   = c.trainer == nullptr ? nullptr : TrainerAccess::data(*c.trainer, parameter, which);
  if (own != nullptr || slot >= 0) return own;
  const size_t offset = size_t(ModelAccess::parameter(*c.model, parameter)->offset) * 64;
  return reinterpret_cast<const real*>(ModelAccess::weights(*c.model) + offset);
}

// How many states a parameter has: -1 if it is not trained, or this is no checkpoint.
static int state_count(const Content& c, int parameter) {
  if (!c.checkpoint || !c.trainer->is_trained(parameter)) return -1;
  return TrainerAccess::engine(*c.trainer).parameter_stride - 2;
}

static Status refuse_save(Problem* problem, Status s, const char* where, const char* what) {
  if (problem != nullptr) set_problem(*problem, s, where, what);
  return s;
}
static const Parameter& parameter_of(const Content& c, int i) { return *ModelAccess::parameter(*c.model, i); }

// The parameters in the order of their names: ids in the file are places in it.
static Status sort_parameters(Content& c, Problem* problem) {
  const Model& m = *c.model;
  const int    n = m.parameter_count();
  if (n > max_saved_parameters)
    return refuse_save(problem, Status::limit_exceeded, "save", "too many parameters");
  for (int i = 0; i < n; ++i) c.order[i] = uint16_t(i);
  sort(c.order, n, [&](uint16_t a, uint16_t b) {
    return compare_text(m.parameter(a).name, m.parameter(b).name) < 0;
  });
  return Status::ok;
}
static uint32_t parameter_id(const Content& c, int parameter) {
  uint32_t id = 0;
  while (c.order[id] != parameter) ++id;
  return id;
}

// The fields that differ from their defaults, ascending by id; without e only their bytes.
static uint32_t attribute_bytes(const Op& op, const void* attributes, Emit* e) {
  uint32_t total = 0;
  for (int id = 1; id < 256; ++id)
    for (int i = 0; i < op.n_fields; ++i) {
      const Field& f     = op.fields[i];
      const size_t bytes = field_bytes(f.type);
      if (f.id != id || same_field(f, attributes, op.defaults)) continue;
      total += uint32_t(2 + bytes);
      if (e == nullptr) continue;
      e->write(f.id, f.type);
      e->elements(static_cast<const uint8_t*>(attributes) + f.offset, bytes, bytes == 1 ? 1 : 4);
    }
  return total;
}

static void emit_strings(const Content& c, Emit& e) {
  const Model& m   = *c.model;
  const auto   put = [&](const char* s) { e.put(s, text_bytes(s)); };
  for (int i = 0; i < m.parameter_count(); ++i) put(m.parameter(c.order[i]).name);
  for (int i = 0; i < m.node_count(); ++i) {
    const Node& n = ModelAccess::node(m, i);
    put(n.name == nullptr ? "" : n.name);
    put(n.op == nullptr ? "" : n.op->name);
  }
  for (int i = 0; i < m.output_count(); ++i) put(m.output_name(i));
}

static void emit_tensors(const Content& c, Emit& e) {
  const Model& m       = *c.model;
  uint32_t     storage = uint32_t(m.parameter_count());
  for (int k = 0; k < m.parameter_count(); ++k) {
    const int        i = c.order[k];
    const Parameter& p = parameter_of(c, i);
    TensorRecord     t = parameter_record(p, uint32_t(i));
    t.name_bytes = uint8_t(text_bytes(m.parameter(i).name));
    t.name       = e.place_string(t.name_bytes);
    t.flags = p.trainable && p.spec.role != Role::statistic ? 1 : 0;
    if (state_count(c, i) >= 0) t.flags |= 2;
    e.write(t);
  }
  for (int i = 0; i < m.node_count(); ++i) e.write(output_record(ModelAccess::node(m, i), uint32_t(i)));
  for (int k = 0; k < m.parameter_count(); ++k)
    for (int slot = 0; slot < state_count(c, c.order[k]); ++slot) {
      const TensorRecord owner = parameter_record(parameter_of(c, c.order[k]), 0);
      e.write(state_record(owner, uint32_t(k), uint32_t(slot), storage++));
    }
}

static void emit_nodes(const Content& c, Emit& e) {
  uint32_t ids = 0, attributes = 0;
  for (int i = 0; i < c.model->node_count(); ++i) {
    const Node& n = ModelAccess::node(*c.model, i);
    NodeRecord  r = node_record(n, uint32_t(i));
    r.name       = e.place_string(r.name_bytes);
    r.op         = e.place_string(r.op_bytes);
    r.ids        = ids;
    r.attributes = attributes;
    if (has_attributes(n, uint32_t(i))) r.attribute_bytes = attribute_bytes(*n.op, n.attributes, nullptr);
    e.write(r);
    ids += uint32_t(n.n_in) + n.n_parameters + 1;
    attributes += r.attribute_bytes;
  }
}

static void emit_ids(const Content& c, Emit& e) {
  const uint32_t first = uint32_t(c.model->parameter_count());
  for (int i = 0; i < c.model->node_count(); ++i) {
    const Node& n = ModelAccess::node(*c.model, i);
    for (int k = 0; k < n.n_in; ++k) e.write(Le32(first + n.inputs[k]));
    for (int k = 0; k < n.n_parameters; ++k) e.write(Le32(parameter_id(c, n.first_parameter + k)));
    e.write(Le32(first + uint32_t(i)));
  }
}

static void emit_attributes(const Content& c, Emit& e) {
  for (int i = 0; i < c.model->node_count(); ++i) {
    const Node& n = ModelAccess::node(*c.model, i);
    if (has_attributes(n, uint32_t(i))) (void)attribute_bytes(*n.op, n.attributes, &e);
  }
}

static void emit_graph(const Content& c, Emit& e) {
  const Model& m = *c.model;
  const Seed   seed = m.seed();
  e.write(GraphHeader{uint32_t(m.input_count()), uint32_t(m.output_count()), seed.value,
                      uint32_t(seed.init), 0});
  for (int i = 0; i < m.input_count() + m.output_count(); ++i) {
    const int output = i - m.input_count();
    GraphEnd  end;
    end.node = output < 0 ? ModelAccess::input_node(m, i) : ModelAccess::output_node(m, output);
    if (output >= 0) end.name_bytes = uint8_t(text_bytes(m.output_name(output)));
    end.name = e.place_string(end.name_bytes);
    e.write(end);
  }
}

// Every storage in order: f(values, elements).
template <class F> static void each_storage(const Content& c, F f) {
  const int n = c.model->parameter_count();
  for (int i = 0; i < n; ++i) f(stored_values(c, i, -1), parameter_of(c, i).stored);
  for (int k = 0; k < n; ++k)
    for (int slot = 0; slot < state_count(c, c.order[k]); ++slot)
      f(stored_values(c, c.order[k], slot), parameter_of(c, c.order[k]).stored);
}

static StorageRecord storage_record(const real* values, int64_t count) {
  Emit          one;
  StorageRecord r;
  one.elements(values, size_t(count) * sizeof(real), sizeof(real));
  r.bytes = one.at();
  r.crc   = one.crc();
  return r;
}
static void emit_storages(const Content& c, Emit& e) {
  each_storage(c, [&](const real* values, int64_t count) { e.write(storage_record(values, count)); });
}

static void emit_data(const Content& c, Emit& e) {
  each_storage(c, [&](const real* values, int64_t count) {
    e.align(64);                               // after the storage before
    e.elements(values, size_t(count) * sizeof(real), sizeof(real));
  });
}

// ================================================================================ >>save
static NNLITE_COLD void emit_section(const Content& c, int id, Emit& e) {
  ModelExtras   x = *c.extras;
  Preprocessing picture;
  Io            io(e);
  switch (id) {
    case id_meta: return emit_metadata(x, e);
    case id_strs: return emit_strings(c, e);
    case id_tens: return emit_tensors(c, e);
    case id_node: return emit_nodes(c, e);
    case id_idxs: return emit_ids(c, e);
    case id_attr: return emit_attributes(c, e);
    case id_grph: return emit_graph(c, e);
    case id_stor: return emit_storages(c, e);
    case id_prep: return fields(io, picture = *x.preprocessing, *c.model);
    case id_post: return fields(io, x);
    case id_labl: return emit_labels(x, e);
    case id_test: return emit_golden(*c.model, x, e);
    case id_data: return emit_data(c, e);
    default: return c.checkpoint(c, id, e);
  }
}

static bool section_wanted(const Content& c, int id) {
  const ModelExtras& x = *c.extras;
  const Presence     p = section_kinds[id].presence;
  switch (id) {
    case id_meta: return x.metadata_count > 0;
    case id_prep: return x.preprocessing != nullptr;
    case id_post: return x.answer != Answer::none;
    case id_labl: return x.label_count > 0;
    case id_test: return x.golden_count > 0;
    case id_augm: return c.checkpoint && augments(c.trainer->options().augment);
    default: return p == Presence::always || (p == Presence::checkpoint && c.checkpoint);
  }
}

// The sections of a file in order of type: ours, and those of extras->others that have no content here.
static uint32_t plan_sections(const Content& c, SectionRecord (&table)[max_sections]) {
  const ModelExtras& x = *c.extras;
  uint32_t           n = 0;
  int                other = 0;
  for (int id = 0; id < section_kind_count; ++id) {
    const SectionKind& kind   = section_kinds[id];
    const bool         wanted = section_wanted(c, id);
    for (; other < x.other_count && x.others[other].type <= kind.type; ++other) {
      if (x.others[other].type == kind.type && wanted) continue;
      table[n].version = x.others[other].version;
      table[n++].type  = x.others[other].type;
    }
    if (!wanted) continue;
    table[n].flags  = kind.critical ? 1 : 0;
    table[n++].type = kind.type;
  }
  return n;
}

static void emit_planned(const Content& c, uint32_t type, Emit& e) {
  const int id = find_section_kind(type);
  e.begin();
  if (id >= 0 && section_wanted(c, id)) return emit_section(c, id, e);
  for (int i = 0; i < c.extras->other_count; ++i)
    if (c.extras->others[i].type == type)
      return e.put(c.extras->others[i].data, size_t(c.extras->others[i].size));
}

static NNLITE_COLD Status check_content(Content& c, Problem* problem) {
  static const ModelExtras none;
  if (c.model == nullptr) return refuse_save(problem, Status::not_built, "save", "build the trainer first");
  const Model& m = *c.model;
  if (!m.finished()) return refuse_save(problem, Status::bad_graph, "save", "the model is not finished");
  if (c.trainer == nullptr && !m.has_weights())
    return refuse_save(problem, Status::no_weights, "save", "load or materialise them");
  if (c.extras == nullptr) c.extras = m.extras();
  if (c.extras == nullptr) c.extras = &none;
  for (int i = 0; i < m.output_count(); ++i)
    if (*m.output_name(i) == 0) return refuse_save(problem, Status::bad_graph, "output", "has no name");
  SectionId   id;
  const char* wrong = find_bad_extras(m, *c.extras, id);
  if (wrong != nullptr) return refuse_save(problem, Status::bad_argument, "extras", wrong);
  for (int i = 0; c.trainer != nullptr && i < m.parameter_count(); ++i)
    if (!all_finite(stored_values(c, i, -1), parameter_of(c, i).stored))
      return refuse_save(problem, Status::not_finite, m.parameter(i).name, "training went wrong: not saved");
  return sort_parameters(c, problem);
}

static NNLITE_COLD Status write_content(Content&& c, const Sink& sink, Problem* problem) {
  SectionRecord table[max_sections];
  FileHeader    h;
  NNLITE_TRY(check_content(c, problem));
  h.sections = plan_sections(c, table);
  const auto emit_table = [&](Emit& e) {
    e.begin();
    e.put(table, sizeof(SectionRecord) * h.sections);
    e.align(64);
  };
  h.file_bytes = align64(sizeof h + sizeof(SectionRecord) * h.sections);
  {
    Sha256 id;
    Sink   hash = {[](void* user, const void* from, size_t n) {
      if (user != nullptr) static_cast<Sha256*>(user)->add(from, n);
      return true;
    }};
    Emit   e(&hash);
    for (uint32_t i = 0; i < h.sections; ++i) {
      hash.user = table[i].type == section_kinds[id_sign].type ? nullptr : &id;
      emit_planned(c, table[i].type, e);
      table[i].offset = h.file_bytes;
      table[i].size   = e.at();
      e.align(64);
      table[i].crc = e.crc();
      h.file_bytes = h.file_bytes + e.at();
    }
    id.finish(h.content_id);
    hash.user = nullptr;
    emit_table(e);
    h.table_crc = e.crc();
  }
  h.kind       = c.checkpoint ? kind_checkpoint : kind_model;
  h.generation = c.checkpoint ? c.trainer->step_number() : 0;
  h.crc        = crc32c(0, &h, sizeof h - sizeof h.crc);
  Emit e(&sink);
  e.write(h);
  emit_table(e);
  for (uint32_t i = 0; i < h.sections && !e.failed(); ++i) {
    emit_planned(c, table[i].type, e);
    e.align(64);
  }
  e.flush();
  return e.failed() ? refuse_save(problem, Status::io_error, "file", "cannot be written") : Status::ok;
}

Status save(const Model& model, const Sink& sink, const ModelExtras* extras, Problem* problem) {
  return write_content(Content(&model, nullptr, extras), sink, problem);
}

#ifndef NNLITE_NO_STDIO
static Status refuse_path(Problem* problem, const char* path, const char* what, const char* reason) {
  if (problem != nullptr) set_problem(*problem, Status::io_error, path, what) << ": " << reason;
  return Status::io_error;
}

// A temporary file beside `path` takes its place once f(sink) has written it and it is on the disk.
template <class F> static NNLITE_COLD Status save_path(const char* path, Problem* problem, F f) {
  char   directory[1024], prefix[1024], temporary[sizeof directory + sizeof prefix + 16];
  size_t cut = 0;
  for (size_t i = 0; path[i] != 0; ++i) if (path[i] == '/' || path[i] == NNLITE_PATH_SEPARATOR) cut = i + 1;
  if (cut + 1 > sizeof directory ||
      snprintf(prefix, sizeof prefix, ".%s.tmp-", path + cut) >= int(sizeof prefix))
    return refuse_path(problem, path, "cannot be written", "the path is too long");
  copy_bytes(directory, path, cut);
  directory[cut] = 0;
  remove_stale(prefix, directory);
  FileHandle file;
  for (int attempt = 0; attempt < 16 && !file.valid(); ++attempt) {
    (void)snprintf(temporary, sizeof temporary, "%s%s%u-%d", directory, prefix, process_number(), attempt);
    if (!file.create(temporary)) (void)file.close();
  }
  if (!file.valid()) return refuse_path(problem, path, "cannot be written", file_error());
  const auto write = [](void* user, const void* from, size_t n) {
    return static_cast<FileHandle*>(user)->write(from, n);
  };
  const Sink   sink = {write, &file};
  const Status s    = f(sink);
  const bool   full = s == Status::io_error;
  const bool   done = ok(s) && file.flush();
  if (full || (ok(s) && !done)) (void)refuse_path(problem, path, "cannot be written", file_error());
  const bool closed = file.close();
  if (done && closed && file_replace(temporary, path, directory)) return Status::ok;
  if (done) (void)refuse_path(problem, path, "cannot be replaced", file_error());
  file_remove(temporary);
  return ok(s) ? Status::io_error : s;
}

template <class F> static NNLITE_COLD Status open_path(const char* path, Problem* problem, F f) {
  FileHandle file;
  const auto read = [](void* user, uint64_t offset, void* to, size_t n) {
    return static_cast<FileHandle*>(user)->read(offset, to, n);
  };
  Source       source = {read, &file, 0};
  const bool   opened = file.open(path, source.size);
  const Status s      = opened ? f(source) : refuse_path(problem, path, "cannot be read", file_error());
  (void)file.close();
  return s;
}

Status save(const Model& model, const char* path, const ModelExtras* extras, Problem* problem) {
  return save_path(path, problem, [&](const Sink& sink) { return save(model, sink, extras, problem); });
}
Status Model::load(const char* path, Arena& arena, const LoadOptions& options) {
  return open_path(path, &problem_, [&](const Source& source) { return load(source, arena, options); });
}
Status Model::load(const char* path, Arena& arena) { return load(path, arena, LoadOptions()); }

MappedFile::~MappedFile() { if (data_ != nullptr) file_unmap(data_, size_); }
Status MappedFile::open(const char* path) {
  if (data_ != nullptr) return Status::bad_argument;
  return file_map(path, data_, size_) ? Status::ok : Status::io_error;
}
#endif

// ================================================================================ >>checkpoint
#ifndef NNLITE_NO_TRAINING
// A checkpoint is the trainer's model with the values of the moment, the optimizer's states, and what decides
// the next step: options, seed, step, place in the data. A resumed run has the bits of one never stopped.
struct RowHeader { uint8_t name_bytes = 0, zero = 0; Le16 version, attribute_bytes, zero_too; };

// What a checkpoint holds beside the network.
struct CheckpointAccess {
  CheckpointAccess() = default;
  explicit CheckpointAccess(const Trainer& t)
      : optimizer_states(uint16_t(t.engine_.parameter_stride - 2)), options(t.options_),
        plateau(t.plateau_), step(t.step_), samples(t.samples_) {
    if (t.engine_.backend) device = t.engine_.backend->arithmetic;
  }

  uint32_t         arithmetic = NNLITE_ARITHMETIC;
  uint8_t          arithmetic_class = sizeof(real) == 8 ? 3 : current_isa() == Isa::base ? 2 : 1;
  uint8_t          device = 0;
  uint32_t         generator = 1;            // Philox4x32-10
  uint16_t         optimizer_states = 0;
  TrainerOptions   options;
  Trainer::Plateau plateau;
  uint64_t         step = 0, samples = 0;
  uint32_t         rows = 0, columns = 0;    // of the data set
  uint8_t          fingerprint[32] = {};

  NNLITE_COLD void fields(Io& io, int id) {
    TrainerOptions& o = options;
    Augment&        a = o.augment;
    uint8_t flags = uint8_t((o.shuffle ? 1 : 0) | (o.drop_last ? 2 : 0) | (o.derived_weights ? 4 : 0));
    float* const augment[] = {&a.degrees, &a.scale,   &a.shear,     &a.shift,
                              &a.thinner, &a.thicker, &a.background};
    switch (id) {
      case id_arth:
        io.setting("number of arithmetic", arithmetic);
        io.setting("class of arithmetic", arithmetic_class);
        io.setting("device", device);
        return io.zeros(10);
      case id_opts:
        io.setting("batch", o.batch);
        io.setting("warmup_steps", o.warmup_steps);
        io.state(o.epochs);
        io.setting("clip_value", o.clip_value);
        io.setting("clip_norm", o.clip_norm);
        io.state(o.trainable);                   // the network says what is trained
        io.setting("shuffle, drop_last or derived_weights", flags);
        io.setting("states of the optimizer", optimizer_states);
        io.zeros(8);
        io.require(o.batch >= 1 && o.warmup_steps >= 0 && o.epochs >= 0 && at_least_zero(o.clip_value) &&
                   at_least_zero(o.clip_norm) && o.trainable <= Trainable::named && flags < 8);
        o.shuffle         = (flags & 1) != 0;
        o.drop_last       = (flags & 2) != 0;
        o.derived_weights = (flags & 4) != 0;
        return io.row("optimizer", traits::optimizer, o.optimizer);
      case id_schd:
        io.state(plateau.best, plateau.factor, plateau.bad, plateau.reports);
        return io.row("schedule", traits::schedule, o.schedule);
      case id_rngs:
        io.setting("generator", generator);
        io.zeros(4);
        return io.state(o.seed, step);
      case id_dpos: return io.state(samples, rows, columns, fingerprint);
      case id_augm:
        for (float* v : augment) io.setting("augment", *v);
        io.require(augments(a) && augment_fits(a));
        return io.zeros(4);
      default: return io.row("loss", traits::loss, o.loss);
    }
  }

  // What tells one data set from another without reading its pictures: the form of every column (inputs of
  // the model, then the target of a loss in options), and all class labels.
  NNLITE_COLD void describe_data(const Trainer& t) {
    const Dataset* d = t.data_;
    DType          dtype = real_dtype;
    int64_t        count = 0;
    int32_t        given[256];                   // labels of a row that has to be read
    Sha256         hash;
    if (d == nullptr) return;
    rows    = d->count;
    columns = uint32_t(input_count(t.engine_));
    for (uint32_t i = 0; i < columns; ++i) {
      const InputData in = input_data(t.engine_, int(i));
      dtype = in.dtype;
      count = in.shape.row_numel();
      const Le32 form[2] = {file_dtype(dtype), uint32_t(count)};
      hash.add(form, sizeof form);
    }
    const int     last = int(columns) - 1;
    const Column& c    = d->columns[last];
    for (uint32_t row = 0; dtype == DType::i32 && row < rows; ++row) {
      if (c.data == nullptr && (count > 256 || !d->read(d->user, row, last, given))) break;
      for (int64_t i = 0; i < count; ++i) {
        const Le32 label(uint32_t(c.data == nullptr ? given[i] : label_at(c, row * count + i)));
        hash.add(&label, sizeof label);
      }
    }
    hash.finish(fingerprint);
  }
};

static void emit_row(const AnyOp& row, Emit& e) {
  if (!row) return;
  const Op&     op    = *row.op();
  const uint8_t name  = uint8_t(text_bytes(op.name));
  const auto    bytes = uint16_t(attribute_bytes(op, row.attributes(), nullptr));
  e.write(RowHeader{name, 0, op.version, bytes, 0});
  e.put(op.name, name);
  (void)attribute_bytes(op, row.attributes(), &e);
}

// The rest of a section: an op with this trait, its attributes; empty where nothing is.
Status Io::read_row(const OpSet& known, uint32_t trait, AnyOp& row) {
  const char* const where = section_kinds[id_].name;
  const uint64_t    left  = end_ - at_;
  const Op*         op    = nullptr;
  RowHeader         h;
  char              name[file_name_bytes];
  row = AnyOp();
  if (left == 0) return Status::ok;
  if (left < sizeof h) return bad(*f_, at_, where, "is cut off");
  NNLITE_TRY(fetch(*f_, at_, &h, sizeof h));
  if (h.name_bytes == 0 || h.name_bytes >= file_name_bytes || h.zero != 0 || h.zero_too != 0 ||
      left != sizeof h + h.name_bytes + h.attribute_bytes)
    return bad(*f_, at_, where, "fields of a row");
  NNLITE_TRY(fetch(*f_, at_ + sizeof h, name, h.name_bytes));
  name[h.name_bytes] = 0;
  if (!valid_utf8(name, h.name_bytes)) return bad(*f_, at_, where, "a name is not UTF-8");
  NNLITE_TRY(find_known(*f_, known, at_, name, h.version, op));
  if ((op->traits & trait) == 0) return refuse(*f_, Status::unknown_op, at_, name, "is something else here");
  row = AnyOp(op, op->defaults, op->attr_size);
  return read_attributes(*f_, at_ + sizeof h + h.name_bytes, h.attribute_bytes, row);
}

NNLITE_COLD void Io::row(const char* setting, uint32_t trait, AnyOp& row) {
  if (e_ != nullptr) return emit_row(row, *e_);
  if (!ok(status_)) return;
  const AnyOp     own  = row;
  const Op* const op   = own.op();
  const OpSet     mine = {&op, op == nullptr ? 0 : 1};
  status_ = read_row(match ? mine : *ops, trait, row);
  if (match && (status_ == Status::unknown_op || row.op() != op))
    status_ = refuse(*f_, other, at_, setting, "the checkpoint has another");
  for (int i = 0; match && ok(status_) && op != nullptr && i < op->n_fields; ++i)
    if (!same_field(op->fields[i], row.attributes(), own.attributes()))
      status_ = refuse(*f_, other, at_, op->fields[i].name, "the checkpoint has another");
  at_ = end_;
}

static void emit_training(const Content& c, int id, Emit& e) {
  CheckpointAccess s(*c.trainer);
  Io                      io(e);
  if (id == id_dpos) s.describe_data(*c.trainer);
  s.fields(io, id);
}

// Whether values lie in the trainer's own memory rather than in the model.
static bool owned(const Trainer& t, const real* values) {
  const unsigned char* p = reinterpret_cast<const unsigned char*>(values);
  const unsigned char* w = ModelAccess::weights(*t.model());
  return w == nullptr || p < w || p >= w + t.model()->weight_bytes();
}

Status save(const Trainer& trainer, const Sink& sink, const ModelExtras* extras, Problem* problem) {
  NNLITE_TRY(TrainerAccess::copy_all(trainer, Copy::from_device));
  return write_content(Content(trainer.model(), &trainer, extras), sink, problem);
}
Status save_checkpoint(const Trainer& t, const Sink& sink, const ModelExtras* extras, Problem* problem) {
  NNLITE_TRY(TrainerAccess::copy_all(t, Copy::from_device));
  return write_content(Content(t.model(), &t, extras, emit_training), sink, problem);
}

// The names of the parameters that are trained, in the caller's arena.
static Status read_names(const File& f, TrainerOptions& o, Arena* arena) {
  TensorRecord t;
  size_t       count = 0, bytes = 0;
  for (uint32_t i = 0; i < f.parameters; ++i) {
    NNLITE_TRY(read_tensor(f, i, t));
    if ((t.flags & 2) == 0) continue;
    ++count;
    bytes += sizeof(char*) + t.name_bytes + 1;
  }
  const char** names = arena == nullptr ? nullptr : static_cast<const char**>(arena->take(bytes));
  if (names == nullptr)
    return refuse(f, Status::out_of_memory, 0, "arena", "the names of trained parameters need it");
  char* text = reinterpret_cast<char*>(names + count);
  o.names      = names;
  o.name_count = int(count);
  for (uint32_t i = 0; i < f.parameters; ++i) {
    NNLITE_TRY(read_tensor(f, i, t));
    if ((t.flags & 2) == 0) continue;
    NNLITE_TRY(fetch(f, f.offset(id_strs) + t.name, text, t.name_bytes));
    *names++ = text;
    text += t.name_bytes;
    *text++ = 0;
  }
  return Status::ok;
}

static constexpr SectionId state_sections[] = {id_arth, id_opts, id_schd, id_rngs, id_dpos, id_loss, id_augm};
static Status read_checkpoint(File& f) {
  NNLITE_TRY(read_container(f));
  return f.checkpoint() ? Status::ok : bad(f, 20, "header", "this is a model, not a checkpoint");
}

NNLITE_COLD Status read_options(const Source& source, TrainerOptions& options, Arena* arena, Problem* problem,
                                const OpSet& ops) {
  CheckpointAccess s;
  File                    f(source, LoadLimits(), problem);
  NNLITE_TRY(read_checkpoint(f));
  NNLITE_TRY(read_tensors(f));
  s.options         = options;
  s.options.augment = Augment();
  for (SectionId id : state_sections) {
    if (f.at[id].type == 0) continue;
    Io io(f, id);
    io.ops = &ops;
    s.fields(io, id);
    NNLITE_TRY(io.finish());
  }
  s.options.names      = nullptr;
  s.options.name_count = 0;
  if (!s.options.optimizer) return bad(f, id_opts, "no optimizer");
  if (s.options.trainable == Trainable::named) NNLITE_TRY(read_names(f, s.options, arena));
  options = s.options;
  return Status::ok;
}

// The network, what is trained, and frozen weights against those of a checkpoint.
static NNLITE_COLD Status check_network(const Trainer& t, const File& f, const Content& c) {
  static const SectionId graph[] = {id_strs, id_tens, id_node, id_idxs, id_attr, id_grph};
  Emit     e;
  uint32_t k = 0;
  Status   s = Status::ok;
  for (SectionId id : graph) {
    e.begin();
    emit_section(c, id, e);
    const uint64_t size = e.at();
    e.align(64);
    if (size != f.size(id) || e.crc() != f.at[id].crc)
      return refuse(f, Status::bad_graph, id, "another network, or other parameters are trained");
  }
  each_storage(c, [&](const real* values, int64_t count) {
    StorageRecord r;
    if (ok(s)) s = fetch(f, id_stor, k++, r);
    if (ok(s) && r.bytes != uint64_t(count) * sizeof(real))
      s = bad(f, id_stor, "bytes of a storage", uint64_t(count) * sizeof(real), r.bytes);
    if (ok(s) && !owned(t, values) && r.crc != storage_record(values, count).crc)
      s = refuse(f, Status::bad_graph, id_stor, "the model's frozen weights differ");
  });
  NNLITE_TRY(s);
  return k == f.storages ? Status::ok : bad(f, id_stor, "storages", k, f.storages);
}

// All that could refuse a checkpoint comes before the first value is changed.
NNLITE_COLD Status Trainer::resume(const Source& source, bool any_arithmetic) {
  problem_ = Problem();
  File    f(source, LoadLimits(), &problem_);
  Content c(model(), this, nullptr, emit_training);
  CheckpointAccess s(*this), own;
  NNLITE_TRY(check_content(c, &problem_));
  NNLITE_TRY(read_checkpoint(f));
  NNLITE_TRY(check_network(*this, f, c));
  if (augments(options_.augment) != (f.at[id_augm].type != 0))
    return refuse(f, Status::bad_argument, id_augm, "augment: the checkpoint has another");
  for (SectionId id : state_sections) {
    if (f.at[id].type == 0) continue;
    Io io(f, id);
    io.match = id != id_arth || !any_arithmetic;
    if (id == id_arth) io.other = Status::wrong_arithmetic;
    if (id == id_rngs) io.other = Status::unsupported;
    s.fields(io, id);
    NNLITE_TRY(io.finish());
  }
  if (s.step != f.header.generation) return bad(f, id_rngs, "the step is not the generation");
  if (data_ != nullptr && s.rows != 0) {
    own.describe_data(*this);
    if (s.rows != own.rows)
      return refuse(f, Status::wrong_data, id_dpos, "rows of the data set", s.rows, own.rows);
    if (s.columns != own.columns || !same_bytes(s.fingerprint, own.fingerprint, 32))
      return refuse(f, Status::wrong_data, id_dpos, "columns or labels differ");
  }
  uint64_t at     = f.offset(id_data);
  Status   status = Status::ok;
  engine_.version++;
  each_storage(c, [&](const real* values, int64_t count) {
    const size_t bytes = size_t(count) * sizeof(real);
    if (ok(status) && owned(*this, values)) {
      real* to = const_cast<real*>(values);
      status = fetch(f, at, to, bytes);
      if (!little_endian) swap_elements(to, bytes, sizeof(real));
    }
    at += align64(bytes);
  });
  NNLITE_TRY(status);
  plateau_      = s.plateau;
  options_.seed = s.options.seed;
  step_         = s.step;
  samples_      = s.samples;
  return TrainerAccess::copy_all(*this, Copy::to_device);
}

#ifndef NNLITE_NO_STDIO
Status save(const Trainer& trainer, const char* path, const ModelExtras* extras, Problem* problem) {
  return save_path(path, problem, [&](const Sink& sink) { return save(trainer, sink, extras, problem); });
}
Status save_checkpoint(const Trainer& t, const char* path, const ModelExtras* extras, Problem* problem) {
  return save_path(path, problem, [&](const Sink& s) { return save_checkpoint(t, s, extras, problem); });
}
NNLITE_COLD Status read_options(const char* path, TrainerOptions& options, Arena* arena, Problem* problem,
                                const OpSet& ops) {
  return open_path(path, problem, [&](const Source& source) {
    return read_options(source, options, arena, problem, ops);
  });
}
Status Trainer::resume(const char* path, bool any_arithmetic) {
  return open_path(path, &problem_, [&](const Source& source) { return resume(source, any_arithmetic); });
}
#endif
#endif

// ================================================================================ >>golden
// Golden vectors: what a model answered when it was saved, against what it answers here.
NNLITE_COLD Status verify_content(const Source& source, Problem* problem) {
  LoadLimits limits;
  limits.tensors = limits.nodes = 0xFFFFFFFFu;
  File    f(source, limits, problem);
  Sha256  hash;
  uint8_t id[32];
  NNLITE_TRY(read_container(f));
  for (uint32_t i = 0; i < f.header.sections; ++i) {
    SectionRecord s;
    NNLITE_TRY(fetch_section(f, i, s));
    if (s.type == section_kinds[id_sign].type) continue;
    const auto add = [&](const uint8_t* p, size_t n) { hash.add(p, n); };
    NNLITE_TRY(fetch_pieces(f, s.offset, align64(s.size), add));
  }
  hash.finish(id);
  if (!all_zero(f.header.content_id, 32) && !same_bytes(id, f.header.content_id, 32))
    return refuse(f, Status::bad_checksum, 64, "header", "the content id is that of another content");
  return Status::ok;
}

// The model up to one node, which is its output: how the values of inner nodes become visible.
void ModelAccess::cut(const Model& m, int node, Model& to) {
  to.nodes_           = m.nodes_;
  to.weight_bytes_    = m.weight_bytes_;
  to.weights_         = m.weights_;
  to.parameter_count_ = m.parameter_count_;
  to.node_count_      = uint16_t(node + 1);
  to.self_            = m.self_;
  to.finished_        = true;
  to.outputs_[0]      = uint16_t(node);
  to.output_names_[0] = "";
  to.output_count_    = 1;
  for (int i = 0; i < m.input_count_; ++i)
    if (m.inputs_[i] <= node) to.inputs_[to.input_count_++] = m.inputs_[i];
}

// Builds a session for `part`, the model or it up to a node, and runs it on rows of the model's inputs.
static Status run_part(const Model& m, const Model& part, const void* inputs, int rows, Arena& arena,
                       Session& session) {
  const unsigned char* from = static_cast<const unsigned char*>(inputs);
  SessionOptions       options;
  options.batch = rows;
  NNLITE_TRY(session.build(part, options, arena));
  for (int i = 0, k = 0; i < m.input_count(); ++i) {
    const size_t bytes = input_bytes(m, i, rows);
    if (k < part.input_count() && ModelAccess::input_node(part, k) == ModelAccess::input_node(m, i)) {
      void* to = m.input_dtype(i) == DType::i32 ? static_cast<void*>(session.input_i32(k).data)
                                                : session.input(k).data;
      if (to != nullptr) copy_bytes(to, from, bytes);
      ++k;
    }
    from += bytes;
  }
  return session.forward(rows);
}

// Mean and largest magnitude of a node's output; zeros for inputs and losses.
static Status node_summary(const Model& m, int node, const void* inputs, int rows, Arena arena, float* to) {
  const Op* op = ModelAccess::node(m, node).op;
  to[0] = to[1] = 0;
  if (op == nullptr || (op->traits & traits::loss) != 0) return Status::ok;
  Model   part;
  Session session;
  ModelAccess::cut(m, node, part);
  NNLITE_TRY(run_part(m, part, inputs, rows, arena, session));
  const View<const real> y = session.output(0);
  double sum = 0, largest = 0;
  for (int64_t i = 0; i < y.size(); ++i) {
    const double v = double(y[i]), size = v < 0 ? -v : v;
    sum += v;
    if (!(size <= largest)) largest = size;
  }
  to[0] = float(sum / double(y.size()));
  to[1] = float(largest);
  return Status::ok;
}

// All outputs one after another, as floats.
static Status all_outputs(const Model& m, const void* inputs, int rows, Arena arena, float* to) {
  Session session;
  NNLITE_TRY(run_part(m, m, inputs, rows, arena, session));
  for (int i = 0; i < m.output_count(); ++i) {
    const View<const real> y = session.output(i);
    const int64_t          n = m.output_shape(i).numel(rows);
    for (int64_t k = 0; k < n; ++k) *to++ = y.data == nullptr ? 0.0f : float(y[k]);
  }
  return Status::ok;
}

// Largest difference, and whether it is within tolerance max|b|.
static bool close_to(const float* a, const float* b, size_t n, float tolerance, double& error) {
  double largest = 0, worst = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = double(a[i]) - double(b[i]), size = b[i] < 0 ? -double(b[i]) : double(b[i]);
    if (size > largest) largest = size;
    if (!((d < 0 ? -d : d) <= worst)) worst = d < 0 ? -d : d;
  }
  if (!(worst <= error)) error = worst;
  return worst <= double(tolerance) * largest || worst == 0;
}

NNLITE_COLD Status run_golden(const Model& model, Arena& arena, GoldenReport& report) {
  report = GoldenReport();
  const ModelExtras* extras = model.extras();
  for (int i = 0; extras != nullptr && i < extras->golden_count; ++i) {
    const Golden& g   = extras->golden[i];
    const size_t  n   = output_floats(model, g.rows);
    Arena         own = arena;
    float*        y   = static_cast<float*>(own.take(n * sizeof(float)));
    if (y == nullptr) return Status::out_of_memory;
    NNLITE_TRY(all_outputs(model, g.inputs, g.rows, own, y));
    ++report.count;
    if (close_to(y, g.outputs, n, g.tolerance, report.max_abs_error) || !report.ok) continue;
    report.ok = false;
    for (int k = 0; k < model.node_count() && report.first_diverging < 0; ++k) {
      float  here[2];
      double error = 0;
      NNLITE_TRY(node_summary(model, k, g.inputs, g.rows, own, here));
      const float scale[2] = {here[0] - g.nodes[2 * k] + g.nodes[2 * k + 1], here[1]};
      const float given[2] = {g.nodes[2 * k + 1], g.nodes[2 * k + 1]};   // the mean by the largest magnitude
      if (!close_to(scale, given, 2, g.tolerance, error)) report.first_diverging = k;
    }
  }
  return Status::ok;
}

NNLITE_COLD Status make_golden(const Model& model, const void* inputs, int rows, float tolerance,
                               Arena& arena, Golden& golden) {
  if (rows < 1 || rows > 64 || !model.has_weights())
    return rows < 1 || rows > 64 ? Status::bad_argument : Status::no_weights;
  float* outputs = static_cast<float*>(arena.take(output_floats(model, rows) * sizeof(float)));
  float* nodes   = static_cast<float*>(arena.take(size_t(model.node_count()) * 2 * sizeof(float)));
  if (outputs == nullptr || nodes == nullptr) return Status::out_of_memory;
  NNLITE_TRY(all_outputs(model, inputs, rows, arena, outputs));
  for (int k = 0; k < model.node_count(); ++k)
    NNLITE_TRY(node_summary(model, k, inputs, rows, arena, nodes + 2 * k));
  golden = {rows, tolerance, inputs, outputs, nodes};
  return Status::ok;
}
}  // inline namespace
}  // namespace nnlite
#endif  // NNLITE_ONCE
