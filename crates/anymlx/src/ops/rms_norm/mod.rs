//! Root-mean-square normalisation (Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>).

pub(super) mod cpu;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{
    check::Check,
    launch::{self, LIGHT_CHUNK},
};
use crate::{CommandEncoder, DType, MlxBuffer, Result, read, read_write, write};

pub(super) const GPU: &str = gpu_text!("rms_norm.gpu.cpp");

/// Parameters of [`rms_norm`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNormParams {
    /// Added to the mean square, against division by zero.
    pub epsilon: f32,
    /// Added to every weight: 0 for most models, 1 where the file stores `weight - 1`.
    pub weight_offset: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    columns: u32,
    vector_columns: u32,
    epsilon: f32,
    weight_offset: f32,
}

/// `output[r, c] = input[r, c] / sqrt(mean_c(input[r, c]²) + epsilon) * (weight[c] + weight_offset)`.
///
/// `input` and `output` are `f32` `[.., columns]` of the same shape, `weight` is `f32` `[columns]`.
/// Sums are taken in `f32` over at least 32 independent partial sums.
///
/// # Errors
/// `InvalidArgument` for shapes or dtypes that do not fit, or when `output` overlaps an input.
pub fn rms_norm(
    encoder: &mut CommandEncoder,
    input: &MlxBuffer,
    weight: &MlxBuffer,
    output: &MlxBuffer,
    params: RmsNormParams,
) -> Result<()> {
    let check = Check::new("rms_norm");
    check.dtype("output", output, &[DType::F32])?;
    check.shape("output", output, input.shape())?;
    record(encoder, &check, input, weight, Some(output), params)
}

/// As [`rms_norm`], replacing `values`.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_in_place(
    encoder: &mut CommandEncoder,
    values: &MlxBuffer,
    weight: &MlxBuffer,
    params: RmsNormParams,
) -> Result<()> {
    record(encoder, &Check::new("rms_norm_in_place"), values, weight, None, params)
}

fn record(
    encoder: &mut CommandEncoder,
    check: &Check,
    input: &MlxBuffer,
    weight: &MlxBuffer,
    output: Option<&MlxBuffer>,
    params: RmsNormParams,
) -> Result<()> {
    for (name, buffer) in [("input", input), ("weight", weight)] {
        check.dtype(name, buffer, &[DType::F32])?;
    }
    let (rows, columns) = check.rows("input", input)?;
    check.shape("weight", weight, &[columns])?;
    let block = Block {
        columns: check.u32("columns", columns)?,
        vector_columns: launch::vector_columns(columns, &[input, weight, output.unwrap_or(input)]),
        epsilon: params.epsilon,
        weight_offset: params.weight_offset,
    };
    let kernel = match output {
        Some(_) => launch::kernel::<cpu::RmsNorm>(encoder, "rms_norm", DType::F32, GPU)?,
        None => launch::kernel::<cpu::RmsNormInPlace>(encoder, "rms_norm_in_place", DType::F32, GPU)?,
    };
    let launch = launch::rows(*check, rows, columns, LIGHT_CHUNK)?;
    match output {
        Some(output) => encoder.dispatch(&kernel, &[read(input), read(weight), write(output)], &block, launch),
        None => encoder.dispatch(&kernel, &[read_write(input), read(weight)], &block, launch),
    }
}
