//! Packing of matrices in affine mode.

use super::{Mode, Quantization};
use crate::{DType, FormatError, quant};

const OPERATION: &str = "mlx quantise";

/// Smallest scale: groups of equal elements get it.
const LEAST_SCALE: f32 = 1e-7;

/// A packed matrix, as checkpoints store it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PackedBytes {
    /// Codes: the bytes of `NAME.weight`.
    pub packed: Vec<u8>,
    /// Scales: the bytes of `NAME.scales`.
    pub scales: Vec<u8>,
    /// Biases: the bytes of `NAME.biases`.
    pub biases: Vec<u8>,
}

/// Packs whole rows of `columns` elements; appends to `out`.
///
/// Affine mode only. In each group the extreme element of larger magnitude becomes the bias, and the scale is such that zero has
/// a code of its own where it lies between the extremes; for `f32` scales this gives the codes, scales and biases of
/// `mlx.core.quantize`. Codes are chosen for the scales and biases as they are stored, in `f32`, `f16` or `bf16`.
///
/// # Errors
/// [`FormatError::InvalidArgument`] for another mode, a number of elements that is no multiple of `columns` or `columns` that are
/// no multiple of the group size, another type of scales, and elements that are not finite or too large for it.
pub fn quantize(
    quantization: Quantization,
    columns: usize,
    scale_type: DType,
    values: &[f32],
    out: &mut PackedBytes,
) -> Result<(), FormatError> {
    let wrong = |message: String| FormatError::InvalidArgument { operation: OPERATION, message };
    if quantization.mode() != Mode::Affine {
        return Err(wrong(format!("{quantization}: packing is for the affine mode only")));
    }
    quantization.groups(columns as u64)?;
    if !values.len().is_multiple_of(columns) {
        return Err(wrong(format!("{} elements given, whole rows of {columns} are needed", values.len())));
    }
    if !matches!(scale_type, DType::F32 | DType::F16 | DType::BF16) {
        return Err(wrong(format!("scales of {scale_type} asked for, needed f32, f16 or bf16")));
    }
    let group_size = quantization.group_size() as usize;
    for (index, group) in values.chunks_exact(group_size).enumerate() {
        let (scale, bias) = fit(group, quantization.bits());
        let stored = (round_to(scale_type, scale, &mut out.scales)?, round_to(scale_type, bias, &mut out.biases)?);
        if !(group.iter().all(|value| value.is_finite()) && stored.0.is_finite() && stored.1.is_finite()) {
            let row = index * group_size / columns;
            return Err(wrong(format!("{quantization}: row {row} has elements that {scale_type} scales cannot hold")));
        }
        pack(group, stored, quantization.bits(), &mut out.packed);
    }
    Ok(())
}

/// Scale and bias of a group, before they are rounded.
fn fit(group: &[f32], bits: u32) -> (f32, f32) {
    let low = group.iter().copied().fold(f32::INFINITY, f32::min);
    let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let codes = ((1_u32 << bits) - 1) as f32;
    let step = ((high - low) / codes).max(LEAST_SCALE);
    let (edge, step) = if low.abs() > high.abs() { (low, step) } else { (high, -step) };
    // The code of zero, counted from the edge.
    let zero = (edge / step).round_ties_even();
    if zero == 0.0 { (step, 0.0) } else { (edge / zero, edge) }
}

/// Appends `value` in `dtype` and gives back what it has become.
fn round_to(dtype: DType, value: f32, out: &mut Vec<u8>) -> Result<f32, FormatError> {
    let start = out.len();
    out.resize(start + dtype.size_of(), 0);
    quant::quantize(dtype, &[value], &mut out[start..])?;
    let mut stored = [0.0];
    quant::dequantize(dtype, &out[start..], &mut stored)?;
    Ok(stored[0])
}

/// Appends the codes of a group: one little-endian stream of bits.
fn pack(group: &[f32], (scale, bias): (f32, f32), bits: u32, out: &mut Vec<u8>) {
    let highest = ((1_u32 << bits) - 1) as f32;
    let (mut buffer, mut buffered) = (0_u32, 0);
    for &value in group {
        // A scale that has become zero leaves no choice.
        let code = ((value - bias) / scale).round_ties_even().clamp(0.0, highest);
        buffer |= (code as u32) << buffered;
        buffered += bits;
        while buffered >= 8 {
            out.push(buffer as u8);
            buffer >>= 8;
            buffered -= 8;
        }
    }
    debug_assert_eq!(buffered, 0, "groups are whole bytes");
}
