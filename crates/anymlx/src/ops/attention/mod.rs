//! Scaled dot-product attention over a cache of keys and values (Vaswani et al. 2017,
//! <https://arxiv.org/abs/1706.03762>), with online softmax (Milakov and Gimelshein 2018,
//! <https://arxiv.org/abs/1805.02867>).

mod cpu;
pub(super) mod gpu;
mod plan;
pub(super) mod simdgroup;
#[cfg(test)]
mod tests;
pub(super) mod tiles;

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::{
    check::Check,
    launch::{self, LIGHT_CHUNK},
};
use crate::{CommandEncoder, DType, Launch, MlxBuffer, MlxBufferPool, Result, read, write};
use plan::{Plan, Problem};

/// Positions are compared as `f32` in places.
const MAX_CAPACITY: usize = 1 << 24;

/// Parameters of [`attention`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionParams {
    /// Multiplies query times key, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// A token sees the last `window` positions, its own among them; `None`: all before it.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    /// `u32::MAX` for none.
    window: u32,
    scale: f32,
    /// 0 for none.
    softcap: f32,
    slices: u32,
    parts: u32,
    tile_rows: u32,
}

/// `output[t, h] = sum_p softmax_p(scale * queries[t, h] · keys[h', p]) values[h', p]` over the
/// positions `max(0, q - window + 1) ..= q`, where `q = positions[t]` and
/// `h' = h / (heads / kv_heads)` (Ainslie et al. 2023, <https://arxiv.org/abs/2305.13245>).
///
/// `queries` is `f32` `[tokens, heads, head_dim]`; `key_cache` and `value_cache` are `F16` or `F32`
/// `[kv_heads, capacity, head_dim]` and hold the token's own key and value already; `positions` is
/// `U32` `[tokens]`; `output` is `f32` `[tokens, heads * head_dim]`. Scores and sums are `f32`; where the
/// cache is `F16`, matrix units may take queries and the weights of values as `f16`. Only
/// positions that some token of the call sees are read; a value there that is not finite may spread
/// to tokens of the call that do not see it.
///
/// # Errors
/// `InvalidArgument` for shapes or dtypes that do not fit, heads that are no multiple of `kv_heads`,
/// a window of 0, a cap that is not positive, more than 2^24 positions, or when `output` overlaps another buffer. A position of
/// `capacity` or more fails the submission.
pub fn attention(
    encoder: &mut CommandEncoder,
    queries: &MlxBuffer,
    key_cache: &MlxBuffer,
    value_cache: &MlxBuffer,
    positions: &MlxBuffer,
    output: &MlxBuffer,
    params: AttentionParams,
) -> Result<()> {
    let check = Check::new("attention");
    check.dtype("queries", queries, &[DType::F32])?;
    check.dtype("key_cache", key_cache, &[DType::F16, DType::F32])?;
    check.dtype("value_cache", value_cache, &[key_cache.dtype()])?;
    check.dtype("positions", positions, &[DType::U32])?;
    check.dtype("output", output, &[DType::F32])?;
    let (&[tokens, heads, head_dim], &[kv_heads, capacity, _]) = (queries.shape(), key_cache.shape()) else {
        return Err(check.error(format_args!(
            "queries is {:?} and key_cache is {:?}, needed [tokens, heads, head_dim] and [kv_heads, capacity, head_dim]",
            queries.shape(),
            key_cache.shape()
        )));
    };
    check.bytes("queries", queries)?;
    check.shape("key_cache", key_cache, &[kv_heads, capacity, head_dim])?;
    check.shape("value_cache", value_cache, &[kv_heads, capacity, head_dim])?;
    check.shape("positions", positions, &[tokens])?;
    check.shape("output", output, &[tokens, heads.saturating_mul(head_dim)])?;
    check.that(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        format_args!("{heads} query heads, needed a multiple of the {kv_heads} key heads"),
    )?;
    check.that(params.window != Some(0), "the window is 0, needed at least 1 (the token itself)")?;
    check.that(
        params.softcap.is_none_or(|cap| cap > 0.0 && cap.is_finite()),
        format_args!("the cap is {:?}, needed a positive number", params.softcap),
    )?;
    check.that(
        capacity <= MAX_CAPACITY,
        format_args!("a cache of {capacity} tokens, at most {MAX_CAPACITY} are possible"),
    )?;
    let plan = plan::plan(Problem { tokens, heads, kv_heads });
    let (slices, parts, tile_rows) = match plan {
        Plan::Spans { slices, parts } => (slices, parts, 0),
        Plan::Tiles { rows } => (0, 0, rows),
    };
    let block = Block {
        heads: check.u32("heads", heads)?,
        kv_heads: check.u32("kv_heads", kv_heads)?,
        head_dim: check.u32("head_dim", head_dim)?,
        capacity: check.u32("capacity", capacity)?,
        window: params.window.map_or(u32::MAX, |window| u32::try_from(window).unwrap_or(u32::MAX)),
        scale: params.scale,
        softcap: params.softcap.unwrap_or(0.0),
        slices: check.u32("slices", slices)?,
        parts: check.u32("parts", parts)?,
        tile_rows: check.u32("tile_rows", tile_rows)?,
    };
    if encoder.device().runs_gpu_kernels() {
        let buffers = [queries, key_cache, value_cache, positions, output];
        if tiles::attention(encoder, check, &block, tokens, buffers)? {
            return Ok(());
        }
        return gpu::attention(encoder, check, &block, tokens, buffers);
    }
    let [q, k, v, p] = [queries, key_cache, value_cache, positions].map(read);
    let is_half = key_cache.dtype() == DType::F16;
    match plan {
        Plan::Tiles { rows } => {
            let kernel = match is_half {
                true => launch::kernel::<cpu::Tiles<f16>>(encoder, "attention_tiles", DType::F16, "")?,
                false => launch::kernel::<cpu::Tiles<f32>>(encoder, "attention_tiles", DType::F32, "")?,
            };
            let tiles = tokens.saturating_mul(heads / kv_heads).div_ceil(rows);
            let launch = Launch {
                groups: [check.u32("tiles", tiles)?, block.kv_heads, 1],
                threads_per_group: 256,
                items: tiles.saturating_mul(kv_heads),
                items_per_chunk: 1,
            };
            encoder.dispatch(&kernel, &[q, k, v, p, write(output)], &block, launch)
        }
        Plan::Spans { slices, parts } => {
            let kernel = match is_half {
                true => launch::kernel::<cpu::Spans<f16>>(encoder, "attention_spans", DType::F16, "")?,
                false => launch::kernel::<cpu::Spans<f32>>(encoder, "attention_spans", DType::F32, "")?,
            };
            let launch = Launch {
                groups: [
                    block.parts,
                    check.u32("slices", slices.saturating_mul(kv_heads))?,
                    check.u32("tokens", tokens)?,
                ],
                threads_per_group: 256,
                items: tokens.saturating_mul(kv_heads).saturating_mul(slices * parts),
                items_per_chunk: 1,
            };
            if parts == 1 {
                return encoder.dispatch(&kernel, &[q, k, v, p, write(output)], &block, launch);
            }
            // The pool is only where the encoder takes its scratch from: it does not join the
            // residency set, and is freed with the commands.
            let shape = [tokens, heads, parts, head_dim.saturating_add(2)];
            let partials = encoder.scratch(&mut MlxBufferPool::new(), DType::F32, &shape)?;
            encoder.dispatch(&kernel, &[q, k, v, p, write(&partials)], &block, launch)?;
            let join = launch::kernel::<cpu::Join>(encoder, "attention_join", DType::F32, "")?;
            let launch =
                launch::rows(check, tokens.saturating_mul(heads), parts.saturating_mul(head_dim), LIGHT_CHUNK)?;
            encoder.dispatch(&join, &[read(&partials), write(output)], &block, launch)
        }
    }
}
