//! Weights unpacked for many tokens.

use std::arch::x86_64::*;

use super::encoding::{Encoding, Level, STEP_GROUPS};
use crate::ops::matmul::part::{Part, ROWS};

/// Columns of a panel: with its factors it takes most of the first-level cache.
pub(super) const COLUMNS: usize = 1024;

/// Up to [`COLUMNS`] columns of [`ROWS`] weight rows.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// For each four columns, the four codes of each row.
    pub(super) codes: [[u8; 4 * ROWS]; COLUMNS / 4],
    /// For each group, the scale of each row.
    pub(super) scales: [[f32; ROWS]; COLUMNS / 16],
    pub(super) minimums: [[f32; ROWS]; COLUMNS / 16],
}

impl Panel {
    pub(super) fn new() -> Self {
        Self {
            codes: [[0; 4 * ROWS]; COLUMNS / 4],
            scales: [[0.0; ROWS]; COLUMNS / 16],
            minimums: [[0.0; ROWS]; COLUMNS / 16],
        }
    }

    /// Unpacks `groups` groups of 32 columns from group `first_group`, at most [`COLUMNS`] columns. Rows that the part
    /// lacks get codes and factors of another row.
    ///
    /// `FLIP` is added to every code, modulo 256.
    ///
    /// # Safety
    /// The processor has the level, and the caller is compiled for it. `first_group` begins a block.
    #[inline(always)]
    pub(super) unsafe fn fill<E: Encoding, L: Level, const FLIP: u8>(
        &mut self,
        part: &Part<'_>,
        first_group: usize,
        groups: usize,
    ) {
        let rows = part.weights.len() / part.row_bytes;
        let offset = first_group / E::BLOCK_GROUPS * E::BLOCK_BYTES;
        for first_row in [0, ROWS / 2] {
            let starts: [*const u8; ROWS / 2] = std::array::from_fn(|index| {
                let row = (first_row + index).min(rows - 1);
                part.weights[row * part.row_bytes + offset..].as_ptr()
            });
            let mut group = 0;
            // SAFETY: the steps walk through the groups of each row, whose bytes follow each other.
            unsafe {
                while group + STEP_GROUPS <= groups {
                    self.fill_step::<E, L, FLIP, STEP_GROUPS>(starts, first_row, group);
                    group += STEP_GROUPS;
                }
                if E::BLOCK_GROUPS == 1 {
                    while group < groups {
                        self.fill_step::<E, L, FLIP, 1>(starts, first_row, group);
                        group += 1;
                    }
                }
            }
        }
    }

    /// `N` groups of half the rows.
    #[inline(always)]
    unsafe fn fill_step<E: Encoding, L: Level, const FLIP: u8, const N: usize>(
        &mut self,
        starts: [*const u8; ROWS / 2],
        first_row: usize,
        group: usize,
    ) {
        // SAFETY: the caller vouches for the groups and the level; `group + N` is within the panel.
        unsafe {
            let mut codes = [[_mm256_setzero_si256(); N]; ROWS / 2];
            for (row, (start, codes)) in starts.iter().zip(&mut codes).enumerate() {
                let weights = start.add(group / E::BLOCK_GROUPS * E::BLOCK_BYTES);
                *codes = E::codes::<L, N>(weights);
                if FLIP != 0 {
                    codes.iter_mut().for_each(|codes| {
                        *codes = _mm256_add_epi8(*codes, _mm256_set1_epi8(FLIP.cast_signed()));
                    });
                }
                let factors = E::factors::<N>(weights);
                let each = 32 / E::GROUP;
                store_column(&mut self.scales, factors.scales, group * each, first_row + row, N * each);
                if E::HAS_MINIMUMS {
                    store_column(&mut self.minimums, factors.minimums, group * each, first_row + row, N * each);
                }
            }
            let entries = self.codes[8 * group..8 * (group + N)].as_chunks_mut::<8>().0;
            for (index, entries) in entries.iter_mut().enumerate() {
                let columns = transposed(codes.map(|codes| codes[index]));
                for (entry, column) in entries.iter_mut().zip(columns) {
                    _mm256_storeu_si256(entry[4 * first_row..4 * first_row + 32].as_mut_ptr().cast(), column);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn store_column(
    factors: &mut [[f32; ROWS]; COLUMNS / 16],
    values: [__m256; 2],
    first: usize,
    row: usize,
    count: usize,
) {
    let mut buffer = [0.0_f32; 16];
    // SAFETY: the buffer has room for both vectors; every level has the instruction.
    unsafe {
        _mm256_storeu_ps(buffer.as_mut_ptr(), values[0]);
        _mm256_storeu_ps(buffer.as_mut_ptr().add(8), values[1]);
    }
    for (entry, value) in factors[first..first + count].iter_mut().zip(buffer) {
        entry[row] = value;
    }
}

/// Entry `i` of result `j` is entry `j` of row `i`; entries have 32 bits.
#[inline(always)]
unsafe fn transposed(rows: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: every level has these instructions.
    unsafe {
        let [a, b, c, d, e, f, g, h] = rows;
        let pairs = |a, b| [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)];
        let ([ab, ab_high], [cd, cd_high]) = (pairs(a, b), pairs(c, d));
        let ([ef, ef_high], [gh, gh_high]) = (pairs(e, f), pairs(g, h));
        let quads = |a, b| [_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)];
        let ([s0, s1], [s2, s3]) = (quads(ab, cd), quads(ab_high, cd_high));
        let ([t0, t1], [t2, t3]) = (quads(ef, gh), quads(ef_high, gh_high));
        let low = |s, t| _mm256_permute2x128_si256::<0x20>(s, t);
        let high = |s, t| _mm256_permute2x128_si256::<0x31>(s, t);
        [low(s0, t0), low(s1, t1), low(s2, t2), low(s3, t3), high(s0, t0), high(s1, t1), high(s2, t2), high(s3, t3)]
    }
}
