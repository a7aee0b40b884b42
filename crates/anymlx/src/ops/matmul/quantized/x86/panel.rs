//! Weights unpacked for many tokens.

use std::arch::x86_64::*;

use super::encoding::{Encoding, Level, STEP_GROUPS};
use crate::ops::matmul::part::{Part, ROWS};

/// Columns of a panel: it stays in the first-level cache while tokens pass by.
pub(super) const COLUMNS: usize = 512;

/// Up to [`COLUMNS`] columns of [`ROWS`] weight rows.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// For each four columns, the four codes of each row.
    pub(super) codes: [[u8; 4 * ROWS]; COLUMNS / 4],
    /// Of signed codes, their magnitudes.
    pub(super) magnitudes: [[u8; 4 * ROWS]; COLUMNS / 4],
    /// For each group, the scale of each row.
    pub(super) scales: [[f32; ROWS]; COLUMNS / 16],
    pub(super) minimums: [[f32; ROWS]; COLUMNS / 16],
}

impl Panel {
    pub(super) fn new() -> Self {
        Self {
            codes: [[0; 4 * ROWS]; COLUMNS / 4],
            magnitudes: [[0; 4 * ROWS]; COLUMNS / 4],
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
            for row in 0..ROWS / 2 {
                let weights = starts[row].add(group / E::BLOCK_GROUPS * E::BLOCK_BYTES);
                codes[row] = E::codes::<L, N>(weights);
                if FLIP != 0 {
                    for index in 0..N {
                        codes[row][index] = _mm256_add_epi8(codes[row][index], _mm256_set1_epi8(FLIP.cast_signed()));
                    }
                }
                let factors = E::factors::<N>(weights);
                let each = 32 / E::GROUP;
                store_column(&mut self.scales, factors.scales, group * each, first_row + row, N * each);
                if E::HAS_MINIMUMS {
                    store_column(&mut self.minimums, factors.minimums, group * each, first_row + row, N * each);
                }
            }
            let entries = self.codes[8 * group..8 * (group + N)].as_mut_ptr();
            let magnitudes = self.magnitudes[8 * group..8 * (group + N)].as_mut_ptr();
            for index in 0..N {
                let mut rows = [_mm256_setzero_si256(); ROWS / 2];
                for row in 0..ROWS / 2 {
                    rows[row] = codes[row][index];
                }
                let columns = transposed(rows);
                for column in 0..8 {
                    let entry = entries.add(8 * index + column).cast::<u8>();
                    _mm256_storeu_si256(entry.add(4 * first_row).cast(), columns[column]);
                    if E::SIGNED && FLIP == 0 {
                        let entry = magnitudes.add(8 * index + column).cast::<u8>();
                        _mm256_storeu_si256(entry.add(4 * first_row).cast(), _mm256_abs_epi8(columns[column]));
                    }
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
    let factors = &mut factors[first..first + count];
    for index in 0..count {
        factors[index][row] = buffer[index];
    }
}

/// Entry `i` of result `j` is entry `j` of row `i`; entries have 32 bits.
#[inline(always)]
unsafe fn transposed(rows: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: every level has these instructions.
    unsafe {
        let [a, b, c, d, e, f, g, h] = rows;
        let (ab, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        let (ef, ef_high) = (_mm256_unpacklo_epi32(e, f), _mm256_unpackhi_epi32(e, f));
        let (gh, gh_high) = (_mm256_unpacklo_epi32(g, h), _mm256_unpackhi_epi32(g, h));
        let (s0, s1) = (_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
        let (s2, s3) = (_mm256_unpacklo_epi64(ab_high, cd_high), _mm256_unpackhi_epi64(ab_high, cd_high));
        let (t0, t1) = (_mm256_unpacklo_epi64(ef, gh), _mm256_unpackhi_epi64(ef, gh));
        let (t2, t3) = (_mm256_unpacklo_epi64(ef_high, gh_high), _mm256_unpackhi_epi64(ef_high, gh_high));
        [
            _mm256_permute2x128_si256::<0x20>(s0, t0),
            _mm256_permute2x128_si256::<0x20>(s1, t1),
            _mm256_permute2x128_si256::<0x20>(s2, t2),
            _mm256_permute2x128_si256::<0x20>(s3, t3),
            _mm256_permute2x128_si256::<0x31>(s0, t0),
            _mm256_permute2x128_si256::<0x31>(s1, t1),
            _mm256_permute2x128_si256::<0x31>(s2, t2),
            _mm256_permute2x128_si256::<0x31>(s3, t3),
        ]
    }
}
