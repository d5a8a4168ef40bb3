// nnlite_cuda: the models of nnlite.hpp on NVIDIA GPUs, the same graph, plan, steps and checkpoints.
//
//   options.backend = nnlite::cuda_backend(0);          // declared in nnlite.hpp; absent: a link error
//
// Products are made by tensor cores: one of fp32 is three of tf32, with the errors of fp32, see >>tensor.
// Those of tf32 and bf16 round their factors; what is in memory, and every sum, is fp32. Large ones of these
// are left to cuBLASLt.
//
// Any thread may use any GPU, in a Watch, too. It has the GPU that it had before afterwards, unless that has no
// primary context: CUDA would make one there, of hundreds of MB.
//
// Compile this file with nvcc (C++17) and link it and -lcublasLt with the program, whose one file with
// NNLITE_IMPLEMENTATION stays as it is. Search for ">>room" to jump: every name appears twice, here and at
// its room. MIT licence.
//
//   >>seams >>device >>reduce >>elementwise >>normalise >>pooling >>softmax >>tensor >>product >>linear
//   >>window >>convolution >>losses >>optimizers >>rows >>backend
//
// A row of the backend runs on the host and launches kernels; every pointer of its OpRun but the attributes
// and shapes is the device's. Weights lie as [outer][lines][columns, padded to 16], see Blocks. Sums have a
// fixed order that depends on shapes alone: the same bits in every run on one kind of GPU.

// ================================================================================ >>seams
// All that this file knows of CUDA, so that tests can put the CPU in its place (tests/fake_cuda).
#ifdef NNLITE_CUDA_SEAMS
#include NNLITE_CUDA_SEAMS
#else
#include <cublasLt.h>
#include <cuda.h>
#include <cuda_runtime.h>
#define NNLITE_SHARED __host__ __device__
#define NNLITE_DEVICE __device__
#define NNLITE_GLOBAL __global__
#define NNLITE_THREADS(n, blocks) __launch_bounds__(n, blocks)    // of a block, of which so many fit
#define NNLITE_UNROLL _Pragma("unroll")
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

inline Error told(Error e) {
  if (e != 0) (void)cudaGetLastError();        // or the next launch would report it
  return e;
}
inline const char* text_of(Error e) { return cudaGetErrorString(static_cast<cudaError_t>(e)); }
inline Error current_device(int& number) { return told(cudaGetDevice(&number)); }
inline Error use_device(int number) { return told(cudaSetDevice(number)); }
// Whether it has a context, which cudaSetDevice would make. Only the driver knows, whose function is looked
// up, as a program that links it would not start without a GPU.
inline bool is_in_use(int number) {
  static const auto state = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult found = {};
    (void)told(cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &f, 7000, cudaEnableDefault,
                                                &found));
    return reinterpret_cast<decltype(&cuDevicePrimaryCtxGetState)>(f);
  }();
  unsigned flags = 0;
  int active = 1;                              // where it cannot be told
  if (state != nullptr) (void)state(number, &flags, &active);
  return active != 0;
}
static __global__ void some_kernel() {}
// Whether launches can, which wait in follow(). An error: nothing here was compiled for this device.
inline Error can_overlap(bool& can) {
  cudaFuncAttributes a = {};
  const Error e = told(cudaFuncGetAttributes(&a, some_kernel));
  can = e == 0 && a.ptxVersion >= 90;
  return e;
}
inline Error new_stream(Stream& s) { return cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking); }
inline Error end_stream(Stream s) { return cudaStreamDestroy(s); }
inline Error take(void** memory, size_t bytes) { return told(cudaMalloc(memory, bytes)); }
inline Error give(void* memory) { return cudaFree(memory); }
inline Error copy_in(Stream s, void* device, const void* host, size_t bytes) {
  return cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, s);
}
inline Error copy_out(Stream s, void* host, const void* device, size_t bytes) {
  return cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s);
}
inline Error sync(Stream s) { return cudaStreamSynchronize(s); }
inline bool  no_memory(Error e) { return e == cudaErrorMemoryAllocation; }

// Launches between start and stop are not run but recorded, and a graph runs them so many times.
using Recording = cudaGraph_t;
using Graph     = cudaGraphExec_t;
inline Error start_recording(Stream s) { return cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal); }
inline Error stop_recording(Stream s, Recording& to) { return cudaStreamEndCapture(s, &to); }
inline Error end_recording(Recording r) { return cudaGraphDestroy(r); }
inline Error new_graph(Recording of, int times, Graph& to) {
  cudaGraph_t all = nullptr;
  cudaGraphNode_t last = nullptr;
  Error e = cudaGraphCreate(&all, 0);
  for (int i = 0; i < times && e == 0; i++) {
    const cudaGraphNode_t before = last;
    e = cudaGraphAddChildGraphNode(&last, all, &before, i > 0 ? 1 : 0, of);
  }
  if (e == 0) e = cudaGraphInstantiate(&to, all, 0);
  if (all != nullptr) (void)cudaGraphDestroy(all);
  return e;
}
inline Error run_graph(Stream s, Graph g) { return cudaGraphLaunch(g, s); }
inline Error end_graph(Graph g) { return cudaGraphExecDestroy(g); }

struct Grid { unsigned x = 1, y = 1, z = 1; };
template <class... P, class... A>
inline Error launch(Stream s, bool overlaps, void (*kernel)(P...), Grid grid, unsigned threads, size_t shared,
                    A... arguments) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t c = {};
  c.gridDim = dim3(grid.x, grid.y, grid.z), c.blockDim = threads, c.dynamicSmemBytes = shared;
  c.stream = s, c.attrs = &early, c.numAttrs = overlaps ? 1 : 0;
  return told(cudaLaunchKernelEx(&c, kernel, P(arguments)...));
}

// Products by cuBLASLt, which is opened once for a device.
using Multiplier = cublasLtHandle_t;
inline Error error_of(cublasStatus_t s) {
  if (s == CUBLAS_STATUS_SUCCESS) return 0;
  (void)cudaGetLastError();
  return s == CUBLAS_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation : cudaErrorUnknown;
}
inline Error new_multiplier(Multiplier& m) { return error_of(cublasLtCreate(&m)); }
inline Error end_multiplier(Multiplier m) { return error_of(cublasLtDestroy(m)); }
// A Linear of so many is large. (Tests without a GPU have fewer.)
constexpr int64_t many_products() { return int64_t(1) << 28; }

// C[m, n] = bias[n] + sum over k of A[m, k] B[k, n]. A line of a matrix begins so many floats behind the one
// before, and every pointer at a multiple of 16 bytes. Of transposed matrices columns lie as lines.
struct Matmul {
  int          M, N, K;
  const float *A, *B;
  float*       C;
  int64_t      a_line, b_line, c_line;
  bool         a_transposed, b_transposed;
  const float* bias;                           // nullptr: zeros
  bool         more;                           // C +=
  int          bits;                           // of a factor: 11 are tf32, 8 bf16
};
// cuBLASLt has columns where we have lines: it takes what lies there for the transposed matrix, A for A'
// [K, M], B for B' [N, K], C for C' [N, M], from column to column as far as ours from line to line. So it is
// to make C' = B' A': its first factor is our B, its second our A; its rows are our N, and along them an
// epilogue has its bias. A matrix of ours that is transposed lies there as [M, K] of A or [K, N] of B, for it
// to transpose. Without a workspace and without reductions between blocks every sum has one order, and a
// recording needs no memory. The algorithm follows from shapes alone: of addresses it is told that they are
// multiples of 16 bytes, and no more.
inline Error matmul(Multiplier with, Stream stream, const Matmul& m) {
  cublasLtMatmulDescOpaque_t       product = {};
  cublasLtMatrixLayoutOpaque_t     first = {}, second = {}, result = {};
  cublasLtMatmulPreferenceOpaque_t wanted = {};
  cublasLtMatmulHeuristicResult_t  found = {};
  cublasStatus_t s = CUBLAS_STATUS_SUCCESS;
  const auto step = [&](cublasStatus_t next) { s = s == CUBLAS_STATUS_SUCCESS ? next : s; };
  const auto describe = [&](cublasLtMatmulDescAttributes_t what, const auto& as) {
    step(cublasLtMatmulDescSetAttribute(&product, what, &as, sizeof as));
  };
  const auto want = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& as) {
    step(cublasLtMatmulPreferenceSetAttribute(&wanted, what, &as, sizeof as));
  };
  const auto layout = [&](cublasLtMatrixLayoutOpaque_t& to, bool transposed, int rows, int columns,
                          int64_t from_column_to_column) {
    step(cublasLtMatrixLayoutInit(&to, CUDA_R_32F, static_cast<uint64_t>(transposed ? columns : rows),
                                  static_cast<uint64_t>(transposed ? rows : columns), from_column_to_column));
  };
  const auto operation = [](bool transposed) { return int32_t(transposed ? CUBLAS_OP_T : CUBLAS_OP_N); };
  step(cublasLtMatmulDescInit(
      &product, m.bits == 8 ? CUBLAS_COMPUTE_32F_FAST_16BF : CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F));
  describe(CUBLASLT_MATMUL_DESC_TRANSA, operation(m.b_transposed));
  describe(CUBLASLT_MATMUL_DESC_TRANSB, operation(m.a_transposed));
  describe(CUBLASLT_MATMUL_DESC_EPILOGUE,
           m.bias != nullptr ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
  if (m.bias != nullptr) describe(CUBLASLT_MATMUL_DESC_BIAS_POINTER, m.bias);
  layout(first, m.b_transposed, m.N, m.K, m.b_line);
  layout(second, m.a_transposed, m.K, m.M, m.a_line);
  layout(result, false, m.N, m.M, m.c_line);
  step(cublasLtMatmulPreferenceInit(&wanted));
  want(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(0));
  want(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t(CUBLASLT_REDUCTION_SCHEME_NONE));
  for (const auto alignment :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    want(alignment, uint32_t(16));
  if (s != CUBLAS_STATUS_SUCCESS) return error_of(s);
  // A kernel is loaded where it is first wanted, which a thread that records would not be allowed to.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  const Error e = cudaThreadExchangeStreamCaptureMode(&mode);
  if (e != 0) return e;
  const float one = 1, before = m.more ? 1.0f : 0.0f;
  int count = 0;
  s = cublasLtMatmulAlgoGetHeuristic(with, &product, &first, &second, &result, &result, &wanted, 1, &found,
                                     &count);
  if (s == CUBLAS_STATUS_SUCCESS && count < 1) s = CUBLAS_STATUS_NOT_SUPPORTED;
  if (s == CUBLAS_STATUS_SUCCESS)
    s = cublasLtMatmul(with, &product, &one, m.B, &first, m.A, &second, &before, m.C, &result, m.C, &result,
                       &found.algo, nullptr, 0, stream);
  (void)cudaThreadExchangeStreamCaptureMode(&mode);
  return error_of(s);
}

// Inside a kernel. follow() comes first: a launch that overlaps comes up while the one ahead of it ends, and
// waits there until all of its memory is written.
NNLITE_DEVICE inline void follow() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
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
// n values of every lane of a warp, for all of them.
template <int n>
struct Lanes {
  const float (&mine)[size_t(n)];
  NNLITE_DEVICE explicit Lanes(const float (&values)[size_t(n)]) : mine(values) {}
  NNLITE_DEVICE float of(int lane, int i) const { return __shfl_sync(0xFFFFFFFFu, mine[i], lane); }  // one i
};

// A float or four into shared memory, zeros unless they are there. Copies up to a commit are a group; a wait
// ends when all but the latest n groups of the thread have arrived, those of others after a barrier.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define NNLITE_TENSOR                          // room >>tensor: by instructions
#endif
template <int floats>
NNLITE_DEVICE inline void copy_async(float* to, const float* from, bool there) {
#ifdef NNLITE_TENSOR
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to)), bytes = there ? 4 * floats : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(at), "l"(from), "n"(4 * floats),
               "r"(bytes)
               : "memory");
#else
  for (int i = 0; i < floats; i++) to[i] = there ? from[i] : 0.0f;
#endif
}
NNLITE_DEVICE inline void commit_copies() {
#ifdef NNLITE_TENSOR
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
template <int n>
NNLITE_DEVICE inline void wait_for_copies() {
#ifdef NNLITE_TENSOR
  asm volatile("cp.async.wait_group %0;\n" ::"n"(n) : "memory");
#endif
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

constexpr int max_devices = 16, max_mirrors = 256;

// What differs from a step to the next, and what steps find where they begin.
struct Turn {
  StepContext next;
  Rows        rows;                            // that it draws
  uint32_t    epoch;                           // whose pictures they are, where those change
  uint32_t    is_first;                        // of those that are waited for together
};
// What kernels read of the step that runs, in front of every mirror. A graph of several steps finds their
// turns here: the first launch takes the one that is coming, and the loss says which comes then.
constexpr int turns = 16;
constexpr unsigned norm_blocks = 64;
struct Context : StepContext, Waited {
  int   taken, coming;
  Turn  queue[turns];
  float squares[norm_blocks];                  // of the gradients, where they are clipped by their norm
};
constexpr size_t context_bytes = 2048;
static_assert(sizeof(Context) <= context_bytes, "Context does not fit");

// A column that was mirrored, for the steps that come next:
// to[r, v] = column[rows[r], v] scale + shift; an index as it is.
struct Draw {
  int64_t     values, end;                     // of a row; of all draws up to this one, of pictures: rows
  const void* column;
  DType       from;
  float       scale, shift;
  float*      to;
  int32_t*    index;                           // instead
  NNLITE_DEVICE float value(int64_t at) const {
    const float v = from == DType::u8 ? static_cast<float>(static_cast<const uint8_t*>(column)[at])
                                      : static_cast<const float*>(column)[at];
    return scale == 1.0f && shift == 0.0f ? v : fmaf(v, scale, shift);
  }
  bool operator==(const Draw& o) const {
    return values == o.values && end == o.end && column == o.column && from == o.from && scale == o.scale &&
           shift == o.shift && to == o.to && index == o.index;
  }
};
// Pictures of a column that change at random on their way.
struct Pictures {
  Draw     draw;
  Augment  how;
  int64_t  H, W, C;
  uint64_t seed;
  bool operator==(const Pictures& o) const {
    return draw == o.draw && __builtin_memcmp(&how, &o.how, sizeof how) == 0 && H == o.H && W == o.W &&
           C == o.C && seed == o.seed;
  }
};
struct Draws {
  int      count;
  Draw     of[max_inputs + 1];
  bool     changes;                            // whether there are pictures, too
  Pictures pictures;
  bool    any() const { return count > 0 || changes; }
  int64_t elements() const { return count > 0 ? of[count - 1].end : 0; }
  bool operator==(const Draws& o) const {
    bool same = count == o.count && changes == o.changes && (!changes || pictures == o.pictures);
    for (int i = 0; i < count && same; i++) same = of[i] == o.of[i];
    return same;
  }
};

// Steps as a graph, by the arena that they run in, their key and what they draw. Those that draw are a graph
// of `turns` steps, too.
struct Recorded {
  const void* arena;                           // nullptr: this place is free
  uint32_t    key[3];
  Draws       draws;
  gpu::Graph  once, often;
};
constexpr int max_recorded = 32;               // others run launch by launch

struct Mirror {
  const unsigned char* host = nullptr;
  size_t               bytes = 0;
  unsigned char*       device = nullptr;       // behind the context
  bool overlaps(const unsigned char* from, size_t n) const {
    return device != nullptr && n > 0 && host < from + n && from < host + bytes;
  }
};

struct Device {
  int         number = 0;                      // -1: there is none
  bool        open = false, overlaps = false;
  gpu::Stream stream = {};
  gpu::Multiplier multiplier = {};
  gpu::Error  error = 0;                       // the first; every Status tells of it from then on
  Mirror      mirrors[max_mirrors];
  Recorded    recorded[max_recorded];
  Draws       draws;                           // they wait for the steps, to be one launch with their context
  Turn        drawn;                           // of these draws
  Recorded*   queued;                          // steps that wait for more of them, to be one graph
  int         queue_count;
  Turn        queue[turns];
  // Of every call and launch, and from begin to end of what is recorded, as a stream records for one. Whoever
  // has it waits for no other's: in a Watch, where all may be called, nobody has any.
  std::recursive_mutex lock;
  void (*see)(void* user, const CudaLaunch&) = nullptr;    // of cuda_rows: instead of all launches
  void* seer = nullptr;

  void note(gpu::Error e) { if (error == 0) error = e; }
  Status status() const {
    return error == 0 ? Status::ok : gpu::no_memory(error) ? Status::out_of_memory : Status::device_error;
  }
  void forget(Recorded& r) {
    if (r.once != nullptr) note(gpu::end_graph(r.once));
    if (r.often != nullptr) note(gpu::end_graph(r.often));
    r = {};
  }
  void forget(const Mirror& m) {
    for (Recorded& r : recorded)
      if (m.device != nullptr && r.arena == m.device) forget(r);
  }
  const Mirror* mirror_of(const void* host, size_t bytes) {
    for (const Mirror& m : mirrors)
      if (m.device != nullptr && m.host == host && m.bytes >= bytes) return &m;
    return nullptr;
  }
  void drop(Mirror& m) {
    forget(m);
    if (m.device != nullptr) note(gpu::give(m.device - context_bytes));
    m = Mirror();
  }
  int enter() {                                // the device of this thread till then
    int before = number;
    const gpu::Error e = gpu::current_device(before);
    note(e != 0 ? e : gpu::use_device(number));
    return e != 0 ? number : before;
  }
  void leave(int before) const {               // what another device says to that is no fault of this one
    if (before != number && gpu::is_in_use(before)) (void)gpu::use_device(before);
  }
};
using Lock = std::unique_lock<std::recursive_mutex>;
// A call that has the device to itself.
struct Hold : NotCopied {
  Device&    d;
  const Lock lock;
  const int  before;
  explicit Hold(Device& device) : d(device), lock(device.lock), before(device.enter()) {}
  ~Hold() { d.leave(before); }
};
static void open(Device& d) {
  if (d.open) return;
  d.error = 0, d.queue_count = 0, d.draws.count = 0, d.draws.changes = false;
  const Hold hold(d);
  if (d.error == 0) d.note(gpu::can_overlap(d.overlaps));
  if (d.error == 0) d.note(gpu::new_stream(d.stream));
  if (d.error != 0) return;
  d.note(gpu::new_multiplier(d.multiplier));
  d.open = d.error == 0;
  if (!d.open) (void)gpu::end_stream(d.stream);
}

// Parameters whose updates wait for each other, to be one launch.
constexpr int max_updates = 32;
struct Updates {
  int          count;
  const void*  attributes;                     // of the optimizer
  void (*run)(const Updates&);
  int64_t      end[max_updates];               // of the fours of all up to this one
  const float* g[max_updates];
  float *      w[max_updates], *m[max_updates], *v[max_updates];
};

// The device and context of the steps that run on this thread.
struct Current {
  Device*   device;
  int       before;                            // as of Device::enter
  Context*  context;                           // in the device's memory
  Recorded* recording;                         // where they go; nullptr: they run
  Precision precision;
  Updates   updates;
  void (*loss)(const OpRun&);                  // forward of a loss, which its backward does, too; or nullptr
  OpRun     of_loss;
};
constexpr int max_depth = 8;                     // of steps inside of a Watch of steps
static thread_local Current current, around[max_depth];          // around: what ran when steps began
static thread_local int     depth = 0;

// What waits for a launch that it can be part of, and now goes alone.
static void run_waiting() {
  if (current.loss != nullptr) {
    void (*const run)(const OpRun&) = current.loss;
    current.loss = nullptr;
    run(current.of_loss);
  }
  if (current.updates.count == 0) return;
  const Updates all = current.updates;
  current.updates.count = 0;
  all.run(all);
}
static void push(const Current& inner) {
  run_waiting();
  around[depth++] = current;
  current = inner;
}
static void pop() { current = around[--depth]; }
template <class... P, class... A>
static void launch(void (*kernel)(P...), gpu::Grid grid, unsigned threads, size_t shared, A... arguments) {
  run_waiting();
  Device& d = *current.device;
  const unsigned blocks = grid.x * grid.y * grid.z;
  if (d.see != nullptr) return d.see(d.seer, {__PRETTY_FUNCTION__, blocks, threads, shared});
  const Lock lock(d.lock);
  d.note(gpu::launch<P...>(d.stream, d.overlaps, kernel, grid, threads, shared, P(arguments)...));
}
static void launch(gpu::Matmul m) {            // of tf32 or bf16
  run_waiting();
  Device& d = *current.device;
  if (d.see != nullptr) return d.see(d.seer, {"cuBLASLt", 0, 0, 0});
  const Lock lock(d.lock);
  m.bits = current.precision == Precision::bf16 ? 8 : 11;
  d.note(gpu::matmul(d.multiplier, d.stream, m));
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
using Two = Pack<2>;
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
  gpu::follow();
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
  gpu::follow();
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

// What the threads of a block have, those a multiple of `width` apart, becomes one in those below width:
// halves are merged, then the last eight in their order, so that few values are added up as the CPU does.
// `room` is shared memory for all threads, at least 8 width of them.
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
  gpu::follow();
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
  gpu::follow();
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
  gpu::follow();
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

// ================================================================================ >>tensor
// Products of small matrices by a warp, m16n8k8 of the tensor cores. Lane 4 g + t has
//   of A [16][8]   (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4)
//   of B [8][8]    (t, g) (t + 4, g)
//   of C [16][8]   (g, 2 t) (g, 2 t + 1) (g + 8, 2 t) (g + 8, 2 t + 1)
// Tensor cores read 11 bits of a float, and cut off what they add. An exact product has each factor as
// big + small of 11 bits and more, and leaves out small * small: some 22 bits, as in Ootomo, Yokota,
// "Recovering single precision accuracy from Tensor Cores", 2022. Callers add up few of them in one C.
// Those of bf16 are m16n8k16, with two factors in a register, from k on: lane 4 g + t has
//   of A [16][16]  (g, 2 t) (g + 8, 2 t) (g, 2 t + 8) (g + 8, 2 t + 8)
//   of B [16][8]   (2 t, g) (2 t + 8, g)
// A sum may take its k's in any order that A and B agree on, so lanes pair what they have of two m16n8k8.
#ifdef NNLITE_TENSOR
NNLITE_DEVICE inline uint32_t rounded(float v, bool exact) {        // to 11 bits
  uint32_t bits = (__float_as_uint(v) + 0x1000u) & 0xFFFFE000u;    // a rest of NaN is NaN, whatever this is
  if (!exact) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
  return bits;
}
NNLITE_DEVICE inline void multiply_once(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
NNLITE_DEVICE inline void multiply_pairs(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <size_t n>
NNLITE_DEVICE inline void split(const float (&v)[n], uint32_t (&big)[n], uint32_t (&small)[n], bool exact) {
  NNLITE_UNROLL
  for (size_t q = 0; q < n; q++) {
    big[q]   = rounded(v[q], exact);
    small[q] = __float_as_uint(v[q] - __uint_as_float(big[q]));
  }
}
#endif

// Two factors of bf16, the first one in the lower half; to the nearest, of two the even one.
NNLITE_DEVICE inline uint32_t pair_of(float first, float second) {
#ifdef NNLITE_TENSOR
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
#else
  const auto half = [](float v) {
    const uint32_t bits = bits_of(v);
    return v == v ? (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16 : 0x7FFFu;
  };
  return half(second) << 16 | half(first);
#endif
}

// c[i][j] += a[i] b[j]
template <bool exact, size_t rows, size_t columns>
NNLITE_DEVICE inline void multiply(float (&c)[rows][columns][4], const float (&a)[rows][4],
                                   const float (&b)[columns][2]) {
#ifdef NNLITE_TENSOR
  uint32_t a_big[rows][4], a_small[rows][4], b_big[2], b_small[2];
  NNLITE_UNROLL
  for (size_t i = 0; i < rows; i++) split(a[i], a_big[i], a_small[i], exact);
  NNLITE_UNROLL
  for (size_t j = 0; j < columns; j++) {
    split(b[j], b_big, b_small, exact);
    NNLITE_UNROLL
    for (size_t i = 0; i < rows && exact; i++) multiply_once(c[i][j], a_small[i], b_big);
    NNLITE_UNROLL
    for (size_t i = 0; i < rows && exact; i++) multiply_once(c[i][j], a_big[i], b_small);
    NNLITE_UNROLL
    for (size_t i = 0; i < rows; i++) multiply_once(c[i][j], a_big[i], b_big);
  }
#else
  const auto factor = [](float v) {
    uint32_t bits = 0;
    memcpy(&bits, &v, sizeof bits);
    return exact || (bits & 0x7F800000u) == 0x7F800000u ? v : float_of((bits + 0x1000u) & 0xFFFFE000u);
  };
  float mine[4 * rows + 2 * columns];
  for (size_t i = 0; i < 4 * rows; i++) mine[i] = factor(a[i / 4][i % 4]);
  for (size_t j = 0; j < 2 * columns; j++) mine[4 * rows + j] = factor(b[j / 2][j % 2]);
  const gpu::Lanes<int(4 * rows + 2 * columns)> all(mine);
  const int lane = static_cast<int>(gpu::thread()) % 32, g = lane / 4, t = lane % 4;
  for (int k = 0; k < 8; k++) {
    float x[rows][2], y[columns][2];
    for (size_t i = 0; i < rows; i++)
      for (int q = 0; q < 2; q++) x[i][q] = all.of(4 * g + k % 4, int(4 * i) + k / 4 * 2 + q);
    for (size_t j = 0; j < columns; j++)
      for (int q = 0; q < 2; q++) y[j][q] = all.of(4 * (2 * t + q) + k % 4, int(4 * rows + 2 * j) + k / 4);
    for (size_t i = 0; i < rows; i++)
      for (size_t j = 0; j < columns; j++)
        for (size_t q = 0; q < 4; q++) c[i][j][q] = fmaf(x[i][q / 2], y[j][q % 2], c[i][j][q]);
  }
#endif
}

// How many steps of k are multiplied together: those of m16n8k16 are two.
template <Precision p>
constexpr size_t steps_of = p == Precision::bf16 ? 2 : 1;
template <Precision precision, size_t rows, size_t columns>
NNLITE_DEVICE inline void multiply(float (&c)[rows][columns][4], const float (&a)[1][rows][4],
                                   const float (&b)[1][columns][2]) {
  multiply<precision == Precision::fp32>(c, a[0], b[0]);
}
// c[i][j] += a[0][i] b[0][j] + a[1][i] b[1][j] of bf16
template <Precision, size_t rows, size_t columns>
NNLITE_DEVICE inline void multiply(float (&c)[rows][columns][4], const float (&a)[2][rows][4],
                                   const float (&b)[2][columns][2]) {
  uint32_t x[rows][4], y[columns][2];
  NNLITE_UNROLL
  for (size_t i = 0; i < rows; i++)
    for (size_t q = 0; q < 4; q++) x[i][q] = pair_of(a[q / 2][i][q % 2], a[q / 2][i][q % 2 + 2]);
  NNLITE_UNROLL
  for (size_t j = 0; j < columns; j++)
    for (size_t q = 0; q < 2; q++) y[j][q] = pair_of(b[q][j][0], b[q][j][1]);
#ifdef NNLITE_TENSOR
  NNLITE_UNROLL
  for (size_t i = 0; i < rows * columns; i++)
    multiply_pairs(c[i % rows][i / rows], x[i % rows], y[i / rows]);
#else
  float mine[4 * rows + 2 * columns];
  for (size_t i = 0; i < 4 * rows; i++) mine[i] = float_of(x[i / 4][i % 4]);
  for (size_t j = 0; j < 2 * columns; j++) mine[4 * rows + j] = float_of(y[j / 2][j % 2]);
  const gpu::Lanes<int(4 * rows + 2 * columns)> all(mine);
  const int lane = static_cast<int>(gpu::thread()) % 32, g = lane / 4, t = lane % 4;
  const auto factor = [](float pair, int k) {
    return float_of(k % 2 == 0 ? bits_of(pair) << 16 : bits_of(pair) & 0xFFFF0000u);
  };
  for (int k = 0; k < 16; k++) {
    const int from = k % 8 / 2;                // the lane of a row or column that has k
    float     u[rows][2], v[columns][2];
    for (size_t i = 0; i < rows; i++)
      for (int q = 0; q < 2; q++) u[i][q] = factor(all.of(4 * g + from, int(4 * i) + k / 8 * 2 + q), k);
    for (size_t j = 0; j < columns; j++)
      for (int q = 0; q < 2; q++)
        v[j][q] = factor(all.of(4 * (2 * t + q) + from, int(4 * rows + 2 * j) + k / 8), k);
    for (size_t i = 0; i < rows; i++)
      for (size_t j = 0; j < columns; j++)
        for (size_t q = 0; q < 4; q++) c[i][j][q] = fmaf(u[i][q / 2], v[j][q % 2], c[i][j][q]);
  }
#endif
}

// ================================================================================ >>product
// C[m, n] = bias[n] + sum over k of A[m, k] B[k, n]. A warp makes a tile of 16 x 16 from a share of k, and
// reads what it needs where it lies; the warps of a tile are in one block, which adds their shares in order.
// For products whose time is that of a launch.
struct Matrix {
  const float* data;
  int64_t      row, column;                    // strides
  const float* positive;                       // as data; where it is not > 0 there are zeros; or nullptr
};
struct Product {
  int          M, N, K;
  Matrix       A, B;
  int          ones;                           // this row of A, the last, is not there but has ones; -1: none
  const float* bias;                           // nullptr: zeros
  float*       C;
  int          wide;                           // columns of C; those from N on become zeros
  float*       last;                           // where row M - 1 goes instead, or nullptr
  const float* positive;                       // as C: where it is not > 0, C becomes zero; or nullptr
  bool         relu, more;                     // C = max(0, ...); C +=
  Precision    precision;
  int          across, split, share;           // tiles side by side; warps of a tile; lines of k of one
  int          tiles;                          // of a block
  unsigned     blocks;
};
constexpr int edge = 16, warps = 16, chain = 128;
constexpr int over(int n, int by) { return (n + by - 1) / by; }

// What a lane reads of a matrix: two lines of it, 8 apart, and of each four values along k, of which the last
// may not be there. Lines beyond the edge are the last one. All are fetched before one is looked at.
struct Lane {
  const float *at[2], *positive[2];
  int64_t      along;                          // from one k to the next
  float        value[4][2], sign[4][2];
  NNLITE_DEVICE Lane(const Matrix& m, int64_t line, int64_t k_stride, int first, int count, int k)
      : along(k_stride) {
    for (int j = 0; j < 2; j++) {
      const int i = first + j * 8;
      const int64_t offset = (i < count ? i : count > 0 ? count - 1 : 0) * line + k * along;
      at[j] = m.data + offset, positive[j] = m.positive != nullptr ? m.positive + offset : nullptr;
    }
  }
  NNLITE_DEVICE static void fetch(const float* from[2], int64_t along, int there, float to[4][2]) {
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 2; j++) to[i][j] = i < there ? from[j][i * along] : 0.0f;
    for (int j = 0; j < 2; j++) from[j] += edge * along;
  }
  NNLITE_DEVICE void fetch(int there) {
    fetch(at, along, there, value);
    if (positive[0] != nullptr) fetch(positive, along, there, sign);
  }
  NNLITE_DEVICE void mask() {
    if (positive[0] == nullptr) return;
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 2; j++) value[i][j] = sign[i][j] > 0 ? value[i][j] : 0.0f;
  }
};

template <Precision precision>
NNLITE_DEVICE inline void multiply_lanes(const Lane& a, const Lane& b, float (&c)[1][2][4]) {
  constexpr size_t steps = steps_of<precision>;
  for (size_t i = 0; i < 4; i += 2 * steps) {
    float rows[steps][1][4], columns[steps][2][2];
    for (size_t k = 0; k < 2 * steps; k++)
      for (size_t j = 0; j < 2; j++) {
        rows[k / 2][0][k % 2 * 2 + j] = a.value[i + k][j];
        columns[k / 2][j][k % 2]      = b.value[i + k][j];
      }
    multiply<precision>(c, rows, columns);
  }
}

// One warp's sums of a tile, as multiply() has them in its lanes: [8 columns][4].
NNLITE_DEVICE inline void sums_of_tile(const Product& p, int m0, int n0, int first, int last,
                                       float sum[2][4]) {
  const int lane = static_cast<int>(gpu::thread()) % 32, group = lane / 4;
  int k = first + lane % 4 * 4;                // k .. k + 3 are this lane's: two for each of two products
  Lane a(p.A, p.A.row, p.A.column, m0 + group, p.ones < 0 ? p.M : p.ones, k);
  Lane b(p.B, p.B.column, p.B.row, n0 + group, p.N, k);
  for (int k1 = first; k1 < last; k1 += chain) {
    float c[1][2][4] = {};
    for (int k0 = k1; k0 < k1 + chain && k0 < last; k0 += edge, k += edge) {
      a.fetch(last - k), b.fetch(last - k);
      a.mask(), b.mask();
      for (int i = 0; i < 4 && p.ones >= 0; i++)
        for (int j = 0; j < 2; j++)
          if (m0 + group + j * 8 == p.ones && k + i < last) a.value[i][j] = 1;
      if (p.precision == Precision::fp32) multiply_lanes<Precision::fp32>(a, b, c);
      else if (p.precision == Precision::tf32) multiply_lanes<Precision::tf32>(a, b, c);
      else multiply_lanes<Precision::bf16>(a, b, c);
    }
    for (int j = 0; j < 2; j++)
      for (int i = 0; i < 4; i++) sum[j][i] += c[0][j][i];
  }
}

struct Products { Product of[2]; };            // the blocks of one, then those of the other
NNLITE_GLOBAL void NNLITE_THREADS(warps * 32, 1) product_kernel(Products all) {
  gpu::follow();
  constexpr int  values = edge * edge;         // of a tile
  const bool     second = gpu::block().x >= all.of[0].blocks;
  const Product& p = all.of[second ? 1 : 0];
  const int t = static_cast<int>(gpu::thread()), warp = t / 32, lane = t % 32;
  const int tile = (static_cast<int>(gpu::block().x - (second ? all.of[0].blocks : 0))) * p.tiles;
  float* const room = gpu::shared<float>();
  if (warp < p.tiles * p.split) {
    const int mine = tile + warp / p.split, m0 = mine / p.across * edge, n0 = mine % p.across * edge;
    const int first = warp % p.split * p.share, end = p.K < first + p.share ? p.K : first + p.share;
    float sum[2][4] = {};
    if (m0 < p.M && first < end) sums_of_tile(p, m0, n0, first, end, sum);
    for (int j = 0; j < 2; j++)
      for (int i = 0; i < 4; i++)
        room[warp * values + (lane / 4 + i / 2 * 8) * edge + j * 8 + lane % 4 * 2 + i % 2] = sum[j][i];
  }
  gpu::barrier();
  for (int e = t; e < p.tiles * values; e += warps * 32) {
    const int mine = tile + e / values, of_tile = e % values;
    const int m = mine / p.across * edge + of_tile / edge, n = mine % p.across * edge + of_tile % edge;
    if (m >= p.M || n >= p.wide) continue;
    const float* const parts = room + e / values * p.split * values + of_tile;
    float v = parts[0];
    for (int i = 1; i < p.split; i++) v += parts[i * values];
    if (p.bias != nullptr && n < p.N) v += p.bias[n];
    if (p.relu) v = plain::value_of(ReLU{}, v);
    const int64_t at = int64_t(m) * p.wide + n;
    if (n >= p.N || (p.positive != nullptr && !(p.positive[at] > 0))) v = 0;
    if (m == p.M - 1 && p.last != nullptr) p.last[n] = v;
    else give_to(p.C, at, v, p.more);
  }
}
// In about `most` blocks: more warps a tile while there are few tiles, then as few tiles a block.
static void set_tiles(Product& p, int most) {
  p.precision = current.precision;
  p.across = over(p.wide, edge), p.split = 1;
  const int all = over(p.M, edge) * p.across, allowed = most * warps / all;
  while (p.split < warps && p.K > p.split * edge && p.split * 2 <= allowed) p.split *= 2;
  p.share  = over(over(p.K, p.split), edge) * edge;
  p.tiles  = over(all, most) < warps / p.split ? over(all, most) : warps / p.split;
  p.blocks = static_cast<unsigned>(over(all, p.tiles));
}
static void product(Product one, Product other = {}) {
  const int most = one.M > 0 && other.M > 0 ? 64 : 128;        // a large GPU has room for all of them at once
  if (one.M > 0) set_tiles(one, most);
  if (other.M > 0) set_tiles(other, most);
  if (one.blocks + other.blocks > 0)
    launch(product_kernel, {one.blocks + other.blocks}, warps * 32, warps * edge * edge * sizeof(float),
           Products{{one, other}});
}

// ================================================================================ >>linear
// No row for matrices beyond what 32 bits count.
static bool fits_linear(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  return r.in_numel(0) / a.in_features < 1 << 27 && a.in_features < 1 << 27 && a.out_features < 1 << 27;
}
static size_t linear_scratch(const OpRun& r) { return fits_linear(r) ? 0 : refused; }
static void linear_forward(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int I = a.in_features, O = a.out_features;
  Product y = {};
  y.M = static_cast<int>(r.in_numel(0) / I), y.N = y.wide = O, y.K = I;
  y.A = {r.in(0), I, 1, nullptr}, y.B = {r.parameter(0), padded(O), 1, nullptr}, y.ones = -1;
  y.bias = r.parameter(1), y.C = r.out(), y.relu = (r.fused & fusion::relu) != 0;
  product(y);
}
static void linear_backward(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int I = a.in_features, O = a.out_features, N = static_cast<int>(r.in_numel(0) / I),
            wide = static_cast<int>(padded(O));
  const float *const positive = (r.fused & fusion::mask_dy) != 0 ? r.y() : nullptr;
  Product dx = {}, dw = {};
  if (r.dx(0) != nullptr) {
    dx.M = N, dx.N = dx.wide = I, dx.K = O;
    dx.A = {r.dy(), O, 1, positive}, dx.B = {r.parameter(0), 1, wide, nullptr}, dx.ones = -1;
    dx.C = r.dx(0), dx.more = r.accumulate(0);
    if ((r.fused & fusion::mask_dx) != 0) dx.positive = r.in(0);
  }
  float *const to_w = r.dparameter(0), *const to_b = r.dparameter(1);
  if (to_w != nullptr || to_b != nullptr) {    // the bias is a weight of an input that is one
    const int rows = to_w != nullptr ? I : 0;
    dw.M = to_b != nullptr ? rows + 1 : rows, dw.N = O, dw.K = N;
    dw.A = {rows > 0 ? r.in(0) : r.dy(), 1, rows > 0 ? I : 0, nullptr}, dw.B = {r.dy(), O, 1, positive};
    dw.ones = to_b != nullptr ? rows : -1;
    dw.C = to_w, dw.wide = wide, dw.last = to_b;
  }
  product(dx, dw);
}

// Many products of rounded factors are the library's, with weights that have no padding. It can do neither
// mask: it has those of its own forward alone, as bits.
static bool fits_library(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  return fits_linear(r) && a.in_features % 16 == 0 && a.out_features % 16 == 0 &&
         r.in_numel(0) * a.out_features >= gpu::many_products();
}
static size_t library_scratch(const OpRun& r) { return fits_library(r) ? 0 : refused; }
static size_t library_back_scratch(const OpRun& r) {
  const int64_t O = r.out_shape().last();
  if (!fits_library(r)) return refused;
  return r.dparameter(1) != nullptr ? column_sums_bytes(r.out_numel() / O, O) : 0;
}
static gpu::Matmul matmul(int M, int N, int K, const float* A, const float* B, float* C) {
  return {M, N, K, A, B, C, K, N, N, false, false, nullptr, false, 0};
}
static void library_forward(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int I = a.in_features, O = a.out_features, N = static_cast<int>(r.in_numel(0) / I);
  gpu::Matmul y = matmul(N, O, I, r.in(0), r.parameter(0), r.out());
  y.bias = r.parameter(1);
  launch(y);
}
static void library_backward(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int I = a.in_features, O = a.out_features, N = static_cast<int>(r.in_numel(0) / I);
  if (r.dx(0) != nullptr) {
    gpu::Matmul dx = matmul(N, I, O, r.dy(), r.parameter(0), r.dx(0));
    dx.b_transposed = true, dx.b_line = O, dx.more = r.accumulate(0);
    launch(dx);
  }
  if (r.dparameter(0) != nullptr) {
    gpu::Matmul dw = matmul(I, O, N, r.in(0), r.dy(), r.dparameter(0));
    dw.a_transposed = true, dw.a_line = I;
    launch(dw);
  }
  if (r.dparameter(1) != nullptr) column_sums(r.dy(), N, O, r.dparameter(1), scratch_of(r));
}

// ================================================================================ >>window

// One side of the images that are read: the window of pixel p has its place k at
// (p scale + start + k step) / stride.
struct Side {
  int     size, scale, start, step;
  Divider stride;
  template <bool whole>                          // whether the stride is 1
  NNLITE_DEVICE bool find(int at, int& i) const {               // false: outside, or between two pixels
    i = whole ? at : stride.of(at);
    const bool inside = static_cast<unsigned>(i) < static_cast<unsigned>(size);
    return inside && (whole || (at >= 0 && i * stride.by == at));
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

  struct alignas(16) Pixel { int h, w, at; };  // where its window begins
  struct Line { int h, w, at; };               // how far from there
  NNLITE_DEVICE bool whole() const { return h.stride.by == 1 && w.stride.by == 1; }
  NNLITE_DEVICE int  place(int y, int z) const {
    const unsigned row = static_cast<unsigned>(y) * static_cast<unsigned>(w.size);
    return static_cast<int>((row + static_cast<unsigned>(z)) * static_cast<unsigned>(pitch));
  }
  NNLITE_DEVICE Pixel pixel(int i, int count) const {
    const int row = to_w.of(i), image = to_h.of(row);
    const int y = (row - image * to_h.by) * h.scale + h.start, z = (i - row * to_w.by) * w.scale + w.start;
    return {i < count ? y : nowhere, z, place(image * h.size + y, z)};
  }
  NNLITE_DEVICE Line line(int i, int count, int group) const {
    const int tap = channels.of(i), kh = kernel_w.of(tap);
    const int y = kh * h.step, z = (tap - kh * kernel_w.by) * w.step;
    return {i < count ? y : nowhere, z, place(y, z) + i + (group - tap) * channels.by};
  }
  template <bool whole>                          // false: it is zero, and `at` is no place in x
  NNLITE_DEVICE bool find(const Pixel& p, const Line& l, int& at) const {
    int y = 0, z = 0;
    const bool rows = h.template find<whole>(p.h + l.h, y), columns = w.template find<whole>(p.w + l.w, z);
    at = static_cast<int>(static_cast<unsigned>(p.at) + static_cast<unsigned>(l.at));
    if (!whole && rows && columns) at += place(y - p.h - l.h, z - p.w - l.w);
    return rows && columns;
  }
};

// ================================================================================ >>convolution
// Conv2d and ConvTranspose2d are sums over the window's places k and the channels of a group:
//   y[p, o]     = b[o] + sum over k, i of x[p at k, i] w[k, i, o]
//   dx[q, i]    = sum over k, o of dy[q at k, o] w[k, i, o]
//   dw[k, i, o] = sum over the pixels p of y of x[p at k, i] dy[p, o]
// where `at` goes down for Conv2d, to p stride - padding + k dilation, and up for ConvTranspose2d, to
// (p + padding - k dilation) / stride if that is whole; for dx it is the other one.
// x [N, H, W, groups * I]   w [groups][kH][kW][I][O padded]   y [N, oH, oW, groups * O]
// A depthwise Conv2d has w [kH][kW][C padded].

// C[m, n] = start[n] + sum over k of A[m, k] B[k, n] in every group. A is a window: pixels m and lines k, or
// for dw lines m and pixels k, which come in chunks with a C of their own. Where every pixel of y sees one of
// x, as with ConvTranspose2d of kernel and stride 2, the places of the window are phases: y, whose pixels
// they take in turn, and dw are those of a 1x1 convolution each.
enum class Wanted { y, dx, dw };
struct Convolution {
  Window       a;
  int          M, N, K, groups, chunk, chunks, phases;
  int          spread, jump;                   // phases: from pixel to pixel in y, and more from row to row
  Divider      width;                          // of x
  const float* b;
  int          b_group, b_phase, b_tap, b_channel, b_column;   // strides; k is tap * a.channels + channel
  const float* start;
  float*       c;
  int64_t      c_group, c_phase, c_row, c_chunk;
  int          used;                           // dw: columns used .. c_row - 1 become zeros
  bool         more, relu, a_fours, b_fours;   // whether channels come in fours
  Precision    precision;
  const float* mask;                           // dx: the output of a ReLU, whose gradient it becomes
  NNLITE_DEVICE int place(int pixel, int phase) const {        // in y
    return pixel * spread + width.of(pixel) * jump + phase / spread * width.by * spread + phase % spread;
  }
  // What becomes of sums side by side, C[at] and so on; `first` is what they start from.
  template <class T>
  NNLITE_DEVICE void give(T v, T first, int64_t at) const {
    constexpr int n = int(sizeof(T) / sizeof(float));
    for (int i = 0; i < n; i++) v.of[i] += first.of[i];
    for (int i = 0; i < n && relu; i++) v.of[i] = plain::value_of(ReLU(), v.of[i]);
    if (more) {
      const T old = *reinterpret_cast<const T*>(c + at);
      for (int i = 0; i < n; i++) v.of[i] += old.of[i];
    }
    if (mask != nullptr) {
      const T y = *reinterpret_cast<const T*>(mask + at);
      for (int i = 0; i < n; i++) v.of[i] = plain::slope_times(ReLU(), y.of[i], v.of[i]);
    }
    *reinterpret_cast<T*>(c + at) = v;
  }
};

// Tiles of C for blocks of 2 to 8 warps. k comes in steps of 16, of which three are in shared memory: one is
// multiplied while the others arrive. A lies as [row][k], for dw as [k][row], B as [k][column], for dx as
// [column][k]: a row of 16 k's has its fours in an order by its number, one of other length is followed by
// eight floats, so that neither stores nor reads of fragments share a bank.
template <Wanted what_, bool fours, int height_, int width_>       // fours: channels come in fours
struct Tile {
  static constexpr Wanted what = what_;
  static constexpr bool dw = what == Wanted::dw, turned = what == Wanted::dx;
  static constexpr int  height = height_, width = width_, depth = 16, stages = 3, run = fours ? 4 : 1;
  static constexpr int  rows = dw || height * width > 1024 ? 32 : 16;
  static constexpr int  columns = height * width >= 4096 ? 32 : 16;
  static constexpr int  across = width / columns, threads = 32 * across * (height / rows);
  static constexpr int  blocks = fours ? 512 / threads : 1;   // 128 registers for a thread
  static constexpr int  a_floats = depth * (dw ? height + 8 : height);
  static constexpr int  b_floats = depth * (turned ? width : width + 8);
  static constexpr int  shared = stages * (a_floats + b_floats) + (dw ? 8 * depth : 0);  // dw: and pixels
  static constexpr int  along = (dw ? height : depth) / run;  // threads that copy A side by side
  static constexpr int  share = height * depth / run / threads;
  static constexpr int  a_line = dw ? 1 : depth, b_line = turned ? depth : 1;   // eight lines are 8 of it
  NNLITE_DEVICE static int by_k(int k, int line) { return line * depth + (k / 4 ^ line / 2 % 4) * 4 + k % 4; }
  NNLITE_DEVICE static int a_at(int k, int row) { return dw ? k * (height + 8) + row : by_k(k, row); }
  NNLITE_DEVICE static int b_at(int k, int column) {
    return turned ? by_k(k, column) : k * (width + 8) + column;
  }
};

// What a thread of a block copies for each step.
template <class T>
struct Copies {
  const Convolution& p;
  int t, last, n0, b, g, turn;                 // b: where the group's begins; turn: the phase
  Window::Line  line;                          // dw: of all steps
  Window::Pixel pixels[size_t(T::share)];      // otherwise of all steps
  NNLITE_DEVICE Copies(const Convolution& convolution, int group, int phase, int m0, int n, int end)
      : p(convolution),
        t(static_cast<int>(gpu::thread())),
        last(end),
        n0(n),
        b(group * p.b_group + phase * p.b_phase),
        g(group),
        turn(phase),
        line(p.a.line(m0 + t % T::along * T::run, p.M, group)) {
    NNLITE_UNROLL
    for (int i = 0; i < T::share && !T::dw; i++) pixels[i] = p.a.pixel(m0 + across(i), p.M);
  }
  // dw: one step ahead, by the first threads.
  NNLITE_DEVICE void make_pixels(Window::Pixel* to, int k0) const {
    if (T::dw && t < T::depth) to[(k0 & T::depth) + t] = p.a.pixel(k0 + t, last);
  }
  NNLITE_DEVICE int across(int i) const { return t / T::along + i * (T::threads / T::along); }
  template <bool whole>
  NNLITE_DEVICE void of_a(float* to, int k0, const Window::Pixel* made) {
    const int along = t % T::along * T::run;
    if (!T::dw) line = p.a.line(k0 + along, last, g);
    else made += k0 & T::depth;
    to += T::dw ? T::a_at(across(0), along) : T::a_at(along, across(0));
    NNLITE_UNROLL
    for (int i = 0; i < T::share; i++) {
      int        at = 0;
      const bool there = p.a.template find<whole>(T::dw ? made[across(i)] : pixels[i], line, at);
      constexpr int apart = T::threads / T::along * (T::dw ? T::height + 8 : T::depth);
      gpu::copy_async<T::run>(to + i * apart, p.a.x + at, there);
    }
  }
  template <int run>
  NNLITE_DEVICE void of_b(float* to, int k0) const {
    constexpr int side = (T::turned ? T::depth : T::width) / run, all = T::depth * T::width / run;
    NNLITE_UNROLL
    for (int i = 0; i < (all + T::threads - 1) / T::threads; i++) {
      const int e = t + i * T::threads, k = T::turned ? e % side * run : e / side,
                n = T::turned ? e / side : e % side * run;
      if (all % T::threads != 0 && e >= all) break;
      const int  tap = T::turned ? p.a.channels.of(k0 + k) : 0;
      const int  at = T::turned ? tap * p.b_tap + (k0 + k - tap * p.a.channels.by) + (n0 + n) * p.b_column
                                : (T::dw ? p.place(k0 + k, turn) : k0 + k) * p.b_channel + n0 + n;
      const bool there = k0 + k < last && n0 + n < p.N;
      gpu::copy_async<run>(to + T::b_at(k, n), p.b + (b + at), there);
    }
  }
  NNLITE_DEVICE void operator()(float* to, int k0, const Window::Pixel* made) {
    if (p.a.whole()) of_a<true>(to, k0, made);
    else of_a<false>(to, k0, made);
    if (T::turned ? T::run == 4 : !T::dw || p.b_fours) of_b<4>(to + T::a_floats, k0);
    else of_b<1>(to + T::a_floats, k0);
  }
};

// What a lane of a warp has of the tile, and where its parts of a step lie, for every four k's.
template <class T>
struct Share {
  static constexpr size_t rows = T::rows / 16, columns = T::columns / 8;
  int   a[4], b[4];
  float sum[rows][columns][4];
  NNLITE_DEVICE static int lane() { return static_cast<int>(gpu::thread()) % 32; }
  NNLITE_DEVICE static int warp() { return static_cast<int>(gpu::thread()) / 32; }
  NNLITE_DEVICE static int row() { return warp() / T::across * T::rows + lane() / 4; }
  NNLITE_DEVICE static int column() { return warp() % T::across * T::columns; }
  NNLITE_DEVICE Share() : sum() {
    for (int q = 0; q < 4; q++) {
      a[q] = T::a_at(q * 4 + lane() % 4, row());
      b[q] = T::a_floats + T::b_at(q * 4 + lane() % 4, column() + lane() / 4);
    }
  }
  template <Precision precision>
  NNLITE_DEVICE void add(const float* room) {
    constexpr size_t steps = steps_of<precision>;
    float part[rows][columns][4] = {};
    NNLITE_UNROLL
    for (size_t k = 0; k < 4; k += 2 * steps) {
      float x[steps][rows][4], y[steps][columns][2];
      NNLITE_UNROLL
      for (size_t s = 0; s < steps; s++) {
        const int *const of_a = a + k + s * 2, *const of_b = b + k + s * 2;
        NNLITE_UNROLL
        for (int i = 0; i < int(rows); i++)
          for (int q = 0; q < 4; q++) x[s][i][q] = room[of_a[q / 2] + (i * 16 + q % 2 * 8) * T::a_line];
        NNLITE_UNROLL
        for (int j = 0; j < int(columns); j++)
          for (int q = 0; q < 2; q++) y[s][j][q] = room[of_b[q] + j * 8 * T::b_line];
      }
      multiply<precision>(part, x, y);
    }
    NNLITE_UNROLL
    for (size_t i = 0; i < rows * columns; i++)
      for (size_t q = 0; q < 4; q++) sum[i / columns][i % columns][q] += part[i / columns][i % columns][q];
  }
  template <class V>                             // two sums side by side, or one after the other
  NNLITE_DEVICE void give(const Convolution& p, int group, int phase, int m0, int n0, int64_t place) const {
    constexpr int run = int(sizeof(V) / sizeof(float));
    const int     before = group * p.N, limit = T::dw ? int(p.c_row) : p.N;
    int at[rows * 2];
    NNLITE_UNROLL
    for (int i = 0; i < int(rows) * 2; i++) {
      const int m = m0 + row() + i * 8;
      at[i] = m >= p.M ? -1 : T::what == Wanted::y ? p.place(m, phase) : m;
    }
    NNLITE_UNROLL
    for (int e = 0; e < int(columns) * 2; e += run) {
      const int n = n0 + column() + lane() % 4 * 2 + e / 2 * 8 + e % 2;
      V first = {};
      if (n < limit && p.start != nullptr) first = *reinterpret_cast<const V*>(p.start + before + n);
      NNLITE_UNROLL
      for (int i = 0; i < int(rows) * 2; i++) {
        V v = {};
        for (int q = 0; q < run; q++) {
          const float u = sum[i / 2][e / 2][i % 2 * 2 + e % 2 + q];
          v.of[q] = !T::dw || n + q < p.N ? u : 0.0f;
        }
        if (at[i] >= 0 && n < limit) p.give(v, first, place + at[i] * p.c_row + n);
      }
    }
  }
};

template <class T>
NNLITE_GLOBAL void NNLITE_THREADS(T::threads, T::blocks) convolution_kernel(Convolution p) {
  gpu::follow();
  float* const room = gpu::shared<float>();
  const int z = static_cast<int>(gpu::block().y), chunk = z % p.chunks;
  const int group = z / p.chunks % p.groups, phase = z / p.chunks / p.groups;
  const int tiles = ((T::dw ? int(p.c_row) : p.N) + T::width - 1) / T::width;
  const int x = static_cast<int>(gpu::block().x), m0 = x / tiles * T::height, n0 = x % tiles * T::width;
  const int first = chunk * p.chunk, last = p.K < first + p.chunk ? p.K : first + p.chunk;
  constexpr int step = T::a_floats + T::b_floats, ahead = (T::stages - 1) * T::depth;
  Copies<T> copy(p, group, phase, m0, n0, last);
  Share<T>  own;
  Window::Pixel* const made = reinterpret_cast<Window::Pixel*>(room + T::stages * step);
  int at = 0;                                  // where the next step goes, which follows the one that is due
  copy.make_pixels(made, first);
  for (int k0 = first - ahead; k0 < last; k0 += T::depth) {
    gpu::wait_for_copies<T::stages - 2>();
    gpu::barrier();
    if (k0 + ahead < last) copy(room + at, k0 + ahead, made);
    if (k0 + ahead + T::depth < last) copy.make_pixels(made, k0 + ahead + T::depth);
    gpu::commit_copies();
    at = at + step < T::stages * step ? at + step : 0;
    if (k0 < first) continue;
    if (p.precision == Precision::fp32) own.template add<Precision::fp32>(room + at);
    else if (p.precision == Precision::tf32) own.template add<Precision::tf32>(room + at);
    else own.template add<Precision::bf16>(room + at);
  }
  const int64_t place = chunk * p.c_chunk + group * p.c_group + phase * p.c_phase;
  if (p.c_row % 2 == 0 && p.N % 2 == 0) own.template give<Two>(p, group, phase, m0, n0, place);
  else own.template give<One>(p, group, phase, m0, n0, place);
}

// The same without tiles, for groups of few columns: a thread an element.
struct ConvolveDirectly {
  Convolution p;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const int m = static_cast<int>(i / p.c_row), column = static_cast<int>(i - m * p.c_row);
    const int group = column / p.N, n = column - group * p.N;
    const Window::Pixel pixel = p.a.pixel(m, p.M);
    const float*        b = p.b + group * p.b_group + n * p.b_column;
    float sum = 0;
    for (int k = 0; k < p.K; k += p.a.channels.by, b += p.b_tap) {
      int at = 0;
      if (!p.a.find<false>(pixel, p.a.line(k, p.K, group), at)) continue;
      for (int c = 0; c < p.a.channels.by; c++) sum = fmaf(p.a.x[at + c], b[c * p.b_channel], sum);
    }
    p.give(One{{sum}}, One{{p.start != nullptr ? p.start[column] : 0.0f}}, i);
  }
};

// Of dw: 32 elements a block, (tap, group, channel, column) in this order; 8 threads an element, one chain
// each.
NNLITE_GLOBAL void convolution_dw_kernel(Convolution p, int elements) {
  gpu::follow();
  float* const room = gpu::shared<float>();
  const int t = static_cast<int>(gpu::thread()), e = static_cast<int>(gpu::block().x) * 32 + t % 32;
  const int chunk = static_cast<int>(gpu::block().y), first = chunk * p.chunk;
  const int last = p.K < first + p.chunk ? p.K : first + p.chunk;
  const int n = e % p.N, channel = e / p.N % p.a.channels.by, rest = e / p.N / p.a.channels.by;
  const int group = rest % p.groups, m = rest / p.groups * p.a.channels.by + channel;
  const Window::Line line = p.a.line(m, p.M, group);
  const float* const b = p.b + group * p.b_group + n;
  float sum = 0;
  for (int k = first + t / 32; k < last && e < elements; k += 8) {
    int at = 0;
    if (p.a.find<false>(p.a.pixel(k, last), line, at)) sum = fmaf(p.a.x[at], b[k * p.b_channel], sum);
  }
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

// The sums of chunks, 32 elements a block; 32 threads have four of them, each one of 32 chains.
struct AddChunks {
  const float* from;
  int64_t      size;
  int          chunks;
  float*       to;
};
NNLITE_GLOBAL void add_chunks_kernel(AddChunks all) {
  gpu::follow();
  const int64_t size = all.size;
  Four* const   room = gpu::shared<Four>();
  const int     t = static_cast<int>(gpu::thread());
  const int64_t at = int64_t(gpu::block().x) * 32 + t % 8 * 4;
  Four sum = {};
  for (int k = t / 8; k < all.chunks && at < size; k += 32) {
    const Four v = *reinterpret_cast<const Four*>(all.from + k * size + at);
    for (int q = 0; q < 4; q++) sum.of[q] += v.of[q];
  }
  room[t] = sum;
  gpu::barrier();
  const int64_t own = int64_t(gpu::block().x) * 32 + t;
  if (t >= 32 || own >= size) return;
  const float* const column = gpu::shared<float>() + t;
  float whole = column[0];
  for (int k = 1; k < 32; k++) whole += column[k * 32];
  all.to[own] = whole;
}
static void add_chunks(const Convolution& p, float* to) {
  launch(add_chunks_kernel, {unsigned((p.c_chunk + 31) / 32)}, 256, 256 * sizeof(Four),
         AddChunks{p.c, p.c_chunk, p.chunks, to});
}

static bool goes_up(const Conv2d&) { return false; }
static bool goes_up(const ConvTranspose2d&) { return true; }
static bool is_depthwise(const Conv2d& a) {
  return a.groups > 1 && a.groups == a.in_channels && a.groups == a.out_channels;
}
static bool is_depthwise(const ConvTranspose2d&) { return false; }
static bool in_phases(const Conv2d&, const Shape&, const Shape&) { return false; }
static bool in_phases(const ConvTranspose2d& a, const Shape& x, const Shape& y) {
  const bool exact = a.kernel_size.h == a.stride.h && a.kernel_size.w == a.stride.w && a.padding.h == 0 &&
                     a.padding.w == 0 && a.dilation.h == 1 && a.dilation.w == 1;
  return exact && y.dim[1] == x.dim[1] * a.stride.h && y.dim[2] == x.dim[2] * a.stride.w && a.groups == 1 &&
         a.stride.h * a.stride.w <= 64;
}
static bool is_direct(const Convolution& p) { return p.groups > 1 && (p.N < 8 || p.groups > 65535); }

static Side side_of(bool up, int size, int stride, int padding, int dilation) {
  return up ? Side{size, 1, padding, -dilation, divider(stride)}
            : Side{size, stride, -padding, dilation, divider(1)};
}

// Tiles as large as leave three blocks to two of 132 processors, or the smallest.
struct TileSize { int height, width; };
static int64_t blocks_of(const Convolution& p, int64_t columns, TileSize s) {
  return (p.M + s.height - 1) / s.height * ((columns + s.width - 1) / s.width) * p.groups *
         p.phases;
}
static TileSize tile_of(const Convolution& p, Wanted what) {
  const int64_t columns = what == Wanted::dw ? p.c_row : p.N, enough = 198;
  TileSize s = {128, columns <= 16 ? 16 : columns <= 32 ? 32 : 64};
  if (what == Wanted::dw) return {64, s.width};
  if (!p.a_fours || blocks_of(p, columns, s) < enough) s.height = 64;
  while (s.width > 16 && blocks_of(p, columns, s) < enough) s.width /= 2;
  return s;
}

// dw by chunks of at least 128 pixels, as many as make nine small or four large blocks a processor: all that
// have room side by side.
static void set_chunks(Convolution& p) {
  const TileSize s = tile_of(p, Wanted::dw);
  const int64_t  blocks = is_direct(p) ? (int64_t(p.M) * p.N * p.groups + 31) / 32 : blocks_of(p, p.c_row, s);
  const int64_t  most = (s.width == 16 ? 1188 : 528) / blocks, some = p.K / 128;
  const int64_t  chunks = some < most ? some : most;
  p.chunks = chunks > 1 ? static_cast<int>(chunks) : 1;
  p.chunk  = static_cast<int>(padded((p.K + p.chunks - 1) / p.chunks));
}

// The product of so many pixels with windows of so many places, but for where its matrices lie, and for
// the sides of its images, which have one pixel. set_chunks follows for dw.
static Convolution products(Wanted what, int pixels, int taps, int I, int O, int groups, bool depthwise) {
  const bool    back = what == Wanted::dx;
  const int     channels = back ? O : I;
  const int64_t wide = padded(depthwise ? groups : O), tap = depthwise ? wide : I * wide,
                group = depthwise ? 1 : taps * tap;
  const Side    one = side_of(false, 1, 1, 0, 1);
  Convolution p = {};
  p.a = {nullptr, one, one, channels * groups, divider(1), divider(1), divider(1), divider(channels)};
  p.N = back ? I : O, p.groups = groups, p.chunks = p.phases = p.spread = 1, p.width = divider(1);
  p.a_fours = channels % 4 == 0, p.precision = current.precision;
  if (what == Wanted::dw) {
    p.M = taps * I, p.K = pixels, p.used = depthwise ? groups : O;
    p.b_group = O, p.b_channel = O * groups, p.b_column = 1, p.b_fours = O % 4 == 0;
    p.c_group = group, p.c_row = wide, p.c_chunk = depthwise ? taps * tap : groups * group;
  } else {
    p.M = pixels, p.K = p.chunk = taps * channels;
    p.b_group = int(group), p.b_tap = int(tap), p.b_channel = back ? 1 : int(wide);
    p.b_column = back ? int(wide) : 1, p.c_group = p.N, p.c_row = p.N * groups;
  }
  return p;
}

// With what all layers have alike.
static Convolution connected(Convolution p, const OpRun& r, Wanted what) {
  const bool back = what == Wanted::dx;
  p.a.x = back ? r.dy() : r.in(0), p.b = what == Wanted::dw ? r.dy() : r.parameter(0);
  p.c = what == Wanted::dw ? r.dparameter(0) : back ? r.dx(0) : r.out();
  if (what == Wanted::dw) set_chunks(p);
  p.start = what == Wanted::y ? r.parameter(1) : nullptr, p.more = back && r.accumulate(0);
  p.relu  = what == Wanted::y && (r.fused & fusion::relu) != 0;
  p.mask  = back && (r.fused & fusion::mask_dx) != 0 ? r.in(0) : nullptr;
  return p;
}

template <class A>
static Convolution convolution(const OpRun& r, Wanted what) {
  const A&     a = *static_cast<const A*>(r.attributes);
  const bool   back = what == Wanted::dx, up = goes_up(a) != back;
  const Shape &x = r.in_shape(0), &y = r.out_shape(), &from = back ? y : x;
  const bool   apart = !back && in_phases(a, x, y);
  const Shape& to = back || apart ? x : y;
  const int    taps = a.kernel_size.h * a.kernel_size.w, W = x.dim[2];
  const int    I = a.in_channels / a.groups, O = a.out_channels / a.groups;
  Convolution p = products(what, r.rows * to.dim[1] * to.dim[2], apart ? 1 : taps, I, O, a.groups,
                           is_depthwise(a));
  p.a.to_h = divider(to.dim[1]), p.a.to_w = divider(to.dim[2]), p.a.kernel_w = divider(a.kernel_size.w);
  if (apart) {
    const int tap = int(I * padded(O));
    p.a.h = side_of(false, x.dim[1], 1, 0, 1), p.a.w = side_of(false, W, 1, 0, 1);
    p.phases = taps, p.spread = a.stride.w, p.jump = W * a.stride.w * (a.stride.h - 1), p.width = divider(W);
    p.b_phase = what == Wanted::y ? tap : 0, p.c_phase = tap - p.b_phase, p.c_chunk *= taps;
  } else {
    p.a.h = side_of(up, from.dim[1], a.stride.h, a.padding.h, a.dilation.h);
    p.a.w = side_of(up, from.dim[2], a.stride.w, a.padding.w, a.dilation.w);
  }
  return connected(p, r, what);
}

template <Wanted what, bool fours, int height, int width>
static void launch_tiles(const Convolution& p) {
  using T = Tile<what, fours, height, width>;
  const int64_t blocks = blocks_of(p, T::dw ? p.c_row : p.N, {height, width}) / (p.groups * p.phases);
  launch(convolution_kernel<T>, {unsigned(blocks), unsigned(p.groups * p.phases * p.chunks)},
         T::threads, T::shared * sizeof(float), p);
}
template <Wanted what, bool fours, int height>
static void launch_wide(const Convolution& p, int width) {
  if (width == 16) launch_tiles<what, fours, height, 16>(p);
  else if (width == 32) launch_tiles<what, fours, height, 32>(p);
  else launch_tiles<what, fours, height, 64>(p);
}
template <Wanted what>
static void convolve(const Convolution& p) {
  constexpr bool dw = what == Wanted::dw;
  const TileSize s = tile_of(p, what);
  if (is_direct(p) && dw)
    launch(convolution_dw_kernel, {unsigned(p.M * p.N * p.groups + 31) / 32, unsigned(p.chunks)}, 256,
           256 * sizeof(float), p, p.M * p.N * p.groups);
  else if (is_direct(p)) each(p.M * p.c_row, ConvolveDirectly{p});
  else if (!p.a_fours) launch_wide<what, false, 64>(p, s.width);
  else if (s.height == 64) launch_wide<what, true, 64>(p, s.width);
  else launch_wide<what, true, dw ? 64 : 128>(p, s.width);
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
  for (const int64_t n : {r.in_numel(0), r.out_numel(), w * a.in_channels * padded(a.out_channels)})
    if (n > 4 * int64_t(Window::limit)) return false;
  return true;
}
// A Linear of many products is a convolution of one place; others are those of room >>linear.
static bool fits_wide(const OpRun& r) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  bool fits = a.in_features % 4 == 0 && a.out_features % 4 == 0 &&
              r.in_numel(0) * a.out_features >= gpu::many_products();
  for (const int64_t n : {r.in_numel(0), r.out_numel(), a.in_features * padded(a.out_features)})
    fits = fits && n <= 4 * int64_t(Window::limit);
  return fits;
}
static Convolution wide_linear(const OpRun& r, Wanted what) {
  const Linear& a = *static_cast<const Linear*>(r.attributes);
  const int rows = static_cast<int>(r.in_numel(0) / a.in_features);
  return connected(products(what, rows, 1, a.in_features, a.out_features, 1, false), r, what);
}

// Rows of a layer that fits and is the convolution `of`.
template <bool (*fits)(const OpRun&)>
static size_t convolution_scratch(const OpRun& r) { return fits(r) ? 0 : refused; }
template <bool (*fits)(const OpRun&), Convolution (*of)(const OpRun&, Wanted)>
static size_t convolution_back_scratch(const OpRun& r) {
  if (!fits(r)) return refused;
  const Convolution p = of(r, Wanted::dw);
  const int64_t of_dw = r.dparameter(0) != nullptr && p.chunks > 1 ? p.chunks * p.c_chunk : 0;
  const int64_t O = r.out_shape().last();
  const size_t  dw = size_t(of_dw) * sizeof(float),
                db = r.dparameter(1) != nullptr ? column_sums_bytes(r.out_numel() / O, O) : 0;
  return dw > db ? dw : db;
}
template <Convolution (*of)(const OpRun&, Wanted)>
static void convolution_forward(const OpRun& r) { convolve<Wanted::y>(of(r, Wanted::y)); }
template <Convolution (*of)(const OpRun&, Wanted)>
static void convolution_backward(const OpRun& r) {
  if (r.dx(0) != nullptr) convolve<Wanted::dx>(of(r, Wanted::dx));
  if (r.dparameter(0) != nullptr) {
    Convolution p = of(r, Wanted::dw);
    if (p.chunks > 1) p.c = scratch_of(r);
    convolve<Wanted::dw>(p);
    if (p.chunks > 1) add_chunks(p, r.dparameter(0));
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
  gpu::follow();
  const int64_t first = int64_t(gpu::block().x) * chunk, last = smaller(first + chunk, count);
  float sum = 0;
  for (int64_t i = first + gpu::thread(); i < last; i += gpu::threads()) sum += f(i);
  fold(AddTwo(), sum, 1, gpu::shared<float>());
  if (gpu::thread() != 0) return;
  to[gpu::block().x] = n > 0 ? sum / static_cast<float>(n) : sum;                 // n > 0: it is the last
  if (n == 0) return;
  if (!is_finite(to[0]) && context->failed == 0) context->failed = context->step + 1;
  context->losses += double(to[0]) * context->rows;
  context->coming = context->taken + 1;
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
static void class_loss_mean(const OpRun& r, const ClassLoss& f) {
  mean(r, f.positions, f.team.threads(f.positions), f);
}
static void cross_entropy_forward(const OpRun& r) {
  run_waiting();
  current.of_loss = r;
  current.loss = [](const OpRun& own) { class_loss_mean(own, class_loss(own)); };
}
static void cross_entropy_backward(const OpRun& r) {
  ClassLoss f = class_loss(r);
  f.dx = r.dx(0), f.dtarget = r.dx(1), f.more = r.accumulate(0), f.more_target = r.accumulate(1);
  const bool both = current.loss != nullptr && current.of_loss.node == r.node;
  if (!both) return each(f.team.threads(f.positions), f);
  current.loss = nullptr;
  class_loss_mean(current.of_loss, f);
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
  Updates        all;
  NNLITE_DEVICE void operator()(int64_t i) const {
    if (context->failed != 0) return;
    int k = 0;
    while (i >= all.end[k]) k++;
    i = (k > 0 ? i - all.end[k - 1] : i) * 4;
    const plain::Update<A> rule(a, *context);
    const float bound = context->clip_value;
    const Four  g = load<Four>(all.g[k], i);
    Four w = load<Four>(all.w[k], i), m = {}, v = {};
    if (all.m[k] != nullptr) m = load<Four>(all.m[k], i);
    if (all.v[k] != nullptr) v = load<Four>(all.v[k], i);
    for (int j = 0; j < 4; j++) {
      const float d = plain::clipped(g.of[j] * context->gradient_scale, bound > 0, bound);
      w.of[j] = rule(w.of[j], fmaf(rule.decay, w.of[j], d), m.of[j], v.of[j]);
    }
    give_to(all.w[k], i, w, false);
    if (all.m[k] != nullptr) give_to(all.m[k], i, m, false);
    if (all.v[k] != nullptr) give_to(all.v[k], i, v, false);
  }
};
template <class A>
static void update_all(const Updates& all) {
  each(all.end[all.count - 1], Step<A>{*static_cast<const A*>(all.attributes), current.context, all});
}
template <class A>
static void update(const OpRun& r) {
  Updates& all = current.updates;
  if (all.count == max_updates) run_waiting();
  const int i = all.count++;
  all.attributes = r.attributes, all.run = update_all<A>;
  all.end[i] = (i > 0 ? all.end[i - 1] : 0) + r.in_numel(0) / 4;                  // a parameter fills 16's
  all.g[i] = r.dparameter(0), all.w[i] = r.parameter(0), all.m[i] = r.slot(0), all.v[i] = r.slot(1);
}

// Clipping by norm: sums of squares by block, of one launch after another, then their root.
NNLITE_GLOBAL void squares_kernel(Context* context, Updates all) {
  gpu::follow();
  const int64_t step = int64_t(gpu::blocks().x) * gpu::threads();
  float sum = 0;
  int   k = 0;
  for (int64_t i = int64_t(gpu::block().x) * gpu::threads() + gpu::thread(); i < all.end[all.count - 1];
       i += step) {
    while (i >= all.end[k]) k++;
    const Four g = load<Four>(all.g[k], (k > 0 ? i - all.end[k - 1] : i) * 4);
    for (const float v : g.of) sum = fmaf(v, v, sum);
  }
  fold(AddTwo(), sum, 1, gpu::shared<float>());
  if (gpu::thread() == 0) context->squares[gpu::block().x] += sum;
}
NNLITE_GLOBAL void norm_kernel(Context* context) {
  gpu::follow();
  float sum = context->squares[gpu::thread()];
  fold(AddTwo(), sum, 1, gpu::shared<float>());
  if (gpu::thread() != 0 || context->failed != 0) return;
  context->norm = sqrtf(sum);
  const float norm = context->norm + 1e-6f;
  if (norm > context->clip_norm) context->gradient_scale = context->clip_norm / norm;
}
static void square_all(const Updates& all) {
  launch(squares_kernel, {norm_blocks}, 256, 256 * sizeof(float), current.context, all);
}
static void clip(void* user, const float* gradient, int64_t count) {
  (void)user;
  Updates& all = current.updates;
  if (count == 0) return launch(norm_kernel, {}, norm_blocks, norm_blocks * sizeof(float), current.context);
  if (all.count == max_updates) run_waiting();
  const int i = all.count++;
  all.run = square_all, all.g[i] = gradient;
  all.end[i] = (i > 0 ? all.end[i - 1] : 0) + count / 4;
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
template <bool (*fits)(const OpRun&), Convolution (*of)(const OpRun&, Wanted)>
struct AsConvolution {
  static constexpr const Kernel* forward =
      &Row<Phase::forward, convolution_forward<of>, convolution_scratch<fits>, fusion::relu>::kernel;
  static constexpr const Kernel* backward =
      &Row<Phase::backward, convolution_backward<of>, convolution_back_scratch<fits, of>,
           fusion::mask_dx>::kernel;
};
template <class A>
struct ConvolutionLayer {
  using Both = AsConvolution<fits<A>, convolution<A>>;
  static constexpr const Kernel* rows[] = {Both::forward, Both::backward, nullptr};
};
struct LinearLayer {
  using Wide = AsConvolution<fits_wide, wide_linear>;
  // Its epilogue with ReLU would make zeros of what is no number: no fusion.
  using Library = Layer<library_forward, library_backward, library_scratch, library_back_scratch>;
  static constexpr const Kernel* rows[] = {
      Library::rows[0], Library::rows[1], Wide::forward, Wide::backward,
      &Row<Phase::forward, linear_forward, linear_scratch, fusion::relu>::kernel,
      &Row<Phase::backward, linear_backward, linear_scratch, fusion::mask_dx | fusion::mask_dy>::kernel,
      nullptr};
  static constexpr const Kernel* const* exact_rows = rows + 2;
};

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
    {"Linear", LinearLayer::exact_rows},
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
// Those of backends whose products have rounded factors: where plans are made, rows know no precision.
static const Kernel* const* rounded_rows_of(const char* op) {
  const Kernel* const* const rows = rows_of(op);
  return rows == LinearLayer::exact_rows ? LinearLayer::rows : rows;
}

// ================================================================================ >>backend
// The first launch of steps: their context and the rows they draw, by a turn of their own or the one that
// comes in the queue.
struct Prepare {
  Context* to;                                 // nullptr: nobody wants one
  Turn     own;
  bool     from_queue;
  Draws    draws;
  NNLITE_DEVICE void operator()(int64_t i) const {
    const int   place = from_queue ? to->coming : 0;
    const Turn& turn = from_queue ? to->queue[place] : own;
    if (i == 0 && to != nullptr) {
      static_cast<StepContext&>(*to) = turn.next;
      if (turn.is_first != 0) static_cast<Waited&>(*to) = {0, 0, 0};
      to->taken = place;
      if (to->clip_norm > 0) for (float& sum : to->squares) sum = 0;
    }
    int k = 0;
    while (k < draws.count && i >= draws.of[k].end) k++;
    if (k == draws.count) return;
    const Draw&   d = draws.of[k];
    if (k > 0) i -= draws.of[k - 1].end;
    const int64_t row = i / d.values;
    const int64_t at = int64_t(turn.rows[static_cast<uint32_t>(row)]) * d.values + i % d.values;
    if (d.index == nullptr) d.to[i] = d.value(at);
    else d.index[i] = d.from == DType::u8 ? static_cast<const uint8_t*>(d.column)[at]
                                          : static_cast<const int32_t*>(d.column)[at];
  }
};

// A block a picture, which goes the ways of augment_row in one.
struct Unchanged {
  const Draw& d;
  int64_t     first;
  NNLITE_DEVICE float operator[](int64_t i) const { return d.value(first + i); }
};
struct Strokes {
  Canvas<Unchanged> from;
  float             by;
  NNLITE_DEVICE float operator[](int64_t i) const { return thickened(from, by, i % from.W, i / from.W); }
};
NNLITE_GLOBAL void picture_kernel(const Context* context, Turn own, bool from_queue, Pictures p) {
  gpu::follow();
  const Turn&    turn = from_queue ? context->queue[context->coming] : own;
  const unsigned row = gpu::block().x, sample = turn.rows[row];
  Change* const  change = gpu::shared<Change>();
  if (gpu::thread() == 0) *change = Change(p.how, p.seed, turn.epoch, sample);
  gpu::barrier();
  const float   background = p.how.background;
  const bool    strokes = p.how.thinner > 0 || p.how.thicker > 0;
  const int64_t n = p.draw.values;
  const Canvas<Unchanged> from = {{p.draw, sample * n}, p.H, p.W, p.C, background};
  const Canvas<Strokes>   thick = {{from, change->thicker}, p.H, p.W, p.C, background};
  for (int64_t i = gpu::thread(); i < n; i += gpu::threads()) {
    const int64_t c = i % p.C, x = i / p.C % p.W, y = i / p.C / p.W;
    Change::Place at = change->row(p.H, p.W, y);
    at.x += change->m[0] * x, at.y += change->m[2] * x;
    p.draw.to[row * n + i] = strokes ? sampled(thick, at, c) : sampled(from, at, c);
  }
}

static void prepare(Context* to, const Turn& own, bool from_queue, const Draws& draws) {
  if (draws.changes)
    launch(picture_kernel, {static_cast<unsigned>(draws.pictures.draw.end)}, 256, sizeof(Change), to, own,
           from_queue, draws.pictures);
  each(draws.count > 0 ? draws.elements() : 1, Prepare{to, own, from_queue, draws});
}
struct Enqueue {
  Context* to;
  Turn     all[turns];
  NNLITE_DEVICE void operator()(int64_t i) const {
    to->queue[i] = all[i];
    if (i == 0) to->coming = 0;
  }
};
static Context* context_of(const void* device) {
  return reinterpret_cast<Context*>(static_cast<unsigned char*>(const_cast<void*>(device)) - context_bytes);
}
static void enqueue(const void* device, const Turn* all, int count) {
  Enqueue to = {context_of(device), {}};
  for (int i = 0; i < count; i++) to.all[i] = all[i];
  each(count, to);
}
static void run_queue(Device& d) {
  const int n = d.queue_count;
  if (n == 0) return;
  d.queue_count = 0;
  enqueue(d.queued->arena, d.queue, n);
  if (n == turns && d.error == 0) d.note(gpu::run_graph(d.stream, d.queued->often));
  for (int i = 0; i < n && n < turns && d.error == 0; i++) d.note(gpu::run_graph(d.stream, d.queued->once));
}
// What waits for launches to come, before anything else happens to the device's memory.
static void settle(Device& d) {
  if (current.device == &d) run_waiting();
  if (d.queue_count == 0 && !d.draws.any()) return;
  const Hold    hold(d);
  const Current before = current;
  current = {&d, 0, nullptr, nullptr, {}, {}, nullptr, {}};
  run_queue(d);
  const Draws draws = d.draws;
  d.draws.count = 0, d.draws.changes = false;
  if (draws.any()) prepare(nullptr, d.drawn, false, draws);
  current = before;
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

// What a backend has to say of itself.
struct User {
  Device*   device;
  Precision precision;
};
static Device& device_of(void* user) { return *static_cast<User*>(user)->device; }

static Status mirror(void* user, const void* host, size_t bytes, void** device) {
  Device& d = device_of(user);
  const Hold hold(d);
  open(d);
  const unsigned char* const from = static_cast<const unsigned char*>(host);
  Mirror* to = nullptr;
  settle(d);
  if (d.error == 0) d.note(gpu::sync(d.stream));
  for (Mirror& m : d.mirrors) {
    const bool same = m.device != nullptr && m.host == from && m.bytes == bytes;
    if (!same && m.overlaps(from, bytes)) d.drop(m);
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
  const Hold hold(d);
  settle(d);
  if (d.error != 0) return d.status();
  if (way == Copy::to_device) d.note(gpu::copy_in(d.stream, device, host, bytes));
  else d.note(gpu::copy_out(d.stream, host, device, bytes));
  if (way == Copy::from_device && d.error == 0) d.note(gpu::sync(d.stream));
  return d.status();
}

// The place of these steps among the recorded, or one for them, of which other data may have been drawn till
// now; nullptr: there is none left.
static Recorded* recorded(Device& d, const void* arena, const uint32_t key[3], const Draws& draws) {
  Recorded* place = nullptr;
  for (Recorded& r : d.recorded) {
    if (r.arena == nullptr && place == nullptr) place = &r;
    if (r.arena != arena || r.key[0] != key[0] || r.key[1] != key[1] || r.key[2] != key[2]) continue;
    if (r.draws == draws) return &r;
    if (!r.draws.any() || !draws.any()) continue;
    settle(d);
    d.note(gpu::sync(d.stream));
    d.forget(r);
    return &r;
  }
  return place;
}
// The draws that wait are this arena's.
static bool are_of(const Draws& draws, const Mirror& m) {
  for (int i = draws.changes ? -1 : 0; i < draws.count; i++) {
    const Draw& d = i < 0 ? draws.pictures.draw : draws.of[i];
    const void* const to = d.to != nullptr ? static_cast<void*>(d.to) : d.index;
    if (to < m.device || to >= m.device + m.bytes) return false;
  }
  return true;
}
// A device that has failed runs nothing more.
static bool begin(void* user, void* device, const uint32_t key[3], const StepContext& context) {
  Device& d = device_of(user);
  run_waiting();                               // of the steps around, on their device
  Lock lock(d.lock);
  const int before = d.enter();
  if (depth == max_depth) {
    d.note(1);                                 // an invalid value
    d.leave(before);
    return false;
  }
  for (const Mirror& m : d.mirrors)
    if (m.device == device && !are_of(d.draws, m)) settle(d);
  const bool  is_first = key[0] == 0 && context.step == context.first;
  const Turn  turn = {context, d.drawn.rows, d.drawn.epoch, is_first ? 1u : 0u};
  const Draws draws = d.draws;
  d.draws.count = 0, d.draws.changes = false;
  Recorded* const r = key[1] - key[0] < 2 ? nullptr : recorded(d, device, key, draws);
  const bool is_new = r != nullptr && r->arena == nullptr, queues = r != nullptr && draws.any();
  if (d.queue_count > 0 && (!queues || d.queued != r)) settle(d);
  push({&d, before, context_of(device), nullptr, static_cast<User*>(user)->precision, {}, nullptr, {}});
  if (!queues) prepare(current.context, turn, false, draws);
  else if (is_new) enqueue(device, &turn, 1);
  else {
    d.queued = r, d.queue[d.queue_count++] = turn;
    if (d.queue_count == turns) run_queue(d);
  }
  if (is_new && d.error == 0) {
    d.note(gpu::start_recording(d.stream));
    if (d.error == 0) {
      *r = {device, {key[0], key[1], key[2]}, draws, {}, {}};
      current.recording = r;
      if (queues) prepare(current.context, {}, true, draws);
    }
  }
  if (current.recording != nullptr) (void)lock.release();                // till end
  if (current.recording != nullptr || (r == nullptr && d.error == 0)) return true;
  if (!queues && d.error == 0) d.note(gpu::run_graph(d.stream, r->once));
  pop();
  d.leave(before);
  return false;
}

// What was recorded has not run yet.
static void end(void* user) {
  Device& d = device_of(user);
  run_waiting();
  if (current.recording == nullptr) {
    d.lock.lock();
  } else {
    Recorded& r = *current.recording;
    gpu::Recording made = {};
    gpu::Error e = gpu::stop_recording(d.stream, made);
    if (e == 0) e = gpu::new_graph(made, 1, r.once);
    if (e == 0 && r.draws.any()) e = gpu::new_graph(made, turns, r.often);
    d.note(e);
    if (made != nullptr) d.note(gpu::end_recording(made));
    if (d.error == 0) d.note(gpu::run_graph(d.stream, r.once));
  }
  d.leave(current.before);
  d.lock.unlock();
  pop();
}

// By way of device memory of its own, for an order that only the host can read or write in place.
static Status copy_parameter(void* user, void* device, void* host, const Blocks& blocks, Copy way) {
  Device& d = device_of(user);
  const Hold hold(d);
  const int64_t count = blocks.outer * blocks.panels * blocks.lines * 16;
  const size_t  bytes = size_t(count) * sizeof(float);
  if (blocks.panels == 1 || blocks.lines == 1) return copy(user, device, host, bytes, way);
  void* memory = nullptr;
  settle(d);
  if (d.error != 0) return d.status();
  const gpu::Error e = gpu::take(&memory, bytes);
  if (e != 0) return gpu::no_memory(e) ? Status::out_of_memory : Status::device_error;
  const Current before = current;
  current = {&d, 0, nullptr, nullptr, {}, {}, nullptr, {}};
  float *const here = static_cast<float*>(memory), *const there = static_cast<float*>(device);
  const bool back = way == Copy::from_device;
  if (!back) (void)copy(user, here, host, bytes, way);
  each(count, Rearrange{blocks, back ? there : here, back ? here : there, back});
  if (back) (void)copy(user, here, host, bytes, way);
  if (d.error == 0) d.note(gpu::sync(d.stream));
  d.note(gpu::give(memory));
  current = before;
  return d.status();
}

static void add(void* user, float* to, const float* from, int64_t count, bool accumulate) {
  (void)user;
  fours(count, AddUp{to, from, accumulate});
}

static bool same(const Rows& a, const Rows& b) {
  bool keys = true;
  for (int i = 0; i < 4; i++) keys = keys && a.order.keys[i] == b.order.keys[i];
  return keys && a.order.count == b.order.count && a.order.shuffle == b.order.shuffle &&
         a.position == b.position && a.rows == b.rows;
}
static bool gather(void* user, const Gather& g) {
  Device& d = device_of(user);
  const Lock lock(d.lock);
  if (g.column.data == nullptr || g.column.dtype == DType::f64) return false;
  const size_t bytes = size_t(g.rows.order.count) * size_t(g.values) * size_of(g.column.dtype);
  const Mirror* const m = d.mirror_of(g.column.data, bytes);
  if (m == nullptr) return false;
  const bool pictures = g.augment != nullptr;
  const bool full = pictures ? d.draws.changes : d.draws.count == max_inputs + 1;
  if (d.draws.any() && (full || !same(d.drawn.rows, g.rows))) settle(d);
  d.drawn.rows = g.rows, d.drawn.epoch = g.epoch;
  const int64_t end = pictures ? g.rows.rows : d.draws.elements() + g.rows.rows * g.values;
  const bool    index = g.dtype == DType::i32;
  const Draw    draw = {g.values, end, m->device, g.column.dtype, g.column.scale, g.column.shift,
                        index ? nullptr : static_cast<float*>(g.to),
                        index ? static_cast<int32_t*>(g.to) : nullptr};
  d.draws.changes = d.draws.changes || pictures;
  const int32_t* const size = g.shape.dim;
  if (pictures) d.draws.pictures = {draw, *g.augment, size[1], size[2], size[3], g.seed};
  else d.draws.of[d.draws.count++] = draw;
  return true;
}

static Status wait(void* user, void* device, Waited* steps) {
  Device& d = device_of(user);
  const Lock lock(d.lock);
  settle(d);
  if (steps == nullptr && d.error == 0) d.note(gpu::sync(d.stream));
  if (steps == nullptr) return d.status();
  return copy(user, static_cast<Waited*>(context_of(device)), steps, sizeof *steps, Copy::from_device);
}

// What needs no GPU: the host's memory stands for a device's, and nothing is launched.
static Status lend(void*, const void* host, size_t, void** device) {
  *device = const_cast<void*>(host);
  return Status::ok;
}
static Status keep(void*, void*, void* host, size_t bytes, Copy way) {
  if (way == Copy::from_device) __builtin_memset(host, 0, bytes);                 // a loss is a number
  return Status::ok;
}
static Status keep_parameter(void*, void*, void*, const Blocks&, Copy) { return Status::ok; }
static void ignore(void*, const CudaLaunch&) {}
static bool begin_to_tell(void* user, void* device, const uint32_t[3], const StepContext& context) {
  Device& d = device_of(user);
  Context* const to = static_cast<Context*>(device);
  if (depth == max_depth) return false;
  push({&d, 0, to, nullptr, static_cast<User*>(user)->precision, {}, nullptr, {}});
  prepare(current.context, {context, {}, 0, 1}, false, {});
  return true;
}
static void end_to_tell(void*) {
  run_waiting();
  pop();
}
static bool tell_no_rows(void*, const Gather&) { return false; }
static Status wait_for_nothing(void*, void*, Waited* steps) {
  if (steps != nullptr) *steps = {};
  return Status::ok;
}

struct Teller {
  Device  device;
  User    users[3];                            // by precision
  Backend backends[3];
  Teller() {
    device.see = ignore;
    for (int i = 0; i < 3; i++) {
      users[i]    = {&device, static_cast<Precision>(i)};
      backends[i] = {&users[i], uint8_t(1 + i), i == 0 ? rows_of : rounded_rows_of, lend, keep,
                     keep_parameter, begin_to_tell, end_to_tell, add, clip, tell_no_rows, wait_for_nothing};
    }
  }
};

static Device  devices[max_devices + 1];       // the last one is none
static User    users[max_devices + 1][3];      // by precision
static Backend backends[max_devices + 1][3];
static int place_of(int number) { return number < 0 || number >= max_devices ? max_devices : number; }
}  // namespace cuda

const Backend* cuda_rows(Precision precision, void (*see)(void* user, const CudaLaunch&), void* user) {
  static cuda::Teller silent, telling;
  const int i = static_cast<int>(precision);
  if (see == nullptr) return &silent.backends[i];
  telling.device.see = see, telling.device.seer = user;
  return &telling.backends[i];
}

const Backend* cuda_backend(int number, Precision precision) {
  const int place = cuda::place_of(number);
  cuda::Device& d = cuda::devices[place];
  const cuda::Lock lock(d.lock);
  d.number = place == number ? number : -1;
  cuda::open(d);
  cuda::User& user = cuda::users[place][static_cast<int>(precision)];
  Backend& backend = cuda::backends[place][static_cast<int>(precision)];
  if (backend.user != nullptr) return &backend;  // others may be using it
  const auto rows = precision == Precision::fp32 ? cuda::rows_of : cuda::rounded_rows_of;
  user = {&d, precision};
  backend = {&user, uint8_t(1 + static_cast<int>(precision)), rows, cuda::mirror, cuda::copy,
             cuda::copy_parameter, cuda::begin, cuda::end, cuda::add, cuda::clip, cuda::gather, cuda::wait};
  return &backend;
}

const char* cuda_problem(int number) {
  (void)cuda_backend(number);
  cuda::Device& d = cuda::devices[cuda::place_of(number)];
  const cuda::Lock lock(d.lock);
  return d.error == 0 ? "" : gpu::text_of(d.error);
}

void free_cuda(const void* host, size_t bytes) {
  for (cuda::Device& d : cuda::devices) {
    const cuda::Lock lock(d.lock);
    if (!d.open) continue;
    const cuda::Hold hold(d);
    cuda::settle(d);
    d.note(gpu::sync(d.stream));
    for (cuda::Mirror& m : d.mirrors)
      if (m.overlaps(static_cast<const unsigned char*>(host), bytes)) d.drop(m);
  }
}

void close_cuda(int number) {
  cuda::Device& d = cuda::devices[cuda::place_of(number)];
  const cuda::Lock lock(d.lock);
  if (!d.open) return;
  const cuda::Hold hold(d);
  for (cuda::Mirror& m : d.mirrors) d.drop(m);
  (void)gpu::end_multiplier(d.multiplier);
  (void)gpu::end_stream(d.stream);
  d.open = false;
}
}  // inline namespace
}  // namespace nnlite
