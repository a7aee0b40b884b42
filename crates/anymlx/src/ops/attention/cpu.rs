//! One item is one head of one token.

use std::{marker::PhantomData, ops::Range};

use super::Block;
use crate::{
    Invocation, KernelFault, KernelResult,
    ops::{
        lanes::{Element, LaneKernel, Lanes, map_in_place, sum},
        math,
    },
};

pub(super) struct Attention<T>(PhantomData<T>);

/// Keys whose scores are made before their values are read.
const KEYS: usize = 64;

// SAFETY: item `t * heads + h` writes elements `[t, h]` of binding 4.
unsafe impl<T: Element> LaneKernel for Attention<T> {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let (heads, head_dim) = (block.heads as usize, block.head_dim as usize);
        let head_len = block.capacity as usize * head_dim;
        let group = heads / block.kv_heads as usize;
        let queries = invocation.input::<f32>(0);
        let keys = invocation.input::<T>(1);
        let values = invocation.input::<T>(2);
        let positions = invocation.input::<u32>(3);
        for item in invocation.items() {
            let (token, head) = (item / heads, item % heads);
            let elements = item * head_dim..(item + 1) * head_dim;
            let cached = head / group * head_len..(head / group + 1) * head_len;
            let seen = seen(&block, positions[token])?;
            // SAFETY: the elements of this item.
            let output = unsafe { invocation.output::<f32>(4, elements.clone()) };
            attend::<L, T>(&queries[elements], &keys[cached.clone()], &values[cached], output, seen, &block);
        }
        Ok(())
    }
}

/// The positions that a token at `position` attends to.
#[inline(always)]
fn seen(block: &Block, position: u32) -> Result<Range<usize>, KernelFault> {
    if position >= block.capacity {
        return Err(KernelFault(format!("position {position} is outside the cache of {} tokens", block.capacity)));
    }
    Ok((position + 1).saturating_sub(block.window) as usize..position as usize + 1)
}

#[inline(always)]
fn attend<L: Lanes, T: Element>(
    query: &[f32],
    keys: &[T],
    values: &[T],
    output: &mut [f32],
    seen: Range<usize>,
    block: &Block,
) {
    let head_dim = query.len();
    let mut scores = [0.0_f32; KEYS];
    let (mut max, mut total) = (f32::NEG_INFINITY, 0.0_f32);
    output.fill(0.0);
    for first in seen.clone().step_by(KEYS) {
        let last = (first + KEYS).min(seen.end);
        let scores = &mut scores[..last - first];
        for (score, key) in scores.iter_mut().zip(keys[first * head_dim..].chunks_exact(head_dim)) {
            *score = dot::<L, T>(query, key) * block.scale;
        }
        if block.softcap != 0.0 {
            let cap = L::splat(block.softcap);
            map_in_place(scores, |score: L| math::tanh(score.div(cap)).mul(cap));
        }
        let new_max = scores.iter().fold(max, |max, &score| max.max(score));
        let shift = L::splat(new_max);
        map_in_place(scores, |score: L| math::exp(score.sub(shift)));
        let keep = if max == new_max { 1.0 } else { (max - new_max).exp() };
        max = new_max;
        total = total * keep + sum(scores, |score: L, sum| sum.add(score));
        if keep != 1.0 {
            output.iter_mut().for_each(|value| *value *= keep);
        }
        for (&score, value) in scores.iter().zip(values[first * head_dim..].chunks_exact(head_dim)) {
            accumulate::<L, T>(output, value, score);
        }
    }
    let factor = 1.0 / total;
    output.iter_mut().for_each(|value| *value *= factor);
}

#[inline(always)]
fn dot<L: Lanes, T: Element>(query: &[f32], key: &[T]) -> f32 {
    let mut queries = query.chunks_exact(L::WIDTH);
    let mut keys = key.chunks_exact(L::WIDTH);
    let mut total = L::splat(0.0);
    for (query, key) in queries.by_ref().zip(keys.by_ref()) {
        total = L::load(query).mul_add(T::load(key), total);
    }
    let rest = queries.remainder().iter().zip(keys.remainder());
    total.sum() + rest.map(|(query, key)| query * key.to_f32()).sum::<f32>()
}

#[inline(always)]
fn accumulate<L: Lanes, T: Element>(output: &mut [f32], value: &[T], weight: f32) {
    let factor = L::splat(weight);
    let mut outputs = output.chunks_exact_mut(L::WIDTH);
    let mut values = value.chunks_exact(L::WIDTH);
    for (output, value) in outputs.by_ref().zip(values.by_ref()) {
        T::load::<L>(value).mul_add(factor, L::load(output)).store(output);
    }
    for (output, value) in outputs.into_remainder().iter_mut().zip(values.remainder()) {
        *output += value.to_f32() * weight;
    }
}
