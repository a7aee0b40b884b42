//! The gated product of feed-forward layers (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).

pub(crate) mod cpu;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{
    check::Check,
    launch::{self, HEAVY_CHUNK},
};
use crate::{CommandEncoder, DType, MlxBuffer, Result, read, write};

pub(super) const GPU: &str = gpu_text!("../gpu/activation.h", "gated_activation.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    count: u32,
    activation: u32,
}

/// The activation of a gated feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x / (1 + e^-x)`, as in Llama and Qwen2 (Elfwing et al. 2017, <https://arxiv.org/abs/1702.03118>).
    Silu,
    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))`, as in Gemma (Hendrycks and Gimpel 2016,
    /// <https://arxiv.org/abs/1606.08415>).
    GeluTanh,
    /// `x / 2 (1 + erf(x / sqrt 2))`, from the same paper.
    GeluErf,
}

/// `output = activation(gate) * up`, all `f32` of one shape.
///
/// # Errors
/// `InvalidArgument` for other shapes or dtypes, or when `output` overlaps an input.
pub fn gated_activation(
    encoder: &mut CommandEncoder,
    gate: &MlxBuffer,
    up: &MlxBuffer,
    output: &MlxBuffer,
    activation: Activation,
) -> Result<()> {
    const OPERATION: &str = "gated_activation";
    let check = Check::new(OPERATION);
    for (name, buffer) in [("gate", gate), ("up", up), ("output", output)] {
        check.dtype(name, buffer, &[DType::F32])?;
        check.shape(name, buffer, gate.shape())?;
    }
    let count = gate.element_count();
    let block = Block { count: check.u32("element count", count)?, activation: activation as u32 };
    let launch = launch::elements(check, count, HEAVY_CHUNK)?;
    let kernel = launch::kernel::<cpu::GatedActivation>(encoder, OPERATION, DType::F32, GPU)?;
    encoder.dispatch(&kernel, &[read(gate), read(up), write(output)], &block, launch)
}
