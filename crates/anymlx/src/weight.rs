//! Matrices of model weights, dense or quantised.

use anymlx_formats::quant::TensorType;

use crate::{DType, MlxBuffer, MlxError, Result, buffer::count_elements};

/// A weight matrix of `rows` outputs by `columns` inputs, row-major, in any stored encoding.
///
/// Row `r` holds the weights of output `r`; a quantised row is a whole number of blocks. The bytes
/// are those of the file: nothing is unpacked.
#[derive(Debug, Clone)]
pub struct Weight {
    data: MlxBuffer,
    encoding: TensorType,
    rows: usize,
    columns: usize,
}

impl Weight {
    /// A matrix over `data`: a buffer of the encoding's dtype for dense weights, of `U8` for
    /// quantised ones.
    ///
    /// # Errors
    /// `InvalidArgument` when the dtype or the byte length does not fit, or a quantised row is not a
    /// whole number of blocks.
    pub fn new(data: MlxBuffer, encoding: TensorType, rows: usize, columns: usize) -> Result<Self> {
        const OPERATION: &str = "weight";
        let expected = match encoding {
            TensorType::Dense(dtype) => dtype,
            TensorType::Quantized(_) => DType::U8,
        };
        if data.dtype() != expected {
            let message = format_args!("a {encoding} matrix needs a buffer of {expected}, given {}", data.dtype());
            return Err(MlxError::invalid(OPERATION, message));
        }
        if rows == 0 || columns == 0 || !columns.is_multiple_of(encoding.block_len()) {
            let block = encoding.block_len();
            let message = format_args!("[{rows}, {columns}]: the columns of {encoding} come in blocks of {block}");
            return Err(MlxError::invalid(OPERATION, message));
        }
        let elements = count_elements(&[rows, columns]).map(|count| count as u64);
        let needed = elements.and_then(|count| encoding.byte_len(count).ok());
        if needed != Some(data.data_byte_len() as u64) {
            let needed = needed.map_or("too many".to_owned(), |bytes| bytes.to_string());
            let message = format_args!(
                "a {encoding} matrix [{rows}, {columns}] has {needed} bytes, the buffer has {}",
                data.data_byte_len()
            );
            return Err(MlxError::invalid(OPERATION, message));
        }
        Ok(Self { data, encoding, rows, columns })
    }

    /// The bytes.
    pub fn data(&self) -> &MlxBuffer {
        &self.data
    }

    /// How the elements are stored.
    pub fn encoding(&self) -> TensorType {
        self.encoding
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.columns / self.encoding.block_len() * self.encoding.block_bytes()
    }
}
