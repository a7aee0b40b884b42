//! Softmax over rows.

use super::{Real, expect_rows};

/// `exp(x - max) / sum exp(x - max)` over each row of `width` values. Minus infinity has probability 0; a row of nothing
/// else has no distribution and gives NaN.
pub fn softmax<X: Real>(x: &[X], width: usize) -> Vec<f64> {
    expect_rows("softmax", "x", x.len(), width);
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let max = row.iter().fold(f64::NEG_INFINITY, |max, &value| max.max(value.into()));
        let exponentials: Vec<f64> = row.iter().map(|&value| (value.into() - max).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        y.extend(exponentials.iter().map(|value| value / sum));
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_exponentials_of_differences() {
        let y = softmax(&[0.0f64, 3f64.ln(), 1000.0, 1000.0], 2);
        for (actual, expected) in y.into_iter().zip([0.25, 0.75, 0.5, 0.5]) {
            assert!((actual - expected).abs() < 1e-15);
        }
    }

    #[test]
    fn masked_values_take_nothing() {
        assert_eq!(softmax(&[f32::NEG_INFINITY, 5.0, f32::NEG_INFINITY], 3), [0.0, 1.0, 0.0]);
        assert!(softmax(&[f32::NEG_INFINITY; 2], 2)[0].is_nan());
    }
}
