//! One item is a block of the dimensions of one head, for all tokens: items never meet.

use anymlx_formats::quant::{self, BlockQ4_0, BlockQ8_0, QuantizeBlock};
use half::{f16, slice::HalfFloatSliceExt};

use super::Block;
use crate::{CpuKernel, Invocation, KernelFault, KernelResult};

// SAFETY: item `h * blocks + b` touches elements `32 b ..` of rows of head `h` in binding 0, and block `b` of rows of head `h` in
// binding 1.
pub(super) const Q8_0_KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run::<BlockQ8_0>) };
// SAFETY: as above.
pub(super) const Q4_0_KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run::<BlockQ4_0>) };

/// Elements of a block.
const LEN: usize = 32;

fn run<B>(invocation: &Invocation<'_>) -> KernelResult
where
    B: QuantizeBlock + quant::Block<Values = [f32; LEN]>,
{
    let block: Block = invocation.params();
    let (head_dim, capacity) = (block.head_dim as usize, block.capacity as usize);
    let positions = invocation.input::<u32>(2);
    if let Some(position) = positions.iter().find(|&&position| position >= block.capacity) {
        return Err(KernelFault(format!("position {position} is outside the cache of {capacity} tokens")));
    }
    let blocks = head_dim / LEN;
    for item in invocation.items() {
        let (head, index) = (item / blocks, item % blocks);
        for &position in positions {
            let row = head * capacity + position as usize;
            let first = row * head_dim + index * LEN;
            let at = (row * blocks + index) * size_of::<B>();
            // SAFETY: elements of this item; the reference ends with this pass of the loop.
            let rows = unsafe { invocation.output::<f16>(0, first..first + LEN) };
            // SAFETY: the block of this item; the reference ends with this pass of the loop.
            let cache = unsafe { invocation.output::<u8>(1, at..at + size_of::<B>()) };
            let mut values = [0.0; LEN];
            rows.convert_to_f32_slice(&mut values);
            let mut quantized = B::quantize(&values);
            if values.iter().any(|value| !value.is_finite()) {
                // Both kinds of block begin with their scale.
                bytemuck::bytes_of_mut(&mut quantized)[..size_of::<f16>()].copy_from_slice(&f16::NAN.to_le_bytes());
            }
            quantized.dequantize(&mut values);
            rows.convert_from_f32_slice(&values);
            cache.copy_from_slice(bytemuck::bytes_of(&quantized));
        }
    }
    Ok(())
}
