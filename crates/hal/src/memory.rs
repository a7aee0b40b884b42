//! Memory with its users: what handles and submissions share.

use std::{ops::Range, ptr::NonNull};

use memmap2::{MmapMut, MmapRaw};

use crate::{
    HalError, RangeSet, Result, any,
    backend::{Buffer as _, Device as _, StorageMode},
    sync::{Mutex, lock},
    usage::{Footprint, Usage},
};

/// A copy of device memory that the host sees, where host and device do not share memory.
///
/// Each byte is the same on both sides, or newer on exactly one of them, or held by a host write
/// guard: then the guard's end makes it newer on the host.
#[derive(Debug, Default)]
struct Mirror {
    /// Raw, because slices of it are lent out while other parts are transferred.
    pages: Option<MmapRaw>,
    host_newer: RangeSet,
    device_newer: RangeSet,
}

/// A buffer of the device and everything known about its use.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) buffer: any::Buffer,
    pub(crate) mode: StorageMode,
    pub(crate) usage: Usage,
    mirror: Option<Mutex<Mirror>>,
}

/// What a new buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    Zeros,
    Unknown,
}

/// What the host wants to do with bytes that it can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostUse {
    Read,
    /// Writes some of them, as [`Memory::host_has_written`] then says.
    Update,
    /// Writes all of them, as [`Memory::host_has_written`] then says.
    Replace,
}

impl Memory {
    pub(crate) fn new(buffer: any::Buffer, mode: StorageMode, contents: Contents) -> Self {
        let mirrored = buffer.host_pointer().is_none() && mode == StorageMode::Shared;
        let mirror = mirrored.then(|| {
            let mut mirror = Mirror::default();
            if contents == Contents::Unknown {
                mirror.device_newer.insert(0..buffer.byte_len());
            }
            Mutex::new(mirror)
        });
        Self { buffer, mode, usage: Usage::default(), mirror }
    }

    /// Where the host sees the first byte, with `range` up to date for `purpose`.
    ///
    /// The caller holds (or has checked) the right to touch `range`.
    pub(crate) fn host_view(
        &self,
        device: &any::Device,
        operation: &'static str,
        range: &Range<u64>,
        purpose: HostUse,
    ) -> Result<NonNull<u8>> {
        if self.mode == StorageMode::Private {
            return Err(HalError::NotHostVisible { operation });
        }
        if let Some(start) = self.buffer.host_pointer() {
            return Ok(start);
        }
        let Some(mirror) = &self.mirror else { return Err(HalError::NotHostVisible { operation }) };
        let mut mirror = lock(mirror);
        let start = mirror.start(self.buffer.byte_len())?;
        let Mirror { host_newer, device_newer, .. } = &mut *mirror;
        if purpose != HostUse::Replace {
            for stale in device_newer.intersection(range).iter() {
                // SAFETY: inside the mirror, and by the caller's right to `range` nobody else
                // touches these bytes now.
                let bytes = unsafe { bytes_mut(start, &stale) };
                device.download(&self.buffer, stale.start, bytes)?;
                device_newer.remove(&stale);
            }
        }
        if purpose != HostUse::Read {
            // Nothing may be sent while it is written: what the host makes of these bytes becomes
            // newer when it has finished.
            device_newer.remove(range);
            host_newer.remove(range);
        }
        Ok(start)
    }

    /// Notes that the host has written `range`, which it saw for writing.
    pub(crate) fn host_has_written(&self, range: &Range<u64>) {
        if let Some(mirror) = &self.mirror {
            lock(mirror).host_newer.insert(range.clone());
        }
    }

    /// Sends what the host has written to the device, before a command uses it.
    pub(crate) fn flush_host(&self, device: &any::Device) -> Result<()> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let mut mirror = lock(mirror);
        if mirror.host_newer.is_empty() {
            return Ok(());
        }
        let start = mirror.start(self.buffer.byte_len())?;
        let host_newer = &mut mirror.host_newer;
        for range in host_newer.clone().iter() {
            // SAFETY: inside the mirror; bytes that the host writes at this moment are not among
            // those that are newer on the host.
            device.upload(&self.buffer, range.start, unsafe { bytes_mut(start, &range) })?;
            host_newer.remove(&range);
        }
        Ok(())
    }

    /// Notes that commands have been submitted which write on the device.
    pub(crate) fn note_device_writes(&self, footprint: &Footprint) {
        let Some(mirror) = &self.mirror else { return };
        let mut mirror = lock(mirror);
        for range in footprint.writes.iter() {
            mirror.host_newer.remove(&range);
            mirror.device_newer.insert(range);
        }
    }

    /// Copies bytes out, whatever the storage mode. The caller holds the right to read them.
    pub(crate) fn read(&self, device: &any::Device, offset: u64, to: &mut [u8]) -> Result<()> {
        let range = offset..offset + to.len() as u64;
        let start = match self.mode {
            StorageMode::Shared => self.host_view(device, "read", &range, HostUse::Read)?,
            StorageMode::Private => match self.buffer.host_pointer() {
                Some(start) => start,
                None => return device.download(&self.buffer, offset, to),
            },
        };
        // SAFETY: the range is inside the buffer, and the caller holds the right to read it.
        unsafe { std::ptr::copy_nonoverlapping(start.as_ptr().add(offset as usize), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies bytes in, whatever the storage mode. The caller holds the right to write them.
    pub(crate) fn write(&self, device: &any::Device, offset: u64, from: &[u8]) -> Result<()> {
        let range = offset..offset + from.len() as u64;
        let start = match self.mode {
            StorageMode::Shared => self.host_view(device, "write", &range, HostUse::Replace)?,
            StorageMode::Private => match self.buffer.host_pointer() {
                Some(start) => start,
                None => return device.upload(&self.buffer, offset, from),
            },
        };
        // SAFETY: the range is inside the buffer, and the caller holds the right to write it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), start.as_ptr().add(offset as usize), from.len()) };
        self.host_has_written(&range);
        Ok(())
    }
}

impl Mirror {
    /// The first byte; the pages are made on first use.
    fn start(&mut self, byte_len: u64) -> Result<NonNull<u8>> {
        let pages = match &mut self.pages {
            Some(pages) => pages,
            none => {
                let len = usize::try_from(byte_len).unwrap_or(usize::MAX);
                let pages = MmapMut::map_anon(len).map_err(|error| HalError::OutOfMemory {
                    asked: byte_len,
                    in_use: 0,
                    limit: u64::MAX,
                    reason: format!("host mirror: {error}"),
                })?;
                none.insert(pages.into())
            }
        };
        Ok(NonNull::new(pages.as_mut_ptr()).expect("a mapping is never at address 0"))
    }
}

/// A part of the memory at `start`.
///
/// # Safety
/// `range` is inside the memory, and nobody else touches its bytes while the slice lives.
unsafe fn bytes_mut<'a>(start: NonNull<u8>, range: &Range<u64>) -> &'a mut [u8] {
    let len = (range.end - range.start) as usize;
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(start.as_ptr().add(range.start as usize), len) }
}
