//! A residual sum and the normalisation that follows it, in one pass.

mod cpu;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{
    check::Check,
    launch::{self, LIGHT_CHUNK},
    rms_norm::RmsNormParams,
};
use crate::{CommandEncoder, DType, MlxBuffer, Result, read, read_write, write};

pub(super) const GPU: &str = gpu_text!("add_rms_norm.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    columns: u32,
    vector_columns: u32,
    epsilon: f32,
    weight_offset: f32,
}

/// `residual += update`, then `output = rms_norm(residual)`: [`add_in_place`](super::add_in_place)
/// and [`rms_norm`](super::rms_norm()) in one.
///
/// `residual`, `update` and `output` are `f32` `[.., columns]` of one shape, `weight` is `f32`
/// `[columns]`.
///
/// # Errors
/// `InvalidArgument` for shapes or dtypes that do not fit, or when a written buffer overlaps
/// another one.
pub fn add_rms_norm(
    encoder: &mut CommandEncoder,
    residual: &MlxBuffer,
    update: &MlxBuffer,
    weight: &MlxBuffer,
    output: &MlxBuffer,
    params: RmsNormParams,
) -> Result<()> {
    const OPERATION: &str = "add_rms_norm";
    let check = Check::new(OPERATION);
    for (name, buffer) in [("residual", residual), ("update", update), ("weight", weight), ("output", output)] {
        check.dtype(name, buffer, &[DType::F32])?;
    }
    let (rows, columns) = check.rows("residual", residual)?;
    check.shape("update", update, residual.shape())?;
    check.shape("weight", weight, &[columns])?;
    check.shape("output", output, residual.shape())?;
    let block = Block {
        columns: check.u32("columns", columns)?,
        vector_columns: launch::vector_columns(columns, &[residual, update, weight, output]),
        epsilon: params.epsilon,
        weight_offset: params.weight_offset,
    };
    let kernel = launch::kernel::<cpu::AddRmsNorm>(encoder, OPERATION, DType::F32, GPU)?;
    let launch = launch::rows(check, rows, columns, LIGHT_CHUNK)?;
    encoder.dispatch(&kernel, &[read_write(residual), read(update), read(weight), write(output)], &block, launch)
}
