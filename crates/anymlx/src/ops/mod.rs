//! Operations of transformer models.
//!
//! Every operation takes the encoder, its buffers and a struct of named parameters, checks shapes,
//! dtypes and aliasing, and records commands. Activations are `f32` and row-major, one row for each
//! token unless said otherwise.

/// The text of kernels for GPUs: the files, in order, with their names for the compiler's messages.
macro_rules! gpu_text {
    ($($file:literal),+) => {
        concat!($("#line 1 \"", $file, "\"\n", include_str!($file), "\n"),+)
    };
}

/// The [`StreamTexts`](gpu::stream::StreamTexts) of an operation with a folder of its own.
macro_rules! stream_texts {
    ($($own:literal),+) => {
        crate::ops::gpu::stream::StreamTexts {
            blocks: gpu_text!(
                "../gpu/codes.h", "../gpu/quant.h", "../gpu/quant_codebook.h", "../gpu/activation.h", "../gpu/stream.h", $($own),+
            ),
            mlx: gpu_text!(
                "../gpu/codes.h", "../gpu/quant.h", "../gpu/mlx.h", "../gpu/activation.h", "../gpu/stream.h", $($own),+
            ),
        }
    };
}

pub mod add_rms_norm;
pub mod argmax;
pub mod attention;
mod check;
pub mod copy;
pub mod elementwise;
pub mod feed_forward;
pub mod gated_activation;
pub mod gated_matmul;
pub mod gated_projection;
pub mod gather_rows;
pub mod gpu;
pub mod increment;
pub mod kv_cache_expand;
pub mod kv_cache_quantize;
pub mod kv_cache_write;
pub(crate) mod lanes;
mod launch;
mod math;
pub mod matmul;
mod panel_matmul;
mod panels;
pub mod project;
pub mod project_add;
pub mod project_and_cache;
pub mod quantize_activations;
pub mod rms_norm;
pub mod rope;
pub mod rotate_and_cache;
pub mod sample;
pub mod softmax;
#[cfg(test)]
mod test_data;
#[cfg(test)]
pub(crate) mod test_devices;
#[cfg(test)]
mod test_layers;
pub mod transpose;
#[cfg(test)]
mod weight_types;

pub use add_rms_norm::add_rms_norm;
pub use argmax::argmax;
pub use attention::{AttentionParams, attention};
pub use copy::copy;
pub use elementwise::{add, add_bias, add_in_place, multiply, scale, softcap};
pub use feed_forward::{FeedForward, feed_forward};
pub use gated_activation::{Activation, gated_activation};
pub use gated_matmul::gated_matmul;
pub use gated_projection::gated_projection;
pub use gather_rows::gather_rows;
pub use increment::increment;
pub use kv_cache_expand::kv_cache_expand;
pub use kv_cache_quantize::{kv_cache_quantize, quantized_cache_row_bytes};
pub use kv_cache_write::kv_cache_write;
pub use matmul::{MatmulInput, can_multiply, matmul, reads_8_bit_activations};
pub use panel_matmul::rounds_activations;
pub use project::{LayerInput, Projection, project};
pub use project_add::{PostNorm, project_add};
pub use project_and_cache::{ProjectAndCache, project_and_cache};
pub use quantize_activations::{quantize_activations, quantize_activations_refined, quantized_activation_bytes};
pub use rms_norm::{RmsNormParams, rms_norm, rms_norm_in_place};
pub use rope::{RopeLayout, RopeParams, RopeScaling, rope};
pub use rotate_and_cache::{HeadNorms, RotateAndCache, rotate_and_cache};
pub use sample::{SampleParams, sample};
pub use softmax::softmax;
pub use transpose::transpose;
