//! Checked reading of little-endian values.

use crate::FormatError;

/// Shorthand for a broken rule of the format.
pub(super) fn malformed(message: impl Into<String>) -> FormatError {
    FormatError::Malformed { format: "gguf", message: message.into() }
}

/// Puts the place before an error's message.
pub(super) fn within(error: FormatError, place: &str) -> FormatError {
    match error {
        FormatError::Malformed { format, message } => {
            FormatError::Malformed { format, message: format!("{place}: {message}") }
        }
        other => other,
    }
}

/// A position in a file's bytes.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub fn offset(&self) -> usize {
        self.offset
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The bytes that are left.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// The next `count` bytes; `what` names them in the error.
    pub fn bytes(&mut self, count: u64, what: &str) -> Result<&'a [u8], FormatError> {
        match usize::try_from(count) {
            Ok(count) if count <= self.remaining() => {
                let bytes = &self.bytes[self.offset..self.offset + count];
                self.offset += count;
                Ok(bytes)
            }
            _ => Err(malformed(format!(
                "{what} of {count} bytes at offset {}, file has {} bytes left",
                self.offset,
                self.remaining()
            ))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FormatError> {
        let bytes = self.bytes(N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, FormatError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A length and that many bytes of UTF-8.
    pub fn string(&mut self) -> Result<&'a str, FormatError> {
        let length = self.u64("string length")?;
        let start = self.offset;
        let bytes = self.bytes(length, "string")?;
        std::str::from_utf8(bytes).map_err(|error| {
            malformed(format!("string at offset {start} is not UTF-8 from its byte {}", error.valid_up_to()))
        })
    }

    /// A number of things that follow, each of at least `least_bytes`: refused when so many cannot be left.
    pub fn count(&self, count: u64, least_bytes: u64, what: &str) -> Result<usize, FormatError> {
        let needed = u128::from(count) * u128::from(least_bytes);
        if needed > self.remaining() as u128 {
            return Err(malformed(format!(
                "{count} {what} announced before offset {}, they need at least {needed} bytes, file has {} bytes left",
                self.offset,
                self.remaining()
            )));
        }
        // Not more than the bytes left, which is a `usize`.
        Ok(count as usize)
    }
}
