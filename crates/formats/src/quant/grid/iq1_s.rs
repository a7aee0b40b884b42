//! IQ1_S: 256 elements in groups of 32, `x = d (2 s + 1) (g + delta)`, `g` from a grid of 2048 points.

use bytemuck::{Pod, Zeroable};

use super::{IQ1_GRID, IQ1_SHIFT, write_shifted};
use crate::quant::{Block, HalfBytes, K_BLOCK_LEN};

/// A block of [`crate::QuantType::IQ1_S`], 50 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ1S {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Low eight bits of the grid point of each eight elements.
    pub qs: [u8; 32],
    /// Of each group of 32, a little-endian `u16`: the high three bits of its four grid points in bits `3 k ..`, the scale `s`
    /// in bits `12 .. 15`; bit 15 set makes `delta` -1/8, else it is 1/8.
    pub qh: [[u8; 2]; 8],
}

impl Block for BlockIQ1S {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let group = u16::from_le_bytes(self.qh[i / 4]);
            let high = group >> (i % 4 * 3) & 7;
            let point = usize::from(self.qs[i]) | usize::from(high) << 8;
            let scale = d * f32::from(2 * (group >> 12 & 7) + 1);
            let shift = if group & 0x8000 == 0 { IQ1_SHIFT } else { -IQ1_SHIFT };
            write_shifted(values, scale, &IQ1_GRID[point], shift);
        }
    }
}
