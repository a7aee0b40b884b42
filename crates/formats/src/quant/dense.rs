//! Plain elements to and from `f32`.

use half::{bf16, f16};

use crate::{DType, FormatError};

/// `bytes` holds `values.len()` elements.
pub(super) fn decode(dtype: DType, bytes: &[u8], values: &mut [f32]) -> Result<(), FormatError> {
    match dtype {
        DType::F32 => each(bytes, values, f32::from_le_bytes),
        DType::F16 => each(bytes, values, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => each(bytes, values, |b| bf16::from_le_bytes(b).to_f32()),
        DType::F64 => each(bytes, values, |b| f64::from_le_bytes(b) as f32),
        DType::U8 => each(bytes, values, |b| u8::from_le_bytes(b) as f32),
        DType::U16 => each(bytes, values, |b| u16::from_le_bytes(b) as f32),
        DType::U32 => each(bytes, values, |b| u32::from_le_bytes(b) as f32),
        DType::I8 => each(bytes, values, |b| i8::from_le_bytes(b) as f32),
        DType::I16 => each(bytes, values, |b| i16::from_le_bytes(b) as f32),
        DType::I32 => each(bytes, values, |b| i32::from_le_bytes(b) as f32),
        DType::I64 => each(bytes, values, |b| i64::from_le_bytes(b) as f32),
    }
    Ok(())
}

/// `bytes` has room for `values.len()` elements.
pub(super) fn encode(dtype: DType, values: &[f32], bytes: &mut [u8]) -> Result<(), FormatError> {
    match dtype {
        DType::F32 => fill(values, bytes, f32::to_le_bytes),
        DType::F16 => fill(values, bytes, |v| f16::from_f32(v).to_le_bytes()),
        DType::BF16 => fill(values, bytes, |v| bf16::from_f32(v).to_le_bytes()),
        DType::F64 => fill(values, bytes, |v| f64::from(v).to_le_bytes()),
        DType::U8 | DType::U16 | DType::U32 | DType::I8 | DType::I16 | DType::I32 | DType::I64 => {
            return Err(FormatError::InvalidArgument {
                operation: "quantize",
                message: format!("{dtype} given, a floating-point or quantised type is needed"),
            });
        }
    }
    Ok(())
}

fn each<const N: usize>(bytes: &[u8], values: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    for (value, &element) in values.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = convert(element);
    }
}

fn fill<const N: usize>(values: &[f32], bytes: &mut [u8], convert: impl Fn(f32) -> [u8; N]) {
    for (&value, element) in values.iter().zip(bytes.as_chunks_mut::<N>().0) {
        *element = convert(value);
    }
}
