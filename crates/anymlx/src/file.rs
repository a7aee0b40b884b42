//! Files as the host sees them.

use std::{fs::File, ops::Range, path::Path};

use memmap2::Mmap;

use crate::{MlxError, Result};

/// A whole file mapped for reading: headers are parsed from it without a copy.
///
/// The file must not be shortened or rewritten while it is mapped.
#[derive(Debug)]
pub struct HostFile {
    map: Mmap,
}

impl HostFile {
    /// Maps a file.
    ///
    /// # Errors
    /// `IoError` with the path when the file cannot be opened or is empty.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error: std::io::Error| MlxError::IoError(format!("open `{}`: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() == 0 {
            let what = if metadata.is_file() { "the file is empty" } else { "not a file" };
            return Err(MlxError::IoError(format!("open `{}`: {what}", path.display())));
        }
        // SAFETY: the mapping is read-only; that nobody changes the file meanwhile is asked of the
        // user, as with every program that maps its models.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self { map })
    }

    /// Tells the system that nothing near `bytes` will be read with them: it then reads no more around them than pages.
    pub fn expect_lone_read(&self, bytes: Range<usize>) {
        #[cfg(unix)]
        if let Err(error) = self.map.advise_range(memmap2::Advice::Random, bytes.start, bytes.len()) {
            tracing::debug!(%error, "the system takes no advice on a mapping");
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}
