//! TQ1_0: 256 elements, `x = d t`, `t` in `-1..=1`, five to a byte.

use bytemuck::{Pod, Zeroable};

use super::block::{Block, QuantizeBlock};
use super::tq2_0::ternary;
use super::{HalfBytes, K_BLOCK_LEN};

/// A block of [`super::QuantType::TQ1_0`], 54 bytes.
///
/// A byte holds up to five digits `t + 1`, the first element's most significant, as the fraction `0.t1 t2 t3 t4 t5` in base 3:
/// the byte is that fraction of 256, rounded up. Multiplying by 3 moves the next digit above the byte.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockTQ1_0 {
    /// Five digits each: digit `n` of byte `m < 32` is element `32 n + m`; that of byte `32 + m` is element
    /// `160 + 16 n + m`.
    pub qs: [u8; 48],
    /// Four digits each: digit `n` of byte `m` is element `240 + 4 n + m`.
    pub qh: [u8; 4],
    /// Scale `d`.
    pub d: HalfBytes,
}

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Index of the byte among all 52, and of its digit, that hold element `i`.
fn position(i: usize) -> (usize, usize) {
    match i {
        0..160 => (i % 32, i / 32),
        160..240 => (32 + (i - 160) % 16, (i - 160) / 16),
        _ => (48 + (i - 240) % 4, (i - 240) / 4),
    }
}

impl Block for BlockTQ1_0 {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        *values = std::array::from_fn(|i| {
            let (byte, digit) = position(i);
            let byte = if byte < 48 { self.qs[byte] } else { self.qh[byte - 48] };
            let rest = byte.wrapping_mul(POWERS[digit]);
            let code = (u16::from(rest) * 3) >> 8;
            d * (f32::from(code) - 1.0)
        });
    }
}

impl QuantizeBlock for BlockTQ1_0 {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        let (d, digits) = ternary(values);
        let mut sums = [0u8; 52];
        for (i, digit) in digits.into_iter().enumerate() {
            let (byte, place) = position(i);
            sums[byte] += digit * POWERS[4 - place];
        }
        let bytes = sums.map(|sum| (u16::from(sum) * 256).div_ceil(243) as u8);
        Self { qs: std::array::from_fn(|i| bytes[i]), qh: std::array::from_fn(|i| bytes[48 + i]), d }
    }
}
