//! Which method multiplies, and how the work is cut: pure functions of the problem.

use anymlx_formats::quant::TensorType;

use super::part::ROWS;

/// The most tokens of one item: a multiple of what the inner loops of any level take together.
pub(super) const MAX_TOKEN_BLOCK: usize = 264;

/// The most rows of 8-bit activations that make one token.
pub(super) const MAX_TERMS: usize = 2;

/// From how many tokens on it pays to unpack weights into tiles.
const TILED_TOKENS: usize = 5;

/// Bytes of weights that are read by one chunk, when there are many.
const CHUNK_BYTES: (usize, usize) = (16 * 1024, 128 * 1024);
/// Chunks that a product is cut into when their bytes stay within [`CHUNK_BYTES`].
const CHUNKS: usize = 64;
/// Products of one chunk in tiles: some 20 microseconds.
const CHUNK_PRODUCTS: usize = 3 << 20;
/// Work that is not worth sharing: some microseconds.
const SMALL_PRODUCTS: usize = 64 * 1024;

/// What is to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) tokens: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) encodings: [TensorType; 2],
    /// 1, or 2 for a gated product.
    pub(super) matrices: usize,
    pub(super) quantized_input: bool,
    /// Rows of 8-bit activations that make one token.
    pub(super) terms: usize,
}

/// How it is computed. An item is [`ROWS`] weight rows (of each matrix) times `token_block` tokens; items count rows
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Weights are unpacked once for all tokens of an item; otherwise each dot product reads them as they are stored.
    pub(super) tiled: bool,
    pub(super) token_block: usize,
    pub(super) items: usize,
    pub(super) items_per_chunk: usize,
}

pub(super) fn plan(problem: &Problem) -> Plan {
    let tiled = problem.tokens.saturating_mul(problem.terms) >= TILED_TOKENS;
    let token_block = problem.tokens.clamp(1, MAX_TOKEN_BLOCK / problem.terms);
    let batches = problem.rows.div_ceil(ROWS);
    let items = batches.saturating_mul(problem.tokens.div_ceil(token_block));
    let batch_weights = (ROWS * problem.matrices).saturating_mul(problem.columns);
    let item_products = batch_weights.saturating_mul(token_block);
    let per_chunk = if item_products.saturating_mul(items) <= SMALL_PRODUCTS {
        items
    } else if tiled {
        (CHUNK_PRODUCTS / item_products.max(1)).min(items.div_ceil(CHUNKS / 4))
    } else {
        let encoding = problem.encodings[0];
        let batch_bytes = (batch_weights / encoding.block_len()).saturating_mul(encoding.block_bytes());
        let chunk_bytes = (batch_bytes.saturating_mul(batches) / CHUNKS).clamp(CHUNK_BYTES.0, CHUNK_BYTES.1);
        chunk_bytes / batch_bytes.max(1)
    };
    Plan { tiled, token_block, items, items_per_chunk: per_chunk.max(1) }
}

#[cfg(test)]
mod tests {
    use anymlx_formats::{DType, quant::QuantType};

    use super::*;

    fn problem(tokens: usize, rows: usize, columns: usize, encoding: impl Into<TensorType>) -> Problem {
        let encoding = encoding.into();
        Problem { tokens, rows, columns, encodings: [encoding; 2], matrices: 1, quantized_input: true, terms: 1 }
    }

    #[test]
    fn every_product_belongs_to_one_item() {
        for tokens in [1, 4, 5, 264, 265, 512, 1000] {
            for rows in [1, 16, 17, 640, 262_144] {
                let plan = plan(&problem(tokens, rows, 640, QuantType::Q5_0));
                let blocks = tokens.div_ceil(plan.token_block);
                assert_eq!(plan.items, rows.div_ceil(ROWS) * blocks, "{tokens} x {rows}");
                assert!(plan.token_block <= MAX_TOKEN_BLOCK && plan.items_per_chunk >= 1);
            }
        }
    }

    #[test]
    fn small_work_is_one_chunk_and_large_work_many_even_ones() {
        let small = plan(&problem(1, 64, 640, DType::F32));
        assert_eq!(small.items.div_ceil(small.items_per_chunk), 1);
        let projection = plan(&problem(1, 256, 640, QuantType::Q5_0));
        assert!((4..=16).contains(&projection.items.div_ceil(projection.items_per_chunk)), "{projection:?}");
        let head = plan(&problem(1, 262_144, 640, QuantType::Q8_0));
        assert!(head.items_per_chunk * 16 * 680 <= 128 * 1024 && head.items_per_chunk >= 8, "{head:?}");
        let prefill = plan(&problem(512, 640, 2048, QuantType::Q4_K));
        assert!(prefill.tiled && prefill.items_per_chunk == 1);
    }

    #[test]
    fn no_tokens_are_no_items() {
        assert_eq!(plan(&problem(0, 640, 640, DType::F16)).items, 0);
    }

    #[test]
    fn sizes_beyond_memory_do_not_overflow() {
        let plan = plan(&problem(usize::MAX / 2, usize::MAX / 2, usize::MAX / 32 * 32, QuantType::Q4_0));
        assert!(plan.items_per_chunk >= 1);
    }
}
