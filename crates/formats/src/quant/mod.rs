//! Block-quantised layouts and their reference conversions.
//!
//! A quantised row is a sequence of blocks; a block holds [`QuantType::block_len`] consecutive elements in
//! [`QuantType::block_bytes`] bytes. Each layout has one file here with its struct, its maths and both directions.
//! Everything is scalar and exact: these conversions are what faster kernels are compared with.
//!
//! A new layout is a new file that implements [`Block`], and [`QuantizeBlock`] where it can be made here, and one row in the table of [`QuantType`].
//!
//! Layouts are those of ggml: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.

mod affine;
mod block;
mod codebook;
mod dense;
mod fit;
pub mod fp4;
pub mod grid;
mod half_bytes;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod nvfp4;
mod packing;
mod q1_0;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod q8_k;
mod symmetric;
mod tensor_type;
mod tq1_0;
mod tq2_0;

pub use block::{Block, QuantizeBlock};
pub use codebook::IQ4_LEVELS;
pub use grid::{BlockIQ1M, BlockIQ1S, BlockIQ2S, BlockIQ2XS, BlockIQ2XXS, BlockIQ3S, BlockIQ3XXS};
pub use half_bytes::HalfBytes;
pub use iq4_nl::BlockIQ4NL;
pub use iq4_xs::BlockIQ4XS;
pub use mxfp4::BlockMXFP4;
pub use nvfp4::BlockNVFP4;
pub use packing::unpack_k4_scale_min;
pub use q1_0::BlockQ1_0;
pub use q2_0::BlockQ2_0;
pub use q2_k::BlockQ2K;
pub use q3_k::{BlockQ3K, unpack_q3_k_scales};
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5K;
pub use q6_k::BlockQ6K;
pub use q8_0::BlockQ8_0;
pub use q8_k::BlockQ8K;
pub use tensor_type::{TensorType, ggml_type_name};
pub use tq1_0::BlockTQ1_0;
pub use tq2_0::BlockTQ2_0;

use std::fmt;

use crate::FormatError;

/// Elements in a block of the `_K` layouts.
pub const K_BLOCK_LEN: usize = 256;

/// See [`block::quantize_all`].
type Quantizer = fn(&[f32], &[f32], &mut [u8]) -> Result<(), usize>;

macro_rules! quantizer {
    (read_write, $block:ty) => {
        Some(block::quantize_all::<$block>)
    };
    (read_only, $block:ty) => {
        None
    };
}

macro_rules! quant_types {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $block:ty, $directions:ident;)*) => {
        /// A block-quantised layout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        #[non_exhaustive]
        pub enum QuantType {
            $($(#[$doc])* $name,)*
        }

        impl QuantType {
            /// Every layout, in order of its ggml number.
            pub const ALL: &'static [QuantType] = &[$(QuantType::$name),*];

            /// Elements in one block.
            pub const fn block_len(self) -> usize {
                match self { $(QuantType::$name => block::len_of::<$block>(),)* }
            }

            /// Bytes of one block.
            pub const fn block_bytes(self) -> usize {
                match self { $(QuantType::$name => size_of::<$block>(),)* }
            }

            /// Name as ggml spells it: `Q4_K`, ..
            pub const fn name(self) -> &'static str {
                match self { $(QuantType::$name => stringify!($name),)* }
            }

            /// Number of the type in ggml and GGUF.
            pub const fn ggml_id(self) -> u32 {
                match self { $(QuantType::$name => $id,)* }
            }

            /// The layout with this number in ggml and GGUF.
            pub const fn from_ggml_id(id: u32) -> Option<QuantType> {
                match id { $($id => Some(QuantType::$name),)* _ => None }
            }
        }

        fn dequantize_blocks(quant: QuantType, bytes: &[u8], values: &mut [f32]) {
            match quant { $(QuantType::$name => block::dequantize_all::<$block>(bytes, values),)* }
        }

        const fn quantizer(quant: QuantType) -> Option<Quantizer> {
            match quant { $(QuantType::$name => quantizer!($directions, $block),)* }
        }
    };
}

quant_types! {
    /// 4 bits, scale per 32.
    Q4_0 = 2, BlockQ4_0, read_write;
    /// 4 bits, scale and minimum per 32.
    Q4_1 = 3, BlockQ4_1, read_write;
    /// 5 bits, scale per 32.
    Q5_0 = 6, BlockQ5_0, read_write;
    /// 5 bits, scale and minimum per 32.
    Q5_1 = 7, BlockQ5_1, read_write;
    /// 8 bits, scale per 32.
    Q8_0 = 8, BlockQ8_0, read_write;
    /// 2 bits; 4-bit scale and minimum per 16 in blocks of 256.
    Q2_K = 10, BlockQ2K, read_write;
    /// 3 bits; 6-bit scale per 16 in blocks of 256.
    Q3_K = 11, BlockQ3K, read_write;
    /// 4 bits; 6-bit scale and minimum per 32 in blocks of 256.
    Q4_K = 12, BlockQ4K, read_write;
    /// 5 bits; 6-bit scale and minimum per 32 in blocks of 256.
    Q5_K = 13, BlockQ5K, read_write;
    /// 6 bits; 8-bit scale per 16 in blocks of 256.
    Q6_K = 14, BlockQ6K, read_write;
    /// 8 bits, 32-bit scale per 256 and sums per 16.
    Q8_K = 15, BlockQ8K, read_write;
    /// 2.06 bits; points of 8 elements, 4-bit scale per 32 in blocks of 256.
    IQ2_XXS = 16, BlockIQ2XXS, read_only;
    /// 2.31 bits; points of 8 elements, 4-bit scale per 16 in blocks of 256.
    IQ2_XS = 17, BlockIQ2XS, read_only;
    /// 3.06 bits; points of 4 elements, 4-bit scale per 32 in blocks of 256.
    IQ3_XXS = 18, BlockIQ3XXS, read_only;
    /// 1.56 bits; points of 8 elements, 3-bit scale per 32 in blocks of 256.
    IQ1_S = 19, BlockIQ1S, read_only;
    /// 4 bits for unevenly spaced levels, scale per 32.
    IQ4_NL = 20, BlockIQ4NL, read_write;
    /// 3.44 bits; points of 4 elements, 4-bit scale per 32 in blocks of 256.
    IQ3_S = 21, BlockIQ3S, read_only;
    /// 2.56 bits; points of 8 elements, 4-bit scale per 16 in blocks of 256.
    IQ2_S = 22, BlockIQ2S, read_only;
    /// 4 bits for unevenly spaced levels; 6-bit scale per 32 in blocks of 256.
    IQ4_XS = 23, BlockIQ4XS, read_write;
    /// 1.75 bits; points of 8 elements, 3-bit scale per 16 in blocks of 256.
    IQ1_M = 29, BlockIQ1M, read_only;
    /// -1, 0 or 1, five to a byte, scale per 256.
    TQ1_0 = 34, BlockTQ1_0, read_write;
    /// -1, 0 or 1, four to a byte, scale per 256.
    TQ2_0 = 35, BlockTQ2_0, read_write;
    /// 4-bit floating point, scale per 32 a power of two.
    MXFP4 = 39, BlockMXFP4, read_write;
    /// 4-bit floating point, 8-bit floating-point scale per 16 in blocks of 64.
    NVFP4 = 40, BlockNVFP4, read_write;
    /// A sign, scale per 128.
    Q1_0 = 41, BlockQ1_0, read_write;
    /// 2 bits, scale per 64.
    Q2_0 = 42, BlockQ2_0, read_write;
}

impl QuantType {
    /// True when [`quantize`] can make this layout; `IQ1_*`, `IQ2_*` and `IQ3_*` are read only.
    pub const fn can_quantize(self) -> bool {
        quantizer(self).is_some()
    }

    /// Bytes that `elements` consecutive elements take.
    ///
    /// # Errors
    /// When `elements` is no multiple of the block length, or the bytes pass `u64`.
    pub fn byte_len(self, elements: u64) -> Result<u64, FormatError> {
        let block_len = self.block_len() as u64;
        if !elements.is_multiple_of(block_len) {
            return Err(FormatError::InvalidArgument {
                operation: "byte length",
                message: format!("{self}: {elements} elements given, a multiple of {block_len} is needed"),
            });
        }
        (elements / block_len).checked_mul(self.block_bytes() as u64).ok_or_else(|| FormatError::InvalidArgument {
            operation: "byte length",
            message: format!("{self}: the bytes of {elements} elements pass 2^64"),
        })
    }
}

impl fmt::Display for QuantType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Converts stored elements to `f32`.
///
/// `bytes` holds exactly `values.len()` elements of `tensor_type`, at any alignment, little-endian. Quantised layouts
/// give the bits that PyPI `gguf`'s `quants.dequantize` gives; `f64` and integers are rounded to the nearest `f32`.
///
/// # Errors
/// When the two lengths do not agree, or `values.len()` is no multiple of the block length.
pub fn dequantize(tensor_type: impl Into<TensorType>, bytes: &[u8], values: &mut [f32]) -> Result<(), FormatError> {
    let tensor_type = tensor_type.into();
    check_lengths("dequantize", tensor_type, bytes.len(), values.len())?;
    match tensor_type {
        TensorType::Dense(dtype) => dense::decode(dtype, bytes, values),
        TensorType::Quantized(quant) => {
            dequantize_blocks(quant, bytes, values);
            Ok(())
        }
        TensorType::Mlx(layout) => Err(only_with_scales("dequantize", layout)),
    }
}

/// Converts `f32` to stored elements; the same input gives the same bytes on every machine.
///
/// The `_K` types, `IQ4_NL` and `IQ4_XS` search scales, minima and codes that keep the weighted squared error of each block
/// small (see `affine.rs` and `symmetric.rs`); the others give the bytes of ggml's reference quantiser.
///
/// # Errors
/// When the lengths do not agree; for a dense integer type and one that [`QuantType::can_quantize`] excludes; for a block
/// with a value that is infinite, not a number or too large for the type's scales. (Dense floating-point types round such values as a cast does.)
pub fn quantize(tensor_type: impl Into<TensorType>, values: &[f32], bytes: &mut [u8]) -> Result<(), FormatError> {
    quantize_checked(tensor_type.into(), values, &[], bytes)
}

/// As [`quantize`], for whole rows whose columns matter differently.
///
/// `importance` has one weight for each column, finite and not negative: how much the squared error of that column counts.
/// Layouts with a search use them (all with groups of integers but `Q8_0`, `Q8_K`, `Q1_0`, `Q2_0`, `TQ1_0`, `TQ2_0`);
/// others ignore them. Columns without weight get a millionth of the mean, so that they are stored where it costs nothing.
///
/// # Errors
/// As [`quantize`]; when `importance` is empty, its length is no multiple of the block length or does not divide
/// `values.len()`, or a weight is negative or not finite.
pub fn quantize_weighted(
    tensor_type: impl Into<TensorType>,
    values: &[f32],
    importance: &[f32],
    bytes: &mut [u8],
) -> Result<(), FormatError> {
    let tensor_type = tensor_type.into();
    let columns = importance.len();
    let wrong = |message: String| FormatError::InvalidArgument { operation: "quantize", message };
    if columns == 0 || !values.len().is_multiple_of(columns) || !columns.is_multiple_of(tensor_type.block_len()) {
        return Err(wrong(format!(
            "{tensor_type}: {columns} weights for {} elements given, whole rows of a multiple of {} are needed",
            values.len(),
            tensor_type.block_len()
        )));
    }
    if let Some(at) = importance.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        return Err(wrong(format!("{tensor_type}: the weight of column {at} is {}", importance[at])));
    }
    let mean = (importance.iter().map(|&weight| f64::from(weight)).sum::<f64>() / columns as f64) as f32;
    if mean == 0.0 {
        return quantize_checked(tensor_type, values, &[], bytes);
    }
    let importance: Vec<f32> = importance.iter().map(|weight| (weight / mean).max(1e-6)).collect();
    quantize_checked(tensor_type, values, &importance, bytes)
}

fn quantize_checked(
    tensor_type: TensorType,
    values: &[f32],
    importance: &[f32],
    bytes: &mut [u8],
) -> Result<(), FormatError> {
    check_lengths("quantize", tensor_type, bytes.len(), values.len())?;
    match tensor_type {
        TensorType::Dense(dtype) => dense::encode(dtype, values, bytes),
        TensorType::Mlx(layout) => Err(only_with_scales("quantize", layout)),
        TensorType::Quantized(quant) => {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(FormatError::InvalidArgument {
                    operation: "quantize",
                    message: format!("{quant}: element {at} is {}, finite values are needed", values[at]),
                });
            }
            let Some(quantizer) = quantizer(quant) else {
                return Err(FormatError::InvalidArgument {
                    operation: "quantize",
                    message: format!("{quant} can be read but not made here (of similar size: Q2_K, Q3_K, TQ1_0)"),
                });
            };
            quantizer(values, importance, bytes).map_err(|block| {
                let range = block * quant.block_len()..(block + 1) * quant.block_len();
                let largest = values[range.clone()].iter().fold(0.0f32, |most, value| most.max(value.abs()));
                FormatError::InvalidArgument {
                    operation: "quantize",
                    message: format!(
                        "{quant}: elements {}..{} reach {largest}, which is past the range of the type's scales",
                        range.start, range.end
                    ),
                }
            })
        }
    }
}

fn only_with_scales(operation: &'static str, layout: crate::mlx::MlxType) -> FormatError {
    FormatError::InvalidArgument {
        operation,
        message: format!("{layout}: codes have no values without their scales; see `mlx::dequantize`"),
    }
}

fn check_lengths(
    operation: &'static str,
    tensor_type: TensorType,
    bytes: usize,
    elements: usize,
) -> Result<(), FormatError> {
    let needed = tensor_type.byte_len(elements as u64)?;
    if bytes as u64 != needed {
        return Err(FormatError::InvalidArgument {
            operation,
            message: format!("{tensor_type}: {bytes} bytes given, {elements} elements need {needed} bytes"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
