//! AVX-512 with VNNI. Its intrinsics need Rust 1.89.
#![allow(clippy::incompatible_msrv)]

use std::arch::x86_64::*;

use super::{
    encoding::Level,
    panel::Panel,
    tile::{Kernel, Panelled, Tokens},
};
use crate::ops::matmul::part::ROWS;

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
        tokens: &Tokens<T>,
        sums: &mut [[f32; ROWS]; T],
    ) {
        const { assert!(!P::SIGNED && ROWS == 16) };
        let quads = P::GROUP / 4;
        // SAFETY: the caller vouches for the level and the groups; the panel has as many.
        unsafe {
            let mut totals = [_mm512_setzero_ps(); T];
            for (total, sums) in totals.iter_mut().zip(sums.iter()) {
                *total = _mm512_loadu_ps(sums.as_ptr());
            }
            for group in 0..groups * 32 / P::GROUP {
                let mut products = [_mm512_setzero_si512(); T];
                if P::OFFSET != 0 {
                    for (product, starts) in products.iter_mut().zip(&tokens.starts) {
                        *product = _mm512_set1_epi32(*starts.get_unchecked(group));
                    }
                }
                for quad in group * quads..(group + 1) * quads {
                    let codes = _mm512_load_si512(panel.codes.get_unchecked(quad).as_ptr().cast());
                    for (product, quants) in products.iter_mut().zip(tokens.quants) {
                        let quants = _mm512_set1_epi32(quants.add(4 * quad).cast::<i32>().read_unaligned());
                        *product = _mm512_dpbusd_epi32(*product, codes, quants);
                    }
                }
                let scales = _mm512_load_ps(panel.scales.get_unchecked(group).as_ptr());
                for ((total, product), token_scales) in totals.iter_mut().zip(products).zip(tokens.scales) {
                    let token_scale = _mm512_set1_ps(*token_scales.add(group * P::GROUP / 32));
                    let scale = _mm512_mul_ps(scales, token_scale);
                    *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), scale, *total);
                }
                if P::HAS_MINIMUMS {
                    let minimums = _mm512_load_ps(panel.minimums.get_unchecked(group).as_ptr());
                    for (total, scaled) in totals.iter_mut().zip(&tokens.scaled_sums) {
                        *total = _mm512_fmadd_ps(minimums, _mm512_set1_ps(*scaled.get_unchecked(group)), *total);
                    }
                }
            }
            for (total, sums) in totals.iter().zip(sums) {
                _mm512_storeu_ps(sums.as_mut_ptr(), *total);
            }
        }
    }
}
