//! How far a kernel may be from its `f64` reference.
//!
//! # The model
//!
//! A value `x` is accepted beside its reference `y` when `|x - y| <= abs + rel * |y|`. Both parts follow from the
//! arithmetic of the kernel, so that a test states *what the kernel does* and not a number that once happened to pass:
//!
//! * `u` is the unit round-off of the type in which results are stored: 2^-24 for `f32`, 2^-11 for `f16`, 2^-8 for
//!   `bf16`, 2^-53 for `f64`; 0 for integers, which must be equal.
//! * `a` is the unit round-off of the accumulator: `f32` (or `f64` for `f64` results) unless
//!   [`Tolerance::accumulated_in`] says otherwise.
//! * `k` is the number of terms summed into one result ([`Tolerance::reduced_over`]).
//! * `m` is the magnitude of one term ([`Tolerance::with_magnitude`]), 1 unless stated.
//!
//! ```text
//! rel = 4 u + 4 a sqrt(k)
//! abs = (4 u + 4 a k) m
//! ```
//!
//! The `4 u` pay for the final rounding and a few roundings on the way there. In a running sum of `k` terms, step `i`
//! rounds a partial sum `s_i`, with an error of up to `a |s_i|` and of either sign. When the terms have one sign, `s_i`
//! grows like `i m`, the errors add up to about `a m sqrt(k^3 / 3)`, which is `a sqrt(k)` relative to the result: the part
//! in `rel`. When the signs are mixed, `s_i` grows like `sqrt(i) m` and the errors add up to about `a m k / sqrt(2)`
//! however small the result is after cancellation: the part in `abs`. The factor 4 covers the largest of many results
//! (four standard deviations). Any blocked or pairwise summation stays below that. The worst case of classical error
//! analysis, `k a * sum |term|`, is larger by about `sqrt(k)`; allowing it would let real mistakes pass.
//!
//! The reference must start from the same rounded inputs as the kernel: what is allowed for is the kernel's arithmetic,
//! not the rounding of its inputs.

use std::fmt;
use std::ops::Add;

use anymlx_formats::DType;

const ROUNDINGS: f64 = 4.0;
const DEVIATIONS: f64 = 4.0;
const WORST_SHOWN: usize = 5;

/// The allowed difference between a computed value and its `f64` reference; see the [module text](self) for the model.
///
/// ```
/// use anymlx_formats::DType;
/// use anymlx_testing::Tolerance;
///
/// let tolerance = Tolerance::for_dtype(DType::F32).reduced_over(64);
/// assert!(tolerance.check("dot", &[1.0], &[1.0 + 1e-7]).is_ok());
/// assert!(tolerance.check("dot", &[1.0], &[1.1]).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    result_roundoff: f64,
    accumulator_roundoff: f64,
    reduction: usize,
    magnitude: f64,
    extra_abs: f64,
    extra_rel: f64,
}

/// Unit round-off of a type: half the distance between 1 and the next larger value; 0 for integers.
pub fn unit_roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON / 2.0,
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::F16 => half::f16::EPSILON.to_f64() / 2.0,
        DType::BF16 => half::bf16::EPSILON.to_f64() / 2.0,
        _ => 0.0,
    }
}

impl Tolerance {
    /// Results stored as `dtype`, computed without a reduction, accumulated in `f32` (`f64` for `f64`).
    /// For integer types the values must be equal.
    pub fn for_dtype(dtype: DType) -> Self {
        let result_roundoff = unit_roundoff(dtype);
        Tolerance {
            result_roundoff,
            accumulator_roundoff: result_roundoff.min(unit_roundoff(DType::F32)),
            reduction: 0,
            magnitude: 1.0,
            extra_abs: 0.0,
            extra_rel: 0.0,
        }
    }

    /// A tolerance stated outright. For comparisons that the arithmetic model does not describe, such as the logits of a
    /// whole model: say where the numbers come from.
    pub fn explicit(limits: Limits) -> Self {
        Tolerance {
            result_roundoff: 0.0,
            accumulator_roundoff: 0.0,
            reduction: 0,
            magnitude: 1.0,
            extra_abs: limits.abs,
            extra_rel: limits.rel,
        }
    }

    /// What the quantisation of activations adds to a product of exact (dequantised) weights with exact activations, on
    /// top of `f32` arithmetic over the same reduction.
    ///
    /// A kernel that rounds activations to `bits` bits per block, symmetrically, uses steps of
    /// `d = amax / (2^(bits-1) - 1)`: 127 steps for 8 bits. Each activation is then off by at most `d / 2`, and a result
    /// `sum w_i x_i` by at most `d / 2 * sum |w_i|`, the *sum bound*. Errors of rounding are close to uniform and
    /// independent, with a standard deviation of `d / sqrt(12)`, so that the result's error has the standard deviation
    /// `d / sqrt(12) * sqrt(sum w_i^2)`; six of those are the *root bound*. The allowance is the smaller of the two, plus
    /// what block scales stored as `f16` add (one round-off of `f16` per block, of either sign).
    pub fn for_quantized_activations(activations: &QuantizedActivations) -> Self {
        let mut tolerance = Self::for_dtype(DType::F32)
            .reduced_over(activations.reduction)
            .with_magnitude(activations.activation_max * activations.weight_max);
        let scale_error = DEVIATIONS * unit_roundoff(DType::F16) * activations.activation_max * activations.weight_norm;
        tolerance.extra_abs = activations.allowance() + scale_error;
        tolerance.extra_rel = unit_roundoff(DType::F16);
        tolerance
    }

    /// Each result is a sum of `terms` terms.
    pub fn reduced_over(mut self, terms: usize) -> Self {
        self.reduction = terms;
        self
    }

    /// Sums are kept in `dtype` instead of `f32`.
    pub fn accumulated_in(mut self, dtype: DType) -> Self {
        self.accumulator_roundoff = unit_roundoff(dtype);
        self
    }

    /// The size of one term of the sum (or of the result, when nothing is summed), 1 unless stated. For a product of `x`
    /// and `w` about `rms(x) * rms(w)`.
    pub fn with_magnitude(mut self, magnitude: f64) -> Self {
        self.magnitude = magnitude.abs();
        self
    }

    /// Multiplies the whole allowance, for a chain of `factor` operations of the same kind.
    pub fn times(self, factor: f64) -> Self {
        Self::explicit(Limits { abs: self.abs() * factor, rel: self.rel() * factor })
    }

    /// The part that does not depend on the reference.
    pub fn abs(&self) -> f64 {
        let reduction = DEVIATIONS * self.accumulator_roundoff * self.reduction as f64;
        (ROUNDINGS * self.result_roundoff + reduction) * self.magnitude + self.extra_abs
    }

    /// The part in proportion to the reference.
    pub fn rel(&self) -> f64 {
        let reduction = DEVIATIONS * self.accumulator_roundoff * (self.reduction as f64).sqrt();
        ROUNDINGS * self.result_roundoff + reduction + self.extra_rel
    }

    /// The allowed difference beside `reference`.
    pub fn allowed(&self, reference: f64) -> f64 {
        self.abs() + self.rel() * reference.abs()
    }

    /// Compares element by element.
    ///
    /// # Errors
    /// [`Mismatch::Length`] when the lengths differ, [`Mismatch::Values`] when a difference passes the allowance or a value
    /// on either side is NaN. An infinity matches only the same infinity.
    pub fn check(&self, name: &str, actual: &[f32], reference: &[f64]) -> Result<Margin, Mismatch> {
        if actual.len() != reference.len() {
            return Err(Mismatch::Length { name: name.to_owned(), actual: actual.len(), reference: reference.len() });
        }
        let mut margin = Margin { name: name.to_owned(), compared: actual.len(), max_difference: 0.0, share: 0.0 };
        let mut failures = Vec::new();
        for (index, (&actual, &reference)) in actual.iter().zip(reference).enumerate() {
            let deviation = self.deviation(index, actual, reference);
            if deviation.share() <= 1.0 {
                margin.max_difference = margin.max_difference.max(deviation.difference);
                margin.share = margin.share.max(deviation.share());
            } else {
                failures.push(deviation);
            }
        }
        if failures.is_empty() {
            return Ok(margin);
        }
        let failed = failures.len();
        failures.sort_by(|a, b| b.share().total_cmp(&a.share()));
        failures.truncate(WORST_SHOWN);
        Err(Mismatch::Values { name: name.to_owned(), failed, compared: actual.len(), worst: failures })
    }

    fn deviation(&self, index: usize, actual: f32, reference: f64) -> Deviation {
        let actual = f64::from(actual);
        // Subtracting equal infinities would give NaN.
        let difference = if actual == reference { 0.0 } else { (actual - reference).abs() };
        let allowed = if reference.is_finite() { self.allowed(reference) } else { 0.0 };
        Deviation { index, actual, reference, difference, allowed }
    }
}

/// The sum of two allowances, for a result that carries both kinds of error.
impl Add for Tolerance {
    type Output = Tolerance;

    fn add(self, other: Tolerance) -> Tolerance {
        Tolerance { extra_abs: self.extra_abs + other.abs(), extra_rel: self.extra_rel + other.rel(), ..self }
    }
}

/// The two numbers of [`Tolerance::explicit`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Allowed whatever the reference is.
    pub abs: f64,
    /// Allowed per unit of the reference's absolute value.
    pub rel: f64,
}

/// What [`Tolerance::for_quantized_activations`] needs to know of a product `x [m, k] * w [n, k]^T`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizedActivations {
    /// Bits of one quantised activation, sign included.
    pub bits: u32,
    /// `k`, the length of one row.
    pub reduction: usize,
    /// Largest `|x|`.
    pub activation_max: f64,
    /// Largest `|w|`.
    pub weight_max: f64,
    /// Largest `sum |w|` of a row.
    pub weight_sum: f64,
    /// Largest `sqrt(sum w^2)` of a row.
    pub weight_norm: f64,
}

impl QuantizedActivations {
    /// Takes the figures from the data itself: `activations` of any number of rows, `weights` in rows of `reduction`.
    ///
    /// # Panics
    /// When `reduction` is 0 or does not divide both lengths, or when `bits` is outside 2..=31.
    pub fn measure(bits: u32, reduction: usize, activations: &[f32], weights: &[f32]) -> Self {
        assert!((2..=31).contains(&bits), "quantised activations of {bits} bits: needs 2 to 31");
        assert!(
            reduction > 0 && activations.len().is_multiple_of(reduction) && weights.len().is_multiple_of(reduction),
            "rows of {reduction} do not divide {} activations and {} weights",
            activations.len(),
            weights.len()
        );
        let largest = |values: &[f32]| values.iter().fold(0.0f64, |max, &value| max.max(f64::from(value).abs()));
        let mut weight_sum = 0.0f64;
        let mut weight_norm = 0.0f64;
        for row in weights.chunks_exact(reduction) {
            weight_sum = weight_sum.max(row.iter().map(|&w| f64::from(w).abs()).sum());
            weight_norm = weight_norm.max(row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt());
        }
        QuantizedActivations {
            bits,
            reduction,
            activation_max: largest(activations),
            weight_max: largest(weights),
            weight_sum,
            weight_norm,
        }
    }

    fn allowance(&self) -> f64 {
        let steps = f64::from((1u32 << (self.bits - 1)) - 1);
        let step = self.activation_max / steps;
        let sum_bound = step / 2.0 * self.weight_sum;
        let root_bound = 6.0 * step / 12f64.sqrt() * self.weight_norm;
        sum_bound.min(root_bound)
    }
}

/// How close a successful comparison was.
#[derive(Clone, Debug, PartialEq)]
pub struct Margin {
    /// What was compared.
    pub name: String,
    /// Number of values.
    pub compared: usize,
    /// Largest absolute difference.
    pub max_difference: f64,
    /// Largest difference as a share of what was allowed at its position; 0 to 1.
    pub share: f64,
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.compared == 0 {
            return write!(f, "{} ok: nothing to compare", self.name);
        }
        let percent = (self.share * 100.0).ceil();
        write!(f, "{} ok: max diff {:.1e}, {percent:.0} % of allowed", self.name, self.max_difference)
    }
}

/// One position of a failed comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// Position in the flat data.
    pub index: usize,
    /// What was computed.
    pub actual: f64,
    /// What it should be.
    pub reference: f64,
    /// `|actual - reference|`, NaN when either side is.
    pub difference: f64,
    /// The allowed difference here.
    pub allowed: f64,
}

impl Deviation {
    /// The difference as a share of the allowance: over 1 is a failure, infinite for NaN.
    pub fn share(&self) -> f64 {
        if self.difference.is_nan() {
            f64::INFINITY
        } else if self.difference == 0.0 {
            0.0
        } else {
            self.difference / self.allowed
        }
    }
}

/// Why a comparison failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// The two sides do not have the same number of values.
    #[error("{name}: {actual} values computed, the reference has {reference}")]
    Length {
        /// What was compared.
        name: String,
        /// Values computed.
        actual: usize,
        /// Values of the reference.
        reference: usize,
    },
    /// Some differences are larger than allowed.
    #[error("{name}: {failed} of {compared} values differ by more than allowed; worst:{}", lines(.worst))]
    Values {
        /// What was compared.
        name: String,
        /// Values outside the allowance.
        failed: usize,
        /// Values compared.
        compared: usize,
        /// The worst of them by share of the allowance, at most five.
        worst: Vec<Deviation>,
    },
}

fn lines(worst: &[Deviation]) -> String {
    let line = |d: &Deviation| {
        format!(
            "\n  [{}] {:e}, reference {:e}, difference {:.3e}, {:.0} % of the allowed {:.3e}",
            d.index,
            d.actual,
            d.reference,
            d.difference,
            d.share() * 100.0,
            d.allowed
        )
    };
    worst.iter().map(line).collect()
}

/// Compares and prints the margin (`rms_norm ok: max diff 2.1e-3, 14 % of allowed`): a shrinking margin is an early
/// warning.
///
/// # Panics
/// With the [`Mismatch`] when the values are too far apart.
#[track_caller]
pub fn assert_close(name: &str, actual: &[f32], reference: &[f64], tolerance: &Tolerance) {
    match tolerance.check(name, actual, reference) {
        Ok(margin) => println!("{margin}"),
        Err(mismatch) => panic!("{mismatch}"),
    }
}

#[cfg(test)]
mod tests;
