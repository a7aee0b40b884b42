//! Memory with its users: what handles and submissions share.

use std::{ops::Range, ptr::NonNull};

use memmap2::MmapMut;

use crate::{
    HalError, RangeSet, Result, any,
    backend::{Buffer as _, Device as _, StorageMode},
    sync::{Mutex, lock},
    usage::{Footprint, Usage},
};

/// A copy of device memory that the host sees, where host and device do not share memory.
///
/// Each byte is the same on both sides, or newer on exactly one of them.
#[derive(Debug, Default)]
struct Mirror {
    pages: Option<MmapMut>,
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

/// What the host wants to do with bytes that it can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorUse {
    Read,
    Write,
}

impl Memory {
    pub(crate) fn new(buffer: any::Buffer, mode: StorageMode) -> Self {
        let mirrored = buffer.host_pointer().is_none() && mode == StorageMode::Shared;
        let mirror = mirrored.then(|| {
            let mut mirror = Mirror::default();
            // Fresh memory is zero on both sides, but foreign memory is not: let the device lead.
            mirror.device_newer.insert(0..buffer.byte_len());
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
        purpose: MirrorUse,
    ) -> Result<NonNull<u8>> {
        if self.mode == StorageMode::Private {
            return Err(HalError::NotHostVisible { operation });
        }
        if let Some(start) = self.buffer.host_pointer() {
            return Ok(start);
        }
        let Some(mirror) = &self.mirror else { return Err(HalError::NotHostVisible { operation }) };
        let mut mirror = lock(mirror);
        if mirror.pages.is_none() {
            let len = usize::try_from(self.buffer.byte_len()).unwrap_or(usize::MAX);
            let pages = MmapMut::map_anon(len).map_err(|error| HalError::OutOfMemory {
                asked: self.buffer.byte_len(),
                in_use: 0,
                limit: u64::MAX,
                reason: format!("host mirror: {error}"),
            })?;
            mirror.pages = Some(pages);
        }
        let Mirror { pages: Some(pages), host_newer, device_newer } = &mut *mirror else {
            unreachable!("the mirror was allocated above")
        };
        for stale in device_newer.intersection(range).iter() {
            let bytes = &mut pages[stale.start as usize..stale.end as usize];
            device.download(&self.buffer, stale.start, bytes)?;
            device_newer.remove(&stale);
        }
        if purpose == MirrorUse::Write {
            host_newer.insert(range.clone());
        }
        Ok(NonNull::new(pages.as_mut_ptr()).expect("a mapping is never at address 0"))
    }

    /// Sends what the host has written to the device, before a command uses it.
    pub(crate) fn flush_host(&self, device: &any::Device) -> Result<()> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let mut mirror = lock(mirror);
        let Mirror { pages: Some(pages), host_newer, .. } = &mut *mirror else { return Ok(()) };
        for range in host_newer.clone().iter() {
            device.upload(&self.buffer, range.start, &pages[range.start as usize..range.end as usize])?;
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
            StorageMode::Shared => self.host_view(device, "read", &range, MirrorUse::Read)?,
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
            StorageMode::Shared => self.host_view(device, "write", &range, MirrorUse::Write)?,
            StorageMode::Private => match self.buffer.host_pointer() {
                Some(start) => start,
                None => return device.upload(&self.buffer, offset, from),
            },
        };
        // SAFETY: the range is inside the buffer, and the caller holds the right to write it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), start.as_ptr().add(offset as usize), from.len()) };
        Ok(())
    }
}
