//! Elementary functions on vectors.
//!
//! The polynomials are least-maximum fits of relative error, made by iteratively reweighted least
//! squares in `f64` and rounded to `f32`. The tests hold the stated errors against `f64`.

#[cfg(test)]
mod tests;

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

use super::lanes::Lanes;

/// Added to a number of magnitude up to 2^22, rounds it to a whole number; subtract it again.
const ROUNDING: f32 = 12_582_912.0;

#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(x: L, coefficients: [f32; N]) -> L {
    let mut value = L::splat(coefficients[N - 1]);
    for &coefficient in coefficients[..N - 1].iter().rev() {
        value = value.mul_add(x, L::splat(coefficient));
    }
    value
}

/// `e^x`, within 2 units in the last place; infinity above 88.73, 0 below -104, NaN for NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, and `e^r = 1 + r + r² q(r)`.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(x: L) -> L {
    // Nine bits: its product with `n` is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = L::splat(89.0).min(L::splat(-104.0).max(x));
    let rounding = L::splat(ROUNDING);
    let n = x.mul_add(L::splat(LOG2_E), rounding).sub(rounding);
    let r = n.mul_add(L::splat(-LN_2_HIGH), x);
    let r = n.mul_add(L::splat(-LN_2_LOW), r);
    let q = polynomial(r, [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_717, 0.001_381_459_9]);
    q.mul_add(r.mul(r), r).add(L::splat(1.0)).scale_by_power(n)
}

/// `tanh x`, within 3 units in the last place.
#[inline(always)]
pub(crate) fn tanh<L: Lanes>(x: L) -> L {
    let size = x.abs();
    let square = x.mul(x);
    let cubic = polynomial(square, [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_086, -0.005_704_985_5]);
    let near = cubic.mul(square).mul_add(size, size);
    let one = L::splat(1.0);
    let far = one.sub(L::splat(2.0).div(exp(size.add(size)).add(one)));
    size.select_less(L::splat(0.625), near, far).copy_sign(x)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    x.div(exp(L::splat(0.0).sub(x)).add(one))
}

/// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))`, as `x / (1 + e^-2u)`.
#[inline(always)]
pub(crate) fn gelu_tanh<L: Lanes>(x: L) -> L {
    const MINUS_TWICE_SQRT_2_OVER_PI: f32 = -1.595_769;
    let cubic = x.mul(x).mul_add(L::splat(0.044_715), L::splat(1.0));
    let u = x.mul(cubic).mul(L::splat(MINUS_TWICE_SQRT_2_OVER_PI));
    x.div(exp(u).add(L::splat(1.0)))
}

/// `x / 2 (1 + erf(x / sqrt 2))`.
///
/// `erfc z = t p(t) e^-z²` for `z >= 0` with `t = 1 / (1 + z / 2)`.
#[inline(always)]
pub(crate) fn gelu_erf<L: Lanes>(x: L) -> L {
    let z = x.abs().mul(L::splat(FRAC_1_SQRT_2));
    let one = L::splat(1.0);
    let t = one.div(z.mul_add(L::splat(0.5), one));
    let p = polynomial(
        t,
        [
            0.282_085_72,
            0.282_387_58,
            0.243_014_78,
            0.203_038_04,
            -0.027_453_53,
            0.279_266_03,
            -0.488_245_5,
            0.285_078_85,
            -0.059_172_038,
        ],
    );
    let half_erfc = t.mul(p).mul(exp(z.mul(L::splat(0.0).sub(z)))).mul(L::splat(0.5));
    x.mul(x.select_less(L::splat(0.0), half_erfc, one.sub(half_erfc)))
}
