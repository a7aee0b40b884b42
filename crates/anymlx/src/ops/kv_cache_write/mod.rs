//! Keys or values of new tokens into the cache.

mod cpu;
#[cfg(test)]
mod tests;

use anymlx_formats::quant::TensorType;
use bytemuck::{Pod, Zeroable};

use super::check::Check;
use crate::{CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, read, read_write, registry::BuiltIn};

pub(super) const GPU: &str = gpu_text!("../gpu/cache.h", "kv_cache_write.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    tokens: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
}

/// `cache[h, positions[t], :] = values[t, h, :]`, rounded to the dtype of the cache.
///
/// `values` is `f32` `[tokens, kv_heads, head_dim]`, `cache` is `F16` or `F32`
/// `[kv_heads, capacity, head_dim]`, `positions` is `U32` `[tokens]`. Of tokens with the same position
/// the last one stays.
///
/// # Errors
/// `InvalidArgument` for shapes or dtypes that do not fit, or when the cache overlaps another
/// buffer. A position of `capacity` or more fails the submission; nothing outside the cache is
/// written.
pub fn kv_cache_write(
    encoder: &mut CommandEncoder,
    values: &MlxBuffer,
    cache: &MlxBuffer,
    positions: &MlxBuffer,
) -> Result<()> {
    let check = Check::new("kv_cache_write");
    check.dtype("values", values, &[DType::F32])?;
    check.dtype("cache", cache, &[DType::F16, DType::F32])?;
    check.dtype("positions", positions, &[DType::U32])?;
    let (&[tokens, kv_heads, head_dim], &[_, capacity, _]) = (values.shape(), cache.shape()) else {
        return Err(check.error(format_args!(
            "values is {:?} and cache is {:?}, needed [tokens, kv_heads, head_dim] and [kv_heads, capacity, head_dim]",
            values.shape(),
            cache.shape()
        )));
    };
    check.bytes("values", values)?;
    check.shape("cache", cache, &[kv_heads, capacity, head_dim])?;
    check.shape("positions", positions, &[tokens])?;
    let block = Block {
        tokens: check.u32("tokens", tokens)?,
        kv_heads: check.u32("kv_heads", kv_heads)?,
        head_dim: check.u32("head_dim", head_dim)?,
        capacity: check.u32("capacity", capacity)?,
    };
    let key = KernelKey { operation: "kv_cache_write", element: TensorType::Dense(cache.dtype()), variant: "" };
    let cpu = if cache.dtype() == DType::F16 { cpu::F16_KERNEL } else { cpu::F32_KERNEL };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: GPU, cpu })?;
    let launch = Launch {
        groups: [block.tokens, block.kv_heads, 1],
        threads_per_group: super::launch::threads_for(head_dim),
        items: kv_heads.saturating_mul(head_dim.div_ceil(cpu::SLICE)),
        items_per_chunk: (16 * 1024 / (tokens.max(1) * cpu::SLICE)).max(1),
    };
    encoder.dispatch(&kernel, &[read(values), read_write(cache), read(positions)], &block, launch)
}
