//! IQ2_XS: 256 elements in groups of 16, `x = d (s + 1/2) / 4 * g`, `g` from a grid of 512 points with even signs.

use bytemuck::{Pod, Zeroable};

use super::{IQ2_XS_GRID, even_signs, write_signed};
use crate::quant::{Block, HalfBytes, K_BLOCK_LEN};

/// A block of [`crate::QuantType::IQ2_XS`], 74 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ2XS {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Of each eight elements, a little-endian `u16`: grid point in the lower 9 bits, [`even_signs`] in the upper 7.
    pub qs: [[u8; 2]; 32],
    /// Scales `s`: group `2 i` in the low nibble of byte `i`, group `2 i + 1` in the high one.
    pub scales: [u8; 8],
}

impl Block for BlockIQ2XS {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        for (i, (&code, values)) in self.qs.iter().zip(values.chunks_exact_mut(8)).enumerate() {
            let code = u16::from_le_bytes(code);
            let s = self.scales[i / 4] >> (i / 2 % 2 * 4) & 0x0f;
            let scale = d * (0.5 + f32::from(s)) * 0.25;
            write_signed(values, scale, &IQ2_XS_GRID[usize::from(code & 511)], even_signs((code >> 9) as u8));
        }
    }
}
