//! Q5_0: 32 elements, `x = d (q - 16)`, `q` in `0..32`.

use bytemuck::{Pod, Zeroable};

use super::packing::{pack_five_bits, unpack_five_bits};
use super::q4_0::{first_extreme, reciprocal};
use super::{Block, HalfBytes, QuantizeBlock, fit};

/// A block of [`super::QuantType::Q5_0`], 22 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Fifth bit of element `i` in bit `i`, little-endian.
    pub qh: [u8; 4],
    /// Low four bits: element `i` in the low nibble of byte `i`, element `16 + i` in the high nibble.
    pub qs: [u8; 16],
}

impl Block for BlockQ5_0 {
    type Values = [f32; 32];

    fn dequantize(&self, values: &mut [f32; 32]) {
        let d = self.d.to_f32();
        let codes = unpack_five_bits(&self.qs, self.qh);
        *values = std::array::from_fn(|i| d * (f32::from(codes[i]) - 16.0));
    }
}

impl QuantizeBlock for BlockQ5_0 {
    fn quantize(values: &[f32; 32]) -> Self {
        let d = first_extreme(values) / -16.0;
        let inverse = reciprocal(d);
        let codes = values.map(|x| ((x * inverse + 16.5) as u8).min(31));
        let (qs, qh) = pack_five_bits(&codes);
        Self { d: HalfBytes::from_f32(d), qh, qs }
    }

    fn quantize_weighted(values: &[f32; 32], importance: &[f32; 32]) -> Self {
        let (d, codes) = fit::symmetric_block(values, importance, 16);
        let (qs, qh) = pack_five_bits(&codes);
        Self { d, qh, qs }
    }
}
