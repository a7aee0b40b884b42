//! Both projections of a gated feed-forward layer and their product (Shazeer 2020,
//! <https://arxiv.org/abs/2002.05202>).

#[cfg(test)]
mod tests;

use super::{
    Activation,
    check::Check,
    matmul::{MatmulInput, Prepared, cpu::Epilogue, gpu},
};
use crate::{CommandEncoder, MlxBuffer, Result, Weight, read, write};

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
    if encoder.device().runs_gpu_kernels() {
        // When one matrix is dense, both read the values.
        let input = MatmulInput { quantized: input.quantized.filter(|_| prepared.reads_quantized()), ..input };
        return gpu::gated_matmul(encoder, &prepared, input, [gate, up], output, activation);
    }
    let bindings = [read(prepared.input), read(gate.data()), read(up.data()), write(output)];
    prepared.dispatch(encoder, &bindings, Epilogue::Gate(activation))
}
