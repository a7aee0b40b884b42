//! Activation functions and gated products.

use super::{Real, expect_len};

/// The activation of a gated feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`, as in Llama and Qwen2.
    Silu,
    /// GELU with the tanh approximation, as in Gemma (`gelu_pytorch_tanh`).
    GeluTanh,
    /// GELU with the exact error function.
    GeluErf,
}

impl Activation {
    /// The function's value at `x`.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Activation::Silu => silu(x),
            Activation::GeluTanh => gelu_tanh(x),
            Activation::GeluErf => gelu_erf(x),
        }
    }
}

/// `x * sigmoid(x)` (Elfwing et al., 2017).
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` (Hendrycks and Gimpel, 2016).
pub fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

/// `x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel, 2016).
pub fn gelu_erf(x: f64) -> f64 {
    // For negative x, 1 + erf would cancel.
    0.5 * x * erfc(-x / std::f64::consts::SQRT_2)
}

/// The error function, `2 / sqrt(pi) * integral of exp(-t^2) from 0 to x`, to about 1e-15.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 2.0 { erf_series(x) } else { 1.0 - erfc(x) }
}

fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        2.0 - erfc(-x)
    } else if x < 2.0 {
        1.0 - erf_series(x)
    } else {
        erfc_fraction(x)
    }
}

/// `2 / sqrt(pi) * exp(-x^2) * sum (2 x^2)^n x / (1 3 5 .. (2n+1))`, Abramowitz and Stegun 7.1.6: no term changes sign.
fn erf_series(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..100 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// The continued fraction of Abramowitz and Stegun 7.1.14, from its tail; for `x >= 2`.
fn erfc_fraction(x: f64) -> f64 {
    let mut tail = x;
    for n in (1..200).rev() {
        tail = x + f64::from(n) / 2.0 / tail;
    }
    (-x * x).exp() / (std::f64::consts::PI.sqrt() * tail)
}

/// `activation(gate) * up`, element by element.
pub fn gated<G: Real, U: Real>(activation: Activation, gate: &[G], up: &[U]) -> Vec<f64> {
    expect_len("gated product", "up", up.len(), gate.len());
    gate.iter().zip(up).map(|(&gate, &up)| activation.apply(gate.into()) * up.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f64; 7] = [-4.0, -1.0, -0.3, 0.0, 0.5, 2.0, 6.0];

    fn assert_same(actual: impl Fn(f64) -> f64, expected: [f64; 7]) {
        for (x, expected) in X.into_iter().zip(expected) {
            let actual = actual(x);
            assert!((actual - expected).abs() <= 4e-15 * expected.abs().max(1e-3), "{x}: {actual:e}, {expected:e}");
        }
    }

    /// torch 2.15, `torch.erf` in f64.
    #[test]
    fn erf_matches_torch() {
        assert_same(
            erf,
            [
                -0.9999999845827421,
                -0.8427007929497149,
                -0.3286267594591274,
                0.0,
                0.5204998778130465,
                0.9953222650189527,
                1.0,
            ],
        );
    }

    #[test]
    fn the_two_forms_of_erf_agree_where_they_meet() {
        for step in 0..40 {
            let x = 1.9 + 0.005 * f64::from(step);
            assert!((erf_series(x) - (1.0 - erfc_fraction(x))).abs() < 1e-15, "{x}");
        }
    }

    /// torch 2.15, `torch.nn.functional` in f64.
    #[test]
    fn activations_match_torch() {
        assert_same(
            gelu_erf,
            [
                -0.00012668496733247991,
                -0.15865525393145702,
                -0.1146265733433142,
                0.0,
                0.34573123063700656,
                1.9544997361036416,
                5.999999994080474,
            ],
        );
        assert_same(
            gelu_tanh,
            [
                -7.024594819227126e-05,
                -0.15880800939172324,
                -0.11462907645724074,
                0.0,
                0.34571400982514394,
                1.954597694087775,
                5.9999999999156035,
            ],
        );
        assert_same(
            silu,
            [
                -0.07194483984836623,
                -0.2689414213699951,
                -0.1276672449565023,
                0.0,
                0.3112296656009273,
                1.7615941559557646,
                5.985164261060192,
            ],
        );
    }

    #[test]
    fn gated_multiplies_after_the_activation() {
        let product = gated(Activation::Silu, &[1.0f32, -1.0], &[3.0f32, 2.0]);
        assert_eq!(product, [silu(1.0) * 3.0, silu(-1.0) * 2.0]);
        assert_ne!(gated(Activation::GeluTanh, &[1.0], &[1.0]), gated(Activation::GeluErf, &[1.0], &[1.0]));
    }
}
