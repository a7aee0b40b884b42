//! Q1_0: 128 elements, `x = d` or `x = -d`.

use bytemuck::{Pod, Zeroable};

use super::HalfBytes;
use super::block::{Block, QuantizeBlock};

/// A block of [`super::QuantType::Q1_0`], 18 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ1_0 {
    /// Magnitude `d`.
    pub d: HalfBytes,
    /// Element `8 i + k` is `d` where bit `k` of byte `i` is set, else `-d`.
    pub qs: [u8; 16],
}

impl Block for BlockQ1_0 {
    type Values = [f32; 128];

    fn dequantize(&self, values: &mut [f32; 128]) {
        let d = self.d.to_f32();
        *values = std::array::from_fn(|i| if self.qs[i / 8] >> (i % 8) & 1 == 1 { d } else { -d });
    }
}

impl QuantizeBlock for BlockQ1_0 {
    fn quantize(values: &[f32; 128]) -> Self {
        let mean = values.iter().map(|x| x.abs()).sum::<f32>() / 128.0;
        let mut qs = [0; 16];
        for (i, &x) in values.iter().enumerate() {
            qs[i / 8] |= u8::from(x >= 0.0) << (i % 8);
        }
        Self { d: HalfBytes::from_f32(mean), qs }
    }
}
