//! One item is one token. Sines and cosines are made once for all of its heads.

use super::Block;
use crate::{
    Invocation, KernelResult,
    ops::lanes::{LaneKernel, Lanes},
};

pub(super) struct Rope;

/// Pairs whose sines and cosines are kept at a time.
const PAIRS: usize = 64;

// SAFETY: item `t` reads and writes the heads of token `t` in binding 0.
unsafe impl LaneKernel for Rope {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let head_dim = block.head_dim as usize;
        let pairs = block.pairs as usize;
        let token_len = block.heads as usize * head_dim;
        let positions = invocation.input::<u32>(1);
        let frequencies = invocation.input::<f32>(2);
        let (mut sines, mut cosines) = ([0.0; PAIRS], [0.0; PAIRS]);
        for token in invocation.items() {
            // SAFETY: the elements of this item.
            let values = unsafe { invocation.output::<f32>(0, token * token_len..(token + 1) * token_len) };
            for first in (0..pairs).step_by(PAIRS) {
                let count = PAIRS.min(pairs - first);
                let (sines, cosines) = (&mut sines[..count], &mut cosines[..count]);
                let frequencies = &frequencies[first..first + count];
                sine_cosine(positions[token], frequencies, block.magnitude, sines, cosines);
                for head in values.chunks_exact_mut(head_dim) {
                    if block.interleaved != 0 {
                        rotate_interleaved(&mut head[2 * first..2 * (first + count)], sines, cosines);
                    } else {
                        let (left, right) = head.split_at_mut(pairs);
                        let (left, right) = (&mut left[first..first + count], &mut right[first..first + count]);
                        rotate_halves::<L>(left, right, sines, cosines);
                    }
                }
            }
        }
        Ok(())
    }
}

#[inline(always)]
fn rotate_halves<L: Lanes>(left: &mut [f32], right: &mut [f32], sines: &[f32], cosines: &[f32]) {
    let whole = left.len() / L::WIDTH * L::WIDTH;
    for at in (0..whole).step_by(L::WIDTH) {
        let (a, b) = (L::load(&left[at..]), L::load(&right[at..]));
        let (sine, cosine) = (L::load(&sines[at..]), L::load(&cosines[at..]));
        a.mul(cosine).sub(b.mul(sine)).store(&mut left[at..]);
        a.mul(sine).add(b.mul(cosine)).store(&mut right[at..]);
    }
    for at in whole..left.len() {
        let (a, b) = (left[at], right[at]);
        left[at] = a * cosines[at] - b * sines[at];
        right[at] = a * sines[at] + b * cosines[at];
    }
}

#[inline(always)]
fn rotate_interleaved(values: &mut [f32], sines: &[f32], cosines: &[f32]) {
    let (pairs, _) = values.as_chunks_mut::<2>();
    for (([a, b], sine), cosine) in pairs.iter_mut().zip(sines).zip(cosines) {
        (*a, *b) = (*a * cosine - *b * sine, *a * sine + *b * cosine);
    }
}

/// `magnitude * sin t` and `magnitude * cos t` for `t = position * frequency`, to about 1e-7.
///
/// The angle is cut into quarter turns in `f64`; a polynomial of the remainder, within an eighth of a
/// turn, gives both functions, which the quarter then swaps and negates.
#[inline(always)]
fn sine_cosine(position: u32, frequencies: &[f32], magnitude: f32, sines: &mut [f32], cosines: &mut [f32]) {
    // Added to a number of magnitude up to 2^51, rounds it to a whole number.
    const ROUNDING: f64 = 6_755_399_441_055_744.0;
    let position = f64::from(position);
    for ((frequency, sine), cosine) in frequencies.iter().zip(sines).zip(cosines) {
        let quarters = position * (f64::from(*frequency) * std::f64::consts::FRAC_2_PI);
        let shifted = quarters + ROUNDING;
        let quarter = shifted.to_bits() as u32;
        let r = ((quarters - (shifted - ROUNDING)) * std::f64::consts::FRAC_PI_2) as f32;
        let square = r * r;
        let s = r + r
            * square
            * (-1.0 / 6.0 + square * (1.0 / 120.0 - square * (1.0 / 5040.0 - square * (1.0 / 362_880.0))));
        let c = 1.0 - square * 0.5
            + square
                * square
                * (1.0 / 24.0 - square * (1.0 / 720.0 - square * (1.0 / 40_320.0 - square * (1.0 / 3_628_800.0))));
        let (swapped_s, swapped_c) = if quarter & 1 == 0 { (s, c) } else { (c, s) };
        let sine_sign = (quarter & 2) << 30;
        let cosine_sign = (quarter.wrapping_add(1) & 2) << 30;
        *sine = f32::from_bits(swapped_s.to_bits() ^ sine_sign) * magnitude;
        *cosine = f32::from_bits(swapped_c.to_bits() ^ cosine_sign) * magnitude;
    }
}
