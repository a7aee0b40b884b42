//! One item is one row.

use super::Block;
use crate::{
    Invocation, KernelResult,
    ops::lanes::{LaneKernel, Lanes, sum_of_squares, zip, zip_in_place},
};

pub(super) struct RmsNorm;
pub(super) struct RmsNormInPlace;

// SAFETY: item `r` writes elements `r * columns .. (r + 1) * columns` of binding 2 and nothing else.
unsafe impl LaneKernel for RmsNorm {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let columns = block.columns as usize;
        let input = invocation.input::<f32>(0);
        let weight = invocation.input::<f32>(1);
        for row in invocation.items() {
            let elements = row * columns..(row + 1) * columns;
            // SAFETY: the elements of this item.
            let output = unsafe { invocation.output::<f32>(2, elements.clone()) };
            normalize::<L>(&input[elements], weight, output, block.epsilon, block.weight_offset);
        }
        Ok(())
    }
}

// SAFETY: item `r` reads and writes elements `r * columns .. (r + 1) * columns` of binding 0.
unsafe impl LaneKernel for RmsNormInPlace {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let columns = block.columns as usize;
        let weight = invocation.input::<f32>(1);
        let offset = L::splat(block.weight_offset);
        for row in invocation.items() {
            // SAFETY: the elements of this item.
            let values = unsafe { invocation.output::<f32>(0, row * columns..(row + 1) * columns) };
            let factor = L::splat(inverse_root_mean_square::<L>(values, block.epsilon));
            zip_in_place!(L, values, weight, |value, weight| value.mul(factor).mul(weight.add(offset)));
        }
        Ok(())
    }
}

#[inline(always)]
fn inverse_root_mean_square<L: Lanes>(values: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum_of_squares::<L>(values) / values.len() as f32 + epsilon).sqrt()
}

/// One row.
#[inline(always)]
pub(in crate::ops) fn normalize<L: Lanes>(
    input: &[f32],
    weight: &[f32],
    output: &mut [f32],
    epsilon: f32,
    weight_offset: f32,
) {
    let factor = L::splat(inverse_root_mean_square::<L>(input, epsilon));
    let offset = L::splat(weight_offset);
    zip!(L, input, weight, output, |value, weight| value.mul(factor).mul(weight.add(offset)));
}
