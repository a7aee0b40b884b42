//! IQ3_S: 256 elements in groups of 32, `x = d (2 s + 1) g`, `g` from a grid of 512 points with free signs.

use bytemuck::{Pod, Zeroable};

use super::{IQ3_S_GRID, write_signed};
use crate::quant::{Block, HalfBytes, K_BLOCK_LEN};

/// A block of [`crate::QuantType::IQ3_S`], 110 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ3S {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Low eight bits of the grid point of each four elements.
    pub qs: [u8; 64],
    /// Ninth bit of the grid points: point `8 i + k` in bit `k` of byte `i`.
    pub qh: [u8; 8],
    /// Signs of each eight elements: bit `i` set makes element `i` negative.
    pub signs: [u8; 32],
    /// Scales `s`: group `2 i` in the low nibble of byte `i`, group `2 i + 1` in the high one.
    pub scales: [u8; 4],
}

impl Block for BlockIQ3S {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        for (i, values) in values.chunks_exact_mut(4).enumerate() {
            let high = self.qh[i / 8] >> (i % 8) & 1;
            let point = usize::from(self.qs[i]) | usize::from(high) << 8;
            let s = self.scales[i / 16] >> (i / 8 % 2 * 4) & 0x0f;
            let scale = d * f32::from(1 + 2 * s);
            write_signed(values, scale, &IQ3_S_GRID[point], self.signs[i / 2] >> (i % 2 * 4));
        }
    }
}
