//! Reading one metadata value.

use super::cursor::{Cursor, malformed, within};
use super::value_types::{self as types, MAX_ARRAY_DEPTH};
use super::{Array, StringArray, Value};
use crate::FormatError;

/// Fewest bytes of a value: a byte-sized scalar.
pub(super) const LEAST_VALUE_BYTES: u64 = 1;

/// A string's length.
const LEAST_STRING_BYTES: u64 = 8;

/// An array's element type and length.
const LEAST_ARRAY_BYTES: u64 = 12;

pub(super) fn read_value(cursor: &mut Cursor<'_>, value_type: u32) -> Result<Value, FormatError> {
    Ok(match value_type {
        types::U8 => Value::U8(scalar(cursor, u8::from_le_bytes)?),
        types::I8 => Value::I8(scalar(cursor, i8::from_le_bytes)?),
        types::U16 => Value::U16(scalar(cursor, u16::from_le_bytes)?),
        types::I16 => Value::I16(scalar(cursor, i16::from_le_bytes)?),
        types::U32 => Value::U32(scalar(cursor, u32::from_le_bytes)?),
        types::I32 => Value::I32(scalar(cursor, i32::from_le_bytes)?),
        types::U64 => Value::U64(scalar(cursor, u64::from_le_bytes)?),
        types::I64 => Value::I64(scalar(cursor, i64::from_le_bytes)?),
        types::F32 => Value::F32(scalar(cursor, f32::from_le_bytes)?),
        types::F64 => Value::F64(scalar(cursor, f64::from_le_bytes)?),
        types::BOOL => {
            let at = cursor.offset();
            Value::Bool(bool_from(scalar(cursor, u8::from_le_bytes)?, at)?)
        }
        types::STRING => Value::String(cursor.string()?.to_owned()),
        types::ARRAY => Value::Array(read_array(cursor, 1)?),
        other => return Err(malformed(format!("unknown value type {other} before offset {}", cursor.offset()))),
    })
}

fn scalar<const N: usize, T>(cursor: &mut Cursor<'_>, convert: impl Fn([u8; N]) -> T) -> Result<T, FormatError> {
    let bytes = cursor.bytes(N as u64, "value")?;
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    Ok(convert(array))
}

fn bool_from(byte: u8, at: usize) -> Result<bool, FormatError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(malformed(format!("bool at offset {at} is {other}, 0 or 1 is needed"))),
    }
}

fn read_array(cursor: &mut Cursor<'_>, depth: usize) -> Result<Array, FormatError> {
    if depth > MAX_ARRAY_DEPTH {
        return Err(malformed(format!(
            "arrays nested deeper than {MAX_ARRAY_DEPTH} levels at offset {}",
            cursor.offset()
        )));
    }
    let element_type = cursor.u32("array element type")?;
    let count = cursor.u64("array length")?;
    Ok(match element_type {
        types::U8 => Array::U8(scalars(cursor, count, u8::from_le_bytes)?),
        types::I8 => Array::I8(scalars(cursor, count, i8::from_le_bytes)?),
        types::U16 => Array::U16(scalars(cursor, count, u16::from_le_bytes)?),
        types::I16 => Array::I16(scalars(cursor, count, i16::from_le_bytes)?),
        types::U32 => Array::U32(scalars(cursor, count, u32::from_le_bytes)?),
        types::I32 => Array::I32(scalars(cursor, count, i32::from_le_bytes)?),
        types::U64 => Array::U64(scalars(cursor, count, u64::from_le_bytes)?),
        types::I64 => Array::I64(scalars(cursor, count, i64::from_le_bytes)?),
        types::F32 => Array::F32(scalars(cursor, count, f32::from_le_bytes)?),
        types::F64 => Array::F64(scalars(cursor, count, f64::from_le_bytes)?),
        types::BOOL => {
            let at = cursor.offset();
            let bytes = cursor.bytes(count, "array")?;
            let bools: Result<Vec<bool>, _> =
                bytes.iter().enumerate().map(|(i, &byte)| bool_from(byte, at + i)).collect();
            Array::Bool(bools?)
        }
        types::STRING => Array::String(strings(cursor, count)?),
        types::ARRAY => {
            let count = cursor.count(count, LEAST_ARRAY_BYTES, "arrays")?;
            // Grown as elements arrive: a false count at every level must not reserve the file's size each time.
            let mut arrays = Vec::new();
            for _ in 0..count {
                arrays.push(read_array(cursor, depth + 1)?);
            }
            Array::Array(arrays)
        }
        other => {
            return Err(malformed(format!("unknown array element type {other} before offset {}", cursor.offset())));
        }
    })
}

fn scalars<const N: usize, T>(
    cursor: &mut Cursor<'_>,
    count: u64,
    convert: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, FormatError> {
    let count = cursor.count(count, N as u64, "array elements")?;
    let bytes = cursor.bytes((count * N) as u64, "array")?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|&element| convert(element)).collect())
}

fn strings(cursor: &mut Cursor<'_>, count: u64) -> Result<StringArray, FormatError> {
    let count = cursor.count(count, LEAST_STRING_BYTES, "strings")?;
    let first = cursor.clone();
    // Lengths first, so that all text is allocated once and only after its lengths are known to be true.
    let mut ends = Vec::with_capacity(count);
    let mut text_bytes = 0usize;
    for _ in 0..count {
        let length = cursor.u64("string length")?;
        text_bytes += cursor.bytes(length, "string")?.len();
        ends.push(text_bytes);
    }
    let mut text = Vec::with_capacity(text_bytes);
    let mut bytes = first.rest();
    let mut start = 0;
    for &end in &ends {
        let (string, rest) = bytes[LEAST_STRING_BYTES as usize..].split_at(end - start);
        text.extend_from_slice(string);
        bytes = rest;
        start = end;
    }
    match String::from_utf8(text).ok().and_then(|text| StringArray::from_parts(text, ends)) {
        Some(strings) => Ok(strings),
        // Some string is not UTF-8: read one by one to name it.
        None => {
            let mut again = first;
            for index in 0..count {
                again.string().map_err(|error| within(error, &format!("element {index}")))?;
            }
            Err(malformed("strings are not UTF-8"))
        }
    }
}
