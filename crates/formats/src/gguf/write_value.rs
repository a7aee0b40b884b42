//! Writing one metadata value.

use std::io::{self, Write};

use super::value_types::{self as types, MAX_ARRAY_DEPTH};
use super::{Array, Value};

pub(super) fn write_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

/// Type and value.
pub(super) fn write_value(out: &mut impl Write, value: &Value) -> io::Result<()> {
    out.write_all(&value_type(value).to_le_bytes())?;
    match value {
        Value::U8(v) => out.write_all(&v.to_le_bytes()),
        Value::I8(v) => out.write_all(&v.to_le_bytes()),
        Value::U16(v) => out.write_all(&v.to_le_bytes()),
        Value::I16(v) => out.write_all(&v.to_le_bytes()),
        Value::U32(v) => out.write_all(&v.to_le_bytes()),
        Value::I32(v) => out.write_all(&v.to_le_bytes()),
        Value::U64(v) => out.write_all(&v.to_le_bytes()),
        Value::I64(v) => out.write_all(&v.to_le_bytes()),
        Value::F32(v) => out.write_all(&v.to_le_bytes()),
        Value::F64(v) => out.write_all(&v.to_le_bytes()),
        Value::Bool(v) => out.write_all(&[u8::from(*v)]),
        Value::String(v) => write_string(out, v),
        Value::Array(array) => write_array(out, array),
    }
}

/// True when the value's arrays are nested deeper than a reader accepts.
pub(super) fn too_deep(value: &Value) -> bool {
    fn deeper_than(array: &Array, levels: usize) -> bool {
        match array {
            _ if levels == 0 => true,
            Array::Array(arrays) => arrays.iter().any(|array| deeper_than(array, levels - 1)),
            _ => false,
        }
    }
    matches!(value, Value::Array(array) if deeper_than(array, MAX_ARRAY_DEPTH))
}

fn write_array(out: &mut impl Write, array: &Array) -> io::Result<()> {
    out.write_all(&element_type(array).to_le_bytes())?;
    out.write_all(&(array.len() as u64).to_le_bytes())?;
    match array {
        Array::U8(v) => out.write_all(v),
        Array::I8(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::U16(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::I16(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::U32(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::I32(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::U64(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::I64(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::F32(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::F64(v) => scalars(out, v, |v| v.to_le_bytes()),
        Array::Bool(v) => scalars(out, v, |v| [u8::from(v)]),
        Array::String(v) => v.iter().try_for_each(|text| write_string(out, text)),
        Array::Array(v) => v.iter().try_for_each(|array| write_array(out, array)),
    }
}

fn scalars<T: Copy, const N: usize>(
    out: &mut impl Write,
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    values.iter().try_for_each(|&value| out.write_all(&to_bytes(value)))
}

fn value_type(value: &Value) -> u32 {
    match value {
        Value::U8(_) => types::U8,
        Value::I8(_) => types::I8,
        Value::U16(_) => types::U16,
        Value::I16(_) => types::I16,
        Value::U32(_) => types::U32,
        Value::I32(_) => types::I32,
        Value::U64(_) => types::U64,
        Value::I64(_) => types::I64,
        Value::F32(_) => types::F32,
        Value::F64(_) => types::F64,
        Value::Bool(_) => types::BOOL,
        Value::String(_) => types::STRING,
        Value::Array(_) => types::ARRAY,
    }
}

fn element_type(array: &Array) -> u32 {
    match array {
        Array::U8(_) => types::U8,
        Array::I8(_) => types::I8,
        Array::U16(_) => types::U16,
        Array::I16(_) => types::I16,
        Array::U32(_) => types::U32,
        Array::I32(_) => types::I32,
        Array::U64(_) => types::U64,
        Array::I64(_) => types::I64,
        Array::F32(_) => types::F32,
        Array::F64(_) => types::F64,
        Array::Bool(_) => types::BOOL,
        Array::String(_) => types::STRING,
        Array::Array(_) => types::ARRAY,
    }
}
