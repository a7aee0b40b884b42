//! File formats and weight layouts as pure functions of bytes.
//!
//! Nothing here opens a file, allocates device memory or knows a device: callers bring the bytes
//! (usually a memory map) and get back descriptions that point into them.
//!
//! * [`gguf`] reads and writes GGUF files.
//! * [`safetensors`] reads safetensors files, alone or in shards.
//! * [`mlx`] describes MLX's packed matrices.
//! * [`quant`] describes block-quantised layouts and holds their reference conversions.
//! * [`DType`] names the plain element types that buffers hold.

mod dtype;
mod error;
pub mod gguf;
pub mod mlx;
mod nearest;
mod printable;
pub mod quant;
pub mod safetensors;
mod stream;
mod tensor_bytes;

pub use dtype::DType;
pub use error::FormatError;
pub use quant::{QuantType, TensorType};
pub use stream::WriteError;
