//! Index of the largest value.

pub(super) mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use super::{
    check::Check,
    launch::{self, LIGHT_CHUNK},
};
use crate::{CommandEncoder, DType, MlxBuffer, Result, read, write};

pub(super) const GPU: &str = gpu_text!("argmax.gpu.cpp");

/// `output[r]` = index of the largest value of row `r`, the lowest index among equals.
///
/// `logits` is `f32` `[.., columns]`, `output` is `U32` `[rows]`. NaN never wins, except in a row of
/// nothing else, which gives 0.
///
/// # Errors
/// `InvalidArgument` for other shapes or dtypes, or when the two overlap.
pub fn argmax(encoder: &mut CommandEncoder, logits: &MlxBuffer, output: &MlxBuffer) -> Result<()> {
    let check = Check::new("argmax");
    check.dtype("logits", logits, &[DType::F32])?;
    check.dtype("output", output, &[DType::U32])?;
    let (rows, columns) = check.rows("logits", logits)?;
    check.shape("output", output, &[rows])?;
    if encoder.device().runs_gpu_kernels() && columns >= gpu::MANY_COLUMNS {
        return gpu::argmax(encoder, check, logits, output, [rows, columns]);
    }
    let columns_param = check.u32("columns", columns)?;
    let kernel = launch::kernel::<cpu::Argmax>(encoder, "argmax", DType::F32, GPU)?;
    let launch = launch::rows(check, rows, columns, LIGHT_CHUNK)?;
    encoder.dispatch(&kernel, &[read(logits), write(output)], &columns_param, launch)
}
