//! IQ3_XXS: 256 elements in groups of 32, `x = d (s + 1/2) / 2 * g`, `g` from a grid of 256 points with even signs.

use bytemuck::{Pod, Zeroable};

use super::{IQ3_XXS_GRID, even_signs, write_signed};
use crate::quant::{Block, HalfBytes, K_BLOCK_LEN};

/// A block of [`crate::QuantType::IQ3_XXS`], 98 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ3XXS {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Grid point of each four elements.
    pub qs: [u8; 64],
    /// Of each group of 32, a little-endian `u32`: the [`even_signs`] of its eights in bits `7 k ..`, and the scale `s` in
    /// the upper four bits.
    pub scales_and_signs: [[u8; 4]; 8],
}

impl Block for BlockIQ3XXS {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        for (i, values) in values.chunks_exact_mut(4).enumerate() {
            let group = u32::from_le_bytes(self.scales_and_signs[i / 8]);
            let scale = d * (0.5 + (group >> 28) as f32) * 0.5;
            let signs = even_signs((group >> (i % 8 / 2 * 7)) as u8) >> (i % 2 * 4);
            write_signed(values, scale, &IQ3_XXS_GRID[usize::from(self.qs[i])], signs);
        }
    }
}
