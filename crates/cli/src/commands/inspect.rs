//! `anymlx inspect`.

use std::io::{BufWriter, Write};

use anymlx::HostFile;
use anymlx_formats::gguf::{Array, Gguf, Value};

use crate::{
    arguments::{Inspect, Shared},
    failure::{Failure, Outcome},
    open,
};

/// Elements of an array, and characters of a string, that are shown.
const SHOWN: usize = 6;
const SHOWN_CHARACTERS: usize = 100;

pub fn run(shared: &Shared, options: &Inspect) -> Outcome {
    let path = match &options.file {
        Some(file) => file.clone(),
        None => open::model_path(shared)?,
    };
    let file = HostFile::open(&path)?;
    let gguf = Gguf::parse(file.bytes())
        .map_err(|error| Failure::message(format!("inspect `{}`: {error}", path.display())))?;
    write(&gguf, file.bytes().len()).map_err(Failure::output)
}

fn write(gguf: &Gguf, file_bytes: usize) -> std::io::Result<()> {
    let mut output = BufWriter::new(std::io::stdout().lock());
    writeln!(output, "GGUF version {}, {file_bytes} bytes, alignment {}", gguf.version, gguf.alignment)?;
    writeln!(output, "\n{} metadata pairs", gguf.metadata.len())?;
    for (key, value) in gguf.metadata.iter() {
        writeln!(output, "  {key} ({}) = {}", value.type_name(), show(value))?;
    }
    let elements: u64 = gguf.tensors.iter().map(|tensor| tensor.element_count()).sum();
    writeln!(output, "\n{} tensors, {elements} elements", gguf.tensors.len())?;
    let width = gguf.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    for tensor in &gguf.tensors {
        let shape = format!("{:?}", tensor.shape_row_major());
        writeln!(
            output,
            "  {:width$}  {:<8} {shape:<20} {:>12} bytes at {}",
            tensor.name,
            tensor.tensor_type.to_string(),
            tensor.byte_len,
            tensor.offset
        )?;
    }
    output.flush()
}

fn show(value: &Value) -> String {
    match value {
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::String(v) => quote(v),
        Value::Array(array) => show_array(array),
    }
}

fn quote(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}.. ({} bytes)", &text[..end], text.len()),
    }
}

fn show_array(array: &Array) -> String {
    fn list<T>(values: impl Iterator<Item = T>, count: usize, show: impl Fn(T) -> String) -> String {
        let shown: Vec<String> = values.take(SHOWN).map(show).collect();
        format!("[{}{}]", shown.join(", "), if count > SHOWN { ", .." } else { "" })
    }
    let count = array.len();
    match array {
        Array::U8(v) => list(v.iter(), count, u8::to_string),
        Array::I8(v) => list(v.iter(), count, i8::to_string),
        Array::U16(v) => list(v.iter(), count, u16::to_string),
        Array::I16(v) => list(v.iter(), count, i16::to_string),
        Array::U32(v) => list(v.iter(), count, u32::to_string),
        Array::I32(v) => list(v.iter(), count, i32::to_string),
        Array::U64(v) => list(v.iter(), count, u64::to_string),
        Array::I64(v) => list(v.iter(), count, i64::to_string),
        Array::F32(v) => list(v.iter(), count, f32::to_string),
        Array::F64(v) => list(v.iter(), count, f64::to_string),
        Array::Bool(v) => list(v.iter(), count, bool::to_string),
        Array::String(v) => list(v.iter(), count, quote),
        Array::Array(v) => list(v.iter(), count, show_array),
    }
}
