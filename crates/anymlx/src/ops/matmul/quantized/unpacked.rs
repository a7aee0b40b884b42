//! Weights brought into one plain form first: every type whose blocks no method reads at once.
//!
//! A row becomes a sequence of 32 codes with their factors, in memory of the thread; the methods for that form multiply it.

use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

use super::unpack::Unpack;
use crate::{
    CpuLevel,
    ops::matmul::part::{MultiplyQuantized, Part, QuantizedTokens, ROWS, Sums},
};

/// 32 elements: element `i` is `scales[i / (32 / N)] * codes[i] + minimums[i / (32 / N)]`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::ops::matmul) struct Unpacked<const N: usize> {
    pub(in crate::ops::matmul) codes: [i8; 32],
    pub(in crate::ops::matmul) scales: [f32; N],
    pub(in crate::ops::matmul) minimums: [f32; N],
}

// SAFETY: zeros are codes and factors.
unsafe impl<const N: usize> Zeroable for Unpacked<N> {}
// SAFETY: arrays of plain numbers, of 32, 4 N and 4 N bytes aligned to 4: there is no padding.
unsafe impl<const N: usize> Pod for Unpacked<N> {}

impl<const N: usize> Unpack for Unpacked<N> {
    const LEN: usize = 32;
    const GROUP: usize = 32 / N;
    const HAS_MINIMUMS: bool = true;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        codes[..32].copy_from_slice(&self.codes);
        scales[..N].copy_from_slice(&self.scales);
        minimums[..N].copy_from_slice(&self.minimums);
    }
}

thread_local! {
    /// Rows in the plain form; as large as the longest part that this thread has multiplied.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Gives `work` memory for `count` elements of the plain form, with any contents.
pub(in crate::ops::matmul) fn with_scratch<T: Pod>(count: usize, work: impl FnOnce(&mut [T])) {
    SCRATCH.with_borrow_mut(|scratch| {
        let words = (count * size_of::<T>()).div_ceil(size_of::<f32>());
        if scratch.len() < words {
            scratch.resize(words, 0.0);
        }
        work(&mut bytemuck::cast_slice_mut(&mut scratch[..words])[..count]);
    });
}

/// Rows that are unpacked together: all of a part where the multiplying method lays them out side by side, else one, which
/// stays in the first-level cache.
fn rows_together(tiled: bool) -> usize {
    if tiled { ROWS } else { 1 }
}

/// Multiplies with `multiply`, a method for `Unpacked<N>`, what `fill` unpacks: rows of the part from the one given.
///
/// # Safety
/// As `multiply` demands.
#[inline(always)]
pub(in crate::ops::matmul) unsafe fn multiply_rows<const N: usize>(
    rows: usize,
    columns: usize,
    tiled: bool,
    multiply: MultiplyQuantized,
    tokens: &QuantizedTokens<'_>,
    sums: &mut [Sums],
    mut fill: impl FnMut(usize, &mut [Unpacked<N>]),
) {
    let blocks = columns / 32;
    let together = rows_together(tiled).min(rows);
    with_scratch(together * blocks, |scratch: &mut [Unpacked<N>]| {
        let mut results = [[0.0; ROWS]; crate::ops::matmul::select::MAX_TOKEN_BLOCK];
        for first in (0..rows).step_by(together) {
            let count = together.min(rows - first);
            for (row, blocks) in scratch.chunks_exact_mut(blocks).take(count).enumerate() {
                fill(first + row, blocks);
            }
            let unpacked = Part {
                weights: bytemuck::cast_slice(&scratch[..count * blocks]),
                row_bytes: blocks * size_of::<Unpacked<N>>(),
                columns,
            };
            let results = &mut results[..sums.len()];
            results.fill([0.0; ROWS]);
            // SAFETY: as the caller vouches.
            unsafe { multiply(&unpacked, tokens, results) };
            for (sums, results) in sums.iter_mut().zip(results) {
                for (sum, result) in sums[first..].iter_mut().zip(&results[..count]) {
                    *sum += result;
                }
            }
        }
    });
}

/// One row of blocks in the plain form.
#[inline(always)]
fn unpack_row<U: Unpack, const N: usize>(weights: &[u8], unpacked: &mut [Unpacked<N>]) {
    let blocks: &[U] = bytemuck::cast_slice(weights);
    let (mut codes, mut scales, mut minimums) = ([0; 256], [0.0; 16], [0.0; 16]);
    for (block, unpacked) in blocks.iter().zip(unpacked.chunks_exact_mut(U::LEN / 32)) {
        block.unpack(&mut codes[..U::LEN], &mut scales[..U::LEN / U::GROUP], &mut minimums[..U::LEN / U::GROUP]);
        let factors = scales.as_chunks::<N>().0.iter().zip(minimums.as_chunks::<N>().0);
        for ((unpacked, codes), (scales, minimums)) in unpacked.iter_mut().zip(codes.as_chunks::<32>().0).zip(factors) {
            *unpacked = Unpacked { codes: *codes, scales: *scales, minimums: *minimums };
        }
    }
}

/// The body of every level's method for blocks `U`.
#[inline(always)]
unsafe fn multiply_blocks<U: Unpack, const TILED: bool>(
    level: CpuLevel,
    part: &Part<'_>,
    tokens: &QuantizedTokens<'_>,
    sums: &mut [Sums],
) {
    let rows = part.weights.len() / part.row_bytes;
    let weights = |row: usize| &part.weights[row * part.row_bytes..(row + 1) * part.row_bytes];
    // SAFETY: the caller runs on a processor that has the level.
    unsafe {
        if U::GROUP == 16 {
            let multiply = super::plain_method::<2>(level, TILED);
            multiply_rows::<2>(rows, part.columns, TILED, multiply, tokens, sums, |row, unpacked| {
                unpack_row::<U, 2>(weights(row), unpacked);
            });
        } else {
            let multiply = super::plain_method::<1>(level, TILED);
            multiply_rows::<1>(rows, part.columns, TILED, multiply, tokens, sums, |row, unpacked| {
                unpack_row::<U, 1>(weights(row), unpacked);
            });
        }
    }
}

/// The method for blocks `U` that goes by way of the plain form.
pub(super) fn method<U: Unpack>(level: CpuLevel, tiled: bool) -> MultiplyQuantized {
    match (level, tiled) {
        (CpuLevel::Scalar, _) => scalar::<U>,
        #[cfg(target_arch = "x86_64")]
        (CpuLevel::Avx2, false) => avx2::<U, false>,
        #[cfg(target_arch = "x86_64")]
        (CpuLevel::Avx2, true) => avx2::<U, true>,
        #[cfg(target_arch = "x86_64")]
        (CpuLevel::Avx512, false) => avx512::<U, false>,
        #[cfg(target_arch = "x86_64")]
        (CpuLevel::Avx512, true) => avx512::<U, true>,
        #[cfg(not(target_arch = "x86_64"))]
        _ => scalar::<U>,
    }
}

/// # Safety
/// None is needed.
unsafe fn scalar<U: Unpack>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    // SAFETY: every processor has this level.
    unsafe { super::portable::multiply::<U>(part, tokens, sums) }
}

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<U: Unpack, const TILED: bool>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    // SAFETY: as the caller vouches.
    unsafe { multiply_blocks::<U, TILED>(CpuLevel::Avx2, part, tokens, sums) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn avx512<U: Unpack, const TILED: bool>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    // SAFETY: as the caller vouches.
    unsafe { multiply_blocks::<U, TILED>(CpuLevel::Avx512, part, tokens, sums) }
}
