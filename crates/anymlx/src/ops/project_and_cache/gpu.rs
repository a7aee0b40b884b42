//! [`project_and_cache`](super::project_and_cache) of one token on a GPU: one kernel where the encodings allow it.

use bytemuck::{Pod, Zeroable};

use super::ProjectAndCache;
use crate::{
    CommandEncoder, DType, Result,
    ops::{
        RopeLayout,
        check::Check,
        gpu::stream::{self, NormBlock, StreamInput, Third, WIDTH},
        rotate_and_cache::gpu::HeadShape,
    },
    read, read_write, write,
};

pub(in crate::ops) const TEXTS: stream::StreamTexts = stream_texts!("../gpu/angle.h", "project_and_cache.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    norm: NormBlock,
    query_rows: u32,
    key_rows: u32,
    /// Bit `i`: projection `i` has one.
    has_bias: u32,
    groups: u32,
    head_dim: u32,
    capacity: u32,
    interleaved: u32,
    magnitude: f32,
}

/// Records the kernel, or says that it does not take these operands.
pub(super) fn project_and_cache(encoder: &mut CommandEncoder, operands: &ProjectAndCache<'_>) -> Result<bool> {
    let check = Check::new("project_and_cache");
    let ProjectAndCache { input, projections, rotate } = operands;
    let Some(shape) = HeadShape::of(rotate) else { return Ok(false) };
    let HeadShape { heads, kv_heads, head_dim, capacity, .. } = shape;
    let fits = rotate.norms.is_none()
        && rotate.rope.rotary_dims == head_dim
        && rotate.key_cache.dtype() == DType::F16
        && [rotate.key_cache, rotate.value_cache].iter().all(|cache| cache.byte_offset().is_multiple_of(16))
        && projections.iter().zip([heads, kv_heads, kv_heads]).all(|(p, heads)| p.weight.rows() == heads * head_dim);
    let Some(third) = Third::of(projections.map(|projection| projection.weight.encoding())) else { return Ok(false) };
    let weights = projections.map(|projection| projection.weight);
    if !fits {
        return Ok(false);
    }
    let Some(streamed) = StreamInput::of(encoder, *input, &weights, WIDTH) else { return Ok(false) };
    projections.iter().try_for_each(|projection| stream::check_operands(check, *input, *projection))?;
    shape.check_bytes(check, rotate)?;
    let pairs = weights.iter().map(|weight| weight.rows() / 2).sum();
    let launch = stream::launch(encoder, check, pairs)?;
    let block = Block {
        norm: streamed.norm_block(check)?,
        query_rows: check.u32("weight rows", weights[0].rows())?,
        key_rows: check.u32("weight rows", weights[1].rows())?,
        has_bias: projections.iter().enumerate().map(|(i, p)| u32::from(p.bias.is_some()) << i).sum(),
        groups: launch.groups[0],
        head_dim: check.u32("head_dim", head_dim)?,
        capacity: check.u32("capacity", capacity)?,
        interleaved: u32::from(rotate.rope.layout == RopeLayout::Interleaved),
        magnitude: rotate.rope.magnitude,
    };
    let variant = match third {
        Third::Same => "",
        Third::Q6K => "q6_k",
        Third::Q8_0 => "q8_0",
    };
    let kernel = stream::kernel(encoder, "project_and_cache", weights[0].encoding(), variant, TEXTS)?;
    let mut bindings = vec![read(streamed.row), read(streamed.norm_binding())];
    bindings.extend(weights.iter().flat_map(|weight| stream::weight_bindings(weight)));
    bindings.extend(projections.iter().map(|projection| read(projection.bias.unwrap_or(streamed.row))));
    bindings.extend([
        read(rotate.positions),
        read(rotate.frequencies),
        write(rotate.queries),
        read_write(rotate.key_cache),
        read_write(rotate.value_cache),
    ]);
    encoder.dispatch(&kernel, &bindings, &block, launch)?;
    Ok(true)
}
