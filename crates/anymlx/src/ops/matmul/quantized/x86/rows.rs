//! Dot products of weights as they are read: what few tokens need. Memory sets the pace, so each weight is read once for
//! up to four tokens.

use std::arch::x86_64::*;

use super::{
    encoding::{Encoding, Level, STEP_GROUPS},
    wide,
};
use crate::ops::matmul::part::{Part, QuantizedTokens, Sums};

/// Tokens that share one pass over the weights.
const TOKENS: usize = 4;

/// How far ahead weights are prefetched: the hardware stops at the end of each page. Half as far is late by a tenth.
const PREFETCH_BYTES: usize = 4096;

/// See [`MultiplyQuantized`](crate::ops::matmul::part::MultiplyQuantized).
///
/// # Safety
/// The processor has the level, and the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn multiply<E: Encoding, L: Level>(part: &Part<'_>, tokens: &QuantizedTokens<'_>, sums: &mut [Sums]) {
    assert!(tokens.bytes.len() >= sums.len() * tokens.layout.row_bytes && tokens.layout.columns == part.columns);
    let mut next = 0;
    // SAFETY: as the caller vouches; there are as many tokens as sums, with the part's columns.
    unsafe {
        if let (true, [sums, _], 2) = (wide::takes::<E>(), &mut *sums, tokens.terms) {
            return wide::multiply::<E, L>(part, tokens, sums);
        }
        while next + TOKENS <= sums.len() {
            rows_times::<E, L, TOKENS>(part, tokens, next, sums);
            next += TOKENS;
        }
        match sums.len() - next {
            1 => rows_times::<E, L, 1>(part, tokens, next, sums),
            2 => rows_times::<E, L, 2>(part, tokens, next, sums),
            3 => rows_times::<E, L, 3>(part, tokens, next, sums),
            _ => {}
        }
    }
}

/// Where `T` tokens' activations are.
struct Tokens<const T: usize> {
    quants: [*const i8; T],
    scales: [*const f32; T],
    sums: [*const i16; T],
}

/// Tokens from number `first` on.
#[inline(always)]
unsafe fn rows_times<E: Encoding, L: Level, const T: usize>(
    part: &Part<'_>,
    tokens: &QuantizedTokens<'_>,
    first: usize,
    sums: &mut [Sums],
) {
    let layout = &tokens.layout;
    let mut places =
        Tokens { quants: [std::ptr::null(); T], scales: [std::ptr::null(); T], sums: [std::ptr::null(); T] };
    for t in 0..T {
        let row = tokens.bytes[(first + t) * layout.row_bytes..].as_ptr();
        places.quants[t] = row.cast();
        places.scales[t] = row.wrapping_add(layout.scales_offset()).cast();
        places.sums[t] = row.wrapping_add(layout.sums_offset()).cast();
    }
    let sums = &mut sums[first..first + T];
    let groups = part.columns / 32;
    for row in 0..part.weights.len() / part.row_bytes {
        let mut weights = part.weights[row * part.row_bytes..].as_ptr();
        // SAFETY: the steps walk through the groups of the row, whose bytes follow each other.
        unsafe {
            let mut accumulator = Accumulator::<T>::new();
            let mut group = 0;
            while group + STEP_GROUPS <= groups {
                prefetch::<E>(weights);
                step::<E, L, T, STEP_GROUPS>(weights, group, &places, &mut accumulator);
                group += STEP_GROUPS;
                weights = weights.add(STEP_GROUPS / E::BLOCK_GROUPS * E::BLOCK_BYTES);
            }
            if E::BLOCK_GROUPS == 1 {
                rest::<E, L, T>(weights, group..groups, &places, &mut accumulator);
            }
            for t in 0..T {
                sums[t][row] += accumulator.total::<E>(t);
            }
        }
    }
}

/// The groups after the last whole step.
#[inline(always)]
unsafe fn rest<E: Encoding, L: Level, const T: usize>(
    mut weights: *const u8,
    groups: std::ops::Range<usize>,
    tokens: &Tokens<T>,
    accumulator: &mut Accumulator<T>,
) {
    let mut group = groups.start;
    // SAFETY: as in `rows_times`.
    unsafe {
        if group + 4 <= groups.end {
            step::<E, L, T, 4>(weights, group, tokens, accumulator);
            group += 4;
            weights = weights.add(4 * E::BLOCK_BYTES);
        }
        while group < groups.end {
            step::<E, L, T, 1>(weights, group, tokens, accumulator);
            group += 1;
            weights = weights.add(E::BLOCK_BYTES);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn prefetch<E: Encoding>(weights: *const u8) {
    let bytes = STEP_GROUPS / E::BLOCK_GROUPS * E::BLOCK_BYTES;
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(PREFETCH_BYTES + line).cast()) };
    }
}

/// Running sums of one weight row and `T` tokens.
struct Accumulator<const T: usize> {
    /// Scaled products of codes and quants; two, so that additions need not wait for each other.
    products: [[__m256; 2]; T],
    /// What minimums and offsets contribute.
    corrections: [__m256; T],
}

impl<const T: usize> Accumulator<T> {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: every level has this instruction.
        let zero = unsafe { _mm256_setzero_ps() };
        Self { products: [[zero; 2]; T], corrections: [zero; T] }
    }

    #[inline(always)]
    unsafe fn total<E: Encoding>(&self, token: usize) -> f32 {
        // SAFETY: every level has these instructions.
        unsafe {
            let [even, odd] = self.products[token];
            let mut total = _mm256_add_ps(even, odd);
            if E::OFFSET != 0 {
                total = _mm256_fnmadd_ps(self.corrections[token], _mm256_set1_ps(E::OFFSET as f32), total);
            } else if E::HAS_MINIMUMS {
                total = _mm256_add_ps(total, self.corrections[token]);
            }
            horizontal_sum(total)
        }
    }
}

#[inline(always)]
pub(super) unsafe fn horizontal_sum(values: __m256) -> f32 {
    // SAFETY: every level has these instructions.
    unsafe {
        let half = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
        let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
    }
}

/// The first `N` scales; the others are 0.
#[inline(always)]
unsafe fn load_scales<const N: usize>(scales: *const f32) -> __m256 {
    // SAFETY: the caller vouches for `N` values.
    unsafe {
        match N {
            8 => _mm256_loadu_ps(scales),
            4 => _mm256_zextps128_ps256(_mm_loadu_ps(scales)),
            _ => _mm256_zextps128_ps256(_mm_load_ss(scales)),
        }
    }
}

/// The first `2 N` sums; the others are 0.
#[inline(always)]
unsafe fn load_sums<const N: usize>(sums: *const i16) -> __m256i {
    // SAFETY: the caller vouches for `2 N` values.
    unsafe {
        match N {
            8 => _mm256_loadu_si256(sums.cast()),
            4 => _mm256_zextsi128_si256(_mm_loadu_si128(sums.cast())),
            _ => _mm256_zextsi128_si256(_mm_cvtsi32_si128(sums.cast::<i32>().read_unaligned())),
        }
    }
}

/// Adds the products of `N` groups of 32 columns, from group number `group`.
#[inline(always)]
unsafe fn step<E: Encoding, L: Level, const T: usize, const N: usize>(
    weights: *const u8,
    group: usize,
    tokens: &Tokens<T>,
    accumulator: &mut Accumulator<T>,
) {
    // SAFETY: the caller vouches for the groups, of weights and tokens, and for the level.
    unsafe {
        let codes: [__m256i; N] = E::codes::<L, N>(weights);
        let factors = E::factors::<N>(weights);
        for t in 0..T {
            let token_scales = load_scales::<N>(tokens.scales[t].add(group));
            let scales = if E::GROUP == 32 {
                [_mm256_mul_ps(factors.scales[0], token_scales), token_scales]
            } else {
                let [low, high] = doubled(token_scales);
                [_mm256_mul_ps(factors.scales[0], low), _mm256_mul_ps(factors.scales[1], high)]
            };
            if E::OFFSET != 0 || E::HAS_MINIMUMS {
                let sums = load_sums::<N>(tokens.sums[t].add(2 * group));
                accumulator.corrections[t] =
                    corrected::<E>(accumulator.corrections[t], &factors.minimums, token_scales, &scales, sums);
            }
            let stored = Stored::new::<E>(&scales);
            for index in 0..N {
                let quants = _mm256_loadu_si256(tokens.quants[t].add(32 * (group + index)).cast());
                let dot = if E::SIGNED { L::dot_signed(codes[index], quants) } else { L::dot(codes[index], quants) };
                let product = &mut accumulator.products[t][index % 2];
                *product = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), stored.spread::<E>(index), *product);
            }
        }
    }
}

/// Scales in memory: what is broadcast on the way from there takes no instruction of its own.
#[repr(C, align(32))]
pub(super) struct Stored([f32; 16]);

impl Stored {
    #[inline(always)]
    pub(super) unsafe fn new<E: Encoding>(scales: &[__m256; 2]) -> Self {
        let mut stored = Self([0.0; 16]);
        // SAFETY: there is room for both; every level has these instructions.
        unsafe {
            _mm256_store_ps(stored.0.as_mut_ptr(), scales[0]);
            if E::GROUP == 16 {
                _mm256_store_ps(stored.0.as_mut_ptr().add(8), scales[1]);
            }
        }
        stored
    }

    /// The scales of the lanes of group `index`.
    #[inline(always)]
    pub(super) unsafe fn spread<E: Encoding>(&self, index: usize) -> __m256 {
        // SAFETY: `index` is below 8; every level has these instructions.
        unsafe {
            let stored = self.0.as_ptr();
            if E::GROUP == 32 {
                return _mm256_broadcast_ss(&*stored.add(index));
            }
            let pairs = _mm256_castpd_ps(_mm256_broadcast_sd(&*stored.add(2 * index).cast::<f64>()));
            _mm256_permutevar_ps(pairs, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))
        }
    }
}

/// Each of eight scales twice.
#[inline(always)]
pub(super) unsafe fn doubled(scales: __m256) -> [__m256; 2] {
    // SAFETY: every level has these instructions.
    unsafe {
        [
            _mm256_permutevar8x32_ps(scales, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
            _mm256_permutevar8x32_ps(scales, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)),
        ]
    }
}

/// Adds minimums (or, for types with an offset, scales) times the sums of activations.
#[inline(always)]
unsafe fn corrected<E: Encoding>(
    corrections: __m256,
    minimums: &[__m256; 2],
    token_scales: __m256,
    scales: &[__m256; 2],
    sums: __m256i,
) -> __m256 {
    // SAFETY: every level has these instructions.
    unsafe {
        if E::GROUP == 32 {
            let sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
            if E::OFFSET != 0 {
                return _mm256_fmadd_ps(scales[0], sums, corrections);
            }
            return _mm256_fmadd_ps(minimums[0], _mm256_mul_ps(sums, token_scales), corrections);
        }
        let low = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums)));
        let high = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(sums)));
        if E::OFFSET != 0 {
            return _mm256_fmadd_ps(scales[0], low, _mm256_fmadd_ps(scales[1], high, corrections));
        }
        let [low_scales, high_scales] = doubled(token_scales);
        let corrections = _mm256_fmadd_ps(minimums[0], _mm256_mul_ps(low, low_scales), corrections);
        _mm256_fmadd_ps(minimums[1], _mm256_mul_ps(high, high_scales), corrections)
    }
}
