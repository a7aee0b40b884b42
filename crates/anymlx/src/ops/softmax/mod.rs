//! Softmax over rows.

mod cpu;
#[cfg(test)]
mod tests;

use super::{
    check::Check,
    launch::{self, HEAVY_CHUNK},
};
use crate::{CommandEncoder, DType, MlxBuffer, Result, read, write};

pub(super) const GPU: &str = gpu_text!("softmax.gpu.cpp");

/// `output[r, c] = e^(input[r, c] - max_r) / sum_c e^(input[r, c] - max_r)`, over the last extent.
///
/// Both are `f32` `[.., columns]` of one shape. Minus infinity gets probability 0; a row of nothing
/// else has no distribution and gives NaN.
///
/// # Errors
/// `InvalidArgument` for other shapes or dtypes, or when the two overlap.
pub fn softmax(encoder: &mut CommandEncoder, input: &MlxBuffer, output: &MlxBuffer) -> Result<()> {
    let check = Check::new("softmax");
    check.dtype("input", input, &[DType::F32])?;
    check.dtype("output", output, &[DType::F32])?;
    let (rows, columns) = check.rows("input", input)?;
    check.shape("output", output, input.shape())?;
    let columns_param = check.u32("columns", columns)?;
    let kernel = launch::kernel::<cpu::Softmax>(encoder, "softmax", DType::F32, GPU)?;
    let launch = launch::rows(check, rows, columns, HEAVY_CHUNK)?;
    encoder.dispatch(&kernel, &[read(input), write(output)], &columns_param, launch)
}
