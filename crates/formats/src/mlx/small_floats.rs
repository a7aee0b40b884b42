//! The 4-bit and 8-bit floating-point numbers of the microscaled modes, as MLX reads them.
//!
//! Source: OCP Microscaling Formats (MX) 1.0, section 5.

/// E2M1: sign, two exponent bits, one mantissa bit; the upper four bits of `code` are ignored.
#[inline]
pub fn e2m1(code: u8) -> f32 {
    const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let magnitude = MAGNITUDES[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// E4M3: sign, four exponent bits with bias 7, three mantissa bits; 0x7f and 0xff are NaN, nothing is infinite.
#[inline]
pub fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(code >> 3 & 0x0f), u32::from(code & 7));
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa as f32 / 512.0,
        _ => f32::from_bits((exponent + 127 - 7) << 23 | mantissa << 20),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// E8M0: `2^(code - 127)`. 255, the format's NaN, is infinite in MLX, and so it is here.
#[inline]
pub fn e8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000),
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_formats() {
        assert_eq!((0..8).map(e2m1).collect::<Vec<_>>(), [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert!((0..8).all(|code| e2m1(code | 8).to_bits() == (-e2m1(code)).to_bits()));
        for code in 0..0x7f {
            let (exponent, mantissa) = (i32::from(code >> 3), f64::from(code & 7) / 8.0);
            let expected =
                if exponent == 0 { mantissa * 2f64.powi(-6) } else { (1.0 + mantissa) * 2f64.powi(exponent - 7) };
            assert_eq!(f64::from(e4m3(code)), expected);
            assert_eq!(e4m3(code | 0x80), -e4m3(code));
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        for code in 0..=254 {
            assert_eq!(f64::from(e8m0(code)), 2f64.powi(i32::from(code) - 127));
        }
        assert_eq!(e8m0(255), f32::INFINITY);
    }
}
