//! Reading a file's header.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::StoredType;
use super::unique_map::{UniqueMap, sort_unique};
use crate::{DType, FormatError, nearest, tensor_bytes};

/// Longest header in bytes, as in the crate `safetensors`.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the header's length.
const LENGTH_BYTES: usize = 8;

/// Most dimensions of a tensor: what NumPy allows.
const MAX_DIMENSIONS: usize = 64;

/// Key of the pairs of strings that are no tensor.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// Name, shape, type and place of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Extents in row-major order: the last varies fastest. Empty for a scalar; an extent may be 0.
    pub shape: Vec<u64>,
    /// Type of the elements.
    pub stored: StoredType,
    /// First byte, counted from the beginning of the file.
    pub offset: u64,
    /// Bytes of data.
    pub byte_len: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn element_count(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Type of the elements, where a buffer can hold them.
    ///
    /// # Errors
    /// [`FormatError::UnsupportedType`] with the tensor's and the type's name.
    pub fn dtype(&self) -> Result<DType, FormatError> {
        self.stored.dtype().ok_or_else(|| FormatError::UnsupportedType {
            format: "safetensors",
            tensor: self.name.clone(),
            type_name: self.stored.name().to_owned(),
        })
    }

    /// The tensor's bytes within `file`, which is the whole file that described it.
    ///
    /// # Errors
    /// When `file` is shorter than the tensor's end.
    pub fn data<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], FormatError> {
        tensor_bytes::slice(&self.name, self.offset, self.byte_len, file)
    }
}

/// The description of a safetensors file: everything but the tensors' bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Safetensors {
    /// Pairs of strings that the writer left, sorted by key.
    pub metadata: Vec<(String, String)>,
    /// Tensors, sorted by name.
    pub tensors: Vec<TensorInfo>,
}

impl Safetensors {
    /// Reads the header of a file.
    ///
    /// `bytes` is the whole file, usually a memory map: only the header is touched. Memory stays within a small multiple of
    /// the header's bytes. As the specification demands, tensors cover the data section without gaps or overlap, in any
    /// order.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] with the place for every broken rule: header length, JSON, names that appear twice,
    /// unknown types, shapes and offsets that overflow or do not agree, tensors that overlap, leave gaps or leave the file.
    /// A type that is known but no [`DType`] is an error of [`TensorInfo::dtype`] only.
    pub fn parse(bytes: &[u8]) -> Result<Safetensors, FormatError> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(malformed(format!("{} bytes, at least {LENGTH_BYTES} are needed", bytes.len())));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES || length > rest.len() as u64 {
            return Err(malformed(format!(
                "header of {length} bytes announced, at most {MAX_HEADER_BYTES} are read and {} follow",
                rest.len()
            )));
        }
        let (header, data) = rest.split_at(length as usize);
        let Header { mut metadata, mut tensors } =
            serde_json::from_slice(header).map_err(|error| malformed(format!("header: {error}")))?;
        sort_unique(&mut metadata, |pair| &pair.0)
            .map_err(|key| malformed(format!("metadata key `{key}` appears twice")))?;
        place_tensors(&mut tensors, LENGTH_BYTES as u64 + length, data.len() as u64)?;
        sort_unique(&mut tensors, |tensor| &tensor.name)
            .map_err(|name| malformed(format!("tensor `{name}` appears twice")))?;
        Ok(Safetensors { metadata, tensors })
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let found = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()?;
        self.tensors.get(found)
    }

    /// As [`Self::tensor`]; absence is an error.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`] with the nearest name that is there.
    pub fn require_tensor(&self, name: &str) -> Result<&TensorInfo, FormatError> {
        self.tensor(name).ok_or_else(|| missing(name, self.tensors.iter().map(|tensor| tensor.name.as_str())))
    }
}

pub(super) fn missing<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> FormatError {
    FormatError::MissingTensor { format: "safetensors", name: name.to_owned(), hint: nearest::hint(name, names) }
}

pub(super) fn malformed(message: impl Into<String>) -> FormatError {
    FormatError::Malformed { format: "safetensors", message: message.into() }
}

/// The header; offsets of tensors still count from the beginning of the data section.
struct Header {
    metadata: Vec<(String, String)>,
    tensors: Vec<TensorInfo>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut metadata = None;
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA_KEY {
                let pairs = map.next_value::<Option<UniqueMap<String>>>().map_err(|error| within(&name, error))?;
                if metadata.replace(pairs.map_or_else(Vec::new, |pairs| pairs.0)).is_some() {
                    return Err(Error::custom(format_args!("`{METADATA_KEY}` appears twice")));
                }
                continue;
            }
            let entry: Entry = map.next_value().map_err(|error| within(&name, error))?;
            tensors.push(entry.describe(name)?);
        }
        Ok(Header { metadata: metadata.unwrap_or_default(), tensors })
    }
}

fn within<E: Error>(name: &str, error: E) -> E {
    E::custom(format_args!("`{name}`: {error}"))
}

/// One tensor as the header has it; further fields are ignored, as the crate `safetensors` does.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl Entry {
    /// The tensor, if type, shape and offsets agree.
    fn describe<E: Error>(self, name: String) -> Result<TensorInfo, E> {
        let wrong = |message: fmt::Arguments<'_>| E::custom(format_args!("tensor `{name}` {message}"));
        let (start, end) = self.data_offsets;
        let shape = self.shape.0;
        let Some(stored) = StoredType::from_name(&self.dtype) else {
            return Err(wrong(format_args!("has unknown type `{}`", self.dtype)));
        };
        let elements = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
        let Some(needed) = elements.and_then(|elements| stored.byte_len(elements)) else {
            return Err(wrong(format_args!("has shape {shape:?} of {stored}, its bytes pass 2^64 or are not whole")));
        };
        if end.checked_sub(start) != Some(needed) {
            return Err(wrong(format_args!(
                "has shape {shape:?} of {stored}, {needed} bytes are needed, its offsets are {start} and {end}"
            )));
        }
        Ok(TensorInfo { name, shape, stored, offset: start, byte_len: needed })
    }
}

/// Extents of one tensor: few, whatever the header says.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Extents;
        impl<'de> Visitor<'de> for Extents {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of extents")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut extents: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(extent) = extents.next_element()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(Error::custom(format_args!("more than {MAX_DIMENSIONS} dimensions")));
                    }
                    shape.push(extent);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Extents)
    }
}

/// Makes offsets absolute and checks that the tensors cover the data section exactly once.
fn place_tensors(tensors: &mut [TensorInfo], data_start: u64, data_len: u64) -> Result<(), FormatError> {
    // An empty tensor comes before the one that begins at the same byte.
    tensors.sort_unstable_by_key(|tensor| (tensor.offset, tensor.byte_len));
    let mut covered = 0u64;
    for tensor in tensors.iter_mut() {
        if tensor.offset != covered {
            let what = if tensor.offset < covered { "overlaps the one before it" } else { "leaves a gap before it" };
            return Err(malformed(format!(
                "tensor `{}` at {} of the data section {what}, {covered} is needed",
                tensor.name, tensor.offset
            )));
        }
        // `Entry::describe` has checked that the end is a `u64`.
        covered = tensor.offset + tensor.byte_len;
        if covered > data_len {
            return Err(malformed(format!(
                "tensor `{}` ends at {covered} of the data section, which has {data_len} bytes",
                tensor.name
            )));
        }
        tensor.offset += data_start;
    }
    if covered != data_len {
        return Err(malformed(format!("the tensors cover {covered} bytes, the data section has {data_len}")));
    }
    Ok(())
}
