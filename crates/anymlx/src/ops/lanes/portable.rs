//! Arrays that compilers turn into vectors of whatever the target has.

use half::f16;

use super::Lanes;

/// Eight lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

/// Added to a number of magnitude up to 2^22, leaves it rounded to a whole number in the low bits.
const ROUNDING: f32 = 12_582_912.0;

impl Portable {
    #[inline(always)]
    fn combine(self, other: Self, function: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| function(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn fold(self, function: impl Fn(f32, f32) -> f32) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        function(function(function(a, e), function(b, f)), function(function(c, g), function(d, h)))
    }
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
        Self(std::array::from_fn(|lane| values[lane]))
    }

    #[inline(always)]
    fn load_f16(values: &[f16]) -> Self {
        let values = &values[..8];
        Self(std::array::from_fn(|lane| widen(values[lane])))
    }

    #[inline(always)]
    fn store(self, values: &mut [f32]) {
        values[..8].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.combine(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.combine(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.combine(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.combine(other, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * factor.0[lane] + addend.0[lane]))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.combine(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.combine(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        self.combine(sign, f32::copysign)
    }

    #[inline(always)]
    fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|lane| if self.0[lane] < bound.0[lane] { yes.0[lane] } else { no.0[lane] }))
    }

    #[inline(always)]
    fn scale_by_power(self, exponent: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            let first = (exponent.0[lane] * 0.5 + ROUNDING) - ROUNDING;
            self.0[lane] * power(first) * power(exponent.0[lane] - first)
        }))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        self.fold(|a, b| a + b)
    }

    #[inline(always)]
    fn sum_each(vectors: [Self; 4]) -> [f32; 4] {
        vectors.map(Self::sum)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.fold(|a, b| if a > b || b.is_nan() { a } else { b })
    }
}
