//! The rows of a quantised cache that attention is about to read.

mod cpu;

use anymlx_formats::quant::{QuantType, TensorType};
use bytemuck::{Pod, Zeroable};

use super::{
    check::Check,
    kv_cache_quantize::{Extents, check_buffers},
};
use crate::{CommandEncoder, KernelKey, Launch, MlxBuffer, Result, read, read_write, registry::BuiltIn};

pub(super) const GPU: &str = gpu_text!("../gpu/codes.h", "../gpu/quant.h", "kv_cache_expand.gpu.cpp");

/// Positions of an item on the CPU and of a threadgroup on GPUs.
const TILE: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    window: u32,
    aligned: u32,
}

/// `rows[h, p, :] = cache[h, p, :]` converted to `F16`, for all positions `p` before the first token's that it can see.
///
/// `cache` is `U8` with blocks of `encoding`, see [`super::kv_cache_quantize()`]; `rows` is `F16` `[kv_heads, capacity, head_dim]`;
/// `positions` is `U32` `[tokens]`, the first being the smallest. With a `window` of `w`, positions from `positions[0] + 1 - w` on
/// are converted. Other rows stay as they are.
///
/// # Errors
/// `InvalidArgument` for shapes, dtypes or encodings that do not fit, a window of 0, or when buffers overlap.
pub fn kv_cache_expand(
    encoder: &mut CommandEncoder,
    cache: &MlxBuffer,
    rows: &MlxBuffer,
    encoding: QuantType,
    positions: &MlxBuffer,
    window: Option<usize>,
) -> Result<()> {
    let check = Check::new("kv_cache_expand");
    let Extents { kv_heads, capacity, head_dim } = check_buffers(check, rows, cache, encoding, positions)?;
    check.that(window != Some(0), "a window of 0 positions given, needed at least 1")?;
    let block = Block {
        kv_heads: check.u32("kv_heads", kv_heads)?,
        head_dim: check.u32("head_dim", head_dim)?,
        capacity: check.u32("capacity", capacity)?,
        window: window.and_then(|window| u32::try_from(window).ok()).unwrap_or(u32::MAX),
        aligned: u32::from(rows.byte_offset().is_multiple_of(16)),
    };
    let key = KernelKey { operation: "kv_cache_expand", element: TensorType::Quantized(encoding), variant: "" };
    let cpu = if encoding == QuantType::Q8_0 { cpu::Q8_0_KERNEL } else { cpu::Q4_0_KERNEL };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: GPU, cpu })?;
    let tiles = capacity.div_ceil(TILE);
    let launch = Launch {
        groups: [check.u32("tiles", tiles)?, block.kv_heads, 1],
        threads_per_group: 256,
        items: kv_heads.saturating_mul(tiles),
        items_per_chunk: 1,
    };
    encoder.dispatch(&kernel, &[read(cache), read_write(rows), read(positions)], &block, launch)
}
