//! What the writers of files share: tensors whose bytes are made when they are written, and going on after an interruption.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

use crate::FormatError;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Metadata or a tensor that the format cannot hold, or data of another length than declared.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The output failed.
    #[error("writing failed: {0}")]
    Io(#[from] io::Error),
}

type Produce<'a> = dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a;

/// The bytes of a tensor.
pub(crate) enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    Produced(Box<Produce<'a>>),
}

impl Data<'_> {
    /// Number of bytes, where it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Data::Bytes(bytes) => Some(bytes.len() as u64),
            Data::Produced(_) => None,
        }
    }

    /// Writes exactly `byte_len` bytes, unless `out` has them already; `wrong_length` hears how many there are otherwise.
    pub(crate) fn write<W: Write>(
        self,
        out: &mut Counted<W>,
        byte_len: u64,
        wrong_length: impl Fn(&dyn Display) -> FormatError,
    ) -> Result<(), WriteError> {
        match self {
            _ if out.written + byte_len <= out.present => out.written += byte_len,
            Data::Bytes(bytes) => out.write_all(&bytes)?,
            Data::Produced(produce) => {
                let mut limited = Limited { inner: out, left: byte_len, passed: false };
                let result = produce(&mut limited);
                let (left, passed) = (limited.left, limited.passed);
                if passed {
                    return Err(wrong_length(&"more").into());
                }
                result?;
                if left > 0 {
                    return Err(wrong_length(&(byte_len - left)).into());
                }
            }
        }
        Ok(())
    }
}

/// Counts what is written, and leaves out what is there already.
pub(crate) struct Counted<W> {
    inner: W,
    /// Bytes of the file so far.
    written: u64,
    /// The first bytes of the file, which `inner` has already.
    present: u64,
}

impl<W> Counted<W> {
    pub(crate) fn new(inner: W, present: u64) -> Self {
        Self { inner, written: 0, present }
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.present.saturating_sub(self.written).min(bytes.len() as u64) as usize;
        let count = match skipped {
            0 => self.inner.write(bytes)?,
            skipped => skipped,
        };
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Takes no more than `left` bytes.
struct Limited<'w, W> {
    inner: &'w mut W,
    left: u64,
    passed: bool,
}

impl<W: Write> Write for Limited<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.passed = true;
            return Err(io::Error::other("more bytes than the tensor holds"));
        }
        let count = self.inner.write(bytes)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
