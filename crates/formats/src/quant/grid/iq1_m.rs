//! IQ1_M: 256 elements in groups of 16, `x = d (2 s + 1) (g + delta)`, `g` from a grid of 2048 points, `delta` per eight.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::{IQ1_GRID, IQ1_SHIFT, write_shifted};
use crate::quant::{Block, K_BLOCK_LEN};

/// A block of [`crate::QuantType::IQ1_M`], 56 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ1M {
    /// Low eight bits of the grid point of each eight elements.
    pub qs: [u8; 32],
    /// Of eights `2 i` (low nibble of byte `i`) and `2 i + 1` (high nibble): the high three bits of the grid point; the
    /// nibble's upper bit set makes `delta` -1/8, else it is 1/8.
    pub qh: [u8; 16],
    /// Four little-endian `u16`: the scale `s` of group `4 i + k` in bits `3 k ..` of number `i`; the upper four bits of number
    /// `i` are bits `4 i ..` of the scale `d`, see [`Self::d`].
    pub scales: [[u8; 2]; 4],
}

impl BlockIQ1M {
    /// Scale `d`, a binary16 put together from its four parts.
    pub fn d(&self) -> f16 {
        let parts = self.scales.map(|part| u16::from_le_bytes(part) >> 12);
        f16::from_bits(parts[0] | parts[1] << 4 | parts[2] << 8 | parts[3] << 12)
    }
}

impl Block for BlockIQ1M {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d().to_f32();
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let high = self.qh[i / 2] >> (i % 2 * 4) & 0x0f;
            let point = usize::from(self.qs[i]) | usize::from(high & 7) << 8;
            let s = u16::from_le_bytes(self.scales[i / 8]) >> (i / 2 % 4 * 3) & 7;
            let shift = if high & 8 == 0 { IQ1_SHIFT } else { -IQ1_SHIFT };
            write_shifted(values, d * f32::from(2 * s + 1), &IQ1_GRID[point], shift);
        }
    }
}
