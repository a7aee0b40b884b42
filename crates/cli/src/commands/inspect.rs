//! `anymlx inspect`.

use std::io::{BufWriter, Write};

use anymlx_formats::gguf::{Array, Value};
use anymlx_lm::{Checkpoint, StoredTensor};

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
    let checkpoint =
        Checkpoint::open(&path).map_err(|error| Failure::message(format!("inspect `{}`: {error}", path.display())))?;
    write(&checkpoint).map_err(Failure::output)
}

fn write(checkpoint: &Checkpoint) -> std::io::Result<()> {
    let mut output = BufWriter::new(std::io::stdout().lock());
    let (files, bytes) = (checkpoint.paths().len(), checkpoint.byte_len());
    let format = if checkpoint.gguf().is_some() { "GGUF" } else { "safetensors" };
    writeln!(output, "{format}, {bytes} bytes in {files} {}", if files == 1 { "file" } else { "files" })?;
    if let Some(gguf) = checkpoint.gguf() {
        writeln!(output, "\n{} metadata pairs", gguf.metadata.len())?;
        for (key, value) in gguf.metadata.iter() {
            writeln!(output, "  {key} ({}) = {}", value.type_name(), show(value))?;
        }
    }
    let tensors = checkpoint.tensors();
    let elements: u64 = tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
    writeln!(output, "\n{} tensors, {elements} elements", tensors.len())?;
    let width = tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    for StoredTensor { name, shape, type_name, byte_len, offset, file, .. } in &tensors {
        let shape = format!("{shape:?}");
        write!(output, "  {name:width$}  {type_name:<8} {shape:<20} {byte_len:>12} bytes at {offset}")?;
        writeln!(output, "{}", if files > 1 { format!(" of file {}", file + 1) } else { String::new() })?;
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
