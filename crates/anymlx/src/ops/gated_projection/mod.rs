//! The first half of a gated feed-forward layer: norm, both projections, activation.

pub(super) mod gpu;
#[cfg(test)]
mod tests;

use super::{Activation, gated_matmul, panel_matmul::Products, project::LayerInput};
use crate::{CommandEncoder, MlxBuffer, Result, Weight};

/// `output = activation(input gate^T) * (input up^T)`, with `input` normed first where it says so.
///
/// The fusion of [`rms_norm`](super::rms_norm()), [`quantize_activations`](super::quantize_activations()) and
/// [`gated_matmul`](super::gated_matmul()), whose shapes and rounding it has.
///
/// # Errors
/// As those operations.
pub fn gated_projection(
    encoder: &mut CommandEncoder,
    input: LayerInput<'_>,
    gate: &Weight,
    up: &Weight,
    output: &MlxBuffer,
    activation: Activation,
) -> Result<()> {
    if let Some(products) = Products::new(encoder, "gated_projection", input, &[gate, up]) {
        return products.gate(encoder, [gate, up], output, activation);
    }
    if gpu::gated_projection(encoder, input, [gate, up], output, activation)? {
        return Ok(());
    }
    composite(encoder, input, gate, up, output, activation)
}

/// [`gated_projection`] by plain operations.
pub(super) fn composite(
    encoder: &mut CommandEncoder,
    input: LayerInput<'_>,
    gate: &Weight,
    up: &Weight,
    output: &MlxBuffer,
    activation: Activation,
) -> Result<()> {
    let input = input.prepare(encoder, &[gate, up])?;
    gated_matmul(encoder, input, gate, up, output, activation)
}
