//! The types with blocks of 256 columns.

use std::arch::x86_64::*;

use super::encoding::{Encoding, Factors, Level};

pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;

/// The binary16 at `at`, in all lanes.
#[inline(always)]
unsafe fn half(at: *const u8) -> __m256 {
    // SAFETY: the caller vouches for two bytes; every level has these instructions.
    unsafe {
        let half = _mm_cvtsi32_si128(i32::from(at.cast::<u16>().read_unaligned()));
        _mm256_broadcastss_ps(_mm_cvtph_ps(half))
    }
}

#[inline(always)]
unsafe fn word(at: *const u8) -> u32 {
    // SAFETY: the caller vouches for four bytes.
    unsafe { at.cast::<u32>().read_unaligned() }
}

/// 32 bytes.
#[inline(always)]
unsafe fn load(at: *const u8) -> __m256i {
    // SAFETY: the caller vouches for 32 bytes.
    unsafe { _mm256_loadu_si256(at.cast()) }
}

/// Eight unsigned bytes times `factor`.
#[inline(always)]
unsafe fn scaled(low: u32, high: u32, factor: __m256) -> __m256 {
    // SAFETY: every level has these instructions.
    unsafe {
        let bytes = _mm_set_epi64x(0, (u64::from(high) << 32 | u64::from(low)).cast_signed());
        _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), factor)
    }
}

/// Sixteen signed bytes times `factor`.
#[inline(always)]
unsafe fn scaled_16(bytes: __m128i, factor: __m256) -> [__m256; 2] {
    // SAFETY: every level has these instructions.
    unsafe {
        let upper = _mm_unpackhi_epi64(bytes, bytes);
        [
            _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), factor),
            _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(upper)), factor),
        ]
    }
}

#[inline(always)]
unsafe fn negated(values: __m256) -> __m256 {
    // SAFETY: every level has these instructions.
    unsafe { _mm256_xor_ps(values, _mm256_set1_ps(-0.0)) }
}

/// `d`, `dmin` and twelve bytes of scales and minimums, as `Q4_K` and `Q5_K` begin.
#[inline(always)]
unsafe fn k4_factors(block: *const u8) -> Factors {
    // SAFETY: the caller vouches for 16 bytes.
    unsafe {
        let (a, b, c) = (word(block.add(4)), word(block.add(8)), word(block.add(12)));
        let (six, four, upper) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x3030_3030);
        let scales = scaled(a & six, c & four | a >> 2 & upper, half(block));
        let minimums = scaled(b & six, c >> 4 & four | b >> 2 & upper, negated(half(block.add(2))));
        let zero = _mm256_setzero_ps();
        Factors { scales: [scales, zero], minimums: [minimums, zero] }
    }
}

/// Bit `BIT` of each byte, moved to bit `TO`.
#[inline(always)]
unsafe fn moved_bit<const BIT: u32, const TO: u32>(bytes: __m256i) -> __m256i {
    // SAFETY: every level has these instructions.
    unsafe {
        let bit = _mm256_and_si256(bytes, _mm256_set1_epi8((1_u8 << BIT).cast_signed()));
        if BIT > TO {
            _mm256_srl_epi16(bit, _mm_cvtsi32_si128((BIT - TO).cast_signed()))
        } else {
            _mm256_sll_epi16(bit, _mm_cvtsi32_si128((TO - BIT).cast_signed()))
        }
    }
}

/// Both nibbles of 32 bytes.
#[inline(always)]
unsafe fn both_nibbles(at: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller vouches for 32 bytes.
    unsafe {
        let (packed, mask) = (load(at), _mm256_set1_epi8(15));
        [_mm256_and_si256(packed, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask)]
    }
}

/// The four two-bit codes of 32 bytes.
#[inline(always)]
unsafe fn two_bits(at: *const u8) -> [__m256i; 4] {
    // SAFETY: the caller vouches for 32 bytes.
    unsafe {
        let (packed, mask) = (load(at), _mm256_set1_epi8(3));
        [
            _mm256_and_si256(packed, mask),
            _mm256_and_si256(_mm256_srli_epi16::<2>(packed), mask),
            _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask),
            _mm256_and_si256(_mm256_srli_epi16::<6>(packed), mask),
        ]
    }
}

macro_rules! blocks_of_256 {
    ($($name:ident: $bytes:literal bytes, group $group:literal, offset $offset:literal, most $most:literal,
        minimums $minimums:literal, codes $codes:ident, factors $factors:ident;)*) => {$(
        impl Encoding for $name {
            const GROUP: usize = $group;
            const BLOCK_GROUPS: usize = 8;
            const BLOCK_BYTES: usize = $bytes;
            const OFFSET: i32 = $offset;
            const SIGNED: bool = false;
            const MAX_CODE: i32 = $most;
            const HAS_MINIMUMS: bool = $minimums;

            #[inline(always)]
            unsafe fn codes<L: Level, const N: usize>(weights: *const u8) -> [__m256i; N] {
                // SAFETY: the caller vouches for a block.
                unsafe {
                    let all = $codes(weights);
                    let mut codes = [_mm256_setzero_si256(); N];
                    for index in 0..N {
                        codes[index] = all[index];
                    }
                    codes
                }
            }

            #[inline(always)]
            unsafe fn factors<const N: usize>(weights: *const u8) -> Factors {
                // SAFETY: the caller vouches for a block.
                unsafe { $factors(weights) }
            }
        }
    )*};
}

blocks_of_256! {
    Q2K: 84 bytes, group 16, offset 0, most 3, minimums true, codes q2_codes, factors q2_factors;
    Q3K: 110 bytes, group 16, offset 4, most 7, minimums false, codes q3_codes, factors q3_factors;
    Q4K: 144 bytes, group 32, offset 0, most 15, minimums true, codes q4_codes, factors k4_factors;
    Q5K: 176 bytes, group 32, offset 0, most 31, minimums true, codes q5_codes, factors k4_factors;
    Q6K: 210 bytes, group 16, offset 32, most 63, minimums false, codes q6_codes, factors q6_factors;
}

// SAFETY of every block below: the caller vouches for one block of the type, and for a level.

#[inline(always)]
unsafe fn q2_codes(block: *const u8) -> [__m256i; 8] {
    // SAFETY: see above.
    unsafe {
        let [a, b, c, d] = two_bits(block.add(16));
        let [e, f, g, h] = two_bits(block.add(48));
        [a, b, c, d, e, f, g, h]
    }
}

#[inline(always)]
unsafe fn q2_factors(block: *const u8) -> Factors {
    // SAFETY: see above.
    unsafe {
        let (packed, mask) = (_mm_loadu_si128(block.cast()), _mm_set1_epi8(15));
        let offsets = _mm_and_si128(_mm_srli_epi16::<4>(packed), mask);
        Factors {
            scales: scaled_16(_mm_and_si128(packed, mask), half(block.add(80))),
            minimums: scaled_16(offsets, negated(half(block.add(82)))),
        }
    }
}

#[inline(always)]
unsafe fn q3_codes(block: *const u8) -> [__m256i; 8] {
    // SAFETY: see above.
    unsafe {
        let high = load(block);
        let [a, b, c, d] = two_bits(block.add(32));
        let [e, f, g, h] = two_bits(block.add(64));
        [
            _mm256_or_si256(a, moved_bit::<0, 2>(high)),
            _mm256_or_si256(b, moved_bit::<1, 2>(high)),
            _mm256_or_si256(c, moved_bit::<2, 2>(high)),
            _mm256_or_si256(d, moved_bit::<3, 2>(high)),
            _mm256_or_si256(e, moved_bit::<4, 2>(high)),
            _mm256_or_si256(f, moved_bit::<5, 2>(high)),
            _mm256_or_si256(g, moved_bit::<6, 2>(high)),
            _mm256_or_si256(h, moved_bit::<7, 2>(high)),
        ]
    }
}

#[inline(always)]
unsafe fn q3_factors(block: *const u8) -> Factors {
    // SAFETY: see above.
    unsafe {
        let (a, b, c) = (word(block.add(96)), word(block.add(100)), word(block.add(104)));
        let (four, two) = (0x0f0f_0f0f, 0x0303_0303);
        let packed = _mm_setr_epi32(
            (a & four | (c & two) << 4).cast_signed(),
            (b & four | (c >> 2 & two) << 4).cast_signed(),
            (a >> 4 & four | (c >> 4 & two) << 4).cast_signed(),
            (b >> 4 & four | (c >> 6 & two) << 4).cast_signed(),
        );
        let factors = _mm_sub_epi8(packed, _mm_set1_epi8(32));
        Factors { scales: scaled_16(factors, half(block.add(108))), minimums: [_mm256_setzero_ps(); 2] }
    }
}

#[inline(always)]
unsafe fn q4_codes(block: *const u8) -> [__m256i; 8] {
    // SAFETY: see above.
    unsafe {
        let [a, b] = both_nibbles(block.add(16));
        let [c, d] = both_nibbles(block.add(48));
        let [e, f] = both_nibbles(block.add(80));
        let [g, h] = both_nibbles(block.add(112));
        [a, b, c, d, e, f, g, h]
    }
}

#[inline(always)]
unsafe fn q5_codes(block: *const u8) -> [__m256i; 8] {
    // SAFETY: see above.
    unsafe {
        let high = load(block.add(16));
        let [a, b] = both_nibbles(block.add(48));
        let [c, d] = both_nibbles(block.add(80));
        let [e, f] = both_nibbles(block.add(112));
        let [g, h] = both_nibbles(block.add(144));
        [
            _mm256_or_si256(a, moved_bit::<0, 4>(high)),
            _mm256_or_si256(b, moved_bit::<1, 4>(high)),
            _mm256_or_si256(c, moved_bit::<2, 4>(high)),
            _mm256_or_si256(d, moved_bit::<3, 4>(high)),
            _mm256_or_si256(e, moved_bit::<4, 4>(high)),
            _mm256_or_si256(f, moved_bit::<5, 4>(high)),
            _mm256_or_si256(g, moved_bit::<6, 4>(high)),
            _mm256_or_si256(h, moved_bit::<7, 4>(high)),
        ]
    }
}

/// 128 codes: `low` has 64 bytes, `high` 32.
#[inline(always)]
unsafe fn q6_half(low: *const u8, high: *const u8) -> [__m256i; 4] {
    // SAFETY: see above.
    unsafe {
        let [a, c] = both_nibbles(low);
        let [b, d] = both_nibbles(low.add(32));
        let (high, mask) = (load(high), _mm256_set1_epi8(0x30));
        [
            _mm256_or_si256(a, _mm256_and_si256(_mm256_slli_epi16::<4>(high), mask)),
            _mm256_or_si256(b, _mm256_and_si256(_mm256_slli_epi16::<2>(high), mask)),
            _mm256_or_si256(c, _mm256_and_si256(high, mask)),
            _mm256_or_si256(d, _mm256_and_si256(_mm256_srli_epi16::<2>(high), mask)),
        ]
    }
}

#[inline(always)]
unsafe fn q6_codes(block: *const u8) -> [__m256i; 8] {
    // SAFETY: see above.
    unsafe {
        let [a, b, c, d] = q6_half(block, block.add(128));
        let [e, f, g, h] = q6_half(block.add(64), block.add(160));
        [a, b, c, d, e, f, g, h]
    }
}

#[inline(always)]
unsafe fn q6_factors(block: *const u8) -> Factors {
    // SAFETY: see above.
    unsafe {
        let factors = _mm_loadu_si128(block.add(192).cast());
        Factors { scales: scaled_16(factors, half(block.add(208))), minimums: [_mm256_setzero_ps(); 2] }
    }
}
