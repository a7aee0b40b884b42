//! Q6_K: 256 elements in groups of 16, `x = d s q`, `q` in `-32..32`, `s` in `-128..128`.

use bytemuck::{Pod, Zeroable};

use super::fit::Lattice;
use super::symmetric::{self, SymmetricBlock, SymmetricRanges};
use super::{Block, HalfBytes, K_BLOCK_LEN, QuantizeBlock};

const RANGES: SymmetricRanges =
    SymmetricRanges { group_len: 16, codes: Lattice::Range { low: -32, high: 31 }, factor: 128 };

/// A block of [`super::QuantType::Q6_K`], 210 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// Low four bits of `q + 32`: element `128 h + 64 n + l` in nibble `n` of byte `64 h + l`.
    pub ql: [u8; 128],
    /// High two bits of `q + 32`: element `128 h + 32 k + l` in bits `2 k ..` of byte `32 h + l`.
    pub qh: [u8; 64],
    /// Scale `s` of each group.
    pub scales: [i8; 16],
    /// Scale `d` of the scales.
    pub d: HalfBytes,
}

impl Block for BlockQ6K {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        let high = super::packing::unpack_two_bits(&self.qh);
        *values = std::array::from_fn(|i| {
            let (byte, shift) = low_position(i);
            let code = (self.ql[byte] >> shift & 0x0f) | (high[i] << 4);
            let scale = d * f32::from(self.scales[i / 16]);
            scale * (f32::from(code) - 32.0)
        });
    }
}

impl QuantizeBlock for BlockQ6K {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&symmetric::quantize(values, None, RANGES))
    }

    fn quantize_weighted(values: &[f32; K_BLOCK_LEN], importance: &[f32; K_BLOCK_LEN]) -> Self {
        pack(&symmetric::quantize(values, Some(importance), RANGES))
    }
}

fn pack(block: &SymmetricBlock) -> BlockQ6K {
    let codes = block.codes.map(|code| (code + 32) as u8);
    let mut ql = [0; 128];
    for (i, &code) in codes.iter().enumerate() {
        let (byte, shift) = low_position(i);
        ql[byte] |= (code & 0x0f) << shift;
    }
    let qh = super::packing::pack_two_bits(&codes.map(|code| code >> 4));
    BlockQ6K { ql, qh, scales: block.scales, d: block.scale }
}

/// Byte and shift of the low four bits of element `i`.
fn low_position(i: usize) -> (usize, usize) {
    (i / 128 * 64 + i % 64, i % 128 / 64 * 4)
}
