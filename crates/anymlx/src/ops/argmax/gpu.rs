//! [`argmax`](super::argmax) of long rows on a GPU: in parts, which are then joined.

use bytemuck::{Pod, Zeroable};

use crate::{
    CommandEncoder, DType, KernelKey, Launch, MlxBuffer, MlxBufferPool, Result, TensorType,
    ops::{check::Check, launch},
    read, write,
};

/// Columns from which more than one threadgroup pays.
pub(super) const MANY_COLUMNS: usize = 8192;
const THREADS: u32 = 256;
/// Columns of a part, unless there would be more parts than the threads that join them.
const LENGTH: usize = 2048;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    columns: u32,
    length: u32,
    parts: u32,
}

pub(super) fn argmax(
    encoder: &mut CommandEncoder,
    check: Check,
    logits: &MlxBuffer,
    output: &MlxBuffer,
    [rows, columns]: [usize; 2],
) -> Result<()> {
    let length = LENGTH.max(columns.div_ceil(THREADS as usize));
    let parts = columns.div_ceil(length);
    let block = Block {
        columns: check.u32("columns", columns)?,
        length: check.u32("length", length)?,
        parts: check.u32("parts", parts)?,
    };
    check.u32("parts of all rows", parts.saturating_mul(rows))?;
    let rows = check.u32("rows", rows)?;
    let kernel = |encoder: &CommandEncoder, variant| {
        let key = KernelKey { operation: "argmax", element: TensorType::Dense(DType::F32), variant };
        launch::gpu_kernel(encoder, check, key, super::GPU)
    };
    // The pool is only where the encoder takes its scratch from.
    let pool = &mut MlxBufferPool::new();
    let values = encoder.scratch(pool, DType::F32, &[rows as usize, parts])?;
    let indices = encoder.scratch(pool, DType::U32, &[rows as usize, parts])?;
    let launch = Launch { groups: [block.parts, rows, 1], threads_per_group: THREADS, items: 1, items_per_chunk: 1 };
    let part = kernel(encoder, "part")?;
    encoder.dispatch(&part, &[read(logits), write(&values), write(&indices)], &block, launch)?;
    let join = kernel(encoder, "join")?;
    let launch = Launch { groups: [rows, 1, 1], ..launch };
    encoder.dispatch(&join, &[read(&values), read(&indices), write(output)], &block, launch)
}
