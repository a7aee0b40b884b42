//! Against a GPU, where there is one; each skip is printed with its reason.

mod failures;
mod lifetimes;
mod memory;
mod work;

use std::time::Duration;

use super::{Buffer, Cuda, CudaOptions, Device, Encoder, Kernel, Pending};
use crate::{
    Access, HalError, Launch, Result,
    backend::{Bound, Device as _, Encoder as _, KernelSource, Pending as _, StorageMode, Timing},
};

/// Kernels in the portable dialect, apart from what only a GPU can do.
pub(super) const TEXT: &str = r#"
struct Args { float amount; uint count; };

KERNEL(add_amount, INOUT(float, values), PARAMS(Args, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) values[i] += p.amount;
}

KERNEL(scaled, IN(float, x), OUT(float, y), PARAMS(Args, p)) {
  const uint i = tg_id.x * tg_size.x + tid;
  if (i < p.count) y[i] = p.amount * x[i];
}

KERNEL_BOUNDED(64, bounded, OUT(float, y), PARAMS(Args, p)) {
  if (tid < p.count) y[tid] = p.amount;
}

KERNEL(report, OUT(uint, x), PARAMS(Args, p)) {
  if (tid == 0) { x[0] = p.count; FAULT(70 + p.count, 1, 2, 3); }
}

// Keeps one thread busy for `count` microseconds.
KERNEL(spin, OUT(uint, x), PARAMS(Args, p)) {
#if defined(GPU_CUDA)
  u64 start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do { asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)); } while (now - start < u64(p.count) * 1000);
#endif
  if (tid == 0) x[0] = p.count;
}

// Writes where nothing is.
KERNEL(stray, OUT(uint, x), PARAMS(Args, p)) {
#if defined(GPU_CUDA)
  *(volatile uint*)(x + (u64(p.count) << 32)) = 1;
#endif
}
"#;

#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Args {
    pub(super) amount: f32,
    pub(super) count: u32,
}

/// The first GPU, or `None` with the reason on the standard error.
pub(super) fn device() -> Option<Device> {
    open(&CudaOptions::default())
}

pub(super) fn open(options: &CudaOptions) -> Option<Device> {
    match Device::open(options) {
        Ok(device) => Some(device),
        Err(error @ HalError::DeviceNotFound { .. }) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(super) fn kernel(device: &Device, name: &str) -> Kernel {
    device.compile(&KernelSource { name, gpu: TEXT, cpu: None }).expect("compiles")
}

pub(super) fn floats(device: &Device, values: &[f32]) -> Buffer {
    let buffer = device.allocate(size_of_val(values) as u64, StorageMode::Shared).expect("allocates");
    device.upload(&buffer, 0, bytemuck::cast_slice(values)).expect("uploads");
    buffer
}

pub(super) fn read<T: bytemuck::Pod>(device: &Device, buffer: &Buffer) -> Vec<T> {
    use crate::backend::Buffer as _;
    let mut values = vec![T::zeroed(); buffer.byte_len() as usize / size_of::<T>()];
    device.download(buffer, 0, bytemuck::cast_slice_mut(&mut values)).expect("downloads");
    values
}

pub(super) fn bound(buffer: &Buffer, access: Access) -> Bound<'_, Cuda> {
    use crate::backend::Buffer as _;
    Bound { buffer, offset: 0, byte_len: buffer.byte_len(), access }
}

pub(super) fn launch(groups: u32, threads: u32) -> Launch {
    Launch { groups: [groups, 1, 1], threads_per_group: threads, ..Launch::default() }
}

/// Records one kernel over all of `buffers`, the last of which it writes.
pub(super) fn record(encoder: &mut Encoder, kernel: &Kernel, buffers: &[&Buffer], args: Args) -> Result<()> {
    let groups = args.count.min(1 << 20).div_ceil(64).max(1);
    let bindings: Vec<_> = buffers
        .iter()
        .enumerate()
        .map(|(index, buffer)| bound(buffer, if index + 1 == buffers.len() { Access::ReadWrite } else { Access::Read }))
        .collect();
    encoder.dispatch(kernel, &bindings, bytemuck::bytes_of(&args), launch(groups, 64), &format!("{kernel:?}"))
}

/// Submits one kernel of one group.
pub(super) fn submit_one(device: &Device, label: &str, kernel: &Kernel, buffer: &Buffer, count: u32) -> Pending {
    let mut encoder = device.encoder().expect("encoder");
    let args = Args { amount: 1.0, count };
    encoder
        .dispatch(kernel, &[bound(buffer, Access::Write)], bytemuck::bytes_of(&args), launch(1, 32), label)
        .expect("records");
    device.submit(encoder, label).expect("submits")
}

pub(super) fn failure(outcome: Result<Timing>) -> HalError {
    outcome.expect_err("the work was made to fail")
}

#[test]
fn an_absent_gpu_is_named_with_the_reason() {
    let error = Device::open(&CudaOptions { index: 1000, ..CudaOptions::default() }).expect_err("no such GPU");
    let HalError::DeviceNotFound { backend: "cuda", reason } = error else { panic!("{error}") };
    let known = ["libcuda", "cuInit", "GPU 1000", "driver supports"];
    assert!(known.iter().any(|text| reason.contains(text)), "{reason}");
}

#[test]
fn a_missing_compiler_is_named() {
    let error = super::Compiler::load(std::path::Path::new("no-such-folder/libnvrtc.so")).expect_err("absent");
    assert!(error.to_string().contains("no-such-folder"), "{error}");
}

#[test]
fn the_device_says_what_it_is() {
    let Some(device) = device() else { return };
    let info = device.info();
    eprintln!("{info:?}");
    assert!(!info.name.is_empty() && !info.unified && info.compute_units > 0);
    assert!(info.memory_free > 0 && info.memory_free <= info.memory_total);
    assert!(info.features.iter().any(|feature| feature.starts_with("sm_")));
    let listed = super::list().expect("a device was opened");
    assert_eq!(listed[0].name, info.name);
}

#[test]
fn work_is_timed_by_the_devices_clock() {
    let Some(device) = device() else { return };
    let (spin, buffer) = (kernel(&device, "spin"), floats(&device, &[0.0]));
    let first = submit_one(&device, "first", &spin, &buffer, 30_000);
    let second = submit_one(&device, "second", &spin, &buffer, 20_000);
    let [first, second] = [first.wait().expect("runs"), second.wait().expect("runs")];
    eprintln!("first {first:?}, second {second:?}");
    let near =
        |given: Duration, expected: u64| given.abs_diff(Duration::from_millis(expected)) < Duration::from_millis(5);
    assert!(near(first.execution, 30) && near(second.execution, 20));
    assert!(near(first.queued, 0) && near(second.queued, 30));
}
