//! Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>).

mod cpu;
mod scaling;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

pub use scaling::{RopeScaling, frequencies, magnitude};

use super::{
    check::Check,
    launch::{self, LIGHT_CHUNK},
};
use crate::{CommandEncoder, DType, Launch, MlxBuffer, Result, read, read_write};

pub(super) const GPU: &str = gpu_text!("../gpu/angle.h", "rope.gpu.cpp");

/// Which two values of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeLayout {
    /// `i` and `i + rotary_dims / 2`, as in GPT-NeoX, Gemma and Qwen.
    NeoX,
    /// `2 i` and `2 i + 1`, as in the paper and in Llama files of GGUF.
    Interleaved,
}

/// Parameters of [`rope`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParams {
    /// Which values form a pair.
    pub layout: RopeLayout,
    /// Leading values of each head that are rotated: even. The rest pass through.
    pub rotary_dims: usize,
    /// Multiplies sine and cosine: [`magnitude`] of the scaling, 1 for most.
    pub magnitude: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    heads: u32,
    head_dim: u32,
    pairs: u32,
    interleaved: u32,
    magnitude: f32,
}

/// Rotates pair `i` of every head, `(a, b)`, to `(a cos t - b sin t, a sin t + b cos t)` times
/// `magnitude`, with `t = positions[token] * frequencies[i]`, in place.
///
/// `values` is `f32` `[tokens, heads, head_dim]`, `positions` is `U32` `[tokens]`, `frequencies` is
/// `f32` `[rotary_dims / 2]` in radians per position, as [`frequencies`] makes them. Angles are
/// reduced in `f64`, so that they are as exact as the frequencies at any position.
///
/// # Errors
/// `InvalidArgument` for shapes or dtypes that do not fit, for `rotary_dims` odd or over `head_dim`,
/// or when `values` overlaps another buffer.
pub fn rope(
    encoder: &mut CommandEncoder,
    values: &MlxBuffer,
    positions: &MlxBuffer,
    frequencies: &MlxBuffer,
    params: RopeParams,
) -> Result<()> {
    let check = Check::new("rope");
    check.dtype("values", values, &[DType::F32])?;
    check.dtype("positions", positions, &[DType::U32])?;
    check.dtype("frequencies", frequencies, &[DType::F32])?;
    let &[tokens, heads, head_dim] = values.shape() else {
        return Err(check.error(format_args!("values is {:?}, needed [tokens, heads, head_dim]", values.shape())));
    };
    let dims = params.rotary_dims;
    check.that(
        dims.is_multiple_of(2) && dims <= head_dim,
        format_args!("rotary_dims is {dims}, needed an even number of at most {head_dim}"),
    )?;
    check.bytes("values", values)?;
    check.shape("positions", positions, &[tokens])?;
    check.shape("frequencies", frequencies, &[dims / 2])?;
    let block = Block {
        heads: check.u32("heads", heads)?,
        head_dim: check.u32("head_dim", head_dim)?,
        pairs: check.u32("pairs", dims / 2)?,
        interleaved: u32::from(params.layout == RopeLayout::Interleaved),
        magnitude: params.magnitude,
    };
    let kernel = launch::kernel::<cpu::Rope>(encoder, "rope", DType::F32, GPU)?;
    let launch = Launch {
        groups: [check.u32("tokens", tokens)?, block.heads, 1],
        threads_per_group: launch::threads_for(dims / 2),
        ..launch::rows(check, tokens, heads.saturating_mul(head_dim), LIGHT_CHUNK)?
    };
    encoder.dispatch(&kernel, &[read_write(values), read(positions), read(frequencies)], &block, launch)
}
