//! Keys or values of new tokens into a quantised cache.

mod cpu;
#[cfg(test)]
mod tests;

use anymlx_formats::quant::{QuantType, TensorType};
use bytemuck::{Pod, Zeroable};

use super::check::Check;
use crate::{CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, read, read_write, registry::BuiltIn};

pub(super) const GPU: &str = gpu_text!("kv_cache_quantize.gpu.cpp");

/// The encodings that a cache can have.
pub(super) const ENCODINGS: [QuantType; 2] = [QuantType::Q8_0, QuantType::Q4_0];

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
}

/// Bytes of one row of `head_dim` elements in a quantised cache; `None` for encodings and widths that it cannot have.
pub fn quantized_cache_row_bytes(encoding: QuantType, head_dim: usize) -> Option<usize> {
    let fits = ENCODINGS.contains(&encoding) && head_dim > 0 && head_dim.is_multiple_of(encoding.block_len());
    fits.then(|| head_dim / encoding.block_len() * encoding.block_bytes())
}

/// Extents that rows and cache share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extents {
    pub(super) kv_heads: usize,
    pub(super) capacity: usize,
    pub(super) head_dim: usize,
}

/// Checks rows, cache and positions against each other.
pub(super) fn check_buffers(
    check: Check,
    rows: &MlxBuffer,
    cache: &MlxBuffer,
    encoding: QuantType,
    positions: &MlxBuffer,
) -> Result<Extents> {
    check.dtype("rows", rows, &[DType::F16])?;
    check.dtype("cache", cache, &[DType::U8])?;
    check.dtype("positions", positions, &[DType::U32])?;
    let &[kv_heads, capacity, head_dim] = rows.shape() else {
        return Err(check.error(format_args!("rows is {:?}, needed [kv_heads, capacity, head_dim]", rows.shape())));
    };
    check.bytes("rows", rows)?;
    let Some(row_bytes) = quantized_cache_row_bytes(encoding, head_dim) else {
        let names = ENCODINGS.map(QuantType::name).join(" or ");
        return Err(check
            .error(format_args!("heads of {head_dim} dimensions in {encoding}, needed a multiple of 32 in {names}")));
    };
    check.shape("cache", cache, &[kv_heads, capacity, row_bytes])?;
    let tokens = positions.element_count();
    check.that(
        positions.shape().len() == 1 && tokens > 0,
        format_args!("positions is {:?}, needed [tokens]", positions.shape()),
    )?;
    check.bytes("positions", positions)?;
    // Blocks are read and written two bytes at a time.
    check.that(cache.byte_offset().is_multiple_of(2), "cache begins at an odd byte, needed an even one")?;
    Ok(Extents { kv_heads, capacity, head_dim })
}

/// `cache[h, positions[t], :] = rows[h, positions[t], :]` quantised to `encoding`, and the rows rounded to what the cache
/// then holds.
///
/// `rows` is `F16` `[kv_heads, capacity, head_dim]`, where [`super::kv_cache_write()`] has put the new tokens; `cache` is `U8`
/// `[kv_heads, capacity, quantized_cache_row_bytes(encoding, head_dim)]`, the blocks of `Q8_0` or `Q4_0` as GGUF files have them;
/// `positions` is `U32` `[tokens]`, all different. That the rows are rounded too makes attention independent of how a text is cut
/// into chunks. A block with a value that is not finite gets the scale NaN.
///
/// # Errors
/// `InvalidArgument` for shapes, dtypes or encodings that do not fit, or when buffers overlap. A position of `capacity` or more
/// fails the submission.
pub fn kv_cache_quantize(
    encoder: &mut CommandEncoder,
    rows: &MlxBuffer,
    cache: &MlxBuffer,
    encoding: QuantType,
    positions: &MlxBuffer,
) -> Result<()> {
    let check = Check::new("kv_cache_quantize");
    let Extents { kv_heads, capacity, head_dim } = check_buffers(check, rows, cache, encoding, positions)?;
    let tokens = positions.element_count();
    let block = Block {
        kv_heads: check.u32("kv_heads", kv_heads)?,
        head_dim: check.u32("head_dim", head_dim)?,
        capacity: check.u32("capacity", capacity)?,
    };
    let key = KernelKey { operation: "kv_cache_quantize", element: TensorType::Quantized(encoding), variant: "" };
    let cpu = if encoding == QuantType::Q8_0 { cpu::Q8_0_KERNEL } else { cpu::Q4_0_KERNEL };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: GPU, cpu })?;
    let blocks = head_dim / encoding.block_len();
    let launch = Launch {
        groups: [check.u32("tokens", tokens)?, block.kv_heads, 1],
        threads_per_group: super::launch::threads_for(blocks),
        items: kv_heads.saturating_mul(blocks),
        items_per_chunk: (256 / tokens).max(1),
    };
    encoder.dispatch(&kernel, &[read_write(rows), read_write(cache), read(positions)], &block, launch)
}
