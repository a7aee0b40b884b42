//! One item is a tile of positions of one head.

use anymlx_formats::quant::{self, BlockQ4_0, BlockQ8_0};
use half::{f16, slice::HalfFloatSliceExt};

use super::{Block, TILE};
use crate::{CpuKernel, Invocation, KernelResult};

// SAFETY: item `h * tiles + t` writes rows `TILE t ..` of head `h` in binding 1.
pub(super) const Q8_0_KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run::<BlockQ8_0>) };
// SAFETY: as above.
pub(super) const Q4_0_KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run::<BlockQ4_0>) };

/// Elements of a block.
const LEN: usize = 32;

fn run<B: quant::Block<Values = [f32; LEN]>>(invocation: &Invocation<'_>) -> KernelResult {
    let block: Block = invocation.params();
    let (head_dim, capacity) = (block.head_dim as usize, block.capacity as usize);
    let cache: &[B] = bytemuck::cast_slice(invocation.input::<u8>(0));
    let end = invocation.input::<u32>(2).first().map_or(0, |&first| capacity.min(first as usize));
    let low = (end + 1).saturating_sub(block.window as usize);
    let (blocks, tiles) = (head_dim / LEN, capacity.div_ceil(TILE));
    let mut values = [0.0; LEN];
    for item in invocation.items() {
        let (head, tile) = (item / tiles, item % tiles);
        let positions = low.max(tile * TILE)..end.min((tile + 1) * TILE);
        if positions.is_empty() {
            continue;
        }
        let (first, last) = (head * capacity + positions.start, head * capacity + positions.end);
        // SAFETY: rows of this item; the reference ends with this pass of the loop.
        let rows = unsafe { invocation.output::<f16>(1, first * head_dim..last * head_dim) };
        let (rows, _) = rows.as_chunks_mut::<LEN>();
        for (row, block) in rows.iter_mut().zip(&cache[first * blocks..last * blocks]) {
            block.dequantize(&mut values);
            row.convert_from_f32_slice(&values);
        }
    }
    Ok(())
}
