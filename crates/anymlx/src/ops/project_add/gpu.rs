//! [`project_add`](super::project_add) of one token on a GPU.

use bytemuck::{Pod, Zeroable};

use super::{LayerInput, PostNorm, Projection};
use crate::{
    CommandEncoder, MlxBuffer, Result,
    ops::{
        check::Check,
        gpu::stream::{self, StreamInput, WIDE, WIDTH},
    },
    read, read_write,
};

pub(in crate::ops) const TEXTS: stream::StreamTexts = stream_texts!("project_add.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    columns: u32,
    rows: u32,
    has_bias: u32,
    groups: u32,
}

/// Records the projection, or says that no kernel takes it.
pub(super) fn project_add(
    encoder: &mut CommandEncoder,
    input: LayerInput<'_>,
    projection: Projection<'_>,
    post_norm: Option<PostNorm<'_>>,
    residual: &MlxBuffer,
) -> Result<bool> {
    let check = Check::new("project_add");
    let Some(streamed) = StreamInput::of(encoder, input, &[projection.weight], WIDE) else { return Ok(false) };
    if streamed.norm.is_some() {
        return Ok(false);
    }
    stream::check_operands(check, input, projection)?;
    check.dtype("residual", residual, &[crate::DType::F32])?;
    check.shape("residual", residual, projection.output.shape())?;
    let (target, variant) = match (post_norm, streamed.columns) {
        (None, ..=WIDTH) => (residual, "add"),
        (None, _) => (residual, "add_wide"),
        (Some(_), ..=WIDTH) => (projection.output, "store"),
        (Some(_), _) => (projection.output, "store_wide"),
    };
    let launch = stream::launch(encoder, check, projection.weight.rows().div_ceil(2))?;
    let block = Block {
        columns: check.u32("columns", streamed.columns)?,
        rows: check.u32("weight rows", projection.weight.rows())?,
        has_bias: u32::from(projection.bias.is_some()),
        groups: launch.groups[0],
    };
    let kernel = stream::kernel(encoder, "project_add", projection.weight.encoding(), variant, TEXTS)?;
    let bias = projection.bias.unwrap_or(streamed.row);
    let mut bindings = vec![read(streamed.row)];
    bindings.extend(stream::weight_bindings(projection.weight));
    bindings.extend([read(bias), read_write(target)]);
    encoder.dispatch(&kernel, &bindings, &block, launch)?;
    if post_norm.is_some() {
        super::join(encoder, projection.output, post_norm, residual)?;
    }
    Ok(true)
}
