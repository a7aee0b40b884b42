//! MLX's quantised matrices, as its checkpoints store them in safetensors files.
//!
//! A quantised layer `NAME` has `NAME.weight`, `[rows, columns * bits / 32]` of `u32`; `NAME.scales`, `[rows, columns /
//! group_size]`; and, in affine mode, `NAME.biases` of the same shape and type as the scales. (`NAME.bias`, where it exists, is
//! the layer's own.) [`Quantization`] describes the layout, [`QuantizationConfig`] is what `config.json` says about it.
//!
//! Sources: the documentation of `mlx.core.quantize`,
//! <https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html>, and PyPI `mlx` 0.32.4, with which
//! everything here is compared.

mod config;
mod dequantize;
mod quantization;
mod quantize;
mod small_floats;

pub use config::QuantizationConfig;
pub use dequantize::{PackedMatrix, dequantize};
pub use quantization::{MlxType, Mode, Quantization};
pub use quantize::{PackedBytes, quantize};
pub use small_floats::{e2m1, e4m3, e8m0};
