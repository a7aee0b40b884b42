//! Q2_0: 64 elements, `x = d q`, `q` in `-1..=2`.

use bytemuck::{Pod, Zeroable};

use super::HalfBytes;
use super::block::{Block, QuantizeBlock};
use super::q4_0::reciprocal;

/// A block of [`super::QuantType::Q2_0`], 18 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2_0 {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Codes `q + 1`: element `4 i + k` in bits `2 k ..` of byte `i`.
    pub qs: [u8; 16],
}

impl Block for BlockQ2_0 {
    type Values = [f32; 64];

    fn dequantize(&self, values: &mut [f32; 64]) {
        let d = self.d.to_f32();
        *values = std::array::from_fn(|i| (f32::from(self.qs[i / 4] >> (i % 4 * 2) & 3) - 1.0) * d);
    }
}

impl QuantizeBlock for BlockQ2_0 {
    fn quantize(values: &[f32; 64]) -> Self {
        let d = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let inverse = reciprocal(d);
        let mut qs = [0; 16];
        for (i, x) in values.iter().enumerate() {
            let code = ((x * inverse).round().clamp(-1.0, 2.0) + 1.0) as u8;
            qs[i / 4] |= code << (i % 4 * 2);
        }
        Self { d: HalfBytes::from_f32(d), qs }
    }
}
