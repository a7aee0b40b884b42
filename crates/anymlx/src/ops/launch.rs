//! How work is cut for the device, and the kernel that does it.

use anymlx_formats::{DType, quant::TensorType};

use super::{
    check::Check,
    lanes::{self, LaneKernel},
};
use crate::{CommandEncoder, Kernel, KernelKey, Launch, MlxBuffer, Result, registry::BuiltIn};

/// Elements of a chunk that only moves and adds: some 10 microseconds.
pub(super) const LIGHT_CHUNK: usize = 16 * 1024;
/// Elements of a chunk that takes an exponential of each.
pub(super) const HEAVY_CHUNK: usize = 8 * 1024;

/// One item for each element. Chunks start at multiples of a vector's length.
pub(super) fn elements(check: Check, count: usize, chunk: usize) -> Result<Launch> {
    Ok(Launch {
        groups: [check.u32("elements", count)?.div_ceil(256), 1, 1],
        threads_per_group: 256,
        items: count,
        items_per_chunk: chunk,
    })
}

/// One item for each row, and as many rows to a chunk as make `chunk` elements; a threadgroup for each row.
pub(super) fn rows(check: Check, rows: usize, columns: usize, chunk: usize) -> Result<Launch> {
    Ok(Launch {
        groups: [check.u32("rows", rows)?, 1, 1],
        threads_per_group: threads_for(columns.div_ceil(4)),
        items: rows,
        items_per_chunk: (chunk / columns.max(1)).max(1),
    })
}

/// Threads of a group that has `work` things to do side by side.
pub(super) fn threads_for(work: usize) -> u32 {
    // At most 1024.
    work.next_multiple_of(32).clamp(32, 1024) as u32
}

/// How many of `columns` a GPU kernel may take four at a time: all or none, by the alignment of
/// every row of the buffers.
pub(super) fn vector_columns(columns: usize, buffers: &[&MlxBuffer]) -> u32 {
    let aligned = buffers.iter().all(|buffer| buffer.byte_offset().is_multiple_of(16));
    if aligned && columns.is_multiple_of(4) { u32::try_from(columns).unwrap_or(0) } else { 0 }
}

/// The kernel `K` for the device: its text for GPUs, or the function for the CPU's level, whose name is then the
/// variant.
pub(super) fn kernel<K: LaneKernel>(
    encoder: &CommandEncoder,
    operation: &'static str,
    element: DType,
    gpu: &'static str,
) -> Result<Kernel> {
    let level = encoder.device().cpu_level();
    let variant = if encoder.device().runs_gpu_kernels() { "" } else { level.name() };
    let key = KernelKey { operation, element: TensorType::Dense(element), variant };
    encoder.device().kernels().built_in(&BuiltIn { key, gpu, cpu: lanes::kernel::<K>(level) })
}

/// A kernel that has only a text for GPUs.
pub(super) fn gpu_kernel(encoder: &CommandEncoder, check: Check, key: KernelKey, gpu: &'static str) -> Result<Kernel> {
    let cpu = crate::CpuKernel::whole(|_| Err("this kernel runs from its text".into()));
    encoder.device().kernels().built_in(&BuiltIn { key, gpu, cpu }).map_err(|error| error.context(check.operation))
}
