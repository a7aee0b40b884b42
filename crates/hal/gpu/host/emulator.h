// HOST face of gpu.h: types, and calls into the SIMT emulator (emulator.cpp).
#ifndef GPU_EMULATOR_H
#define GPU_EMULATOR_H

struct uint3 { uint x, y, z; };
struct alignas(8) uint2 { uint x, y; };
struct alignas(16) uint4 { uint x, y, z, w; };
struct alignas(8) ushort4 { ushort x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };

#define FN static inline __attribute__((unused))
#define UNROLL
#define NO_CONTRACT  // the compiler's options say so
FN float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }
FN uint2 make_uint2(uint x, uint y) { return uint2{x, y}; }
FN uint4 make_uint4(uint x, uint y, uint z, uint w) { return uint4{x, y, z, w}; }
FN float max(float a, float b) { return a < b ? b : a; }
FN float min(float a, float b) { return b < a ? b : a; }
FN uint max(uint a, uint b) { return a < b ? b : a; }
FN uint min(uint a, uint b) { return b < a ? b : a; }
FN int max(int a, int b) { return a < b ? b : a; }
FN int min(int a, int b) { return b < a ? b : a; }
FN float rsqrt(float a) { return 1.0f / sqrtf(a); }
template <typename To, typename From> FN To as_type(From v) {
  static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ");
  To r; memcpy(&r, &v, sizeof r); return r;
}
float gpu_f16_to_f32(ushort b);
ushort gpu_f32_to_f16(float f);
FN uint tg_atomic_add(uint* p, uint v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }

// ---- the kernels of this program ---------------------------------------------------------
typedef void (*gpu_kernel)(void** args);
struct gpu_ids { uint3 tg_id, tg_size; uint tid, lane, simd_id, num_simds; };
enum gpu_kind { GPU_READ, GPU_WRITE, GPU_BLOCK };
struct gpu_argument { gpu_kind kind; size_t bytes; };  // of one element, or of the parameter block
struct gpu_entry {
  const char* name;
  gpu_kernel kernel;
  uint threads;
  const gpu_argument* arguments;
  size_t argument_count;
  const gpu_entry* next;
  gpu_entry(const char* name, gpu_kernel kernel, uint threads, const gpu_argument* arguments, size_t count);
};
struct gpu_large {  // the large array of the kernel of this name
  const char* name;
  size_t bytes;
  const gpu_large* next;
  gpu_large(const char* name, size_t bytes);
};

// ---- called by kernels -------------------------------------------------------------------
gpu_ids gpu_host_ids();
void* gpu_host_shared(const void* key, size_t bytes);
void* gpu_host_large_shared(size_t bytes);
void gpu_host_barrier(bool whole_group, const char* file, int line);
[[noreturn]] void gpu_host_misaligned(const void* p, size_t align);
[[noreturn]] void gpu_host_fault(uint code, uint a, uint b, uint c);
void gpu_host_exchange(uint64_t mine, uint64_t* all, const char* op, const char* file, int line);
void gpu_host_meet(const char* op, const char* file, int line);
void gpu_host_multiply_add(const float* a, const float* b, float* sums, const char* op, const char* file, int line);
template <typename T, typename P> FN T* gpu_host_vec(P* p) {
  if ((uintptr_t)p % alignof(T)) gpu_host_misaligned(p, alignof(T));
  return (T*)p;
}

#define SHARED(T, n, N)                                                                      \
  static char n##_key;                                                                       \
  T(&n)[N] = *(T(*)[N])gpu_host_shared(&n##_key, sizeof(T[N]))
#define LARGE_SHARED_SIZE(name, bytes) GPU_LARGE(name, bytes)
#define GPU_LARGE(name, bytes) static gpu_large name##_large(#name, bytes);
#define LARGE_SHARED(n, bytes) uchar* const n = (uchar*)gpu_host_large_shared(bytes)
#define BARRIER() gpu_host_barrier(true, __FILE__, __LINE__)
#define BARRIER_DEVICE() gpu_host_barrier(true, __FILE__, __LINE__)
#define SIMD_BARRIER() gpu_host_barrier(false, __FILE__, __LINE__)
#define FAULT(code, a, b, c) gpu_host_fault(code, a, b, c)

#define GPU_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
template <typename T> struct gpu_lanes {  // the operand of all 32 lanes
  T v[32];
  gpu_lanes(T mine, const char* op, const char* file, int line) {
    static_assert(sizeof(T) <= 4, "simdgroup operands have at most 32 bits on Metal");
    uint64_t bits = 0, all[32];
    memcpy(&bits, &mine, sizeof mine);
    gpu_host_exchange(bits, all, op, file, line);
    for (int i = 0; i < 32; i++) memcpy(&v[i], &all[i], sizeof mine);
  }
};
template <typename T> FN T simd_shuffle_xor(T v, ushort m, GPU_WHERE) {
  return gpu_lanes<T>(v, "simd_shuffle_xor", file, line).v[(gpu_host_ids().lane ^ m) & 31];
}
template <typename T> FN T simd_shuffle(T v, ushort l, GPU_WHERE) {
  return gpu_lanes<T>(v, "simd_shuffle", file, line).v[l & 31];
}
template <typename T> FN T simd_sum(T v, GPU_WHERE) {  // same tree as on CUDA: same bits
  gpu_lanes<T> a(v, "simd_sum", file, line);
  for (int m = 16; m > 0; m >>= 1) for (int i = 0; i < m; i++) a.v[i] += a.v[i + m];
  return a.v[0];
}
template <typename T> FN T simd_max(T v, GPU_WHERE) {
  gpu_lanes<T> a(v, "simd_max", file, line);
  for (int m = 16; m > 0; m >>= 1) for (int i = 0; i < m; i++) a.v[i] = max(a.v[i], a.v[i + m]);
  return a.v[0];
}

// ---- Metal's matrices of a simdgroup, for texts in Metal's own language --------------------------
// Lane l holds two elements of the 64, in an order that no text may rely on. Each call is reached by all
// lanes; like other operations of a simdgroup it orders no memory.
struct alignas(16) ulong2 { u64 x, y; };
struct f16;
template <typename T, int Columns, int Rows> struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "simdgroup matrices are 8 x 8");
  float held[2];
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
struct gpu_matrix {  // where the elements that a lane holds lie, and who holds an element of row-major order
  static uint row_of(uint lane, uint i) { return (lane * 2 + i) * 5 % 64 / 8; }
  static uint column_of(uint lane, uint i) { return (lane * 2 + i) * 5 % 64 % 8; }
  static uint holder_of(uint element) { return element * 13 % 64; }  // lane * 2 + i
};
FN float gpu_element(const float* p) { return *p; }
FN void gpu_set_element(float* p, float v) { *p = v; }
FN float gpu_element(const f16* p);
FN void gpu_set_element(f16* p, float v);
FN float gpu_rounded(float v, const float*) { return v; }
FN float gpu_rounded(float v, const f16*) { return gpu_f16_to_f32(gpu_f32_to_f16(v)); }
template <typename T, int C, int R> FN simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T value) {
  return simdgroup_matrix<T, C, R>{{gpu_element(&value), gpu_element(&value)}};
}
FN u64 gpu_matrix_index(uint i, u64 stride, ulong2 origin, bool transposed) {
  const uint lane = gpu_host_ids().lane, row = gpu_matrix::row_of(lane, i), column = gpu_matrix::column_of(lane, i);
  return transposed ? (origin.x + column) * stride + origin.y + row : (origin.y + row) * stride + origin.x + column;
}
template <typename T>
FN void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, const T* from, u64 stride = 8, ulong2 origin = ulong2{0, 0},
                       bool transposed = false, GPU_WHERE) {
  gpu_host_meet("simdgroup_load", file, line);
  for (uint i = 0; i < 2; i++) m.held[i] = gpu_element(from + gpu_matrix_index(i, stride, origin, transposed));
}
template <typename T>
FN void simdgroup_store(simdgroup_matrix<T, 8, 8> m, T* to, u64 stride = 8, ulong2 origin = ulong2{0, 0},
                        bool transposed = false, GPU_WHERE) {
  gpu_host_meet("simdgroup_store", file, line);
  for (uint i = 0; i < 2; i++) gpu_set_element(to + gpu_matrix_index(i, stride, origin, transposed), m.held[i]);
}
template <typename D, typename A, typename B, typename C>
FN void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8>& a,
                                      simdgroup_matrix<B, 8, 8>& b, simdgroup_matrix<C, 8, 8>& c, GPU_WHERE) {
  float sums[2] = {c.held[0], c.held[1]};
  gpu_host_multiply_add(a.held, b.held, sums, "simdgroup_multiply_accumulate", file, line);
  for (uint i = 0; i < 2; i++) d.held[i] = gpu_rounded(sums[i], (const D*)nullptr);
}
template <typename D, typename A, typename B>
FN void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8>& a, simdgroup_matrix<B, 8, 8>& b,
                           GPU_WHERE) {
  simdgroup_matrix<D, 8, 8> zero = {{0.0f, 0.0f}};
  simdgroup_multiply_accumulate(d, a, b, zero, file, line);
}

#define GPU_P_BUF_IN(i, T, n)     const T* n
#define GPU_P_BUF_OUT(i, T, n)    T* n
#define GPU_P_BUF_PARAMS(i, T, n) const T n
#define GPU_U_BUF_IN(i, T)     *(const T**)gpu_args[i]
#define GPU_U_BUF_OUT(i, T)    *(T**)gpu_args[i]
#define GPU_U_BUF_PARAMS(i, T) *(const T*)gpu_args[i]
#define GPU_K_BUF_IN(T)     {GPU_READ, sizeof(T)}
#define GPU_K_BUF_OUT(T)    {GPU_WRITE, sizeof(T)}
#define GPU_K_BUF_PARAMS(T) {GPU_BLOCK, sizeof(T)}
#define GPU_BOUND(threads)
#define GPU_BOUND_GROUPS(threads, groups)
#define GPU_KERNEL(bound, threads, name, ...)                                                \
  static void name##_body(GPU_EACH(GPU_P, __VA_ARGS__), GPU_IDS);                            \
  static void name(void** gpu_args) {                                                        \
    const gpu_ids g = gpu_host_ids();                                                        \
    name##_body(GPU_EACH(GPU_U, __VA_ARGS__), g.tg_id, g.tg_size, g.tid, g.lane, g.simd_id, g.num_simds); \
  }                                                                                          \
  static const gpu_argument name##_arguments[] = {GPU_EACH(GPU_K, __VA_ARGS__)};             \
  static gpu_entry name##_entry(#name, name, threads, name##_arguments, GPU_COUNT(__VA_ARGS__)); \
  static void name##_body(GPU_EACH(GPU_P, __VA_ARGS__), GPU_IDS)
#endif
