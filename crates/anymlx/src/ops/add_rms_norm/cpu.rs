//! One item is one row.

use super::Block;
use crate::{
    Invocation, KernelResult,
    ops::{
        lanes::{LaneKernel, Lanes, zip_in_place},
        rms_norm,
    },
};

pub(super) struct AddRmsNorm;

// SAFETY: item `r` writes row `r` of bindings 0 and 3.
unsafe impl LaneKernel for AddRmsNorm {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let columns = block.columns as usize;
        let update = invocation.input::<f32>(1);
        let weight = invocation.input::<f32>(2);
        for row in invocation.items() {
            let elements = row * columns..(row + 1) * columns;
            // SAFETY: the elements of this item.
            let residual = unsafe { invocation.output::<f32>(0, elements.clone()) };
            // SAFETY: as above.
            let output = unsafe { invocation.output::<f32>(3, elements.clone()) };
            zip_in_place!(L, residual, &update[elements], |residual, update| residual.add(update));
            rms_norm::cpu::normalize::<L>(residual, weight, output, block.epsilon, block.weight_offset);
        }
        Ok(())
    }
}
