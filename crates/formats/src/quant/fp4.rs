//! The small floating-point numbers of the microscaling formats: 4-bit elements and 8-bit scales.
//!
//! Sources: OCP Microscaling Formats (MX) 1.0, section 5, for E2M1, E8M0 and E4M3;
//! <https://github.com/ggml-org/ggml/blob/master/src/ggml-impl.h> for what ggml makes of them.

/// Twice the value of each E2M1 code: sign, two exponent bits, one mantissa bit.
///
/// Code 8, the negative zero, is written as the positive one, as in ggml.
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half the value of an E8M0 code: `2^(code - 128)`, which `f32` holds for every code.
#[inline]
pub fn half_e8m0(code: u8) -> f32 {
    match code {
        0 | 1 => f32::from_bits(0x0020_0000 << code),
        _ => f32::from_bits(u32::from(code - 1) << 23),
    }
}

/// Half the value of an unsigned E4M3 code as ggml reads it: the upper bit is ignored, except that 0x7f is 0 and 0xff is 240.
#[inline]
pub fn half_ue4m3(code: u8) -> f32 {
    if code == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (u32::from(code >> 3 & 0x0f), f32::from(code & 7));
    match exponent {
        0 => mantissa / 1024.0,
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((exponent + 127 - 8) << 23),
    }
}

/// The largest unsigned E4M3 number.
pub(super) const LARGEST_UE4M3: f32 = 448.0;

/// Unsigned E4M3 code of `value`: nearest, halves away from zero; 448 for what is larger. ggml's differs for values from 248 to
/// 432, all of which it stores as 448.
pub(super) fn to_ue4m3(value: f32) -> u8 {
    const LEAST_NORMAL: f32 = 1.0 / 64.0;
    if value.is_nan() || value <= 0.0 {
        return 0;
    }
    if value < LEAST_NORMAL {
        // ggml stays below the normal numbers.
        return ((value * 512.0 + 0.5) as u8).min(7);
    }
    // Rounding to three mantissa bits carries into the exponent where it has to.
    let rounded = (value.min(LARGEST_UE4M3).to_bits() + (1 << 19)) >> 20;
    (rounded - ((127 - 7) << 3)).min(0x7e) as u8
}

/// The first of the codes whose value, [`E2M1_DOUBLED`] times `half_scale`, is nearest to `value`.
pub(super) fn nearest_e2m1(value: f32, half_scale: f32) -> u8 {
    let distance = |code: u8| (half_scale * f32::from(E2M1_DOUBLED[usize::from(code)]) - value).abs();
    (1..16).fold(0, |best, code| if distance(code) < distance(best) { code } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_the_values_of_their_formats() {
        for code in 0..=255u8 {
            assert_eq!(f64::from(half_e8m0(code)), 2f64.powi(i32::from(code) - 128));
        }
        assert_eq!(
            [0x00, 0x01, 0x08, 0x38, 0x7e, 0x7f].map(half_ue4m3),
            [0.0, 1.0 / 1024.0, 1.0 / 128.0, 0.5, 224.0, 0.0]
        );
    }

    #[test]
    fn codes_of_unsigned_e4m3_come_back() {
        for code in 0..0x7f {
            assert_eq!(to_ue4m3(2.0 * half_ue4m3(code)), code);
        }
        assert_eq!([-1.0, f32::NAN, 1e9, 1e-9].map(to_ue4m3), [0, 0, 0x7e, 0]);
        // Halfway between 16 and 18.
        assert_eq!(2.0 * half_ue4m3(to_ue4m3(17.0)), 18.0);
    }
}
