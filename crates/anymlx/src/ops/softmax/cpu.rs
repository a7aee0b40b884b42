//! One item is one row.

use crate::{
    Invocation, KernelResult,
    ops::{
        lanes::{LaneKernel, Lanes, largest, map, map_in_place, sum},
        math,
    },
};

pub(super) struct Softmax;

// SAFETY: item `r` writes row `r` of binding 1.
unsafe impl LaneKernel for Softmax {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let columns = invocation.params::<u32>() as usize;
        let input = invocation.input::<f32>(0);
        for row in invocation.items() {
            let elements = row * columns..(row + 1) * columns;
            // SAFETY: the elements of this item.
            let output = unsafe { invocation.output::<f32>(1, elements.clone()) };
            let input = &input[elements];
            let max = L::splat(largest::<L>(input));
            map!(L, input, output, |value| math::exp(value.sub(max)));
            let factor = L::splat(1.0 / sum::<L>(output));
            map_in_place!(L, output, |value| value.mul(factor));
        }
        Ok(())
    }
}
