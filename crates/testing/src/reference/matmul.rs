//! Matrix product with a transposed right side, the layout of linear layers.

use super::{Real, expect_len};

/// The sizes of [`matmul`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulShape {
    /// Rows of `x`: tokens.
    pub m: usize,
    /// Rows of `w`: output features.
    pub n: usize,
    /// Columns of both: input features.
    pub k: usize,
}

/// `y [m, n] = x [m, k] * w [n, k]^T`.
pub fn matmul<X: Real, W: Real>(x: &[X], w: &[W], shape: MatmulShape) -> Vec<f64> {
    let MatmulShape { m, n, k } = shape;
    expect_len("matmul", "x", x.len(), m * k);
    expect_len("matmul", "w", w.len(), n * k);
    let mut y = vec![0.0; m * n];
    for row in 0..m {
        for column in 0..n {
            for i in 0..k {
                y[row * n + column] += x[row * k + i].into() * w[column * k + i].into();
            }
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_worked_by_hand() {
        let x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let w = [1.0f32, 0.0, -1.0, 2.0, 1.0, 0.5, 0.0, 0.0, 1.0, -3.0, 1.0, 1.0];
        let shape = MatmulShape { m: 2, n: 4, k: 3 };
        assert_eq!(matmul(&x, &w, shape), [-2.0, 5.5, 3.0, 2.0, -2.0, 16.0, 6.0, -1.0]);
    }

    #[test]
    fn no_terms_give_zeros() {
        let none: [f32; 0] = [];
        assert_eq!(matmul(&none, &none, MatmulShape { m: 2, n: 1, k: 0 }), [0.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "reference matmul: w has 5 values, needs 6")]
    fn lengths_must_fit() {
        matmul(&[0.0f32; 3], &[0.0f32; 5], MatmulShape { m: 1, n: 2, k: 3 });
    }
}
