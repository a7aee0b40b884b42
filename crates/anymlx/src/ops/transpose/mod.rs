//! Transposition of a matrix.

mod cpu;
#[cfg(test)]
mod tests;

use anymlx_formats::quant::TensorType;
use bytemuck::{Pod, Zeroable};

use super::check::Check;
use crate::{CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, read, registry::BuiltIn, write};

pub(super) const GPU: &str = gpu_text!("transpose.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    rows: u32,
    columns: u32,
}

/// `output[c, r] = input[r, c]`: `input` is `[rows, columns]`, `output` is `[columns, rows]`, both of
/// one dtype, whichever it is.
///
/// # Errors
/// `InvalidArgument` for other shapes or different dtypes, or when the two overlap.
pub fn transpose(encoder: &mut CommandEncoder, input: &MlxBuffer, output: &MlxBuffer) -> Result<()> {
    let check = Check::new("transpose");
    let &[rows, columns] = input.shape() else {
        return Err(check.error(format_args!("input is {:?}, needed [rows, columns]", input.shape())));
    };
    check.bytes("input", input)?;
    check.dtype("output", output, &[input.dtype()])?;
    check.shape("output", output, &[columns, rows])?;
    let block = Block { rows: check.u32("rows", rows)?, columns: check.u32("columns", columns)? };
    let (cpu, variant) = cpu::kernel(input.dtype().size_of())
        .ok_or_else(|| check.error(format_args!("elements of {} bytes have no kernel", input.dtype().size_of())))?;
    // On a GPU only the size of an element matters, on a CPU it is the variant.
    let key = if encoder.device().runs_gpu_kernels() {
        let element = TensorType::Dense(element_of_size(input.dtype().size_of()));
        KernelKey { operation: "transpose", element, variant: "" }
    } else {
        KernelKey { operation: "transpose", element: TensorType::Dense(input.dtype()), variant }
    };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: GPU, cpu })?;
    let tile = cpu::TILE as u32;
    let launch = Launch {
        groups: [block.columns.div_ceil(tile), block.rows.div_ceil(tile), 1],
        threads_per_group: 256,
        items: columns,
        items_per_chunk: (16 * 1024 / rows.max(1)).next_multiple_of(cpu::TILE).max(cpu::TILE),
    };
    encoder.dispatch(&kernel, &[read(input), write(output)], &block, launch)
}

/// The element type for which kernels for GPUs move elements of `bytes` bytes.
fn element_of_size(bytes: usize) -> DType {
    match bytes {
        1 => DType::U8,
        2 => DType::U16,
        4 => DType::U32,
        _ => DType::I64,
    }
}
