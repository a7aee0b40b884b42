//! One item is one head of one token: the sums of its parts, brought to one maximum.

use super::Block;
use crate::{
    Invocation, KernelResult,
    ops::lanes::{LaneKernel, Lanes, map_in_place, zip_in_place},
};

pub(in super::super) struct Join;

// SAFETY: item `t * heads + h` writes elements `[t, h]` of binding 1.
unsafe impl LaneKernel for Join {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let head_dim = block.head_dim as usize;
        let stride = head_dim + 2;
        let item_len = block.parts as usize * stride;
        let partials = invocation.input::<f32>(0);
        for item in invocation.items() {
            let parts = &partials[item * item_len..(item + 1) * item_len];
            // SAFETY: the elements of this item.
            let output = unsafe { invocation.output::<f32>(1, item * head_dim..(item + 1) * head_dim) };
            let max = parts.chunks_exact(stride).fold(f32::NEG_INFINITY, |max, part| max.max(part[0]));
            let mut total = 0.0;
            output.fill(0.0);
            for part in parts.chunks_exact(stride) {
                // A part that saw no key.
                if part[1] == 0.0 {
                    continue;
                }
                let factor = (part[0] - max).exp();
                total += part[1] * factor;
                let factor = L::splat(factor);
                zip_in_place!(L, output, &part[2..], |output, value| value.mul_add(factor, output));
            }
            let factor = L::splat(1.0 / total);
            map_in_place!(L, output, |value| value.mul(factor));
        }
        Ok(())
    }
}
