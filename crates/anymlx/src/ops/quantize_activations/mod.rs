//! Activations rounded to 8 bits, the input of products with quantised weights.

mod cpu;
mod layout;
mod refined;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{
    check::Check,
    launch::{self, LIGHT_CHUNK},
};
use crate::{CommandEncoder, DType, MlxBuffer, Result, read, write};

pub use layout::quantized_activation_bytes;
pub(in crate::ops) use layout::{ALIGNMENT, GROUP, QuantizedLayout, QuantizedRow, STEP_RATIO, SUM_GROUP};
pub use refined::quantize_activations_refined;

pub(super) const GPU: &str = gpu_text!("quantize_activations.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    columns: u32,
    /// Groups of 32, the zero ones at the end included.
    groups: u32,
    row_bytes: u32,
    /// 1 when four values may be read at a time.
    vectors: u32,
}

impl Block {
    fn new(check: Check, layout: QuantizedLayout, input: &MlxBuffer) -> Result<Self> {
        Ok(Self {
            columns: check.u32("columns", layout.columns)?,
            groups: check.u32("groups", layout.groups)?,
            row_bytes: check.u32("row bytes", layout.row_bytes)?,
            vectors: u32::from(launch::vector_columns(layout.columns, &[input]) > 0),
        })
    }
}

/// Rounds each group of 32 activations to 8 bits: `q = round(x * 127 / amax)`, ties to even, `x ≈ q * amax / 127`.
///
/// `input` is `f32` `[.., columns]`, `output` is `U8` with as many rows of
/// [`quantized_activation_bytes(1, columns)`](quantized_activation_bytes) bytes. The bytes serve all products that
/// read the same input. A group with a value that is not finite gets the scale NaN; a group whose magnitudes stay below
/// 1e-36 becomes zero.
///
/// # Errors
/// `InvalidArgument` unless `columns` is a multiple of 32, for other shapes or dtypes, or when the buffers overlap.
pub fn quantize_activations(encoder: &mut CommandEncoder, input: &MlxBuffer, output: &MlxBuffer) -> Result<()> {
    const OPERATION: &str = "quantize_activations";
    let check = Check::new(OPERATION);
    check.dtype("input", input, &[DType::F32])?;
    let (rows, columns) = check.rows("input", input)?;
    let layout = check_quantized(check, "output", output, rows, columns)?;
    let block = Block::new(check, layout, input)?;
    let launch = launch::rows(check, rows, columns, LIGHT_CHUNK / 2)?;
    let kernel = launch::kernel::<cpu::QuantizeActivations>(encoder, OPERATION, DType::F32, GPU)?;
    encoder.dispatch(&kernel, &[read(input), write(output)], &block, launch)
}

/// `buffer` can hold the 8-bit form of `rows` rows of `columns` activations.
pub(in crate::ops) fn check_quantized(
    check: Check,
    name: &str,
    buffer: &MlxBuffer,
    rows: usize,
    columns: usize,
) -> Result<QuantizedLayout> {
    let Some(layout) = QuantizedLayout::new(columns) else {
        return Err(check.error(format_args!("{columns} columns given, 8-bit activations need a multiple of 32")));
    };
    check.dtype(name, buffer, &[DType::U8])?;
    let (given_rows, row_bytes) = check.rows(name, buffer)?;
    check.that(
        (given_rows, row_bytes) == (rows, layout.row_bytes),
        format_args!("{name} is {:?}, needed [{rows}, {}] for {columns} columns", buffer.shape(), layout.row_bytes),
    )?;
    check.that(
        buffer.byte_offset().is_multiple_of(ALIGNMENT as u64),
        format_args!("{name} begins at byte {}, needed a multiple of {ALIGNMENT}", buffer.byte_offset()),
    )?;
    Ok(layout)
}
