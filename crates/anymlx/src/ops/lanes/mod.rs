//! Vectors of `f32` at each [`CpuLevel`](crate::CpuLevel), and kernels that are written once for all of them.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use bytemuck::Pod;
use half::f16;

pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

use crate::{CpuKernel, CpuLevel, Invocation, KernelResult};

/// The most lanes of any level: the length of buffers for partial vectors.
pub(crate) const MAX_WIDTH: usize = 16;

/// One vector register of `f32`.
///
/// Methods are only to be called from code that runs under the level's target features: from a
/// [`LaneKernel`], or from a test that has asked for the level's support.
pub(crate) trait Lanes: Copy {
    /// Lanes: 8 or 16.
    const WIDTH: usize;
    /// Vectors that a register-blocked inner loop holds side by side, for each of four rows: as many
    /// accumulators as the registers take.
    const BLOCK: usize;

    fn splat(value: f32) -> Self;
    /// The first `WIDTH` values.
    fn load(values: &[f32]) -> Self;
    /// The first `WIDTH` values, converted.
    fn load_f16(values: &[f16]) -> Self;
    fn store(self, values: &mut [f32]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once where the level has the instruction.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The larger value; `other` when either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller value; `other` when either is NaN.
    fn min(self, other: Self) -> Self;
    fn abs(self) -> Self;
    /// The sign of `sign` on the magnitude of `self`.
    fn copy_sign(self, sign: Self) -> Self;
    /// `yes` where `self < bound`, `no` elsewhere and for NaN.
    fn select_less(self, bound: Self, yes: Self, no: Self) -> Self;
    /// `self * 2^exponent` for whole numbers in -252..=252.
    fn scale_by_power(self, exponent: Self) -> Self;
    fn sum(self) -> f32;
    /// [`Self::sum`] of each.
    fn sum_each(vectors: [Self; 4]) -> [f32; 4];
    /// The largest lane; NaN lanes are passed over.
    fn largest(self) -> f32;

    /// Up to `WIDTH` values, the remaining lanes `fill`.
    #[inline(always)]
    fn load_partial(values: &[f32], fill: f32) -> Self {
        let mut buffer = [fill; MAX_WIDTH];
        buffer[..values.len()].copy_from_slice(values);
        Self::load(&buffer)
    }

    /// The first `values.len()` lanes.
    #[inline(always)]
    fn store_partial(self, values: &mut [f32]) {
        let mut buffer = [0.0; MAX_WIDTH];
        self.store(&mut buffer);
        let len = values.len();
        values.copy_from_slice(&buffer[..len]);
    }
}

/// What vectors are loaded from.
pub(crate) trait Element: Pod + Send + Sync {
    fn load<L: Lanes>(values: &[Self]) -> L;
    fn to_f32(self) -> f32;

    /// Up to `WIDTH` values, the remaining lanes 0.
    #[inline(always)]
    fn load_partial<L: Lanes>(values: &[Self]) -> L {
        let mut buffer = [Self::zeroed(); MAX_WIDTH];
        buffer[..values.len()].copy_from_slice(values);
        Self::load(&buffer)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load<L: Lanes>(values: &[Self]) -> L {
        L::load(values)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<L: Lanes>(values: &[Self]) -> L {
        L::load_f16(values)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

/// A partitioned kernel written for any vector width.
///
/// # Safety
/// As [`CpuKernel::partitioned`].
pub(crate) unsafe trait LaneKernel: 'static {
    /// Must be `#[inline(always)]`, and so must everything that it hands vectors to: that is how the
    /// code gets the level's instructions.
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult;
}

/// `K` compiled for `level`.
pub(crate) fn kernel<K: LaneKernel>(level: CpuLevel) -> CpuKernel {
    fn scalar<K: LaneKernel>(invocation: &Invocation<'_>) -> KernelResult {
        K::run::<Portable>(invocation)
    }
    #[cfg(target_arch = "x86_64")]
    fn avx2<K: LaneKernel>(invocation: &Invocation<'_>) -> KernelResult {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<K: LaneKernel>(invocation: &Invocation<'_>) -> KernelResult {
            K::run::<Avx2>(invocation)
        }
        // SAFETY: a device has this level only where the processor does.
        unsafe { inner::<K>(invocation) }
    }
    #[cfg(target_arch = "x86_64")]
    fn avx512<K: LaneKernel>(invocation: &Invocation<'_>) -> KernelResult {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn inner<K: LaneKernel>(invocation: &Invocation<'_>) -> KernelResult {
            K::run::<Avx512>(invocation)
        }
        // SAFETY: as above.
        unsafe { inner::<K>(invocation) }
    }
    let function = match level {
        CpuLevel::Scalar => scalar::<K>,
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx2 => avx2::<K>,
        #[cfg(target_arch = "x86_64")]
        CpuLevel::Avx512 => avx512::<K>,
        #[cfg(not(target_arch = "x86_64"))]
        _ => scalar::<K>,
    };
    // SAFETY: the promise of `LaneKernel`.
    unsafe { CpuKernel::partitioned(function) }
}

/// `output[i] = function(input[i])`, the same for every element wherever a partition starts.
#[inline(always)]
pub(crate) fn map<L: Lanes>(input: &[f32], output: &mut [f32], function: impl Fn(L) -> L) {
    let mut inputs = input.chunks_exact(L::WIDTH);
    let mut outputs = output.chunks_exact_mut(L::WIDTH);
    for (input, output) in inputs.by_ref().zip(outputs.by_ref()) {
        function(L::load(input)).store(output);
    }
    let (input, output) = (inputs.remainder(), outputs.into_remainder());
    if !input.is_empty() {
        function(L::load_partial(input, 0.0)).store_partial(output);
    }
}

/// As [`map`], in place.
#[inline(always)]
pub(crate) fn map_in_place<L: Lanes>(values: &mut [f32], function: impl Fn(L) -> L) {
    let mut chunks = values.chunks_exact_mut(L::WIDTH);
    for chunk in chunks.by_ref() {
        function(L::load(chunk)).store(chunk);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        function(L::load_partial(rest, 0.0)).store_partial(rest);
    }
}

/// `output[i] = function(left[i], right[i])`; see [`map`].
#[inline(always)]
pub(crate) fn zip<L: Lanes>(left: &[f32], right: &[f32], output: &mut [f32], function: impl Fn(L, L) -> L) {
    let mut lefts = left.chunks_exact(L::WIDTH);
    let mut rights = right.chunks_exact(L::WIDTH);
    let mut outputs = output.chunks_exact_mut(L::WIDTH);
    for ((left, right), output) in lefts.by_ref().zip(rights.by_ref()).zip(outputs.by_ref()) {
        function(L::load(left), L::load(right)).store(output);
    }
    let (left, right, output) = (lefts.remainder(), rights.remainder(), outputs.into_remainder());
    if !left.is_empty() {
        function(L::load_partial(left, 0.0), L::load_partial(right, 0.0)).store_partial(output);
    }
}

/// `target[i] = function(target[i], update[i])`; see [`map`].
#[inline(always)]
pub(crate) fn zip_in_place<L: Lanes>(target: &mut [f32], update: &[f32], function: impl Fn(L, L) -> L) {
    let mut targets = target.chunks_exact_mut(L::WIDTH);
    let mut updates = update.chunks_exact(L::WIDTH);
    for (target, update) in targets.by_ref().zip(updates.by_ref()) {
        function(L::load(target), L::load(update)).store(target);
    }
    let (target, update) = (targets.into_remainder(), updates.remainder());
    if !target.is_empty() {
        function(L::load_partial(target, 0.0), L::load_partial(update, 0.0)).store_partial(target);
    }
}

/// Sum of `function(values)`, over four vectors of partial sums. `function(0)` must be 0.
#[inline(always)]
pub(crate) fn sum<L: Lanes>(values: &[f32], function: impl Fn(L, L) -> L) -> f32 {
    let zero = L::splat(0.0);
    let mut sums = [zero; 4];
    let mut blocks = values.chunks_exact(4 * L::WIDTH);
    for block in blocks.by_ref() {
        for (sum, chunk) in sums.iter_mut().zip(block.chunks_exact(L::WIDTH)) {
            *sum = function(L::load(chunk), *sum);
        }
    }
    let mut chunks = blocks.remainder().chunks_exact(L::WIDTH);
    for chunk in chunks.by_ref() {
        sums[0] = function(L::load(chunk), sums[0]);
    }
    if !chunks.remainder().is_empty() {
        sums[1] = function(L::load_partial(chunks.remainder(), 0.0), sums[1]);
    }
    sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
}

/// Largest value; NaN is passed over, and a slice of nothing else gives minus infinity.
#[inline(always)]
pub(crate) fn largest<L: Lanes>(values: &[f32]) -> f32 {
    let lowest = L::splat(f32::NEG_INFINITY);
    let mut maxima = [lowest; 4];
    let mut blocks = values.chunks_exact(4 * L::WIDTH);
    for block in blocks.by_ref() {
        for (max, chunk) in maxima.iter_mut().zip(block.chunks_exact(L::WIDTH)) {
            *max = L::load(chunk).max(*max);
        }
    }
    for chunk in blocks.remainder().chunks(L::WIDTH) {
        maxima[0] = L::load_partial(chunk, f32::NEG_INFINITY).max(maxima[0]);
    }
    maxima[0].max(maxima[1]).max(maxima[2].max(maxima[3])).largest()
}
