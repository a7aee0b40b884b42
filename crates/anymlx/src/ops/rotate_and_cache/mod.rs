//! What happens to queries, keys and values between their projections and attention.

pub(super) mod gpu;
#[cfg(test)]
mod tests;

use super::{
    kv_cache_write,
    rms_norm::{RmsNormParams, rms_norm_in_place},
    rope::{RopeParams, rope},
};
use crate::{CommandEncoder, MlxBuffer, Result};

/// Norm weights of queries and keys, `f32` `[head_dim]` each, shared by the heads.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorms<'a> {
    /// Of queries.
    pub query: &'a MlxBuffer,
    /// Of keys.
    pub key: &'a MlxBuffer,
    /// Of both norms.
    pub params: RmsNormParams,
}

/// Operands of [`rotate_and_cache`].
#[derive(Debug, Clone, Copy)]
pub struct RotateAndCache<'a> {
    /// `f32` `[tokens, heads, head_dim]`, replaced by the rotated queries.
    pub queries: &'a MlxBuffer,
    /// `f32` `[tokens, kv_heads, head_dim]`. What it holds afterwards is not specified.
    pub keys: &'a MlxBuffer,
    /// `f32` `[tokens, kv_heads, head_dim]`.
    pub values: &'a MlxBuffer,
    /// Norms of each head before the rotation.
    pub norms: Option<HeadNorms<'a>>,
    /// `U32` `[tokens]`.
    pub positions: &'a MlxBuffer,
    /// As in [`rope()`].
    pub frequencies: &'a MlxBuffer,
    /// Of the rotation.
    pub rope: RopeParams,
    /// `[kv_heads, capacity, head_dim]`.
    pub key_cache: &'a MlxBuffer,
    /// `[kv_heads, capacity, head_dim]`.
    pub value_cache: &'a MlxBuffer,
}

/// Norms and rotates queries and keys, and writes keys and values into the cache.
///
/// The fusion of [`rms_norm_in_place`], [`rope()`] and [`kv_cache_write()`], whose shapes and errors it has.
///
/// # Errors
/// As those operations.
pub fn rotate_and_cache(encoder: &mut CommandEncoder, operands: RotateAndCache<'_>) -> Result<()> {
    if gpu::rotate_and_cache(encoder, &operands)? {
        return Ok(());
    }
    composite(encoder, operands)
}

/// [`rotate_and_cache`] by plain operations.
pub(super) fn composite(encoder: &mut CommandEncoder, operands: RotateAndCache<'_>) -> Result<()> {
    let RotateAndCache { queries, keys, values, norms, positions, frequencies, rope: params, .. } = operands;
    if let Some(HeadNorms { query, key, params }) = norms {
        rms_norm_in_place(encoder, queries, query, params)?;
        rms_norm_in_place(encoder, keys, key, params)?;
    }
    rope(encoder, queries, positions, frequencies, params)?;
    rope(encoder, keys, positions, frequencies, params)?;
    kv_cache_write(encoder, keys, operands.key_cache, positions)?;
    kv_cache_write(encoder, values, operands.value_cache, positions)
}
