//! Reading a file's header.

use super::cursor::{Cursor, malformed, within};
use super::read_value::{LEAST_VALUE_BYTES, read_value};
use super::tensor_info::{TensorInfo, measure};
use super::value_types::MAX_KEY_BYTES;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS, Metadata, Value};
use crate::quant::ggml_type_name;
use crate::{FormatError, TensorType, nearest};

/// Key length, one byte of key, value type, value.
const LEAST_PAIR_BYTES: u64 = 8 + 1 + 4 + LEAST_VALUE_BYTES;

/// Name length, one byte of name, dimension count, type, offset.
const LEAST_TENSOR_BYTES: u64 = 8 + 1 + 4 + 4 + 8;

/// The description of a GGUF file: everything but the tensors' bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    /// Version of the container: 2 or 3.
    pub version: u32,
    /// Power of two that every tensor's place in the data section is a multiple of.
    pub alignment: u64,
    /// Key-value pairs in file order.
    pub metadata: Metadata,
    /// Tensors in file order.
    pub tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<usize>,
}

impl Gguf {
    /// Reads the header of a version 2 or 3 little-endian file.
    ///
    /// `bytes` is the whole file, usually a memory map: only the header is touched. Every length, count, offset and
    /// product is checked against the bytes that are there before memory is reserved for it, so that memory stays within
    /// a small multiple of the header's bytes whatever they say. A dimension count of 0 is a scalar, as in llama.cpp;
    /// tensors may lie in any order with gaps between them.
    ///
    /// Specification: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] with the place for every broken rule: magic, version, byte order, counts, strings that
    /// are not UTF-8, unknown value types, duplicate or empty keys and names, alignment, extents that are zero or
    /// overflow, rows that are no multiple of the block length, tensors that overlap or leave the file.
    /// [`FormatError::UnsupportedType`] for tensor types that are not read here.
    pub fn parse(bytes: &[u8]) -> Result<Gguf, FormatError> {
        let mut cursor = Cursor::new(bytes);
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.u64("tensor count")?;
        let pair_count = cursor.u64("metadata count")?;
        let tensor_count_usize = cursor.count(tensor_count, LEAST_TENSOR_BYTES, "tensors")?;
        let metadata = read_metadata(&mut cursor, pair_count)?;
        let alignment = alignment_of(&metadata)?;

        cursor.count(tensor_count, LEAST_TENSOR_BYTES, "tensors")?;
        let mut tensors = Vec::with_capacity(tensor_count_usize);
        for _ in 0..tensor_count {
            tensors.push(read_tensor(&mut cursor, alignment)?);
        }
        place_tensors(&mut tensors, cursor.offset() as u64, alignment, bytes.len() as u64)?;
        let by_name = sorted_by(&tensors, |a, b| a.name.cmp(&b.name));
        if let Some(pair) = by_name.windows(2).find(|pair| name_at(&tensors, pair[0]) == name_at(&tensors, pair[1])) {
            return Err(malformed(format!("tensor `{}` appears twice", name_at(&tensors, pair[0]))));
        }
        Ok(Gguf { version, alignment, metadata, tensors, by_name })
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let found = self.by_name.binary_search_by(|&index| name_at(&self.tensors, index).cmp(name)).ok()?;
        self.tensors.get(self.by_name[found])
    }

    /// As [`Self::tensor`]; absence is an error.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`] with the nearest name that is there.
    pub fn require_tensor(&self, name: &str) -> Result<&TensorInfo, FormatError> {
        self.tensor(name).ok_or_else(|| FormatError::MissingTensor {
            format: "gguf",
            name: name.to_owned(),
            hint: nearest::hint(name, self.tensors.iter().map(|tensor| tensor.name.as_str())),
        })
    }
}

fn name_at(tensors: &[TensorInfo], index: usize) -> &str {
    &tensors[index].name
}

/// Indices of `tensors` in the given order.
fn sorted_by(tensors: &[TensorInfo], order: impl Fn(&TensorInfo, &TensorInfo) -> std::cmp::Ordering) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..tensors.len()).collect();
    indices.sort_unstable_by(|&a, &b| order(&tensors[a], &tensors[b]));
    indices
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, FormatError> {
    let magic = cursor.bytes(4, "magic")?;
    if magic != MAGIC {
        let shown = magic.escape_ascii();
        return Err(malformed(format!("file begins with `{shown}`, `GGUF` is needed")));
    }
    let version = cursor.u32("version")?;
    match version {
        2 | 3 => Ok(version),
        // Version 3 introduced big-endian files; they carry no other mark.
        _ if matches!(version.swap_bytes(), 1..=0xffff) => Err(malformed(format!(
            "file is big-endian (version {} in that order), little-endian is needed",
            version.swap_bytes()
        ))),
        _ => Err(malformed(format!("version {version}, 2 or 3 is needed"))),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, FormatError> {
    let count = cursor.count(count, LEAST_PAIR_BYTES, "metadata pairs")?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let at = cursor.offset();
        let key = cursor.string()?;
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(malformed(format!(
                "metadata key at offset {at} has {} bytes, 1 to {MAX_KEY_BYTES} are needed",
                key.len()
            )));
        }
        let value_type = cursor.u32("value type")?;
        let value = read_value(cursor, value_type).map_err(|error| within(error, &format!("metadata key `{key}`")))?;
        entries.push((key.to_owned(), value));
    }
    Metadata::from_entries(entries).map_err(|key| malformed(format!("metadata key `{key}` appears twice")))
}

pub(super) fn alignment_of(metadata: &Metadata) -> Result<u64, FormatError> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::U32(alignment)) if alignment.is_power_of_two() => Ok(alignment.into()),
        Some(Value::U32(alignment)) => {
            Err(malformed(format!("{ALIGNMENT_KEY} is {alignment}, a power of two is needed")))
        }
        Some(other) => Err(FormatError::WrongType {
            format: "gguf",
            key: ALIGNMENT_KEY.to_owned(),
            found: other.type_name(),
            needed: "a u32",
        }),
    }
}

/// A tensor whose `offset` still counts from the beginning of the data section.
fn read_tensor(cursor: &mut Cursor<'_>, alignment: u64) -> Result<TensorInfo, FormatError> {
    let at = cursor.offset();
    let name = cursor.string()?;
    if name.is_empty() {
        return Err(malformed(format!("tensor name at offset {at} is empty")));
    }
    let wrong = |message: String| malformed(format!("tensor `{name}` {message}"));
    let dimensions = cursor.u32("dimension count")?;
    if dimensions > MAX_DIMENSIONS {
        return Err(wrong(format!("has {dimensions} dimensions, at most {MAX_DIMENSIONS} are needed")));
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(cursor.u64("extent")?);
    }
    let type_id = cursor.u32("tensor type")?;
    let tensor_type = TensorType::from_ggml_id(type_id).ok_or_else(|| FormatError::UnsupportedType {
        format: "gguf",
        tensor: name.to_owned(),
        type_name: ggml_type_name(type_id).map_or_else(|| format!("number {type_id}"), str::to_owned),
    })?;
    let byte_len = measure(&shape, tensor_type).map_err(wrong)?;
    let offset = cursor.u64("tensor offset")?;
    if !offset.is_multiple_of(alignment) {
        return Err(wrong(format!("has offset {offset}, a multiple of the alignment {alignment} is needed")));
    }
    Ok(TensorInfo { name: name.to_owned(), shape, tensor_type, offset, byte_len })
}

/// Makes offsets absolute and checks that the tensors lie in the file without overlap.
fn place_tensors(
    tensors: &mut [TensorInfo],
    header_end: u64,
    alignment: u64,
    file_len: u64,
) -> Result<(), FormatError> {
    let data_start = header_end
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| malformed(format!("header of {header_end} bytes cannot be aligned to {alignment}")))?;
    for tensor in tensors.iter_mut() {
        let start = data_start.checked_add(tensor.offset);
        let end = start.and_then(|start| start.checked_add(tensor.byte_len));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_len => tensor.offset = start,
            _ => {
                return Err(malformed(format!(
                    "tensor `{}` has {} bytes at {} of the data section, which begins at {data_start} of the {file_len} \
                     bytes in the file",
                    tensor.name, tensor.byte_len, tensor.offset
                )));
            }
        }
    }
    let by_offset = sorted_by(tensors, |a, b| a.offset.cmp(&b.offset));
    for pair in by_offset.windows(2) {
        let (first, second) = (&tensors[pair[0]], &tensors[pair[1]]);
        if first.offset + first.byte_len > second.offset {
            return Err(malformed(format!(
                "tensors `{}` ({} bytes at offset {}) and `{}` (at offset {}) overlap",
                first.name, first.byte_len, first.offset, second.name, second.offset
            )));
        }
    }
    Ok(())
}
