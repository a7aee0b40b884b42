//! Rows of a table by number: the embedding of tokens.

mod cpu;
pub(super) mod mlx;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{
    check::Check,
    launch::{self, LIGHT_CHUNK},
};
use crate::{CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, Weight, read, registry::BuiltIn, write};

pub(super) const GPU: &str =
    gpu_text!("../gpu/codes.h", "../gpu/quant.h", "../gpu/quant_codebook.h", "../gpu/dense.h", "gather_rows.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    table_rows: u32,
    columns: u32,
    encoding: u32,
    factor: f32,
}

/// `output[i] = table[ids[i]] * factor`, converted to `f32`.
///
/// `ids` is `U32` of any shape, `output` is `f32` with as many rows of the table's columns. `factor` is 1 for most
/// models, `sqrt(columns)` for Gemma. An id that is no row of the table fails the submission.
///
/// # Errors
/// `InvalidArgument` for a table of integers, other shapes or dtypes, or when `output` overlaps an input.
pub fn gather_rows(
    encoder: &mut CommandEncoder,
    table: &Weight,
    ids: &MlxBuffer,
    output: &MlxBuffer,
    factor: f32,
) -> Result<()> {
    let check = Check::new("gather_rows");
    check.dtype("ids", ids, &[DType::U32])?;
    check.bytes("ids", ids)?;
    check.dtype("output", output, &[DType::F32])?;
    let layout = super::matmul::mlx::layout_of(table);
    let encoding = if layout.is_some() { 0 } else { super::matmul::check_encoding(check, "table", table)? };
    if encoder.device().runs_gpu_kernels() {
        super::gpu::check_format(check, "table", table.encoding())?;
    }
    let count = ids.element_count();
    let (rows, columns) = check.rows("output", output)?;
    check.that(
        (rows, columns) == (count, table.columns()),
        format_args!(
            "output is {:?}, needed [{count}, {}] for ids {:?} and a table of {} columns",
            output.shape(),
            table.columns(),
            ids.shape(),
            table.columns()
        ),
    )?;
    if let Some(layout) = layout {
        return mlx::gather_rows(encoder, (table, layout), ids, output, factor);
    }
    let block = Block {
        table_rows: check.u32("table rows", table.rows())?,
        columns: check.u32("columns", columns)?,
        encoding,
        factor,
    };
    let launch = Launch {
        threads_per_group: launch::threads_for(columns.div_ceil(16)),
        ..launch::rows(check, count, columns, LIGHT_CHUNK / 4)?
    };
    let key = KernelKey { operation: "gather_rows", element: table.encoding(), variant: "" };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: GPU, cpu: cpu::KERNEL })?;
    encoder.dispatch(&kernel, &[read(table.data()), read(ids), write(output)], &block, launch)
}
