//! Element types that a header may name.

use std::fmt;

use crate::DType;

/// An element type of the format. Not all of them are [`DType`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoredType {
    name: &'static str,
    bits: u8,
    dtype: Option<DType>,
}

/// Every type of the format. Source: `enum Dtype` of the crate `safetensors` 0.8.0.
const TYPES: [StoredType; 22] = [
    dense("F32", DType::F32),
    dense("F16", DType::F16),
    dense("BF16", DType::BF16),
    dense("F64", DType::F64),
    dense("U8", DType::U8),
    dense("U16", DType::U16),
    dense("U32", DType::U32),
    dense("I8", DType::I8),
    dense("I16", DType::I16),
    dense("I32", DType::I32),
    dense("I64", DType::I64),
    other("BOOL", 8),
    other("U64", 64),
    other("C64", 64),
    other("F4", 4),
    other("F6_E2M3", 6),
    other("F6_E3M2", 6),
    other("F8_E4M3", 8),
    other("F8_E5M2", 8),
    other("F8_E8M0", 8),
    other("F8_E4M3FNUZ", 8),
    other("F8_E5M2FNUZ", 8),
];

const fn dense(name: &'static str, dtype: DType) -> StoredType {
    StoredType { name, bits: 8 * dtype.size_of() as u8, dtype: Some(dtype) }
}

const fn other(name: &'static str, bits: u8) -> StoredType {
    StoredType { name, bits, dtype: None }
}

impl StoredType {
    /// The type with this name in a header.
    pub fn from_name(name: &str) -> Option<StoredType> {
        TYPES.into_iter().find(|stored| stored.name == name)
    }

    /// Name as headers spell it: `F32`, `F8_E4M3`, ..
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The element type of a buffer that holds such elements; `None` where there is none.
    pub const fn dtype(self) -> Option<DType> {
        self.dtype
    }

    /// Bytes of so many elements; `None` past `u64` or where they do not fill whole bytes.
    pub fn byte_len(self, elements: u64) -> Option<u64> {
        let bits = u128::from(elements) * u128::from(self.bits);
        if bits.is_multiple_of(8) { u64::try_from(bits / 8).ok() } else { None }
    }
}

impl From<DType> for StoredType {
    fn from(dtype: DType) -> Self {
        let found = TYPES.into_iter().find(|stored| stored.dtype == Some(dtype));
        found.expect("the table has every element type")
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_element_types_agree() {
        for dtype in DType::ALL {
            let stored = StoredType::from(dtype);
            assert_eq!((stored.name().to_lowercase(), stored.dtype()), (dtype.name().to_owned(), Some(dtype)));
        }
        for stored in TYPES {
            assert_eq!(StoredType::from_name(stored.name()), Some(stored));
        }
        assert_eq!(StoredType::from_name("f32"), None);
    }

    #[test]
    fn bytes_are_whole_and_checked() {
        let bytes = |name: &str, elements| StoredType::from_name(name).and_then(|stored| stored.byte_len(elements));
        assert_eq!(bytes("F4", 6), Some(3));
        assert_eq!(bytes("F4", 5), None);
        assert_eq!(bytes("F6_E2M3", 4), Some(3));
        assert_eq!(bytes("U8", u64::MAX), Some(u64::MAX));
        assert_eq!(bytes("U16", u64::MAX), None);
    }
}
