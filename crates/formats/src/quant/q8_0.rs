//! Q8_0: 32 elements, `x = d q`, `q` in `-127..=127`.

use bytemuck::{Pod, Zeroable};

use super::q4_0::{first_extreme, reciprocal};
use super::{Block, HalfBytes, QuantizeBlock};

/// A block of [`super::QuantType::Q8_0`], 34 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Codes, in order.
    pub qs: [i8; 32],
}

impl Block for BlockQ8_0 {
    type Values = [f32; 32];

    fn dequantize(&self, values: &mut [f32; 32]) {
        let d = self.d.to_f32();
        *values = self.qs.map(|q| f32::from(q) * d);
    }
}

impl QuantizeBlock for BlockQ8_0 {
    fn quantize(values: &[f32; 32]) -> Self {
        let d = first_extreme(values).abs() / 127.0;
        let inverse = reciprocal(d);
        Self { d: HalfBytes::from_f32(d), qs: values.map(|x| (x * inverse).round() as i8) }
    }
}
