//! Q4_K: 256 elements in groups of 32, `x = d s q - dmin m`, `q` in `0..16`, `s` and `m` in `0..64`.

use bytemuck::{Pod, Zeroable};

use super::affine::{self, AffineBlock, AffineRanges};
use super::packing::{pack_k_nibbles, unpack_k_nibbles, unpack_k4_scale_min};
use super::{Block, HalfBytes, K_BLOCK_LEN, QuantizeBlock};

const RANGES: AffineRanges = AffineRanges { group_len: 32, code: 15, factor: 63 };

/// A block of [`super::QuantType::Q4_K`], 144 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale `d` of the scales.
    pub d: HalfBytes,
    /// Scale `dmin` of the minima.
    pub dmin: HalfBytes,
    /// Scales `s` and minima `m`, see [`unpack_k4_scale_min`].
    pub scales: [u8; 12],
    /// Codes: element `64 h + l` in the low nibble of byte `32 h + l`, element `64 h + 32 + l` in the high one.
    pub qs: [u8; 128],
}

impl Block for BlockQ4K {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        dequantize_k4(self.d, self.dmin, &self.scales, &unpack_k_nibbles(&self.qs), values);
    }
}

impl QuantizeBlock for BlockQ4K {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&affine::quantize(values, None, RANGES))
    }

    fn quantize_weighted(values: &[f32; K_BLOCK_LEN], importance: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&affine::quantize(values, Some(importance), RANGES))
    }
}

fn pack(block: &AffineBlock) -> BlockQ4K {
    BlockQ4K { d: block.scale, dmin: block.min, scales: block.packed_k4_factors(), qs: pack_k_nibbles(&block.codes) }
}

/// `x = d s q - dmin m` with the scales and minima of `Q4_K` and `Q5_K`.
pub(super) fn dequantize_k4(
    d: HalfBytes,
    dmin: HalfBytes,
    scales: &[u8; 12],
    codes: &[u8; K_BLOCK_LEN],
    values: &mut [f32; K_BLOCK_LEN],
) {
    let (d, dmin) = (d.to_f32(), dmin.to_f32());
    let (scales, mins) = unpack_k4_scale_min(scales);
    for (group, (values, codes)) in values.chunks_exact_mut(32).zip(codes.chunks_exact(32)).enumerate() {
        let scale = d * f32::from(scales[group]);
        let min = dmin * f32::from(mins[group]);
        for (value, &code) in values.iter_mut().zip(codes) {
            *value = scale * f32::from(code) - min;
        }
    }
}
