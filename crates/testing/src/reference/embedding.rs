//! Embedding look-up.

use super::{Real, expect_rows};

/// Rows `ids` of `table [rows, width]`, each value times `factor` (1 for most models, `sqrt(width)` for Gemma):
/// `[ids.len(), width]`.
///
/// # Panics
/// When an id is not a row of the table.
pub fn gather<T: Real>(table: &[T], width: usize, ids: &[u32], factor: f64) -> Vec<f64> {
    expect_rows("gather", "table", table.len(), width);
    let rows = table.len() / width;
    let mut result = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        let row = id as usize;
        assert!(row < rows, "reference gather: row {row} of a table with {rows} rows");
        result.extend(table[row * width..(row + 1) * width].iter().map(|&value| value.into() * factor));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn rows_in_the_order_asked_for() {
        assert_eq!(gather(&TABLE, 2, &[2, 0, 2], 10.0), [50.0, 60.0, 10.0, 20.0, 50.0, 60.0]);
        assert!(gather(&TABLE, 2, &[], 1.0).is_empty());
    }

    #[test]
    #[should_panic(expected = "row 3 of a table with 3 rows")]
    fn an_id_outside_the_table() {
        gather(&TABLE, 2, &[3], 1.0);
    }
}
