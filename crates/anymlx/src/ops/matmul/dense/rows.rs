//! Dot products of weights as they are read: what few tokens need.

use super::element::Element;
use crate::ops::{
    lanes::Lanes,
    matmul::part::{Part, Sums},
};

#[inline(always)]
pub(super) fn multiply<L: Lanes, E: Element>(part: &Part<'_>, values: &[f32], sums: &mut [Sums]) {
    for (row, weights) in part.weight_rows().enumerate() {
        let weights: &[E::Stored] = bytemuck::cast_slice(weights);
        for (token, sums) in values.chunks_exact(part.columns).zip(sums.iter_mut()) {
            sums[row] += dot::<L, E>(weights, token);
        }
    }
}

/// Four vectors of partial sums, so that additions need not wait for each other.
#[inline(always)]
fn dot<L: Lanes, E: Element>(weights: &[E::Stored], values: &[f32]) -> f32 {
    let mut sums = [L::splat(0.0); 4];
    let mut weight_blocks = weights.chunks_exact(4 * L::WIDTH);
    let mut value_blocks = values.chunks_exact(4 * L::WIDTH);
    for (weights, values) in weight_blocks.by_ref().zip(value_blocks.by_ref()) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let start = lane * L::WIDTH;
            *sum = E::load::<L>(&weights[start..]).mul_add(L::load(&values[start..]), *sum);
        }
    }
    let mut weight_vectors = weight_blocks.remainder().chunks_exact(L::WIDTH);
    let mut value_vectors = value_blocks.remainder().chunks_exact(L::WIDTH);
    for (weights, values) in weight_vectors.by_ref().zip(value_vectors.by_ref()) {
        sums[0] = E::load::<L>(weights).mul_add(L::load(values), sums[0]);
    }
    let rest = weight_vectors.remainder().iter().zip(value_vectors.remainder());
    let rest: f32 = rest.map(|(&weight, value)| E::to_f32(weight) * value).sum();
    sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum() + rest
}
