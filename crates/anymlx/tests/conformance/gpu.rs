//! Texts of the tests' kernels for GPUs. A kernel that is launched over `n` items runs in `n` groups.

/// How long a [`crate::support::Gate`] stays closed on a GPU, which the host cannot open early.
const GATE_MILLISECONDS: u32 = 500;

/// All kernels with a work of their own: one text, so compiled together.
pub fn text() -> String {
    format!("#define GATE_MILLISECONDS {GATE_MILLISECONDS}\n{KERNELS}")
}

/// Kernels of these names that do nothing with one binding.
pub fn idle<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("KERNEL({name}, IN(uint, x)) {{}}\n")).collect()
}

const KERNELS: &str = r#"
KERNEL(add_one, IN(uint, x), OUT(uint, y)) {
  if (tid == 0) y[tg_id.x] = x[tg_id.x] + 1;
}

KERNEL(copy_seven, IN(uint, x), OUT(uint, y)) {
  if (tid < 7) y[tid] = x[tid];
}

KERNEL(double_into, IN(uint, x), IN(uint, y), INOUT(uint, z)) {
  if (tid < 4) z[tid] += x[tid] + y[tid];
}

KERNEL(any, OUT(uint, x)) {}
KERNEL(nothing, IN(uint, x), OUT(uint, y)) {}

KERNEL(failing_1, OUT(uint, x)) {
  if (tid == 0) FAULT(77, 5, 0, 0);
}
KERNEL(failing_2, IN(uint, x), OUT(uint, y)) {
  if (tid == 0) FAULT(77, 5, 0, 0);
}

// In a mood while the first element is below 5.
KERNEL(moody, INOUT(uint, x)) {
  const bool mood = x[0] < 5;
  SIMD_BARRIER();
  if (mood && tid == 0) FAULT(78, x[0], 0, 0);
  if (!mood && tid < 4) x[tid] += 1;
}

#if defined(GPU_CUDA)
FN void pass(u64 milliseconds) {
  u64 start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do { asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)); } while (now - start < milliseconds * 1000000);
}
extern "C" __global__ void sleeping() { pass(25); }
extern "C" __global__ void counting_0() {}
extern "C" __global__ void counting_1(uint* x) {}
extern "C" __global__ void gate_0() { pass(GATE_MILLISECONDS); }
extern "C" __global__ void gate_1(uint* x) { pass(GATE_MILLISECONDS); }
extern "C" __global__ void gate_2(uint* x, uint* y) { pass(GATE_MILLISECONDS); }
#elif defined(GPU_METAL)
// Metal has no clock: about this long at some 40 cycles for each round trip of a volatile variable.
FN void pass(uint milliseconds) {
  volatile uint x = 1;
  for (uint i = 0; i < milliseconds * 30000u; i++) x = x * 1664525u + 1013904223u;
}
kernel void sleeping() { pass(25); }
kernel void counting_0() {}
kernel void counting_1(device uint* x [[buffer(0)]]) {}
kernel void gate_0() { pass(GATE_MILLISECONDS); }
kernel void gate_1(device uint* x [[buffer(0)]]) { pass(GATE_MILLISECONDS); }
kernel void gate_2(device uint* x [[buffer(0)]], device uint* y [[buffer(1)]]) { pass(GATE_MILLISECONDS); }
#endif
"#;
