//! One token in two 8-bit steps: their scales differ by a power of two, so that their products are added as integers.
//!
//! Codes of eight bits widen as they are loaded: for them both steps are joined into one of 16 bits, whose products need no
//! more instructions than those of 8 bits. Others would need several more to widen, and are multiplied with each step.

use std::{arch::x86_64::*, mem::MaybeUninit};

use super::{
    encoding::{Encoding, Level, STEP_GROUPS},
    rows::{Stored, horizontal_sum, prefetch},
    tile::scaled_sums,
};
use crate::ops::{
    matmul::part::{Part, QuantizedTokens, Sums},
    quantize_activations::STEP_RATIO,
};

/// Columns that are joined at a time.
const COLUMNS: usize = 2048;

/// Codes of eight bits are joined in whole groups of 32, under one scale.
pub(super) const fn takes<E: Encoding>() -> bool {
    !E::SIGNED || E::GROUP == 32
}

/// A token's quants and factors, as far as they have been joined. Entry `i` of `quants` is `STEP_RATIO` times that of the
/// first step, plus that of the second, and `scales` are those of the second.
#[repr(C, align(64))]
struct Token {
    quants: [MaybeUninit<i16>; COLUMNS],
    scales: [MaybeUninit<f32>; COLUMNS / 32],
    /// Scale times sum of quants, for each group of weights.
    scaled_sums: [MaybeUninit<f32>; COLUMNS / 16],
    /// Quants of both steps.
    coarse: *const i8,
    fine: *const i8,
}

impl Token {
    #[inline(always)]
    fn new() -> Self {
        let (nothing, no_value) = (MaybeUninit::<i16>::uninit(), MaybeUninit::<f32>::uninit());
        Self {
            coarse: std::ptr::null(),
            fine: std::ptr::null(),
            quants: [nothing; COLUMNS],
            scales: [no_value; COLUMNS / 32],
            scaled_sums: [no_value; COLUMNS / 16],
        }
    }

    #[inline(always)]
    fn quants(&self) -> *const i16 {
        self.quants.as_ptr().cast()
    }

    #[inline(always)]
    fn scales(&self) -> *const f32 {
        self.scales.as_ptr().cast()
    }

    #[inline(always)]
    fn scaled_sums(&self) -> *const f32 {
        self.scaled_sums.as_ptr().cast()
    }

    /// `groups` groups of 32 columns from `first` on, at most [`COLUMNS`] columns; rows have a multiple of eight groups.
    #[inline(always)]
    unsafe fn join<E: Encoding>(&mut self, tokens: &QuantizedTokens<'_>, first: usize, groups: usize) {
        let layout = &tokens.layout;
        // SAFETY: the caller vouches for two rows with the groups, and for a level.
        unsafe {
            let coarse = tokens.bytes.as_ptr();
            let fine = coarse.add(layout.row_bytes);
            (self.coarse, self.fine) = (coarse.add(32 * first).cast(), fine.add(32 * first).cast());
            let joined_columns = if E::SIGNED { 32 * groups } else { 0 };
            for at in (0..joined_columns).step_by(16) {
                let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(coarse.add(32 * first + at).cast()));
                let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(fine.add(32 * first + at).cast()));
                let joined = _mm256_add_epi16(_mm256_slli_epi16::<{ STEP_RATIO.ilog2() as i32 }>(high), low);
                _mm256_store_si256(self.quants.as_mut_ptr().add(at).cast(), joined);
            }
            for eight in (0..groups).step_by(8) {
                let offset = layout.scales_offset() + size_of::<f32>() * (first + eight);
                let scales = [coarse, fine].map(|row| row.add(offset).cast::<f32>());
                let sums = layout.sums_offset() + size_of::<i16>() * 2 * (first + eight);
                let place = self.scaled_sums.as_mut_ptr().cast::<f32>().add(eight * 32 / E::GROUP);
                let fine_scales = _mm256_loadu_ps(scales[1]);
                _mm256_store_ps(self.scales.as_mut_ptr().cast::<f32>().add(eight), fine_scales);
                if E::OFFSET == 0 && !E::HAS_MINIMUMS {
                    continue;
                }
                let coarse_sums = _mm256_loadu_si256(coarse.add(sums).cast());
                let fine_sums = _mm256_loadu_si256(fine.add(sums).cast());
                let coarse_sums = scaled_sums(E::GROUP, coarse_sums, _mm256_loadu_ps(scales[0]));
                let fine_sums = scaled_sums(E::GROUP, fine_sums, fine_scales);
                for half in 0..32 / E::GROUP {
                    _mm256_storeu_ps(place.add(8 * half), _mm256_add_ps(coarse_sums[half], fine_sums[half]));
                }
            }
        }
    }
}

/// See [`MultiplyQuantized`](crate::ops::matmul::part::MultiplyQuantized): the products of one token in two steps, all in
/// the first entry of `sums`.
///
/// # Safety
/// The processor has the level, and the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn multiply<E: Encoding, L: Level>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut Sums) {
    assert!(tokens.bytes.len() >= 2 * tokens.layout.row_bytes && tokens.layout.columns == part.columns);
    let mut token = Token::new();
    let groups = part.columns / 32;
    for first in (0..groups).step_by(COLUMNS / 32) {
        let count = (groups - first).min(COLUMNS / 32);
        // SAFETY: as the caller vouches.
        unsafe { token.join::<E>(tokens, first, count) };
        let offset = first / E::BLOCK_GROUPS * E::BLOCK_BYTES;
        for row in 0..part.weights.len() / part.row_bytes {
            let weights = part.weights[row * part.row_bytes + offset..].as_ptr();
            // SAFETY: the row has as many groups after `offset`.
            sums[row] += unsafe { dot::<E, L>(weights, &token, count) };
        }
    }
}

#[inline(always)]
unsafe fn dot<E: Encoding, L: Level>(mut weights: *const u8, token: &Token, groups: usize) -> f32 {
    // SAFETY: the steps walk through the groups, whose bytes follow each other.
    unsafe {
        let mut totals = [_mm256_setzero_ps(); 4];
        let mut group = 0;
        while group + STEP_GROUPS <= groups {
            prefetch::<E>(weights);
            step::<E, L, STEP_GROUPS>(weights, token, group, &mut totals);
            group += STEP_GROUPS;
            weights = weights.add(STEP_GROUPS / E::BLOCK_GROUPS * E::BLOCK_BYTES);
        }
        if E::BLOCK_GROUPS == 1 {
            if group + 4 <= groups {
                step::<E, L, 4>(weights, token, group, &mut totals);
                group += 4;
                weights = weights.add(4 * E::BLOCK_BYTES);
            }
            while group < groups {
                step::<E, L, 1>(weights, token, group, &mut totals);
                group += 1;
                weights = weights.add(E::BLOCK_BYTES);
            }
        }
        let [a, b, c, d] = totals;
        horizontal_sum(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)))
    }
}

/// Adds the products of `N` groups of 32 columns; what follows them in the token's factors meets factors of 0.
#[inline(always)]
unsafe fn step<E: Encoding, L: Level, const N: usize>(
    weights: *const u8,
    token: &Token,
    group: usize,
    totals: &mut [__m256; 4],
) {
    // SAFETY: the caller vouches for the groups, of weights and token, and for the level.
    unsafe {
        let factors = E::factors::<N>(weights);
        let token_scales = if N == 8 {
            _mm256_loadu_ps(token.scales().add(group))
        } else {
            let mut scales = [0.0; 8];
            for index in 0..N {
                scales[index] = *token.scales().add(group + index);
            }
            _mm256_loadu_ps(scales.as_ptr())
        };
        let scales = if E::GROUP == 32 {
            [_mm256_mul_ps(factors.scales[0], token_scales); 2]
        } else {
            let [low, high] = super::rows::doubled(token_scales);
            [_mm256_mul_ps(factors.scales[0], low), _mm256_mul_ps(factors.scales[1], high)]
        };
        if E::OFFSET != 0 || E::HAS_MINIMUMS {
            let each = 32 / E::GROUP;
            for half in 0..each {
                let minimums = if E::OFFSET != 0 {
                    _mm256_mul_ps(factors.scales[half], _mm256_set1_ps(-E::OFFSET as f32))
                } else {
                    factors.minimums[half]
                };
                let sums = token.scaled_sums().add(group * each + 8 * half);
                let sums = if N == 8 {
                    _mm256_loadu_ps(sums)
                } else {
                    let mut some = [0.0; 8];
                    for index in 0..N {
                        some[index] = *sums.add(index);
                    }
                    _mm256_loadu_ps(some.as_ptr())
                };
                totals[3] = _mm256_fmadd_ps(minimums, sums, totals[3]);
            }
        }
        let stored = Stored::new::<E>(&scales);
        if !E::SIGNED {
            let codes = E::codes::<L, N>(weights);
            for index in 0..N {
                let coarse = _mm256_loadu_si256(token.coarse.add(32 * (group + index)).cast());
                let fine = _mm256_loadu_si256(token.fine.add(32 * (group + index)).cast());
                let dot = _mm256_cvtepi32_ps(L::dot_steps(codes[index], coarse, fine));
                totals[index % 2] = _mm256_fmadd_ps(dot, stored.spread::<E>(index), totals[index % 2]);
            }
            return;
        }
        let quants = token.quants().add(32 * group);
        for index in 0..N {
            let [low, high] = E::words::<L>(weights, index);
            let low_quants = _mm256_load_si256(quants.add(32 * index).cast());
            let high_quants = _mm256_load_si256(quants.add(32 * index + 16).cast());
            let dot = L::dot_words(_mm256_madd_epi16(low, low_quants), high, high_quants);
            totals[index % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), stored.spread::<E>(index), totals[index % 2]);
        }
    }
}
