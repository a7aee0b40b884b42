//! IQ2_XXS: 256 elements in groups of 32, `x = d (s + 1/2) / 4 * g`, `g` from a grid of 256 points with even signs.

use bytemuck::{Pod, Zeroable};

use super::{IQ2_XXS_GRID, even_signs, write_signed};
use crate::quant::{Block, HalfBytes, K_BLOCK_LEN};

/// A block of [`crate::QuantType::IQ2_XXS`], 66 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ2XXS {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Of each group of 32: four grid points; then a little-endian `u32` with the [`even_signs`] of the four in bits
    /// `7 k ..`, and the scale `s` in its upper four bits.
    pub groups: [[u8; 8]; 8],
}

impl Block for BlockIQ2XXS {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        for (&[p0, p1, p2, p3, s0, s1, s2, s3], values) in self.groups.iter().zip(values.chunks_exact_mut(32)) {
            let rest = u32::from_le_bytes([s0, s1, s2, s3]);
            let scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
            for (k, (point, values)) in [p0, p1, p2, p3].into_iter().zip(values.chunks_exact_mut(8)).enumerate() {
                let signs = even_signs((rest >> (7 * k)) as u8);
                write_signed(values, scale, &IQ2_XXS_GRID[usize::from(point)], signs);
            }
        }
    }
}
