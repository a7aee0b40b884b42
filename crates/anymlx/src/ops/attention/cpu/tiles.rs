//! One item is a tile of rows, pairs of token and head that share a key head. Lanes run over rows, so
//! that softmax needs no sum across lanes, and keys and values are converted once for all rows.
//!
//! Rows are cut into blocks of one, two or four vectors. Queries and outputs of a block are kept
//! transposed, `[head_dim][rows]`.

use std::{cell::RefCell, marker::PhantomData, ops::Range};

use super::{Block, cap_scores, seen};
use crate::{
    Invocation, KernelResult,
    ops::{
        attention::plan::TILE_ROWS,
        lanes::{Element, LaneKernel, Lanes, MAX_WIDTH},
        math,
    },
};

pub(in super::super) struct Tiles<T>(PhantomData<T>);

/// Keys of a tile.
const KEYS: usize = 10 * AT_ONCE;
/// Keys, or dimensions of a value, that the inner loops take at a time: with two vectors of rows, as many sums as leave
/// registers for the rest.
const AT_ONCE: usize = 6;
/// Dimensions of values that are converted at a time.
const DIMS: usize = MAX_WIDTH;

thread_local! {
    /// Transposed queries and outputs, and some converted keys. It grows to the largest head once.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

// SAFETY: item `(tile, kv_head)` writes the elements of its rows in binding 4.
unsafe impl<T: Element> LaneKernel for Tiles<T> {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        // Taken, not borrowed in a closure: code in a closure would lose the level's instructions.
        let mut scratch = SCRATCH.take();
        let needed = block.head_dim as usize * (2 * TILE_ROWS + AT_ONCE);
        if scratch.len() < needed {
            scratch.resize(needed, 0.0);
        }
        let mut result = Ok(());
        for item in invocation.items() {
            result = run_tile::<L, T>(invocation, &block, item, &mut scratch);
            if result.is_err() {
                break;
            }
        }
        SCRATCH.set(scratch);
        result
    }
}

/// What each row sees and has summed up.
struct Rows {
    /// First position seen, and the position after the last, as `f32`: positions are below 2^24.
    start: [f32; TILE_ROWS],
    end: [f32; TILE_ROWS],
    max: [f32; TILE_ROWS],
    total: [f32; TILE_ROWS],
    /// Factor that brings earlier sums to the new maximum.
    keep: [f32; TILE_ROWS],
}

/// A block of rows: `vectors` vectors from row `first` on.
#[derive(Clone, Copy)]
struct RowBlock {
    first: usize,
    vectors: usize,
}

#[inline(always)]
fn row_blocks<L: Lanes>(rows: usize) -> impl Iterator<Item = RowBlock> {
    let end = rows.next_multiple_of(L::WIDTH);
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = (end - first) / L::WIDTH;
        let vectors = [4, 2, 1].into_iter().find(|&vectors| vectors <= left.min(L::BLOCK))?;
        let block = RowBlock { first, vectors };
        first += vectors * L::WIDTH;
        Some(block)
    })
}

#[inline(always)]
fn run_tile<L: Lanes, T: Element>(
    invocation: &Invocation<'_>,
    block: &Block,
    item: usize,
    scratch: &mut [f32],
) -> KernelResult {
    let (heads, kv_heads, head_dim) = (block.heads as usize, block.kv_heads as usize, block.head_dim as usize);
    let group = heads / kv_heads;
    // Later rows see more keys: they go first, so that threads end together.
    let (tile, kv_head) = ((invocation.total_items() - 1 - item) / kv_heads, item % kv_heads);
    let positions = invocation.input::<u32>(3);
    let first_row = tile * block.tile_rows as usize;
    let row_count = (block.tile_rows as usize).min(positions.len() * group - first_row);
    let place = |row: usize| {
        let (token, head) = ((first_row + row) / group, kv_head * group + (first_row + row) % group);
        (token, (token * heads + head) * head_dim)
    };

    let (queries, rest) = scratch.split_at_mut(TILE_ROWS * head_dim);
    let (outputs, rest) = rest.split_at_mut(TILE_ROWS * head_dim);
    let converted_keys = &mut rest[..AT_ONCE * head_dim];
    let mut rows = Rows {
        start: [0.0; TILE_ROWS],
        end: [0.0; TILE_ROWS],
        max: [f32::NEG_INFINITY; TILE_ROWS],
        total: [0.0; TILE_ROWS],
        keep: [0.0; TILE_ROWS],
    };
    // What some row sees, and what all rows see.
    let (mut any_start, mut any_end) = (usize::MAX, 0);
    let (mut all_start, mut all_end) = (0, usize::MAX);
    let all_queries = invocation.input::<f32>(0);
    for row_block in row_blocks::<L>(row_count) {
        let width = row_block.vectors * L::WIDTH;
        let queries = &mut queries[row_block.first * head_dim..][..width * head_dim];
        for lane in 0..width {
            let row = row_block.first + lane;
            if row >= row_count {
                (0..head_dim).for_each(|dim| queries[dim * width + lane] = 0.0);
                continue;
            }
            let (token, at) = place(row);
            let seen = seen(block, positions[token])?;
            (rows.start[row], rows.end[row]) = (seen.start as f32, seen.end as f32);
            (any_start, any_end) = (any_start.min(seen.start), any_end.max(seen.end));
            (all_start, all_end) = (all_start.max(seen.start), all_end.min(seen.end));
            for (dim, query) in all_queries[at..at + head_dim].iter().enumerate() {
                queries[dim * width + lane] = query * block.scale;
            }
        }
    }
    let used = row_count.next_multiple_of(L::WIDTH) * head_dim;
    outputs[..used].fill(0.0);

    let head_len = block.capacity as usize * head_dim;
    let cached = kv_head * head_len..(kv_head + 1) * head_len;
    let (keys, values) = (&invocation.input::<T>(1)[cached.clone()], &invocation.input::<T>(2)[cached]);
    let mut scores = [0.0_f32; KEYS * TILE_ROWS];
    for first in (any_start..any_end).step_by(KEYS) {
        let span = first..(first + KEYS).min(any_end);
        let elements = span.start * head_dim..span.end * head_dim;
        score::<L, T>(&keys[elements.clone()], queries, converted_keys, &mut scores, row_count);
        let masked = span.start < all_start || span.end > all_end;
        for row_block in row_blocks::<L>(row_count) {
            weigh::<L>(&mut scores, &mut rows, row_block, span.clone(), masked, block.softcap);
        }
        accumulate::<L, T>(&values[elements], &scores, &rows.keep, outputs, row_count, head_dim);
    }

    for row_block in row_blocks::<L>(row_count) {
        let width = row_block.vectors * L::WIDTH;
        let outputs = &outputs[row_block.first * head_dim..][..width * head_dim];
        for row in row_block.first..(row_block.first + width).min(row_count) {
            let (_, at) = place(row);
            // SAFETY: the elements of this row.
            let output = unsafe { invocation.output::<f32>(4, at..at + head_dim) };
            let factor = 1.0 / rows.total[row];
            let lane = row - row_block.first;
            for (output, values) in output.iter_mut().zip(outputs.chunks_exact(width)) {
                *output = values[lane] * factor;
            }
        }
    }
    Ok(())
}

/// Scores of a tile, in blocks `[keys][rows of the block]`.
#[inline(always)]
fn score<L: Lanes, T: Element>(
    keys: &[T],
    queries: &[f32],
    converted: &mut [f32],
    scores: &mut [f32; KEYS * TILE_ROWS],
    row_count: usize,
) {
    let head_dim = converted.len() / AT_ONCE;
    for (index, keys) in keys.chunks(AT_ONCE * head_dim).enumerate() {
        convert::<L, T>(keys, &mut converted[..keys.len()]);
        // What follows the last key was converted earlier, or is 0: its scores are not used.
        for row_block in row_blocks::<L>(row_count) {
            let width = row_block.vectors * L::WIDTH;
            let queries = &queries[row_block.first * head_dim..][..width * head_dim];
            let scores = &mut scores[row_block.first * KEYS + index * AT_ONCE * width..][..AT_ONCE * width];
            match row_block.vectors {
                4 => score_block::<L, 4>(queries, converted, scores),
                2 => score_block::<L, 2>(queries, converted, scores),
                _ => score_block::<L, 1>(queries, converted, scores),
            }
        }
    }
}

#[inline(always)]
fn convert<L: Lanes, T: Element>(from: &[T], to: &mut [f32]) {
    let to = &mut to[..from.len()];
    let whole = from.len() / L::WIDTH * L::WIDTH;
    let mut at = 0;
    while at < whole {
        T::load::<L>(&from[at..]).store(&mut to[at..]);
        at += L::WIDTH;
    }
    while at < from.len() {
        to[at] = from[at].to_f32();
        at += 1;
    }
}

#[inline(always)]
fn score_block<L: Lanes, const N: usize>(queries: &[f32], keys: &[f32], scores: &mut [f32]) {
    let (head_dim, width) = (keys.len() / AT_ONCE, N * L::WIDTH);
    let (queries, scores) = (&queries[..head_dim * width], &mut scores[..AT_ONCE * width]);
    let mut sums = [[L::splat(0.0); N]; AT_ONCE];
    let mut lanes = [L::splat(0.0); N];
    for dim in 0..head_dim {
        // SAFETY: the slices were cut to the `head_dim` dimensions.
        unsafe {
            for n in 0..N {
                lanes[n] = L::load_at(queries.as_ptr().add(dim * width + n * L::WIDTH));
            }
            for key in 0..AT_ONCE {
                let value = L::splat(*keys.get_unchecked(key * head_dim + dim));
                for n in 0..N {
                    sums[key][n] = lanes[n].mul_add(value, sums[key][n]);
                }
            }
        }
    }
    for key in 0..AT_ONCE {
        for n in 0..N {
            sums[key][n].store(&mut scores[key * width + n * L::WIDTH..]);
        }
    }
}

/// Scores of one block of rows to weights, with the running maximum and sum.
#[inline(always)]
fn weigh<L: Lanes>(
    scores: &mut [f32; KEYS * TILE_ROWS],
    rows: &mut Rows,
    row_block: RowBlock,
    span: Range<usize>,
    masked: bool,
    softcap: f32,
) {
    let width = row_block.vectors * L::WIDTH;
    let scores = &mut scores[row_block.first * KEYS..][..span.len() * width];
    cap_scores::<L>(scores, softcap);
    let lowest = L::splat(f32::NEG_INFINITY);
    for vector in 0..row_block.vectors {
        let row = row_block.first + vector * L::WIDTH;
        let (start, end) = (L::load(&rows.start[row..]), L::load(&rows.end[row..]));
        let lanes = |key: usize| key * width + vector * L::WIDTH;
        let old_max = L::load(&rows.max[row..]);
        let mut max = old_max;
        for key in 0..span.len() {
            let position = span.start + key;
            let mut score = L::load(&scores[lanes(key)..]);
            if masked {
                let position = L::splat(position as f32);
                score = position.select_less(end, position.select_less(start, lowest, score), lowest);
                score.store(&mut scores[lanes(key)..]);
            }
            max = score.max(max);
        }
        // A row that has seen nothing yet must not subtract infinities.
        let shift = max.select_less(L::splat(f32::MIN), L::splat(0.0), max);
        let keep = math::exp(old_max.sub(shift));
        let mut total = L::load(&rows.total[row..]).mul(keep);
        for key in 0..span.len() {
            let weight = math::exp(L::load(&scores[lanes(key)..]).sub(shift));
            weight.store(&mut scores[lanes(key)..]);
            total = total.add(weight);
        }
        max.store(&mut rows.max[row..]);
        total.store(&mut rows.total[row..]);
        keep.store(&mut rows.keep[row..]);
    }
}

/// `outputs = keep * outputs + values · weights`, transposed.
#[inline(always)]
fn accumulate<L: Lanes, T: Element>(
    values: &[T],
    weights: &[f32; KEYS * TILE_ROWS],
    keep: &[f32; TILE_ROWS],
    outputs: &mut [f32],
    row_count: usize,
    head_dim: usize,
) {
    let mut converted = [[0.0_f32; DIMS]; KEYS];
    let count = values.len() / head_dim;
    for first in (0..head_dim).step_by(DIMS) {
        let dims = DIMS.min(head_dim - first);
        for key in 0..count {
            convert::<L, T>(&values[key * head_dim + first..][..dims], &mut converted[key][..dims]);
        }
        let converted = &converted[..count];
        for row_block in row_blocks::<L>(row_count) {
            let width = row_block.vectors * L::WIDTH;
            let weights = &weights[row_block.first * KEYS..][..count * width];
            let outputs = &mut outputs[row_block.first * head_dim + first * width..][..dims * width];
            let keep = &keep[row_block.first..][..width];
            match row_block.vectors {
                4 => accumulate_block::<L, 4>(converted, weights, keep, outputs),
                2 => accumulate_block::<L, 2>(converted, weights, keep, outputs),
                _ => accumulate_block::<L, 1>(converted, weights, keep, outputs),
            }
        }
    }
}

#[inline(always)]
fn accumulate_block<L: Lanes, const N: usize>(
    values: &[[f32; DIMS]],
    weights: &[f32],
    keep: &[f32],
    outputs: &mut [f32],
) {
    let width = N * L::WIDTH;
    let mut factors = [L::splat(0.0); N];
    for n in 0..N {
        factors[n] = L::load(&keep[n * L::WIDTH..]);
    }
    let dims = outputs.len() / width;
    let mut dim = 0;
    while dim < dims {
        let outputs = &mut outputs[dim * width..];
        dim += match dims - dim {
            AT_ONCE.. => accumulate_dims::<L, N, AT_ONCE>(values, weights, &factors, outputs, dim),
            4.. => accumulate_dims::<L, N, 4>(values, weights, &factors, outputs, dim),
            _ => accumulate_dims::<L, N, 1>(values, weights, &factors, outputs, dim),
        };
    }
}

/// Returns `D`.
#[inline(always)]
fn accumulate_dims<L: Lanes, const N: usize, const D: usize>(
    values: &[[f32; DIMS]],
    weights: &[f32],
    keep: &[L; N],
    outputs: &mut [f32],
    first: usize,
) -> usize {
    let width = N * L::WIDTH;
    let (weights, outputs) = (&weights[..values.len() * width], &mut outputs[..D * width]);
    assert!(first + D <= DIMS);
    let mut sums = [[L::splat(0.0); N]; D];
    for dim in 0..D {
        for n in 0..N {
            sums[dim][n] = L::load(&outputs[dim * width + n * L::WIDTH..]).mul(keep[n]);
        }
    }
    let mut lanes = [L::splat(0.0); N];
    for key in 0..values.len() {
        // SAFETY: the slices were cut to as many keys, and the dimensions are among `DIMS`.
        unsafe {
            for n in 0..N {
                lanes[n] = L::load_at(weights.as_ptr().add(key * width + n * L::WIDTH));
            }
            let values = values.get_unchecked(key);
            for dim in 0..D {
                let value = L::splat(*values.get_unchecked(first + dim));
                for n in 0..N {
                    sums[dim][n] = lanes[n].mul_add(value, sums[dim][n]);
                }
            }
        }
    }
    for dim in 0..D {
        for n in 0..N {
            sums[dim][n].store(&mut outputs[dim * width + n * L::WIDTH..]);
        }
    }
    D
}
