//! [`rotate_and_cache`](super::rotate_and_cache) on a GPU: a threadgroup for each head of each token.

use bytemuck::{Pod, Zeroable};

use super::RotateAndCache;
use crate::{
    CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, TensorType,
    ops::{RopeLayout, check::Check, launch},
    read, read_write,
};

pub(in crate::ops) const GPU: &str = gpu_text!("../gpu/angle.h", "../gpu/cache.h", "rotate_and_cache.gpu.cpp");
/// As in the text.
const MAX_HEAD_DIM: usize = 512;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    pairs: u32,
    interleaved: u32,
    is_normed: u32,
    magnitude: f32,
    epsilon: f32,
    weight_offset: f32,
}

/// The sizes of operands that fit together.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct HeadShape {
    pub(in crate::ops) tokens: usize,
    pub(in crate::ops) heads: usize,
    pub(in crate::ops) kv_heads: usize,
    pub(in crate::ops) head_dim: usize,
    pub(in crate::ops) capacity: usize,
}

impl HeadShape {
    /// `None` for shapes and dtypes that do not fit.
    pub(in crate::ops) fn of(operands: &RotateAndCache<'_>) -> Option<Self> {
        let RotateAndCache { queries, keys, values, norms, positions, frequencies, rope, key_cache, value_cache } =
            *operands;
        let (&[tokens, heads, head_dim], &[_, kv_heads, _]) = (queries.shape(), keys.shape()) else { return None };
        let &[_, capacity, _] = key_cache.shape() else { return None };
        let cache_type = key_cache.dtype();
        let norm_shapes =
            norms.is_none_or(|norms| [norms.query, norms.key].iter().all(|norm| norm.shape() == [head_dim]));
        let floats = |buffers: &[&MlxBuffer]| buffers.iter().all(|buffer| buffer.dtype() == DType::F32);
        let fits = head_dim <= MAX_HEAD_DIM
            && matches!(cache_type, DType::F16 | DType::F32)
            && value_cache.dtype() == cache_type
            && floats(&[queries, keys, values, frequencies])
            && norms.is_none_or(|norms| floats(&[norms.query, norms.key]))
            && positions.dtype() == DType::U32
            && keys.shape() == [tokens, kv_heads, head_dim]
            && values.shape() == keys.shape()
            && positions.shape() == [tokens]
            && key_cache.shape() == [kv_heads, capacity, head_dim]
            && value_cache.shape() == key_cache.shape()
            && norm_shapes
            && rope.rotary_dims.is_multiple_of(2)
            && rope.rotary_dims <= head_dim
            && frequencies.shape() == [rope.rotary_dims / 2];
        fits.then_some(Self { tokens, heads, kv_heads, head_dim, capacity })
    }

    /// Every operand has the bytes of its shape.
    pub(in crate::ops) fn check_bytes(&self, check: Check, operands: &RotateAndCache<'_>) -> Result<()> {
        let RotateAndCache { queries, keys, values, positions, frequencies, key_cache, value_cache, .. } = operands;
        check.bytes("queries", queries)?;
        check.bytes("keys", keys)?;
        check.bytes("values", values)?;
        check.bytes("key_cache", key_cache)?;
        check.bytes("value_cache", value_cache)?;
        check.bytes("positions", positions)?;
        check.bytes("frequencies", frequencies)
    }
}

/// Records the kernel, or says that it does not take these operands: other shapes and dtypes are for the plain
/// operations, with their messages.
pub(super) fn rotate_and_cache(encoder: &mut CommandEncoder, operands: &RotateAndCache<'_>) -> Result<bool> {
    let check = Check::new("rotate_and_cache");
    if !encoder.device().runs_gpu_kernels() {
        return Ok(false);
    }
    let Some(shape) = HeadShape::of(operands) else { return Ok(false) };
    shape.check_bytes(check, operands)?;
    let HeadShape { tokens, heads, kv_heads, head_dim, capacity } = shape;
    let RotateAndCache { queries, keys, values, norms, positions, frequencies, rope, key_cache, value_cache } =
        *operands;
    let cache_type = key_cache.dtype();
    let (epsilon, weight_offset) = norms.map_or((0.0, 0.0), |norms| (norms.params.epsilon, norms.params.weight_offset));
    let block = Block {
        tokens: check.u32("tokens", tokens)?,
        heads: check.u32("heads", heads)?,
        kv_heads: check.u32("kv_heads", kv_heads)?,
        head_dim: check.u32("head_dim", head_dim)?,
        capacity: check.u32("capacity", capacity)?,
        pairs: check.u32("pairs", rope.rotary_dims / 2)?,
        interleaved: u32::from(rope.layout == RopeLayout::Interleaved),
        is_normed: u32::from(norms.is_some()),
        magnitude: rope.magnitude,
        epsilon,
        weight_offset,
    };
    let key = KernelKey { operation: "rotate_and_cache", element: TensorType::Dense(cache_type), variant: "" };
    let kernel = launch::gpu_kernel(encoder, check, key, GPU)?;
    let launch = Launch {
        groups: [block.tokens, check.u32("heads", heads.saturating_add(kv_heads.saturating_mul(2)))?, 1],
        threads_per_group: launch::threads_for(head_dim).min(256),
        items: 1,
        items_per_chunk: 1,
    };
    let (query_norm, key_norm) = norms.map_or((keys, keys), |norms| (norms.query, norms.key));
    let bindings = [
        read_write(queries),
        read(keys),
        read(values),
        read(query_norm),
        read(key_norm),
        read(positions),
        read(frequencies),
        read_write(key_cache),
        read_write(value_cache),
    ];
    encoder.dispatch(&kernel, &bindings, &block, launch)?;
    Ok(true)
}
