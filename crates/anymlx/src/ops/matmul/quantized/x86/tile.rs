//! Panels of weights times many tokens, the part that the levels share.

use std::arch::x86_64::*;

use super::{
    encoding::{Encoding, Level},
    panel::{COLUMNS, Panel},
    rows::doubled,
};
use crate::ops::matmul::part::{Part, QuantizedTokens, ROWS, Sums};

/// What a panel holds, known when code is compiled.
pub(super) trait Panelled {
    /// Columns that share a scale: 16 or 32.
    const GROUP: usize;
    /// What is to be subtracted from codes.
    const OFFSET: i32;
    const SIGNED: bool;
    const MAX_CODE: i32;
    const HAS_MINIMUMS: bool;
}

/// Codes as the encoding has them.
pub(super) struct AsStored<E>(std::marker::PhantomData<E>);
/// Codes made unsigned by adding 128 to signed ones.
pub(super) struct Unsigned<E>(std::marker::PhantomData<E>);

impl<E: Encoding> Panelled for AsStored<E> {
    const GROUP: usize = E::GROUP;
    const OFFSET: i32 = E::OFFSET;
    const SIGNED: bool = E::SIGNED;
    const MAX_CODE: i32 = E::MAX_CODE;
    const HAS_MINIMUMS: bool = E::HAS_MINIMUMS;
}

impl<E: Encoding> Panelled for Unsigned<E> {
    const GROUP: usize = E::GROUP;
    const OFFSET: i32 = if E::SIGNED { 128 } else { E::OFFSET };
    const SIGNED: bool = false;
    const MAX_CODE: i32 = if E::SIGNED { 255 } else { E::MAX_CODE };
    const HAS_MINIMUMS: bool = E::HAS_MINIMUMS;
}

/// `T` tokens and the columns of a panel.
pub(super) struct Tokens<'a, const T: usize> {
    /// First quant of each token.
    pub(super) quants: [*const u8; T],
    /// First scale of each token.
    pub(super) scales: [*const f32; T],
    /// What sums of integer products begin with: the offset times the sum of quants, for each group.
    pub(super) starts: &'a [[i32; COLUMNS / 16]; T],
    /// Scale times sum of quants, for each group.
    pub(super) scaled_sums: &'a [[f32; COLUMNS / 16]; T],
}

/// Room for what [`Tokens`] refers to.
struct Scratch<const T: usize> {
    starts: [[i32; COLUMNS / 16]; T],
    scaled_sums: [[f32; COLUMNS / 16]; T],
}

impl<const T: usize> Scratch<T> {
    fn new() -> Self {
        Self { starts: [[0; COLUMNS / 16]; T], scaled_sums: [[0.0; COLUMNS / 16]; T] }
    }

    /// `group` and `groups` count groups of 32 columns; `first` is the first of the tokens.
    #[inline(always)]
    unsafe fn tokens<P: Panelled>(
        &mut self,
        tokens: &QuantizedTokens<'_>,
        first: usize,
        group: usize,
        groups: usize,
    ) -> Tokens<'_, T> {
        let layout = &tokens.layout;
        let mut quants = [std::ptr::null(); T];
        let mut scales = [std::ptr::null(); T];
        for t in 0..T {
            // SAFETY: the caller vouches for the tokens and the groups, of which rows have a multiple of eight.
            unsafe {
                let row = tokens.bytes.as_ptr().add((first + t) * layout.row_bytes);
                quants[t] = row.add(32 * group);
                scales[t] = row.add(layout.scales_offset()).cast::<f32>().add(group);
                let sums = row.add(layout.sums_offset()).cast::<i16>().add(2 * group);
                for eight in (0..groups).step_by(8) {
                    let sums = _mm256_loadu_si256(sums.add(2 * eight).cast());
                    let place = eight * 32 / P::GROUP;
                    if P::OFFSET != 0 {
                        store_starts::<P>(sums, self.starts[t].as_mut_ptr().add(place));
                    }
                    if P::HAS_MINIMUMS {
                        let scales = _mm256_loadu_ps(scales[t].add(eight));
                        let scaled = scaled_sums(P::GROUP, sums, scales);
                        for half in 0..32 / P::GROUP {
                            _mm256_storeu_ps(self.scaled_sums[t].as_mut_ptr().add(place + 8 * half), scaled[half]);
                        }
                    }
                }
            }
        }
        Tokens { quants, scales, starts: &self.starts, scaled_sums: &self.scaled_sums }
    }
}

/// The offset times the sums of eight groups of 32.
#[inline(always)]
unsafe fn store_starts<P: Panelled>(sums: __m256i, to: *mut i32) {
    // SAFETY: the caller vouches for the room; every level has these instructions.
    unsafe {
        let factor = -P::OFFSET;
        if P::GROUP == 32 {
            // Offsets are at most 128.
            let starts = _mm256_madd_epi16(sums, _mm256_set1_epi16(factor as i16));
            return _mm256_storeu_si256(to.cast(), starts);
        }
        let factor = _mm256_set1_epi32(factor);
        let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums));
        let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(sums));
        _mm256_storeu_si256(to.cast(), _mm256_mullo_epi32(low, factor));
        _mm256_storeu_si256(to.add(8).cast(), _mm256_mullo_epi32(high, factor));
    }
}

/// The sums of eight groups of 32 times their scales, in groups of 16 or 32.
#[inline(always)]
pub(super) unsafe fn scaled_sums(group: usize, sums: __m256i, scales: __m256) -> [__m256; 2] {
    // SAFETY: every level has these instructions.
    unsafe {
        if group == 32 {
            let sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
            return [_mm256_mul_ps(sums, scales); 2];
        }
        let low = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums)));
        let high = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(sums)));
        let [low_scales, high_scales] = doubled(scales);
        [_mm256_mul_ps(low, low_scales), _mm256_mul_ps(high, high_scales)]
    }
}

/// The inner loops of a level.
pub(super) trait Kernel {
    /// The most tokens that one call takes, 3 (4 of signed codes) or 8.
    const TOKENS: usize;

    /// Adds the products of `groups` groups of 32 columns to `sums`.
    ///
    /// # Safety
    /// The processor has the level, and the caller is compiled for it; the tokens have as many groups.
    unsafe fn accumulate<P: Panelled, const T: usize>(
        panel: &Panel,
        groups: usize,
        tokens: &Tokens<'_, T>,
        sums: &mut [[f32; ROWS]; T],
    );
}

/// See [`MultiplyQuantized`](crate::ops::matmul::part::MultiplyQuantized). `FLIP` turns the codes of `E` into those of
/// `P`.
///
/// # Safety
/// The processor has the level, and the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn multiply<E: Encoding, L: Level, K: Kernel, P: Panelled, const FLIP: u8>(
    part: &Part<'_>,
    tokens: &QuantizedTokens<'_>,
    sums: &mut [Sums],
) {
    let mut panel = Panel::new();
    let groups = part.columns / 32;
    assert!(tokens.bytes.len() >= sums.len() * tokens.layout.row_bytes && tokens.layout.columns == part.columns);
    for first in (0..groups).step_by(COLUMNS / 32) {
        let count = (groups - first).min(COLUMNS / 32);
        // SAFETY: as the caller vouches; every token has the part's columns.
        unsafe {
            panel.fill::<E, L, FLIP>(part, first, count);
            let mut next = 0;
            if K::TOKENS == 8 {
                next = all::<K, P, 8>(&panel, tokens, (first, count), next, sums);
                next = all::<K, P, 4>(&panel, tokens, (first, count), next, sums);
            } else {
                if P::SIGNED {
                    next = all::<K, P, 4>(&panel, tokens, (first, count), next, sums);
                }
                next = all::<K, P, 3>(&panel, tokens, (first, count), next, sums);
            }
            next = all::<K, P, 2>(&panel, tokens, (first, count), next, sums);
            all::<K, P, 1>(&panel, tokens, (first, count), next, sums);
        }
    }
}

/// Multiplies as many whole sets of `T` tokens as there are from token `next`; returns the token after them.
#[inline(always)]
unsafe fn all<K: Kernel, P: Panelled, const T: usize>(
    panel: &Panel,
    tokens: &QuantizedTokens<'_>,
    (first, count): (usize, usize),
    mut next: usize,
    sums: &mut [Sums],
) -> usize {
    let mut scratch = Scratch::<T>::new();
    while next + T <= sums.len() {
        // SAFETY: as the caller vouches; there are as many tokens as sums.
        unsafe {
            let set = scratch.tokens::<P>(tokens, next, first, count);
            let sums = &mut *sums.as_mut_ptr().add(next).cast::<[Sums; T]>();
            K::accumulate::<P, T>(panel, count, &set, sums);
        }
        next += T;
    }
    next
}
