//! A gated feed-forward layer whose result joins the residual stream.

use super::{
    Activation, gated_projection,
    panel_matmul::Products,
    project::{LayerInput, Projection},
    project_add::{self, PostNorm, project_add},
};
use crate::{CommandEncoder, MlxBuffer, Result, Weight, ops::MatmulInput};

/// Operands of [`feed_forward`].
#[derive(Debug, Clone, Copy)]
pub struct FeedForward<'a> {
    /// What the layer reads.
    pub input: LayerInput<'a>,
    /// `[features, columns]`.
    pub gate: &'a Weight,
    /// `[features, columns]`.
    pub up: &'a Weight,
    /// Of the gate.
    pub activation: Activation,
    /// Places for the gated product, `f32` `[.., features]`, and its 8-bit form. What they hold afterwards is not
    /// specified.
    pub gated: MatmulInput<'a>,
    /// Back to the residual stream; its output is a place for the product.
    pub down: Projection<'a>,
    /// Norm of what joins the residual stream.
    pub post_norm: Option<PostNorm<'a>>,
    /// What the result is added to.
    pub residual: &'a MlxBuffer,
}

/// `residual += norm((activation(input gate^T) * (input up^T)) down^T + bias)`, with `input` normed first where it
/// says so, and without the last norm where there is none (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).
///
/// The fusion of [`gated_projection`](super::gated_projection()) and [`project_add`](super::project_add()), whose
/// shapes and rounding it has.
///
/// # Errors
/// As those operations.
pub fn feed_forward(encoder: &mut CommandEncoder, operands: FeedForward<'_>) -> Result<()> {
    let FeedForward { input, gate, up, activation, gated, down, post_norm, residual } = operands;
    const NAME: &str = "feed_forward";
    let first = Products::new(encoder, NAME, input, &[gate, up]);
    let second = Products::new(encoder, NAME, LayerInput::Rows(gated), &[down.weight]);
    let (Some(first), Some(second)) = (first, second) else {
        return composite(encoder, operands);
    };
    let sum = post_norm.is_none().then_some(residual);
    first.feed_forward(encoder, [gate, up], activation, &second, down, sum)?;
    match post_norm {
        Some(norm) => project_add::join(encoder, down.output, Some(norm), residual),
        None => Ok(()),
    }
}

/// [`feed_forward`] by the operations that it fuses.
pub(super) fn composite(encoder: &mut CommandEncoder, operands: FeedForward<'_>) -> Result<()> {
    let FeedForward { input, gate, up, activation, gated, down, post_norm, residual } = operands;
    gated_projection(encoder, input, gate, up, gated.values, activation)?;
    project_add(encoder, LayerInput::Rows(gated), down, post_norm, residual)
}
