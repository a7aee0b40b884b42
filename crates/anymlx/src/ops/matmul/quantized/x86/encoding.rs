//! How quantised weights come into vector registers.

use std::arch::x86_64::*;

/// Columns that are unpacked together, in groups of 32.
pub(super) const STEP_GROUPS: usize = 8;

/// Instructions in which the levels differ.
///
/// # Safety
/// Every method needs a processor that has the level. Methods must be inlined into a function with the level's target
/// features: that is how they get its instructions.
pub(super) trait Level {
    /// Sums of four neighbouring products in each 32-bit lane. Codes are unsigned and at most 63.
    unsafe fn dot(codes: __m256i, quants: __m256i) -> __m256i;

    /// As [`Self::dot`], of signed codes. Quants are not -128.
    unsafe fn dot_signed(codes: __m256i, quants: __m256i) -> __m256i;

    /// `sum` and sums of two neighbouring products in each 32-bit lane.
    unsafe fn dot_words(sum: __m256i, codes: __m256i, quants: __m256i) -> __m256i;

    /// `STEP_RATIO` times [`Self::dot`] of `coarse`, and that of `fine`.
    unsafe fn dot_steps(codes: __m256i, coarse: __m256i, fine: __m256i) -> __m256i;

    /// 16 in each byte whose bit is set.
    unsafe fn fifth_bits(bits: u32) -> __m256i;
}

/// Scales and minimums of a step. With a group of 32, entry `i` of the first vector belongs to group `i`; with a group
/// of 16, the entries of both vectors in order.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub(super) scales: [__m256; 2],
    pub(super) minimums: [__m256; 2],
}

/// A quantised type: element `i` is `scale * (code - OFFSET) + minimum`.
pub(super) trait Encoding {
    /// Columns that share a scale: 16 or 32.
    const GROUP: usize;
    /// Groups of 32 columns in a block: 1 or 8.
    const BLOCK_GROUPS: usize;
    const BLOCK_BYTES: usize;
    /// What is to be subtracted from codes.
    const OFFSET: i32;
    /// Codes are `i8`; otherwise they are `0..=MAX_CODE`.
    const SIGNED: bool;
    const MAX_CODE: i32;
    const HAS_MINIMUMS: bool;

    /// Codes of the first `N` groups of 32.
    ///
    /// # Safety
    /// `weights` points to as many groups, a whole number of blocks; the processor has the level.
    unsafe fn codes<L: Level, const N: usize>(weights: *const u8) -> [__m256i; N];

    /// Signed codes of group `index` of 32 in 16 bits, of types with blocks of 32.
    ///
    /// # Safety
    /// As [`Self::codes`], for `index + 1` groups.
    #[inline(always)]
    unsafe fn words<L: Level>(weights: *const u8, index: usize) -> [__m256i; 2] {
        const { assert!(!Self::SIGNED || Self::BLOCK_GROUPS == 1) };
        // SAFETY: the caller vouches for the groups.
        unsafe {
            let codes = Self::codes::<L, 1>(weights.add(index * Self::BLOCK_BYTES))[0];
            let (low, high) = (_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes));
            [_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)]
        }
    }

    /// Factors of the first `N` groups of 32; the others are 0.
    ///
    /// # Safety
    /// As [`Self::codes`].
    unsafe fn factors<const N: usize>(weights: *const u8) -> Factors;
}

pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q8_0;

/// The binary16 at byte `offset` of each of `N` blocks, as `f32`.
#[inline(always)]
unsafe fn halves<const N: usize>(weights: *const u8, block_bytes: usize, offset: usize) -> __m256 {
    let mut half = [0_i16; 8];
    // SAFETY: inside the `N` blocks; every level has these instructions.
    unsafe {
        for index in 0..N {
            half[index] = weights.add(index * block_bytes + offset).cast::<i16>().read_unaligned();
        }
        let [a, b, c, d, e, f, g, h] = half;
        _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, e, f, g, h))
    }
}

/// Low nibbles of 16 bytes, then high nibbles.
#[inline(always)]
unsafe fn nibbles(packed: *const u8) -> __m256i {
    // SAFETY: the caller vouches for 16 bytes; every level has these instructions.
    unsafe {
        let packed = _mm_loadu_si128(packed.cast());
        let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
        _mm256_and_si256(both, _mm256_set1_epi8(15))
    }
}

macro_rules! blocks_of_32 {
    ($($name:ident: $bytes:literal bytes, offset $offset:literal, most $most:literal, minimum $minimum:expr,
        signed $signed:literal, codes of $block:ident: $codes:expr;)*) => {$(
        impl Encoding for $name {
            const GROUP: usize = 32;
            const BLOCK_GROUPS: usize = 1;
            const BLOCK_BYTES: usize = $bytes;
            const OFFSET: i32 = $offset;
            const SIGNED: bool = $signed;
            const MAX_CODE: i32 = $most;
            const HAS_MINIMUMS: bool = $minimum.is_some();

            #[inline(always)]
            unsafe fn codes<L: Level, const N: usize>(weights: *const u8) -> [__m256i; N] {
                // SAFETY: the caller vouches for `N` blocks.
                unsafe {
                    let mut codes = [_mm256_setzero_si256(); N];
                    for index in 0..N {
                        let $block: *const u8 = weights.add(index * $bytes);
                        codes[index] = $codes;
                    }
                    codes
                }
            }

            #[inline(always)]
            unsafe fn factors<const N: usize>(weights: *const u8) -> Factors {
                // SAFETY: the caller vouches for `N` blocks.
                unsafe {
                    let zero = _mm256_setzero_ps();
                    let minimums = match $minimum {
                        Some(offset) => halves::<N>(weights, $bytes, offset),
                        None => zero,
                    };
                    Factors { scales: [halves::<N>(weights, $bytes, 0), zero], minimums: [minimums, zero] }
                }
            }
        }
    )*};
}

/// A block's five-bit codes: the fifth bits at `high`, the others after them.
#[inline(always)]
unsafe fn five_bits<L: Level>(high: *const u8) -> __m256i {
    // SAFETY: the caller vouches for 20 bytes.
    unsafe { _mm256_or_si256(nibbles(high.add(4)), L::fifth_bits(high.cast::<u32>().read_unaligned())) }
}

const NO_MINIMUM: Option<usize> = None;

blocks_of_32! {
    Q4_0: 18 bytes, offset 8, most 15, minimum NO_MINIMUM, signed false, codes of block: nibbles(block.add(2));
    Q4_1: 20 bytes, offset 0, most 15, minimum Some(2_usize), signed false,
        codes of block: nibbles(block.add(4));
    Q5_0: 22 bytes, offset 16, most 31, minimum NO_MINIMUM, signed false,
        codes of block: five_bits::<L>(block.add(2));
    Q5_1: 24 bytes, offset 0, most 31, minimum Some(2_usize), signed false,
        codes of block: five_bits::<L>(block.add(4));
    Q8_0: 34 bytes, offset 0, most 128, minimum NO_MINIMUM, signed true,
        codes of block: _mm256_loadu_si256(block.add(2).cast());
}
