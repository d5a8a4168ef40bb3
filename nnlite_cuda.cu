// nnlite_cuda: the models of nnlite.hpp on NVIDIA GPUs, the same graph, plan, steps and checkpoints.
//
//   options.backend = nnlite::cuda_backend(0);          // declared in nnlite.hpp; absent: a link error
//
// Compile this file with nvcc (C++17) and link it with the program, whose one file with NNLITE_IMPLEMENTATION
// stays as it is. Search for ">>room" to jump: every name appears twice, here and at its room. MIT licence.
//
//   >>seams >>device >>reduce >>elementwise >>normalise >>pooling >>softmax >>product >>linear >>convolution
//   >>losses >>optimizers >>rows >>backend
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
inline Error launch(Stream s, void (*kernel)(P...), Grid grid, unsigned threads, size_t shared,
                    A... arguments) {
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
  uint64_t failed;                             // 1 + the step whose loss was not finite: nothing changes from
};                                             // then on, until a run of steps begins; or 0

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
  std::recursive_mutex lock;                   // of all calls; from begin to end, as a stream records for one

  void note(gpu::Error e) { if (error == 0) error = e; }
  Status status() const {
    return error == 0 ? Status::ok : gpu::no_memory(error) ? Status::out_of_memory : Status::device_error;
  }
  void forget(Mirror& m) {
    while (m.records > 0)
      if (m.recorded[--m.records].graph != nullptr) note(gpu::end_recorded(m.recorded[m.records].graph));
  }
  const Mirror* mirror_of(const void* host) {
    for (const Mirror& m : mirrors)
      if (m.device != nullptr && m.host == host) return &m;
    return nullptr;
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
  current.device->note(
      gpu::launch<P...>(current.device->stream, kernel, grid, threads, shared, P(arguments)...));
}

inline int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }          // columns of a weight

// n / by for 0 <= n < 2^31: Granlund, Montgomery, "Division by invariant integers using multiplication",
// 1994.
struct Divider {
  int      by;
  uint32_t factor, shift;
  NNLITE_DEVICE int of(int n) const {
    return static_cast<int>(uint64_t(static_cast<uint32_t>(n)) * factor >> shift);
  }
};
static Divider divider(int64_t by) {
  uint32_t shift = 31;
  while (int64_t(1) << (shift - 31) < by) shift++;
  const uint64_t n = static_cast<uint64_t>(by);
  return {static_cast<int>(by), static_cast<uint32_t>(((uint64_t(1) << shift) + n - 1) / n), shift};
}

// Values side by side that are read and written at once: they lie at a multiple of their size.
template <int n, class V = float>
struct alignas(n * sizeof(V)) Pack {
  static constexpr int count = n;
  V of[size_t(n)];
};
using One = Pack<1>;
using Four = Pack<4>;
template <class T>
NNLITE_DEVICE inline T load(const float* from, int64_t i) { return *reinterpret_cast<const T*>(from + i); }

NNLITE_DEVICE inline void give_to(float* to, int64_t i, float value, bool more) {
  to[i] = more ? to[i] + value : value;
}
template <int n>
NNLITE_DEVICE inline void give_to(float* to, int64_t i, Pack<n> values, bool more) {
  Pack<n>* const place = reinterpret_cast<Pack<n>*>(to + i);
  if (more) {
    const Pack<n> before = *place;
    for (int j = 0; j < n; j++) values.of[j] = before.of[j] + values.of[j];
  }
  *place = values;
}

// Of 256 threads, at most as many as fill the largest GPU some times.
static unsigned blocks_of(int64_t threads, unsigned most = 4096) {
  return threads > int64_t(most) * 256 ? most : static_cast<unsigned>((threads + 255) / 256);
}

// f(i) for every i in [0, n).
template <class F>
NNLITE_GLOBAL void each_kernel(F f, int64_t n) {
  const int64_t step = int64_t(gpu::blocks().x) * gpu::threads();
  for (int64_t i = int64_t(gpu::block().x) * gpu::threads() + gpu::thread(); i < n; i += step) f(i);
}
template <class F>
static void each(int64_t n, const F& f) {
  if (n > 0) launch(each_kernel<F>, {blocks_of(n)}, 256, 0, f, n);
}

// f(i, Four()) for every fourth i in [0, n), then f(i, One()) for what is left. n is below 2^33.
template <class F>
NNLITE_GLOBAL void fours_kernel(F f, int64_t n) {
  const int count = static_cast<int>(n / 4), step = static_cast<int>(gpu::blocks().x * gpu::threads()),
            first = static_cast<int>(gpu::block().x * gpu::threads() + gpu::thread());
  for (int i = first; i < count; i += step) f(int64_t(i) * 4, Four());
  const int64_t rest = int64_t(count) * 4 + first;
  if (rest < n) f(rest, One());
}
template <class F>
static void fours(int64_t n, const F& f) {
  if (n > 0) launch(fours_kernel<F>, {blocks_of((n + 3) / 4)}, 256, 0, f, n);
}

template <class T = float>
static T* scratch_of(const OpRun& r) { return reinterpret_cast<T*>(r.scratch); }
constexpr size_t refused = ~size_t(0);           // as the scratch of a row: it is not for these shapes

// ================================================================================ >>reduce
// Long sums are cut into chunks, by their length alone.
struct Chunks { int64_t size, count; };
constexpr int64_t most_chunks = 512;
static Chunks chunks_of(int64_t n, int64_t least) {
  const int64_t size = round_up((n + most_chunks - 1) / most_chunks, least);
  return {size, (n + size - 1) / size};
}
// No shorter sum has more chunks.
static size_t chunk_bound(int64_t n, int64_t least) {
  return static_cast<size_t>(smaller(most_chunks, (n + least - 1) / least));
}

// What the threads of a block have, those a multiple of `width` apart, becomes one in those below width: halves
// are merged, then the last eight in their order, so that few values are added up as the CPU does. `room` is
// shared memory for all threads, at least 8 width of them.
template <class F, class Own>
NNLITE_DEVICE void fold(const F& f, Own& own, unsigned width, Own* room) {
  const unsigned t = gpu::thread();
  room[t] = own;
  for (unsigned half = gpu::threads() / 2; half >= 8 * width; half /= 2) {
    gpu::barrier();
    if (t >= half) continue;
    f.merge(own, room[t + half]);
    room[t] = own;
  }
  gpu::barrier();
  for (unsigned k = 1; k < 8 && t < width; k++) f.merge(own, room[t + k * width]);
}

// Threads side by side, a power of two within a warp, that have one sum.
struct Team {
  int size;
  int64_t threads(int64_t teams) const { return round_up(teams * size, 32); }    // whole warps, for shuffles
  NNLITE_DEVICE float sum(float v) const {
    for (int k = size / 2; k > 0; k /= 2) v += gpu::shuffle_xor(v, k);
    return v;
  }
  NNLITE_DEVICE float largest(float v) const {
    for (int k = size / 2; k > 0; k /= 2) v = plain::max(v, gpu::shuffle_xor(v, k));
    return v;
  }
};
static Team team_of(int64_t most) {
  int size = 1;
  while (size < 32 && size < most) size *= 2;
  return {size};
}

// Sums over the pixels of every channel of [pixels][C]. A block has up to 32 packs of channels, side by side,
// and a chunk of pixels. F says what it sums:
//   Pack, Values, Sum, Part           of channels read at once; what is read; what a thread has; of a channel
//   start(c, pixel), read(c, pixel)   a Sum of nothing, Values
//   add(Sum&, Values), part(Sum, j)   of the pack's channel j
//   merge(Part&, Part), finish(c, Part)         finish also of padding
// Chunks leave their parts in `to`, [C][chunks], and a second launch merges them.
template <class F>
struct Parts { typename F::Part of[size_t(F::Pack::count)]; };
template <class F>
struct MergeParts {
  F f;
  NNLITE_DEVICE void merge(Parts<F>& a, const Parts<F>& b) const {
    for (int j = 0; j < F::Pack::count; j++) f.merge(a.of[j], b.of[j]);
  }
};
template <class F>
NNLITE_GLOBAL void channels_kernel(F f, int C, int width, int64_t pixels, int64_t chunk,
                                   typename F::Part* to) {
  constexpr int n = F::Pack::count;
  const int     t = static_cast<int>(gpu::thread()), height = static_cast<int>(gpu::threads()) / width;
  const int     c = (static_cast<int>(gpu::block().x) * width + t % width) * n;
  const int64_t first = int64_t(gpu::block().y) * chunk, last = c < C ? smaller(first + chunk, pixels) : 0;
  Parts<F> own = {};
  int64_t  p = first + t / width;
  if (p < last) {
    typename F::Sum sum = f.start(c, p);
    for (; p + 3 * height < last; p += 4 * height) {             // reads that do not wait for each other
      typename F::Values v[4];
      for (int k = 0; k < 4; k++) v[k] = f.read(c, p + k * height);
      for (int k = 0; k < 4; k++) f.add(sum, v[k]);
    }
    for (; p < last; p += height) f.add(sum, f.read(c, p));
    for (int j = 0; j < n; j++) own.of[j] = f.part(sum, j);
  }
  fold(MergeParts<F>{f}, own, static_cast<unsigned>(width), gpu::shared<Parts<F>>());
  for (int j = 0; j < n && t < width && c < C; j++) {
    if (to == nullptr) f.finish(c + j, own.of[j]);
    else to[int64_t(c + j) * gpu::blocks().y + gpu::block().y] = own.of[j];
  }
  if (to == nullptr && gpu::block().x == 0 && C + t < round_up(C, 16)) f.finish(C + t, {});
}
constexpr int merge_threads = most_chunks / 4;
template <class F>
NNLITE_GLOBAL void merge_kernel(F f, int C, int chunks, const typename F::Part* from) {
  const int c = static_cast<int>(gpu::block().x), t = static_cast<int>(gpu::thread());
  typename F::Part parts[4] = {};
  for (int k = 0; k < 4; k++)
    if (c < C && t + k * merge_threads < chunks) parts[k] = from[int64_t(c) * chunks + t + k * merge_threads];
  for (int k = 1; k < 4; k++) f.merge(parts[0], parts[k]);
  fold(f, parts[0], 1, gpu::shared<typename F::Part>());
  if (t == 0) f.finish(c, parts[0]);
}

static int64_t packs_of(int64_t C) { return C % 4 == 0 ? C / 4 : C; }
static int pack_width(int64_t C) { return team_of(packs_of(C)).size; }
static int64_t least_pixels(int64_t C) { return 16 * 256 / pack_width(C); }
template <class Part>
static size_t channels_bytes(int64_t C, int64_t pixels) {
  return chunk_bound(pixels, least_pixels(C)) * size_t(C) * sizeof(Part);
}
template <class F>
static void channels(const F& f, int64_t C, int64_t pixels, typename F::Part* scratch) {
  const int      width = pack_width(C);
  const Chunks   k = chunks_of(pixels, least_pixels(C));
  const unsigned groups = unsigned((packs_of(C) + width - 1) / width);
  typename F::Part* const to = k.count > 1 ? scratch : nullptr;
  launch(channels_kernel<F>, {groups, unsigned(k.count)}, 256, 256 * sizeof(Parts<F>), f, C, width, pixels,
         k.size, to);
  if (to != nullptr)
    launch(merge_kernel<F>, {unsigned(padded(C))}, merge_threads, merge_threads * sizeof(typename F::Part), f,
           C, k.count, to);
}

// to[c] = the sum of a column of [rows][columns], zeros up to padding.
template <class T>
struct Columns {
  using Pack = T;
  using Values = T;
  using Sum = T;
  using Part = float;
  const float* from;
  int64_t      columns;
  float*       to;
  NNLITE_DEVICE Sum start(int, int64_t) const { return {}; }
  NNLITE_DEVICE Values read(int c, int64_t row) const { return load<T>(from, row * columns + c); }
  NNLITE_DEVICE void add(Sum& sum, const Values& v) const {
    for (int j = 0; j < T::count; j++) sum.of[j] += v.of[j];
  }
  NNLITE_DEVICE Part part(const Sum& sum, int j) const { return sum.of[j]; }
  NNLITE_DEVICE void merge(Part& a, Part b) const { a += b; }
  NNLITE_DEVICE void finish(int c, Part sum) const { to[c] = sum; }
};
static size_t column_sums_bytes(int64_t rows, int64_t columns) {
  return channels_bytes<float>(columns, rows);
}
static void column_sums(const float* from, int64_t rows, int64_t columns, float* to, float* scratch) {
  if (columns % 4 == 0) channels(Columns<Four>{from, columns, to}, columns, rows, scratch);
  else channels(Columns<One>{from, columns, to}, columns, rows, scratch);
}

// ================================================================================ >>elementwise
// What ops do for a ReLU that joins them: max(floor, y); v becomes zero where the mask, its output, is not
// positive, and stays where that is nullptr.
static float floor_of(const OpRun& r) { return (r.fused & fusion::relu) != 0 ? 0.0f : float_of(0xFF800000u); }
static const float* mask_of(const OpRun& r, uint8_t bit) {
  return (r.fused & bit) == 0 ? nullptr : bit == fusion::mask_dx ? r.in(0) : r.y();
}
template <class T>
NNLITE_DEVICE inline void mask_by(const float* mask, int64_t i, T& v) {
  if (mask == nullptr) return;
  const T m = load<T>(mask, i);
  for (int j = 0; j < T::count; j++) v.of[j] = m.of[j] > 0 ? v.of[j] : 0.0f;
}

template <class A>
struct Activate {
  A a;
  const float* x;
  float*       y;
  template <class T>
  NNLITE_DEVICE void operator()(int64_t i, T v) const {
    v = load<T>(x, i);
    for (float& one : v.of) one = plain::value_of(a, one);
    give_to(y, i, v, false);
  }
};
template <class A>
static void activation_forward(const OpRun& r) {
  fours(r.out_numel(), Activate<A>{*static_cast<const A*>(r.attributes), r.in(0), r.out()});
}

template <class A>
struct ActivateBack {
  A a;
  const float *y, *dy;
  float*       dx;
  bool         more;
  template <class T>
  NNLITE_DEVICE void operator()(int64_t i, T v) const {
    v = load<T>(dy, i);
    const T at = load<T>(y, i);
    for (int j = 0; j < T::count; j++) v.of[j] = plain::slope_times(a, at.of[j], v.of[j]);
    give_to(dx, i, v, more);
  }
};
template <class A>
static void activation_backward(const OpRun& r) {
  fours(r.out_numel(),
        ActivateBack<A>{*static_cast<const A*>(r.attributes), r.y(), r.dy(), r.dx(0), r.accumulate(0)});
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
  float  floor;
  NNLITE_DEVICE static float both(const Add*, float a, float b) { return a + b; }
  NNLITE_DEVICE static float both(const Mul*, float a, float b) { return a * b; }
  template <class T>
  NNLITE_DEVICE void operator()(int64_t i, T v) const {
    v = load<T>(in.of[0], i);
    for (int k = 1; k < in.count; k++) {
      const T x = load<T>(in.of[k], i);
      for (int j = 0; j < T::count; j++) v.of[j] = both(static_cast<const A*>(nullptr), v.of[j], x.of[j]);
    }
    for (float& one : v.of) one = plain::max(floor, one);
    give_to(y, i, v, false);
  }
};
template <class A>
static void arithmetic_forward(const OpRun& r) {
  fours(r.out_numel(), Combine<A>{inputs_of(r), r.out(), floor_of(r)});
}

// dx_k = dy, of a product times the other inputs. dx may lie over dy.
template <class A>
struct CombineBack {
  Inputs       in;
  const float *dy, *mask;
  float*       dx[max_inputs];
  uint32_t     more;
  template <class T>
  NNLITE_DEVICE static void slope(const Add*, const Inputs&, int, int64_t, T&) {}
  template <class T>
  NNLITE_DEVICE static void slope(const Mul*, const Inputs& in, int k, int64_t i, T& d) {
    for (int other = 0; other < in.count; other++) {
      if (other == k) continue;
      const T x = load<T>(in.of[other], i);
      for (int j = 0; j < T::count; j++) d.of[j] *= x.of[j];
    }
  }
  template <class T>
  NNLITE_DEVICE void operator()(int64_t i, T v) const {
    v = load<T>(dy, i);
    mask_by(mask, i, v);
    for (int k = 0; k < in.count; k++) {
      if (dx[k] == nullptr) continue;
      T d = v;
      slope(static_cast<const A*>(nullptr), in, k, i, d);
      give_to(dx[k], i, d, (more >> k & 1u) != 0);
    }
  }
};
template <class A>
static void arithmetic_backward(const OpRun& r) {
  CombineBack<A> f = {inputs_of(r), r.dy(), mask_of(r, fusion::mask_dy), {}, r.accumulate_bits};
  for (int k = 0; k < r.n_in; k++) f.dx[k] = r.dx(k);
  fours(r.out_numel(), f);
}

// to = from / (1 - p) where the element's random number is at least p, else 0. Backward draws the same.
struct Drop {
  float          p;
  const Context* context;
  uint32_t       node;
  const float *  from, *mask;
  float*         to;
  bool           more;
  template <class T>
  NNLITE_DEVICE void operator()(int64_t i, T v) const {
    const Words w = random_block(context->seed, context->step, Purpose::dropout, node, uint32_t(i / 4));
    v = load<T>(from, i);
    for (int j = 0; j < T::count; j++)
      v.of[j] = uniform_of(w.word[T::count == 4 ? j : i % 4]) < p ? 0.0f : v.of[j] * (1 / (1 - p));
    mask_by(mask, i, v);
    give_to(to, i, v, more);
  }
};
static void drop(const OpRun& r, const float* from, const float* mask, float* to, bool more) {
  fours(r.out_numel(),
        Drop{static_cast<const Dropout*>(r.attributes)->p, current.context, r.node, from, mask, to, more});
}
static void dropout_forward(const OpRun& r) { drop(r, r.in(0), nullptr, r.out(), false); }
static void dropout_backward(const OpRun& r) {
  drop(r, r.dy(), mask_of(r, fusion::mask_dx), r.dx(0), r.accumulate(0));
}

// Concat: y is runs, each made of one run of every input. Counted in packs.
template <class T>
struct Join {
  int      count;
  int      end[max_inputs];                    // of every input's part of a run of y
  Divider  run;
  const T* x[max_inputs];
  T*       y;                                  // nullptr: backward
  const T* dy;
  T*       dx[max_inputs];
  uint32_t more;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const int n = run.of(static_cast<int>(i)), in_run = static_cast<int>(i) - n * run.by;
    int k = 0;
    while (in_run >= end[k]) k++;
    const int     first = k > 0 ? end[k - 1] : 0;
    const int64_t at = int64_t(n) * (end[k] - first) + in_run - first;
    if (y != nullptr) y[i] = x[k][at];
    else if (dx[k] != nullptr) give_to(dx[k]->of, at * T::count, dy[i], (more >> k & 1u) != 0);
  }
};
// Elements of the dimensions from `dim` on; -1 is the last.
static int64_t length_from(const Shape& shape, int dim) {
  int64_t length = 1;
  for (int d = dim < 0 ? dim + shape.rank : dim; d < shape.rank; d++) length *= shape.dim[d];
  return length;
}
static int64_t part_of_run(const OpRun& r, int k) {
  return length_from(r.in_shape(k), static_cast<const Concat*>(r.attributes)->dim);
}
static bool joins_fours(const OpRun& r) {
  for (int k = 0; k < r.n_in; k++)
    if (part_of_run(r, k) % 4 != 0) return false;
  return true;
}
template <class T>
static void join(const OpRun& r, bool back) {
  Join<T> f = {};
  int64_t end = 0;
  for (int k = 0; k < r.n_in; k++) {
    f.end[k] = static_cast<int>(end += part_of_run(r, k) / T::count);
    f.x[k]   = reinterpret_cast<const T*>(r.in(k));
    f.dx[k]  = reinterpret_cast<T*>(r.dx(k));
  }
  f.count = r.n_in, f.run = divider(end), f.more = r.accumulate_bits;
  f.y  = back ? nullptr : reinterpret_cast<T*>(r.out());
  f.dy = reinterpret_cast<const T*>(r.dy());
  each(r.out_numel() / T::count, f);
}
static void concat_forward(const OpRun& r) { joins_fours(r) ? join<Four>(r, false) : join<One>(r, false); }
static void concat_backward(const OpRun& r) { joins_fours(r) ? join<Four>(r, true) : join<One>(r, true); }

// Bytes of scratch of rows that count packs in 32 bits: none, or refused.
static size_t if_counted(int64_t packs) { return packs <= INT32_MAX ? 0 : refused; }
static size_t concat_scratch(const OpRun& r) { return if_counted(r.out_numel() / (joins_fours(r) ? 4 : 1)); }

struct AddUp {
  float*       to;
  const float* from;
  bool         more;
  template <class T>
  NNLITE_DEVICE void operator()(int64_t i, T) const { give_to(to, i, load<T>(from, i), more); }
};
static void flatten_forward(const OpRun& r) { fours(r.out_numel(), AddUp{r.out(), r.in(0), false}); }
static void flatten_backward(const OpRun& r) {
  fours(r.out_numel(), AddUp{r.dx(0), r.dy(), r.accumulate(0)});
}

// ================================================================================ >>normalise
// Batch norm. x, y [pixels][C]. Statistics are (count, mean, M2 = sum (x - mean)^2); nothing cancels in them.
struct Norm {
  int64_t C, pixels;
  float   eps;
  bool    by_batch;                            // mean and var are those of the batch, which depend on x
  const float *weight, *bias, *mean, *var;     // weight and bias: nullptr without `affine`
  NNLITE_DEVICE float inverse(int64_t c) const { return 1 / real_sqrt(var[c] + eps); }
  NNLITE_DEVICE float scale(int64_t c) const {
    return weight != nullptr ? weight[c] * inverse(c) : inverse(c);
  }
  NNLITE_DEVICE float shift(int64_t c) const {
    return fmaf(-mean[c], scale(c), bias != nullptr ? bias[c] : 0.0f);
  }
};
template <class A>
static Norm norm_of(const OpRun& r) {
  const A&      a = *static_cast<const A*>(r.attributes);
  const bool    by_batch = r.training || !a.track_running_stats;
  const int     stored = a.affine ? 2 : 0;
  const int64_t C = a.num_features;
  return {C, r.in_numel(0) / C, a.eps, by_batch, a.affine ? r.parameter(0) : nullptr,
          a.affine ? r.parameter(1) : nullptr, by_batch ? r.slot(0) : r.parameter(stored),
          by_batch ? r.slot(1) : r.parameter(stored + 1)};
}

// A thread sums up distances from the first x that it meets, so that no large mean cancels: the spread of n
// values is at least 1/n of the square of that value's own distance from their mean. Parts are merged as by
// Chan, Golub, LeVeque 1979.
template <class T>
struct Statistics {
  using Pack = T;
  using Values = T;
  struct Sum { float count; T pivot, sum, squares; };
  struct Part { float count, mean, m2; };
  int64_t      C;
  const float* x;
  float *      mean, *var;
  NNLITE_DEVICE Values read(int c, int64_t p) const { return load<T>(x, p * C + c); }
  NNLITE_DEVICE Sum start(int c, int64_t p) const { return {0, read(c, p), {}, {}}; }
  NNLITE_DEVICE void add(Sum& s, const Values& v) const {
    s.count += 1;
    for (int j = 0; j < T::count; j++) {
      const float d = v.of[j] - s.pivot.of[j];
      s.sum.of[j] += d;
      s.squares.of[j] = fmaf(d, d, s.squares.of[j]);
    }
  }
  NNLITE_DEVICE Part part(const Sum& s, int j) const {
    const float d = s.sum.of[j] / s.count, m2 = fmaf(-d, s.sum.of[j], s.squares.of[j]);
    return {s.count, s.pivot.of[j] + d, m2 < 0 ? 0.0f : m2};
  }
  NNLITE_DEVICE void merge(Part& a, const Part& b) const {
    if (!(b.count > 0)) return;
    const float d = b.mean - a.mean, before = a.count, share = b.count / (before + b.count);
    a = {before + b.count, fmaf(d, share, a.mean), fmaf(d * d, before * share, a.m2 + b.m2)};
  }
  NNLITE_DEVICE void finish(int c, const Part& all) const {
    if (c < C) mean[c] = all.mean, var[c] = all.m2 / all.count;
  }
};

// f(c, i, n, by): packs i, i + by, .. n - 1 of [pixels][C], which all are of the channels from c on.
template <class F>
NNLITE_GLOBAL void by_channel_kernel(F f, int groups, int64_t n) {
  const int all = static_cast<int>(gpu::blocks().x * gpu::threads()),
            t = static_cast<int>(gpu::block().x * gpu::threads() + gpu::thread());
  const int by = all / groups * groups;
  if (t < by) f(t % groups * F::Pack::count, t, n, by);
}
template <class F>
static void by_channel(const Norm& n, const F& f) {
  const int64_t  groups = packs_of(n.C), packs = n.pixels * groups;
  const unsigned least = static_cast<unsigned>((groups + 255) / 256), some = blocks_of(packs, 2048);
  launch(by_channel_kernel<F>, {some < least ? least : some}, 256, 0, f, groups, packs);
}

// y = x scale + shift, scale = weight / sqrt(var + eps), shift = bias - mean scale
template <class T>
struct Normalise {
  using Pack = T;
  Norm         n;
  const float* x;
  float*       y;
  float        floor;
  NNLITE_DEVICE void operator()(int c, int64_t i, int64_t end, int by) const {
    T scale, shift;
    for (int j = 0; j < T::count; j++) scale.of[j] = n.scale(c + j), shift.of[j] = n.shift(c + j);
    for (; i < end; i += by) {
      T v = load<T>(x, i * T::count);
      for (int j = 0; j < T::count; j++)
        v.of[j] = plain::max(floor, fmaf(v.of[j], scale.of[j], shift.of[j]));
      give_to(y, i * T::count, v, false);
    }
  }
};
template <class T>
static void normalise(const OpRun& r, const Norm& n) {
  using Part = typename Statistics<T>::Part;
  if (n.by_batch)
    channels(Statistics<T>{n.C, r.in(0), r.slot(0), r.slot(1)}, n.C, n.pixels, scratch_of<Part>(r));
  by_channel(n, Normalise<T>{n, r.in(0), r.out(), floor_of(r)});
}
template <class A>
static void batch_norm_forward(const OpRun& r) {
  const Norm n = norm_of<A>(r);
  n.C % 4 == 0 ? normalise<Four>(r, n) : normalise<One>(r, n);
}
template <class A>
static size_t batch_norm_scratch(const OpRun& r) {
  const Norm n = norm_of<A>(r);
  return n.by_batch ? channels_bytes<Statistics<One>::Part>(n.C, n.pixels) : 0;
}

// The mask of a ReLU that joined batch norm: its output is made again of x. Or x is that output, where db
// alone is wanted and the input is not there.
enum class Joined : uint8_t { none, by_x, by_y };
template <class T>
struct Gate {
  Joined by;
  T      scale, shift;
  NNLITE_DEVICE Gate(Joined joined, const Norm& n, int c) : by(joined) {
    for (int j = 0; j < T::count; j++) {
      scale.of[j] = by == Joined::by_x ? n.scale(c + j) : 1.0f;
      shift.of[j] = by == Joined::by_x ? n.shift(c + j) : 0.0f;
    }
  }
  NNLITE_DEVICE float operator()(float dy, float x, int j) const {
    return by == Joined::none || fmaf(x, scale.of[j], shift.of[j]) > 0 ? dy : 0.0f;
  }
};

// dw = sum dy (x - mean) / sqrt(var + eps), db = sum dy, zeros for columns that are padding.
struct NormSum { float dy, dy_x; };
template <class T>
struct NormSums {
  using Pack = T;
  using Part = NormSum;
  struct Values { T dy, x; };
  struct Sum { Gate<T> gate; T mean, dy, dy_x; };
  Norm         n;
  Joined       joined;
  const float *x, *dy;                         // x: nullptr where only sum dy is wanted
  Part*        sums;                           // nullptr: not wanted, as dw and db
  float *      dw, *db;
  NNLITE_DEVICE Sum start(int c, int64_t) const {
    Sum s = {Gate<T>(joined, n, c), {}, {}, {}};
    for (int j = 0; j < T::count && x != nullptr; j++) s.mean.of[j] = n.mean[c + j];
    return s;
  }
  NNLITE_DEVICE Values read(int c, int64_t p) const {
    const int64_t i = p * n.C + c;
    return {load<T>(dy, i), x != nullptr ? load<T>(x, i) : T()};
  }
  NNLITE_DEVICE void add(Sum& s, const Values& v) const {
    for (int j = 0; j < T::count; j++) {
      const float d = s.gate(v.dy.of[j], v.x.of[j], j);
      s.dy.of[j] += d;
      s.dy_x.of[j] = fmaf(d, v.x.of[j] - s.mean.of[j], s.dy_x.of[j]);
    }
  }
  NNLITE_DEVICE Part part(const Sum& s, int j) const { return {s.dy.of[j], s.dy_x.of[j]}; }
  NNLITE_DEVICE void merge(Part& a, const Part& b) const { a.dy += b.dy, a.dy_x += b.dy_x; }
  NNLITE_DEVICE void finish(int c, const Part& all) const {
    const bool here = c < n.C;
    if (dw != nullptr) dw[c] = here ? all.dy_x * n.inverse(c) : 0.0f;
    if (db != nullptr) db[c] = here ? all.dy : 0.0f;
    if (sums != nullptr && here) sums[c] = all;
  }
};

// With s = weight / sqrt(var + eps), t = x - mean, and through batch statistics:
//   dx = s dy - s (t sum dy_x / (var + eps) + sum dy) / pixels;   through stored ones dx = s dy.
template <class T>
struct NormBack {
  using Pack = T;
  Norm           n;
  Joined         joined;
  bool           masked;                       // x is the output of a ReLU, whose mask this is
  const float   *x, *dy;
  const NormSum* sums;
  float*         dx;
  bool           more;
  NNLITE_DEVICE void operator()(int c, int64_t i, int64_t end, int by) const {
    const Gate<T> gate(joined, n, c);
    T scale, mean = {}, slope = {}, shift = {};
    for (int j = 0; j < T::count; j++) {
      scale.of[j] = n.scale(c + j);
      if (sums == nullptr) continue;
      const float inverse = n.inverse(c + j), share = -scale.of[j] / static_cast<float>(n.pixels);
      mean.of[j]  = n.mean[c + j];
      slope.of[j] = share * inverse * (inverse * sums[c + j].dy_x), shift.of[j] = share * sums[c + j].dy;
    }
    for (; i < end; i += by) {
      T       d = load<T>(dy, i * T::count);
      const T v = x != nullptr ? load<T>(x, i * T::count) : T();
      for (int j = 0; j < T::count; j++) {
        const float rest = sums != nullptr ? fmaf(v.of[j] - mean.of[j], slope.of[j], shift.of[j]) : 0.0f;
        d.of[j] = fmaf(scale.of[j], gate(d.of[j], v.of[j], j), rest);
        if (masked && !(v.of[j] > 0)) d.of[j] = 0;
      }
      give_to(dx, i * T::count, d, more);
    }
  }
};
template <class T>
static void normalise_back(const OpRun& r, const Norm& n) {
  const bool through = n.by_batch && r.dx(0) != nullptr;
  float *const dw = n.weight != nullptr ? r.dparameter(0) : nullptr;
  float *const db = n.weight != nullptr ? r.dparameter(1) : nullptr;
  NormSum *const scratch = scratch_of<NormSum>(r), *const sums = through ? scratch : nullptr;
  const bool   relu = (r.fused & fusion::mask_dy) != 0, masked = (r.fused & fusion::mask_dx) != 0;
  const bool   by_x = through || dw != nullptr || (r.dx(0) != nullptr && (relu || masked));
  const Joined joined = !relu ? Joined::none : by_x ? Joined::by_x : Joined::by_y;
  const float* const x = by_x ? r.in(0) : relu ? r.y() : nullptr;
  if (through || dw != nullptr || db != nullptr)
    channels(NormSums<T>{n, joined, x, r.dy(), sums, dw, db}, n.C, n.pixels, scratch + n.C);
  if (r.dx(0) != nullptr)
    by_channel(n, NormBack<T>{n, joined, masked, x, r.dy(), sums, r.dx(0), r.accumulate(0)});
}
template <class A>
static void batch_norm_backward(const OpRun& r) {
  const Norm n = norm_of<A>(r);
  n.C % 4 == 0 ? normalise_back<Four>(r, n) : normalise_back<One>(r, n);
}
template <class A>
static size_t batch_norm_back_scratch(const OpRun& r) {
  const Norm n = norm_of<A>(r);
  return size_t(n.C) * sizeof(NormSum) + channels_bytes<NormSum>(n.C, n.pixels);
}

// running = (1 - momentum) running + momentum statistic; var is unbiased; of one value a channel it is zero.
struct Commit {
  const Context* context;
  float          momentum, unbias;
  const float   *mean, *var;
  float *        running_mean, *running_var;
  NNLITE_DEVICE void operator()(int64_t c) const {
    if (context->failed != 0) return;
    running_mean[c] = fmaf(momentum, mean[c] - running_mean[c], running_mean[c]);
    running_var[c]  = fmaf(momentum, var[c] * unbias - running_var[c], running_var[c]);
  }
};
template <class A>
static void batch_norm_commit(const OpRun& r) {
  const A& a = *static_cast<const A*>(r.attributes);
  if (!a.track_running_stats) return;
  const int64_t n = r.in_numel(0) / a.num_features;
  const float   unbias = static_cast<float>(n) / static_cast<float>(n > 1 ? n - 1 : 1);
  const int     stored = a.affine ? 2 : 0;
  each(a.num_features, Commit{current.context, a.momentum, unbias, r.slot(0), r.slot(1), r.parameter(stored),
                              r.parameter(stored + 1)});
}

// ================================================================================ >>pooling
// Windows that slide over big images and have small ones as their outputs. A thread gathers what makes one
// pack of channels: of a small image its window, of a big one all windows that hold it. Upsample is the pool
// of its copies, backwards. Packs are counted in 32 bits.
struct Pixels {                                // of images [N, H, W, C], C in packs
  Divider H, W, C;
  struct Place { int n, h, w, c; };
  NNLITE_DEVICE Place place(int i) const {
    const int pixel = C.of(i), row = W.of(pixel), n = H.of(row);
    return {n, row - n * H.by, pixel - row * W.by, i - pixel * C.by};
  }
  NNLITE_DEVICE int64_t at(int n, int h, int w, int c) const {
    return int64_t((n * H.by + h) * W.by + w) * C.by + c;
  }
};

// One side of them: output o starts at o stride - padding, or without a kernel at floor(o in / out). A mean
// divides by the values of a window: those inside, all, or what is no mean by one.
enum class Divide : uint8_t { inside, all, one };
struct Slide {
  Divider in, out;
  int     kernel, padding;
  Divider stride, dilation;
  Divide  divide;
  struct Range { int first, last, count; };
  NNLITE_DEVICE int extent() const { return dilation.by * (kernel - 1) + 1; }
  NNLITE_DEVICE int start(int o) const { return kernel > 0 ? o * stride.by - padding : out.of(o * in.by); }
  NNLITE_DEVICE Range inputs(int o) const {                      // every dilation-th of them
    const int from = start(o);
    const int end  = kernel > 0 ? least(from + extent(), in.by + padding)
                                : out.of((o + 1) * in.by + out.by - 1);
    const int first = from < 0 ? from + dilation.of(dilation.by - 1 - from) * dilation.by : from,
              last  = least(end, in.by);
    return {first, last, divide == Divide::one ? 1 : divide == Divide::all ? end - from : last - first};
  }
  NNLITE_DEVICE Range outputs(int i) const {                     // whose windows may hold input i
    if (kernel == 0) return {in.of(i * out.by), in.of((i + 1) * out.by + in.by - 1), 0};
    const int from = i + padding - (extent() - 1);
    return {from > 0 ? stride.of(from + stride.by - 1) : 0, least(stride.of(i + padding) + 1, out.by), 0};
  }
  NNLITE_DEVICE int place(int o, int i) const {  // of input i in the window of o; -1: between two
    const int k = i - start(o), place = dilation.of(k);
    return place * dilation.by == k ? place : -1;
  }
  NNLITE_DEVICE static int least(int a, int b) { return a < b ? a : b; }
};
struct Slides { Pixels big, small; Slide h, w; };
static Slides slides(const Shape& x, const Shape& y, Pair kernel, Pair stride, Pair padding, Pair dilation,
                     Divide by) {
  Divider x_size[3], y_size[3];
  for (int d = 0; d < 3; d++) x_size[d] = divider(x.dim[d + 1]), y_size[d] = divider(y.dim[d + 1]);
  x_size[2] = y_size[2] = divider(packs_of(x.dim[3]));
  return {{x_size[0], x_size[1], x_size[2]}, {y_size[0], y_size[1], y_size[2]},
          {x_size[0], y_size[0], kernel.h, padding.h, divider(stride.h), divider(dilation.h), by},
          {x_size[1], y_size[1], kernel.w, padding.w, divider(stride.w), divider(dilation.w), by}};
}
static Slides slides_of(const AdaptiveAvgPool2d&, const OpRun& r) {
  return slides(r.in_shape(0), r.out_shape(), 0, 1, 0, 1, Divide::inside);
}
static Slides slides_of(const AvgPool2d& a, const OpRun& r) {
  const Divide by = a.count_include_pad ? Divide::all : Divide::inside;
  return slides(r.in_shape(0), r.out_shape(), a.kernel_size, a.stride, a.padding, 1, by);
}
static Slides slides_of(const MaxPool2d& a, const OpRun& r) {
  return slides(r.in_shape(0), r.out_shape(), a.kernel_size, a.stride, a.padding, a.dilation, Divide::one);
}
static Slides slides_of(const Upsample& a, const OpRun& r) {
  return slides(r.out_shape(), r.in_shape(0), a.scale_factor, a.scale_factor, 0, 1, Divide::one);
}
template <class A>
static Slides slides_of(const OpRun& r) { return slides_of(*static_cast<const A*>(r.attributes), r); }

// By four channels where they come in fours.
static bool by_fours(const OpRun& r) { return r.out_shape().last() % 4 == 0; }
template <template <class> class F, class... A>
static void each_pack(const OpRun& r, int64_t n, const A&... a) {
  if (by_fours(r)) each(n / 4, F<Four>{a...});
  else each(n, F<One>{a...});
}

// Which place kh kW + kw of a window was largest, the first of equals: u8, of over 256 i32; or nullptr.
struct Chosen {
  uint8_t* small;
  int32_t* large;
  template <int n>
  NNLITE_DEVICE void set(int64_t i, const Pack<n, int32_t>& places) const {
    if (large != nullptr) reinterpret_cast<Pack<n, int32_t>*>(large)[i] = places;
    if (small == nullptr) return;
    Pack<n, uint8_t> bytes;
    for (int j = 0; j < n; j++) bytes.of[j] = static_cast<uint8_t>(places.of[j]);
    reinterpret_cast<Pack<n, uint8_t>*>(small)[i] = bytes;
  }
  template <int n>
  NNLITE_DEVICE Pack<n, int32_t> get(int64_t i) const {
    if (large != nullptr) return reinterpret_cast<const Pack<n, int32_t>*>(large)[i];
    const Pack<n, uint8_t> bytes = reinterpret_cast<const Pack<n, uint8_t>*>(small)[i];
    Pack<n, int32_t> places;
    for (int j = 0; j < n; j++) places.of[j] = bytes.of[j];
    return places;
  }
};
static Chosen chosen(const OpRun& r) {
  const Pair k = static_cast<const MaxPool2d*>(r.attributes)->kernel_size;
  const bool few = int64_t(k.h) * k.w <= 256;
  return {few ? r.slot<uint8_t>(0) : nullptr, few ? nullptr : r.slot<int32_t>(0)};
}

template <class T>
struct Largest {
  Slides       s;
  const float* x;
  float*       y;
  Chosen       to;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const Pixels::Place p = s.small.place(static_cast<int>(i));
    const Slide::Range  rows = s.h.inputs(p.h), columns = s.w.inputs(p.w);
    int  place = s.h.place(p.h, rows.first) * s.w.kernel + s.w.place(p.w, columns.first);
    bool found = false;
    T    largest;
    Pack<T::count, int32_t> where = {};
    for (float& v : largest.of) v = -float_of(0x7F800000u);
    for (int h = rows.first; h < rows.last; h += s.h.dilation.by, place += s.w.kernel) {
      int k = place;
      for (int w = columns.first; w < columns.last; w += s.w.dilation.by, k++) {
        const T v = load<T>(x, s.big.at(p.n, h, w, p.c) * T::count);
        for (int j = 0; j < T::count; j++) {
          if (found && !(v.of[j] > largest.of[j] || v.of[j] != v.of[j])) continue;   // not-a-number wins
          largest.of[j] = v.of[j], where.of[j] = k;
        }
        found = true;
      }
    }
    give_to(y, i * T::count, largest, false);
    to.set(i, where);
  }
};
template <class T>
struct LargestBack {
  Slides       s;
  Chosen       from;
  const float *dy, *mask;
  float*       dx;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const Pixels::Place p = s.big.place(static_cast<int>(i));
    const Slide::Range  rows = s.h.outputs(p.h), columns = s.w.outputs(p.w);
    T sum = {};
    for (int h = rows.first; h < rows.last; h++)
      for (int w = columns.first; w < columns.last; w++) {
        const int kh = s.h.place(h, p.h), kw = s.w.place(w, p.w), place = kh * s.w.kernel + kw;
        if (kh < 0 || kw < 0) continue;
        const int64_t at = s.small.at(p.n, h, w, p.c);
        T d = load<T>(dy, at * T::count);
        mask_by(mask, at * T::count, d);
        const Pack<T::count, int32_t> where = from.get<T::count>(at);
        for (int j = 0; j < T::count; j++) sum.of[j] = where.of[j] == place ? sum.of[j] + d.of[j] : sum.of[j];
      }
    give_to(dx, i * T::count, sum, false);
  }
};
static void max_pool2d_forward(const OpRun& r) {
  each_pack<Largest>(r, r.out_numel(), slides_of<MaxPool2d>(r), r.in(0), r.out(), chosen(r));
}
static void max_pool2d_backward(const OpRun& r) {
  each_pack<LargestBack>(r, r.in_numel(0), slides_of<MaxPool2d>(r), chosen(r), r.dy(),
                         mask_of(r, fusion::mask_max), r.dx(0));
}

// small = the sum of a window / its count;   big = the sum over its windows of small / their counts
template <class T>
struct GatherWindows {
  Slides       s;
  const float *big, *mask;
  float*       small;
  bool         more;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const Pixels::Place p = s.small.place(static_cast<int>(i));
    const Slide::Range  rows = s.h.inputs(p.h), columns = s.w.inputs(p.w);
    T sum = {};
    for (int h = rows.first; h < rows.last; h++)
      for (int w = columns.first; w < columns.last; w++) {
        const T v = load<T>(big, s.big.at(p.n, h, w, p.c) * T::count);
        for (int j = 0; j < T::count; j++) sum.of[j] += v.of[j];
      }
    for (float& one : sum.of) one /= static_cast<float>(rows.count * columns.count);
    mask_by(mask, i * T::count, sum);
    give_to(small, i * T::count, sum, more);
  }
};
template <class T>
struct Spread {
  Slides       s;
  const float *small, *mask;
  float*       big;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const Pixels::Place p = s.big.place(static_cast<int>(i));
    const Slide::Range  rows = s.h.outputs(p.h), columns = s.w.outputs(p.w);
    T sum = {};
    for (int h = rows.first; h < rows.last; h++)
      for (int w = columns.first; w < columns.last; w++) {
        const T     v = load<T>(small, s.small.at(p.n, h, w, p.c) * T::count);
        const float count = static_cast<float>(s.h.inputs(h).count * s.w.inputs(w).count);
        for (int j = 0; j < T::count; j++) sum.of[j] += v.of[j] / count;
      }
    mask_by(mask, i * T::count, sum);
    give_to(big, i * T::count, sum, false);
  }
};
template <class A>
static void average_forward(const OpRun& r) {
  each_pack<GatherWindows>(r, r.out_numel(), slides_of<A>(r), r.in(0), nullptr, r.out(), false);
}
template <class A>
static void average_backward(const OpRun& r) {
  each_pack<Spread>(r, r.in_numel(0), slides_of<A>(r), r.dy(), mask_of(r, fusion::mask_dx), r.dx(0));
}
static void upsample_forward(const OpRun& r) {
  each_pack<Spread>(r, r.out_numel(), slides_of<Upsample>(r), r.in(0), nullptr, r.out());
}
static void upsample_backward(const OpRun& r) {
  each_pack<GatherWindows>(r, r.in_numel(0), slides_of<Upsample>(r), r.dy(), mask_of(r, fusion::mask_dx),
                           r.dx(0), r.accumulate(0));
}

// What the sides count has to fit, too.
template <class A>
static size_t pool_scratch(const OpRun& r) {
  const Slides s = slides_of<A>(r);
  int64_t most = (r.in_numel(0) > r.out_numel() ? r.in_numel(0) : r.out_numel()) / (by_fours(r) ? 4 : 1);
  for (const Slide& side : {s.h, s.w})
    for (const int64_t n : {int64_t(side.in.by + 1) * (side.out.by + 1),
                            int64_t(side.dilation.by) * (side.kernel + 1) + side.in.by + side.padding +
                                int64_t(side.padding) + side.stride.by})
      if (n > most) most = n;
  return if_counted(most);
}

// ================================================================================ >>softmax
// Lines of `count` values, `stride` apart, of a team each.
struct Lines {
  int64_t count, stride, lines;
  Team    team;
  struct Share { int64_t first, end, by; };
  int64_t threads() const { return team.threads(lines); }
  NNLITE_DEVICE Share share(int64_t thread) const {
    const int64_t line = thread / team.size, at = line / stride * count * stride + line % stride;
    return {at + thread % team.size * stride, line < lines ? at + count * stride : 0, team.size * stride};
  }
};
template <class A>
static Lines lines_of(const OpRun& r) {
  const Shape& s = r.out_shape();
  const int    dim = static_cast<const A*>(r.attributes)->dim, d = dim < 0 ? dim + s.rank : dim;
  const int64_t stride = length_from(s, d + 1);
  return {s.dim[d], stride, r.out_numel() / s.dim[d], team_of(stride == 1 ? s.dim[d] : 1)};
}

// y = exp(x - m) / S or y = x - m - log S, with m the largest, S = sum exp(x - m)
template <bool of_log>
struct SoftmaxForward {
  Lines        l;
  const float* x;
  float*       y;
  NNLITE_DEVICE void operator()(int64_t thread) const {
    const Lines::Share s = l.share(thread);
    float m = -float_of(0x7F800000u), sum = 0;
    for (int64_t i = s.first; i < s.end; i += s.by) m = plain::max(x[i], m);
    m = l.team.largest(m);
    for (int64_t i = s.first; i < s.end; i += s.by) sum += plain::exp(x[i] - m);
    sum = l.team.sum(sum);
    const float log_sum = plain::log(sum);
    for (int64_t i = s.first; i < s.end; i += s.by)
      y[i] = of_log ? x[i] - m - log_sum : plain::exp(x[i] - m) / sum;
  }
};
// dx = y (dy - sum dy y), of the logarithm dx = dy - exp(y) sum dy
template <bool of_log>
struct SoftmaxBackward {
  Lines        l;
  const float *y, *dy;
  float*       dx;
  bool         more;
  NNLITE_DEVICE void operator()(int64_t thread) const {
    const Lines::Share s = l.share(thread);
    float sum = 0;
    for (int64_t i = s.first; i < s.end; i += s.by) sum = of_log ? sum + dy[i] : fmaf(dy[i], y[i], sum);
    sum = l.team.sum(sum);
    for (int64_t i = s.first; i < s.end; i += s.by)
      give_to(dx, i, of_log ? fmaf(-plain::exp(y[i]), sum, dy[i]) : y[i] * (dy[i] - sum), more);
  }
};
template <class A, bool of_log>
static void softmax_forward(const OpRun& r) {
  const Lines l = lines_of<A>(r);
  each(l.threads(), SoftmaxForward<of_log>{l, r.in(0), r.out()});
}
template <class A, bool of_log>
static void softmax_backward(const OpRun& r) {
  const Lines l = lines_of<A>(r);
  each(l.threads(), SoftmaxBackward<of_log>{l, r.y(), r.dy(), r.dx(0), r.accumulate(0)});
}

// ================================================================================ >>product
// C[m, n] = start[n] + sum over k of A[m, k] B[k, n], with any strides, in tiles of 64 x 64 or 32 x 32. An
// element is the sum of chains of 128 fmas, in order, the first from start. Where tiles are few, blocks make
// one chain each, which are added by another kernel: the same bits.
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
  float*       parts;                          // [chains][M][wide] of blocks with one chain each, or nullptr
};
constexpr int     tile = 64, step = 16, few_blocks = 96;
constexpr int64_t chain = 128;
constexpr int64_t over(int64_t n, int64_t by) { return (n + by - 1) / by; }

template <int size>
NNLITE_GLOBAL void product_kernel(Product p) {
  constexpr int depth = 1024 / size, own = size / 16;
  float *const  a = gpu::shared<float>(), *const b = a + size * depth;
  const int     t = static_cast<int>(gpu::thread()), tx = t % 16 * own, ty = t / 16 * own;
  const int64_t m0 = int64_t(gpu::block().y) * size, n0 = int64_t(gpu::block().x) * size;
  const int64_t first = p.parts != nullptr ? gpu::block().z * chain : 0;
  const int64_t last = p.parts != nullptr ? smaller(first + chain, p.K) : p.K;
  float sum[size_t(own)][size_t(own)] = {};
  for (int64_t k1 = first; k1 < last; k1 += chain) {
    float c[size_t(own)][size_t(own)];
    for (int j = 0; j < own; j++) {
      const int64_t n = n0 + tx + j;
      for (int i = 0; i < own; i++) c[i][j] = k1 == 0 && p.start != nullptr && n < p.N ? p.start[n] : 0.0f;
    }
    for (int64_t k0 = k1; k0 < smaller(k1 + chain, last); k0 += depth) {
      for (int e = t; e < size * depth; e += 256) {
        // threads side by side read what lies side by side
        const bool by_k = p.A.column == 1;
        const int  along = by_k ? e % depth : e / size, across = by_k ? e / depth : e % size;
        const bool inside = m0 + across < p.M && k0 + along < last;
        a[along * size + across] = inside ? p.A.at(m0 + across, k0 + along) : 0.0f;
      }
      for (int e = t; e < size * depth; e += 256) {
        const bool by_k = p.B.row == 1;
        const int  along = by_k ? e % depth : e / size, across = by_k ? e / depth : e % size;
        const bool inside = n0 + across < p.N && k0 + along < last;
        b[along * size + across] = inside ? p.B.at(k0 + along, n0 + across) : 0.0f;
      }
      gpu::barrier();
      for (int k = 0; k < depth; k++)
        for (int i = 0; i < own; i++) {
          const float x = a[k * size + ty + i];
          for (int j = 0; j < own; j++) c[i][j] = fmaf(x, b[k * size + tx + j], c[i][j]);
        }
      gpu::barrier();
    }
    for (int i = 0; i < own; i++)
      for (int j = 0; j < own; j++) sum[i][j] = k1 == first ? c[i][j] : sum[i][j] + c[i][j];
  }
  float* const  to = p.parts != nullptr ? p.parts + gpu::block().z * p.M * p.wide : p.C;
  const int64_t row = p.parts != nullptr ? p.wide : p.C_row;
  for (int i = 0; i < own; i++)
    for (int j = 0; j < own; j++) {
      const int64_t m = m0 + ty + i, n = n0 + tx + j;
      if (m < p.M && n < p.wide)
        give_to(to, m * row + n, n < p.N ? sum[i][j] : 0.0f, p.more && p.parts == nullptr);
    }
}

struct AddChains {
  Product p;
  int64_t chains;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const int64_t m = i / p.wide, n = i % p.wide;
    float sum = p.parts[i];
    for (int64_t k = 1; k < chains; k++) sum += p.parts[k * p.M * p.wide + i];
    give_to(p.C, m * p.C_row + n, sum, p.more);
  }
};

static bool is_apart(int64_t M, int64_t wide, int64_t K) {
  return K > chain && over(M, 32) * over(wide, 32) < few_blocks;
}
// Bytes of the parts of a product with at most M rows.
static size_t parts_bytes(int64_t M, int64_t wide, int64_t K) {
  const int64_t most = (few_blocks - 1) / over(wide, 32) * 32, rows = M < most ? M : most;
  return K > chain && rows > 0 ? size_t(over(K, chain) * rows * wide) * sizeof(float) : 0;
}
static void product(Product p, float* scratch) {
  const int64_t chains = over(p.K, chain);
  const bool    apart = is_apart(p.M, p.wide, p.K);
  const int64_t size = over(p.M, tile) * over(p.wide, tile) < few_blocks ? 32 : tile;
  const gpu::Grid grid = {unsigned(over(p.wide, size)), unsigned(over(p.M, size)),
                          unsigned(apart ? chains : 1)};
  p.parts = apart ? scratch : nullptr;
  launch(size == 32 ? product_kernel<32> : product_kernel<tile>, grid, 256, 2048 * sizeof(float), p);
  if (apart) each(p.M * p.wide, AddChains{p, chains});
}

// ================================================================================ >>linear
static void linear_forward(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int64_t I = a.in_features, O = a.out_features, N = r.in_numel(0) / I;
  const Matrix  x = {r.in(0), I, 1}, w = {r.parameter(0), padded(O), 1};
  product({N, O, I, x, w, r.parameter(1), r.out(), O, O, false, nullptr}, scratch_of(r));
}
static void linear_backward(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int64_t I = a.in_features, O = a.out_features, N = r.in_numel(0) / I, wide = padded(O);
  const Matrix  dy = {r.dy(), O, 1}, w = {r.parameter(0), 1, wide}, x = {r.in(0), 1, I};
  if (r.dx(0) != nullptr)
    product({N, I, O, dy, w, nullptr, r.dx(0), I, I, r.accumulate(0), nullptr}, scratch_of(r));
  if (r.dparameter(0) != nullptr)
    product({I, O, N, x, dy, nullptr, r.dparameter(0), wide, wide, false, nullptr}, scratch_of(r));
  if (r.dparameter(1) != nullptr) column_sums(r.dy(), N, O, r.dparameter(1), scratch_of(r));
}
static size_t linear_scratch(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  return parts_bytes(r.in_numel(0) / a.in_features, a.out_features, a.in_features);
}
static size_t linear_back_scratch(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int64_t I = a.in_features, O = a.out_features, N = r.in_numel(0) / I;
  const size_t  dx = r.dx(0) != nullptr ? parts_bytes(N, I, O) : 0;
  const size_t  dw = r.dparameter(0) != nullptr ? parts_bytes(I, padded(O), N) : 0;
  const size_t  db = r.dparameter(1) != nullptr ? column_sums_bytes(N, O) : 0, most = dx > dw ? dx : dw;
  return most > db ? most : db;
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

// One side of the images that are read: the window of pixel p has its place k at
// (p scale + start + k step) / stride.
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

// Tiles of 64 x 64, 128 x 32 or 256 x 16, four by four values a thread, k in steps of 16.
template <int width>
struct Tile {                                  // rows of 4 more: what lies below is in another bank
  static constexpr int height = tile * tile / width, a_pitch = height + 4, b_pitch = width + 4;
};
template <bool dw, int width, class T>          // T: what is read at once, Four where channels come in fours
NNLITE_GLOBAL void convolution_kernel(Convolution p) {
  constexpr int height = Tile<width>::height, a_pitch = Tile<width>::a_pitch, b_pitch = Tile<width>::b_pitch;
  constexpr int run = int(sizeof(T) / sizeof(float)), share = height / step / run,
                side = (dw ? height : step) / run;
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
      const int along = p.b_channel == 1 ? e % step : e / width,
                across = p.b_channel == 1 ? e / step : e % width;
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

// Of dw: 32 elements a block, (tap, group, channel, column) in this order; 8 threads an element, one chain
// each.
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
  return up ? Side{size, 1, padding, -dilation, divider(stride)}
            : Side{size, stride, -padding, dilation, divider(1)};
}

// dw by chunks of at least 256 pixels, as many as make some 512 blocks.
static void set_chunks(Convolution& p) {
  const int width = tile_width(p.c_row), height = tile * tile / width;
  const int64_t blocks = is_direct(p)
                             ? (int64_t(p.M) * p.N * p.groups + 31) / 32
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
  const int I = a.in_channels / a.groups, O = a.out_channels / a.groups,
            taps = a.kernel_size.h * a.kernel_size.w;
  const int64_t wide = padded(deep ? a.out_channels : O), tap = deep ? wide : I * wide,
                group = deep ? 1 : taps * tap;
  const int     pixels = r.rows * to.dim[1] * to.dim[2], lines = taps * (back ? O : I);
  Convolution p = {};
  p.a = {back ? r.dy() : r.in(0), side_of(up, from.dim[1], a.stride.h, a.padding.h, a.dilation.h),
         side_of(up, from.dim[2], a.stride.w, a.padding.w, a.dilation.w), from.last(), divider(to.dim[1]),
         divider(to.dim[2]), divider(a.kernel_size.w), divider(back ? O : I)};
  p.groups = a.groups, p.chunks = 1, p.N = back ? I : O;
  if (what == Wanted::dw) {
    p.M = lines, p.K = pixels, p.used = deep ? a.out_channels : O;
    p.b = r.dy(), p.b_group = O, p.b_channel = y.last(), p.b_tap = I * p.b_channel, p.b_column = 1;
    p.c = r.dparameter(0), p.c_group = group, p.c_row = wide,
    p.c_chunk = deep ? taps * tap : a.groups * group;
    set_chunks(p);
  } else {
    p.M = pixels, p.K = p.chunk = lines;
    p.b = r.parameter(0), p.b_group = group, p.b_tap = tap, p.b_channel = back ? 1 : wide,
    p.b_column = back ? wide : 1;
    p.start = back ? nullptr : r.parameter(1), p.c = back ? r.dx(0) : r.out(),
    p.more = back && r.accumulate(0);
    p.c_group = p.N, p.c_row = to.last();
  }
  return p;
}

template <bool dw, int width>
static void launch_tiles(const Convolution& p) {
  using T = Tile<width>;
  const int64_t columns = dw ? p.c_row : p.N;
  const gpu::Grid grid = {unsigned((p.M + T::height - 1) / T::height),
                          unsigned((columns + width - 1) / width), unsigned(p.groups * p.chunks)};
  const bool fours = p.a.pitch % 4 == 0 && p.a.channels.by % 4 == 0;
  launch(fours ? convolution_kernel<dw, width, Four> : convolution_kernel<dw, width, float>, grid, 256,
         step * (T::a_pitch + T::b_pitch) * sizeof(float), p);
}
template <bool dw>
static void convolve(const Convolution& p) {
  const int width = tile_width(dw ? p.c_row : p.N), elements = p.M * p.N * p.groups;
  if (is_direct(p) && dw)
    launch(convolution_dw_kernel, {unsigned(elements + 31) / 32, unsigned(p.chunks)}, 256,
           256 * sizeof(float), p, elements);
  else if (is_direct(p)) each(p.M * p.c_row, ConvolveDirectly{p});
  else if (width == 16) launch_tiles<dw, 16>(p);
  else if (width == 32) launch_tiles<dw, 32>(p);
  else launch_tiles<dw, tile>(p);
}

// No row for images and windows beyond what 32 bits count.
template <class A>
static bool fits(const OpRun& r) {
  const A& a = *static_cast<const A*>(r.attributes);
  const int64_t w = int64_t(a.kernel_size.h) * a.kernel_size.w;
  const Shape&  x = r.in_shape(0);
  for (const int64_t n : {r.in_numel(0) / a.in_channels, r.out_numel() / a.out_channels,
                          w * a.in_channels / a.groups * a.out_channels, int64_t(a.in_channels) * 128,
                          int64_t(a.out_channels) * 128, int64_t(a.stride.h), int64_t(a.stride.w),
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
  const int64_t O = r.out_shape().last();
  const size_t  dw = size_t(of_dw) * sizeof(float),
                db = r.dparameter(1) != nullptr ? column_sums_bytes(r.out_numel() / O, O) : 0;
  return dw > db ? dw : db;
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
  const int64_t O = r.out_shape().last();
  column_sums(r.dy(), r.out_numel() / O, O, r.dparameter(1), scratch_of(r));
}

// ================================================================================ >>losses
// A loss is the mean of n values, the sum of f(i) for i in [0, count), / n: sums of chunks into scratch, then
// their sum by one block.
struct Values {
  const float* of;
  NNLITE_DEVICE float operator()(int64_t i) const { return of[i]; }
};
struct AddTwo {
  NNLITE_DEVICE void merge(float& a, float b) const { a += b; }
};
template <class F>
NNLITE_GLOBAL void sum_kernel(F f, int64_t count, int64_t chunk, float* to, int64_t n, Context* context) {
  const int64_t first = int64_t(gpu::block().x) * chunk, last = smaller(first + chunk, count);
  float sum = 0;
  for (int64_t i = first + gpu::thread(); i < last; i += gpu::threads()) sum += f(i);
  fold(AddTwo(), sum, 1, gpu::shared<float>());
  if (gpu::thread() != 0) return;
  to[gpu::block().x] = n > 0 ? sum / static_cast<float>(n) : sum;                 // n > 0: it is the last
  if (n > 0 && !is_finite(to[0]) && context->failed == 0) context->failed = context->step + 1;
}
constexpr int64_t least_losses = 1024;         // of a chunk, four for each thread
template <class F>
static void mean(const OpRun& r, int64_t n, int64_t count, const F& f) {
  const Chunks   c = chunks_of(count, least_losses);
  const bool     one = c.count == 1;
  const unsigned room = 256 * sizeof(float);
  float* const   to = one ? r.out() : scratch_of(r);
  launch(sum_kernel<F>, {static_cast<unsigned>(c.count)}, 256, room, f, count, c.size, to, one ? n : 0,
         current.context);
  if (!one)
    launch(sum_kernel<Values>, {}, 256, room, Values{to}, c.count, c.count, r.out(), n, current.context);
}
static size_t mean_scratch(const OpRun& r) {
  return chunk_bound(round_up(r.in_numel(0), 32), least_losses) * sizeof(float);
}

// -sum_c q_c log softmax(x)_c of a position, q = (1 - label_smoothing) target + label_smoothing / C. A team a
// position, whose threads give the sum over their own classes.
struct ClassLoss {
  CrossEntropyLoss a;
  int64_t          C, positions;
  Team             team;
  const float *x, *target;                     // of target one of both
  const int32_t* labels;
  float *dx, *dtarget;
  bool  more, more_target;
  float share;

  NNLITE_DEVICE float q(int64_t at, int64_t c, int32_t label) const {
    const float smooth = a.label_smoothing / static_cast<float>(C), keep = 1 - a.label_smoothing;
    if (a.probabilities) return fmaf(keep, target[at], smooth);
    return label == c ? keep + smooth : smooth;
  }
  NNLITE_DEVICE float operator()(int64_t thread) const {
    const int64_t p = thread / team.size, first = thread % team.size, end = p < positions ? C : 0;
    const int32_t label = first < end && !a.probabilities ? labels[p] : 0;
    const float*  v = x + p * C;
    float largest = -float_of(0x7F800000u), sum = 0, total = 0, sum_q = 0;
    for (int64_t c = first; c < end; c += team.size) largest = plain::max(v[c], largest);
    largest = team.largest(largest);
    for (int64_t c = first; c < end; c += team.size) sum += plain::exp(v[c] - largest);
    const float log_sum = plain::log(team.sum(sum));
    for (int64_t c = first; c < end; c += team.size) sum_q += q(p * C + c, c, label);
    sum_q = team.sum(sum_q);
    for (int64_t c = first; c < end; c += team.size) {
      const float logp = v[c] - largest - log_sum, q_c = q(p * C + c, c, label);
      total = fmaf(q_c, log_sum - (v[c] - largest), total);
      if (dx != nullptr) give_to(dx, p * C + c, share * fmaf(plain::exp(logp), sum_q, -q_c), more);
      if (dtarget != nullptr)
        give_to(dtarget, p * C + c, -logp * ((1 - a.label_smoothing) * share), more_target);
    }
    return total;
  }
};
static ClassLoss class_loss(const OpRun& r) {
  const CrossEntropyLoss& a = *static_cast<const CrossEntropyLoss*>(r.attributes);
  const int64_t C = r.in_shape(0).last(), positions = r.in_numel(0) / C;
  ClassLoss f = {a, C, positions, team_of((C + 3) / 4), r.in(0), r.in(1), r.in_i32(1), nullptr, nullptr,
                 false, false, 1 / static_cast<float>(positions)};
  return f;
}
static void cross_entropy_forward(const OpRun& r) {
  const ClassLoss f = class_loss(r);
  mean(r, f.positions, f.team.threads(f.positions), f);
}
static void cross_entropy_backward(const OpRun& r) {
  ClassLoss f = class_loss(r);
  f.dx = r.dx(0), f.dtarget = r.dx(1), f.more = r.accumulate(0), f.more_target = r.accumulate(1);
  each(f.team.threads(f.positions), f);
}

// -x[target] of a position, x are log-probabilities.
struct LikelihoodLoss {
  int64_t        C;
  const float*   x;
  const int32_t* labels;
  float          share;
  float*         dx;
  bool           more;
  NNLITE_DEVICE float operator()(int64_t p) const {
    const int32_t label = labels[p];
    for (int64_t c = 0; c < C && dx != nullptr; c++) give_to(dx, p * C + c, label == c ? -share : 0.0f, more);
    return dx == nullptr ? -x[p * C + label] : 0.0f;
  }
};
static LikelihoodLoss likelihood_loss(const OpRun& r) {
  const int64_t C = r.in_shape(0).last();
  return {C, r.in(0), r.in_i32(1), 1 / static_cast<float>(r.in_numel(0) / C), r.dx(0), r.accumulate(0)};
}
static void nll_loss_forward(const OpRun& r) {
  const LikelihoodLoss f = likelihood_loss(r);
  mean(r, r.in_numel(0) / f.C, r.in_numel(0) / f.C, f);
}
static void nll_loss_backward(const OpRun& r) {
  const LikelihoodLoss f = likelihood_loss(r);
  if (f.dx != nullptr) each(r.in_numel(0) / f.C, f);
}

// Of elements x and t, by >>formulas.
template <class A>
struct ElementLoss {
  A            a;
  float        share;
  const float *x, *t;
  float *      dx, *dt;
  bool         more, more_dt;
  explicit ElementLoss(const OpRun& r)
      : a(*static_cast<const A*>(r.attributes)),
        share(1 / static_cast<float>(r.in_numel(0))),
        x(r.in(0)),
        t(r.in(1)),
        dx(r.dx(0)),
        dt(r.dx(1)),
        more(r.accumulate(0)),
        more_dt(r.accumulate(1)) {}
  NNLITE_DEVICE float operator()(int64_t i) const { return plain::loss_of(a, x[i], t[i]); }
  template <class T>
  NNLITE_DEVICE void operator()(int64_t i, T v) const {
    const T at = load<T>(x, i), target = load<T>(t, i);
    for (int j = 0; j < T::count; j++) v.of[j] = plain::slope_by_x(a, at.of[j], target.of[j]) * share;
    if (dx != nullptr) give_to(dx, i, v, more);
    for (int j = 0; j < T::count; j++) v.of[j] = plain::slope_by_t(a, at.of[j], target.of[j]) * share;
    if (dt != nullptr) give_to(dt, i, v, more_dt);
  }
};
template <class A>
static void element_loss_forward(const OpRun& r) {
  mean(r, r.in_numel(0), r.in_numel(0), ElementLoss<A>(r));
}
template <class A>
static void element_loss_backward(const OpRun& r) { fours(r.in_numel(0), ElementLoss<A>(r)); }

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
  each(r.in_numel(0), Step<A>{*static_cast<const A*>(r.attributes), current.context, r.dparameter(0),
                              r.parameter(0), r.slot(0), r.slot(1)});
}

// ================================================================================ >>rows
// What a row needs of scratch, in bytes.
static size_t no_scratch(const OpRun&) { return 0; }

template <Phase phase_, void (*f)(const OpRun&), size_t (*scratch)(const OpRun&) = no_scratch,
          uint8_t fuses = 0>
struct Row {
  static bool plan(const OpRun& r, KernelPlan& p) {
    p.scratch_shared = scratch(r);
    return p.scratch_shared != refused;
  }
  static void run(const OpRun& r, uint32_t, uint32_t, uint32_t, uint32_t) { f(r); }
  static const Kernel kernel;
};
template <Phase phase_, void (*f)(const OpRun&), size_t (*scratch)(const OpRun&), uint8_t fuses>
const Kernel Row<phase_, f, scratch, fuses>::kernel = {"cuda", phase_, 0, fuses, plan, {run}};

// The rows of an op: forward and backward, or an update.
template <void (*forward)(const OpRun&), void (*backward)(const OpRun&),
          size_t (*scratch)(const OpRun&) = no_scratch, size_t (*back_scratch)(const OpRun&) = no_scratch,
          uint8_t fuses = 0, uint8_t back_fuses = 0>
struct Layer {
  static constexpr const Kernel* rows[] = {
      &Row<Phase::forward, forward, scratch, fuses>::kernel,
      &Row<Phase::backward, backward, back_scratch, back_fuses>::kernel, nullptr};
};
template <class A>
struct Optimizer {
  static constexpr const Kernel* rows[] = {&Row<Phase::update, update<A>>::kernel, nullptr};
};
template <class A>
using Activation = Layer<activation_forward<A>, activation_backward<A>>;
template <class A>
using Arithmetic = Layer<arithmetic_forward<A>, arithmetic_backward<A>, no_scratch, no_scratch, fusion::relu,
                         fusion::mask_dy>;
template <class A>
using Averages = Layer<average_forward<A>, average_backward<A>, pool_scratch<A>, pool_scratch<A>, 0,
                       fusion::mask_dx>;
template <class A>
struct BatchNorm {
  static constexpr const Kernel* rows[] = {
      &Row<Phase::forward, batch_norm_forward<A>, batch_norm_scratch<A>, fusion::relu>::kernel,
      &Row<Phase::backward, batch_norm_backward<A>, batch_norm_back_scratch<A>,
           fusion::mask_dx | fusion::mask_dy>::kernel,
      &Row<Phase::commit, batch_norm_commit<A>>::kernel, nullptr};
};
template <class A>
using ConvolutionLayer = Layer<convolution_forward<A>, convolution_backward<A>, convolution_scratch<A>,
                               convolution_back_scratch<A>>;

template <class A>
using ElementsLoss = Layer<element_loss_forward<A>, element_loss_backward<A>, mean_scratch>;
template <class A, bool of_log>
using Softmaxes = Layer<softmax_forward<A, of_log>, softmax_backward<A, of_log>>;

struct RowsOf { const char* op; const Kernel* const* rows; };
static constexpr RowsOf all_rows[] = {
    {"Adagrad", Optimizer<Adagrad>::rows},
    {"Adam", Optimizer<Adam>::rows},
    {"AdamW", Optimizer<AdamW>::rows},
    {"AdaptiveAvgPool2d", Averages<AdaptiveAvgPool2d>::rows},
    {"Add", Arithmetic<Add>::rows},
    {"AvgPool2d", Averages<AvgPool2d>::rows},
    {"BCELoss", ElementsLoss<BCELoss>::rows},
    {"BCEWithLogitsLoss", ElementsLoss<BCEWithLogitsLoss>::rows},
    {"BatchNorm1d", BatchNorm<BatchNorm1d>::rows},
    {"BatchNorm2d", BatchNorm<BatchNorm2d>::rows},
    {"Concat", Layer<concat_forward, concat_backward, concat_scratch, concat_scratch>::rows},
    {"Conv2d", ConvolutionLayer<Conv2d>::rows},
    {"ConvTranspose2d", ConvolutionLayer<ConvTranspose2d>::rows},
    {"CrossEntropyLoss", Layer<cross_entropy_forward, cross_entropy_backward, mean_scratch>::rows},
    {"Dropout", Layer<dropout_forward, dropout_backward, no_scratch, no_scratch, 0, fusion::mask_dx>::rows},
    {"ELU", Activation<ELU>::rows},
    {"Flatten", Layer<flatten_forward, flatten_backward>::rows},
    {"HuberLoss", ElementsLoss<HuberLoss>::rows},
    {"L1Loss", ElementsLoss<L1Loss>::rows},
    {"LeakyReLU", Activation<LeakyReLU>::rows},
    {"Linear", Layer<linear_forward, linear_backward, linear_scratch, linear_back_scratch>::rows},
    {"LogSoftmax", Softmaxes<LogSoftmax, true>::rows},
    {"MSELoss", ElementsLoss<MSELoss>::rows},
    {"MaxPool2d", Layer<max_pool2d_forward, max_pool2d_backward, pool_scratch<MaxPool2d>,
                        pool_scratch<MaxPool2d>, 0, fusion::mask_max>::rows},
    {"Mul", Arithmetic<Mul>::rows},
    {"NLLLoss", Layer<nll_loss_forward, nll_loss_backward, mean_scratch>::rows},
    {"RMSprop", Optimizer<RMSprop>::rows},
    {"ReLU", Activation<ReLU>::rows},
    {"SGD", Optimizer<SGD>::rows},
    {"Sigmoid", Activation<Sigmoid>::rows},
    {"Softmax", Softmaxes<Softmax, false>::rows},
    {"Tanh", Activation<Tanh>::rows},
    {"Upsample", Layer<upsample_forward, upsample_backward, pool_scratch<Upsample>,
                       pool_scratch<Upsample>, 0, fusion::mask_dx>::rows},
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
NNLITE_GLOBAL void set_context(Context* to, StepContext next) {
  static_cast<StepContext&>(*to) = next;
  if (next.step == next.first) to->failed = 0;
}

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

static Context* context_of(void* device) {
  return reinterpret_cast<Context*>(static_cast<unsigned char*>(device) - context_bytes);
}
static Device& device_of(void* user) { return *static_cast<Device*>(user); }

static Status mirror(void* user, const void* host, size_t bytes, void** device) {
  Device& d = device_of(user);
  const std::lock_guard<std::recursive_mutex> hold(d.lock);
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
  const std::lock_guard<std::recursive_mutex> hold(d.lock);
  d.note(gpu::use_device(d.number));
  if (d.error != 0) return d.status();
  if (way == Copy::to_device) d.note(gpu::copy_in(d.stream, device, host, bytes));
  else d.note(gpu::copy_out(d.stream, host, device, bytes));
  if (way == Copy::from_device && d.error == 0) d.note(gpu::sync(d.stream));
  return d.status();
}

// Where the graph of these steps is in their mirror's list, or becomes the next; nullptr: it has none.
static Recorded* recorded(Device& d, const void* device, const uint32_t key[3], bool& is_new) {
  for (Mirror& m : d.mirrors) {
    if (m.device != device) continue;
    for (int i = 0; i < m.records; i++) {
      Recorded& r = m.recorded[i];
      if (r.key[0] == key[0] && r.key[1] == key[1] && r.key[2] == key[2]) return &r;
    }
    is_new = m.records < max_recorded;
    if (!is_new) return nullptr;
    m.recorded[m.records] = {{key[0], key[1], key[2]}, {}};
    return &m.recorded[m.records++];
  }
  return nullptr;
}
static bool begin(void* user, void* device, const uint32_t key[3], const StepContext& context) {
  Device& d = device_of(user);
  d.lock.lock();
  d.note(gpu::use_device(d.number));
  current = {&d, context_of(device), nullptr};
  launch(set_context, {}, 1, 0, current.context, context);
  bool is_new = false;
  Recorded* const r = key[1] - key[0] < 2 || d.error != 0 ? nullptr : recorded(d, device, key, is_new);
  if (r == nullptr) return true;
  if (is_new) {
    const gpu::Error e = gpu::start_recording(d.stream);
    d.note(e);
    if (e == 0) current.recording = r;
    return true;
  }
  d.note(gpu::run_recorded(d.stream, r->graph));
  d.lock.unlock();
  return false;
}

// What was recorded has not run yet.
static void end(void* user) {
  Device& d = device_of(user);
  if (current.recording != nullptr) {
    const gpu::Error e = gpu::stop_recording(d.stream, current.recording->graph);
    d.note(e);
    if (e == 0) d.note(gpu::run_recorded(d.stream, current.recording->graph));
    current.recording = nullptr;
  }
  d.lock.unlock();
}

// By way of device memory of its own, for an order that only the host can read or write in place.
static Status copy_parameter(void* user, void* device, void* host, const Blocks& blocks, Copy way) {
  Device& d = device_of(user);
  const std::lock_guard<std::recursive_mutex> hold(d.lock);
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
  fours(count, AddUp{to, from, accumulate});
}

// to[r, v] = column[rows[r], v] scale + shift; an index as it is.
struct TakeRows {
  Rows        rows;
  int64_t     values;
  const void* column;
  DType       from;
  float       scale, shift;
  float*      to;
  int32_t*    index;                           // instead
  NNLITE_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / values, at = int64_t(rows[static_cast<uint32_t>(row)]) * values + i % values;
    const bool    small = from == DType::u8;
    if (index != nullptr) {
      index[i] = small ? static_cast<const uint8_t*>(column)[at] : static_cast<const int32_t*>(column)[at];
      return;
    }
    const float v = small ? static_cast<float>(static_cast<const uint8_t*>(column)[at])
                          : static_cast<const float*>(column)[at];
    to[i] = scale == 1.0f && shift == 0.0f ? v : fmaf(v, scale, shift);
  }
};
static bool gather(void* user, const Gather& g) {
  Device& d = device_of(user);
  const std::lock_guard<std::recursive_mutex> hold(d.lock);
  const Mirror* const m =
      g.column.data != nullptr && g.column.dtype != DType::f64 ? d.mirror_of(g.column.data) : nullptr;
  if (m == nullptr) return false;
  d.note(gpu::use_device(d.number));
  current = {&d, nullptr, nullptr};
  const bool index = g.dtype == DType::i32;
  each(g.rows.rows * g.values,
       TakeRows{g.rows, g.values, m->device, g.column.dtype, g.column.scale, g.column.shift,
                index ? nullptr : static_cast<float*>(g.to), index ? static_cast<int32_t*>(g.to) : nullptr});
  return true;
}

static Status wait(void* user, void* device, uint64_t* failed) {
  Device& d = device_of(user);
  const std::lock_guard<std::recursive_mutex> hold(d.lock);
  if (failed == nullptr && d.error == 0) d.note(gpu::sync(d.stream));
  if (failed == nullptr) return d.status();
  return copy(user, &context_of(device)->failed, failed, sizeof *failed, Copy::from_device);
}

static Device  devices[max_devices];
static Backend backends[max_devices];
}  // namespace cuda

const Backend* cuda_rows() {
  static const Backend rows = {nullptr, cuda::rows_of, nullptr, nullptr, nullptr,
                               nullptr, nullptr,       nullptr, nullptr, nullptr};
  return &rows;
}

const Backend* cuda_backend(int number) {
  if (number < 0 || number >= cuda::max_devices) return nullptr;
  cuda::Device& d = cuda::devices[number];
  const std::lock_guard<std::recursive_mutex> hold(d.lock);
  int count = 0;
  if (!d.open) {
    if (gpu::device_count(count) != 0 || number >= count || gpu::use_device(number) != 0) return nullptr;
    if (gpu::new_stream(d.stream) != 0) return nullptr;
    d.number = number, d.error = 0, d.open = true;
    cuda::backends[number] = {&d,          cuda::rows_of, cuda::mirror, cuda::copy,   cuda::copy_parameter,
                              cuda::begin, cuda::end,     cuda::add,    cuda::gather, cuda::wait};
  }
  return &cuda::backends[number];
}

void close_cuda(int number) {
  if (number < 0 || number >= cuda::max_devices) return;
  cuda::Device& d = cuda::devices[number];
  const std::lock_guard<std::recursive_mutex> hold(d.lock);
  if (!d.open) return;
  d.note(gpu::use_device(number));
  for (cuda::Mirror& m : d.mirrors) d.drop(m);
  (void)gpu::end_stream(d.stream);
  d.open = false;
}
}  // inline namespace
}  // namespace nnlite
