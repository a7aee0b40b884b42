//! One item is a part of the keys for a slice of heads of one token: lanes run over the dimensions of
//! a head, and each key and value is read once for all heads of the slice.

use std::{marker::PhantomData, ops::Range};

use super::{Block, cap_scores, seen};
use crate::{
    Invocation, KernelFault, KernelResult,
    ops::{
        attention::plan::slice_heads,
        lanes::{Element, LaneKernel, Lanes, largest, map_in_place, sum},
        math,
    },
};

pub(in super::super) struct Spans<T>(PhantomData<T>);

/// Keys whose scores are made before their values are read. Parts take turns at spans.
const SPAN: usize = 64;

// SAFETY: item `(t, slice, part)` writes the heads of its slice: of row `t` in binding 4 where there
// is one part, else elements `[t, head, part]` of binding 4.
unsafe impl<T: Element> LaneKernel for Spans<T> {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let group = (block.heads / block.kv_heads) as usize;
        for item in invocation.items() {
            let (index, part) = (item / block.parts as usize, item % block.parts as usize);
            let (index, slice) = (index / block.slices as usize, index % block.slices as usize);
            let (token, kv_head) = (index / block.kv_heads as usize, index % block.kv_heads as usize);
            let heads = slice_heads(group, block.slices as usize, slice);
            let place = Place { token, kv_head, first_head: kv_head * group + heads.start, part };
            match heads.len() {
                1 => run_slice::<L, T, 1>(invocation, &block, &place)?,
                2 => run_slice::<L, T, 2>(invocation, &block, &place)?,
                3 => run_slice::<L, T, 3>(invocation, &block, &place)?,
                4 => run_slice::<L, T, 4>(invocation, &block, &place)?,
                other => return Err(KernelFault(format!("a slice of {other} heads"))),
            }
        }
        Ok(())
    }
}

struct Place {
    token: usize,
    kv_head: usize,
    first_head: usize,
    part: usize,
}

/// Running maximum and sum of exponentials of each head of a slice.
struct State<const H: usize> {
    max: [f32; H],
    total: [f32; H],
}

#[inline(always)]
fn run_slice<L: Lanes, T: Element, const H: usize>(
    invocation: &Invocation<'_>,
    block: &Block,
    place: &Place,
) -> KernelResult {
    let (heads, head_dim, parts) = (block.heads as usize, block.head_dim as usize, block.parts as usize);
    let head_len = block.capacity as usize * head_dim;
    let cached = place.kv_head * head_len..(place.kv_head + 1) * head_len;
    let (keys, values) = (&invocation.input::<T>(1)[cached.clone()], &invocation.input::<T>(2)[cached]);
    let seen = seen(block, invocation.input::<u32>(3)[place.token])?;
    let row = |head: usize| place.token * heads + place.first_head + head;
    let all_queries = invocation.input::<f32>(0);
    let queries: [&[f32]; H] = std::array::from_fn(|head| &all_queries[row(head) * head_dim..][..head_dim]);
    if parts == 1 {
        let at = |head: usize| row(head) * head_dim;
        // SAFETY: the heads of this item.
        let mut outputs: [&mut [f32]; H] =
            std::array::from_fn(|head| unsafe { invocation.output(4, at(head)..at(head) + head_dim) });
        let state = attend::<L, T, H>(&queries, keys, values, &mut outputs, seen, [0, 1], block);
        for (output, total) in outputs.into_iter().zip(state.total) {
            let factor = L::splat(1.0 / total);
            map_in_place(output, |value: L| value.mul(factor));
        }
        return Ok(());
    }
    // Maximum, sum of exponentials, weighted sum of values.
    let stride = head_dim + 2;
    let at = |head: usize| (row(head) * parts + place.part) * stride;
    // SAFETY: the elements of this item.
    let mut partials: [&mut [f32]; H] =
        std::array::from_fn(|head| unsafe { invocation.output(4, at(head)..at(head) + stride) });
    let mut outputs = partials.each_mut().map(|partial| &mut partial[2..]);
    let state = attend::<L, T, H>(&queries, keys, values, &mut outputs, seen, [place.part, parts], block);
    for (head, partial) in partials.into_iter().enumerate() {
        (partial[0], partial[1]) = (state.max[head], state.total[head]);
    }
    Ok(())
}

/// The spans of `seen` whose turn it is; outputs are not yet divided by the totals.
#[inline(always)]
fn attend<L: Lanes, T: Element, const H: usize>(
    queries: &[&[f32]; H],
    keys: &[T],
    values: &[T],
    outputs: &mut [&mut [f32]; H],
    seen: Range<usize>,
    [part, parts]: [usize; 2],
    block: &Block,
) -> State<H> {
    let head_dim = block.head_dim as usize;
    let mut state = State { max: [f32::NEG_INFINITY; H], total: [0.0; H] };
    let mut scores = [[0.0_f32; SPAN]; H];
    let mut keep = [0.0; H];
    outputs.iter_mut().for_each(|output| output.fill(0.0));
    for span in (seen.start / SPAN + part..seen.end.div_ceil(SPAN)).step_by(parts) {
        let positions = (span * SPAN).max(seen.start)..((span + 1) * SPAN).min(seen.end);
        let elements = positions.start * head_dim..positions.end * head_dim;
        score::<L, T, H>(queries, &keys[elements.clone()], &mut scores, block.scale);
        for head in 0..H {
            let scores = &mut scores[head][..positions.len()];
            cap_scores::<L>(scores, block.softcap);
            let max = largest::<L>(scores).max(state.max[head]);
            let shift = L::splat(max);
            map_in_place(scores, |score: L| math::exp(score.sub(shift)));
            keep[head] = if state.max[head] == max { 1.0 } else { (state.max[head] - max).exp() };
            state.max[head] = max;
            state.total[head] = state.total[head] * keep[head] + sum(scores, |score: L, sum| sum.add(score));
        }
        accumulate::<L, T, H>(outputs, &values[elements], &scores, &keep);
    }
    state
}

/// `scores[h][k] = scale * queries[h] · keys[k]`.
#[inline(always)]
fn score<L: Lanes, T: Element, const H: usize>(
    queries: &[&[f32]; H],
    keys: &[T],
    scores: &mut [[f32; SPAN]; H],
    scale: f32,
) {
    let head_dim = queries[0].len();
    let count = keys.len() / head_dim;
    let at_once = if L::BLOCK == 4 { 4 } else { 2 };
    let blocked = count / at_once * at_once;
    for first in (0..blocked).step_by(at_once) {
        let key = |index: usize| &keys[(first + index) * head_dim..][..head_dim];
        if L::BLOCK == 4 {
            let dots = dots::<L, T, H, 4>(queries, &[key(0), key(1), key(2), key(3)]);
            for (index, dots) in dots.into_iter().enumerate() {
                (0..H).for_each(|head| scores[head][first + index] = dots[head] * scale);
            }
        } else {
            let dots = dots::<L, T, H, 2>(queries, &[key(0), key(1)]);
            for (index, dots) in dots.into_iter().enumerate() {
                (0..H).for_each(|head| scores[head][first + index] = dots[head] * scale);
            }
        }
    }
    for index in blocked..count {
        let [dots] = dots::<L, T, H, 1>(queries, &[&keys[index * head_dim..][..head_dim]]);
        (0..H).for_each(|head| scores[head][index] = dots[head] * scale);
    }
}

#[inline(always)]
fn dots<L: Lanes, T: Element, const H: usize, const K: usize>(
    queries: &[&[f32]; H],
    keys: &[&[T]; K],
) -> [[f32; H]; K] {
    let head_dim = queries[0].len();
    let whole = head_dim / L::WIDTH * L::WIDTH;
    let mut sums = [[L::splat(0.0); H]; K];
    for at in (0..whole).step_by(L::WIDTH) {
        let keys: [L; K] = std::array::from_fn(|key| T::load(&keys[key][at..]));
        for head in 0..H {
            let query = L::load(&queries[head][at..]);
            for key in 0..K {
                sums[key][head] = query.mul_add(keys[key], sums[key][head]);
            }
        }
    }
    if whole < head_dim {
        let keys: [L; K] = std::array::from_fn(|key| T::load_partial(&keys[key][whole..]));
        for head in 0..H {
            let query = L::load_partial(&queries[head][whole..], 0.0);
            for key in 0..K {
                sums[key][head] = query.mul_add(keys[key], sums[key][head]);
            }
        }
    }
    sums.map(|sums| {
        let padded = std::array::from_fn(|head| if head < H { sums[head] } else { L::splat(0.0) });
        let each = L::sum_each(padded);
        std::array::from_fn(|head| each[head])
    })
}

/// `outputs[h] = keep[h] * outputs[h] + sum_k weights[h][k] values[k]`.
#[inline(always)]
fn accumulate<L: Lanes, T: Element, const H: usize>(
    outputs: &mut [&mut [f32]; H],
    values: &[T],
    weights: &[[f32; SPAN]; H],
    keep: &[f32; H],
) {
    let head_dim = outputs[0].len();
    let mut at = 0;
    if L::BLOCK == 4 {
        while at + 4 * L::WIDTH <= head_dim {
            accumulate_block::<L, T, H, 4>(outputs, values, weights, keep, at);
            at += 4 * L::WIDTH;
        }
    }
    while at + 2 * L::WIDTH <= head_dim {
        accumulate_block::<L, T, H, 2>(outputs, values, weights, keep, at);
        at += 2 * L::WIDTH;
    }
    while at + L::WIDTH <= head_dim {
        accumulate_block::<L, T, H, 1>(outputs, values, weights, keep, at);
        at += L::WIDTH;
    }
    for at in at..head_dim {
        for head in 0..H {
            let products =
                values.chunks_exact(head_dim).zip(&weights[head]).map(|(row, weight)| row[at].to_f32() * weight);
            outputs[head][at] = outputs[head][at] * keep[head] + products.sum::<f32>();
        }
    }
}

/// `N` vectors of dimensions from `at` on.
#[inline(always)]
fn accumulate_block<L: Lanes, T: Element, const H: usize, const N: usize>(
    outputs: &mut [&mut [f32]; H],
    values: &[T],
    weights: &[[f32; SPAN]; H],
    keep: &[f32; H],
    at: usize,
) {
    let head_dim = outputs[0].len();
    let mut sums: [[L; N]; H] = std::array::from_fn(|head| {
        let output = &outputs[head][at..at + N * L::WIDTH];
        std::array::from_fn(|n| L::load(&output[n * L::WIDTH..]).mul(L::splat(keep[head])))
    });
    for (key, row) in values.chunks_exact(head_dim).enumerate().take(SPAN) {
        let row = &row[at..at + N * L::WIDTH];
        let row: [L; N] = std::array::from_fn(|n| T::load(&row[n * L::WIDTH..]));
        for head in 0..H {
            let weight = L::splat(weights[head][key]);
            for n in 0..N {
                sums[head][n] = row[n].mul_add(weight, sums[head][n]);
            }
        }
    }
    for head in 0..H {
        let output = &mut outputs[head][at..at + N * L::WIDTH];
        for (n, sum) in sums[head].into_iter().enumerate() {
            sum.store(&mut output[n * L::WIDTH..]);
        }
    }
}
