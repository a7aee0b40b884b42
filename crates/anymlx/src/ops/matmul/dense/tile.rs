//! Weights are decoded once into a tile that stays in cache while all tokens are multiplied with it.

use super::element::Decode;
use crate::ops::{
    lanes::Lanes,
    matmul::part::{Part, ROWS, Sums},
};

/// Columns of a tile: a multiple of every block.
const STEP: usize = 256;

/// One entry for each column: the weights of all rows.
type Tile = [[f32; ROWS]; STEP];

#[inline(always)]
pub(super) fn multiply<L: Lanes, D: Decode, const V: usize, const T: usize>(
    part: &Part<'_>,
    values: &[f32],
    sums: &mut [Sums],
) {
    let mut tile: Tile = [[0.0; ROWS]; STEP];
    for first in (0..part.columns).step_by(STEP) {
        let columns = first..(first + STEP).min(part.columns);
        fill::<D>(&mut tile, part, columns.clone());
        token_groups::<L, V, T>(&tile[..columns.len()], part.columns, &values[first..], sums);
    }
}

/// Rows that the part lacks keep what they have.
#[inline(always)]
fn fill<D: Decode>(tile: &mut Tile, part: &Part<'_>, columns: std::ops::Range<usize>) {
    let bytes = columns.start / D::LEN * D::BYTES..columns.end / D::LEN * D::BYTES;
    let mut decoded = [0.0; STEP];
    for (row, weights) in part.weight_rows().enumerate() {
        let decoded = &mut decoded[..columns.len()];
        D::decode(&weights[bytes.clone()], decoded);
        for (column, &value) in tile.iter_mut().zip(decoded.iter()) {
            column[row] = value;
        }
    }
}

/// `values` begins at the tile's first column of the first token; tokens are `stride` apart.
#[inline(always)]
fn token_groups<L: Lanes, const V: usize, const T: usize>(
    tile: &[[f32; ROWS]],
    stride: usize,
    values: &[f32],
    sums: &mut [Sums],
) {
    const { assert!(V * L::WIDTH == ROWS) };
    let columns = tile.len();
    let token = |index: usize| &values[index * stride..index * stride + columns];
    let (groups, rest) = sums.as_chunks_mut::<T>();
    let first_of_rest = groups.len() * T;
    for (group, sums) in groups.iter_mut().enumerate() {
        accumulate::<L, V, T>(tile, std::array::from_fn(|index| token(group * T + index)), sums);
    }
    for (index, sums) in rest.iter_mut().enumerate() {
        accumulate::<L, V, 1>(tile, [token(first_of_rest + index)], std::array::from_mut(sums));
    }
}

/// `V` vectors of rows times `T` tokens, held in registers.
#[inline(always)]
fn accumulate<L: Lanes, const V: usize, const T: usize>(
    tile: &[[f32; ROWS]],
    tokens: [&[f32]; T],
    sums: &mut [Sums; T],
) {
    let mut accumulators = [[L::splat(0.0); V]; T];
    for (accumulators, sums) in accumulators.iter_mut().zip(sums.iter()) {
        for (vector, accumulator) in accumulators.iter_mut().enumerate() {
            *accumulator = L::load(&sums[vector * L::WIDTH..]);
        }
    }
    assert!(tokens.iter().all(|token| token.len() == tile.len()));
    for (column, weights) in tile.iter().enumerate() {
        let weights: [L; V] = std::array::from_fn(|vector| L::load(&weights[vector * L::WIDTH..]));
        for (accumulators, token) in accumulators.iter_mut().zip(&tokens) {
            // SAFETY: every token has as many values as the tile has columns.
            let value = L::splat(unsafe { *token.get_unchecked(column) });
            for (accumulator, weight) in accumulators.iter_mut().zip(weights) {
                *accumulator = weight.mul_add(value, *accumulator);
            }
        }
    }
    for (accumulators, sums) in accumulators.iter().zip(sums) {
        for (vector, accumulator) in accumulators.iter().enumerate() {
            accumulator.store(&mut sums[vector * L::WIDTH..]);
        }
    }
}
