//! Matrices of model weights, dense or quantised.

use anymlx_formats::{
    mlx::{MlxType, Quantization},
    quant::TensorType,
};

use crate::{DType, MlxBuffer, MlxError, Result, buffer::count_elements};

const OPERATION: &str = "weight";

/// A weight matrix of `rows` outputs by `columns` inputs, row-major, in any stored encoding.
///
/// Row `r` holds the weights of output `r`; a quantised row is a whole number of blocks. The bytes
/// are those of the file: nothing is unpacked. A matrix of MLX is three buffers: codes, scales and, in affine mode, biases.
#[derive(Debug, Clone)]
pub struct Weight {
    data: MlxBuffer,
    scales: Option<MlxBuffer>,
    biases: Option<MlxBuffer>,
    encoding: TensorType,
    rows: usize,
    columns: usize,
}

/// The buffers of a matrix as MLX stores it.
#[derive(Debug, Clone)]
pub struct MlxMatrix {
    /// `NAME.weight`: `U32` `[rows, columns * bits / 32]`.
    pub packed: MlxBuffer,
    /// `NAME.scales`: `[rows, columns / group]` of `F32`, `F16` or `BF16` in affine mode, of `U8` in the others.
    pub scales: MlxBuffer,
    /// `NAME.biases`, as the scales; affine mode only.
    pub biases: Option<MlxBuffer>,
    /// How elements are packed.
    pub quantization: Quantization,
}

impl Weight {
    /// A matrix over `data`: a buffer of the encoding's dtype for dense weights, of `U8` for
    /// quantised ones. [`Self::mlx`] makes matrices of MLX.
    ///
    /// # Errors
    /// `InvalidArgument` when the dtype or the byte length does not fit, or a quantised row is not a
    /// whole number of blocks.
    pub fn new(data: MlxBuffer, encoding: TensorType, rows: usize, columns: usize) -> Result<Self> {
        let expected = match encoding {
            TensorType::Dense(dtype) => dtype,
            TensorType::Quantized(_) => DType::U8,
            TensorType::Mlx(_) => {
                let message = format_args!("a {encoding} matrix needs scales beside its codes: use `Weight::mlx`");
                return Err(MlxError::invalid(OPERATION, message));
            }
        };
        if data.dtype() != expected {
            let message = format_args!("a {encoding} matrix needs a buffer of {expected}, given {}", data.dtype());
            return Err(MlxError::invalid(OPERATION, message));
        }
        check_shape(encoding, rows, columns, &data)?;
        Ok(Self { data, scales: None, biases: None, encoding, rows, columns })
    }

    /// A matrix in MLX's layout.
    ///
    /// # Errors
    /// `InvalidArgument` when a dtype, a byte length or the presence of biases does not fit, or a row is not a whole number
    /// of groups.
    pub fn mlx(matrix: MlxMatrix, rows: usize, columns: usize) -> Result<Self> {
        let MlxMatrix { packed, scales, biases, quantization } = matrix;
        let layout = MlxType::new(quantization, scales.dtype())?;
        let encoding = TensorType::Mlx(layout);
        if packed.dtype() != DType::U32 {
            let message = format_args!("{encoding}: codes need a buffer of u32, given {}", packed.dtype());
            return Err(MlxError::invalid(OPERATION, message));
        }
        check_shape(encoding, rows, columns, &packed)?;
        if quantization.mode().has_biases() != biases.is_some() {
            let (needed, given) = if biases.is_some() { ("none", "given") } else { ("them", "not given") };
            let message = format_args!("{encoding}: the mode needs {needed}, biases are {given}");
            return Err(MlxError::invalid(OPERATION, message));
        }
        let groups = rows * (columns / layout.group_len());
        for (name, buffer) in [("scales", Some(&scales)), ("biases", biases.as_ref())] {
            let Some(buffer) = buffer else { continue };
            let needed = groups * layout.scales().size_of();
            if buffer.dtype() != layout.scales() || buffer.data_byte_len() != needed {
                let message = format_args!(
                    "{encoding} matrix [{rows}, {columns}]: {name} need {needed} bytes of {}, given {} of {}",
                    layout.scales(),
                    buffer.data_byte_len(),
                    buffer.dtype()
                );
                return Err(MlxError::invalid(OPERATION, message));
            }
        }
        Ok(Self { data: packed, scales: Some(scales), biases, encoding, rows, columns })
    }

    /// The bytes; the codes of a matrix of MLX.
    pub fn data(&self) -> &MlxBuffer {
        &self.data
    }

    /// The scales of a matrix of MLX.
    pub fn scales(&self) -> Option<&MlxBuffer> {
        self.scales.as_ref()
    }

    /// The biases of a matrix of MLX in affine mode.
    pub fn biases(&self) -> Option<&MlxBuffer> {
        self.biases.as_ref()
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

    /// Bytes of one row of [`Self::data`].
    pub fn row_bytes(&self) -> usize {
        self.columns / self.encoding.block_len() * self.encoding.block_bytes()
    }

    /// As [`MlxBuffer::move_to_huge_pages`], for all buffers of the matrix.
    ///
    /// # Errors
    /// As there.
    pub fn move_to_huge_pages(&self) -> Result<u64> {
        let buffers = [Some(&self.data), self.scales.as_ref(), self.biases.as_ref()];
        buffers.into_iter().flatten().map(MlxBuffer::move_to_huge_pages).sum()
    }

    /// Bytes of the whole matrix, scales and biases included.
    pub fn byte_len(&self) -> u64 {
        let buffers = [Some(&self.data), self.scales.as_ref(), self.biases.as_ref()];
        buffers.into_iter().flatten().map(|buffer| buffer.data_byte_len() as u64).sum()
    }
}

fn check_shape(encoding: TensorType, rows: usize, columns: usize, data: &MlxBuffer) -> Result<()> {
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
    Ok(())
}
