//! AVX2 with FMA.

use std::arch::x86_64::*;

use super::{
    encoding::Level,
    panel::Panel,
    signed,
    tile::{Kernel, Panelled, Tokens},
};
use crate::ops::{matmul::part::ROWS, quantize_activations::STEP_RATIO};

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
    unsafe fn dot_words(sum: __m256i, codes: __m256i, quants: __m256i) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(codes, quants)) }
    }

    #[inline(always)]
    unsafe fn dot_steps(codes: __m256i, coarse: __m256i, fine: __m256i) -> __m256i {
        // SAFETY: the level has these instructions.
        unsafe {
            let ratio = _mm256_set1_epi16(STEP_RATIO as i16);
            let coarse = _mm256_madd_epi16(_mm256_maddubs_epi16(codes, coarse), ratio);
            _mm256_add_epi32(coarse, Self::dot(codes, fine))
        }
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

/// Vectors of eight rows.
const VECTORS: usize = ROWS / 8;

impl Kernel for Avx2 {
    /// With two vectors of rows: as many sums as leave registers for codes, quants and products. Signed codes need no
    /// second kind of sums, which makes room for one more.
    const TOKENS: usize = 3;

    // Loops over indices, and totals in memory: that is what stays in registers when compiled.
    #[inline(always)]
    unsafe fn accumulate<P: Panelled, const T: usize>(
        panel: &Panel,
        groups: usize,
        tokens: &Tokens<'_, T>,
        sums: &mut [[f32; ROWS]; T],
    ) {
        if P::SIGNED && T == signed::TOKENS {
            // SAFETY: as the caller vouches; the types are the same.
            return unsafe {
                let tokens = &*std::ptr::from_ref(tokens).cast::<Tokens<'_, { signed::TOKENS }>>();
                signed::accumulate::<P>(panel, groups, tokens, &mut *sums.as_mut_ptr().cast())
            };
        }
        let quads = P::GROUP / 4;
        // Products of signed codes fill 16 bits: for them this is only how far the loop is unrolled.
        let additions = if P::SIGNED { 2 } else { const { additions(P::MAX_CODE) }.min(quads) };
        // A number that the compiler does not know keeps it from unrolling the loop, and running out of registers.
        let chunks = std::hint::black_box(quads / additions);
        let mut codes_at = panel.codes.as_ptr().cast::<u8>();
        let sums = sums.as_mut_ptr().cast::<f32>();
        let mut column = 0;
        // SAFETY: the caller vouches for the level and the groups; the panel has as many.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            for group in 0..groups * 32 / P::GROUP {
                let mut products = [[_mm256_setzero_si256(); VECTORS]; T];
                if P::OFFSET != 0 {
                    for t in 0..T {
                        products[t] = [_mm256_set1_epi32(*tokens.starts[t].get_unchecked(group)); VECTORS];
                    }
                }
                for _ in 0..chunks {
                    let mut short = [[_mm256_setzero_si256(); VECTORS]; T];
                    for addition in 0..additions {
                        let mut codes = [_mm256_setzero_si256(); VECTORS];
                        let mut magnitudes = codes;
                        for v in 0..VECTORS {
                            codes[v] = _mm256_load_si256(codes_at.add(4 * ROWS * addition + 32 * v).cast());
                            magnitudes[v] = if P::SIGNED { _mm256_abs_epi8(codes[v]) } else { codes[v] };
                        }
                        for t in 0..T {
                            let quants = tokens.quants[t].add(column + 4 * addition).cast::<i32>();
                            let quants = _mm256_set1_epi32(quants.read_unaligned());
                            for v in 0..VECTORS {
                                let quants = if P::SIGNED { _mm256_sign_epi8(quants, codes[v]) } else { quants };
                                let product = _mm256_maddubs_epi16(magnitudes[v], quants);
                                if P::SIGNED {
                                    let product = _mm256_madd_epi16(product, ones);
                                    products[t][v] = _mm256_add_epi32(products[t][v], product);
                                } else {
                                    short[t][v] = _mm256_add_epi16(short[t][v], product);
                                }
                            }
                        }
                    }
                    codes_at = codes_at.add(4 * ROWS * additions);
                    column += 4 * additions;
                    if P::SIGNED {
                        continue;
                    }
                    for t in 0..T {
                        for v in 0..VECTORS {
                            products[t][v] = _mm256_add_epi32(products[t][v], _mm256_madd_epi16(short[t][v], ones));
                        }
                    }
                }
                add_products::<P, T>(panel, group, tokens, &products, sums);
            }
        }
    }
}

/// Adds the products of one group to the totals of `T` tokens, after each other in `sums`.
///
/// # Safety
/// As [`Kernel::accumulate`], for group `group`; `sums` has room for `T` times [`ROWS`].
#[inline(always)]
pub(super) unsafe fn add_products<P: Panelled, const T: usize>(
    panel: &Panel,
    group: usize,
    tokens: &Tokens<'_, T>,
    products: &[[__m256i; VECTORS]; T],
    sums: *mut f32,
) {
    let (scales_of, minimums_of) = (panel.scales.as_ptr().cast::<f32>(), panel.minimums.as_ptr().cast::<f32>());
    // SAFETY: as the caller vouches.
    unsafe {
        for t in 0..T {
            let token_scale = _mm256_broadcast_ss(&*tokens.scales[t].add(group * P::GROUP / 32));
            for v in 0..VECTORS {
                let scale = _mm256_mul_ps(_mm256_load_ps(scales_of.add(group * ROWS + 8 * v)), token_scale);
                let total = sums.add(t * ROWS + 8 * v);
                let mut value = _mm256_loadu_ps(total);
                value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[t][v]), scale, value);
                if P::HAS_MINIMUMS {
                    let minimums = _mm256_load_ps(minimums_of.add(group * ROWS + 8 * v));
                    let scaled_sum = _mm256_broadcast_ss(tokens.scaled_sums[t].get_unchecked(group));
                    value = _mm256_fmadd_ps(minimums, scaled_sum, value);
                }
                _mm256_storeu_ps(total, value);
            }
        }
    }
}
