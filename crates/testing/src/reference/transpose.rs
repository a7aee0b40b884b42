//! Transposition.

use super::{Real, expect_len};

/// `x [rows, columns]` as `[columns, rows]`.
pub fn transpose<X: Real>(x: &[X], rows: usize, columns: usize) -> Vec<f64> {
    expect_len("transpose", "x", x.len(), rows * columns);
    let mut y = Vec::with_capacity(x.len());
    for column in 0..columns {
        for row in 0..rows {
            y.push(x[row * columns + column].into());
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(transpose(&x, 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(transpose(&transpose(&x, 2, 3), 3, 2), x.map(f64::from));
        assert_eq!(transpose(&x, 6, 1), x.map(f64::from));
    }
}
