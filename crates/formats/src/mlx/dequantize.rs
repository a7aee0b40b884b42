//! Reference conversion of packed matrices to `f32`.

use super::small_floats::{e2m1, e4m3, e8m0};
use super::{MlxType, Mode, Quantization};
use crate::{DType, FormatError, quant};

const OPERATION: &str = "mlx dequantise";

/// The bytes of a packed matrix, little-endian, at any alignment.
#[derive(Clone, Copy, Debug)]
pub struct PackedMatrix<'a> {
    /// How elements are packed.
    pub quantization: Quantization,
    /// Elements of a row.
    pub columns: usize,
    /// Codes: the bytes of `NAME.weight`.
    pub packed: &'a [u8],
    /// Scales: the bytes of `NAME.scales`.
    pub scales: &'a [u8],
    /// Type of scales and biases: `f32`, `f16` or `bf16` in affine mode, `u8` in the others.
    pub scale_type: DType,
    /// Biases: the bytes of `NAME.biases`; affine mode only.
    pub biases: Option<&'a [u8]>,
}

/// Converts whole rows to `f32`, row by row.
///
/// Affine: `s q + b` in `f32`, product and sum each rounded once. The other modes: the product of two numbers, rounded once. This
/// is what MLX computes for `f32`; for 16-bit scales MLX itself computes in 16 bits, which loses more.
///
/// # Errors
/// [`FormatError::InvalidArgument`] when lengths, shapes and types do not agree.
pub fn dequantize(matrix: &PackedMatrix<'_>, values: &mut [f32]) -> Result<(), FormatError> {
    let (scales, biases) = matrix.check(values.len())?;
    let layout = matrix.quantization;
    let group_size = layout.group_size() as usize;
    let group_bytes = group_size * layout.bits() as usize / 8;
    let groups = values.chunks_exact_mut(group_size).zip(matrix.packed.chunks_exact(group_bytes));
    for (index, (values, packed)) in groups.enumerate() {
        let codes = Codes::new(packed, layout.bits());
        let codes = values.iter_mut().zip(codes);
        match layout.mode() {
            Mode::Affine => {
                let (scale, bias) = (scales[index], biases[index]);
                codes.for_each(|(value, code)| *value = scale * f32::from(code) + bias);
            }
            Mode::Mxfp4 => {
                let scale = e8m0(matrix.scales[index]);
                codes.for_each(|(value, code)| *value = scale * e2m1(code));
            }
            Mode::Mxfp8 => {
                let scale = e8m0(matrix.scales[index]);
                codes.for_each(|(value, code)| *value = scale * e4m3(code));
            }
            Mode::Nvfp4 => {
                let scale = e4m3(matrix.scales[index]);
                codes.for_each(|(value, code)| *value = scale * e2m1(code));
            }
        }
    }
    Ok(())
}

impl PackedMatrix<'_> {
    /// Checks everything against `elements`; gives the affine scales and biases, which are empty in other modes.
    fn check(&self, elements: usize) -> Result<(Vec<f32>, Vec<f32>), FormatError> {
        let layout = self.quantization;
        let wrong = |message: String| FormatError::InvalidArgument { operation: OPERATION, message };
        layout.groups(self.columns as u64)?;
        if !elements.is_multiple_of(self.columns) {
            return Err(wrong(format!("{elements} elements given, whole rows of {} are needed", self.columns)));
        }
        let groups = elements / layout.group_size() as usize;
        let length = |what: &str, bytes: &[u8], element_bits: usize, count: usize| match count
            .checked_mul(element_bits)
            .map(|bits| bits / 8)
        {
            Some(needed) if needed == bytes.len() => Ok(()),
            needed => Err(wrong(format!(
                "{layout}: {what} of {} bytes given, {} are needed for {elements} elements",
                bytes.len(),
                needed.map_or("too many".to_owned(), |needed| needed.to_string())
            ))),
        };
        length("codes", self.packed, layout.bits() as usize, elements)?;
        let affine = layout.mode().has_biases();
        MlxType::new(layout, self.scale_type)?;
        let scale_bits = 8 * self.scale_type.size_of();
        length("scales", self.scales, scale_bits, groups)?;
        let numbers = |bytes: &[u8]| {
            let mut numbers = vec![0.0; groups];
            quant::dequantize(self.scale_type, bytes, &mut numbers).map(|()| numbers)
        };
        match self.biases {
            Some(biases) if affine => {
                length("biases", biases, scale_bits, groups)?;
                Ok((numbers(self.scales)?, numbers(biases)?))
            }
            None if !affine => Ok((Vec::new(), Vec::new())),
            Some(_) => Err(wrong(format!("{layout}: biases given, the mode has none"))),
            None => Err(wrong(format!("{layout}: no biases given, the mode needs them"))),
        }
    }
}

/// Unsigned integers of up to eight bits from a little-endian stream of bits.
struct Codes<'a> {
    bytes: std::slice::Iter<'a, u8>,
    bits: u32,
    /// Bits that have been read from `bytes` and belong to codes to come.
    buffer: u32,
    buffered: u32,
}

impl<'a> Codes<'a> {
    fn new(bytes: &'a [u8], bits: u32) -> Self {
        Self { bytes: bytes.iter(), bits, buffer: 0, buffered: 0 }
    }
}

impl Iterator for Codes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.buffered < self.bits {
            self.buffer |= u32::from(*self.bytes.next()?) << self.buffered;
            self.buffered += 8;
        }
        let code = self.buffer & ((1 << self.bits) - 1);
        self.buffer >>= self.bits;
        self.buffered -= self.bits;
        Some(code as u8)
    }
}
