//! How the elements of a stored tensor are encoded.

use std::fmt;

use super::QuantType;
use crate::{DType, FormatError, mlx::MlxType};

/// The encoding of a stored tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// One plain element after the other.
    Dense(DType),
    /// Blocks that share scales.
    Quantized(QuantType),
    /// Codes of an MLX matrix, whose scales and biases are tensors of their own; a block is a group. GGUF has no such
    /// tensors.
    Mlx(MlxType),
}

impl TensorType {
    /// The type with this number in ggml and GGUF; `None` for a number that is unknown, or known (see
    /// [`ggml_type_name`]) but not read here.
    pub const fn from_ggml_id(id: u32) -> Option<TensorType> {
        let dtype = match id {
            0 => DType::F32,
            1 => DType::F16,
            24 => DType::I8,
            25 => DType::I16,
            26 => DType::I32,
            27 => DType::I64,
            28 => DType::F64,
            30 => DType::BF16,
            _ => {
                return match QuantType::from_ggml_id(id) {
                    Some(quant) => Some(TensorType::Quantized(quant)),
                    None => None,
                };
            }
        };
        Some(TensorType::Dense(dtype))
    }

    /// Number of the type in ggml and GGUF; `None` for unsigned integers and MLX's layouts, which ggml lacks.
    pub const fn ggml_id(self) -> Option<u32> {
        Some(match self {
            TensorType::Quantized(quant) => quant.ggml_id(),
            TensorType::Dense(DType::F32) => 0,
            TensorType::Dense(DType::F16) => 1,
            TensorType::Dense(DType::I8) => 24,
            TensorType::Dense(DType::I16) => 25,
            TensorType::Dense(DType::I32) => 26,
            TensorType::Dense(DType::I64) => 27,
            TensorType::Dense(DType::F64) => 28,
            TensorType::Dense(DType::BF16) => 30,
            TensorType::Dense(DType::U8 | DType::U16 | DType::U32) | TensorType::Mlx(_) => return None,
        })
    }

    /// Name as ggml spells it: `F32`, `Q4_K`, ..; `MLX` for all of MLX's layouts, which [`Display`](fmt::Display) tells
    /// apart.
    pub const fn name(self) -> &'static str {
        match self {
            TensorType::Quantized(quant) => quant.name(),
            TensorType::Mlx(_) => "MLX",
            TensorType::Dense(DType::F32) => "F32",
            TensorType::Dense(DType::F16) => "F16",
            TensorType::Dense(DType::BF16) => "BF16",
            TensorType::Dense(DType::F64) => "F64",
            TensorType::Dense(DType::U8) => "U8",
            TensorType::Dense(DType::U16) => "U16",
            TensorType::Dense(DType::U32) => "U32",
            TensorType::Dense(DType::I8) => "I8",
            TensorType::Dense(DType::I16) => "I16",
            TensorType::Dense(DType::I32) => "I32",
            TensorType::Dense(DType::I64) => "I64",
        }
    }

    /// Elements in one block; 1 for dense types.
    pub const fn block_len(self) -> usize {
        match self {
            TensorType::Dense(_) => 1,
            TensorType::Quantized(quant) => quant.block_len(),
            TensorType::Mlx(layout) => layout.group_len(),
        }
    }

    /// Bytes of one block: the element size of dense types, the codes of a group of MLX's.
    pub const fn block_bytes(self) -> usize {
        match self {
            TensorType::Dense(dtype) => dtype.size_of(),
            TensorType::Quantized(quant) => quant.block_bytes(),
            TensorType::Mlx(layout) => layout.group_bytes(),
        }
    }

    /// Bytes that `elements` consecutive elements take.
    ///
    /// # Errors
    /// When `elements` is no multiple of the block length, or the bytes pass `u64`.
    pub fn byte_len(self, elements: u64) -> Result<u64, FormatError> {
        match self {
            TensorType::Quantized(quant) => quant.byte_len(elements),
            TensorType::Mlx(layout) => {
                let groups = layout.quantization().groups(elements)?;
                groups.checked_mul(layout.group_bytes() as u64).ok_or_else(|| FormatError::InvalidArgument {
                    operation: "byte length",
                    message: format!("{self}: the bytes of {elements} elements pass 2^64"),
                })
            }
            TensorType::Dense(dtype) => {
                elements.checked_mul(dtype.size_of() as u64).ok_or_else(|| FormatError::InvalidArgument {
                    operation: "byte length",
                    message: format!("{self}: the bytes of {elements} elements pass 2^64"),
                })
            }
        }
    }
}

impl From<DType> for TensorType {
    fn from(dtype: DType) -> Self {
        TensorType::Dense(dtype)
    }
}

impl From<QuantType> for TensorType {
    fn from(quant: QuantType) -> Self {
        TensorType::Quantized(quant)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorType::Mlx(layout) => layout.fmt(f),
            _ => f.write_str(self.name()),
        }
    }
}

/// Name of any type number that ggml has given out, read here or not.
///
/// Source: `enum ggml_type`, <https://github.com/ggml-org/ggml/blob/master/include/ggml.h>.
pub const fn ggml_type_name(id: u32) -> Option<&'static str> {
    if let Some(known) = TensorType::from_ggml_id(id) {
        return Some(known.name());
    }
    Some(match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        _ => return None,
    })
}
