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

/// Keys whose scores are made before their values are read.
const SPAN: usize = 64;
/// Keys whose scores are made side by side.
const AT_ONCE: usize = 4;

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
            let heads = slice_heads(group, slice);
            let place = Place { token, kv_head, first_head: kv_head * group + heads.start, part };
            match heads.len() {
                1 => run_slice::<L, T, 1>(invocation, &block, &place)?,
                2 => run_slice::<L, T, 2>(invocation, &block, &place)?,
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
    // With one part, outputs; with several, maximum, sum of exponentials and weighted sum of values.
    let (first, stride, stats) = if parts == 1 { (0, head_dim, 0) } else { (place.part, head_dim + 2, 2) };
    let at = |head: usize| (row(head) * parts + first) * stride;
    // SAFETY: the elements of this item.
    let mut written: [&mut [f32]; H] =
        std::array::from_fn(|head| unsafe { invocation.output(4, at(head)..at(head) + stride) });
    let mut outputs = written.each_mut().map(|written| &mut written[stats..]);
    let state = attend::<L, T, H>(&queries, keys, values, &mut outputs, seen, [place.part, parts], block);
    for (head, written) in written.into_iter().enumerate() {
        if parts == 1 {
            let factor = L::splat(1.0 / state.total[head]);
            map_in_place!(L, written, |value| value.mul(factor));
        } else {
            (written[0], written[1]) = (state.max[head], state.total[head]);
        }
    }
    Ok(())
}

/// Asks for `elements`. Values are read one strip of dimensions after the other, which no hardware follows.
#[inline(always)]
fn prefetch<L: Lanes, T>(elements: &[T]) {
    for line in (0..size_of_val(elements)).step_by(64) {
        L::prefetch(elements.as_ptr().cast::<u8>().wrapping_add(line));
    }
}

/// Part number `part` of the spans of `seen`; outputs are not yet divided by the totals.
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
    let spans = seen.start / SPAN..seen.end.div_ceil(SPAN);
    let bound = |part: usize| spans.start + spans.len() * part / parts;
    let elements_of = |span: usize| {
        let positions = (span * SPAN).max(seen.start)..((span + 1) * SPAN).min(seen.end);
        positions.start * head_dim..positions.end * head_dim
    };
    for span in bound(part)..bound(part + 1) {
        let elements = elements_of(span);
        let positions = elements.len() / head_dim;
        let next = if span + 1 < bound(part + 1) { elements_of(span + 1) } else { 0..0 };
        score::<L, T, H>(queries, &keys[elements.clone()], &values[elements.clone()], &mut scores, block.scale);
        for head in 0..H {
            let scores = &mut scores[head][..positions];
            cap_scores::<L>(scores, block.softcap);
            let max = largest::<L>(scores).max(state.max[head]);
            let shift = L::splat(max);
            map_in_place!(L, scores, |score| math::exp(score.sub(shift)));
            keep[head] = if state.max[head] == max { 1.0 } else { (state.max[head] - max).exp() };
            state.max[head] = max;
            state.total[head] = state.total[head] * keep[head] + sum::<L>(scores);
        }
        accumulate::<L, T, H>(outputs, &values[elements], &scores, &keep, &keys[next]);
    }
    state
}

/// `scores[h][k] = scale * queries[h] · keys[k]`; asks for the values meanwhile.
#[inline(always)]
fn score<L: Lanes, T: Element, const H: usize>(
    queries: &[&[f32]; H],
    keys: &[T],
    values: &[T],
    scores: &mut [[f32; SPAN]; H],
    scale: f32,
) {
    let head_dim = queries[0].len();
    let count = keys.len() / head_dim;
    for first in (0..count).step_by(AT_ONCE) {
        prefetch::<L, T>(&values[first * head_dim..(first + AT_ONCE).min(count) * head_dim]);
        // Past the end, the last key is taken again.
        let mut block: [&[T]; AT_ONCE] = [&[]; AT_ONCE];
        for (index, key) in block.iter_mut().enumerate() {
            *key = &keys[(first + index).min(count - 1) * head_dim..][..head_dim];
        }
        let dots = dots::<L, T, H>(queries, &block);
        for (index, dots) in dots.iter().enumerate() {
            for head in 0..H {
                scores[head][(first + index).min(count - 1)] = dots[head] * scale;
            }
        }
    }
}

#[inline(always)]
fn dots<L: Lanes, T: Element, const H: usize>(queries: &[&[f32]; H], keys: &[&[T]; AT_ONCE]) -> [[f32; H]; AT_ONCE] {
    let head_dim = queries[0].len();
    let whole = head_dim / L::WIDTH * L::WIDTH;
    let mut sums = [[L::splat(0.0); H]; AT_ONCE];
    let mut lanes = [L::splat(0.0); AT_ONCE];
    assert!(queries.iter().all(|query| query.len() == head_dim) && keys.iter().all(|key| key.len() == head_dim));
    let mut at = 0;
    while at < whole {
        // SAFETY: queries and keys have `head_dim` dimensions.
        unsafe {
            for key in 0..AT_ONCE {
                lanes[key] = T::load_at(keys[key].as_ptr().add(at));
            }
            for head in 0..H {
                let query = L::load_at(queries[head].as_ptr().add(at));
                for key in 0..AT_ONCE {
                    sums[key][head] = query.mul_add(lanes[key], sums[key][head]);
                }
            }
        }
        at += L::WIDTH;
    }
    if whole < head_dim {
        for key in 0..AT_ONCE {
            lanes[key] = T::load_partial(&keys[key][whole..]);
        }
        for head in 0..H {
            let query = L::load_partial(&queries[head][whole..], 0.0);
            for key in 0..AT_ONCE {
                sums[key][head] = query.mul_add(lanes[key], sums[key][head]);
            }
        }
    }
    let mut results = [[0.0; H]; AT_ONCE];
    for key in 0..AT_ONCE {
        let mut padded = [L::splat(0.0); 4];
        padded[..H].copy_from_slice(&sums[key][..H]);
        let sums = L::sum_each(padded);
        results[key].copy_from_slice(&sums[..H]);
    }
    results
}

/// `outputs[h] = keep[h] * outputs[h] + sum_k weights[h][k] values[k]`; asks for the `next` keys meanwhile.
#[inline(always)]
fn accumulate<L: Lanes, T: Element, const H: usize>(
    outputs: &mut [&mut [f32]; H],
    values: &[T],
    weights: &[[f32; SPAN]; H],
    keep: &[f32; H],
    next: &[T],
) {
    let head_dim = outputs[0].len();
    let mut at = 0;
    let prefetch_strip = |at: usize, len: usize| {
        let share = |at: usize| next.len() / head_dim * at;
        prefetch::<L, T>(&next[share(at)..share(at + len)]);
    };
    if L::BLOCK == 4 {
        while at + 4 * L::WIDTH <= head_dim {
            prefetch_strip(at, 4 * L::WIDTH);
            accumulate_block::<L, T, H, 4>(outputs, values, weights, keep, at);
            at += 4 * L::WIDTH;
        }
    } else if L::BLOCK == 2 {
        while at + 2 * L::WIDTH <= head_dim {
            prefetch_strip(at, 2 * L::WIDTH);
            accumulate_block::<L, T, H, 2>(outputs, values, weights, keep, at);
            at += 2 * L::WIDTH;
        }
    }
    while at + L::WIDTH <= head_dim {
        accumulate_block::<L, T, H, 1>(outputs, values, weights, keep, at);
        at += L::WIDTH;
    }
    for at in at..head_dim {
        for head in 0..H {
            let mut sum = outputs[head][at] * keep[head];
            for (row, weight) in values.chunks_exact(head_dim).zip(&weights[head]) {
                sum += row[at].to_f32() * weight;
            }
            outputs[head][at] = sum;
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
    let mut sums = [[L::splat(0.0); N]; H];
    for head in 0..H {
        let output = &outputs[head][at..at + N * L::WIDTH];
        let keep = L::splat(keep[head]);
        for n in 0..N {
            sums[head][n] = L::load(&output[n * L::WIDTH..]).mul(keep);
        }
    }
    let mut lanes = [L::splat(0.0); N];
    assert!(at + N * L::WIDTH <= head_dim);
    for key in 0..(values.len() / head_dim).min(SPAN) {
        // SAFETY: the key is among the values and the weights, the dimensions among those of a head.
        unsafe {
            for n in 0..N {
                lanes[n] = T::load_at(values.as_ptr().add(key * head_dim + at + n * L::WIDTH));
            }
            for head in 0..H {
                let weight = L::splat(*weights[head].get_unchecked(key));
                for n in 0..N {
                    sums[head][n] = lanes[n].mul_add(weight, sums[head][n]);
                }
            }
        }
    }
    for head in 0..H {
        let output = &mut outputs[head][at..at + N * L::WIDTH];
        for n in 0..N {
            sums[head][n].store(&mut output[n * L::WIDTH..]);
        }
    }
}
