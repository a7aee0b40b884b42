//! AVX-512 with VNNI. Its intrinsics need Rust 1.89.
#![allow(clippy::incompatible_msrv)]

use std::arch::x86_64::*;

use super::{
    encoding::Level,
    panel::Panel,
    tile::{Kernel, Panelled, Tokens},
};
use crate::ops::{matmul::part::ROWS, quantize_activations::STEP_RATIO};

pub(super) struct Avx512;

impl Level for Avx512 {
    #[inline(always)]
    unsafe fn dot(codes: __m256i, quants: __m256i) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe { _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, quants) }
    }

    #[inline(always)]
    unsafe fn dot_signed(codes: __m256i, quants: __m256i) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe {
            let signed = _mm256_sign_epi8(quants, codes);
            _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_abs_epi8(codes), signed)
        }
    }

    #[inline(always)]
    unsafe fn dot_words(sum: __m256i, codes: __m256i, quants: __m256i) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe { _mm256_dpwssd_epi32(sum, codes, quants) }
    }

    #[inline(always)]
    unsafe fn dot_steps(codes: __m256i, coarse: __m256i, fine: __m256i) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe {
            let coarse = _mm256_slli_epi32::<{ STEP_RATIO.ilog2() as i32 }>(Self::dot(codes, coarse));
            _mm256_dpbusd_epi32(coarse, codes, fine)
        }
    }

    #[inline(always)]
    unsafe fn fifth_bits(bits: u32) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe { _mm256_maskz_set1_epi8(bits, 16) }
    }
}

impl Kernel for Avx512 {
    const TOKENS: usize = 8;

    #[inline(always)]
    unsafe fn accumulate<P: Panelled, const T: usize>(
        panel: &Panel,
        groups: usize,
        tokens: &Tokens<'_, T>,
        sums: &mut [[f32; ROWS]; T],
    ) {
        const { assert!(!P::SIGNED && ROWS == 16) };
        let quads = P::GROUP / 4;
        let codes_of = panel.codes.as_ptr().cast::<u8>();
        let (scales_of, minimums_of) = (panel.scales.as_ptr().cast::<f32>(), panel.minimums.as_ptr().cast::<f32>());
        // SAFETY: the caller vouches for the level and the groups; the panel has as many.
        unsafe {
            let mut totals = [_mm512_setzero_ps(); T];
            for t in 0..T {
                totals[t] = _mm512_loadu_ps(sums[t].as_ptr());
            }
            for group in 0..groups * 32 / P::GROUP {
                let mut products = [_mm512_setzero_si512(); T];
                if P::OFFSET != 0 {
                    for t in 0..T {
                        products[t] = _mm512_set1_epi32(*tokens.starts[t].get_unchecked(group));
                    }
                }
                for quad in group * quads..(group + 1) * quads {
                    let codes = _mm512_load_si512(codes_of.add(4 * ROWS * quad).cast());
                    for t in 0..T {
                        let quants = _mm512_set1_epi32(tokens.quants[t].add(4 * quad).cast::<i32>().read_unaligned());
                        products[t] = _mm512_dpbusd_epi32(products[t], codes, quants);
                    }
                }
                let scales = _mm512_load_ps(scales_of.add(group * ROWS));
                for t in 0..T {
                    let token_scale = _mm512_set1_ps(*tokens.scales[t].add(group * P::GROUP / 32));
                    let scale = _mm512_mul_ps(scales, token_scale);
                    totals[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[t]), scale, totals[t]);
                }
                if P::HAS_MINIMUMS {
                    let minimums = _mm512_load_ps(minimums_of.add(group * ROWS));
                    for t in 0..T {
                        let scaled_sum = _mm512_set1_ps(*tokens.scaled_sums[t].get_unchecked(group));
                        totals[t] = _mm512_fmadd_ps(minimums, scaled_sum, totals[t]);
                    }
                }
            }
            for t in 0..T {
                _mm512_storeu_ps(sums[t].as_mut_ptr(), totals[t]);
            }
        }
    }
}
