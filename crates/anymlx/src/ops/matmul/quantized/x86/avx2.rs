//! AVX2 with FMA.

use std::arch::x86_64::*;

use super::{
    encoding::Level,
    panel::Panel,
    tile::{Kernel, Panelled, Tokens},
};
use crate::ops::matmul::part::ROWS;

pub(super) struct Avx2;

impl Level for Avx2 {
    #[inline(always)]
    unsafe fn dot(codes: __m256i, quants: __m256i) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(codes, quants), _mm256_set1_epi16(1)) }
    }

    #[inline(always)]
    unsafe fn dot_signed(codes: __m256i, quants: __m256i) -> __m256i {
        // Two products of at most 128 * 127 each do not pass 16 bits.
        // SAFETY: the level has these instructions.
        unsafe { Self::dot(_mm256_abs_epi8(codes), _mm256_sign_epi8(quants, codes)) }
    }

    #[inline(always)]
    unsafe fn fifth_bits(bits: u32) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe {
            let bytes = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits.cast_signed()), bytes);
            let own_bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, own_bit), own_bit);
            _mm256_and_si256(set, _mm256_set1_epi8(16))
        }
    }
}

/// How often sums of two products fit into 16 bits.
const fn additions(max_code: i32) -> usize {
    match 32767 / (2 * 127 * max_code) {
        8.. => 8,
        4..8 => 4,
        2..4 => 2,
        _ => 1,
    }
}

impl Kernel for Avx2 {
    const TOKENS: usize = 4;

    #[inline(always)]
    unsafe fn accumulate<P: Panelled, const T: usize>(
        panel: &Panel,
        groups: usize,
        tokens: &Tokens<T>,
        sums: &mut [[f32; ROWS]; T],
    ) {
        for half in 0..2 {
            // SAFETY: as the caller vouches.
            unsafe { accumulate_half::<P, T>(panel, groups, tokens, sums, 8 * half) };
        }
    }
}

/// Eight rows, from row `first_row`.
#[inline(always)]
unsafe fn accumulate_half<P: Panelled, const T: usize>(
    panel: &Panel,
    groups: usize,
    tokens: &Tokens<T>,
    sums: &mut [[f32; ROWS]; T],
    first_row: usize,
) {
    let quads = P::GROUP / 4;
    let additions = if P::SIGNED { 1 } else { const { additions(P::MAX_CODE) }.min(quads) };
    // SAFETY: the caller vouches for the level and the groups; the panel has as many.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut totals = [_mm256_setzero_ps(); T];
        for (total, sums) in totals.iter_mut().zip(sums.iter()) {
            *total = _mm256_loadu_ps(sums.as_ptr().add(first_row));
        }
        for group in 0..groups * 32 / P::GROUP {
            let mut products = [_mm256_setzero_si256(); T];
            if P::OFFSET != 0 {
                for (product, starts) in products.iter_mut().zip(&tokens.starts) {
                    *product = _mm256_set1_epi32(*starts.get_unchecked(group));
                }
            }
            for first in (group * quads..(group + 1) * quads).step_by(additions) {
                let mut short = [_mm256_setzero_si256(); T];
                for quad in first..first + additions {
                    let codes = _mm256_load_si256(panel.codes.get_unchecked(quad).as_ptr().add(4 * first_row).cast());
                    let magnitudes = if P::SIGNED { _mm256_abs_epi8(codes) } else { codes };
                    for (short, quants) in short.iter_mut().zip(tokens.quants) {
                        let quants = _mm256_set1_epi32(quants.add(4 * quad).cast::<i32>().read_unaligned());
                        let quants = if P::SIGNED { _mm256_sign_epi8(quants, codes) } else { quants };
                        *short = _mm256_add_epi16(*short, _mm256_maddubs_epi16(magnitudes, quants));
                    }
                }
                for (product, short) in products.iter_mut().zip(short) {
                    *product = _mm256_add_epi32(*product, _mm256_madd_epi16(short, ones));
                }
            }
            let scales = _mm256_load_ps(panel.scales.get_unchecked(group).as_ptr().add(first_row));
            for ((total, product), token_scales) in totals.iter_mut().zip(products).zip(tokens.scales) {
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(*token_scales.add(group * P::GROUP / 32)));
                *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), scale, *total);
            }
            if P::HAS_MINIMUMS {
                let minimums = _mm256_load_ps(panel.minimums.get_unchecked(group).as_ptr().add(first_row));
                for (total, scaled) in totals.iter_mut().zip(&tokens.scaled_sums) {
                    *total = _mm256_fmadd_ps(minimums, _mm256_set1_ps(*scaled.get_unchecked(group)), *total);
                }
            }
        }
        for (total, sums) in totals.iter().zip(sums) {
            _mm256_storeu_ps(sums.as_mut_ptr().add(first_row), *total);
        }
    }
}
