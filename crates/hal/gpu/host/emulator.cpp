// SIMT emulator: one fiber per GPU thread, all on one OS thread, so that a run is deterministic.
// Compiled WITHOUT sanitizers: it finds their fiber interfaces at link time (weak symbols), and
// its own bookkeeping must not look like racing accesses.
//
//  * ASan: fiber switches are announced; threadgroup arrays sit between poisoned gaps.
//  * TSan: every GPU thread is a TSan fiber and switches carry no ordering. Only barriers order
//    memory, and simdgroup operations do not, as on a GPU. So a missing barrier is a reported
//    race on every schedule, and so is a race between threadgroups.
//  * Always: threadgroup memory starts as NaN bytes and is limited to 32 KiB, to 99 KiB with a large
//    array; a barrier or simdgroup operation that not all threads (lanes) reach at the same source
//    line is fatal.
#include "../gpu.h"
#include "runner.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define WEAK extern "C" __attribute__((weak))
WEAK void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
WEAK void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
WEAK void __asan_poison_memory_region(const volatile void*, size_t);
WEAK void __asan_unpoison_memory_region(const volatile void*, size_t);
WEAK void* __tsan_get_current_fiber(void);
WEAK void* __tsan_create_fiber(unsigned flags);
WEAK void __tsan_destroy_fiber(void* fiber);
WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
WEAK void __tsan_acquire(void*);
WEAK void __tsan_release(void*);

// ---- switching stacks --------------------------------------------------------------------
#if defined(__x86_64__)
// Saves what the System V ABI lets a callee keep, and takes the other stack. swapcontext does the
// same with two system calls.
extern "C" void gpu_switch(void** save, void* to);
asm(R"(
.text
.globl gpu_switch
.type gpu_switch, @function
gpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gpu_switch, .-gpu_switch
)");
typedef void* Context;
static void enter_fiber();
static void make_context(Context* c, char* stack, size_t size) {
  void** top = (void**)(stack + size);  // 16-byte aligned
  *--top = nullptr;                      // where a caller's return address would be
  *--top = (void*)enter_fiber;
  for (int i = 0; i < 6; i++) *--top = nullptr;
  *c = top;
}
static void switch_context(Context* from, Context* to) { gpu_switch(from, *to); }
#else
typedef ucontext_t Context;
static void enter_fiber();
static void make_context(Context* c, char* stack, size_t size) {
  getcontext(c);
  c->uc_stack.ss_sp = stack;
  c->uc_stack.ss_size = size;
  c->uc_link = nullptr;
  makecontext(c, enter_fiber, 0);
}
static void switch_context(Context* from, Context* to) { swapcontext(from, to); }
#endif

namespace {
// With a large array threadgroup memory has what most of NVIDIA's GPUs have at least.
enum { LANES = 32, TG_BYTES = 32768, LARGE_TG_BYTES = 99 * 1024, GAP = 64, STACK = 64 * 1024 };
enum State { READY, AT_BARRIER, AT_SIMD, DONE };

struct Fiber {
  Context context;
  char* stack;
  void *tsan, *asan;
  gpu_ids ids;
  State state;
  const char *op, *file;
  int line;
  uint64_t value, second;
};
struct Shared { const void* key; size_t bytes; void* at; };
struct SyncPair { char a[2]; };  // two objects used in turn: a fast thread cannot order a slow one

struct Group {
  std::vector<Fiber> fibers;
  std::vector<Shared> shared;
  uint64_t lanes[32][LANES], second[32][LANES];  // operands of the last operation of each simdgroup
  SyncPair sync[33];          // [32]: the threadgroup
  uint phase[33];
  char *arena, *large;
  size_t used, large_bytes;
} g;
Fiber* self;
Context main_context;
void *main_tsan, *main_asan;
const void* main_stack;
size_t main_stack_size;
char launch_end;
const char* kernel_name;
gpu_kernel kernel;
void** kernel_args;
const gpu_entry* entries;
const gpu_large* larges;
std::vector<char*> blocks;  // of threadgroup memory; under TSan new ones for each threadgroup, so that reuse is no race

[[noreturn]] void fatal(const char* what) {
  const uint3 at = g.fibers.empty() ? uint3{0, 0, 0} : g.fibers[0].ids.tg_id;
  fprintf(stderr, "emulator: %s, threadgroup (%u,%u,%u): %s\n", kernel_name, at.x, at.y, at.z, what);
  _Exit(70);
}

void to_main() {
  Fiber* f = self;
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(main_tsan, 1);
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(f->state == DONE ? nullptr : &f->asan, main_stack, main_stack_size);
  switch_context(&f->context, &main_context);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(f->asan, nullptr, nullptr);
}

void to_fiber(Fiber* f) {
  self = f;
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(f->tsan, 1);
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&main_asan, f->stack, STACK);
  switch_context(&main_context, &f->context);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(main_asan, nullptr, nullptr);
}

void prepare(Fiber& f) {
  // TSan: map the stack anew, so that it does not see a race with the stack's last user
  if (__tsan_create_fiber)
    mmap(f.stack, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  make_context(&f.context, f.stack, STACK);
  if (__tsan_create_fiber) f.tsan = __tsan_create_fiber(0);
}

// All fibers of [first, last) wait in the same state at the same place?
bool together(uint first, uint last, State state) {
  const Fiber& a = g.fibers[first];
  for (uint i = first; i < last; i++) {
    const Fiber& f = g.fibers[i];
    if (f.state != state || f.line != a.line || f.file != a.file || f.op != a.op) return false;
  }
  return true;
}

void release(uint first, uint last, uint sync) {
  g.phase[sync]++;
  for (uint i = first; i < last; i++) g.fibers[i].state = READY;
}

[[noreturn]] void diverged() {
  for (uint i = 0; i < g.fibers.size(); i++) {
    const Fiber &f = g.fibers[i], &b = g.fibers[i ? i - 1 : 0];
    if (i && f.state == b.state && f.line == b.line && f.op == b.op) continue;
    if (f.state == DONE) fprintf(stderr, "emulator:   from thread %u: ended\n", i);
    else fprintf(stderr, "emulator:   from thread %u: waits in %s at %s:%d\n", i, f.op, f.file, f.line);
  }
  fatal("divergence: these threads can never meet");
}

uint64_t next_random(uint64_t& seed) {
  seed = seed * 6364136223846793005ull + 1442695040888963407ull;
  return seed >> 33;
}

void run_group(uint3 tg, uint threads, std::vector<uint>& order, uint64_t& seed) {
  const uint simds = threads / LANES;
  g.shared.clear();
  g.used = 0;
  for (uint i = 0; i < threads; i++) {
    Fiber& f = g.fibers[i];
    f.ids = gpu_ids{tg, {threads, 1, 1}, i, i % LANES, i / LANES, simds};
    f.state = READY;
    prepare(f);
  }
  for (;;) {
    if (seed)
      for (uint i = threads; i > 1; i--) std::swap(order[i - 1], order[next_random(seed) % i]);
    for (uint i : order)
      if (g.fibers[i].state == READY) to_fiber(&g.fibers[i]);
    // every thread now waits or has ended
    bool moved = false, all_done = true;
    for (uint s = 0; s < simds; s++) {
      const uint first = s * LANES;
      if (together(first, first + LANES, AT_SIMD)) {
        for (uint i = 0; i < LANES; i++) {
          g.lanes[s][i] = g.fibers[first + i].value;
          g.second[s][i] = g.fibers[first + i].second;
        }
        release(first, first + LANES, s);
        moved = true;
      }
    }
    for (Fiber& f : g.fibers) all_done = all_done && f.state == DONE;
    if (all_done) break;
    if (moved) continue;
    if (!together(0, threads, AT_BARRIER)) diverged();
    release(0, threads, 32);
  }
  if (__tsan_destroy_fiber) for (Fiber& f : g.fibers) __tsan_destroy_fiber(f.tsan);
}

void wait(State state, const char* op, const char* file, int line) {
  self->state = state; self->op = op; self->file = file; self->line = line;
  to_main();
}

char* new_block(size_t bytes) {
  void* block = nullptr;
  if (posix_memalign(&block, 64, bytes)) fatal("out of memory");
  blocks.push_back((char*)block);
  return (char*)block;
}

char* new_stack() {
  char* p = (char*)mmap(nullptr, STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) fatal(strerror(errno));
  mprotect(p, 4096, PROT_NONE);  // stack overflow faults
  return p + 4096;
}
}  // namespace

static void enter_fiber() {
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, &main_stack, &main_stack_size);
  kernel(kernel_args);
  if (__tsan_release) __tsan_release(&launch_end);
  self->state = DONE;
  to_main();
}

gpu_entry::gpu_entry(const char* n, gpu_kernel k, uint t, const gpu_argument* a, size_t c)
    : name(n), kernel(k), threads(t), arguments(a), argument_count(c), next(entries) {
  entries = this;
}

gpu_large::gpu_large(const char* n, size_t b) : name(n), bytes(b), next(larges) { larges = this; }

const gpu_entry* gpu_host_find(const char* name) {
  const gpu_entry* e = entries;
  while (e && strcmp(e->name, name)) e = e->next;
  return e;
}

gpu_ids gpu_host_ids() { return self->ids; }

void* gpu_host_shared(const void* key, size_t bytes) {
  for (const Shared& s : g.shared) if (s.key == key) return s.at;
  const size_t need = (bytes + 15) / 16 * 16;
  g.used += need;
  if (g.used > TG_BYTES) fatal("more than 32768 bytes of threadgroup memory");
  if (g.large && g.used + g.large_bytes > LARGE_TG_BYTES) fatal("more than 101376 bytes of threadgroup memory");
  char* at = g.arena + GAP;
  for (const Shared& s : g.shared) at = (char*)s.at + (s.bytes + 15) / 16 * 16 + GAP;
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(at, bytes);
  g.shared.push_back(Shared{key, bytes, at});
  return at;
}

void* gpu_host_large_shared(size_t bytes) {
  if (!g.large || bytes != g.large_bytes) fatal("LARGE_SHARED_SIZE does not say what LARGE_SHARED does");
  return g.large;
}

void gpu_host_barrier(bool whole_group, const char* file, int line) {
  const uint i = whole_group ? 32 : self->ids.simd_id;
  char* sync = &g.sync[i].a[g.phase[i] & 1];
  if (__tsan_release) __tsan_release(sync);
  wait(whole_group ? AT_BARRIER : AT_SIMD, whole_group ? "BARRIER" : "SIMD_BARRIER", file, line);
  if (__tsan_acquire) __tsan_acquire(sync);
}

void gpu_host_misaligned(const void* p, size_t align) {
  fprintf(stderr, "emulator: thread %u: %p is misaligned, %zu bytes needed\n", self ? self->ids.tid : 0, p, align);
  fatal("misaligned vector access");
}

void gpu_host_fault(uint code, uint a, uint b, uint c) {
  char text[64];
  snprintf(text, sizeof text, "fault %u %u %u %u", code, a, b, c);
  fatal(text);
}

void gpu_host_exchange(uint64_t mine, uint64_t* all, const char* op, const char* file, int line) {
  self->value = mine;
  wait(AT_SIMD, op, file, line);  // orders no memory
  for (int i = 0; i < LANES; i++) all[i] = ((volatile uint64_t*)g.lanes[self->ids.simd_id])[i];
}

void gpu_host_meet(const char* op, const char* file, int line) { wait(AT_SIMD, op, file, line); }

// sums += a b: of each 8 x 8 matrix a lane gives and gets the two elements that it holds.
void gpu_host_multiply_add(const float* a, const float* b, float* sums, const char* op, const char* file, int line) {
  memcpy(&self->value, a, sizeof self->value);
  memcpy(&self->second, b, sizeof self->second);
  wait(AT_SIMD, op, file, line);
  const volatile float* left = (const volatile float*)g.lanes[self->ids.simd_id];
  const volatile float* right = (const volatile float*)g.second[self->ids.simd_id];
  for (uint i = 0; i < 2; i++) {
    const uint row = gpu_matrix::row_of(self->ids.lane, i), column = gpu_matrix::column_of(self->ids.lane, i);
    for (uint k = 0; k < 8; k++)
      sums[i] += left[gpu_matrix::holder_of(row * 8 + k)] * right[gpu_matrix::holder_of(k * 8 + column)];
  }
}

void gpu_host_launch(const gpu_entry* entry, uint3 groups, uint threads, gpu_schedule schedule, void** args) {
  kernel = entry->kernel; kernel_name = entry->name; kernel_args = args;
  uint64_t seed = schedule.order == GPU_SHUFFLED ? schedule.seed | 1 : 0;
  std::vector<uint> order(threads);
  for (uint i = 0; i < threads; i++) order[i] = schedule.order == GPU_REVERSE ? threads - 1 - i : i;
  static std::vector<char*> stacks;  // kept between launches
  while (stacks.size() < threads) stacks.push_back(new_stack());
  g.fibers.assign(threads, Fiber());
  for (uint i = 0; i < threads; i++) g.fibers[i].stack = stacks[i];
  if (__tsan_get_current_fiber) main_tsan = __tsan_get_current_fiber();
  const size_t arena_bytes = TG_BYTES + 64 * GAP;
  const gpu_large* large = larges;
  while (large && strcmp(large->name, entry->name)) large = large->next;
  g.arena = g.large = nullptr;
  g.large_bytes = large ? large->bytes : 0;
  for (uint z = 0; z < groups.z; z++)
    for (uint y = 0; y < groups.y; y++)
      for (uint x = 0; x < groups.x; x++) {
        if (!g.arena || __tsan_create_fiber) {
          g.arena = new_block(arena_bytes);
          g.large = large ? new_block(large->bytes) : nullptr;
        }
        if (g.large) memset(g.large, 0xff, g.large_bytes);
        if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(g.arena, arena_bytes);
        memset(g.arena, 0xff, arena_bytes);
        if (__asan_poison_memory_region) __asan_poison_memory_region(g.arena, arena_bytes);
        run_group(uint3{x, y, z}, threads, order, seed);
      }
  if (__tsan_acquire) __tsan_acquire(&launch_end);
  if (g.arena && __asan_unpoison_memory_region) __asan_unpoison_memory_region(g.arena, arena_bytes);
  for (char* block : blocks) free(block);
  blocks.clear();
}

float gpu_f16_to_f32(ushort b) {
  const uint e = (b >> 10) & 31u, m = b & 1023u, sign = uint(b & 0x8000u) << 16;
  if (e == 31) return as_type<float>(sign | 0x7f800000u | (m << 13));
  if (e == 0) return as_type<float>(as_type<uint>(float(m) * 5.9604644775390625e-8f) | sign);
  return as_type<float>(sign | ((e + 112u) << 23) | (m << 13));
}

ushort gpu_f32_to_f16(float f) {  // round to nearest even
  const uint u = as_type<uint>(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return ushort(sign | 0x7e00u);
  if (a >= 0x477ff000u) return ushort(sign | 0x7c00u);
  if (a < 0x38800000u) return ushort(sign | uint(lrintf(as_type<float>(a) * 16777216.0f)));
  return ushort(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13));
}
