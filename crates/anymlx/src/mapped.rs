//! Files as buffers, those that are larger than the largest buffer of a device too.

use std::{fs::File, ops::Range, path::Path};

use anymlx_hal::Residency;

use crate::{DType, MlxBuffer, MlxDevice, MlxError, RawBuffer, Result};

/// Every system's pages are parts of this.
const PAGE: u64 = 64 * 1024;

/// A file as few large read-only buffers, so that each tensor lies inside one of them.
///
/// The parts overlap by as much as the largest tensor has, at most; that is room for addresses, not memory, where
/// host and device share it.
#[derive(Debug, Clone)]
pub struct MappedFile {
    /// First bytes in the file, ascending, and what is there.
    parts: Vec<(u64, MlxBuffer)>,
}

impl MappedFile {
    /// `byte_len` bytes from `offset` of the file, without a copy, with a dtype and shape.
    ///
    /// # Errors
    /// `InvalidArgument` when the range leaves the file, is larger than what was said when the file was mapped,
    /// or the shape needs more.
    pub fn view_as(
        &self,
        offset: u64,
        byte_len: usize,
        dtype: DType,
        shape: impl Into<Vec<usize>>,
    ) -> Result<MlxBuffer> {
        // The last part that begins early enough reaches furthest.
        let part = self.parts.iter().rev().find(|(start, _)| *start <= offset);
        let (start, buffer) = part.ok_or_else(|| MlxError::invalid("view_as", "the file has no parts"))?;
        buffer.view_as(offset - start, byte_len, dtype, shape)
    }

    /// Buffers that the file is in.
    pub fn parts(&self) -> impl Iterator<Item = &MlxBuffer> {
        self.parts.iter().map(|(_, buffer)| buffer)
    }
}

/// Ranges of at most `limit` bytes that begin with a page, such that each range of at most `largest` bytes of the
/// file is inside the last one that begins before it. `None`: no such ranges exist.
fn windows(file_len: u64, limit: u64, largest: u64) -> Option<Vec<Range<u64>>> {
    if file_len <= limit {
        return Some(std::iter::once(0..file_len).collect());
    }
    let limit = limit / PAGE * PAGE;
    let step = limit.checked_sub(largest)? / PAGE * PAGE;
    if step == 0 {
        return None;
    }
    let mut windows = Vec::new();
    let mut start = 0;
    loop {
        let end = file_len.min(start + limit);
        windows.push(start..end);
        if end == file_len {
            return Some(windows);
        }
        start += step;
    }
}

impl MlxDevice {
    /// A read-only buffer over a whole file: mapped, not copied, where memory is unified.
    ///
    /// The file must not be shortened or rewritten while the buffer lives.
    ///
    /// # Errors
    /// `IoError` with the path.
    pub fn map_file(&self, path: impl AsRef<Path>) -> Result<MlxBuffer> {
        let file = OpenFile::open(path.as_ref())?;
        file.map(self, 0..file.byte_len)
    }

    /// Maps a file, mapped and not copied where memory is unified, in parts where it is larger than the device's
    /// largest buffer. `largest` is the length of the longest tensor that will be asked for.
    ///
    /// The file must not be shortened or rewritten while the buffers live.
    ///
    /// # Errors
    /// `IoError` with the path; `InvalidArgument` when the device has no buffer for `largest` bytes.
    pub fn map_file_in_parts(&self, path: impl AsRef<Path>, largest: u64) -> Result<MappedFile> {
        let file = OpenFile::open(path.as_ref())?;
        let limit = self.info().max_buffer_bytes;
        let windows = windows(file.byte_len, limit, largest).ok_or_else(|| {
            let message = format!("a tensor of {largest} bytes, the device's largest buffer has {limit}");
            MlxError::invalid("map file", message)
        })?;
        let part = |window: Range<u64>| Ok((window.start, file.map(self, window)?));
        Ok(MappedFile { parts: windows.into_iter().map(part).collect::<Result<_>>()? })
    }
}

/// A file that is about to be mapped; it is not empty.
struct OpenFile<'a> {
    path: &'a Path,
    file: File,
    byte_len: u64,
}

impl<'a> OpenFile<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let failed = |error: std::io::Error| MlxError::IoError(format!("open `{}`: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let byte_len = file.metadata().map_err(failed)?.len();
        if byte_len == 0 {
            return Err(MlxError::IoError(format!("open `{}`: the file is empty", path.display())));
        }
        Ok(Self { path, file, byte_len })
    }

    fn map(&self, device: &MlxDevice, window: Range<u64>) -> Result<MlxBuffer> {
        let len = window.end - window.start;
        let storage = device.context().map_file(&self.file, window.start, len, Residency::Join);
        let storage =
            storage.map_err(|error| MlxError::from(error).context(format!("map `{}`", self.path.display())))?;
        let shape = vec![usize::try_from(len).unwrap_or(usize::MAX)];
        Ok(MlxBuffer::new(RawBuffer { storage }, DType::U8, shape, 0, len))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{MetalOptions, RecorderOptions};

    #[test]
    fn every_range_is_inside_the_last_part_before_it() {
        for (file_len, limit, largest) in
            [(1, 1, 1), (PAGE * 10 + 5, PAGE * 3, PAGE), (PAGE * 10, PAGE * 4 + 9, PAGE + 1), (7 * PAGE, 7 * PAGE, 1)]
        {
            let windows = windows(file_len, limit, largest).unwrap();
            assert!(windows.iter().all(|window| window.end - window.start <= limit && window.start % PAGE == 0));
            for start in (0..file_len).step_by(4093) {
                let end = file_len.min(start + largest);
                let window = windows.iter().rev().find(|window| window.start <= start).unwrap();
                assert!(end <= window.end, "{start}..{end} of {windows:?}");
            }
        }
        assert_eq!(windows(PAGE * 10, PAGE * 2, PAGE * 2), None);
        assert_eq!(windows(PAGE * 10, PAGE, PAGE * 2), None);
    }

    #[test]
    fn tensors_of_a_large_file_are_seen_in_place() {
        let recorder = RecorderOptions { max_buffer_bytes: Some(3 * PAGE), ..RecorderOptions::default() };
        let device = MlxDevice::metal_recorder(&recorder, &MetalOptions::default()).unwrap();
        let values: Vec<u32> = (0..(8 * PAGE / 4) as u32).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytemuck::cast_slice(&values)).unwrap();
        let mapped = device.map_file_in_parts(file.path(), PAGE).unwrap();
        assert!(mapped.parts().all(|part| part.byte_len() <= 3 * PAGE as usize) && mapped.parts().count() == 4);
        for first in [0, 100, PAGE / 4 * 2 - 3, PAGE / 4 * 7] {
            let view = mapped.view_as(4 * first, PAGE as usize, DType::U32, [PAGE as usize / 4]).unwrap();
            assert_eq!(view.to_vec::<u32>().unwrap(), values[first as usize..][..PAGE as usize / 4]);
        }
        let refused = device.map_file_in_parts(file.path(), 4 * PAGE).unwrap_err().to_string();
        assert!(refused.contains("the device's largest buffer has 196608"), "{refused}");
    }
}
