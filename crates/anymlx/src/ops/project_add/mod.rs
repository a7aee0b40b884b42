//! A projection whose result joins the residual stream.

pub(super) mod gpu;
#[cfg(test)]
mod tests;

use super::{
    add_in_place, matmul,
    panel_matmul::Products,
    project::{LayerInput, Projection},
    rms_norm::{RmsNormParams, rms_norm},
};
use crate::{CommandEncoder, MlxBuffer, Result};

/// A norm of what joins the residual stream.
#[derive(Debug, Clone, Copy)]
pub struct PostNorm<'a> {
    /// `f32` `[columns]`.
    pub weight: &'a MlxBuffer,
    /// Of the norm.
    pub params: RmsNormParams,
    /// A place for the normed rows, of the residual's shape.
    pub normed: &'a MlxBuffer,
}

/// `residual += norm(input weight^T + bias)`, without the norm where there is none.
///
/// The fusion of [`quantize_activations`](super::quantize_activations()), [`matmul`](super::matmul()),
/// [`rms_norm`](super::rms_norm()) and [`add_in_place`](super::add_in_place()), whose shapes and rounding it has.
/// `projection.output` is a place for the product; what it and the norm's place hold afterwards is not specified.
///
/// # Errors
/// As those operations.
pub fn project_add(
    encoder: &mut CommandEncoder,
    input: LayerInput<'_>,
    projection: Projection<'_>,
    post_norm: Option<PostNorm<'_>>,
    residual: &MlxBuffer,
) -> Result<()> {
    if let Some(products) = Products::new(encoder, "project_add", input, &[projection.weight]) {
        if post_norm.is_none() {
            return products.add(encoder, projection, residual);
        }
        products.project(encoder, &[projection])?;
        return join(encoder, projection.output, post_norm, residual);
    }
    if gpu::project_add(encoder, input, projection, post_norm, residual)? {
        return Ok(());
    }
    composite(encoder, input, projection, post_norm, residual)
}

/// [`project_add`] by plain operations.
pub(super) fn composite(
    encoder: &mut CommandEncoder,
    input: LayerInput<'_>,
    projection: Projection<'_>,
    post_norm: Option<PostNorm<'_>>,
    residual: &MlxBuffer,
) -> Result<()> {
    let input = input.prepare(encoder, &[projection.weight])?;
    matmul(encoder, input, projection.weight, projection.output, projection.bias)?;
    join(encoder, projection.output, post_norm, residual)
}

/// `residual += norm(product)`
pub(super) fn join(
    encoder: &mut CommandEncoder,
    product: &MlxBuffer,
    post_norm: Option<PostNorm<'_>>,
    residual: &MlxBuffer,
) -> Result<()> {
    let Some(PostNorm { weight, params, normed }) = post_norm else {
        return add_in_place(encoder, residual, product);
    };
    rms_norm(encoder, product, weight, normed, params)?;
    add_in_place(encoder, residual, normed)
}
