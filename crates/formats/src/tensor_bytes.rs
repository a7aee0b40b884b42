//! The bytes of a described tensor.

use crate::FormatError;

/// `byte_len` bytes from `offset` of the file that described tensor `name`.
pub(crate) fn slice<'a>(name: &str, offset: u64, byte_len: u64, file: &'a [u8]) -> Result<&'a [u8], FormatError> {
    let start = usize::try_from(offset).ok();
    let end = offset.checked_add(byte_len).and_then(|end| usize::try_from(end).ok());
    start.zip(end).and_then(|(start, end)| file.get(start..end)).ok_or_else(|| FormatError::InvalidArgument {
        operation: "tensor data",
        message: format!(
            "tensor `{name}` has {byte_len} bytes at offset {offset}, {} bytes given; pass the file that was parsed",
            file.len()
        ),
    })
}
