//! Both projections of a gated feed-forward layer and their product (Shazeer 2020,
//! <https://arxiv.org/abs/2002.05202>).

#[cfg(test)]
mod tests;

use super::{
    Activation,
    check::Check,
    gated_activation::gated_activation,
    matmul::{MatmulInput, Prepared, cpu::Epilogue, gpu, matmul, mlx},
};
use crate::{CommandEncoder, DType, MlxBuffer, MlxBufferPool, Result, Weight, read, write};

/// `output[t, r] = activation(sum_c input[t, c] * gate[r, c]) * sum_c input[t, c] * up[r, c]`.
///
/// The fusion of two [`matmul`](super::matmul()) and a [`gated_activation`](super::gated_activation()), with their shapes: the
/// input is read once, and the two projections are never stored. `gate` and `up` have the same shape; when one of them is
/// dense, both use the `f32` form of the input.
///
/// # Errors
/// As [`matmul`](super::matmul()), and `InvalidArgument` when the two matrices differ in shape.
pub fn gated_matmul(
    encoder: &mut CommandEncoder,
    input: MatmulInput<'_>,
    gate: &Weight,
    up: &Weight,
    output: &MlxBuffer,
    activation: Activation,
) -> Result<()> {
    let check = Check::new("gated_matmul");
    let prepared = Prepared::new(check, input, &[("gate", gate), ("up", up)], output)?;
    if [gate, up].iter().any(|weight| mlx::layout_of(weight).is_some()) {
        return composite(encoder, input, [gate, up], output, activation);
    }
    if encoder.device().runs_gpu_kernels() {
        // When one matrix is dense, both read the values.
        let input = MatmulInput { quantized: input.quantized.filter(|_| prepared.reads_quantized()), ..input };
        return gpu::gated_matmul(encoder, &prepared, input, [gate, up], output, activation);
    }
    let bindings = [read(prepared.input), read(gate.data()), read(up.data()), write(output)];
    prepared.dispatch(encoder, &bindings, Epilogue::Gate(activation))
}

/// The plain products and the activation.
pub(super) fn composite(
    encoder: &mut CommandEncoder,
    input: MatmulInput<'_>,
    [gate, up]: [&Weight; 2],
    output: &MlxBuffer,
    activation: Activation,
) -> Result<()> {
    // The pool is only where the encoder takes its scratch from.
    let pool = &mut MlxBufferPool::new();
    let projections =
        [encoder.scratch(pool, DType::F32, output.shape())?, encoder.scratch(pool, DType::F32, output.shape())?];
    for (weight, projection) in [gate, up].into_iter().zip(&projections) {
        matmul(encoder, input, weight, projection, None)?;
    }
    gated_activation(encoder, &projections[0], &projections[1], output, activation)
}
