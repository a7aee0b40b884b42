//! Numbers of the metadata value types.

pub(super) const U8: u32 = 0;
pub(super) const I8: u32 = 1;
pub(super) const U16: u32 = 2;
pub(super) const I16: u32 = 3;
pub(super) const U32: u32 = 4;
pub(super) const I32: u32 = 5;
pub(super) const F32: u32 = 6;
pub(super) const BOOL: u32 = 7;
pub(super) const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;
pub(super) const U64: u32 = 10;
pub(super) const I64: u32 = 11;
pub(super) const F64: u32 = 12;

/// Arrays inside arrays are read and written to this depth.
pub(super) const MAX_ARRAY_DEPTH: usize = 4;

/// Longest key in bytes.
pub(super) const MAX_KEY_BYTES: usize = 65_535;
