//! Checks that operations share. Messages name the operation and show the shapes.

use crate::{DType, MlxBuffer, MlxError, Result};

/// One operation's checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) operation: &'static str,
}

impl Check {
    pub(crate) fn new(operation: &'static str) -> Self {
        Self { operation }
    }

    pub(crate) fn error(&self, message: impl std::fmt::Display) -> MlxError {
        MlxError::invalid(self.operation, message)
    }

    /// `condition`, or an error with `message`.
    pub(crate) fn that(&self, condition: bool, message: impl std::fmt::Display) -> Result<()> {
        if condition { Ok(()) } else { Err(self.error(message)) }
    }

    pub(crate) fn dtype(&self, name: &str, buffer: &MlxBuffer, allowed: &[DType]) -> Result<()> {
        if allowed.contains(&buffer.dtype()) {
            return Ok(());
        }
        let names: Vec<&str> = allowed.iter().map(|dtype| dtype.name()).collect();
        Err(self.error(format_args!("{name} is {}, needed {}", buffer.dtype(), names.join(" or "))))
    }

    /// The buffer has this shape and the bytes for it.
    pub(crate) fn shape(&self, name: &str, buffer: &MlxBuffer, shape: &[usize]) -> Result<()> {
        self.that(buffer.shape() == shape, format_args!("{name} is {:?}, needed {shape:?}", buffer.shape()))?;
        self.bytes(name, buffer)
    }

    /// The buffer's logical bytes suffice for its shape (wrapped foreign memory may be shorter).
    pub(crate) fn bytes(&self, name: &str, buffer: &MlxBuffer) -> Result<()> {
        let needed = crate::buffer::count_bytes(buffer.shape(), buffer.dtype());
        let given = buffer.data_byte_len() as u64;
        self.that(
            needed.is_some_and(|needed| needed <= given),
            format_args!("{name} {:?} of {} has only {given} bytes", buffer.shape(), buffer.dtype()),
        )
    }

    /// Rows and columns of a matrix, or of a higher-rank buffer flattened to its last extent.
    pub(crate) fn rows(&self, name: &str, buffer: &MlxBuffer) -> Result<(usize, usize)> {
        self.bytes(name, buffer)?;
        match buffer.shape().split_last() {
            Some((&columns, rows)) if columns > 0 => Ok((rows.iter().product(), columns)),
            _ => Err(self.error(format_args!("{name} is {:?}, needed [.., columns]", buffer.shape()))),
        }
    }

    /// `value` as the 32-bit number that kernels take.
    pub(crate) fn u32(&self, name: &str, value: usize) -> Result<u32> {
        u32::try_from(value)
            .map_err(|_| self.error(format_args!("{name} is {value}, at most {} is possible", u32::MAX)))
    }
}
