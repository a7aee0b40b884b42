//! One item is one row.

use crate::{
    Invocation, KernelResult,
    ops::lanes::{LaneKernel, Lanes, largest},
};

pub(super) struct Argmax;

// SAFETY: item `r` writes element `r` of binding 1.
unsafe impl LaneKernel for Argmax {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let columns = invocation.params::<u32>() as usize;
        let logits = invocation.input::<f32>(0);
        for row in invocation.items() {
            let row_logits = &logits[row * columns..(row + 1) * columns];
            // SAFETY: the element of this item.
            let output = unsafe { invocation.output::<u32>(1, row..row + 1) };
            // Columns are below 2^32.
            output[0] = first_largest::<L>(row_logits) as u32;
        }
        Ok(())
    }
}

/// Index of the first largest value; 0 when all are NaN.
#[inline(always)]
pub(in crate::ops) fn first_largest<L: Lanes>(values: &[f32]) -> usize {
    const BLOCK: usize = 256;
    let max = largest::<L>(values);
    // Whole blocks are compared without branches; only the block that has it is searched.
    let block = values.chunks(BLOCK).position(|block| block.iter().fold(false, |any, &value| any | (value == max)));
    let start = block.map_or(0, |block| block * BLOCK);
    values[start..].iter().position(|&value| value == max).map_or(0, |index| start + index)
}
