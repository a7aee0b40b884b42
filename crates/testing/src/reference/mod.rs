//! The plainest loops that state the mathematics of each operation, in `f64`.
//!
//! Inputs may be `f32`, `f16`, `bf16` or `f64` slices ([`Real`]); they are read exactly as they are, so a test hands over
//! the very values that the kernel gets. Matrices are row-major; a shape `[m, k]` means `k` is contiguous. Results are
//! `f64`, to be compared with [`Tolerance`](crate::Tolerance).
//!
//! A wrong length panics with both lengths.

mod activation;
mod attention;
mod elementwise;
mod embedding;
mod matmul;
mod norm;
mod rope;
mod sampling;
mod selection;
mod softmax;
mod transpose;

pub use activation::{Activation, erf, gated, gelu_erf, gelu_tanh, silu};
pub use attention::{Attention, attention};
pub use elementwise::{add, add_bias, multiply, scale, softcap};
pub use embedding::gather;
pub use matmul::{MatmulShape, matmul};
pub use norm::{RmsNorm, head_rms_norm, rms_norm};
pub use rope::{Llama3Scaling, Rope, RopeLayout, Yarn, llama3_frequency_factors, rope};
pub use sampling::{Filters, sampling_probabilities};
pub use selection::{argmax, top_k};
pub use softmax::softmax;
pub use transpose::transpose;

/// A number that converts to `f64` without loss: `f16`, `bf16`, `f32`, `f64` and the small integers.
pub trait Real: Copy + Into<f64> {}

impl<T: Copy + Into<f64>> Real for T {}

/// Converts every value to `f64`.
pub fn to_f64<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

/// Converts every value to `f32`, rounding `f64` to the nearest.
pub fn to_f32<T: Real>(values: &[T]) -> Vec<f32> {
    values.iter().map(|&value| value.into() as f32).collect()
}

#[track_caller]
fn expect_len(operation: &str, argument: &str, given: usize, needed: usize) {
    assert!(given == needed, "reference {operation}: {argument} has {given} values, needs {needed}");
}

#[track_caller]
fn expect_rows(operation: &str, argument: &str, given: usize, row: usize) {
    assert!(
        row > 0 && given.is_multiple_of(row),
        "reference {operation}: {argument} has {given} values, not a whole number of rows of {row}"
    );
}
