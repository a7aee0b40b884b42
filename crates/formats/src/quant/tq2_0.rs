//! TQ2_0: 256 elements, `x = d t`, `t` in `-1..=1`, four to a byte.

use bytemuck::{Pod, Zeroable};

use super::block::{Block, QuantizeBlock};
use super::packing::{pack_two_bits, unpack_two_bits};
use super::{HalfBytes, K_BLOCK_LEN};

/// A block of [`super::QuantType::TQ2_0`], 66 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockTQ2_0 {
    /// Codes `t + 1`: element `128 h + 32 k + l` in bits `2 k ..` of byte `32 h + l`.
    pub qs: [u8; 64],
    /// Scale `d`.
    pub d: HalfBytes,
}

impl Block for BlockTQ2_0 {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = self.d.to_f32();
        *values = unpack_two_bits(&self.qs).map(|code| d * (f32::from(code) - 1.0));
    }
}

impl QuantizeBlock for BlockTQ2_0 {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        let (d, codes) = ternary(values);
        Self { qs: pack_two_bits(&codes), d }
    }
}

/// The largest magnitude, and `t + 1` of every element for it.
pub(super) fn ternary(values: &[f32; K_BLOCK_LEN]) -> (HalfBytes, [u8; K_BLOCK_LEN]) {
    let d = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let inverse = super::q4_0::reciprocal(d);
    // The clamp is for reciprocals of subnormal numbers, which are infinite.
    (HalfBytes::from_f32(d), values.map(|x| ((x * inverse).round().clamp(-1.0, 1.0) + 1.0) as u8))
}
