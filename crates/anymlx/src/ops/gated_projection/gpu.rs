//! [`gated_projection`](super::gated_projection) of one token on a GPU.

use bytemuck::{Pod, Zeroable};

use crate::{
    CommandEncoder, MlxBuffer, Result, Weight,
    ops::{
        Activation,
        check::Check,
        gpu::stream::{self, NormBlock, StreamInput, WIDTH},
        project::{LayerInput, Projection},
    },
    read, write,
};

pub(in crate::ops) const TEXTS: stream::StreamTexts = stream_texts!("gated_projection.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    norm: NormBlock,
    rows: u32,
    activation: u32,
    groups: u32,
}

/// Records both projections, or says that no kernel takes them.
pub(super) fn gated_projection(
    encoder: &mut CommandEncoder,
    input: LayerInput<'_>,
    [gate, up]: [&Weight; 2],
    output: &MlxBuffer,
    activation: Activation,
) -> Result<bool> {
    let check = Check::new("gated_projection");
    if gate.encoding() != up.encoding() {
        return Ok(false);
    }
    let Some(streamed) = StreamInput::of(encoder, input, &[gate, up], WIDTH) else { return Ok(false) };
    for weight in [gate, up] {
        stream::check_operands(check, input, Projection { weight, bias: None, output })?;
    }
    let launch = stream::launch(encoder, check, gate.rows())?;
    let block = Block {
        norm: streamed.norm_block(check)?,
        rows: check.u32("weight rows", gate.rows())?,
        activation: activation as u32,
        groups: launch.groups[0],
    };
    let kernel = stream::kernel(encoder, "gated_projection", gate.encoding(), "", TEXTS)?;
    let mut bindings = vec![read(streamed.row), read(streamed.norm_binding())];
    bindings.extend([gate, up].into_iter().flat_map(stream::weight_bindings));
    bindings.push(write(output));
    encoder.dispatch(&kernel, &bindings, &block, launch)?;
    Ok(true)
}
