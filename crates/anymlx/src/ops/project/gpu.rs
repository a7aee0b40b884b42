//! [`project`](super::project) of one token on a GPU: one kernel where the encodings allow it.

use bytemuck::{Pod, Zeroable};

use super::{LayerInput, Projection};
use crate::{
    CommandEncoder, Result,
    ops::{
        check::Check,
        gpu::stream::{self, NormBlock, StreamInput, Third, WIDTH},
    },
    read, write,
};

pub(in crate::ops) const TEXTS: stream::StreamTexts = stream_texts!("project.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    norm: NormBlock,
    rows: [u32; 3],
    /// Bit `i`: matrix `i` has one.
    has_bias: u32,
    groups: u32,
}

/// Records the projections, or says that no kernel takes them.
pub(super) fn project(
    encoder: &mut CommandEncoder,
    input: LayerInput<'_>,
    projections: &[Projection<'_>],
) -> Result<bool> {
    let check = Check::new("project");
    let weights: Vec<_> = projections.iter().map(|projection| projection.weight).collect();
    let Some(streamed) = StreamInput::of(encoder, input, &weights, WIDTH) else { return Ok(false) };
    projections.iter().try_for_each(|projection| stream::check_operands(check, input, *projection))?;
    let three = <&[_; 3]>::try_from(projections).ok();
    if let Some((three, third)) = three.and_then(|three| Some((three, Third::of(three.map(|p| p.weight.encoding()))?)))
    {
        let variant = match third {
            Third::Same => "three",
            Third::Q6K => "three_q6_k",
            Third::Q8_0 => "three_q8_0",
        };
        record(encoder, check, &streamed, three, variant)?;
        return Ok(true);
    }
    projections
        .iter()
        .try_for_each(|projection| record(encoder, check, &streamed, std::slice::from_ref(projection), "one"))?;
    Ok(true)
}

fn record(
    encoder: &mut CommandEncoder,
    check: Check,
    input: &StreamInput<'_>,
    projections: &[Projection<'_>],
    variant: &'static str,
) -> Result<()> {
    let mut rows = [0; 3];
    let mut has_bias = 0;
    for (index, projection) in projections.iter().enumerate() {
        rows[index] = check.u32("weight rows", projection.weight.rows())?;
        has_bias |= u32::from(projection.bias.is_some()) << index;
    }
    let pairs = projections.iter().map(|projection| projection.weight.rows().div_ceil(2)).sum();
    let launch = stream::launch(encoder, check, pairs)?;
    let block = Block { norm: input.norm_block(check)?, rows, has_bias, groups: launch.groups[0] };
    let kernel = stream::kernel(encoder, "project", projections[0].weight.encoding(), variant, TEXTS)?;
    let mut bindings = vec![read(input.row), read(input.norm_binding())];
    bindings.extend(projections.iter().flat_map(|projection| stream::weight_bindings(projection.weight)));
    bindings.extend(projections.iter().map(|projection| read(projection.bias.unwrap_or(input.row))));
    bindings.extend(projections.iter().map(|projection| write(projection.output)));
    encoder.dispatch(&kernel, &bindings, &block, launch)
}
