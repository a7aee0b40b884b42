//! How products with matrices of MLX run on a GPU.

use anymlx_formats::{mlx::MlxType, quant::TensorType};
use bytemuck::{Pod, Zeroable};

use super::buffers;
use crate::{
    CommandEncoder, DType, KernelKey, Launch, MlxBuffer, MlxBufferPool, Result, Weight,
    ops::{
        gather_rows, launch,
        matmul::{MatmulInput, Prepared},
        quantize_activations::QuantizedLayout,
    },
    read, write,
};

pub(in crate::ops) const GPU: &str = gpu_text!("../../gpu/codes.h", "../../gpu/mlx.h", "mlx_matmul.gpu.cpp");

/// Simdgroups of a threadgroup.
const SIMDGROUPS: u32 = 4;
/// From this many rows of input on the matrix is unpacked once for all of them.
const UNPACKED_INPUTS: usize = 33;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    tokens: u32,
    rows: u32,
    columns: u32,
    /// Of 32 in the 8-bit form, the zero ones at the end included; 0 without that form.
    groups: u32,
    activation_bytes: u32,
    /// Rows of 8-bit activations for each token.
    terms: u32,
    has_bias: u32,
    /// Whether `f32` activations may be taken four at a time.
    aligned: u32,
}

/// The kernel for so many rows of input, and how many of them one of its simdgroups takes.
fn choose(quantized: bool, inputs: usize) -> (&'static str, u32) {
    match (quantized, inputs) {
        (true, ..=1) => ("i8x1", 1),
        (true, 2) => ("i8x2", 2),
        (true, _) => ("i8x8", 8),
        (false, ..=1) => ("f32x1", 1),
        (false, _) => ("f32x8", 8),
    }
}

/// Records a product.
pub(super) fn matmul(
    encoder: &mut CommandEncoder,
    prepared: &Prepared<'_>,
    (weight, layout): (&Weight, MlxType),
    output: &MlxBuffer,
    bias: Option<&MlxBuffer>,
) -> Result<()> {
    let Prepared { check, input, values, problem, .. } = prepared;
    let inputs = problem.tokens.saturating_mul(problem.terms);
    if inputs >= UNPACKED_INPUTS {
        // The pool is only where the encoder takes its scratch from.
        let unpacked = encoder.scratch(&mut MlxBufferPool::new(), DType::F32, &[problem.rows, problem.columns])?;
        gather_rows::mlx::all_rows(encoder, weight, &unpacked)?;
        let unpacked = Weight::new(unpacked, TensorType::Dense(DType::F32), problem.rows, problem.columns)?;
        let input = MatmulInput { values, quantized: None };
        return super::super::matmul(encoder, input, &unpacked, output, bias);
    }
    let quantized = if problem.quantized_input { QuantizedLayout::new(problem.columns) } else { None };
    let block = Block {
        tokens: check.u32("input rows", problem.tokens)?,
        rows: check.u32("weight rows", problem.rows)?,
        columns: check.u32("columns", problem.columns)?,
        groups: check.u32("groups", quantized.map_or(0, |layout| layout.groups))?,
        activation_bytes: check.u32("activation bytes", quantized.map_or(0, |layout| layout.row_bytes))?,
        terms: check.u32("terms", problem.terms)?,
        has_bias: u32::from(bias.is_some()),
        aligned: u32::from(launch::vector_columns(problem.columns, &[*input]) > 0),
    };
    let at = weight.data().byte_offset();
    check.that(at.is_multiple_of(16), format_args!("a matrix begins at byte {at}, a GPU needs a multiple of 16"))?;
    let (variant, together) = choose(problem.quantized_input, inputs);
    let inputs = check.u32("rows of input", inputs)?;
    let launch = Launch {
        groups: [block.rows.div_ceil(SIMDGROUPS), inputs.div_ceil(together), 1],
        threads_per_group: 32 * SIMDGROUPS,
        items: problem.rows,
        items_per_chunk: 1,
    };
    let key = KernelKey { operation: "matmul", element: TensorType::Mlx(layout), variant };
    let kernel = launch::gpu_kernel(encoder, *check, key, GPU)?;
    let [packed, scales, biases] = buffers(weight);
    // Without a bias the kernel reads nothing from its place.
    let bias = bias.unwrap_or(input);
    let bindings = [read(input), read(packed), read(scales), read(biases), write(output), read(bias)];
    encoder.dispatch(&kernel, &bindings, &block, launch)
}
