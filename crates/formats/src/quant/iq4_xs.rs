//! IQ4_XS: 256 elements in groups of 32, `x = d s v`, `v` one of sixteen unevenly spaced levels, `s` in `-32..32`.

use bytemuck::{Pod, Zeroable};

use super::block::{Block, QuantizeBlock};
use super::codebook::{pack_levels, unpack_levels};
use super::fit::Lattice;
use super::symmetric::{self, SymmetricBlock, SymmetricRanges};
use super::{HalfBytes, K_BLOCK_LEN};

const RANGES: SymmetricRanges = SymmetricRanges { group_len: 32, codes: Lattice::Iq4Levels, factor: 32 };

/// A block of [`super::QuantType::IQ4_XS`], 136 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ4XS {
    /// Scale `d` of the scales.
    pub d: HalfBytes,
    /// High two bits of the scales, see [`Self::scales`].
    pub scales_h: [u8; 2],
    /// Low four bits of the scales, see [`Self::scales`].
    pub scales_l: [u8; 4],
    /// Codes of levels ([`super::IQ4_LEVELS`]) of each group: element `i` in the low nibble of byte `i`, element `16 + i` in
    /// the high nibble.
    pub qs: [[u8; 16]; 8],
}

impl BlockIQ4XS {
    /// The eight scales `s`, in `-32..32`.
    ///
    /// Six bits of `s + 32` each: the low four of group `i` in nibble `i % 2` of byte `i / 2` of `scales_l`, the high two in bits
    /// `2 i ..` of the little-endian `scales_h`.
    pub fn scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        std::array::from_fn(|i| {
            let low = self.scales_l[i / 2] >> (i % 2 * 4) & 0x0f;
            (low | ((high >> (2 * i) & 3) as u8) << 4) as i8 - 32
        })
    }
}

fn pack_scales(scales: &[i8; 8]) -> ([u8; 2], [u8; 4]) {
    let (mut high, mut low) = (0u16, [0u8; 4]);
    for (i, &scale) in scales.iter().enumerate() {
        let code = (scale + 32) as u8;
        low[i / 2] |= (code & 0x0f) << (i % 2 * 4);
        high |= u16::from(code >> 4) << (2 * i);
    }
    (high.to_le_bytes(), low)
}

impl Block for BlockIQ4XS {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        let groups = values.as_chunks_mut::<32>().0.iter_mut().zip(&self.qs).zip(self.scales());
        for ((values, codes), s) in groups {
            let scale = d * f32::from(s);
            *values = unpack_levels(codes).map(|level| scale * f32::from(level));
        }
    }
}

impl QuantizeBlock for BlockIQ4XS {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&symmetric::quantize(values, None, RANGES))
    }

    fn quantize_weighted(values: &[f32; K_BLOCK_LEN], importance: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&symmetric::quantize(values, Some(importance), RANGES))
    }
}

fn pack(block: &SymmetricBlock) -> BlockIQ4XS {
    let (scales_h, scales_l) = pack_scales(&std::array::from_fn(|group| block.scales[group]));
    let levels: &[[i8; 32]] = block.codes.as_chunks().0;
    BlockIQ4XS { d: block.scale, scales_h, scales_l, qs: std::array::from_fn(|group| pack_levels(&levels[group])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_scales_come_back() {
        for shift in 0..64 {
            let scales: [i8; 8] = std::array::from_fn(|i| ((i * 13 + shift) % 64) as i8 - 32);
            let (scales_h, scales_l) = pack_scales(&scales);
            let block = BlockIQ4XS { scales_h, scales_l, ..Zeroable::zeroed() };
            assert_eq!(block.scales(), scales);
        }
    }
}
