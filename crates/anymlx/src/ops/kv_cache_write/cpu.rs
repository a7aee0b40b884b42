//! One item is a slice of the dimensions of one head, for all tokens: items never meet, even when
//! positions repeat.

use half::{f16, slice::HalfFloatSliceExt};

use bytemuck::Pod;

use super::Block;
use crate::{CpuKernel, Invocation, KernelFault, KernelResult};

/// Dimensions of one item: a multiple of a cache line in `f16`.
pub(super) const SLICE: usize = 64;

// SAFETY: item `h * slices + s` writes dimensions `s * SLICE ..` of head `h` in binding 1.
pub(super) const F16_KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run_f16) };
// SAFETY: as above.
pub(super) const F32_KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run_f32) };

fn run_f16(invocation: &Invocation<'_>) -> KernelResult {
    run::<f16>(invocation, |to, from| to.convert_from_f32_slice(from))
}

fn run_f32(invocation: &Invocation<'_>) -> KernelResult {
    run::<f32>(invocation, |to, from| to.copy_from_slice(from))
}

fn run<T: Pod>(invocation: &Invocation<'_>, convert: fn(&mut [T], &[f32])) -> KernelResult {
    let block: Block = invocation.params();
    let (kv_heads, head_dim, capacity) = (block.kv_heads as usize, block.head_dim as usize, block.capacity as usize);
    let values = invocation.input::<f32>(0);
    let positions = invocation.input::<u32>(2);
    let positions = &positions[..block.tokens as usize];
    if let Some(position) = positions.iter().find(|&&position| position >= block.capacity) {
        return Err(KernelFault(format!("position {position} is outside the cache of {capacity} tokens")));
    }
    let slices = head_dim.div_ceil(SLICE);
    for item in invocation.items() {
        let (head, slice) = (item / slices, item % slices);
        let first = slice * SLICE;
        let len = SLICE.min(head_dim - first);
        for (token, &position) in positions.iter().enumerate() {
            let from = (token * kv_heads + head) * head_dim + first;
            let to = (head * capacity + position as usize) * head_dim + first;
            // SAFETY: dimensions of this item; the reference ends with this pass of the loop.
            let cache = unsafe { invocation.output::<T>(1, to..to + len) };
            convert(cache, &values[from..from + len]);
        }
    }
    Ok(())
}
