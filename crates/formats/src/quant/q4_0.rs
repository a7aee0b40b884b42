//! Q4_0: 32 elements, `x = d (q - 8)`, `q` in `0..16`.

use bytemuck::{Pod, Zeroable};

use super::packing::{pack_nibbles, unpack_nibbles};
use super::{Block, HalfBytes, QuantizeBlock, fit};

/// A block of [`super::QuantType::Q4_0`], 18 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Codes: element `i` in the low nibble of byte `i`, element `16 + i` in the high nibble.
    pub qs: [u8; 16],
}

impl Block for BlockQ4_0 {
    type Values = [f32; 32];

    fn dequantize(&self, values: &mut [f32; 32]) {
        let d = self.d.to_f32();
        let codes = unpack_nibbles(&self.qs);
        *values = std::array::from_fn(|i| d * (f32::from(codes[i]) - 8.0));
    }
}

impl QuantizeBlock for BlockQ4_0 {
    fn quantize(values: &[f32; 32]) -> Self {
        let d = first_extreme(values) / -8.0;
        let inverse = reciprocal(d);
        let codes = values.map(|x| ((x * inverse + 8.5) as u8).min(15));
        Self { d: HalfBytes::from_f32(d), qs: pack_nibbles(&codes) }
    }

    fn quantize_weighted(values: &[f32; 32], importance: &[f32; 32]) -> Self {
        let (d, codes) = fit::symmetric_block(values, importance, 8);
        Self { d, qs: pack_nibbles(&codes) }
    }
}

/// The first of the elements with the largest magnitude.
pub(super) fn first_extreme(values: &[f32; 32]) -> f32 {
    values.iter().fold(0.0f32, |most, &x| if x.abs() > most.abs() { x } else { most })
}

/// `1 / d`, and 0 for 0.
pub(super) fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}
