//! Arrays that compilers turn into vectors of whatever the target has.

use half::f16;

use super::Lanes;

/// Eight lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

/// Added to a number of magnitude up to 2^22, leaves it rounded to a whole number in the low bits.
const ROUNDING: f32 = 12_582_912.0;

/// One number from each lane of the vectors. Not a function of closures: see [`super::map`].
macro_rules! each_lane {
    (|$lane:ident| $value:expr) => {{
        let mut values = [0.0; 8];
        for ($lane, value) in values.iter_mut().enumerate() {
            *value = $value;
        }
        Self(values)
    }};
}

/// `2^exponent` for whole numbers in -126..=127.
#[inline(always)]
fn power(exponent: f32) -> f32 {
    f32::from_bits((exponent + ROUNDING).to_bits().wrapping_add(127) << 23)
}

/// Exact, and free of branches, so that it vectorises: the bits are put where `f32` has them, and the
/// product with 2^112 mends the exponent, that of subnormal numbers too.
#[inline(always)]
fn widen(value: f16) -> f32 {
    let bits = u32::from(value.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let infinite = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | infinite | (bits & 0x8000) << 16)
}

impl Lanes for Portable {
    const WIDTH: usize = 8;
    const BLOCK: usize = 1;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    fn load(values: &[f32]) -> Self {
        let values = &values[..8];
        each_lane!(|lane| values[lane])
    }

    #[inline(always)]
    fn load_f16(values: &[f16]) -> Self {
        let values = &values[..8];
        each_lane!(|lane| widen(values[lane]))
    }

    #[inline(always)]
    fn store(self, values: &mut [f32]) {
        values[..8].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each_lane!(|lane| self.0[lane] + other.0[lane])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each_lane!(|lane| self.0[lane] - other.0[lane])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each_lane!(|lane| self.0[lane] * other.0[lane])
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each_lane!(|lane| self.0[lane] / other.0[lane])
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        each_lane!(|lane| self.0[lane] * factor.0[lane] + addend.0[lane])
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        each_lane!(|lane| if self.0[lane] > other.0[lane] { self.0[lane] } else { other.0[lane] })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        each_lane!(|lane| if self.0[lane] < other.0[lane] { self.0[lane] } else { other.0[lane] })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        each_lane!(|lane| self.0[lane].abs())
    }

    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        each_lane!(|lane| self.0[lane].copysign(sign.0[lane]))
    }

    #[inline(always)]
    fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        each_lane!(|lane| if self.0[lane] < bound.0[lane] { yes.0[lane] } else { no.0[lane] })
    }

    #[inline(always)]
    fn scale_by_power(self, exponent: Self) -> Self {
        each_lane!(|lane| {
            let first = (exponent.0[lane] * 0.5 + ROUNDING) - ROUNDING;
            self.0[lane] * power(first) * power(exponent.0[lane] - first)
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (b + f)) + ((c + g) + (d + h))
    }

    #[inline(always)]
    fn sum_each([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        [a.sum(), b.sum(), c.sum(), d.sum()]
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // `f32::max` passes over NaN.
        let [a, b, c, d, e, f, g, h] = self.0;
        let largest = a.max(e).max(b.max(f)).max(c.max(g).max(d.max(h)));
        if largest.is_nan() { f32::NEG_INFINITY } else { largest }
    }

    #[inline(always)]
    fn round_to_bytes(values: &[f32; 32], factor: f32, bytes: &mut [i8; 32]) -> [i16; 2] {
        for (byte, value) in bytes.iter_mut().zip(values) {
            *byte = ((value * factor).clamp(-127.0, 127.0) + ROUNDING).to_bits() as i8;
        }
        let sum = |bytes: &[i8]| bytes.iter().map(|&byte| i16::from(byte)).sum();
        [sum(&bytes[..16]), sum(&bytes[16..])]
    }
}
