//! One item is one element.

use super::{Activation, Block};
use crate::{
    Invocation, KernelFault, KernelResult,
    ops::{
        lanes::{LaneKernel, Lanes, zip},
        math,
    },
};

pub(super) struct GatedActivation;

// SAFETY: item `i` writes element `i` of binding 2.
unsafe impl LaneKernel for GatedActivation {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let items = invocation.items();
        let gate = &invocation.input::<f32>(0)[items.clone()];
        let up = &invocation.input::<f32>(1)[items.clone()];
        // SAFETY: the elements of these items.
        let output = unsafe { invocation.output::<f32>(2, items) };
        apply::<L>(activation(invocation.params::<Block>().activation)?, gate, up, output);
        Ok(())
    }
}

/// The activation whose number a parameter block holds.
pub(crate) fn activation(number: u32) -> Result<Activation, KernelFault> {
    let all = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf];
    let found = all.into_iter().find(|activation| *activation as u32 == number);
    found.ok_or_else(|| KernelFault(format!("activation {number} is unknown")))
}

/// `output = activation(gate) * up`.
#[inline(always)]
pub(crate) fn apply<L: Lanes>(activation: Activation, gate: &[f32], up: &[f32], output: &mut [f32]) {
    match activation {
        Activation::Silu => zip!(L, gate, up, output, |gate, up| math::silu(gate).mul(up)),
        Activation::GeluTanh => zip!(L, gate, up, output, |gate, up| math::gelu_tanh(gate).mul(up)),
        Activation::GeluErf => zip!(L, gate, up, output, |gate, up| math::gelu_erf(gate).mul(up)),
    }
}
