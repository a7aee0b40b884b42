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

    /// Each value times `factor`, rounded to whole numbers (ties to even) and kept within -127 and 127, and the sums of
    /// both halves. NaN becomes any number.
    fn round_to_bytes(values: &[f32; 32], factor: f32, bytes: &mut [i8; 32]) -> [i16; 2];

    /// Asks for the cache line at `address`, which may be any; nothing where the level cannot.
    #[inline(always)]
    fn prefetch(address: *const u8) {
        let _ = address;
    }

    /// As [`Self::load`], for inner loops that have checked their bounds outside.
    ///
    /// # Safety
    /// `values` points to `WIDTH` values.
    #[inline(always)]
    unsafe fn load_at(values: *const f32) -> Self {
        // SAFETY: the caller vouches for the values.
        Self::load(unsafe { std::slice::from_raw_parts(values, Self::WIDTH) })
    }

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

    /// As [`Self::load`], for inner loops that have checked their bounds outside.
    ///
    /// # Safety
    /// `values` points to `WIDTH` values.
    #[inline(always)]
    unsafe fn load_at<L: Lanes>(values: *const Self) -> L {
        // SAFETY: the caller vouches for the values.
        Self::load(unsafe { std::slice::from_raw_parts(values, L::WIDTH) })
    }

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
    /// code gets the level's instructions. Closures cannot be, and so must not handle vectors.
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

// The loops below are macros and not functions of closures: a closure is compiled on its own before
// anything is inlined into it, without the instructions of the level, and what it calls then stays a
// call. The same goes for `array::from_fn` and the adapters of iterators around vectors.

/// `output[i] = f(input[i])`, the same for every element wherever a partition starts.
macro_rules! map {
    ($lanes:ty, $input:expr, $output:expr, |$value:ident| $result:expr) => {{
        let (input, output): (&[f32], &mut [f32]) = ($input, $output);
        let mut inputs = input.chunks_exact(<$lanes>::WIDTH);
        let mut outputs = output.chunks_exact_mut(<$lanes>::WIDTH);
        for (input, output) in inputs.by_ref().zip(outputs.by_ref()) {
            let $value = <$lanes>::load(input);
            $result.store(output);
        }
        let (input, output) = (inputs.remainder(), outputs.into_remainder());
        if !input.is_empty() {
            let $value = <$lanes>::load_partial(input, 0.0);
            $result.store_partial(output);
        }
    }};
}

/// As [`map`], in place.
macro_rules! map_in_place {
    ($lanes:ty, $values:expr, |$value:ident| $result:expr) => {{
        let values: &mut [f32] = $values;
        let mut chunks = values.chunks_exact_mut(<$lanes>::WIDTH);
        for chunk in chunks.by_ref() {
            let $value = <$lanes>::load(chunk);
            $result.store(chunk);
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let $value = <$lanes>::load_partial(rest, 0.0);
            $result.store_partial(rest);
        }
    }};
}

/// `output[i] = f(left[i], right[i])`; see [`map`].
macro_rules! zip {
    ($lanes:ty, $left:expr, $right:expr, $output:expr, |$a:ident, $b:ident| $result:expr) => {{
        let (left, right, output): (&[f32], &[f32], &mut [f32]) = ($left, $right, $output);
        let mut lefts = left.chunks_exact(<$lanes>::WIDTH);
        let mut rights = right.chunks_exact(<$lanes>::WIDTH);
        let mut outputs = output.chunks_exact_mut(<$lanes>::WIDTH);
        for ((left, right), output) in lefts.by_ref().zip(rights.by_ref()).zip(outputs.by_ref()) {
            let ($a, $b) = (<$lanes>::load(left), <$lanes>::load(right));
            $result.store(output);
        }
        let (left, right, output) = (lefts.remainder(), rights.remainder(), outputs.into_remainder());
        if !left.is_empty() {
            let ($a, $b) = (<$lanes>::load_partial(left, 0.0), <$lanes>::load_partial(right, 0.0));
            $result.store_partial(output);
        }
    }};
}

/// `target[i] = f(target[i], update[i])`; see [`map`].
macro_rules! zip_in_place {
    ($lanes:ty, $target:expr, $update:expr, |$a:ident, $b:ident| $result:expr) => {{
        let (target, update): (&mut [f32], &[f32]) = ($target, $update);
        let mut targets = target.chunks_exact_mut(<$lanes>::WIDTH);
        let mut updates = update.chunks_exact(<$lanes>::WIDTH);
        for (target, update) in targets.by_ref().zip(updates.by_ref()) {
            let ($a, $b) = (<$lanes>::load(target), <$lanes>::load(update));
            $result.store(target);
        }
        let (target, update) = (targets.into_remainder(), updates.remainder());
        if !target.is_empty() {
            let ($a, $b) = (<$lanes>::load_partial(target, 0.0), <$lanes>::load_partial(update, 0.0));
            $result.store_partial(target);
        }
    }};
}

pub(crate) use {map, map_in_place, zip, zip_in_place};

macro_rules! reduction {
    ($(#[$doc:meta])* $name:ident, |$value:ident, $sum:ident| $result:expr) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name<L: Lanes>(values: &[f32]) -> f32 {
            let mut sums = [L::splat(0.0); 4];
            let mut blocks = values.chunks_exact(4 * L::WIDTH);
            for block in blocks.by_ref() {
                for ($sum, chunk) in sums.iter_mut().zip(block.chunks_exact(L::WIDTH)) {
                    let $value = L::load(chunk);
                    *$sum = $result;
                }
            }
            for ($sum, chunk) in sums.iter_mut().zip(blocks.remainder().chunks(L::WIDTH)) {
                let $value = L::load_partial(chunk, 0.0);
                *$sum = $result;
            }
            sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
        }
    };
}

reduction!(
    /// Sum, over four vectors of partial sums.
    sum,
    |value, sum| value.add(*sum)
);
reduction!(
    /// Sum of squares, over four vectors of partial sums.
    sum_of_squares,
    |value, sum| value.mul_add(value, *sum)
);

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
