//! NVFP4: 64 elements in groups of 16, `x = s v`, `s` an unsigned E4M3 and `v` an E2M1 number.

use bytemuck::{Pod, Zeroable};

use super::block::{Block, QuantizeBlock};
use super::fp4::{E2M1_DOUBLED, LARGEST_UE4M3, half_ue4m3, nearest_e2m1, to_ue4m3};

/// Largest E2M1 number.
const LARGEST_E2M1: f32 = 6.0;

/// A block of [`super::QuantType::NVFP4`], 36 bytes.
///
/// A tensor may come with a further scale, in a tensor of its own; that is not a matter of this layout.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockNVFP4 {
    /// Scale `s` of each group, unsigned E4M3.
    pub d: [u8; 4],
    /// E2M1 codes of each group: element `i` in the low nibble of byte `i`, element `8 + i` in the high nibble.
    pub qs: [[u8; 8]; 4],
}

impl Block for BlockNVFP4 {
    type Values = [f32; 64];

    fn dequantize(&self, values: &mut [f32; 64]) {
        let groups = values.as_chunks_mut::<16>().0.iter_mut().zip(&self.qs).zip(self.d);
        for ((values, codes), scale) in groups {
            let half = half_ue4m3(scale);
            *values = std::array::from_fn(|i| {
                let code = if i < 8 { codes[i] & 0x0f } else { codes[i - 8] >> 4 };
                half * f32::from(E2M1_DOUBLED[usize::from(code)])
            });
        }
    }
}

impl QuantizeBlock for BlockNVFP4 {
    const LARGEST: f32 = LARGEST_UE4M3 * LARGEST_E2M1;

    fn quantize(values: &[f32; 64]) -> Self {
        let mut block = Self::zeroed();
        for (group, values) in values.as_chunks::<16>().0.iter().enumerate() {
            let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            block.d[group] = to_ue4m3(largest / LARGEST_E2M1);
            let half = half_ue4m3(block.d[group]);
            let code = |x| nearest_e2m1(x, half);
            block.qs[group] = std::array::from_fn(|i| code(values[i]) | code(values[8 + i]) << 4);
        }
        block
    }
}
