//! The plain form, in which types arrive that no other encoding reads.

#![expect(clippy::needless_range_loop, reason = "iterators are not always inlined into the functions of a level")]

use std::arch::x86_64::*;

use super::encoding::{Encoding, Factors, Level};
use crate::ops::matmul::quantized::unpacked::Unpacked;

/// `N` factors of each of `COUNT` blocks from byte `offset`, in order; the others are 0.
#[inline(always)]
unsafe fn gathered<const N: usize, const COUNT: usize>(weights: *const u8, offset: usize) -> [__m256; 2] {
    let mut values = [0.0_f32; 16];
    for index in 0..COUNT * N {
        let (block, place) = (index / N, index % N);
        // SAFETY: inside the `COUNT` blocks.
        values[index] = unsafe {
            weights
                .add(block * size_of::<Unpacked<N>>() + offset + place * size_of::<f32>())
                .cast::<f32>()
                .read_unaligned()
        };
    }
    // SAFETY: the buffer has 16 values; every level has the instruction.
    unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] }
}

impl<const M: usize> Encoding for Unpacked<M> {
    const GROUP: usize = 32 / M;
    const BLOCK_GROUPS: usize = 1;
    const BLOCK_BYTES: usize = size_of::<Self>();
    const OFFSET: i32 = 0;
    const SIGNED: bool = true;
    const MAX_CODE: i32 = 128;
    const HAS_MINIMUMS: bool = true;

    #[inline(always)]
    unsafe fn codes<L: Level, const N: usize>(weights: *const u8) -> [__m256i; N] {
        // SAFETY: the caller vouches for `N` blocks.
        unsafe {
            let mut codes = [_mm256_setzero_si256(); N];
            for index in 0..N {
                codes[index] = _mm256_loadu_si256(weights.add(index * Self::BLOCK_BYTES).cast());
            }
            codes
        }
    }

    #[inline(always)]
    unsafe fn factors<const N: usize>(weights: *const u8) -> Factors {
        // SAFETY: the caller vouches for `N` blocks.
        unsafe { Factors { scales: gathered::<M, N>(weights, 32), minimums: gathered::<M, N>(weights, 32 + 4 * M) } }
    }
}
