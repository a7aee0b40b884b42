// The kernel dialect: one text, three faces. See docs/kernel-dialect.md.
//   METAL  Apple's compiler:              __METAL_VERSION__ is defined
//   CUDA   NVRTC:                         __CUDACC__ is defined
//   HOST   a C++ compiler and emulator.h: neither is defined
//
// A kernel is   KERNEL(name, IN(T, x), OUT(T, y), INOUT(T, z), PARAMS(Struct, p)) { ... }
// Argument i is binding i of the dispatch; the parameter block comes last. In its body exist:
//   uint3 tg_id, tg_size   position of the threadgroup, threads per threadgroup (1-D: use .x)
//   uint  tid, lane        index in the threadgroup, index in the simdgroup (32 wide)
//   uint  simd_id, num_simds
#ifndef GPU_H
#define GPU_H
#if defined(__METAL_VERSION__)  // system headers first: they must not see the macros below
#include <metal_stdlib>
using namespace metal;
#elif !defined(__CUDACC__)
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#endif

// ---- argument lists: IN(float, x) becomes the tuple (BUF_IN, float, x) -------------------
#define IN(T, n)     (BUF_IN, T, n)
#define OUT(T, n)    (BUF_OUT, T, n)
#define INOUT(T, n)  (BUF_OUT, T, n)
#define PARAMS(T, n) (BUF_PARAMS, T, n)
#define GPU_CAT_(a, b) a##b
#define GPU_CAT(a, b) GPU_CAT_(a, b)
#define GPU_UNPAREN(...) __VA_ARGS__
#define GPU_CALL(M, ...) M(__VA_ARGS__)
#define GPU_P(i, t) GPU_CALL(GPU_P_, i, GPU_UNPAREN t)   // declaration of a parameter
#define GPU_P_(i, kind, T, n) GPU_P_##kind(i, T, n)
#define GPU_N(i, t) GPU_CALL(GPU_N_, i, GPU_UNPAREN t)   // its name
#define GPU_N_(i, kind, T, n) n
#define GPU_U(i, t) GPU_CALL(GPU_U_, i, GPU_UNPAREN t)   // its value, out of void** args
#define GPU_U_(i, kind, T, n) GPU_U_##kind(i, T)
#define GPU_K(i, t) GPU_CALL(GPU_K_, i, GPU_UNPAREN t)   // its kind and element size
#define GPU_K_(i, kind, T, n) GPU_K_##kind(T)
#define GPU_COUNT_(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s, t, u, N, ...) N
#define GPU_COUNT(...) GPU_COUNT_(__VA_ARGS__, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define GPU_EACH(M, ...) GPU_CAT(GPU_EACH_, GPU_COUNT(__VA_ARGS__))(M, __VA_ARGS__)
#define GPU_EACH_1(M, a) M(0, a)
#define GPU_EACH_2(M, a, b) GPU_EACH_1(M, a), M(1, b)
#define GPU_EACH_3(M, a, b, c) GPU_EACH_2(M, a, b), M(2, c)
#define GPU_EACH_4(M, a, b, c, d) GPU_EACH_3(M, a, b, c), M(3, d)
#define GPU_EACH_5(M, a, b, c, d, e) GPU_EACH_4(M, a, b, c, d), M(4, e)
#define GPU_EACH_6(M, a, b, c, d, e, f) GPU_EACH_5(M, a, b, c, d, e), M(5, f)
#define GPU_EACH_7(M, a, b, c, d, e, f, g) GPU_EACH_6(M, a, b, c, d, e, f), M(6, g)
#define GPU_EACH_8(M, a, b, c, d, e, f, g, h) GPU_EACH_7(M, a, b, c, d, e, f, g), M(7, h)
#define GPU_EACH_9(M, a, b, c, d, e, f, g, h, i) GPU_EACH_8(M, a, b, c, d, e, f, g, h), M(8, i)
#define GPU_EACH_10(M, a, b, c, d, e, f, g, h, i, j) GPU_EACH_9(M, a, b, c, d, e, f, g, h, i), M(9, j)
#define GPU_EACH_11(M, a, b, c, d, e, f, g, h, i, j, k) GPU_EACH_10(M, a, b, c, d, e, f, g, h, i, j), M(10, k)
#define GPU_EACH_12(M, a, b, c, d, e, f, g, h, i, j, k, l) GPU_EACH_11(M, a, b, c, d, e, f, g, h, i, j, k), M(11, l)
#define GPU_EACH_13(M, a, b, c, d, e, f, g, h, i, j, k, l, m) GPU_EACH_12(M, a, b, c, d, e, f, g, h, i, j, k, l), M(12, m)
#define GPU_EACH_14(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o) GPU_EACH_13(M, a, b, c, d, e, f, g, h, i, j, k, l, m), M(13, o)
#define GPU_EACH_15(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p) GPU_EACH_14(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o), M(14, p)
#define GPU_EACH_16(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q) GPU_EACH_15(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p), M(15, q)
#define GPU_EACH_17(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r) GPU_EACH_16(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q), M(16, r)
#define GPU_EACH_18(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s) GPU_EACH_17(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r), M(17, s)
#define GPU_EACH_19(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s, t) GPU_EACH_18(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s), M(18, t)
#define GPU_EACH_20(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s, t, u) GPU_EACH_19(M, a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s, t), M(19, u)

// TABLE(T, name) = { ... }; at the top level: constants that kernels index.
//
// A kernel may be launched with any multiple of 32 threads up to 1024; one declared with
// KERNEL_BOUNDED with at most `threads`, which leaves it more registers.
#define KERNEL(name, ...) GPU_KERNEL(GPU_NO_BOUND, 1024, name, __VA_ARGS__)
#define KERNEL_BOUNDED(threads, name, ...) GPU_KERNEL(GPU_BOUND(threads), threads, name, __VA_ARGS__)
// KERNEL_EARLY: as KERNEL_BOUNDED, and `groups` threadgroups share a multiprocessor. On CUDA it may start
// before the commands that it depends on have ended: it calls GRID_DEPENDENTS() first, and GRID_WAIT()
// before it touches what another command writes; until then it may read constants, such as weights.
// After GRID_WAIT it reaches what others write by fresh(pointer), across which no compiler moves loads.
#define KERNEL_EARLY(threads, groups, name, ...) \
  GPU_EARLY(name) GPU_KERNEL(GPU_BOUND_GROUPS(threads, groups), threads, name, __VA_ARGS__)
#define GPU_NO_BOUND

// FAULT(code, a, b, c), in the body of a KERNEL: the submission fails with the code's text, in which
// the three numbers appear. The thread goes on, and must leave out the access that was at fault.
// Of several faults in a submission any one is reported.
enum {
  FAULT_POSITION = 1,  // a: position, b: tokens that the cache holds
  FAULT_ROW = 2,       // a: index of the row number, b: row number, c: rows of the table
  FAULT_NO_LOGIT = 3   // a: bits of the largest logit
};

// =============================== METAL ====================================================
#if defined(__METAL_VERSION__)
#define GPU_METAL 1
#define DEVICE device
#define THREADGROUP threadgroup
#define THREAD thread
#define FN static inline
#define TABLE(T, name) constant T name[]
#define NO_CONTRACT _Pragma("clang fp contract(off)")
#ifndef GPU_TG_STORAGE   // a syntax check on another system sets this; on Metal it is empty
#define GPU_TG_STORAGE
#endif
#define SHARED(T, n, N) alignas(16) GPU_TG_STORAGE threadgroup T n[N]  // aligned for load4/store4
#define BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
#define BARRIER_DEVICE() threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device)
#define SIMD_BARRIER() simdgroup_barrier(mem_flags::mem_threadgroup)
#define UNROLL _Pragma("clang loop unroll(full)")
#define GPU_BOUND(threads) [[max_total_threads_per_threadgroup(threads)]]
#define GPU_BOUND_GROUPS(threads, groups) GPU_BOUND(threads)
#define GPU_P_BUF_IN(i, T, n)     const device T* n [[buffer(i)]]
#define GPU_P_BUF_OUT(i, T, n)    device T* n [[buffer(i)]]
#ifndef GPU_METAL_BLOCK  // the same check, whose compiler cannot copy out of an address space
#define GPU_METAL_BLOCK(T, n) constant T& n
#endif
#define GPU_P_BUF_PARAMS(i, T, n) GPU_METAL_BLOCK(T, n) [[buffer(i)]]
#define FAULT(code, a, b, c) gpu_fault(gpu_fault_record, code, a, b, c)
FN void gpu_fault(device atomic_uint* record, uint code, uint a, uint b, uint c) {
  atomic_store_explicit(record + 1, a, memory_order_relaxed);
  atomic_store_explicit(record + 2, b, memory_order_relaxed);
  atomic_store_explicit(record + 3, c, memory_order_relaxed);
  atomic_store_explicit(record, code, memory_order_relaxed);
}
#define GPU_KERNEL(bound, threads, name, ...)                                                \
  bound kernel void name(GPU_EACH(GPU_P, __VA_ARGS__),                                       \
                         device atomic_uint* gpu_fault_record [[buffer(30)]],                \
                         uint3 tg_id [[threadgroup_position_in_grid]],                       \
                         uint3 tg_size [[threads_per_threadgroup]],                          \
                         uint tid [[thread_index_in_threadgroup]],                           \
                         uint lane [[thread_index_in_simdgroup]],                            \
                         uint simd_id [[simdgroup_index_in_threadgroup]],                    \
                         uint num_simds [[simdgroups_per_threadgroup]])

typedef half f16;
typedef ulong u64;
FN float4 make_float4(float x, float y, float z, float w) { float4 r = {x, y, z, w}; return r; }
FN uint2 make_uint2(uint x, uint y) { uint2 r = {x, y}; return r; }
FN uint4 make_uint4(uint x, uint y, uint z, uint w) { uint4 r = {x, y, z, w}; return r; }
FN uint tg_atomic_add(threadgroup uint* p, uint v) {
  return atomic_fetch_add_explicit((threadgroup atomic_uint*)p, v, memory_order_relaxed);
}

// ============================ CUDA and HOST ===============================================
#else
#define DEVICE
#define THREADGROUP
#define THREAD
#define GPU_IDS uint3 tg_id, uint3 tg_size, uint tid, uint lane, uint simd_id, uint num_simds
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long u64;

// =============================== CUDA =====================================================
#if defined(__CUDACC__)
#define GPU_CUDA 1
#define FN static __device__ __forceinline__ __attribute__((unused))  // NVRTC warns otherwise
#define TABLE(T, name) static __device__ __attribute__((unused)) const T name[]
#define SHARED(T, n, N) __shared__ __align__(16) T n[N]
#define BARRIER() __syncthreads()
#define BARRIER_DEVICE() __syncthreads()
#define SIMD_BARRIER() __syncwarp()
#define UNROLL _Pragma("unroll")
#define GPU_BOUND(threads) __launch_bounds__(threads, 1)
#define GPU_BOUND_GROUPS(threads, groups) __launch_bounds__(threads, groups)
#define GPU_EARLY(name) extern "C" { __device__ uint GPU_CAT(name, _starts_early) = 1; }
#if __CUDA_ARCH__ >= 900
#define GRID_DEPENDENTS() asm volatile("griddepcontrol.launch_dependents;" ::: "memory")
#define GRID_WAIT() asm volatile("griddepcontrol.wait;" ::: "memory")
#else
#define GRID_DEPENDENTS()
#define GRID_WAIT()
#endif
// `bytes` (at most 16) bytes into threadgroup memory, both addresses aligned to 16; the rest of 16 becomes 0. A
// copy_target is such an address, to which bytes are added.
// COPY_END closes a group of copies, COPY_WAIT(n) waits for the thread's own copies of all groups but the
// last n (a constant).
typedef uint copy_target;
FN copy_target copy_target_at(uchar* to) { return uint(__cvta_generic_to_shared(to)); }
FN void copy16_async(copy_target to, const uchar* from, uint bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" :: "r"(to), "l"(from), "r"(bytes) : "memory");
}
// Brings bytes nearer that will be read soon; address and length are multiples of 16.
FN void prefetch(const uchar* from, uint bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(from), "r"(bytes) : "memory");
#endif
}
#define COPY_END() asm volatile("cp.async.commit_group;" ::: "memory")
#define COPY_WAIT(n) asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory")
template <typename T> FN T* fresh(T* p) {
  asm volatile("" : "+l"(p) : : "memory");
  return p;
}
FN uint funnel_right(uint low, uint high, uint bits) { return __funnelshift_r(low, high, bits); }
#define GPU_P_BUF_IN(i, T, n)     const T* __restrict__ n
#define GPU_P_BUF_OUT(i, T, n)    T* __restrict__ n
#define GPU_P_BUF_PARAMS(i, T, n) const T n
#define GPU_KERNEL(bound, threads, name, ...)                                                \
  FN void name##_body(GPU_EACH(GPU_P, __VA_ARGS__), GPU_IDS);                                \
  extern "C" __global__ void bound name(GPU_EACH(GPU_P, __VA_ARGS__)) {                      \
    name##_body(GPU_EACH(GPU_N, __VA_ARGS__), blockIdx, blockDim, threadIdx.x,               \
                threadIdx.x & 31u, threadIdx.x >> 5, (blockDim.x + 31u) >> 5);               \
  }                                                                                          \
  FN void name##_body(GPU_EACH(GPU_P, __VA_ARGS__), GPU_IDS)

// Threadgroup memory beside SHARED arrays, for texts in CUDA C++ alone: a launch of kernel `name` gets
// so many bytes of it, declared in the body as `extern __shared__`. More than 48 KB is possible only so.
#define DYNAMIC_SHARED(name, ...) extern "C" { __device__ uint GPU_CAT(name, _dynamic_shared) = __VA_ARGS__; }

// Points at words that the host can see, set when the module is loaded; null: a fault traps.
// Word 0 is the number of the last submission that has ended; a fault of submission n goes into the
// four words from 4 + 4 * (n % 64), its code last.
extern "C" { __device__ uint* gpu_fault_words; }
static __device__ __noinline__ __attribute__((unused)) void gpu_fault(uint code, uint a, uint b, uint c) {
  if (!gpu_fault_words) asm volatile("trap;");
  volatile uint* words = gpu_fault_words;
  volatile uint* record = words + 4 + 4 * ((words[0] + 1) % 64);
  record[1] = a; record[2] = b; record[3] = c;
  __threadfence_system();
  record[0] = code;
}
#define FAULT(code, a, b, c) gpu_fault(code, a, b, c)

#define GPU_FULL 0xffffffffu
template <typename T> FN T simd_shuffle_xor(T v, ushort m) { return __shfl_xor_sync(GPU_FULL, v, m); }
template <typename T> FN T simd_shuffle(T v, ushort l) { return __shfl_sync(GPU_FULL, v, l); }
template <typename T> FN T simd_sum(T v) {
  for (int m = 16; m > 0; m >>= 1) v += __shfl_xor_sync(GPU_FULL, v, m);
  return v;
}
template <typename T> FN T simd_max(T v) {
  for (int m = 16; m > 0; m >>= 1) v = max(v, __shfl_xor_sync(GPU_FULL, v, m));
  return v;
}
template <typename To, typename From> FN To as_type(From v) {
  static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ");
  To r; memcpy(&r, &v, sizeof r); return r;
}
FN float gpu_f16_to_f32(ushort b) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(b)); return f; }
FN ushort gpu_f32_to_f16(float f) { ushort b; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(b) : "f"(f)); return b; }
FN int dot4_i8(uint a, uint b, int c) { return __dp4a(int(a), int(b), c); }
FN uint tg_atomic_add(uint* p, uint v) { return atomicAdd(p, v); }
FN float mul_rn(float a, float b) { return __fmul_rn(a, b); }
FN float add_rn(float a, float b) { return __fadd_rn(a, b); }

// =============================== HOST =====================================================
#else
#define GPU_HOST 1
#define TABLE(T, name) static const T name[]
#include "emulator.h"
#endif

// ---- what Metal has natively and CUDA and HOST need --------------------------------------
struct f16 { ushort bits; };  // storage only: no arithmetic, so the faces cannot differ in it
#if defined(GPU_HOST)
FN float gpu_element(const f16* p) { return gpu_f16_to_f32(p->bits); }
FN void gpu_set_element(f16* p, float v) { p->bits = gpu_f32_to_f16(v); }
#endif
FN float4 operator+(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
FN float4 operator*(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
FN float4 operator*(float4 a, float s) { return make_float4(a.x * s, a.y * s, a.z * s, a.w * s); }
FN float dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
#endif

// ================================ all faces ===============================================
struct bf16 { ushort bits; };  // storage only; needs no Metal 3.1 bfloat
// Start value of a running maximum. Not -INFINITY: Metal compiles with fast math by default.
#define GPU_LOWEST (-3.0e38f)

FN float gpu_bf16_to_f32(ushort b) { return as_type<float>(uint(b) << 16); }
FN ushort gpu_f32_to_bf16(float f) {  // round to nearest even, NaN stays NaN
  const uint u = as_type<uint>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return ushort((u >> 16) | 0x40u);
  return ushort((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
// The bits of a half
#if !defined(GPU_METAL)
FN uint gpu_f16_bits(float v) { return gpu_f32_to_f16(v); }
#endif
// Bits `bits`..`bits` + 31 of high:low; bits is at most 31.
#if !defined(GPU_CUDA)
FN uint funnel_right(uint low, uint high, uint bits) { return bits == 0 ? low : low >> bits | high << (32 - bits); }
#endif
#if defined(GPU_METAL)
FN uint gpu_f16_bits(float v) { return as_type<ushort>(half(v)); }
FN float gpu_f16_to_f32(ushort b) { return float(as_type<half>(b)); }
#endif

// Products and sums that no compiler may contract, where every face must give the same bits.
#if !defined(GPU_CUDA)
FN float mul_rn(float a, float b) { NO_CONTRACT return a * b; }
FN float add_rn(float a, float b) { NO_CONTRACT return a + b; }
#endif

// c + the products of the four signed bytes of a and b
#if !defined(GPU_CUDA)
FN int dot4_i8(uint a, uint b, int c) {
  for (uint s = 0; s < 32; s += 8) c += (int(a << (24 - s)) >> 24) * (int(b << (24 - s)) >> 24);
  return c;
}
#endif

// Loads and stores of numbers, always through float: ld/st one, load4/store4 four (pointer
// aligned to four elements). Loads of bytes: 2, 4, 8, 16 at a time, aligned to as many.
// One overload per address space on Metal, one in all elsewhere.
#if defined(GPU_HOST)
#define GPU_VEC(T, p) (*gpu_host_vec<T>(p))  // fatal if misaligned
#else
#define GPU_VEC(T, p) (*(T*)(p))
#endif
#if defined(GPU_METAL)
#define GPU_F16_LD(p) float(*p)
#define GPU_F16_ST(p, v) *p = half(v)
#define GPU_LOAD4_F16(AS, p) half4 h = GPU_VEC(const AS half4, p); return make_float4(float(h.x), float(h.y), float(h.z), float(h.w))
#define GPU_STORE4_F16(AS, p, v) half4 h = {half(v.x), half(v.y), half(v.z), half(v.w)}; GPU_VEC(AS half4, p) = h
#else
#define GPU_F16_LD(p) gpu_f16_to_f32(p->bits)
#define GPU_F16_ST(p, v) p->bits = gpu_f32_to_f16(v)
#define GPU_LOAD4_F16(AS, p)                                                                 \
  const ushort4 h = GPU_VEC(const ushort4, p);                                               \
  return make_float4(gpu_f16_to_f32(h.x), gpu_f16_to_f32(h.y), gpu_f16_to_f32(h.z), gpu_f16_to_f32(h.w))
#define GPU_STORE4_F16(AS, p, v)                                                             \
  ushort4 h = {gpu_f32_to_f16(v.x), gpu_f32_to_f16(v.y), gpu_f32_to_f16(v.z), gpu_f32_to_f16(v.w)}; \
  GPU_VEC(ushort4, p) = h
#endif
#define GPU_LOADS_STORES(AS)                                                                 \
  FN float ld(const AS float* p) { return *p; }                                              \
  FN float ld(const AS f16* p) { return GPU_F16_LD(p); }                                     \
  FN float ld(const AS bf16* p) { return gpu_bf16_to_f32(p->bits); }                         \
  FN void st(AS float* p, float v) { *p = v; }                                               \
  FN void st(AS f16* p, float v) { GPU_F16_ST(p, v); }                                       \
  FN void st(AS bf16* p, float v) { p->bits = gpu_f32_to_bf16(v); }                          \
  FN float4 load4(const AS float* p) { return GPU_VEC(const AS float4, p); }                 \
  FN float4 load4(const AS f16* p) { GPU_LOAD4_F16(AS, p); }                                 \
  FN float4 load4(const AS bf16* p) {                                                        \
    const ushort4 h = GPU_VEC(const AS ushort4, p);                                          \
    return make_float4(gpu_bf16_to_f32(h.x), gpu_bf16_to_f32(h.y), gpu_bf16_to_f32(h.z), gpu_bf16_to_f32(h.w)); \
  }                                                                                          \
  FN void store4(AS float* p, float4 v) { GPU_VEC(AS float4, p) = v; }                       \
  FN void store4(AS f16* p, float4 v) { GPU_STORE4_F16(AS, p, v); }                          \
  FN void store4(AS bf16* p, float4 v) {                                                     \
    ushort4 h = {gpu_f32_to_bf16(v.x), gpu_f32_to_bf16(v.y), gpu_f32_to_bf16(v.z), gpu_f32_to_bf16(v.w)}; \
    GPU_VEC(AS ushort4, p) = h;                                                              \
  }                                                                                          \
  FN uint load_u8(const AS uchar* p) { return *p; }                                          \
  FN uint load_u16(const AS uchar* p) { return GPU_VEC(const AS ushort, p); }                \
  FN uint load_u32(const AS uchar* p) { return GPU_VEC(const AS uint, p); }                  \
  FN uint2 load_u64(const AS uchar* p) { return GPU_VEC(const AS uint2, p); }                \
  FN uint4 load_u128(const AS uchar* p) { return GPU_VEC(const AS uint4, p); }               \
  FN void store_u32(AS uchar* p, uint v) { GPU_VEC(AS uint, p) = v; }                        \
  FN void store_u128(AS uchar* p, uint4 v) { GPU_VEC(AS uint4, p) = v; }
#if defined(GPU_METAL)
GPU_LOADS_STORES(device)
GPU_LOADS_STORES(threadgroup)
#else
GPU_LOADS_STORES()
#endif

// One array of threadgroup memory that may be larger than SHARED arrays can be on CUDA, in the body of
// kernel `name`, for which LARGE_SHARED_SIZE stands before the kernel with the same number of bytes.
#if defined(GPU_CUDA)
#define LARGE_SHARED_SIZE(name, bytes) DYNAMIC_SHARED(name, bytes)
#define LARGE_SHARED(n, bytes) extern __shared__ uint4 gpu_large_shared[]; uchar* n = (uchar*)gpu_large_shared
#else
#if defined(GPU_METAL)
#if defined(GPU_METAL)  // what kernels have beside it, too
#define LARGE_SHARED_SIZE(name, bytes) static_assert((bytes) <= 32768 - 512, "Apple's GPUs have 32 KB of threadgroup memory");
#else
#define LARGE_SHARED_SIZE(name, bytes)
#endif
#define LARGE_SHARED(n, bytes) SHARED(uchar, n, bytes)
#endif
// What these are on CUDA is said there.
#define GPU_EARLY(name)
#define GRID_DEPENDENTS()
#define GRID_WAIT()
#define COPY_END()
#define COPY_WAIT(n)
typedef THREADGROUP uchar* copy_target;
FN copy_target copy_target_at(THREADGROUP uchar* to) { return to; }
FN void copy16_async(copy_target to, const DEVICE uchar* from, uint bytes) {
  if (bytes == 16) {
    store_u128(to, load_u128(from));
  } else {
    for (uint i = 0; i < 16; i++) to[i] = i < bytes ? from[i] : uchar(0);
  }
}
FN void prefetch(const DEVICE uchar*, uint) {}
#define fresh(p) (p)
#endif

// Sum and maximum over the threadgroup, for every thread. partial: one value per simdgroup;
// before it is used again there must be a BARRIER().
FN float tg_sum(float v, THREADGROUP float* partial, uint lane, uint simd_id, uint num_simds) {
  v = simd_sum(v);
  if (lane == 0) partial[simd_id] = v;
  BARRIER();
  return simd_sum(lane < num_simds ? partial[lane] : 0.0f);
}
FN float tg_max(float v, THREADGROUP float* partial, uint lane, uint simd_id, uint num_simds) {
  v = simd_max(v);
  if (lane == 0) partial[simd_id] = v;
  BARRIER();
  return simd_max(lane < num_simds ? partial[lane] : GPU_LOWEST);
}
#endif
