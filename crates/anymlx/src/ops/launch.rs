//! How work is cut for the device, and the kernel that does it.

use anymlx_formats::{DType, quant::TensorType};

use super::{
    check::Check,
    lanes::{self, LaneKernel},
};
use crate::{CommandEncoder, Kernel, KernelKey, Launch, Result, registry::BuiltIn};

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

/// One item for each row, and as many rows to a chunk as make `chunk` elements.
pub(super) fn rows(check: Check, rows: usize, columns: usize, chunk: usize) -> Result<Launch> {
    Ok(Launch {
        groups: [check.u32("rows", rows)?, 1, 1],
        threads_per_group: 256,
        items: rows,
        items_per_chunk: (chunk / columns.max(1)).max(1),
    })
}

/// The kernel `K` for the device's level; its variant is the level's name.
pub(super) fn kernel<K: LaneKernel>(
    encoder: &CommandEncoder,
    operation: &'static str,
    element: DType,
) -> Result<Kernel> {
    let level = encoder.device().cpu_level();
    let key = KernelKey { operation, element: TensorType::Dense(element), variant: level.name() };
    encoder.device().kernels().built_in(&BuiltIn { key, gpu: "", cpu: lanes::kernel::<K>(level) })
}
