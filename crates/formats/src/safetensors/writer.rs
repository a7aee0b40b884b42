//! Writing a file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::io::{self, BufWriter, Write};

use super::StoredType;
use super::header::METADATA_KEY;
use crate::FormatError;
use crate::stream::{Counted, Data, WriteError};

/// The header's length is a multiple of this, filled with spaces: tensors are aligned in the file.
const ALIGNMENT: usize = 8;

/// Builds a file and streams it out.
///
/// ```
/// use anymlx_formats::DType;
/// use anymlx_formats::safetensors::{Safetensors, SafetensorsWriter};
///
/// let mut file = Vec::new();
/// SafetensorsWriter::new()
///     .metadata("format", "mlx")
///     .tensor("norm.weight", &[2], DType::F32, bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0]))
///     .tensor_with("zeros", &[3, 4], DType::U8, |out| out.write_all(&[0; 12]))
///     .write_to(&mut file)?;
///
/// assert_eq!(Safetensors::parse(&file)?.require_tensor("zeros")?.shape, [3, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct SafetensorsWriter<'a> {
    metadata: BTreeMap<String, String>,
    tensors: Vec<Pending<'a>>,
}

struct Pending<'a> {
    name: String,
    shape: Vec<u64>,
    stored: StoredType,
    data: Data<'a>,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    dtype: &'a str,
    shape: &'a [u64],
    data_offsets: [u64; 2],
}

impl<'a> SafetensorsWriter<'a> {
    /// A file with neither metadata nor tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair, or replaces the value of a key that is there.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds a tensor with its bytes. `shape` has the fastest extent last.
    pub fn tensor(
        self,
        name: impl Into<String>,
        shape: &[u64],
        stored: impl Into<StoredType>,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        self.push(name.into(), shape, stored.into(), Data::Bytes(data.into()))
    }

    /// Adds a tensor whose bytes are written by `produce` when the file is; it writes exactly the bytes of `shape` and
    /// `stored`.
    pub fn tensor_with(
        self,
        name: impl Into<String>,
        shape: &[u64],
        stored: impl Into<StoredType>,
        produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> Self {
        self.push(name.into(), shape, stored.into(), Data::Produced(Box::new(produce)))
    }

    fn push(mut self, name: String, shape: &[u64], stored: StoredType, data: Data<'a>) -> Self {
        self.tensors.push(Pending { name, shape: shape.to_vec(), stored, data });
        self
    }

    /// Writes the file and returns its length. Tensors lie in the order in which they were added.
    ///
    /// # Errors
    /// [`WriteError::Format`] for names that appear twice or are that of the metadata, shapes that the type cannot hold, and
    /// data whose length is not that of shape and type. [`WriteError::Io`] when `out` fails. In both cases `out` may hold the
    /// beginning of a file.
    pub fn write_to(self, out: impl Write) -> Result<u64, WriteError> {
        self.write_rest(out, 0)
    }

    /// As [`Self::write_to`], without the first `present` bytes: what an interrupted run of the same writer has left.
    /// Tensors that lie within them are not produced again. Returns the length of the whole file.
    ///
    /// # Errors
    /// As [`Self::write_to`].
    pub fn write_rest(self, out: impl Write, present: u64) -> Result<u64, WriteError> {
        let (header, lengths) = self.header()?;
        let mut out = Counted::new(BufWriter::new(out), present);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (tensor, byte_len) in self.tensors.into_iter().zip(lengths) {
            let Pending { name, shape, stored, data } = tensor;
            data.write(&mut out, byte_len, |given| wrong_length(&name, &shape, stored, byte_len, given))?;
        }
        out.flush()?;
        Ok(out.written())
    }

    /// The header's JSON, and the bytes of each tensor.
    fn header(&self) -> Result<(Vec<u8>, Vec<u64>), FormatError> {
        let mut names = HashSet::from([METADATA_KEY]);
        let (mut end, mut lengths) = (0u64, Vec::with_capacity(self.tensors.len()));
        let mut header = String::from("{");
        let json = |value: Result<String, serde_json::Error>| value.map_err(|error| invalid(error.to_string()));
        if !self.metadata.is_empty() {
            header += &format!("\"{METADATA_KEY}\":{}", json(serde_json::to_string(&self.metadata))?);
        }
        for Pending { name, shape, stored, data } in &self.tensors {
            if !names.insert(name) {
                return Err(invalid(format!("tensor `{name}` given twice, or named as the metadata")));
            }
            let elements = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
            let place = elements.and_then(|elements| stored.byte_len(elements)).and_then(|bytes| {
                let start = end;
                end = start.checked_add(bytes)?;
                Some((start, bytes))
            });
            let Some((start, bytes)) = place else {
                return Err(invalid(format!("tensor `{name}` has shape {shape:?} of {stored}, its bytes pass 2^64")));
            };
            if let Some(given) = data.len().filter(|&given| given != bytes) {
                return Err(wrong_length(name, shape, *stored, bytes, &given));
            }
            lengths.push(bytes);
            let entry = Entry { dtype: stored.name(), shape, data_offsets: [start, end] };
            let separator = if header.len() > 1 { "," } else { "" };
            header +=
                &format!("{separator}{}:{}", json(serde_json::to_string(name))?, json(serde_json::to_string(&entry))?);
        }
        header.push('}');
        let mut header = header.into_bytes();
        header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
        Ok((header, lengths))
    }
}

fn wrong_length(name: &str, shape: &[u64], stored: StoredType, needed: u64, given: &dyn Display) -> FormatError {
    invalid(format!("tensor `{name}` with shape {shape:?} of {stored} needs {needed} bytes, {given} given"))
}

fn invalid(message: String) -> FormatError {
    FormatError::InvalidArgument { operation: "safetensors: write", message }
}
