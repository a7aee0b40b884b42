//! Sums, products and caps, element by element.

use super::{Real, expect_len, expect_rows};

/// `a + b`.
pub fn add<A: Real, B: Real>(a: &[A], b: &[B]) -> Vec<f64> {
    expect_len("add", "b", b.len(), a.len());
    a.iter().zip(b).map(|(&a, &b)| a.into() + b.into()).collect()
}

/// `a * b`.
pub fn multiply<A: Real, B: Real>(a: &[A], b: &[B]) -> Vec<f64> {
    expect_len("multiply", "b", b.len(), a.len());
    a.iter().zip(b).map(|(&a, &b)| a.into() * b.into()).collect()
}

/// `x [rows, n] + bias [n]`, the bias added to every row.
pub fn add_bias<X: Real, B: Real>(x: &[X], bias: &[B]) -> Vec<f64> {
    expect_rows("add_bias", "x", x.len(), bias.len());
    x.iter().enumerate().map(|(i, &x)| x.into() + bias[i % bias.len()].into()).collect()
}

/// `x * factor`.
pub fn scale<X: Real>(x: &[X], factor: f64) -> Vec<f64> {
    x.iter().map(|&x| x.into() * factor).collect()
}

/// `cap * tanh(x / cap)`: keeps values within `-cap..cap` (Gemma 2).
pub fn softcap<X: Real>(x: &[X], cap: f64) -> Vec<f64> {
    x.iter().map(|&x| cap * (x.into() / cap).tanh()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_by_element() {
        assert_eq!(add(&[1.0f32, 2.0], &[0.5f64, -2.0]), [1.5, 0.0]);
        assert_eq!(multiply(&[1.0f32, 2.0], &[0.5f32, -2.0]), [0.5, -4.0]);
        assert_eq!(scale(&[1.0f32, -2.0], 3.0), [3.0, -6.0]);
        assert_eq!(add_bias(&[1.0f32, 2.0, 3.0, 4.0], &[10.0f32, 20.0]), [11.0, 22.0, 13.0, 24.0]);
    }

    #[test]
    fn a_soft_cap_is_the_identity_near_zero_and_bounded_far_away() {
        let capped = softcap(&[1e-3f64, 1e6, -1e6], 30.0);
        assert!((capped[0] - 1e-3).abs() < 1e-12);
        assert_eq!(capped[1..], [30.0, -30.0]);
    }

    #[test]
    #[should_panic(expected = "reference add: b has 1 values, needs 2")]
    fn lengths_must_agree() {
        add(&[1.0f32, 2.0], &[1.0f32]);
    }
}
