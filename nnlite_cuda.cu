// nnlite_cuda: the models of nnlite.hpp on NVIDIA GPUs, the same graph, plan, steps and checkpoints.
//
//   options.backend = nnlite::cuda_backend(0);          // declared in nnlite.hpp; absent: a link error
//
// Compile this file with nvcc (C++17) and link it with the program, whose one file with NNLITE_IMPLEMENTATION
// stays as it is. Search for ">>room" to jump: every name appears twice, here and at its room. MIT licence.
//
//   >>seams >>device >>reduce >>elementwise >>product >>linear >>losses >>optimizers >>rows >>backend
//
// A row of the backend runs on the host and launches kernels; every pointer of its OpRun but the attributes
// and shapes is the device's. Weights lie as [outer][lines][columns, padded to 16], see Blocks. Sums have a
// fixed order that depends on shapes alone: the same bits in every run on one kind of GPU.

// ================================================================================ >>seams
// All that this file knows of CUDA, so that tests can put the CPU in its place (tests/fake_cuda).
#ifdef NNLITE_CUDA_SEAMS
#include NNLITE_CUDA_SEAMS
#else
#include <cuda_runtime.h>
#define NNLITE_SHARED __host__ __device__
#define NNLITE_DEVICE __device__
#define NNLITE_GLOBAL __global__
#endif

#define NNLITE_PLAIN                           // rooms >>math to >>context and >>formulas of the header
#define NNLITE_KERNELS
#define NNLITE_NOINLINE
#define NNLITE_INLINED
#define NNLITE_PIN(x) ((void)(x))
#define NNLITE_FMAF(a, b, c) fmaf(a, b, c)
#include <math.h>
#include <mutex>
#include "nnlite.hpp"

#ifndef NNLITE_CUDA_SEAMS
namespace nnlite_gpu {
using Error  = int;                            // 0: none
using Stream = cudaStream_t;

inline Error device_count(int& count) { return cudaGetDeviceCount(&count); }
inline Error use_device(int number) { return cudaSetDevice(number); }
inline Error new_stream(Stream& s) { return cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking); }
inline Error end_stream(Stream s) { return cudaStreamDestroy(s); }
inline Error take(void** memory, size_t bytes) {
  const Error e = cudaMalloc(memory, bytes);
  if (e != 0) (void)cudaGetLastError();        // or the next launch would report it
  return e;
}
inline Error give(void* memory) { return cudaFree(memory); }
inline Error copy_in(Stream s, void* device, const void* host, size_t bytes) {
  return cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, s);
}
inline Error copy_out(Stream s, void* host, const void* device, size_t bytes) {
  return cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s);
}
inline Error copy_within(Stream s, void* to, const void* from, size_t bytes) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s);
}
inline Error clear(Stream s, void* device, size_t bytes) { return cudaMemsetAsync(device, 0, bytes, s); }
inline Error sync(Stream s) { return cudaStreamSynchronize(s); }
inline bool  no_memory(Error e) { return e == cudaErrorMemoryAllocation; }

// Launches between start and stop are not run but recorded.
using Graph = cudaGraphExec_t;
inline Error start_recording(Stream s) { return cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal); }
inline Error stop_recording(Stream s, Graph& to) {
  cudaGraph_t graph = nullptr;
  Error e = cudaStreamEndCapture(s, &graph);
  if (e == 0) e = cudaGraphInstantiate(&to, graph, 0);
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  return e;
}
inline Error run_recorded(Stream s, Graph g) { return cudaGraphLaunch(g, s); }
inline Error end_recorded(Graph g) { return cudaGraphExecDestroy(g); }

struct Grid { unsigned x = 1, y = 1, z = 1; };
template <class... P, class... A>
inline Error launch(Stream s, void (*kernel)(P...), Grid grid, unsigned threads, size_t shared, A... arguments) {
  kernel<<<dim3(grid.x, grid.y, grid.z), threads, shared, s>>>(arguments...);
  return cudaGetLastError();
}

// Inside a kernel.
NNLITE_DEVICE inline unsigned thread() { return threadIdx.x; }
NNLITE_DEVICE inline unsigned threads() { return blockDim.x; }
NNLITE_DEVICE inline Grid block() { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
NNLITE_DEVICE inline Grid blocks() { return {gridDim.x, gridDim.y, gridDim.z}; }
NNLITE_DEVICE inline void barrier() { __syncthreads(); }
template <class T>
NNLITE_DEVICE inline T shuffle_xor(T value, int lanes) { return __shfl_xor_sync(0xFFFFFFFFu, value, lanes); }
template <class T>
NNLITE_DEVICE inline T* shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}
}  // namespace nnlite_gpu
#endif

namespace nnlite {
inline namespace NNLITE_CONFIGURATION {
namespace gpu = nnlite_gpu;
namespace cuda {
static_assert(sizeof(real) == 4, "nnlite_cuda.cu is for float");

// ================================================================================ >>device
// One GPU: its stream, its first error, and its memory, which mirrors pieces of the host's.

constexpr int    max_devices = 16, max_mirrors = 256;
constexpr size_t context_bytes = 256;          // in front of every mirror: the Context of its steps

// What kernels read that changes from step to step.
struct Context : StepContext {
  uint32_t failed;                             // a loss of this step is not finite: nothing may change
};

// Steps as one graph, by their key.
struct Recorded {
  uint32_t   key[3];
  gpu::Graph graph;
};
constexpr int max_recorded = 8;                // of a mirror; others run one by one

struct Mirror {
  const unsigned char* host = nullptr;
  size_t               bytes = 0;
  unsigned char*       device = nullptr;       // behind the context
  Recorded             recorded[max_recorded] = {};
  int                  records = 0;
};

struct Device {
  int         number = 0;
  bool        open = false;
  gpu::Stream stream = {};
  gpu::Error  error = 0;                       // the first; every Status tells of it from then on
  Mirror      mirrors[max_mirrors];
  std::mutex  lock;

  void note(gpu::Error e) { if (error == 0) error = e; }
  Status status() const {
    return error == 0 ? Status::ok : gpu::no_memory(error) ? Status::out_of_memory : Status::device_error;
  }
  void forget(Mirror& m) {
    while (m.records > 0)
      if (m.recorded[--m.records].graph) note(gpu::end_recorded(m.recorded[m.records].graph));    // it was made
  }
  void drop(Mirror& m) {
    forget(m);
    if (m.device != nullptr) note(gpu::give(m.device - context_bytes));
    m = Mirror();
  }
};

// The device and context of the steps that run on this thread.
struct Current {
  Device*   device;
  Context*  context;                           // in the device's memory
  Recorded* recording;                         // where they go; nullptr: they run
};
static thread_local Current current;

template <class... P, class... A>
static void launch(void (*kernel)(P...), gpu::Grid grid, unsigned threads, size_t shared, A... arguments) {
  current.device->note(gpu::launch<P...>(current.device->stream, kernel, grid, threads, shared, P(arguments)...));
}

inline int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }          // columns of a weight

// f(i) for every i in [0, n).
template <class F>
NNLITE_GLOBAL void each_kernel(F f, int64_t n) {
  const int64_t step = int64_t(gpu::blocks().x) * gpu::threads();
  for (int64_t i = int64_t(gpu::block().x) * gpu::threads() + gpu::thread(); i < n; i += step) f(i);
}
template <class F>
static void each(int64_t n, const F& f) {
  if (n <= 0) return;
  const unsigned blocks = static_cast<unsigned>(n > 4096 * 256 ? 4096 : (n + 255) / 256);
  launch(each_kernel<F>, {blocks}, 256, 0, f, n);
}

NNLITE_DEVICE inline void give_to(float* to, int64_t i, float value, bool more) { to[i] = more ? to[i] + value : value; }

// ================================================================================ >>reduce
// The sum over all threads of a block, in every thread: halves are added, always in the same order. `room`
// is shared memory for one float of every thread; blocks have a power of two of them.
NNLITE_DEVICE inline float block_sum(float value, float* room) {
  const unsigned t = gpu::thread();
  room[t] = value;
  for (unsigned half = gpu::threads() / 2; half > 0; half /= 2) {
    gpu::barrier();
    if (t < half) room[t] += room[t + half];
  }
  gpu::barrier();
  const float sum = room[0];
  gpu::barrier();
  return sum;
}

// ================================================================================ >>elementwise
template <class A>
struct Activate {
  A a;
  const float* x;
  float*       y;
  NNLITE_DEVICE void operator()(int64_t i) const { y[i] = plain::value_of(a, x[i]); }
};
template <class A>
static void activation_forward(const OpRun& r) {
  each(r.out_numel(), Activate<A>{*static_cast<const A*>(r.attributes), r.in(0), r.out()});
}

template <class A>
struct ActivateBack {
  A a;
  const float *y, *dy;
  float*       dx;
  bool         more;
  NNLITE_DEVICE void operator()(int64_t i) const { give_to(dx, i, plain::slope_times(a, y[i], dy[i]), more); }
};
template <class A>
static void activation_backward(const OpRun& r) {
  each(r.out_numel(), ActivateBack<A>{*static_cast<const A*>(r.attributes), r.y(), r.dy(), r.dx(0), r.accumulate(0)});
}

// Add and Mul: all inputs, left to right.
struct Inputs { const float* of[max_inputs]; int count; };
static Inputs inputs_of(const OpRun& r) {
  Inputs all = {};
  for (int k = 0; k < r.n_in; k++) all.of[all.count++] = r.in(k);
  return all;
}
template <class A>
struct Combine {
  Inputs in;
  float* y;
  NNLITE_DEVICE static float both(const Add*, float a, float b) { return a + b; }
  NNLITE_DEVICE static float both(const Mul*, float a, float b) { return a * b; }
  NNLITE_DEVICE void operator()(int64_t i) const {
    float v = in.of[0][i];
    for (int k = 1; k < in.count; k++) v = both(static_cast<const A*>(nullptr), v, in.of[k][i]);
    y[i] = v;
  }
};
template <class A>
static void arithmetic_forward(const OpRun& r) { each(r.out_numel(), Combine<A>{inputs_of(r), r.out()}); }

// dx_k = dy, of a product times the other inputs. dx may lie over dy.
template <class A>
struct CombineBack {
  Inputs       in;
  const float* dy;
  float*       dx[max_inputs];
  uint32_t     more;
  NNLITE_DEVICE static float slope(const Add*, const Inputs&, int, int64_t, float dy) { return dy; }
  NNLITE_DEVICE static float slope(const Mul*, const Inputs& in, int k, int64_t i, float dy) {
    for (int j = 0; j < in.count; j++)
      if (j != k) dy *= in.of[j][i];
    return dy;
  }
  NNLITE_DEVICE void operator()(int64_t i) const {
    const float d = dy[i];
    for (int k = 0; k < in.count; k++)
      if (dx[k] != nullptr) give_to(dx[k], i, slope(static_cast<const A*>(nullptr), in, k, i, d), (more >> k & 1u) != 0);
  }
};
template <class A>
static void arithmetic_backward(const OpRun& r) {
  CombineBack<A> f = {inputs_of(r), r.dy(), {}, r.accumulate_bits};
  for (int k = 0; k < r.n_in; k++) f.dx[k] = r.dx(k);
  each(r.out_numel(), f);
}

// to = from / (1 - p) where the element's random number is at least p, else 0. Backward draws the same.
struct Drop {
  float          p;
  const Context* context;
  uint32_t       node;
  const float*   from;
  float*         to;
  bool           more;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const Words w = random_block(context->seed, context->step, Purpose::dropout, node, uint32_t(i / 4));
    give_to(to, i, uniform_of(w.word[i % 4]) < p ? 0.0f : from[i] * (1 / (1 - p)), more);
  }
};
static void drop(const OpRun& r, const float* from, float* to, bool more) {
  each(r.out_numel(), Drop{static_cast<const Dropout*>(r.attributes)->p, current.context, r.node, from, to, more});
}
static void dropout_forward(const OpRun& r) { drop(r, r.in(0), r.out(), false); }
static void dropout_backward(const OpRun& r) { drop(r, r.dy(), r.dx(0), r.accumulate(0)); }

// ================================================================================ >>product
// C[m, n] = start[n] + sum over k of A[m, k] B[k, n], with any strides: tiles of 64 x 64, four by four values
// a thread, k in steps of 16 through shared memory. An element is one chain of fmas in the order of k.
struct Matrix {
  const float* data;
  int64_t      row, column;                    // strides
  NNLITE_DEVICE float at(int64_t r, int64_t c) const { return data[r * row + c * column]; }
};
struct Product {
  int64_t      M, N, K;
  Matrix       A, B;
  const float* start;                          // nullptr: zeros
  float*       C;
  int64_t      C_row, wide;                    // columns N .. wide - 1 of C become zeros
  bool         more;                           // C +=
};
constexpr int tile = 64, step = 16;

NNLITE_GLOBAL void product_kernel(Product p) {
  float *const a = gpu::shared<float>(), *const b = a + tile * step;
  const int     t = static_cast<int>(gpu::thread()), tx = t % 16, ty = t / 16;
  const int64_t m0 = int64_t(gpu::block().y) * tile, n0 = int64_t(gpu::block().x) * tile;
  float c[4][4];
  for (int j = 0; j < 4; j++) {
    const int64_t n = n0 + tx * 4 + j;
    for (int i = 0; i < 4; i++) c[i][j] = p.start != nullptr && n < p.N ? p.start[n] : 0.0f;
  }
  for (int64_t k0 = 0; k0 < p.K; k0 += step) {
    for (int e = t; e < tile * step; e += 256) {
      // threads side by side read what lies side by side
      const int along = p.A.column == 1 ? e % step : e / tile, across = p.A.column == 1 ? e / step : e % tile;
      const int64_t m = m0 + across, k = k0 + along;
      a[along * tile + across] = m < p.M && k < p.K ? p.A.at(m, k) : 0.0f;
    }
    for (int e = t; e < tile * step; e += 256) {
      const int along = p.B.row == 1 ? e % step : e / tile, across = p.B.row == 1 ? e / step : e % tile;
      const int64_t n = n0 + across, k = k0 + along;
      b[along * tile + across] = n < p.N && k < p.K ? p.B.at(k, n) : 0.0f;
    }
    gpu::barrier();
    for (int k = 0; k < step; k++)
      for (int i = 0; i < 4; i++) {
        const float x = a[k * tile + ty * 4 + i];
        for (int j = 0; j < 4; j++) c[i][j] = fmaf(x, b[k * tile + tx * 4 + j], c[i][j]);
      }
    gpu::barrier();
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      const int64_t m = m0 + ty * 4 + i, n = n0 + tx * 4 + j;
      if (m < p.M && n < p.wide) give_to(p.C, m * p.C_row + n, n < p.N ? c[i][j] : 0.0f, p.more);
    }
}
static void product(const Product& p) {
  const gpu::Grid grid = {unsigned((p.wide + tile - 1) / tile), unsigned((p.M + tile - 1) / tile)};
  launch(product_kernel, grid, 256, 2 * tile * step * sizeof(float), p);
}

// to[c] = the sum of a column of [rows][columns], zeros up to `wide`: 8 threads a column, each one chain.
NNLITE_GLOBAL void column_sums_kernel(const float* from, int64_t rows, int64_t columns, int64_t wide, float* to) {
  float* const  room = gpu::shared<float>();
  const int     t = static_cast<int>(gpu::thread()), lane = t % 32, part = t / 32;
  const int64_t c = int64_t(gpu::block().x) * 32 + lane;
  float sum = 0;
  for (int64_t r = part; r < rows && c < columns; r += 8) sum += from[r * columns + c];
  room[t] = sum;
  gpu::barrier();
  if (part != 0 || c >= wide) return;
  for (int i = 1; i < 8; i++) sum += room[i * 32 + lane];
  to[c] = sum;
}
static void column_sums(const float* from, int64_t rows, int64_t columns, float* to) {
  const int64_t wide = padded(columns);
  launch(column_sums_kernel, {unsigned((wide + 31) / 32)}, 256, 256 * sizeof(float), from, rows, columns, wide, to);
}

// ================================================================================ >>linear
static void linear_forward(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int64_t I = a.in_features, O = a.out_features;
  product({r.in_numel(0) / I, O, I, {r.in(0), I, 1}, {r.parameter(0), padded(O), 1}, r.parameter(1), r.out(), O, O, false});
}
static void linear_backward(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int64_t I = a.in_features, O = a.out_features, N = r.in_numel(0) / I;
  if (r.dx(0) != nullptr)
    product({N, I, O, {r.dy(), O, 1}, {r.parameter(0), 1, padded(O)}, nullptr, r.dx(0), I, I, r.accumulate(0)});
  if (r.dparameter(0) != nullptr)
    product({I, O, N, {r.in(0), 1, I}, {r.dy(), O, 1}, nullptr, r.dparameter(0), padded(O), padded(O), false});
  if (r.dparameter(1) != nullptr) column_sums(r.dy(), N, O, r.dparameter(1));
}

// ================================================================================ >>losses
// A loss is two kernels: one value for every position into scratch, then their sum by one block.
NNLITE_GLOBAL void mean_kernel(const float* values, int64_t n, float* to, Context* context) {
  float sum = 0;
  for (int64_t i = gpu::thread(); i < n; i += gpu::threads()) sum += values[i];
  sum = block_sum(sum, gpu::shared<float>());
  if (gpu::thread() != 0) return;
  to[0] = sum / static_cast<float>(n);
  if (!is_finite(to[0])) context->failed = 1;
}
static void mean(const float* values, int64_t n, float* to) {
  launch(mean_kernel, {}, 256, 256 * sizeof(float), values, n, to, current.context);
}
static float* scratch_of(const OpRun& r) { return reinterpret_cast<float*>(r.scratch); }

// -sum_c q_c log softmax(x)_c of a position, q = (1 - label_smoothing) target + label_smoothing / C.
struct ClassLoss {
  CrossEntropyLoss a;
  int64_t          C;
  const float *x, *target;                     // of target one of both
  const int32_t* labels;
  float *loss, *dx, *dtarget;
  bool  more, more_target;
  float share;

  NNLITE_DEVICE float q(int64_t p, int64_t c) const {
    const float smooth = a.label_smoothing / static_cast<float>(C), keep = 1 - a.label_smoothing;
    if (a.probabilities) return fmaf(keep, target[p * C + c], smooth);
    return labels[p] == c ? keep + smooth : smooth;
  }
  NNLITE_DEVICE void operator()(int64_t p) const {
    const float* v = x + p * C;
    float largest = v[0], sum = 0, total = 0, sum_q = 0;
    for (int64_t c = 1; c < C; c++) largest = v[c] > largest ? v[c] : largest;
    for (int64_t c = 0; c < C; c++) sum += plain::exp(v[c] - largest);
    const float log_sum = plain::log(sum);
    for (int64_t c = 0; c < C; c++) sum_q += q(p, c);
    for (int64_t c = 0; c < C; c++) {
      const float logp = v[c] - largest - log_sum;
      total = fmaf(q(p, c), log_sum - (v[c] - largest), total);
      if (dx != nullptr) give_to(dx, p * C + c, share * fmaf(plain::exp(logp), sum_q, -q(p, c)), more);
      if (dtarget != nullptr) give_to(dtarget, p * C + c, -logp * ((1 - a.label_smoothing) * share), more_target);
    }
    if (loss != nullptr) loss[p] = total;
  }
};
static ClassLoss class_loss(const OpRun& r) {
  const CrossEntropyLoss& a = *static_cast<const CrossEntropyLoss*>(r.attributes);
  ClassLoss f = {a, r.in_shape(0).last(), r.in(0), r.in(1), r.in_i32(1), nullptr, nullptr, nullptr, false, false, 0};
  f.share = 1 / static_cast<float>(r.in_numel(0) / f.C);
  return f;
}
static size_t position_floats(const OpRun& r) {
  return size_t(r.in_numel(0) / r.in_shape(0).last()) * sizeof(float);
}
static void cross_entropy_forward(const OpRun& r) {
  ClassLoss f = class_loss(r);
  f.loss = scratch_of(r);
  each(r.in_numel(0) / f.C, f);
  mean(f.loss, r.in_numel(0) / f.C, r.out());
}
static void cross_entropy_backward(const OpRun& r) {
  ClassLoss f = class_loss(r);
  f.dx = r.dx(0), f.dtarget = r.dx(1), f.more = r.accumulate(0), f.more_target = r.accumulate(1);
  each(r.in_numel(0) / f.C, f);
}

// ================================================================================ >>optimizers
template <class A>
struct Step {
  A              a;
  const Context* context;
  const float*   g;
  float *        w, *m, *v;
  NNLITE_DEVICE void operator()(int64_t i) const {
    if (context->failed != 0) return;
    const plain::Update<A> rule(a, *context);
    const float bound = context->clip_value;
    const float d = plain::clipped(g[i] * context->gradient_scale, bound > 0, bound);
    float none = 0, other = 0;
    w[i] = rule(w[i], fmaf(rule.decay, w[i], d), m != nullptr ? m[i] : none, v != nullptr ? v[i] : other);
  }
};
template <class A>
static void update(const OpRun& r) {
  each(r.in_numel(0), Step<A>{*static_cast<const A*>(r.attributes), current.context, r.dparameter(0), r.parameter(0),
                              r.slot(0), r.slot(1)});
}

// ================================================================================ >>rows
// What a row needs of scratch, in bytes.
static size_t no_scratch(const OpRun&) { return 0; }

template <Phase phase_, void (*f)(const OpRun&), size_t (*scratch)(const OpRun&) = no_scratch>
struct Row {
  static bool plan(const OpRun& r, KernelPlan& p) {
    p.scratch_shared = scratch(r);
    return true;
  }
  static void run(const OpRun& r, uint32_t, uint32_t, uint32_t, uint32_t) { f(r); }
  static const Kernel kernel;
};
template <Phase phase_, void (*f)(const OpRun&), size_t (*scratch)(const OpRun&)>
const Kernel Row<phase_, f, scratch>::kernel = {"cuda", phase_, 0, 0, plan, {run}};

// The rows of an op: forward and backward, or an update.
template <void (*forward)(const OpRun&), void (*backward)(const OpRun&), size_t (*scratch)(const OpRun&) = no_scratch>
struct Layer {
  static constexpr const Kernel* rows[] = {&Row<Phase::forward, forward, scratch>::kernel,
                                           &Row<Phase::backward, backward>::kernel, nullptr};
};
template <class A>
struct Optimizer {
  static constexpr const Kernel* rows[] = {&Row<Phase::update, update<A>>::kernel, nullptr};
};
template <class A>
using Activation = Layer<activation_forward<A>, activation_backward<A>>;
template <class A>
using Arithmetic = Layer<arithmetic_forward<A>, arithmetic_backward<A>>;

struct RowsOf { const char* op; const Kernel* const* rows; };
static constexpr RowsOf all_rows[] = {
    {"Adagrad", Optimizer<Adagrad>::rows},
    {"Adam", Optimizer<Adam>::rows},
    {"AdamW", Optimizer<AdamW>::rows},
    {"Add", Arithmetic<Add>::rows},
    {"CrossEntropyLoss", Layer<cross_entropy_forward, cross_entropy_backward, position_floats>::rows},
    {"Dropout", Layer<dropout_forward, dropout_backward>::rows},
    {"ELU", Activation<ELU>::rows},
    {"LeakyReLU", Activation<LeakyReLU>::rows},
    {"Linear", Layer<linear_forward, linear_backward>::rows},
    {"Mul", Arithmetic<Mul>::rows},
    {"RMSprop", Optimizer<RMSprop>::rows},
    {"ReLU", Activation<ReLU>::rows},
    {"SGD", Optimizer<SGD>::rows},
    {"Sigmoid", Activation<Sigmoid>::rows},
    {"Tanh", Activation<Tanh>::rows},
};
static const Kernel* const* rows_of(const char* op) {
  for (const RowsOf& r : all_rows) {
    int i = 0;
    while (op[i] != 0 && op[i] == r.op[i]) i++;
    if (op[i] == r.op[i]) return r.rows;
  }
  return nullptr;
}

// ================================================================================ >>backend
NNLITE_GLOBAL void set_context(Context* to, StepContext values) {
  static_cast<StepContext&>(*to) = values;
  to->failed = 0;
}

struct AddUp {
  float*       to;
  const float* from;
  bool         more;
  NNLITE_DEVICE void operator()(int64_t i) const { give_to(to, i, from[i], more); }
};

// [panels][lines][16] as [lines][panels][16], of every outer one, or back.
struct Rearrange {
  Blocks       b;
  const float* from;
  float*       to;
  bool         back;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const int64_t lane = i % 16, rest = i / 16, block = b.panels * b.lines, outer = rest / block;
    const int64_t panel = rest % block / b.lines, line = rest % b.lines;
    const int64_t other = ((outer * b.lines + line) * b.panels + panel) * 16 + lane;
    to[back ? i : other] = from[back ? other : i];
  }
};

static Device& device_of(void* user) { return *static_cast<Device*>(user); }

static Status mirror(void* user, const void* host, size_t bytes, void** device) {
  Device& d = device_of(user);
  const std::lock_guard<std::mutex> hold(d.lock);
  const unsigned char* const from = static_cast<const unsigned char*>(host);
  Mirror* to = nullptr;
  d.note(gpu::use_device(d.number));
  if (d.error == 0) d.note(gpu::sync(d.stream));
  for (Mirror& m : d.mirrors) {
    const bool same = m.device != nullptr && m.host == from && m.bytes == bytes;
    if (m.device != nullptr && !same && m.host < from + bytes && from < m.host + m.bytes) d.drop(m);
    if (same || (to == nullptr && m.device == nullptr)) to = &m;
  }
  if (to == nullptr) return Status::limit_exceeded;
  d.forget(*to);
  if (d.error != 0) return d.status();
  if (to->device == nullptr) {
    void* memory = nullptr;
    const gpu::Error e = gpu::take(&memory, context_bytes + bytes);
    if (e != 0) return gpu::no_memory(e) ? Status::out_of_memory : Status::device_error;
    *to = {from, bytes, static_cast<unsigned char*>(memory) + context_bytes};
  }
  *device = to->device;
  return Status::ok;
}

static Status copy(void* user, void* device, void* host, size_t bytes, Copy way) {
  Device& d = device_of(user);
  d.note(gpu::use_device(d.number));
  if (d.error != 0) return d.status();
  if (way == Copy::to_device) d.note(gpu::copy_in(d.stream, device, host, bytes));
  else d.note(gpu::copy_out(d.stream, host, device, bytes));
  if (way == Copy::from_device && d.error == 0) d.note(gpu::sync(d.stream));
  return d.status();
}

static bool begin(void* user, void* device, const uint32_t key[3], const StepContext& context) {
  Device& d = device_of(user);
  d.note(gpu::use_device(d.number));
  unsigned char* const memory = static_cast<unsigned char*>(device) - context_bytes;
  current = {&d, reinterpret_cast<Context*>(memory), nullptr};
  launch(set_context, {}, 1, 0, current.context, context);
  if (key[1] - key[0] < 2 || d.error != 0) return true;
  Mirror* m = nullptr;
  for (Mirror& other : d.mirrors)
    if (other.device == device) m = &other;
  if (m == nullptr) return true;
  for (int i = 0; i < m->records; i++) {
    const Recorded& r = m->recorded[i];
    if (r.key[0] != key[0] || r.key[1] != key[1] || r.key[2] != key[2]) continue;
    d.note(gpu::run_recorded(d.stream, r.graph));
    return false;
  }
  if (m->records == max_recorded) return true;
  const gpu::Error e = gpu::start_recording(d.stream);
  d.note(e);
  if (e != 0) return true;
  current.recording = &m->recorded[m->records++];
  *current.recording = {{key[0], key[1], key[2]}, {}};
  return true;
}

// What was recorded has not run yet.
static void end(void* user) {
  Device& d = device_of(user);
  if (current.recording == nullptr) return;
  const gpu::Error e = gpu::stop_recording(d.stream, current.recording->graph);
  d.note(e);
  if (e == 0) d.note(gpu::run_recorded(d.stream, current.recording->graph));
  current.recording = nullptr;
}

// By way of device memory of its own, for an order that only the host can read or write in place.
static Status copy_parameter(void* user, void* device, void* host, const Blocks& blocks, Copy way) {
  Device& d = device_of(user);
  const int64_t count = blocks.outer * blocks.panels * blocks.lines * 16;
  const size_t  bytes = size_t(count) * sizeof(float);
  if (blocks.panels == 1 || blocks.lines == 1) return copy(user, device, host, bytes, way);
  void* memory = nullptr;
  d.note(gpu::use_device(d.number));
  if (d.error != 0) return d.status();
  const gpu::Error e = gpu::take(&memory, bytes);
  if (e != 0) return gpu::no_memory(e) ? Status::out_of_memory : Status::device_error;
  current.device = &d;
  float *const here = static_cast<float*>(memory), *const there = static_cast<float*>(device);
  const bool back = way == Copy::from_device;
  if (!back) (void)copy(user, here, host, bytes, way);
  each(count, Rearrange{blocks, back ? there : here, back ? here : there, back});
  if (back) (void)copy(user, here, host, bytes, way);
  if (d.error == 0) d.note(gpu::sync(d.stream));
  d.note(gpu::give(memory));
  return d.status();
}

static void add(void* user, float* to, const float* from, int64_t count, bool accumulate) {
  (void)user;
  each(count, AddUp{to, from, accumulate});
}

static Status sync(void* user) {
  Device& d = device_of(user);
  if (d.error == 0) d.note(gpu::sync(d.stream));
  return d.status();
}

static Device  devices[max_devices];
static Backend backends[max_devices];
}  // namespace cuda

const Backend* cuda_rows() {
  static const Backend rows = {nullptr, cuda::rows_of, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  return &rows;
}

const Backend* cuda_backend(int number) {
  if (number < 0 || number >= cuda::max_devices) return nullptr;
  cuda::Device& d = cuda::devices[number];
  const std::lock_guard<std::mutex> hold(d.lock);
  int count = 0;
  if (!d.open) {
    if (gpu::device_count(count) != 0 || number >= count || gpu::use_device(number) != 0) return nullptr;
    if (gpu::new_stream(d.stream) != 0) return nullptr;
    d.number = number, d.error = 0, d.open = true;
    cuda::backends[number] = {&d, cuda::rows_of, cuda::mirror, cuda::copy, cuda::copy_parameter, cuda::begin, cuda::end,
                              cuda::add, cuda::sync};
  }
  return &cuda::backends[number];
}

void close_cuda(int number) {
  if (number < 0 || number >= cuda::max_devices) return;
  cuda::Device& d = cuda::devices[number];
  const std::lock_guard<std::mutex> hold(d.lock);
  if (!d.open) return;
  d.note(gpu::use_device(number));
  for (cuda::Mirror& m : d.mirrors) d.drop(m);
  (void)gpu::end_stream(d.stream);
  d.open = false;
}
}  // inline namespace
}  // namespace nnlite
