//! Which products go to the tensor cores, and how they are cut: pure functions of the problem.

use crate::ops::panels::PanelShape;

/// Tokens of one cluster of two threadgroups.
const CLUSTER_TOKENS: usize = 256;
/// From so many tokens on it pays to unpack the weights once into panels: a kernel that reads each weight as it is
/// stored has less to move for fewer.
const MIN_TOKENS: usize = 9;
/// The most bytes of unpacked weights: enough for the output head of most models.
const MAX_WEIGHT_BYTES: usize = 1280 << 20;

/// What is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) tokens: usize,
    /// All weights of the product.
    pub(super) weights: PanelShape,
    pub(super) multiprocessors: usize,
}

/// What is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Rows of weights of a tile: 128 or 256.
    pub(super) tile_rows: usize,
    /// Threadgroups, in pairs.
    pub(super) groups: usize,
}

/// `None` where the tensor cores are not the better way.
pub(super) fn plan(problem: Problem) -> Option<Plan> {
    let Problem { tokens, weights, multiprocessors } = problem;
    if tokens < MIN_TOKENS || weights.byte_len().is_none_or(|bytes| bytes > MAX_WEIGHT_BYTES) {
        return None;
    }
    let clusters = (multiprocessors / 2).max(1);
    let tiles = |rows: usize| tokens.div_ceil(CLUSTER_TOKENS).saturating_mul(weights.stride.div_ceil(rows));
    // Tiles of 128 rows take 0.54 of the time of 256: they read more for each product.
    let time = |rows: usize, of_tile: usize| tiles(rows).div_ceil(clusters).saturating_mul(of_tile);
    let tile_rows = if time(128, 54) < time(256, 100) { 128 } else { 256 };
    Some(Plan { tile_rows, groups: 2 * tiles(tile_rows).min(clusters) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(tokens: usize, rows: usize, columns: usize) -> Option<Plan> {
        plan(Problem { tokens, weights: PanelShape::of(rows, columns), multiprocessors: 132 })
    }

    #[test]
    fn large_products_take_large_tiles() {
        for (rows, columns) in [(4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336)] {
            assert_eq!(plan_of(2048, rows, columns), Some(Plan { tile_rows: 256, groups: 132 }));
        }
    }

    #[test]
    fn small_tiles_fill_the_device() {
        assert_eq!(plan_of(512, 4096, 14336), Some(Plan { tile_rows: 128, groups: 128 }));
        assert_eq!(plan_of(512, 28672, 4096).unwrap().tile_rows, 128);
        assert_eq!(plan_of(512, 6144, 4096).unwrap().tile_rows, 256);
        assert_eq!(plan_of(32, 8, 64), Some(Plan { tile_rows: 128, groups: 2 }));
    }

    #[test]
    fn few_tokens_and_huge_weights_go_elsewhere() {
        assert_eq!(plan_of(MIN_TOKENS - 1, 4096, 4096), None);
        assert_eq!(plan_of(2048, 262_144, 8192), None);
        assert_eq!(plan_of(2048, usize::MAX / 16, usize::MAX / 64), None);
        assert_eq!(plan_of(usize::MAX / 2, 4096, 4096).unwrap().groups, 132);
    }
}
