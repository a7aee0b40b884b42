//! Sums, products and caps, element by element.

mod cpu;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{
    check::Check,
    launch::{self, HEAVY_CHUNK, LIGHT_CHUNK},
};
use crate::{CommandEncoder, DType, Launch, MlxBuffer, Result, read, read_write, write};

pub(super) const GPU: &str = gpu_text!("elementwise.gpu.cpp");

/// What kernels for GPUs need to know of sums and products.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    count: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BiasBlock {
    count: u32,
    columns: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FactorBlock {
    count: u32,
    factor: f32,
}

fn check_same(check: Check, buffers: &[(&str, &MlxBuffer)]) -> Result<(usize, u32)> {
    let first = buffers[0].1;
    for (name, buffer) in buffers {
        check.dtype(name, buffer, &[DType::F32])?;
        check.shape(name, buffer, first.shape())?;
    }
    let count = first.element_count();
    Ok((count, check.u32("element count", count)?))
}

/// `output = left + right`, all `f32` of one shape.
///
/// # Errors
/// `InvalidArgument` for other shapes or dtypes, or when `output` overlaps an input.
pub fn add(encoder: &mut CommandEncoder, left: &MlxBuffer, right: &MlxBuffer, output: &MlxBuffer) -> Result<()> {
    let check = Check::new("add");
    let (elements, count) = check_same(check, &[("left", left), ("right", right), ("output", output)])?;
    let kernel = launch::kernel::<cpu::Add>(encoder, "add", DType::F32, GPU)?;
    let launch = launch::elements(check, elements, LIGHT_CHUNK)?;
    encoder.dispatch(&kernel, &[read(left), read(right), write(output)], &Block { count }, launch)
}

/// `target += update`, both `f32` of one shape.
///
/// # Errors
/// `InvalidArgument` for other shapes or dtypes, or when the two overlap.
pub fn add_in_place(encoder: &mut CommandEncoder, target: &MlxBuffer, update: &MlxBuffer) -> Result<()> {
    let check = Check::new("add_in_place");
    let (elements, count) = check_same(check, &[("target", target), ("update", update)])?;
    let kernel = launch::kernel::<cpu::AddInPlace>(encoder, "add_in_place", DType::F32, GPU)?;
    let launch = launch::elements(check, elements, LIGHT_CHUNK)?;
    encoder.dispatch(&kernel, &[read_write(target), read(update)], &Block { count }, launch)
}

/// `values[r, c] += bias[c]`: `values` is `f32` `[.., columns]`, `bias` is `f32` `[columns]`.
///
/// # Errors
/// `InvalidArgument` for other shapes or dtypes, or when the two overlap.
pub fn add_bias(encoder: &mut CommandEncoder, values: &MlxBuffer, bias: &MlxBuffer) -> Result<()> {
    let check = Check::new("add_bias");
    check.dtype("values", values, &[DType::F32])?;
    check.dtype("bias", bias, &[DType::F32])?;
    let (rows, columns) = check.rows("values", values)?;
    check.shape("bias", bias, &[columns])?;
    let kernel = launch::kernel::<cpu::AddBias>(encoder, "add_bias", DType::F32, GPU)?;
    let count = values.element_count();
    let groups = launch::elements(check, count, LIGHT_CHUNK)?.groups;
    let launch = Launch { groups, threads_per_group: 256, ..launch::rows(check, rows, columns, LIGHT_CHUNK)? };
    let block = BiasBlock { count: check.u32("element count", count)?, columns: check.u32("columns", columns)? };
    encoder.dispatch(&kernel, &[read_write(values), read(bias)], &block, launch)
}

/// `output = left * right`, all `f32` of one shape.
///
/// # Errors
/// `InvalidArgument` for other shapes or dtypes, or when `output` overlaps an input.
pub fn multiply(encoder: &mut CommandEncoder, left: &MlxBuffer, right: &MlxBuffer, output: &MlxBuffer) -> Result<()> {
    let check = Check::new("multiply");
    let (elements, count) = check_same(check, &[("left", left), ("right", right), ("output", output)])?;
    let kernel = launch::kernel::<cpu::Multiply>(encoder, "multiply", DType::F32, GPU)?;
    let launch = launch::elements(check, elements, LIGHT_CHUNK)?;
    encoder.dispatch(&kernel, &[read(left), read(right), write(output)], &Block { count }, launch)
}

/// `values *= factor`, `f32` of any shape.
///
/// # Errors
/// `InvalidArgument` for another dtype.
pub fn scale(encoder: &mut CommandEncoder, values: &MlxBuffer, factor: f32) -> Result<()> {
    let check = Check::new("scale");
    let (elements, count) = check_same(check, &[("values", values)])?;
    let kernel = launch::kernel::<cpu::Scale>(encoder, "scale", DType::F32, GPU)?;
    let launch = launch::elements(check, elements, LIGHT_CHUNK)?;
    encoder.dispatch(&kernel, &[read_write(values)], &FactorBlock { count, factor }, launch)
}

/// `values = cap * tanh(values / cap)`, `f32` of any shape: keeps values within `-cap..=cap`
/// (Gemma 2, <https://arxiv.org/abs/2408.00118>).
///
/// # Errors
/// `InvalidArgument` for another dtype, or a cap that is not a positive number.
pub fn softcap(encoder: &mut CommandEncoder, values: &MlxBuffer, cap: f32) -> Result<()> {
    let check = Check::new("softcap");
    check.that(cap > 0.0 && cap.is_finite(), format_args!("the cap is {cap}, needed a positive number"))?;
    let (elements, count) = check_same(check, &[("values", values)])?;
    let kernel = launch::kernel::<cpu::Softcap>(encoder, "softcap", DType::F32, GPU)?;
    let launch = launch::elements(check, elements, HEAVY_CHUNK)?;
    encoder.dispatch(&kernel, &[read_write(values)], &FactorBlock { count, factor: cap }, launch)
}
