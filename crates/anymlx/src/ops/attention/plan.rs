//! How attention is cut into items: a pure function of the shapes, so that results depend on nothing
//! else.

/// What is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) tokens: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
}

/// What is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Few queries: each key is read once for up to [`SLICE_HEADS`] heads of one token. One item is
    /// one of `parts` runs of spans of keys for one slice of heads of one token.
    Spans { slices: usize, parts: usize },
    /// Many queries: one item is `rows` pairs of token and head that share a key head.
    Tiles { rows: usize },
}

/// Most heads of a slice: what registers hold.
pub(super) const SLICE_HEADS: usize = 4;
/// Most rows of a tile.
pub(super) const TILE_ROWS: usize = 64;
/// Up to this many queries of one key head, vectors over them would be mostly empty.
const FEW_ROWS: usize = 8;

pub(super) fn plan(problem: Problem) -> Plan {
    let Problem { tokens, heads, kv_heads } = problem;
    let group = heads / kv_heads;
    let rows = tokens.saturating_mul(group);
    if rows <= FEW_ROWS || tokens == 1 {
        let slices = slices_of(group);
        // Enough items for a dozen threads or two, few enough that their sums are quickly joined.
        let parts = (32 / (tokens * kv_heads * slices).max(1)).clamp(1, 8);
        return Plan::Spans { slices, parts };
    }
    let enough = |rows_of_tile: &usize| rows.div_ceil(*rows_of_tile).saturating_mul(kv_heads) >= 4;
    Plan::Tiles { rows: [TILE_ROWS, 32].into_iter().find(enough).unwrap_or(16) }
}

/// Slices of a group: as many of [`SLICE_HEADS`] as fit, then one of 2 and one of 1 heads where needed.
fn slices_of(group: usize) -> usize {
    group / SLICE_HEADS + (group % SLICE_HEADS).count_ones() as usize
}

/// The heads of slice `slice` within their group: 1, 2 or 4.
pub(super) fn slice_heads(group: usize, slice: usize) -> std::ops::Range<usize> {
    let full = group / SLICE_HEADS;
    let start = if slice <= full { slice * SLICE_HEADS } else { full * SLICE_HEADS + 2 };
    let left = group - start;
    start..start + if left >= SLICE_HEADS { SLICE_HEADS } else { left.min(2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_has_several_items_even_with_one_key_head() {
        let plan_of = |tokens, heads, kv_heads| plan(Problem { tokens, heads, kv_heads });
        assert_eq!(plan_of(1, 4, 1), Plan::Spans { slices: 1, parts: 8 });
        assert_eq!(plan_of(1, 32, 8), Plan::Spans { slices: 1, parts: 4 });
        assert_eq!(plan_of(1, 14, 2), Plan::Spans { slices: 3, parts: 5 });
        assert_eq!(plan_of(1, 64, 64), Plan::Spans { slices: 1, parts: 1 });
        assert_eq!(plan_of(8, 1, 1), Plan::Spans { slices: 1, parts: 4 });
        assert_eq!(plan_of(1, 128, 1), Plan::Spans { slices: 32, parts: 1 });
    }

    #[test]
    fn prompts_are_tiled() {
        let plan_of = |tokens, heads, kv_heads| plan(Problem { tokens, heads, kv_heads });
        assert_eq!(plan_of(512, 4, 1), Plan::Tiles { rows: 64 });
        assert_eq!(plan_of(7, 4, 1), Plan::Tiles { rows: 16 });
        assert_eq!(plan_of(9, 32, 32), Plan::Tiles { rows: 64 });
        assert_eq!(plan_of(usize::MAX, 4, 1), Plan::Tiles { rows: 64 });
    }

    #[test]
    fn slices_cover_their_group() {
        for group in 1..40 {
            let slices = slices_of(group);
            let covered: Vec<usize> = (0..slices).flat_map(|slice| slice_heads(group, slice)).collect();
            assert_eq!(covered, (0..group).collect::<Vec<_>>());
            assert!((0..slices).all(|slice| [1, 2, 4].contains(&slice_heads(group, slice).len())));
        }
    }
}
