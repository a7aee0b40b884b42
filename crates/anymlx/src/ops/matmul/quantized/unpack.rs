//! Codes, scales and minimums of blocks, in portable code.

use anymlx_formats::quant::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, HalfBytes,
    unpack_k4_scale_min, unpack_q3_k_scales,
};
use bytemuck::Pod;

/// A block whose element `i` is `scales[i / GROUP] * codes[i] + minimums[i / GROUP]`.
pub(super) trait Unpack: Pod {
    /// Elements of a block.
    const LEN: usize;
    /// Elements that share a scale: 16 or 32.
    const GROUP: usize;
    /// False: the minimums are 0.
    const HAS_MINIMUMS: bool;

    /// Writes `LEN` codes and `LEN / GROUP` scales and minimums.
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]);
}

/// Low nibbles, then high nibbles.
#[inline(always)]
fn nibbles(packed: &[u8; 16], codes: &mut [i8]) {
    let (low, high) = codes[..32].split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(packed) {
        *low = (byte & 0x0f) as i8;
        *high = (byte >> 4) as i8;
    }
}

/// As [`nibbles`], with a fifth bit.
#[inline(always)]
fn five_bits(packed: &[u8; 16], fifth: [u8; 4], codes: &mut [i8]) {
    nibbles(packed, codes);
    for (codes, byte) in codes[..32].as_chunks_mut::<8>().0.iter_mut().zip(fifth) {
        for (bit, code) in codes.iter_mut().enumerate() {
            *code |= ((byte >> bit & 1) << 4) as i8;
        }
    }
}

#[inline(always)]
fn subtract(codes: &mut [i8], offset: i8) {
    codes.iter_mut().for_each(|code| *code -= offset);
}

impl Unpack for BlockQ4_0 {
    const LEN: usize = 32;
    const GROUP: usize = 32;
    const HAS_MINIMUMS: bool = false;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        nibbles(&self.qs, codes);
        subtract(&mut codes[..32], 8);
        (scales[0], minimums[0]) = (self.d.to_f32(), 0.0);
    }
}

impl Unpack for BlockQ4_1 {
    const LEN: usize = 32;
    const GROUP: usize = 32;
    const HAS_MINIMUMS: bool = true;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        nibbles(&self.qs, codes);
        (scales[0], minimums[0]) = (self.d.to_f32(), self.m.to_f32());
    }
}

impl Unpack for BlockQ5_0 {
    const LEN: usize = 32;
    const GROUP: usize = 32;
    const HAS_MINIMUMS: bool = false;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        five_bits(&self.qs, self.qh, codes);
        subtract(&mut codes[..32], 16);
        (scales[0], minimums[0]) = (self.d.to_f32(), 0.0);
    }
}

impl Unpack for BlockQ5_1 {
    const LEN: usize = 32;
    const GROUP: usize = 32;
    const HAS_MINIMUMS: bool = true;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        five_bits(&self.qs, self.qh, codes);
        (scales[0], minimums[0]) = (self.d.to_f32(), self.m.to_f32());
    }
}

impl Unpack for BlockQ8_0 {
    const LEN: usize = 32;
    const GROUP: usize = 32;
    const HAS_MINIMUMS: bool = false;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        codes[..32].copy_from_slice(&self.qs);
        (scales[0], minimums[0]) = (self.d.to_f32(), 0.0);
    }
}

impl Unpack for BlockQ2K {
    const LEN: usize = 256;
    const GROUP: usize = 16;
    const HAS_MINIMUMS: bool = true;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        two_bits(&self.qs, codes);
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for ((scale, minimum), packed) in scales.iter_mut().zip(minimums).zip(self.scales) {
            *scale = d * f32::from(packed & 0x0f);
            *minimum = -dmin * f32::from(packed >> 4);
        }
    }
}

/// 256 codes of two bits: those of 32 consecutive elements lie in the same bits of 32 bytes.
#[inline(always)]
pub(super) fn two_bits(packed: &[u8; 64], codes: &mut [i8]) {
    for (half, packed) in codes[..256].as_chunks_mut::<128>().0.iter_mut().zip(packed.as_chunks::<32>().0) {
        for (group, codes) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(packed) {
                *code = (byte >> (2 * group) & 3) as i8;
            }
        }
    }
}

impl Unpack for BlockQ3K {
    const LEN: usize = 256;
    const GROUP: usize = 16;
    const HAS_MINIMUMS: bool = false;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        two_bits(&self.qs, codes);
        for (group, codes) in codes[..256].as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(&self.hmask) {
                *code += ((byte >> group & 1) << 2) as i8 - 4;
            }
        }
        let d = self.d.to_f32();
        for ((scale, minimum), factor) in scales.iter_mut().zip(minimums).zip(unpack_q3_k_scales(&self.scales)) {
            (*scale, *minimum) = (d * f32::from(factor), 0.0);
        }
    }
}

/// The scales of `Q4_K` and `Q5_K`.
#[inline(always)]
fn k4_factors(d: HalfBytes, dmin: HalfBytes, packed: &[u8; 12], scales: &mut [f32], minimums: &mut [f32]) {
    let (d, dmin) = (d.to_f32(), dmin.to_f32());
    let (factors, offsets) = unpack_k4_scale_min(packed);
    for (((scale, minimum), factor), offset) in scales.iter_mut().zip(minimums).zip(factors).zip(offsets) {
        *scale = d * f32::from(factor);
        *minimum = -dmin * f32::from(offset);
    }
}

/// 256 codes of four bits: those of 32 consecutive elements lie in the same nibbles of 32 bytes.
#[inline(always)]
fn k_nibbles(packed: &[u8; 128], codes: &mut [i8]) {
    for (pair, packed) in codes[..256].as_chunks_mut::<64>().0.iter_mut().zip(packed.as_chunks::<32>().0) {
        let (low, high) = pair.split_at_mut(32);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(packed) {
            *low = (byte & 0x0f) as i8;
            *high = (byte >> 4) as i8;
        }
    }
}

impl Unpack for BlockQ4K {
    const LEN: usize = 256;
    const GROUP: usize = 32;
    const HAS_MINIMUMS: bool = true;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        k_nibbles(&self.qs, codes);
        k4_factors(self.d, self.dmin, &self.scales, scales, minimums);
    }
}

impl Unpack for BlockQ5K {
    const LEN: usize = 256;
    const GROUP: usize = 32;
    const HAS_MINIMUMS: bool = true;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        k_nibbles(&self.qs, codes);
        for (group, codes) in codes[..256].as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(&self.qh) {
                *code |= ((byte >> group & 1) << 4) as i8;
            }
        }
        k4_factors(self.d, self.dmin, &self.scales, scales, minimums);
    }
}

impl Unpack for BlockQ6K {
    const LEN: usize = 256;
    const GROUP: usize = 16;
    const HAS_MINIMUMS: bool = false;

    #[inline(always)]
    fn unpack(&self, codes: &mut [i8], scales: &mut [f32], minimums: &mut [f32]) {
        for half in 0..2 {
            let low = &self.ql[64 * half..64 * half + 64];
            let high = &self.qh[32 * half..32 * half + 32];
            let codes = &mut codes[128 * half..128 * half + 128];
            for group in 0..4 {
                let low = &low[32 * (group % 2)..32 * (group % 2) + 32];
                let codes = &mut codes[32 * group..32 * group + 32];
                for ((code, low), high) in codes.iter_mut().zip(low).zip(high) {
                    let low = low >> (4 * (group / 2)) & 0x0f;
                    *code = (low | (high >> (2 * group) & 3) << 4) as i8 - 32;
                }
            }
        }
        let d = self.d.to_f32();
        for ((scale, minimum), factor) in scales.iter_mut().zip(minimums).zip(self.scales) {
            (*scale, *minimum) = (d * f32::from(factor), 0.0);
        }
    }
}
