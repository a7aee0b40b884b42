//! Q5_1: 32 elements, `x = d q + m`, `q` in `0..32`.

use bytemuck::{Pod, Zeroable};

use super::packing::{pack_five_bits, unpack_five_bits};
use super::q4_0::reciprocal;
use super::q4_1::extremes;
use super::{Block, HalfBytes, QuantizeBlock, fit};

/// A block of [`super::QuantType::Q5_1`], 24 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Minimum `m`, added.
    pub m: HalfBytes,
    /// Fifth bit of element `i` in bit `i`, little-endian.
    pub qh: [u8; 4],
    /// Low four bits: element `i` in the low nibble of byte `i`, element `16 + i` in the high nibble.
    pub qs: [u8; 16],
}

impl Block for BlockQ5_1 {
    type Values = [f32; 32];

    fn dequantize(&self, values: &mut [f32; 32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let codes = unpack_five_bits(&self.qs, self.qh);
        *values = std::array::from_fn(|i| d * f32::from(codes[i]) + m);
    }
}

impl QuantizeBlock for BlockQ5_1 {
    fn quantize(values: &[f32; 32]) -> Self {
        let (min, max) = extremes(values);
        let d = (max - min) / 31.0;
        let inverse = reciprocal(d);
        let codes = values.map(|x| (((x - min) * inverse + 0.5) as u8).min(31));
        let (qs, qh) = pack_five_bits(&codes);
        Self { d: HalfBytes::from_f32(d), m: HalfBytes::from_f32(min), qh, qs }
    }

    fn quantize_weighted(values: &[f32; 32], importance: &[f32; 32]) -> Self {
        let (d, m, codes) = fit::affine_block(values, importance, 31);
        let (qs, qh) = pack_five_bits(&codes);
        Self { d, m, qh, qs }
    }
}
