//! Q4_1: 32 elements, `x = d q + m`, `q` in `0..16`.

use bytemuck::{Pod, Zeroable};

use super::packing::{pack_nibbles, unpack_nibbles};
use super::q4_0::reciprocal;
use super::{Block, HalfBytes, QuantizeBlock, fit};

/// A block of [`super::QuantType::Q4_1`], 20 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Minimum `m`, added.
    pub m: HalfBytes,
    /// Codes: element `i` in the low nibble of byte `i`, element `16 + i` in the high nibble.
    pub qs: [u8; 16],
}

impl Block for BlockQ4_1 {
    type Values = [f32; 32];

    fn dequantize(&self, values: &mut [f32; 32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let codes = unpack_nibbles(&self.qs);
        *values = std::array::from_fn(|i| d * f32::from(codes[i]) + m);
    }
}

impl QuantizeBlock for BlockQ4_1 {
    fn quantize(values: &[f32; 32]) -> Self {
        let (min, max) = extremes(values);
        let d = (max - min) / 15.0;
        let inverse = reciprocal(d);
        let codes = values.map(|x| (((x - min) * inverse + 0.5) as u8).min(15));
        Self { d: HalfBytes::from_f32(d), m: HalfBytes::from_f32(min), qs: pack_nibbles(&codes) }
    }

    fn quantize_weighted(values: &[f32; 32], importance: &[f32; 32]) -> Self {
        let (d, m, codes) = fit::affine_block(values, importance, 15);
        Self { d, m, qs: pack_nibbles(&codes) }
    }
}

/// Smallest and largest element.
pub(super) fn extremes(values: &[f32; 32]) -> (f32, f32) {
    values.iter().fold((values[0], values[0]), |(min, max), &x| (min.min(x), max.max(x)))
}
