//! The method of every processor, and what the others are compared with.

use super::unpack::Unpack;
use crate::ops::{
    matmul::part::{Part, QuantizedTokens, Sums},
    quantize_activations::{GROUP, QuantizedRow, SUM_GROUP},
};

/// Columns that are unpacked together: a multiple of every block.
const STEP: usize = 256;

/// Codes and factors of up to [`STEP`] columns of one row.
struct Unpacked {
    codes: [i8; STEP],
    scales: [f32; STEP / SUM_GROUP],
    minimums: [f32; STEP / SUM_GROUP],
}

/// See [`MultiplyQuantized`](crate::ops::matmul::part::MultiplyQuantized).
///
/// # Safety
/// None is needed: the function runs on every processor.
pub(super) unsafe fn multiply<U: Unpack>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    let mut unpacked =
        Unpacked { codes: [0; STEP], scales: [0.0; STEP / SUM_GROUP], minimums: [0.0; STEP / SUM_GROUP] };
    for (row, weights) in part.weight_rows().enumerate() {
        let blocks: &[U] = bytemuck::cast_slice(weights);
        for (step, blocks) in blocks.chunks(STEP / U::LEN).enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                let groups = index * (U::LEN / U::GROUP)..(index + 1) * (U::LEN / U::GROUP);
                block.unpack(
                    &mut unpacked.codes[index * U::LEN..(index + 1) * U::LEN],
                    &mut unpacked.scales[groups.clone()],
                    &mut unpacked.minimums[groups],
                );
            }
            let columns = step * STEP..step * STEP + blocks.len() * U::LEN;
            for (token, sums) in tokens.rows().zip(sums.iter_mut()) {
                let token = QuantizedRow {
                    quants: &token.quants[columns.clone()],
                    scales: &token.scales[columns.start / GROUP..],
                    sums: &token.sums[columns.start / SUM_GROUP..],
                };
                sums[row] +=
                    if U::GROUP == GROUP { dot_by_32::<U>(&unpacked, token) } else { dot_by_16::<U>(&unpacked, token) };
            }
        }
    }
}

#[inline(always)]
fn dot<const N: usize>(codes: &[i8; N], quants: &[i8; N]) -> i32 {
    codes.iter().zip(quants).map(|(&code, &quant)| i32::from(code) * i32::from(quant)).sum()
}

#[inline(always)]
fn dot_by_32<U: Unpack>(weights: &Unpacked, token: QuantizedRow<'_>) -> f32 {
    let groups = weights.codes.as_chunks::<32>().0.iter().zip(token.quants.as_chunks::<32>().0);
    let factors = weights.scales.iter().zip(&weights.minimums);
    let token_factors = token.scales.iter().zip(token.sums.as_chunks::<2>().0);
    let mut sum = 0.0;
    for (((codes, quants), (scale, minimum)), (token_scale, sums)) in groups.zip(factors).zip(token_factors) {
        let mut product = scale * dot(codes, quants) as f32;
        if U::HAS_MINIMUMS {
            product += minimum * (i32::from(sums[0]) + i32::from(sums[1])) as f32;
        }
        sum += token_scale * product;
    }
    sum
}

#[inline(always)]
fn dot_by_16<U: Unpack>(weights: &Unpacked, token: QuantizedRow<'_>) -> f32 {
    let groups = weights.codes.as_chunks::<32>().0.iter().zip(token.quants.as_chunks::<32>().0);
    let factors = weights.scales.as_chunks::<2>().0.iter().zip(weights.minimums.as_chunks::<2>().0);
    let token_factors = token.scales.iter().zip(token.sums.as_chunks::<2>().0);
    let mut sum = 0.0;
    for (((codes, quants), (scales, minimums)), (token_scale, sums)) in groups.zip(factors).zip(token_factors) {
        let mut product = 0.0;
        for (half, (codes, quants)) in codes.as_chunks::<16>().0.iter().zip(quants.as_chunks::<16>().0).enumerate() {
            product += scales[half] * dot(codes, quants) as f32;
            if U::HAS_MINIMUMS {
                product += minimums[half] * f32::from(sums[half]);
            }
        }
        sum += token_scale * product;
    }
    sum
}
