//! Root-mean-square normalisation.

use super::{Real, expect_rows};

/// What [`rms_norm`] is told beside its data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsNorm {
    /// Added to the mean square, under the root.
    pub eps: f64,
    /// Added to every weight: 1 for Gemma weights as published, 0 for weights as GGUF stores them.
    pub weight_offset: f64,
}

/// `y = x / sqrt(mean(x^2) + eps) * (weight + weight_offset)` over each row (Zhang and Sennrich, 2019).
/// `x [rows, n]`, `weight [n]`.
pub fn rms_norm<X: Real, W: Real>(x: &[X], weight: &[W], params: RmsNorm) -> Vec<f64> {
    let n = weight.len();
    expect_rows("rms_norm", "x", x.len(), n);
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(n) {
        let mut squares = 0.0;
        for &value in row {
            let value: f64 = value.into();
            squares += value * value;
        }
        let root = (squares / n as f64 + params.eps).sqrt();
        for (&value, &weight) in row.iter().zip(weight) {
            y.push(value.into() / root * (weight.into() + params.weight_offset));
        }
    }
    y
}

/// [`rms_norm`] over every head on its own, with one weight for all heads: the normalisation of queries and keys in
/// Gemma 3. `x [tokens, heads, head_dim]`, `weight [head_dim]`.
pub fn head_rms_norm<X: Real, W: Real>(x: &[X], heads: usize, weight: &[W], params: RmsNorm) -> Vec<f64> {
    expect_rows("head_rms_norm", "x", x.len(), heads * weight.len());
    rms_norm(x, weight, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normalised_on_their_own() {
        let params = RmsNorm { eps: 0.5, weight_offset: 1.0 };
        let y = rms_norm(&[3.0f32, 4.0, 0.0, 1.0], &[0.0f32, 1.0], params);
        let (first, second) = (13.0f64.sqrt(), 1.0f64);
        assert_eq!(y, [3.0 / first, 4.0 / first * 2.0, 0.0, 1.0 / second * 2.0]);
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        assert_eq!(rms_norm(&[0.0f32; 3], &[1.0f32; 3], RmsNorm { eps: 1e-6, weight_offset: 0.0 }), [0.0; 3]);
    }

    #[test]
    fn heads_are_rows() {
        let params = RmsNorm { eps: 0.0, weight_offset: 0.0 };
        assert_eq!(head_rms_norm(&[2.0f32, -4.0], 2, &[3.0f32], params), [3.0, -3.0]);
    }

    #[test]
    #[should_panic(expected = "x has 5 values, not a whole number of rows of 4")]
    fn heads_must_be_whole() {
        head_rms_norm(&[0.0f32; 5], 2, &[1.0f32; 2], RmsNorm { eps: 0.0, weight_offset: 0.0 });
    }
}
