//! One item is the draw. Nothing is sorted: every filter finds a bound by counting in bins.

use std::ops::ControlFlow;

use super::{Block, philox::philox};
use crate::{
    Invocation, KernelFault, KernelResult,
    ops::{
        lanes::{LaneKernel, Lanes, Portable, largest},
        math,
    },
};

pub(super) struct Sample;

// SAFETY: the one item writes the one element of binding 2.
unsafe impl LaneKernel for Sample {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let logits = invocation.input::<f32>(0);
        let step = invocation.input::<u32>(1)[0];
        let index = draw::<L>(logits, step, &block)?;
        // SAFETY: the element of the item.
        let output = unsafe { invocation.output::<u32>(2, 0..1) };
        // There are at most 2^23 logits.
        output[0] = index as u32;
        Ok(())
    }
}

/// Logits whose weights are made at a time.
const CHUNK: usize = 64;
/// Bins of one counting pass.
const BINS: usize = 2048;
/// Groups of logits whose maxima bound the `top_k`-th largest from below.
const GROUPS: usize = 2048;
/// Weight of the most likely token.
const ONE: f32 = (1_u64 << 40) as f32;

/// From logits to weights: `2^40 e^((logit - max) / temperature)`, cut to a whole number.
#[derive(Clone, Copy)]
struct Scale {
    max: f32,
    inverse_temperature: f32,
}

/// Tokens that the filters leave: logits of at least `floor`, of those equal to it the first `ties`,
/// and of those the ones with a weight of at least `least`.
struct Kept {
    floor: f32,
    ties: u64,
    least: u64,
}

#[inline(always)]
fn draw<L: Lanes>(logits: &[f32], step: u32, block: &Block) -> Result<usize, KernelFault> {
    let mut maxima = [f32::NEG_INFINITY; GROUPS];
    let group = logits.len().div_ceil(GROUPS).next_multiple_of(CHUNK);
    let maxima = &mut maxima[..logits.len().div_ceil(group)];
    for (max, logits) in maxima.iter_mut().zip(logits.chunks(group)) {
        *max = largest::<L>(logits);
    }
    let max = largest::<L>(maxima);
    if !max.is_finite() {
        return Err(KernelFault(format!("the largest logit is {max}, needed a finite number")));
    }
    let scale = Scale { max, inverse_temperature: block.inverse_temperature };
    let mut kept = Kept { floor: f32::NEG_INFINITY, ties: u64::MAX, least: 1 };
    let top_k = block.top_k as usize;
    if top_k > 0 && top_k < logits.len() {
        let mut bound = f32::NEG_INFINITY;
        if top_k <= maxima.len() {
            // As many groups as `top_k` have a value of at least this.
            bound = *maxima.select_nth_unstable_by(top_k - 1, |a, b| b.total_cmp(a)).1;
        }
        kept.floor = select_by_count(logits, [bound, max], block.top_k.into());
    }
    if block.top_p < 1.0 {
        let total = total(logits, scale, &kept);
        let target = share_of(total, block).clamp(1, total);
        let (floor, above) = select_by_weight(logits, [kept.floor, max], target, scale);
        let weight = weights(&[floor], scale)[0].max(1);
        kept = Kept { floor, ties: (target - above).div_ceil(weight), ..kept };
    }
    kept.least = u64::from(block.least[1]) << 32 | u64::from(block.least[0]);
    let [low, high, ..] = philox([step, 0, 0, 0], block.seed);
    let random = u64::from(high) << 32 | u64::from(low);
    let total = total(logits, scale, &kept);
    let mut left = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    let mut drawn = None;
    visit(logits, scale, &kept, |index, weight| {
        if left < weight {
            drawn = Some(index);
            return ControlFlow::Break(());
        }
        left -= weight;
        ControlFlow::Continue(())
    });
    drawn.ok_or_else(|| KernelFault("the weights changed during the draw".into()))
}

/// `ceil(top_p * total)`, exactly.
fn share_of(total: u64, block: &Block) -> u64 {
    let product = u128::from(total) * u128::from(block.top_p_mantissa);
    // Below 2^87, so that a larger shift leaves nothing either.
    let shift = block.top_p_shift.min(100);
    (product >> shift) as u64 + u64::from(product.trailing_zeros() < shift)
}

/// Weights of up to [`CHUNK`] logits. The operations are the same at every level, so that the sums are.
#[inline(always)]
fn weights(logits: &[f32], scale: Scale) -> [u64; CHUNK] {
    let mut values = [0.0_f32; CHUNK];
    let (max, factor) = (Portable::splat(scale.max), Portable::splat(scale.inverse_temperature));
    for (values, logits) in values.chunks_exact_mut(Portable::WIDTH).zip(logits.chunks(Portable::WIDTH)) {
        let logits = Portable::load_partial(logits, f32::NEG_INFINITY);
        math::exp(logits.sub(max).mul(factor)).mul(Portable::splat(ONE)).store(values);
    }
    values.map(|value| value as u64)
}

/// Calls `function` with index and weight of each kept token, in order.
#[inline(always)]
fn visit(logits: &[f32], scale: Scale, kept: &Kept, mut function: impl FnMut(usize, u64) -> ControlFlow<()>) {
    let mut ties = kept.ties;
    for (chunk, logits) in logits.chunks(CHUNK).enumerate() {
        if !any_at_least(logits, kept.floor) {
            continue;
        }
        let weights = weights(logits, scale);
        for (index, (&logit, weight)) in logits.iter().zip(weights).enumerate() {
            if logit < kept.floor || logit.is_nan() || weight < kept.least {
                continue;
            }
            if logit == kept.floor {
                if ties == 0 {
                    continue;
                }
                ties -= 1;
            }
            if function(chunk * CHUNK + index, weight).is_break() {
                return;
            }
        }
    }
}

#[inline(always)]
fn total(logits: &[f32], scale: Scale, kept: &Kept) -> u64 {
    let mut total = 0;
    visit(logits, scale, kept, |_, weight| {
        total += weight;
        ControlFlow::Continue(())
    });
    total
}

#[inline(always)]
fn any_at_least(logits: &[f32], bound: f32) -> bool {
    logits.iter().fold(false, |any, &logit| any | (logit >= bound))
}

/// A whole number that orders as the logit does; 0 for NaN.
#[inline(always)]
fn key(logit: f32) -> u32 {
    if logit.is_nan() {
        return 0;
    }
    // Both zeros are one.
    let bits = (logit + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

#[inline(always)]
fn logit(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

/// The `target`-th largest logit, among those between `bounds`.
#[inline(always)]
fn select_by_count(logits: &[f32], bounds: [f32; 2], target: u64) -> f32 {
    let mut search = Search::new(bounds, target);
    while !search.is_done() {
        let mut bins = [0_u64; BINS];
        let floor = logit(search.low);
        for logits in logits.chunks(CHUNK).filter(|logits| any_at_least(logits, floor)) {
            for &logit in logits {
                if let Some(bin) = search.bin(logit) {
                    bins[bin] += 1;
                }
            }
        }
        search.narrow(&bins);
    }
    logit(search.low)
}

/// The largest logit that has together with all larger ones a weight of at least `target`, and the
/// weight of the larger ones.
#[inline(always)]
fn select_by_weight(logits: &[f32], bounds: [f32; 2], target: u64, scale: Scale) -> (f32, u64) {
    let mut search = Search::new(bounds, target);
    while !search.is_done() {
        let mut bins = [0_u64; BINS];
        let floor = logit(search.low);
        for logits in logits.chunks(CHUNK).filter(|logits| any_at_least(logits, floor)) {
            for (&logit, weight) in logits.iter().zip(weights(logits, scale)) {
                if let Some(bin) = search.bin(logit) {
                    bins[bin] += weight;
                }
            }
        }
        search.narrow(&bins);
    }
    (logit(search.low), search.above)
}

/// A search for the key at which a sum over the keys from the largest down reaches a target: each
/// pass cuts the range of keys to one of [`BINS`] parts.
struct Search {
    low: u32,
    span: u32,
    shift: u32,
    /// Sum over the keys above the range.
    above: u64,
    target: u64,
}

impl Search {
    #[inline(always)]
    fn new(bounds: [f32; 2], target: u64) -> Self {
        let low = key(bounds[0]);
        let span = key(bounds[1]) - low;
        Self { low, span, shift: shift(span), above: 0, target }
    }

    #[inline(always)]
    fn is_done(&self) -> bool {
        self.span == 0 && self.shift == 0
    }

    #[inline(always)]
    fn bin(&self, logit: f32) -> Option<usize> {
        let distance = key(logit).wrapping_sub(self.low);
        (distance <= self.span).then_some((distance >> self.shift) as usize)
    }

    #[inline(always)]
    fn narrow(&mut self, bins: &[u64; BINS]) {
        // Where the target is out of reach, everything is kept.
        let mut found = 0;
        let mut above = self.above;
        for (bin, sum) in bins.iter().enumerate().rev() {
            if above + sum >= self.target || bin == 0 {
                found = bin;
                break;
            }
            above += sum;
        }
        self.above = above;
        self.low += (found as u32) << self.shift;
        self.span = (1_u32 << self.shift) - 1;
        self.shift = shift(self.span);
    }
}

/// By how much keys are shifted so that `span` falls into the bins.
#[inline(always)]
fn shift(span: u32) -> u32 {
    (u32::BITS - span.leading_zeros()).saturating_sub(BINS.trailing_zeros())
}
