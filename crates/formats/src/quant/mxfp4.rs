//! MXFP4: 32 elements, `x = 2^(e - 127) v`, `v` an E2M1 number.

use bytemuck::{Pod, Zeroable};

use super::block::{Block, QuantizeBlock};
use super::fp4::{E2M1_DOUBLED, half_e8m0, nearest_e2m1};
use super::packing::{pack_nibbles, unpack_nibbles};

/// A block of [`super::QuantType::MXFP4`], 17 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockMXFP4 {
    /// Scale, E8M0: `2^(e - 127)`. ggml gives 255, the format's NaN, the value `2^128`.
    pub e: u8,
    /// E2M1 codes: element `i` in the low nibble of byte `i`, element `16 + i` in the high nibble.
    pub qs: [u8; 16],
}

impl Block for BlockMXFP4 {
    type Values = [f32; 32];

    fn dequantize(&self, values: &mut [f32; 32]) {
        let half = half_e8m0(self.e);
        *values = unpack_nibbles(&self.qs).map(|code| half * f32::from(E2M1_DOUBLED[usize::from(code)]));
    }
}

impl QuantizeBlock for BlockMXFP4 {
    fn quantize(values: &[f32; 32]) -> Self {
        let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        // The exponent field is `floor(log2) + 127`. ggml's logarithm, rounded to `f32`, is one more just below powers of two.
        let exponent = (largest.to_bits() >> 23) as u8;
        let e = exponent.saturating_sub(2);
        let half = half_e8m0(e);
        Self { e, qs: pack_nibbles(&values.map(|x| nearest_e2m1(x, half))) }
    }
}
