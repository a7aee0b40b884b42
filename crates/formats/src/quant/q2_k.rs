//! Q2_K: 256 elements in groups of 16, `x = d s q - dmin m`, `q` in `0..4`, `s` and `m` in `0..16`.

use bytemuck::{Pod, Zeroable};

use super::affine::{self, AffineBlock, AffineRanges};
use super::packing::{pack_two_bits, unpack_two_bits};
use super::{Block, HalfBytes, K_BLOCK_LEN, QuantizeBlock};

const RANGES: AffineRanges = AffineRanges { group_len: 16, code: 3, factor: 15 };

/// A block of [`super::QuantType::Q2_K`], 84 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// Per group: scale `s` in the low nibble, minimum `m` in the high one.
    pub scales: [u8; 16],
    /// Codes: element `128 h + 32 k + l` in bits `2 k ..` of byte `32 h + l`.
    pub qs: [u8; 64],
    /// Scale `d` of the scales.
    pub d: HalfBytes,
    /// Scale `dmin` of the minima.
    pub dmin: HalfBytes,
}

impl Block for BlockQ2K {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let codes = unpack_two_bits(&self.qs);
        *values = std::array::from_fn(|i| {
            let packed = self.scales[i / 16];
            let scale = d * f32::from(packed & 0x0f);
            let min = dmin * f32::from(packed >> 4);
            scale * f32::from(codes[i]) - min
        });
    }
}

impl QuantizeBlock for BlockQ2K {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&affine::quantize(values, None, RANGES))
    }

    fn quantize_weighted(values: &[f32; K_BLOCK_LEN], importance: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&affine::quantize(values, Some(importance), RANGES))
    }
}

fn pack(block: &AffineBlock) -> BlockQ2K {
    BlockQ2K {
        scales: std::array::from_fn(|group| block.scales[group] | (block.mins[group] << 4)),
        qs: pack_two_bits(&block.codes),
        d: block.scale,
        dmin: block.min,
    }
}
