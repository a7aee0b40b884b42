//! One item is one element, or one row where there is a bias.

use super::FactorBlock;
use crate::{
    Invocation, KernelResult,
    ops::{
        lanes::{LaneKernel, Lanes, map_in_place, zip, zip_in_place},
        math,
    },
};

pub(super) struct Add;
pub(super) struct AddInPlace;
pub(super) struct AddBias;
pub(super) struct Multiply;
pub(super) struct Scale;
pub(super) struct Softcap;

// SAFETY: item `i` writes element `i` of binding 2.
unsafe impl LaneKernel for Add {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let items = invocation.items();
        let left = &invocation.input::<f32>(0)[items.clone()];
        let right = &invocation.input::<f32>(1)[items.clone()];
        // SAFETY: the elements of these items.
        let output = unsafe { invocation.output::<f32>(2, items) };
        zip!(L, left, right, output, |left, right| left.add(right));
        Ok(())
    }
}

// SAFETY: item `i` writes element `i` of binding 0.
unsafe impl LaneKernel for AddInPlace {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let items = invocation.items();
        let update = &invocation.input::<f32>(1)[items.clone()];
        // SAFETY: the elements of these items.
        let target = unsafe { invocation.output::<f32>(0, items) };
        zip_in_place!(L, target, update, |target, update| target.add(update));
        Ok(())
    }
}

// SAFETY: item `r` writes row `r` of binding 0.
unsafe impl LaneKernel for AddBias {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let bias = invocation.input::<f32>(1);
        for row in invocation.items() {
            // SAFETY: the elements of this item.
            let values = unsafe { invocation.output::<f32>(0, row * bias.len()..(row + 1) * bias.len()) };
            zip_in_place!(L, values, bias, |value, bias| value.add(bias));
        }
        Ok(())
    }
}

// SAFETY: item `i` writes element `i` of binding 2.
unsafe impl LaneKernel for Multiply {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let items = invocation.items();
        let left = &invocation.input::<f32>(0)[items.clone()];
        let right = &invocation.input::<f32>(1)[items.clone()];
        // SAFETY: the elements of these items.
        let output = unsafe { invocation.output::<f32>(2, items) };
        zip!(L, left, right, output, |left, right| left.mul(right));
        Ok(())
    }
}

// SAFETY: item `i` writes element `i` of binding 0.
unsafe impl LaneKernel for Scale {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let factor = L::splat(invocation.params::<FactorBlock>().factor);
        // SAFETY: the elements of these items.
        let values = unsafe { invocation.output::<f32>(0, invocation.items()) };
        map_in_place!(L, values, |value| value.mul(factor));
        Ok(())
    }
}

// SAFETY: item `i` writes element `i` of binding 0.
unsafe impl LaneKernel for Softcap {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let cap = L::splat(invocation.params::<FactorBlock>().factor);
        // SAFETY: the elements of these items.
        let values = unsafe { invocation.output::<f32>(0, invocation.items()) };
        map_in_place!(L, values, |value| math::tanh(value.div(cap)).mul(cap));
        Ok(())
    }
}
