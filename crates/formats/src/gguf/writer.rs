//! Writing a file.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, BufWriter, Write};

use super::reader::alignment_of;
use super::tensor_info::measure;
use super::value_types::MAX_KEY_BYTES;
use super::write_value::{too_deep, write_string, write_value};
use super::{MAGIC, MAX_DIMENSIONS, Metadata, Value};
use crate::stream::{Counted, Data, WriteError};
use crate::{FormatError, TensorType};

/// Version that is written.
const VERSION: u32 = 3;

/// Builds a version 3 little-endian file and streams it out.
///
/// ```
/// use anymlx_formats::gguf::{Gguf, GgufWriter};
/// use anymlx_formats::{DType, QuantType};
///
/// let mut file = Vec::new();
/// GgufWriter::new()
///     .metadata("general.architecture", "llama")
///     .tensor("output_norm.weight", &[2], DType::F32, bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0]))
///     .tensor_with("output.weight", &[32, 3], QuantType::Q8_0, |out| out.write_all(&[0; 34 * 3]))
///     .write_to(&mut file)?;
///
/// let gguf = Gguf::parse(&file)?;
/// assert_eq!(gguf.require_tensor("output.weight")?.shape_row_major(), [3, 32]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct GgufWriter<'a> {
    metadata: Metadata,
    tensors: Vec<Pending<'a>>,
}

struct Pending<'a> {
    name: String,
    shape: Vec<u64>,
    tensor_type: TensorType,
    data: Data<'a>,
}

impl<'a> GgufWriter<'a> {
    /// A file with neither metadata nor tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair, or replaces the value of a key that is there. `general.alignment` (a `u32`, power of two) sets the
    /// alignment of tensors, which is 32 without it.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key, value);
        self
    }

    /// Adds all pairs of another file.
    pub fn metadata_from(mut self, metadata: &Metadata) -> Self {
        for (key, value) in metadata.iter() {
            self.metadata.insert(key, value.clone());
        }
        self
    }

    /// Adds a tensor with its bytes. `shape` is in GGUF order, the fastest extent first.
    pub fn tensor(
        self,
        name: impl Into<String>,
        shape: &[u64],
        tensor_type: impl Into<TensorType>,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        self.push(name.into(), shape, tensor_type.into(), Data::Bytes(data.into()))
    }

    /// Adds a tensor whose bytes are written by `produce` when the file is: a converter needs memory for one tensor, or
    /// a part of one, at a time. `produce` writes exactly the bytes of `shape` and `tensor_type`.
    pub fn tensor_with(
        self,
        name: impl Into<String>,
        shape: &[u64],
        tensor_type: impl Into<TensorType>,
        produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> Self {
        self.push(name.into(), shape, tensor_type.into(), Data::Produced(Box::new(produce)))
    }

    fn push(mut self, name: String, shape: &[u64], tensor_type: TensorType, data: Data<'a>) -> Self {
        self.tensors.push(Pending { name, shape: shape.to_vec(), tensor_type, data });
        self
    }

    /// Writes the file and returns its length. Tensors lie in the order in which they were added.
    ///
    /// The result can be read back by [`super::Gguf::parse`]: what that refuses is refused here.
    ///
    /// # Errors
    /// [`WriteError::Format`] for keys and names that are empty, too long or appear twice, an alignment that is no power
    /// of two, shapes that the type or the format cannot hold, types without a GGUF number, arrays nested too deep, and
    /// data whose length is not that of shape and type. [`WriteError::Io`] when `out` fails. In both cases `out` may
    /// hold the beginning of a file.
    pub fn write_to(self, out: impl Write) -> Result<u64, WriteError> {
        self.write_rest(out, 0)
    }

    /// As [`Self::write_to`], without the first `present` bytes: what an interrupted run of the same writer has left.
    /// Tensors that lie within them are not produced again. Returns the length of the whole file.
    ///
    /// # Errors
    /// As [`Self::write_to`].
    pub fn write_rest(self, out: impl Write, present: u64) -> Result<u64, WriteError> {
        let alignment = alignment_of(&self.metadata)?;
        self.check_metadata()?;
        let places = self.place_tensors(alignment)?;
        let mut out = Counted::new(BufWriter::new(out), present);
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&(self.tensors.len() as u64).to_le_bytes())?;
        out.write_all(&(self.metadata.len() as u64).to_le_bytes())?;
        for (key, value) in self.metadata.iter() {
            write_string(&mut out, key)?;
            write_value(&mut out, value)?;
        }
        for (tensor, place) in self.tensors.iter().zip(&places) {
            write_tensor_info(&mut out, tensor, place)?;
        }
        for (tensor, place) in self.tensors.into_iter().zip(places) {
            pad(&mut out, alignment)?;
            let Pending { name, shape, tensor_type, data } = tensor;
            data.write(&mut out, place.byte_len, |given| {
                wrong_length(&name, &shape, tensor_type, place.byte_len, given)
            })?;
            pad(&mut out, alignment)?;
        }
        out.flush()?;
        Ok(out.written())
    }

    fn check_metadata(&self) -> Result<(), FormatError> {
        for (key, value) in self.metadata.iter() {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(invalid(format!(
                    "metadata key of {} bytes given, 1 to {MAX_KEY_BYTES} are needed",
                    key.len()
                )));
            }
            if too_deep(value) {
                return Err(invalid(format!("the arrays of metadata key `{key}` are nested too deep")));
            }
        }
        Ok(())
    }

    fn place_tensors(&self, alignment: u64) -> Result<Vec<Place>, FormatError> {
        let mut names = HashSet::new();
        let mut offset = 0u64;
        let mut places = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            let name = &tensor.name;
            if name.is_empty() {
                return Err(invalid("tensor with an empty name given".to_owned()));
            }
            if !names.insert(name.as_str()) {
                return Err(invalid(format!("tensor `{name}` given twice")));
            }
            if tensor.shape.len() > MAX_DIMENSIONS as usize {
                return Err(invalid(format!(
                    "tensor `{name}` has {} dimensions, at most {MAX_DIMENSIONS} are needed",
                    tensor.shape.len()
                )));
            }
            let type_id = tensor.tensor_type.ggml_id().ok_or_else(|| {
                invalid(format!("tensor `{name}` is {}, a type with a GGUF number is needed", tensor.tensor_type))
            })?;
            let byte_len = measure(&tensor.shape, tensor.tensor_type)
                .map_err(|message| invalid(format!("tensor `{name}` {message}")))?;
            if let Some(given) = tensor.data.len().filter(|&given| given != byte_len) {
                return Err(wrong_length(name, &tensor.shape, tensor.tensor_type, byte_len, given));
            }
            places.push(Place { type_id, offset, byte_len });
            offset = offset
                .checked_add(byte_len)
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .ok_or_else(|| invalid(format!("tensor `{name}` ends past 2^64 bytes")))?;
        }
        Ok(places)
    }
}

/// Where a tensor goes in the data section.
struct Place {
    type_id: u32,
    offset: u64,
    byte_len: u64,
}

fn wrong_length(
    name: &str,
    shape: &[u64],
    tensor_type: TensorType,
    needed: u64,
    given: impl std::fmt::Display,
) -> FormatError {
    invalid(format!("tensor `{name}` with shape {shape:?} of {tensor_type} needs {needed} bytes, {given} given"))
}

fn invalid(message: String) -> FormatError {
    FormatError::InvalidArgument { operation: "gguf: write", message }
}

fn write_tensor_info(out: &mut impl Write, tensor: &Pending<'_>, place: &Place) -> io::Result<()> {
    write_string(out, &tensor.name)?;
    out.write_all(&(tensor.shape.len() as u32).to_le_bytes())?;
    for extent in &tensor.shape {
        out.write_all(&extent.to_le_bytes())?;
    }
    out.write_all(&place.type_id.to_le_bytes())?;
    out.write_all(&place.offset.to_le_bytes())
}

fn pad<W: Write>(out: &mut Counted<W>, alignment: u64) -> io::Result<()> {
    let missing = out.written().next_multiple_of(alignment) - out.written();
    io::copy(&mut io::Read::take(io::repeat(0), missing), out).map(drop)
}
