//! Projections that share an input: queries, keys and values of an attention layer, or the output head.

pub(super) mod gpu;
mod input;
#[cfg(test)]
mod tests;

use super::{matmul, panel_matmul::Products};
use crate::{CommandEncoder, MlxBuffer, Result, Weight};

pub use input::LayerInput;

/// One matrix of [`project`].
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// `[rows, columns]`.
    pub weight: &'a Weight,
    /// `f32` `[rows]`.
    pub bias: Option<&'a MlxBuffer>,
    /// `f32` `[.., rows]`.
    pub output: &'a MlxBuffer,
}

/// `output_i = input weight_i^T + bias_i` for every projection `i`, with `input` normed first where it says so.
///
/// The fusion of [`rms_norm`](super::rms_norm()), [`quantize_activations`](super::quantize_activations()) and a
/// [`matmul`](super::matmul()) for each projection, whose shapes and rounding it has.
///
/// # Errors
/// As those operations.
pub fn project(encoder: &mut CommandEncoder, input: LayerInput<'_>, projections: &[Projection<'_>]) -> Result<()> {
    let weights: Vec<&Weight> = projections.iter().map(|projection| projection.weight).collect();
    if let Some(products) = Products::new(encoder, "project", input, &weights) {
        return products.project(encoder, projections);
    }
    if gpu::project(encoder, input, projections)? {
        return Ok(());
    }
    composite(encoder, input, projections)
}

/// [`project`] by plain operations.
pub(super) fn composite(
    encoder: &mut CommandEncoder,
    input: LayerInput<'_>,
    projections: &[Projection<'_>],
) -> Result<()> {
    let weights: Vec<&Weight> = projections.iter().map(|projection| projection.weight).collect();
    let input = input.prepare(encoder, &weights)?;
    projections.iter().try_for_each(|p| matmul(encoder, input, p.weight, p.output, p.bias))
}
