//! Blocks that are decoded into `f32` rows first, which the method for those multiplies: for types that are not worth a
//! tile of their own.

use anymlx_formats::quant::Block;

use super::{
    ByTile, at_level,
    element::{Blocks, Decode, F32},
};
use crate::{
    CpuLevel,
    ops::matmul::{
        part::{MultiplyValues, Part, Sums},
        quantized::unpacked::with_scratch,
    },
};

/// The method for blocks `B`.
pub(super) fn method<B: Block>(level: CpuLevel) -> MultiplyValues {
    match level {
        CpuLevel::Scalar => scalar::<B>,
        CpuLevel::Avx2 => avx2::<B>,
        CpuLevel::Avx512 => avx512::<B>,
    }
}

/// # Safety
/// None is needed.
unsafe fn scalar<B: Block>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
    // SAFETY: every processor has this level.
    unsafe { multiply::<B>(CpuLevel::Scalar, part, values, sums) }
}

/// # Safety
/// The processor has the level.
unsafe fn avx2<B: Block>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
    // SAFETY: as the caller vouches.
    unsafe { multiply::<B>(CpuLevel::Avx2, part, values, sums) }
}

/// # Safety
/// The processor has the level.
unsafe fn avx512<B: Block>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
    // SAFETY: as the caller vouches.
    unsafe { multiply::<B>(CpuLevel::Avx512, part, values, sums) }
}

/// # Safety
/// The processor has the level.
unsafe fn multiply<B: Block>(level: CpuLevel, part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
    let rows = part.weights.len() / part.row_bytes;
    with_scratch(rows * part.columns, |decoded: &mut [f32]| {
        for (weights, decoded) in part.weight_rows().zip(decoded.chunks_exact_mut(part.columns)) {
            Blocks::<B>::decode(weights, decoded);
        }
        let part = Part { weights: bytemuck::cast_slice(decoded), row_bytes: 4 * part.columns, columns: part.columns };
        // SAFETY: as the caller vouches.
        unsafe { at_level::<ByTile<F32>>(level)(&part, values, sums) };
    });
}
