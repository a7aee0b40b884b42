//! Panels of weights times many tokens, the part that the levels share.

use super::{
    encoding::{Encoding, Level},
    panel::{COLUMNS, Panel},
};
use crate::ops::{
    matmul::part::{Part, QuantizedTokens, ROWS, Sums},
    quantize_activations::QuantizedRow,
};

/// What a panel holds, known when code is compiled.
pub(super) trait Panelled {
    /// Columns that share a scale: 16 or 32.
    const GROUP: usize;
    /// What is to be subtracted from codes.
    const OFFSET: i32;
    const SIGNED: bool;
    const MAX_CODE: i32;
    const HAS_MINIMUMS: bool;
}

/// Codes as the encoding has them.
pub(super) struct AsStored<E>(std::marker::PhantomData<E>);
/// Codes made unsigned by adding 128 to signed ones.
pub(super) struct Unsigned<E>(std::marker::PhantomData<E>);

impl<E: Encoding> Panelled for AsStored<E> {
    const GROUP: usize = E::GROUP;
    const OFFSET: i32 = E::OFFSET;
    const SIGNED: bool = E::SIGNED;
    const MAX_CODE: i32 = E::MAX_CODE;
    const HAS_MINIMUMS: bool = E::HAS_MINIMUMS;
}

impl<E: Encoding> Panelled for Unsigned<E> {
    const GROUP: usize = E::GROUP;
    const OFFSET: i32 = if E::SIGNED { 128 } else { E::OFFSET };
    const SIGNED: bool = false;
    const MAX_CODE: i32 = if E::SIGNED { 255 } else { E::MAX_CODE };
    const HAS_MINIMUMS: bool = E::HAS_MINIMUMS;
}

/// `T` tokens and the columns of a panel.
pub(super) struct Tokens<const T: usize> {
    /// First quant of each token.
    pub(super) quants: [*const u8; T],
    /// First scale of each token.
    pub(super) scales: [*const f32; T],
    /// What sums of integer products begin with: the offset times the sum of quants, for each group.
    pub(super) starts: [[i32; COLUMNS / 16]; T],
    /// Scale times sum of quants, for each group.
    pub(super) scaled_sums: [[f32; COLUMNS / 16]; T],
}

impl<const T: usize> Tokens<T> {
    /// `group` and `groups` count groups of 32 columns.
    #[inline(always)]
    fn new<P: Panelled>(rows: [QuantizedRow<'_>; T], group: usize, groups: usize) -> Self {
        let mut tokens = Self {
            quants: rows.map(|row| row.quants[32 * group..32 * (group + groups)].as_ptr().cast()),
            scales: rows.map(|row| row.scales[group..group + groups].as_ptr()),
            starts: [[0; COLUMNS / 16]; T],
            scaled_sums: [[0.0; COLUMNS / 16]; T],
        };
        for (token, row) in rows.iter().enumerate() {
            let sums = &row.sums[2 * group..2 * (group + groups)];
            if P::OFFSET != 0 {
                each_sum::<P, i32>(sums, &mut tokens.starts[token], |sum, _| -P::OFFSET * sum);
            }
            if P::HAS_MINIMUMS {
                let scales = &row.scales[group..group + groups];
                let scaled = |sum, index: usize| sum as f32 * scales[index * P::GROUP / 32];
                each_sum::<P, f32>(sums, &mut tokens.scaled_sums[token], scaled);
            }
        }
        tokens
    }
}

#[inline(always)]
fn each_sum<P: Panelled, V>(sums: &[i16], values: &mut [V], function: impl Fn(i32, usize) -> V) {
    if P::GROUP == 16 {
        for (index, (value, &sum)) in values.iter_mut().zip(sums).enumerate() {
            *value = function(i32::from(sum), index);
        }
    } else {
        for (index, (value, sums)) in values.iter_mut().zip(sums.as_chunks::<2>().0).enumerate() {
            *value = function(i32::from(sums[0]) + i32::from(sums[1]), index);
        }
    }
}

/// The inner loops of a level.
pub(super) trait Kernel {
    /// The most tokens that one call takes.
    const TOKENS: usize;

    /// Adds the products of `groups` groups of 32 columns to `sums`.
    ///
    /// # Safety
    /// The processor has the level, and the caller is compiled for it; the tokens have as many groups.
    unsafe fn accumulate<P: Panelled, const T: usize>(
        panel: &Panel,
        groups: usize,
        tokens: &Tokens<T>,
        sums: &mut [[f32; ROWS]; T],
    );
}

/// See [`MultiplyQuantized`](crate::ops::matmul::part::MultiplyQuantized). `FLIP` turns the codes of `E` into those of
/// `P`.
///
/// # Safety
/// The processor has the level, and the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn multiply<E: Encoding, L: Level, K: Kernel, P: Panelled, const FLIP: u8>(
    part: &Part<'_>,
    tokens: &QuantizedTokens<'_>,
    sums: &mut [Sums],
) {
    let mut panel = Panel::new();
    let groups = part.columns / 32;
    for first in (0..groups).step_by(COLUMNS / 32) {
        let count = (groups - first).min(COLUMNS / 32);
        // SAFETY: as the caller vouches; every token has the part's columns.
        unsafe {
            panel.fill::<E, L, FLIP>(part, first, count);
            let mut next = 0;
            if K::TOKENS == 8 {
                next = all::<K, P, 8>(&panel, tokens, (first, count), next, sums);
            }
            next = all::<K, P, 4>(&panel, tokens, (first, count), next, sums);
            next = all::<K, P, 2>(&panel, tokens, (first, count), next, sums);
            all::<K, P, 1>(&panel, tokens, (first, count), next, sums);
        }
    }
}

/// Multiplies as many whole sets of `T` tokens as there are from token `next`; returns the token after them.
#[inline(always)]
unsafe fn all<K: Kernel, P: Panelled, const T: usize>(
    panel: &Panel,
    tokens: &QuantizedTokens<'_>,
    (first, count): (usize, usize),
    mut next: usize,
    sums: &mut [Sums],
) -> usize {
    for sums in sums[next..].as_chunks_mut::<T>().0 {
        let set = Tokens::<T>::new::<P>(std::array::from_fn(|index| tokens.row(next + index)), first, count);
        // SAFETY: as the caller vouches.
        unsafe { K::accumulate::<P, T>(panel, count, &set, sums) };
        next += T;
    }
    next
}
