//! A 16-bit float at any alignment.

use bytemuck::{Pod, Zeroable};
use half::f16;

/// IEEE 754 binary16 as two little-endian bytes.
///
/// Its alignment is 1, and so is that of every block: a block may begin at any byte of a mapped file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct HalfBytes([u8; 2]);

impl HalfBytes {
    /// The nearest binary16, ties to even; infinite past its range.
    pub fn from_f32(value: f32) -> Self {
        Self(f16::from_f32(value).to_le_bytes())
    }

    /// The value, exactly.
    #[inline]
    pub fn to_f32(self) -> f32 {
        self.to_f16().to_f32()
    }

    /// The value as [`half::f16`].
    #[inline]
    pub fn to_f16(self) -> f16 {
        f16::from_le_bytes(self.0)
    }
}
