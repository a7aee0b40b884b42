//! Copies between storages of any devices.

use std::ops::Range;

use crate::{
    HalError, Result, Storage,
    any::{Buffer, Device},
    usage::{Footprint, HostAccess},
};

const OPERATION: &str = "copy between buffers";
/// Bytes that travel through the host at a time.
const CHUNK: usize = 4 << 20;

impl Storage {
    /// Copies `byte_len` bytes from `offset` to `target` from `target_offset`. Returns when done.
    ///
    /// Two CUDA devices copy directly where they are linked; all others go through the host in
    /// chunks. Both ranges are held meanwhile as by host guards.
    ///
    /// # Errors
    /// `InvalidUse` for a range outside its allocation, `ReadOnly`, `InFlight` for unfinished work of
    /// either device, `Locked`, `Poisoned`, `DeviceLost`. The target's bytes are then whatever the
    /// copy has left there.
    pub fn copy_to(&self, offset: u64, target: &Storage, target_offset: u64, byte_len: u64) -> Result<()> {
        let from = self.part(offset, byte_len)?;
        let to = target.part(target_offset, byte_len)?;
        if target.read_only() {
            return Err(HalError::ReadOnly { operation: OPERATION });
        }
        let (source_use, target_use) = (&self.memory().usage, &target.memory().usage);
        source_use.lock_host(OPERATION, &from, HostAccess::Read, self.core().ledger.completed())?;
        let copied =
            target_use.lock_host(OPERATION, &to, HostAccess::Write, target.core().ledger.completed()).and_then(|()| {
                let copied = self.transfer(&from, target, &to).inspect(|()| target_use.heal(&to));
                target_use.unlock_host(&to, HostAccess::Write);
                copied
            });
        source_use.unlock_host(&from, HostAccess::Read);
        copied
    }

    fn part(&self, offset: u64, byte_len: u64) -> Result<Range<u64>> {
        match offset.checked_add(byte_len) {
            Some(end) if end <= self.byte_len() => Ok(offset..end),
            _ => {
                let message = format!("{byte_len} bytes at {offset} of an allocation of {} bytes", self.byte_len());
                Err(HalError::InvalidUse { operation: OPERATION, message })
            }
        }
    }

    /// Both ranges are held.
    fn transfer(&self, from: &Range<u64>, target: &Storage, to: &Range<u64>) -> Result<()> {
        let (source, target, source_core, target_core) = (self.memory(), target.memory(), self.core(), target.core());
        if let (
            Device::Cuda(source_device),
            Device::Cuda(target_device),
            Buffer::Cuda(bytes),
            Buffer::Cuda(target_bytes),
        ) = (&source_core.device, &target_core.device, &source.buffer, &target.buffer)
        {
            let byte_len = usize::try_from(from.end - from.start).unwrap_or(usize::MAX);
            source.flush_host(&source_core.device)?;
            let (bytes, target_bytes) = ((bytes, from.start), (target_bytes, to.start));
            target_device.copy_from_peer(target_bytes, source_device, bytes, byte_len)?;
            let mut written = Footprint::default();
            written.write(to.clone());
            target.note_device_writes(&written);
            return Ok(());
        }
        let mut chunk = vec![0; CHUNK.min(usize::try_from(from.end - from.start).unwrap_or(CHUNK))];
        let mut done = 0;
        while from.start + done < from.end {
            let left = usize::try_from(from.end - from.start - done).unwrap_or(CHUNK);
            let chunk = &mut chunk[..left.min(CHUNK)];
            source.read(&source_core.device, from.start + done, chunk)?;
            target.write(&target_core.device, to.start + done, chunk)?;
            done += chunk.len() as u64;
        }
        Ok(())
    }
}
