//! Q3_K: 256 elements in groups of 16, `x = d s q`, `q` in `-4..4`, `s` in `-32..32`.

use bytemuck::{Pod, Zeroable};

use super::fit::Lattice;
use super::packing::{pack_k_bits, pack_two_bits, unpack_k_bits, unpack_two_bits};
use super::symmetric::{self, SymmetricBlock, SymmetricRanges};
use super::{Block, HalfBytes, K_BLOCK_LEN, QuantizeBlock};

const RANGES: SymmetricRanges =
    SymmetricRanges { group_len: 16, codes: Lattice::Range { low: -4, high: 3 }, factor: 32 };

/// A block of [`super::QuantType::Q3_K`], 110 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// Third bit of `q + 4`: element `32 k + l` in bit `k` of byte `l`.
    pub hmask: [u8; 32],
    /// Low two bits of `q + 4`: element `128 h + 32 k + l` in bits `2 k ..` of byte `32 h + l`.
    pub qs: [u8; 64],
    /// Scales, see [`unpack_q3_k_scales`].
    pub scales: [u8; 12],
    /// Scale `d` of the scales.
    pub d: HalfBytes,
}

/// The sixteen scales `s` of a `Q3_K` block, in `-32..32`.
///
/// Six bits of `s + 32` each: the low four of group `i` in the low nibble of byte `i` and, from `i = 8`, in the high nibble
/// of byte `i - 8`; the high two in bits `2 (i / 4) ..` of byte `8 + i % 4`.
pub fn unpack_q3_k_scales(bytes: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = if i < 8 { bytes[i] & 0x0f } else { bytes[i - 8] >> 4 };
        let high = bytes[8 + i % 4] >> (i / 4 * 2) & 3;
        (low | (high << 4)) as i8 - 32
    })
}

fn pack_scales(scales: &[i8; 16]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (i, &scale) in scales.iter().enumerate() {
        let code = (scale + 32) as u8;
        bytes[i % 8] |= (code & 0x0f) << (i / 8 * 4);
        bytes[8 + i % 4] |= (code >> 4) << (i / 4 * 2);
    }
    bytes
}

impl Block for BlockQ3K {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        let scales = unpack_q3_k_scales(&self.scales);
        let (low, high) = (unpack_two_bits(&self.qs), unpack_k_bits(&self.hmask));
        *values = std::array::from_fn(|i| {
            let scale = d * f32::from(scales[i / 16]);
            scale * (f32::from(low[i] | (high[i] << 2)) - 4.0)
        });
    }
}

impl QuantizeBlock for BlockQ3K {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&symmetric::quantize(values, None, RANGES))
    }

    fn quantize_weighted(values: &[f32; K_BLOCK_LEN], importance: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&symmetric::quantize(values, Some(importance), RANGES))
    }
}

fn pack(block: &SymmetricBlock) -> BlockQ3K {
    let codes = block.codes.map(|code| (code + 4) as u8);
    BlockQ3K {
        hmask: pack_k_bits(&codes.map(|code| code >> 2)),
        qs: pack_two_bits(&codes),
        scales: pack_scales(&block.scales),
        d: block.scale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_scales_come_back() {
        for shift in 0..64 {
            let scales: [i8; 16] = std::array::from_fn(|i| ((i * 13 + shift) % 64) as i8 - 32);
            assert_eq!(unpack_q3_k_scales(&pack_scales(&scales)), scales);
        }
    }
}
