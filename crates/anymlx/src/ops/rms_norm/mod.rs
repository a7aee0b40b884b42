//! Root-mean-square normalisation (Zhang and Sennrich 2019, <https://arxiv.org/abs/1910.07467>).

mod cpu;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::check::Check;
use crate::{CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, TensorType, read, registry::BuiltIn, write};

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
    epsilon: f32,
    weight_offset: f32,
}

/// `output[r, c] = input[r, c] / sqrt(mean_c(input[r, c]²) + epsilon) * (weight[c] + weight_offset)`.
///
/// `input` and `output` are `f32` `[.., columns]` of the same shape, `weight` is `f32` `[columns]`.
/// Sums are taken in `f32` over at least 8 independent partial sums.
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
    for (name, buffer) in [("input", input), ("weight", weight), ("output", output)] {
        check.dtype(name, buffer, &[DType::F32])?;
    }
    let (rows, columns) = check.rows("input", input)?;
    check.shape("weight", weight, &[columns])?;
    check.shape("output", output, input.shape())?;
    let block =
        Block { columns: check.u32("columns", columns)?, epsilon: params.epsilon, weight_offset: params.weight_offset };
    let key = KernelKey { operation: "rms_norm", element: TensorType::Dense(DType::F32), variant: "" };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: "", cpu: cpu::KERNEL })?;
    let launch = Launch {
        groups: [check.u32("rows", rows)?, 1, 1],
        threads_per_group: 256,
        items: rows,
        items_per_chunk: (16 * 1024 / columns).max(1),
    };
    encoder.dispatch(&kernel, &[read(input), read(weight), write(output)], &block, launch)
}
