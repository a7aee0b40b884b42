//! Weighted least-squares fits of integer codes: the searches inside the `_K` quantisers.
//!
//! All arithmetic is `f64` additions, multiplications and divisions in a fixed order, so that a result does not depend
//! on the machine.

use super::{HalfBytes, codebook};

/// The integer in `low..=high` nearest to `value`; halves go up, NaN to `low`.
#[inline]
pub(super) fn nearest(value: f64, low: i32, high: i32) -> i32 {
    // Truncation after a shift to non-negative values: `f64::round` is a library call on plain x86-64.
    (value.clamp(f64::from(low), f64::from(high)) - f64::from(low) + 0.5) as i32 + low
}

/// The integers that a code can stand for.
#[derive(Clone, Copy)]
pub(super) enum Lattice {
    /// Every integer from `low` to `high`.
    Range { low: i32, high: i32 },
    /// The levels of `IQ4_NL` and `IQ4_XS`.
    Iq4Levels,
}

impl Lattice {
    /// Lowest and highest.
    fn ends(self) -> [i32; 2] {
        match self {
            Lattice::Range { low, high } => [low, high],
            Lattice::Iq4Levels => [codebook::LOWEST, codebook::HIGHEST],
        }
    }

    /// The nearest to `value`; halves go up, NaN to the lowest.
    #[inline]
    pub fn nearest(self, value: f64) -> i32 {
        match self {
            Lattice::Range { low, high } => nearest(value, low, high),
            Lattice::Iq4Levels => codebook::nearest_level(value),
        }
    }
}

/// Weights of the squared errors of elements in groups of `group_len`: large elements count more than small ones; each times
/// its importance, where that is given.
pub(super) fn weights<const N: usize>(values: &[f64; N], importance: Option<&[f32; N]>, group_len: usize) -> [f64; N] {
    let mut weights = [0.0; N];
    for (weights, values) in weights.chunks_mut(group_len).zip(values.chunks(group_len)) {
        let mean_square = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
        for (weight, x) in weights.iter_mut().zip(values) {
            *weight = mean_square.sqrt() + x.abs();
        }
    }
    if let Some(importance) = importance {
        for (weight, &factor) in weights.iter_mut().zip(importance) {
            *weight *= f64::from(factor);
        }
    }
    weights
}

/// Sums over elements `x` with weights `w` and codes `q`.
#[derive(Clone, Copy, Default)]
struct Moments {
    w: f64,
    wx: f64,
    wq: f64,
    wqq: f64,
    wxq: f64,
}

fn moments(values: &[f64], weights: &[f64], code: impl Fn(f64) -> i32) -> Moments {
    let mut sums = Moments::default();
    for (&x, &w) in values.iter().zip(weights) {
        let q = f64::from(code(x));
        sums.w += w;
        sums.wx += w * x;
        sums.wq += w * q;
        sums.wqq += w * q * q;
        sums.wxq += w * x * q;
    }
    sums
}

/// Offsets of the search around "the extreme value gets the extreme code", in codes.
fn offsets() -> impl Iterator<Item = f64> {
    (-12..=12).map(|step| f64::from(step) * 0.1)
}

/// The scale `s` for `x ~ s q` with integers `q` of `lattice` that makes `sum w (x - s q)^2` small.
///
/// Codes for a given `s` are the nearest ones. Zero when all values or weights are zero.
pub(super) fn linear(values: &[f64], weights: &[f64], lattice: Lattice) -> f64 {
    let extreme = values.iter().fold(0.0f64, |most, &x| if x.abs() > most.abs() { x } else { most });
    if extreme == 0.0 {
        return 0.0;
    }
    // The error at the best scale for given codes is `sum w x^2 - gain`.
    let evaluate = |inverse: f64| {
        let sums = moments(values, weights, |x| lattice.nearest(x * inverse));
        if sums.wqq > 0.0 { (sums.wxq * sums.wxq / sums.wqq, sums.wxq / sums.wqq) } else { (0.0, 0.0) }
    };
    let (mut best_gain, mut best_scale) = (0.0, 0.0);
    for target in lattice.ends() {
        if target == 0 {
            continue;
        }
        for offset in offsets() {
            let (gain, scale) = evaluate((f64::from(target) + offset) / extreme);
            if gain > best_gain {
                (best_gain, best_scale) = (gain, scale);
            }
        }
    }
    for _ in 0..8 {
        let (gain, scale) = evaluate(1.0 / best_scale);
        if gain <= best_gain {
            break;
        }
        (best_gain, best_scale) = (gain, scale);
    }
    best_scale
}

/// The scale `s >= 0` and minimum `m >= 0` for `x ~ s q - m` with integers `q` in `0..=high` that make
/// `sum w (x - s q + m)^2` small.
pub(super) fn affine(values: &[f64], weights: &[f64], high: i32) -> (f64, f64) {
    let lowest = values.iter().fold(0.0f64, |low, &x| low.min(x));
    let highest = values.iter().fold(0.0f64, |most, &x| most.max(x));
    if highest == lowest {
        return (0.0, 0.0);
    }
    let refit = |inverse: f64, min: f64| {
        let sums = moments(values, weights, |x| nearest((x + min) * inverse, 0, high));
        solve_affine(&sums)
    };
    let error = |scale: f64, min: f64| {
        let inverse = 1.0 / scale;
        values.iter().zip(weights).fold(0.0, |sum, (&x, &w)| {
            let difference = scale * f64::from(nearest((x + min) * inverse, 0, high)) - min - x;
            sum + w * difference * difference
        })
    };
    let mut best = ((highest - lowest) / f64::from(high), -lowest);
    let mut best_error = error(best.0, best.1);
    let mut consider = |candidate: Option<(f64, f64)>, best: &mut (f64, f64)| {
        let Some((scale, min)) = candidate else { return false };
        let candidate_error = error(scale, min);
        let better = candidate_error < best_error;
        if better {
            (*best, best_error) = ((scale, min), candidate_error);
        }
        better
    };
    for offset in offsets() {
        consider(refit((f64::from(high) + offset) / (highest - lowest), -lowest), &mut best);
    }
    for _ in 0..8 {
        if !consider(refit(1.0 / best.0, best.1), &mut best) {
            break;
        }
    }
    best
}

/// Scale and codes `q + half` of `x ~ d q`, `q` in `-half..half`, with a small weighted squared error.
pub(super) fn symmetric_block(values: &[f32; 32], importance: &[f32; 32], half: i32) -> (HalfBytes, [u8; 32]) {
    let lattice = Lattice::Range { low: -half, high: half - 1 };
    let values = values.map(f64::from);
    let weights = weights(&values, Some(importance), 32);
    let d = HalfBytes::from_f32(linear(&values, &weights, lattice) as f32);
    let unit = f64::from(d.to_f32());
    let code = |x: f64| if unit == 0.0 { 0 } else { lattice.nearest(x / unit) };
    (d, values.map(|x| (code(x) + half) as u8))
}

/// Scale, minimum and codes of `x ~ d q + m`, `q` in `0..=high`, with a small weighted squared error.
pub(super) fn affine_block(values: &[f32; 32], importance: &[f32; 32], high: i32) -> (HalfBytes, HalfBytes, [u8; 32]) {
    let values = values.map(f64::from);
    let weights = weights(&values, Some(importance), 32);
    // The search wants minima that are not above zero.
    let shift = values.iter().fold(f64::INFINITY, |low, &x| low.min(x)).max(0.0);
    let (scale, min) = affine(&values.map(|x| x - shift), &weights, high);
    let (d, m) = (HalfBytes::from_f32(scale as f32), HalfBytes::from_f32((shift - min) as f32));
    let (unit, low) = (f64::from(d.to_f32()), f64::from(m.to_f32()));
    let code = |x: f64| if unit == 0.0 { 0 } else { nearest((x - low) / unit, 0, high) };
    (d, m, values.map(|x| code(x) as u8))
}

/// Least squares for fixed codes, with `m >= 0`; `None` where the codes leave it open or the scale is not positive.
fn solve_affine(sums: &Moments) -> Option<(f64, f64)> {
    let determinant = sums.w * sums.wqq - sums.wq * sums.wq;
    if determinant > 0.0 {
        let scale = (sums.w * sums.wxq - sums.wx * sums.wq) / determinant;
        let min = (sums.wq * sums.wxq - sums.wqq * sums.wx) / determinant;
        if min >= 0.0 {
            return (scale > 0.0).then_some((scale, min));
        }
    }
    let scale = sums.wxq / sums.wqq;
    (scale > 0.0 && scale.is_finite()).then_some((scale, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: Lattice = Lattice::Range { low: -4, high: 3 };

    #[test]
    fn nearest_clamps_and_rounds() {
        assert_eq!(nearest(2.4, -4, 3), 2);
        assert_eq!(nearest(-2.6, -4, 3), -3);
        assert_eq!(nearest(9.0, -4, 3), 3);
        assert_eq!(nearest(-9.0, -4, 3), -4);
        assert_eq!(nearest(f64::INFINITY, 0, 15), 15);
        assert_eq!(nearest(f64::NAN, -4, 3), -4);
    }

    #[test]
    fn exact_lattices_are_found() {
        let weights = [1.0; 8];
        let codes = [-4, 3, 0, 1, -2, 2, -1, -3];
        for scale in [0.25, -0.125, 1e-30, 1e20] {
            let values = codes.map(|code| f64::from(code) * scale);
            let found = linear(&values, &weights, CODES);
            let restored = values.map(|x| found * f64::from(nearest(x / found, -4, 3)));
            for (x, y) in values.iter().zip(restored) {
                assert!((x - y).abs() <= 1e-12 * scale.abs(), "{x} came back as {y} with scale {found}");
            }
        }
        let values = [0, 15, 7, 3, 4, 9, 1, 11].map(|code| f64::from(code) * 0.5 - 2.0);
        let (scale, min) = affine(&values, &weights, 15);
        assert!((scale - 0.5).abs() < 1e-12 && (min - 2.0).abs() < 1e-12, "{scale} {min}");
    }

    #[test]
    fn degenerate_input_gives_usable_scales() {
        assert_eq!(linear(&[0.0; 4], &[1.0; 4], CODES), 0.0);
        assert_eq!(linear(&[1.0; 4], &[0.0; 4], CODES), 0.0);
        assert_eq!(affine(&[0.0; 4], &[1.0; 4], 15), (0.0, 0.0));
        let (scale, min) = affine(&[3.0; 4], &[1.0; 4], 15);
        assert!(min == 0.0 && (scale * 15.0 - 3.0).abs() < 1e-12, "{scale} {min}");
        let (scale, min) = affine(&[-3.0; 4], &[1.0; 4], 15);
        assert!(scale >= 0.0 && (min - 3.0).abs() < 1e-12, "{scale} {min}");
    }
}
