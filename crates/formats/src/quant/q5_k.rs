//! Q5_K: 256 elements in groups of 32, `x = d s q - dmin m`, `q` in `0..32`, `s` and `m` in `0..64`.

use bytemuck::{Pod, Zeroable};

use super::affine::{self, AffineBlock, AffineRanges};
use super::packing::{pack_k_bits, pack_k_nibbles, unpack_k_bits, unpack_k_nibbles};
use super::q4_k::dequantize_k4;
use super::{Block, HalfBytes, K_BLOCK_LEN, QuantizeBlock};

const RANGES: AffineRanges = AffineRanges { group_len: 32, code: 31, factor: 63 };

/// A block of [`super::QuantType::Q5_K`], 176 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale `d` of the scales.
    pub d: HalfBytes,
    /// Scale `dmin` of the minima.
    pub dmin: HalfBytes,
    /// Scales `s` and minima `m`, see [`super::unpack_k4_scale_min`].
    pub scales: [u8; 12],
    /// Fifth bit: element `32 k + l` in bit `k` of byte `l`.
    pub qh: [u8; 32],
    /// Low four bits: element `64 h + l` in the low nibble of byte `32 h + l`, element `64 h + 32 + l` in the high one.
    pub qs: [u8; 128],
}

impl Block for BlockQ5K {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let (low, high) = (unpack_k_nibbles(&self.qs), unpack_k_bits(&self.qh));
        let codes = std::array::from_fn(|i| low[i] | (high[i] << 4));
        dequantize_k4(self.d, self.dmin, &self.scales, &codes, values);
    }
}

impl QuantizeBlock for BlockQ5K {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&affine::quantize(values, None, RANGES))
    }

    fn quantize_weighted(values: &[f32; K_BLOCK_LEN], importance: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&affine::quantize(values, Some(importance), RANGES))
    }
}

fn pack(block: &AffineBlock) -> BlockQ5K {
    BlockQ5K {
        d: block.scale,
        dmin: block.min,
        scales: block.packed_k4_factors(),
        qh: pack_k_bits(&block.codes.map(|code| code >> 4)),
        qs: pack_k_nibbles(&block.codes),
    }
}
