//! Largest values.

use super::{Real, expect_rows};

/// The index of the largest value of each row of `width` values; the lowest index among equals. NaN never wins, except in
/// a row of nothing else, which gives 0.
pub fn argmax<X: Real>(x: &[X], width: usize) -> Vec<u32> {
    expect_rows("argmax", "x", x.len(), width);
    let mut result = Vec::new();
    for row in x.chunks_exact(width) {
        let mut best = 0;
        for (index, &value) in row.iter().enumerate() {
            let (value, champion): (f64, f64) = (value.into(), row[best].into());
            if value > champion || (champion.is_nan() && !value.is_nan()) {
                best = index;
            }
        }
        result.push(u32::try_from(best).expect("a row of fewer than 2^32 values"));
    }
    result
}

/// The indices of the `k` largest values (all of them when there are fewer), largest first, the lower index first among
/// equals.
///
/// # Panics
/// When a value is NaN.
pub fn top_k<X: Real>(x: &[X], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b): (f64, f64) = (x[a].into(), x[b].into());
        b.partial_cmp(&a).expect("reference top_k: NaN has no rank")
    });
    order.truncate(k);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(argmax(&[1.0f32, 7.0, 7.0, -1.0, -2.0, -1.0], 3), [1, 0]);
        assert_eq!(argmax(&[f32::NEG_INFINITY, f32::NEG_INFINITY], 1), [0, 0]);
        assert_eq!(argmax(&[f32::NAN, -3.0, f32::NAN], 3), [1]);
    }

    #[test]
    fn largest_first() {
        assert_eq!(top_k(&[1.0f32, 7.0, 3.0, 7.0, 2.0], 3), [1, 3, 2]);
        assert_eq!(top_k(&[1.0f32, 2.0], 9), [1, 0]);
    }
}
