//! IQ4_NL: 32 elements, `x = d v`, `v` one of sixteen unevenly spaced levels.

use bytemuck::{Pod, Zeroable};

use super::HalfBytes;
use super::block::{Block, QuantizeBlock};
use super::codebook::{nearest_level, pack_levels, unpack_levels};
use super::fit::{self, Lattice};

/// A block of [`super::QuantType::IQ4_NL`], 18 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ4NL {
    /// Scale `d`.
    pub d: HalfBytes,
    /// Codes of levels ([`super::IQ4_LEVELS`]): element `i` in the low nibble of byte `i`, element `16 + i` in the high
    /// nibble.
    pub qs: [u8; 16],
}

impl Block for BlockIQ4NL {
    type Values = [f32; 32];

    fn dequantize(&self, values: &mut [f32; 32]) {
        let d = self.d.to_f32();
        *values = unpack_levels(&self.qs).map(|level| d * f32::from(level));
    }
}

impl QuantizeBlock for BlockIQ4NL {
    fn quantize(values: &[f32; 32]) -> Self {
        search(values, None)
    }

    fn quantize_weighted(values: &[f32; 32], importance: &[f32; 32]) -> Self {
        search(values, Some(importance))
    }
}

fn search(values: &[f32; 32], importance: Option<&[f32; 32]>) -> BlockIQ4NL {
    let values = values.map(f64::from);
    let weights = fit::weights(&values, importance, 32);
    let scale = fit::linear(&values, &weights, Lattice::Iq4Levels);
    let d = HalfBytes::from_f32(scale as f32);
    let unit = f64::from(d.to_f32());
    let levels = values.map(|x| if unit == 0.0 { 0 } else { nearest_level(x / unit) as i8 });
    BlockIQ4NL { d, qs: pack_levels(&levels) }
}
