// nnlite_cuda: the models of nnlite.hpp on NVIDIA GPUs, the same graph, plan, steps and checkpoints.
//
//   options.backend = nnlite::cuda_backend(0);          // declared in nnlite.hpp; absent: a link error
//
// Compile this file with nvcc (C++17) and link it with the program, whose one file with NNLITE_IMPLEMENTATION
// stays as it is. Search for ">>room" to jump: every name appears twice, here and at its room. MIT licence.
//
//   >>seams >>device >>reduce >>elementwise >>product >>linear >>convolution >>losses >>optimizers >>rows >>backend
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
inline Error take(void** memory, size_t bytes) { return cudaMalloc(memory, bytes); }
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
constexpr size_t context_bytes = 256;          // in front of every mirror: the StepContext of its steps

struct Mirror {
  const unsigned char* host = nullptr;
  size_t               bytes = 0;
  unsigned char*       device = nullptr;       // behind the context
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
  void drop(Mirror& m) {
    if (m.device != nullptr) note(gpu::give(m.device - context_bytes));
    m = Mirror();
  }
};

// The device and context of the steps that run on this thread.
struct Current {
  Device*            device;
  const StepContext* context;                  // in the device's memory
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

static float* scratch_of(const OpRun& r) { return reinterpret_cast<float*>(r.scratch); }
constexpr size_t refused = ~size_t(0);           // as the scratch of a row: it is not for these shapes

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
  float              p;
  const StepContext* context;
  uint32_t           node;
  const float*       from;
  float*             to;
  bool               more;
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

// ================================================================================ >>convolution
// Conv2d and ConvTranspose2d are sums over the window's places k and the channels of a group:
//   y[p, o]     = b[o] + sum over k, i of x[p at k, i] w[k, i, o]
//   dx[q, i]    = sum over k, o of dy[q at k, o] w[k, i, o]
//   dw[k, i, o] = sum over the pixels p of y of x[p at k, i] dy[p, o]
// where `at` goes down for Conv2d, to p stride - padding + k dilation, and up for ConvTranspose2d, to
// (p + padding - k dilation) / stride if that is whole; for dx it is the other one.
// x [N, H, W, groups * I]   w [groups][kH][kW][I][O padded]   y [N, oH, oW, groups * O]
// A depthwise Conv2d has w [kH][kW][C padded].

// n / by for 0 <= n < 2^31: Granlund, Montgomery, "Division by invariant integers using multiplication", 1994.
struct Divider {
  int      by;
  uint32_t factor, shift;
  NNLITE_DEVICE int of(int n) const { return static_cast<int>(uint64_t(static_cast<uint32_t>(n)) * factor >> shift); }
};
static Divider divider(int64_t by) {
  uint32_t shift = 31;
  while (int64_t(1) << (shift - 31) < by) shift++;
  const uint64_t n = static_cast<uint64_t>(by);
  return {static_cast<int>(by), static_cast<uint32_t>(((uint64_t(1) << shift) + n - 1) / n), shift};
}

// One side of the images that are read: the window of pixel p has its place k at (p scale + start + k step) / stride.
struct Side {
  int     size, scale, start, step;
  Divider stride;
  NNLITE_DEVICE int find(int at) const {         // -1: outside, or between two pixels
    const int i = stride.of(at);
    return at >= 0 && i * stride.by == at && i < size ? i : -1;
  }
};

// Images as the pixels of others see them. Pixels are numbered through all images, lines (kh, kw, channel)
// through a window; those from `count` on see nothing but zeros.
struct Window {
  const float* x;
  Side         h, w;
  int          pitch;                          // channels of all groups
  Divider      to_h, to_w, kernel_w, channels; // the others' size; channels of a group
  static constexpr int limit = 1 << 29, nowhere = -2 * limit;

  struct Pixel { int first, h, w; };
  struct Line { int h, w, channel; };
  NNLITE_DEVICE Pixel pixel(int i, int count) const {
    const int row = to_w.of(i), image = to_h.of(row);
    return {image * h.size * w.size, i < count ? (row - image * to_h.by) * h.scale + h.start : nowhere,
            (i - row * to_w.by) * w.scale + w.start};
  }
  NNLITE_DEVICE Line line(int i, int count) const {
    const int tap = channels.of(i), kh = kernel_w.of(tap);
    return {i < count ? kh * h.step : nowhere, (tap - kh * kernel_w.by) * w.step, i - tap * channels.by};
  }
  NNLITE_DEVICE const float* at(const Pixel& p, const Line& l) const {         // nullptr: zero
    const int y = h.find(p.h + l.h), z = w.find(p.w + l.w);
    return y < 0 || z < 0 ? nullptr : x + int64_t(p.first + y * w.size + z) * pitch + l.channel;
  }
  template <class T>                             // a float, or four channels
  NNLITE_DEVICE T value(const Pixel& p, const Line& l, int first) const {
    const float* const v = at(p, l);
    return v == nullptr ? T() : *reinterpret_cast<const T*>(v + first);
  }
};

// C[m, n] = start[n] + sum over k of A[m, k] B[k, n] in every group. A is a window: pixels m and lines k, or
// for dw lines m and pixels k, which come in chunks with a C of their own.
struct Convolution {
  Window       a;
  int          M, N, K, groups, chunk, chunks;
  const float* b;
  int64_t      b_group, b_tap, b_channel, b_column;              // strides; k is tap * a.channels + channel
  const float* start;
  float*       c;
  int64_t      c_group, c_row, c_chunk;
  int          used;                           // dw: columns used .. c_row - 1 become zeros
  bool         more;
  NNLITE_DEVICE float b_at(int group, int k, int n) const {
    const int tap = a.channels.of(k);
    return b[group * b_group + tap * b_tap + (k - tap * a.channels.by) * b_channel + n * b_column];
  }
};

// Tiles of 64 x 64, 128 x 32 or 256 x 16, four by four values a thread, k in steps of 16 as in product_kernel.
struct alignas(16) Four { float of[4]; };
template <int width>
struct Tile {                                  // rows of 4 more: what lies below is in another bank
  static constexpr int height = tile * tile / width, a_pitch = height + 4, b_pitch = width + 4;
};
template <bool dw, int width, class T>          // T: what is read at once, Four where channels come in fours
NNLITE_GLOBAL void convolution_kernel(Convolution p) {
  constexpr int height = Tile<width>::height, a_pitch = Tile<width>::a_pitch, b_pitch = Tile<width>::b_pitch;
  constexpr int run = int(sizeof(T) / sizeof(float)), share = height / step / run, side = (dw ? height : step) / run;
  float *const a = gpu::shared<float>(), *const b = a + step * a_pitch;
  const int t = static_cast<int>(gpu::thread()), tx = t % (width / 4) * 4, ty = t / (width / 4) * 4;
  const int z = static_cast<int>(gpu::block().z), group = z / p.chunks, chunk = z % p.chunks;
  const int m0 = static_cast<int>(gpu::block().x) * height, n0 = static_cast<int>(gpu::block().y) * width;
  const int first = chunk * p.chunk, last = p.K < first + p.chunk ? p.K : first + p.chunk;
  const int skip = group * p.a.channels.by;
  // threads side by side read channels, which lie side by side
  const int channel = t % side * run, row = t / side, rows = 256 / side;
  Window::Line  line = p.a.line(m0 + channel, p.M);
  Window::Pixel pixels[size_t(share)];
  for (int i = 0; i < (dw ? 0 : share); i++) pixels[i] = p.a.pixel(m0 + row + i * rows, p.M);
  float c[4][4];
  for (int j = 0; j < 4; j++) {
    const int n = n0 + tx + j;
    for (int i = 0; i < 4; i++) c[i][j] = p.start != nullptr && n < p.N ? p.start[group * p.N + n] : 0.0f;
  }
  for (int k0 = first; k0 < last; k0 += step) {
    if (!dw) line = p.a.line(k0 + channel, last);
    for (int i = 0; i < share; i++) {
      const int pixel = row + i * rows;
      const T   v = p.a.value<T>(dw ? p.a.pixel(k0 + pixel, last) : pixels[i], line, skip);
      float* const to = dw ? a + pixel * a_pitch + channel : a + channel * a_pitch + pixel;
      for (int j = 0; j < run; j++) to[dw ? j : j * a_pitch] = reinterpret_cast<const float*>(&v)[j];
    }
    for (int e = t; e < width * step; e += 256) {
      const int along = p.b_channel == 1 ? e % step : e / width, across = p.b_channel == 1 ? e / step : e % width;
      const int k = k0 + along, n = n0 + across;
      b[along * b_pitch + across] = k < last && n < p.N ? p.b_at(group, k, n) : 0.0f;
    }
    gpu::barrier();
    for (int k = 0; k < step; k++) {
      const Four x = *reinterpret_cast<const Four*>(a + k * a_pitch + ty);
      const Four w = *reinterpret_cast<const Four*>(b + k * b_pitch + tx);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) c[i][j] = fmaf(x.of[i], w.of[j], c[i][j]);
    }
    gpu::barrier();
  }
  const int64_t wide = dw ? p.c_row : p.N;
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      const int m = m0 + ty + i, n = n0 + tx + j;
      const int64_t at = chunk * p.c_chunk + group * p.c_group + m * p.c_row + n;
      if (m < p.M && n < wide) give_to(p.c, at, n < p.N ? c[i][j] : 0.0f, p.more);
    }
}

// The same without tiles, for few columns: a thread an element.
struct ConvolveDirectly {
  Convolution p;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const int m = static_cast<int>(i / p.c_row), column = static_cast<int>(i - m * p.c_row);
    const int group = column / p.N, n = column - group * p.N;
    const Window::Pixel pixel = p.a.pixel(m, p.M);
    const float* b = p.b + group * p.b_group + n * p.b_column;
    float sum = p.start != nullptr ? p.start[column] : 0.0f;
    for (int k = 0; k < p.K; k += p.a.channels.by, b += p.b_tap) {
      const float* const v = p.a.at(pixel, p.a.line(k, p.K));
      for (int c = 0; v != nullptr && c < p.a.channels.by; c++)
        sum = fmaf(v[group * p.a.channels.by + c], b[c * p.b_channel], sum);
    }
    give_to(p.c, i, sum, p.more);
  }
};

// Of dw: 32 elements a block, (tap, group, channel, column) in this order; 8 threads an element, each one chain.
NNLITE_GLOBAL void convolution_dw_kernel(Convolution p, int elements) {
  float* const room = gpu::shared<float>();
  const int t = static_cast<int>(gpu::thread()), e = static_cast<int>(gpu::block().x) * 32 + t % 32;
  const int chunk = static_cast<int>(gpu::block().y), first = chunk * p.chunk;
  const int last = p.K < first + p.chunk ? p.K : first + p.chunk;
  const int n = e % p.N, channel = e / p.N % p.a.channels.by, rest = e / p.N / p.a.channels.by;
  const int group = rest % p.groups, m = rest / p.groups * p.a.channels.by + channel;
  const Window::Line line = p.a.line(m, p.M);
  float sum = 0;
  for (int k = first + t / 32; k < last && e < elements; k += 8)
    sum = fmaf(p.a.value<float>(p.a.pixel(k, last), line, group * p.a.channels.by), p.b_at(group, k, n), sum);
  room[t] = sum;
  gpu::barrier();
  if (t >= 32 || e >= elements) return;
  for (int i = 1; i < 8; i++) sum += room[i * 32 + t];
  const int64_t at = group * p.c_group + m * p.c_row + n;
  float* const  to = p.c + chunk * p.c_chunk + at;
  to[0] = sum;
  if (at % p.c_row == p.used - 1)
    for (int64_t i = p.used; i < p.c_row; i++) to[i - p.used + 1] = 0;
}

struct AddChunks {
  const float* from;
  int64_t      size;
  int          chunks;
  float*       to;
  NNLITE_DEVICE void operator()(int64_t i) const {
    float sum = from[i];
    for (int k = 1; k < chunks; k++) sum += from[k * size + i];
    to[i] = sum;
  }
};

static bool goes_up(const Conv2d&) { return false; }
static bool goes_up(const ConvTranspose2d&) { return true; }
static bool is_depthwise(const Conv2d& a) {
  return a.groups > 1 && a.groups == a.in_channels && a.groups == a.out_channels;
}
static bool is_depthwise(const ConvTranspose2d&) { return false; }
static bool is_direct(const Convolution& p) { return p.N < 8 || p.groups > 65535; }
static int  tile_width(int64_t columns) { return columns <= 16 ? 16 : columns <= 32 ? 32 : tile; }

static Side side_of(bool up, int size, int stride, int padding, int dilation) {
  return up ? Side{size, 1, padding, -dilation, divider(stride)} : Side{size, stride, -padding, dilation, divider(1)};
}

// dw by chunks of at least 256 pixels, as many as make some 512 blocks.
static void set_chunks(Convolution& p) {
  const int width = tile_width(p.c_row), height = tile * tile / width;
  const int64_t blocks = is_direct(p) ? (int64_t(p.M) * p.N * p.groups + 31) / 32
                                      : (p.M + height - 1) / height * ((p.c_row + width - 1) / width) * p.groups;
  const int64_t most = 512 / blocks, some = p.K / 256, chunks = some < most ? some : most;
  p.chunks = chunks > 1 ? static_cast<int>(chunks) : 1;
  p.chunk  = static_cast<int>(padded((p.K + p.chunks - 1) / p.chunks));
}

enum class Wanted { y, dx, dw };
template <class A>
static Convolution convolution(const OpRun& r, Wanted what) {
  const A&      a = *static_cast<const A*>(r.attributes);
  const bool    back = what == Wanted::dx, up = goes_up(a) != back, deep = is_depthwise(a);
  const Shape & x = r.in_shape(0), &y = r.out_shape(), &from = back ? y : x, &to = back ? x : y;
  const int     I = a.in_channels / a.groups, O = a.out_channels / a.groups, taps = a.kernel_size.h * a.kernel_size.w;
  const int64_t wide = padded(deep ? a.out_channels : O), tap = deep ? wide : I * wide, group = deep ? 1 : taps * tap;
  const int     pixels = r.rows * to.dim[1] * to.dim[2], lines = taps * (back ? O : I);
  Convolution p = {};
  p.a = {back ? r.dy() : r.in(0), side_of(up, from.dim[1], a.stride.h, a.padding.h, a.dilation.h),
         side_of(up, from.dim[2], a.stride.w, a.padding.w, a.dilation.w), from.last(), divider(to.dim[1]),
         divider(to.dim[2]), divider(a.kernel_size.w), divider(back ? O : I)};
  p.groups = a.groups, p.chunks = 1, p.N = back ? I : O;
  if (what == Wanted::dw) {
    p.M = lines, p.K = pixels, p.used = deep ? a.out_channels : O;
    p.b = r.dy(), p.b_group = O, p.b_channel = y.last(), p.b_tap = I * p.b_channel, p.b_column = 1;
    p.c = r.dparameter(0), p.c_group = group, p.c_row = wide, p.c_chunk = deep ? taps * tap : a.groups * group;
    set_chunks(p);
  } else {
    p.M = pixels, p.K = p.chunk = lines;
    p.b = r.parameter(0), p.b_group = group, p.b_tap = tap, p.b_channel = back ? 1 : wide, p.b_column = back ? wide : 1;
    p.start = back ? nullptr : r.parameter(1), p.c = back ? r.dx(0) : r.out(), p.more = back && r.accumulate(0);
    p.c_group = p.N, p.c_row = to.last();
  }
  return p;
}

template <bool dw, int width>
static void launch_tiles(const Convolution& p) {
  using T = Tile<width>;
  const int64_t columns = dw ? p.c_row : p.N;
  const gpu::Grid grid = {unsigned((p.M + T::height - 1) / T::height), unsigned((columns + width - 1) / width),
                          unsigned(p.groups * p.chunks)};
  const bool fours = p.a.pitch % 4 == 0 && p.a.channels.by % 4 == 0;
  launch(fours ? convolution_kernel<dw, width, Four> : convolution_kernel<dw, width, float>, grid, 256,
         step * (T::a_pitch + T::b_pitch) * sizeof(float), p);
}
template <bool dw>
static void convolve(const Convolution& p) {
  const int width = tile_width(dw ? p.c_row : p.N), elements = p.M * p.N * p.groups;
  if (is_direct(p) && dw)
    launch(convolution_dw_kernel, {unsigned(elements + 31) / 32, unsigned(p.chunks)}, 256, 256 * sizeof(float), p,
           elements);
  else if (is_direct(p)) each(p.M * p.c_row, ConvolveDirectly{p});
  else if (width == 16) launch_tiles<dw, 16>(p);
  else if (width == 32) launch_tiles<dw, 32>(p);
  else launch_tiles<dw, tile>(p);
}

// db of many pixels: first every column of an image apart.
static bool by_columns(const OpRun& r) { return r.out_numel() / r.out_shape().last() > 4096; }
static int64_t row_floats(const OpRun& r) { return int64_t(r.out_shape().dim[2]) * r.out_shape().last(); }

// No row for images and windows beyond what 32 bits count.
template <class A>
static bool fits(const OpRun& r) {
  const A& a = *static_cast<const A*>(r.attributes);
  const int64_t w = int64_t(a.kernel_size.h) * a.kernel_size.w;
  const Shape&  x = r.in_shape(0);
  for (const int64_t n :
       {r.in_numel(0) / a.in_channels, r.out_numel() / a.out_channels, w * a.in_channels / a.groups * a.out_channels,
        int64_t(a.in_channels) * 128, int64_t(a.out_channels) * 128, int64_t(a.stride.h), int64_t(a.stride.w),
        x.dim[1] + int64_t(a.padding.h) * 2, x.dim[2] + int64_t(a.padding.w) * 2,
        int64_t(a.dilation.h) * a.kernel_size.h, int64_t(a.dilation.w) * a.kernel_size.w})
    if (n >= Window::limit) return false;
  return true;
}
template <class A>
static size_t convolution_scratch(const OpRun& r) { return fits<A>(r) ? 0 : refused; }
template <class A>
static size_t convolution_back_scratch(const OpRun& r) {
  if (!fits<A>(r)) return refused;
  const Convolution p = convolution<A>(r, Wanted::dw);
  const int64_t of_dw = r.dparameter(0) != nullptr && p.chunks > 1 ? p.chunks * p.c_chunk : 0;
  const int64_t of_db = r.dparameter(1) != nullptr && by_columns(r) ? padded(row_floats(r)) : 0;
  return size_t(of_dw > of_db ? of_dw : of_db) * sizeof(float);
}

template <class A>
static void convolution_forward(const OpRun& r) { convolve<false>(convolution<A>(r, Wanted::y)); }
template <class A>
static void convolution_backward(const OpRun& r) {
  if (r.dx(0) != nullptr) convolve<false>(convolution<A>(r, Wanted::dx));
  if (r.dparameter(0) != nullptr) {
    Convolution p = convolution<A>(r, Wanted::dw);
    if (p.chunks > 1) p.c = scratch_of(r);
    convolve<true>(p);
    if (p.chunks > 1) each(p.c_chunk, AddChunks{scratch_of(r), p.c_chunk, p.chunks, r.dparameter(0)});
  }
  if (r.dparameter(1) == nullptr) return;
  const int64_t O = r.out_shape().last(), pixels = r.out_numel() / O, width = r.out_shape().dim[2];
  if (by_columns(r)) column_sums(r.dy(), pixels / width, width * O, scratch_of(r));
  if (by_columns(r)) column_sums(scratch_of(r), width, O, r.dparameter(1));
  else column_sums(r.dy(), pixels, O, r.dparameter(1));
}

// ================================================================================ >>losses
// A loss is two kernels: one value for every position into scratch, then their sum by one block.
NNLITE_GLOBAL void mean_kernel(const float* values, int64_t n, float* to) {
  float sum = 0;
  for (int64_t i = gpu::thread(); i < n; i += gpu::threads()) sum += values[i];
  sum = block_sum(sum, gpu::shared<float>());
  if (gpu::thread() == 0) to[0] = sum / static_cast<float>(n);
}
static void mean(const float* values, int64_t n, float* to) {
  launch(mean_kernel, {}, 256, 256 * sizeof(float), values, n, to);
}

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
  A                  a;
  const StepContext* context;
  const float*       g;
  float *            w, *m, *v;
  NNLITE_DEVICE void operator()(int64_t i) const {
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
    return p.scratch_shared != refused;
  }
  static void run(const OpRun& r, uint32_t, uint32_t, uint32_t, uint32_t) { f(r); }
  static const Kernel kernel;
};
template <Phase phase_, void (*f)(const OpRun&), size_t (*scratch)(const OpRun&)>
const Kernel Row<phase_, f, scratch>::kernel = {"cuda", phase_, 0, 0, plan, {run}};

// The rows of an op: forward and backward, or an update.
template <void (*forward)(const OpRun&), void (*backward)(const OpRun&), size_t (*scratch)(const OpRun&) = no_scratch,
          size_t (*back_scratch)(const OpRun&) = no_scratch>
struct Layer {
  static constexpr const Kernel* rows[] = {&Row<Phase::forward, forward, scratch>::kernel,
                                           &Row<Phase::backward, backward, back_scratch>::kernel, nullptr};
};
template <class A>
struct Optimizer {
  static constexpr const Kernel* rows[] = {&Row<Phase::update, update<A>>::kernel, nullptr};
};
template <class A>
using Activation = Layer<activation_forward<A>, activation_backward<A>>;
template <class A>
using Arithmetic = Layer<arithmetic_forward<A>, arithmetic_backward<A>>;
template <class A>
using ConvolutionLayer =
    Layer<convolution_forward<A>, convolution_backward<A>, convolution_scratch<A>, convolution_back_scratch<A>>;

struct RowsOf { const char* op; const Kernel* const* rows; };
static constexpr RowsOf all_rows[] = {
    {"Adagrad", Optimizer<Adagrad>::rows},
    {"Adam", Optimizer<Adam>::rows},
    {"AdamW", Optimizer<AdamW>::rows},
    {"Add", Arithmetic<Add>::rows},
    {"Conv2d", ConvolutionLayer<Conv2d>::rows},
    {"ConvTranspose2d", ConvolutionLayer<ConvTranspose2d>::rows},
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
NNLITE_GLOBAL void set_context(StepContext* to, StepContext context) { *to = context; }

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

static void begin(void* user, void* device, const StepContext& context) {
  Device& d = device_of(user);
  d.note(gpu::use_device(d.number));
  StepContext* const to = reinterpret_cast<StepContext*>(static_cast<unsigned char*>(device) - context_bytes);
  current = {&d, to};
  launch(set_context, {}, 1, 0, to, context);
}

// By way of device memory of its own, for an order that only the host can read or write in place.
static Status copy_parameter(void* user, void* device, void* host, const Blocks& blocks, Copy way) {
  Device& d = device_of(user);
  const int64_t count = blocks.outer * blocks.panels * blocks.lines * 16;
  const size_t  bytes = size_t(count) * sizeof(float);
  if (blocks.panels == 1 || blocks.lines == 1) return copy(user, device, host, bytes, way);
  void* memory = nullptr;
  d.note(gpu::use_device(d.number));
  if (d.error == 0) d.note(gpu::take(&memory, bytes));
  if (d.error != 0) return d.status();
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

const Backend* cuda_backend(int number) {
  if (number < 0 || number >= cuda::max_devices) return nullptr;
  cuda::Device& d = cuda::devices[number];
  const std::lock_guard<std::mutex> hold(d.lock);
  int count = 0;
  if (!d.open) {
    if (gpu::device_count(count) != 0 || number >= count || gpu::use_device(number) != 0) return nullptr;
    if (gpu::new_stream(d.stream) != 0) return nullptr;
    d.number = number, d.error = 0, d.open = true;
    cuda::backends[number] = {&d, cuda::rows_of, cuda::mirror, cuda::copy, cuda::copy_parameter, cuda::begin, cuda::add,
                              cuda::sync};
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
