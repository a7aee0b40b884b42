//! The vectors of x86-64. AVX-512 needs Rust 1.89.
#![allow(clippy::incompatible_msrv, clippy::needless_range_loop)]

use std::arch::x86_64::*;

use half::f16;

use super::Lanes;

/// 256 bits: AVX2, FMA, F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// 512 bits: AVX-512 F, BW, DQ, VL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY of every block below: `Lanes` methods run only where the processor has the level's
// instructions, and slices are cut to the vector's length before their pointers are used.

impl Lanes for Avx2 {
    const WIDTH: usize = 8;
    const BLOCK: usize = 2;

    #[inline(always)]
    fn prefetch(address: *const u8) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    fn load(values: &[f32]) -> Self {
        let values = &values[..8];
        // SAFETY: see above.
        Self(unsafe { _mm256_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(values: &[f16]) -> Self {
        let values = &values[..8];
        // SAFETY: see above.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(values.as_ptr().cast())) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32]) {
        let values = &mut values[..8];
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let mask = _mm256_set1_ps(-0.0);
            Self(_mm256_or_ps(_mm256_andnot_ps(mask, self.0), _mm256_and_ps(mask, sign.0)))
        }
    }

    #[inline(always)]
    fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0)) })
    }

    #[inline(always)]
    fn scale_by_power(self, exponent: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm256_cvtps_epi32(exponent.0);
            let first = _mm256_srai_epi32::<1>(exponent);
            let second = _mm256_sub_epi32(exponent, first);
            let bias = _mm256_set1_epi32(127);
            let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(first, bias));
            let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(second, bias));
            Self(_mm256_mul_ps(_mm256_mul_ps(self.0, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second)))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
        }
    }

    #[inline(always)]
    fn sum_each([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: see above; four lanes are stored to four elements.
        unsafe {
            let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0));
            let all = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
            _mm_storeu_ps(sums.as_mut_ptr(), all);
        }
        sums
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let lowest = _mm256_set1_ps(f32::NEG_INFINITY);
            let values = _mm256_max_ps(self.0, lowest);
            let half = _mm_max_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
            let quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
        }
    }

    #[inline(always)]
    fn round_to_bytes(values: &[f32; 32], factor: f32, bytes: &mut [i8; 32]) -> [i16; 2] {
        // SAFETY: see above; loads are of eight of the values, the stores of 32 bytes and of two sums.
        unsafe {
            let factor = _mm256_set1_ps(factor);
            let mut words = [_mm256_setzero_si256(); 4];
            for index in 0..4 {
                let scaled = _mm256_mul_ps(_mm256_loadu_ps(values.as_ptr().add(8 * index)), factor);
                words[index] = _mm256_cvtps_epi32(scaled);
            }
            // Both halves of a vector are packed apart, which leaves four bytes of each of the words in turn.
            let [a, b, c, d] = words;
            let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let packed = _mm256_max_epi8(packed, _mm256_set1_epi8(-127));
            let ordered = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), ordered);
            let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), ordered);
            let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            let eights = _mm256_add_epi32(fours, _mm256_shuffle_epi32::<0b01_00_11_10>(fours));
            let sums = _mm256_add_epi32(eights, _mm256_shuffle_epi32::<0b10_11_00_01>(eights));
            [_mm256_extract_epi32::<0>(sums) as i16, _mm256_extract_epi32::<4>(sums) as i16]
        }
    }
}

impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    const BLOCK: usize = 4;

    #[inline(always)]
    fn prefetch(address: *const u8) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(values: &[f32]) -> Self {
        let values = &values[..16];
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(values: &[f16]) -> Self {
        let values = &values[..16];
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(values.as_ptr().cast())) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32]) {
        let values = &mut values[..16];
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let mask = _mm512_set1_ps(-0.0);
            Self(_mm512_or_ps(_mm512_andnot_ps(mask, self.0), _mm512_and_ps(mask, sign.0)))
        }
    }

    #[inline(always)]
    fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, bound.0), no.0, yes.0) })
    }

    #[inline(always)]
    fn scale_by_power(self, exponent: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_scalef_ps(self.0, exponent.0) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see above.
        Avx2(unsafe { _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)) }).sum()
    }

    #[inline(always)]
    fn sum_each(vectors: [Self; 4]) -> [f32; 4] {
        // A loop and not `map`: see `lanes::map`.
        let mut halves = [Avx2::splat(0.0); 4];
        for index in 0..4 {
            let vector = vectors[index].0;
            // SAFETY: see above.
            let half = unsafe { _mm256_add_ps(_mm512_castps512_ps256(vector), _mm512_extractf32x8_ps::<1>(vector)) };
            halves[index] = Avx2(half);
        }
        Avx2::sum_each(halves)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let values = _mm512_max_ps(self.0, _mm512_set1_ps(f32::NEG_INFINITY));
            Avx2(_mm256_max_ps(_mm512_castps512_ps256(values), _mm512_extractf32x8_ps::<1>(values))).largest()
        }
    }

    #[inline(always)]
    fn round_to_bytes(values: &[f32; 32], factor: f32, bytes: &mut [i8; 32]) -> [i16; 2] {
        // The level has the other's instructions.
        Avx2::round_to_bytes(values, factor, bytes)
    }
}
