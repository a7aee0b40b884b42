//! IQ2_S: 256 elements in groups of 16, `x = d (s + 1/2) / 4 * g`, `g` from a grid of 1024 points with free signs.

use bytemuck::{Pod, Zeroable};

use super::{IQ2_S_GRID, write_signed};
use crate::quant::{Block, HalfBytes, K_BLOCK_LEN};

/// A block of [`crate::QuantType::IQ2_S`], 82 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ2S {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Low eight bits of the grid point of each eight elements.
    pub qs: [u8; 32],
    /// Signs of each eight elements: bit `i` set makes element `i` negative.
    pub signs: [u8; 32],
    /// High two bits of the grid points: point `4 i + k` in bits `2 k ..` of byte `i`.
    pub qh: [u8; 8],
    /// Scales `s`: group `2 i` in the low nibble of byte `i`, group `2 i + 1` in the high one.
    pub scales: [u8; 8],
}

impl Block for BlockIQ2S {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let high = self.qh[i / 4] >> (i % 4 * 2) & 3;
            let point = usize::from(self.qs[i]) | usize::from(high) << 8;
            let s = self.scales[i / 4] >> (i / 2 % 2 * 4) & 0x0f;
            let scale = d * (0.5 + f32::from(s)) * 0.25;
            write_signed(values, scale, &IQ2_S_GRID[point], self.signs[i]);
        }
    }
}
