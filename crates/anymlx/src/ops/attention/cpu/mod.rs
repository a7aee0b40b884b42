//! Kernels: spans of keys and the join of their sums for few queries, tiles for many.
//!
//! Inner loops run over indices, for what [`lanes`](crate::ops::lanes) says of closures and adapters.
#![allow(clippy::needless_range_loop)]

mod join;
mod spans;
mod tiles;

use std::ops::Range;

pub(super) use join::Join;
pub(super) use spans::Spans;
pub(super) use tiles::Tiles;

use super::Block;
use crate::{
    KernelFault,
    ops::{
        lanes::{Lanes, map_in_place},
        math,
    },
};

/// The positions that a token at `position` attends to.
#[inline(always)]
fn seen(block: &Block, position: u32) -> Result<Range<usize>, KernelFault> {
    if position >= block.capacity {
        return Err(KernelFault(format!("position {position} is outside the cache of {} tokens", block.capacity)));
    }
    Ok((position + 1).saturating_sub(block.window) as usize..position as usize + 1)
}

/// Caps scores, if there is a cap.
#[inline(always)]
fn cap_scores<L: Lanes>(scores: &mut [f32], softcap: f32) {
    if softcap != 0.0 {
        let cap = L::splat(softcap);
        map_in_place!(L, scores, |score| math::tanh(score.div(cap)).mul(cap));
    }
}
