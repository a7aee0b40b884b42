//! Typed key-value metadata.

use crate::{FormatError, nearest};

/// Many strings in one allocation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StringArray {
    text: String,
    /// End of each string in `text`.
    ends: Vec<usize>,
}

impl StringArray {
    /// An empty array.
    pub fn new() -> Self {
        Self::default()
    }

    /// Strings that lie one after the other in `text`; `ends` ascends to its length. `None` when an end splits a character.
    pub(super) fn from_parts(text: String, ends: Vec<usize>) -> Option<Self> {
        debug_assert!(ends.is_sorted() && ends.last().copied().unwrap_or(0) == text.len());
        ends.iter().all(|&end| text.is_char_boundary(end)).then_some(Self { text, ends })
    }

    /// Appends one string.
    pub fn push(&mut self, value: &str) {
        self.text.push_str(value);
        self.ends.push(self.text.len());
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is no string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start..end])
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).expect("index below the length"))
    }
}

impl<'a> FromIterator<&'a str> for StringArray {
    fn from_iter<I: IntoIterator<Item = &'a str>>(values: I) -> Self {
        let mut array = Self::new();
        values.into_iter().for_each(|value| array.push(value));
        array
    }
}

/// An array value. Elements share one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(StringArray),
    Array(Vec<Array>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::F64(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::String(v) => v.len(),
            Array::Array(v) => v.len(),
        }
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

impl Value {
    /// Name of the type, as error messages and `anymlx inspect` show it.
    pub fn type_name(&self) -> String {
        let plain = match self {
            Value::U8(_) => "u8",
            Value::I8(_) => "i8",
            Value::U16(_) => "u16",
            Value::I16(_) => "i16",
            Value::U32(_) => "u32",
            Value::I32(_) => "i32",
            Value::U64(_) => "u64",
            Value::I64(_) => "i64",
            Value::F32(_) => "f32",
            Value::F64(_) => "f64",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::Array(array) => {
                let element = match array {
                    Array::U8(_) => "u8",
                    Array::I8(_) => "i8",
                    Array::U16(_) => "u16",
                    Array::I16(_) => "i16",
                    Array::U32(_) => "u32",
                    Array::I32(_) => "i32",
                    Array::U64(_) => "u64",
                    Array::I64(_) => "i64",
                    Array::F32(_) => "f32",
                    Array::F64(_) => "f64",
                    Array::Bool(_) => "bool",
                    Array::String(_) => "string",
                    Array::Array(_) => "array",
                };
                return format!("array of {} {element}", array.len());
            }
        };
        plain.to_owned()
    }
}

macro_rules! value_from {
    ($($type:ty => |$value:ident| $result:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $result
            }
        }
    )*};
}

value_from! {
    u8 => |v| Value::U8(v);
    i8 => |v| Value::I8(v);
    u16 => |v| Value::U16(v);
    i16 => |v| Value::I16(v);
    u32 => |v| Value::U32(v);
    i32 => |v| Value::I32(v);
    u64 => |v| Value::U64(v);
    i64 => |v| Value::I64(v);
    f32 => |v| Value::F32(v);
    f64 => |v| Value::F64(v);
    bool => |v| Value::Bool(v);
    String => |v| Value::String(v);
    &str => |v| Value::String(v.to_owned());
    Array => |v| Value::Array(v);
    StringArray => |v| Value::Array(Array::String(v));
    Vec<u32> => |v| Value::Array(Array::U32(v));
    Vec<i32> => |v| Value::Array(Array::I32(v));
    Vec<f32> => |v| Value::Array(Array::F32(v));
    Vec<bool> => |v| Value::Array(Array::Bool(v));
}

/// The key-value section of a file, in file order.
///
/// The plain accessors (`u64`, `f32`, `string`, ..) return `Ok(None)` for an absent key and an
/// error for a value of another type; the `require_*` forms make absence an error as well.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    /// Indices into `entries`, sorted by key.
    by_key: Vec<usize>,
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident, $require:ident -> $type:ty, $needed:literal, $pattern:pat => $result:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self, key: &str) -> Result<Option<$type>, FormatError> {
            match self.get(key) {
                None => Ok(None),
                Some($pattern) => Ok(Some($result)),
                Some(other) => Err(self.wrong_type(key, other, $needed)),
            }
        }

        #[doc = concat!("As [`Self::", stringify!($name), "`]; absence is an error.")]
        pub fn $require(&self, key: &str) -> Result<$type, FormatError> {
            self.$name(key)?.ok_or_else(|| self.missing(key))
        }
    )*};
}

impl Metadata {
    /// An empty section.
    pub fn new() -> Self {
        Self::default()
    }

    /// All pairs of a file; `Err` is a key that appears twice.
    pub(super) fn from_entries(entries: Vec<(String, Value)>) -> Result<Self, String> {
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        by_key.sort_unstable_by(|&a, &b| entries[a].0.cmp(&entries[b].0));
        match by_key.windows(2).find(|pair| entries[pair[0]].0 == entries[pair[1]].0) {
            Some(pair) => Err(entries[pair[0]].0.clone()),
            None => Ok(Self { entries, by_key }),
        }
    }

    /// Where `key` is in `by_key`, or belongs.
    fn position(&self, key: &str) -> Result<usize, usize> {
        self.by_key.binary_search_by(|&at| self.entries[at].0.as_str().cmp(key))
    }

    /// Adds a key, or replaces its value in place.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let key = key.into();
        match self.position(&key) {
            Ok(found) => self.entries[self.by_key[found]].1 = value.into(),
            Err(place) => {
                self.by_key.insert(place, self.entries.len());
                self.entries.push((key, value.into()));
            }
        }
    }

    /// Takes a pair out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.by_key.remove(self.position(key).ok()?);
        for index in self.by_key.iter_mut().filter(|index| **index > at) {
            *index -= 1;
        }
        Some(self.entries.remove(at).1)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.position(key).ok().map(|found| &self.entries[self.by_key[found]].1)
    }

    /// True when the key is present.
    pub fn contains(&self, key: &str) -> bool {
        self.position(key).is_ok()
    }

    /// All pairs in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no pair.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    accessors! {
        /// A string.
        string, require_string -> &str, "a string", Value::String(v) => v;
        /// A boolean.
        bool, require_bool -> bool, "a bool", Value::Bool(v) => *v;
        /// An array of strings.
        strings, require_strings -> &StringArray, "an array of strings", Value::Array(Array::String(v)) => v;
        /// An array of `f32`.
        f32s, require_f32s -> &[f32], "an array of f32", Value::Array(Array::F32(v)) => v;
        /// An array of `i32`.
        i32s, require_i32s -> &[i32], "an array of i32", Value::Array(Array::I32(v)) => v;
        /// Any array.
        array, require_array -> &Array, "an array", Value::Array(v) => v;
    }

    /// An unsigned integer of any width; signed values count where they are not negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = match *value {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => u64::try_from(v).ok(),
            Value::I16(v) => u64::try_from(v).ok(),
            Value::I32(v) => u64::try_from(v).ok(),
            Value::I64(v) => u64::try_from(v).ok(),
            _ => None,
        };
        number.map(Some).ok_or_else(|| self.wrong_type(key, value, "an unsigned integer"))
    }

    /// As [`Self::u64`]; absence is an error.
    pub fn require_u64(&self, key: &str) -> Result<u64, FormatError> {
        self.u64(key)?.ok_or_else(|| self.missing(key))
    }

    /// A floating-point number, `f32` or `f64` (rounded).
    pub fn f32(&self, key: &str) -> Result<Option<f32>, FormatError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(*v)),
            Some(Value::F64(v)) => Ok(Some(*v as f32)),
            Some(other) => Err(self.wrong_type(key, other, "a floating-point number")),
        }
    }

    /// As [`Self::f32`]; absence is an error.
    pub fn require_f32(&self, key: &str) -> Result<f32, FormatError> {
        self.f32(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> FormatError {
        FormatError::MissingKey {
            format: "gguf",
            key: key.to_owned(),
            hint: nearest::hint(key, self.iter().map(|(key, _)| key)),
        }
    }

    fn wrong_type(&self, key: &str, found: &Value, needed: &'static str) -> FormatError {
        FormatError::WrongType { format: "gguf", key: key.to_owned(), found: found.type_name(), needed }
    }
}
