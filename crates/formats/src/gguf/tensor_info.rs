//! What a file says about one tensor.

use crate::{FormatError, TensorType, tensor_bytes};

/// Name, shape, encoding and place of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Extents in GGUF order: `shape[0]` (ggml's `ne[0]`) varies fastest and is the length of a row. Empty for a scalar.
    /// See [`Self::shape_row_major`] for the order of NumPy and PyTorch.
    pub shape: Vec<u64>,
    /// Encoding of the elements.
    pub tensor_type: TensorType,
    /// First byte, counted from the beginning of the file.
    pub offset: u64,
    /// Bytes of data.
    pub byte_len: u64,
}

impl TensorInfo {
    /// Extents with the fastest one last, as NumPy and PyTorch write them: `[rows.., row_len]`.
    pub fn shape_row_major(&self) -> Vec<u64> {
        self.shape.iter().rev().copied().collect()
    }

    /// Elements of one row, the contiguous direction; 1 for a scalar.
    pub fn row_len(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all other extents.
    pub fn rows(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// Number of elements.
    pub fn element_count(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The tensor's bytes within `file`, which is the whole file that described it.
    ///
    /// # Errors
    /// When `file` is shorter than the tensor's end.
    pub fn data<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], FormatError> {
        tensor_bytes::slice(&self.name, self.offset, self.byte_len, file)
    }
}

/// Elements and bytes of a tensor; the error is the rest of a sentence that begins with the tensor's name.
pub(super) fn measure(shape: &[u64], tensor_type: TensorType) -> Result<u64, String> {
    if let Some(at) = shape.iter().position(|&extent| extent == 0) {
        return Err(format!("has shape {shape:?}, extent {at} is 0"));
    }
    // ggml counts elements in `i64`.
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &extent| product.checked_mul(extent))
        .filter(|&elements| i64::try_from(elements).is_ok())
        .ok_or_else(|| format!("has shape {shape:?}, its element count passes 2^63"))?;
    let row_len = shape.first().copied().unwrap_or(1);
    let block_len = tensor_type.block_len() as u64;
    if !row_len.is_multiple_of(block_len) {
        return Err(format!("has rows of {row_len} elements, {tensor_type} needs a multiple of {block_len}"));
    }
    tensor_type.byte_len(elements).map_err(|_| format!("has shape {shape:?} of {tensor_type}, its bytes pass 2^64"))
}
