//! Q8_K: 256 elements, `x = d q`, `q` in `-127..=127`; what ggml quantises activations to, rarely found in files.

use bytemuck::{Pod, Zeroable};

use super::K_BLOCK_LEN;
use super::block::{Block, QuantizeBlock};

/// A block of [`super::QuantType::Q8_K`], 292 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8K {
    /// Scale `d`, a little-endian `f32`.
    pub d: [u8; 4],
    /// Codes, in order.
    pub qs: [i8; K_BLOCK_LEN],
    /// Sums of each sixteen codes, little-endian `i16`.
    pub bsums: [[u8; 2]; 16],
}

impl Block for BlockQ8K {
    type Values = [f32; K_BLOCK_LEN];

    fn dequantize(&self, values: &mut [f32; K_BLOCK_LEN]) {
        let d = f32::from_le_bytes(self.d);
        *values = self.qs.map(|q| d * f32::from(q));
    }
}

impl QuantizeBlock for BlockQ8K {
    fn quantize(values: &[f32; K_BLOCK_LEN]) -> Self {
        let extreme = values.iter().fold(0.0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
        let inverse = -127.0 / extreme;
        // Blocks of zeros, and of subnormal numbers.
        if !inverse.is_finite() {
            return Self::zeroed();
        }
        let qs = values.map(|x| (inverse * x).round_ties_even() as i8);
        let sum = |codes: &[i8; 16]| codes.iter().map(|&q| i16::from(q)).sum::<i16>().to_le_bytes();
        let groups: &[[i8; 16]] = qs.as_chunks().0;
        Self { d: (1.0 / inverse).to_le_bytes(), qs, bsums: std::array::from_fn(|group| sum(&groups[group])) }
    }
}
