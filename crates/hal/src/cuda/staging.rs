//! Transfers between host and device through page-locked memory of a fixed size.

use std::{collections::VecDeque, ptr::NonNull};

use cudarc::driver::sys;

use super::{
    context::{Event, Shared},
    driver::{DriverError, DriverResult, driver},
    lock,
};
use crate::Result;

/// Transfers up to this size take a small slot.
const SMALL: usize = 64 << 10;
const SMALL_SLOTS: usize = 16;
/// Large transfers go in pieces of this size; one is copied by the host while another travels.
const LARGE: usize = 8 << 20;
const LARGE_SLOTS: usize = 2;

/// Slots that are used in turn.
#[derive(Debug)]
struct Ring {
    start: NonNull<u8>,
    slot_bytes: usize,
    /// Of each slot: recorded after its last transfer.
    used: Vec<Event>,
    next: usize,
}

// SAFETY: the memory is reached only through `&mut self`.
unsafe impl Send for Ring {}

impl Ring {
    /// The context is current.
    fn new(shared: &Shared, slot_bytes: usize, slots: usize) -> DriverResult<Self> {
        let used = (0..slots).map(|_| shared.take_event()).collect::<DriverResult<Vec<_>>>()?;
        let mut start = std::ptr::null_mut();
        // SAFETY: stores the new memory.
        unsafe { driver!(cuMemHostAlloc(&mut start, slot_bytes * slots, 0)) }?;
        let start = NonNull::new(start.cast())
            .ok_or(DriverError { call: "cuMemHostAlloc", code: sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY })?;
        Ok(Self { start, slot_bytes, used, next: 0 })
    }

    /// The next slot, once its last transfer has ended. The context is current.
    fn turn(&mut self) -> DriverResult<usize> {
        let slot = self.next;
        self.next = (slot + 1) % self.used.len();
        self.wait(slot)?;
        Ok(slot)
    }

    fn wait(&self, slot: usize) -> DriverResult {
        // SAFETY: the event lives; one that was never recorded counts as ended.
        unsafe { driver!(cuEventSynchronize(self.used[slot].handle())) }
    }

    fn memory(&self, slot: usize) -> *mut u8 {
        // SAFETY: inside the allocation.
        unsafe { self.start.as_ptr().add(slot * self.slot_bytes) }
    }

    fn mark(&self, slot: usize, stream: sys::CUstream) -> DriverResult {
        // SAFETY: event and stream live.
        unsafe { driver!(cuEventRecord(self.used[slot].handle(), stream)) }
    }

    fn upload(&mut self, shared: &Shared, address: u64, from: &[u8]) -> DriverResult {
        for (index, piece) in from.chunks(self.slot_bytes).enumerate() {
            let slot = self.turn()?;
            // SAFETY: the piece is no longer than a slot, and no transfer uses the slot.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), self.memory(slot), piece.len()) };
            let to = address + (index * self.slot_bytes) as u64;
            let source = self.memory(slot).cast_const().cast();
            // SAFETY: by the caller's promise the range is inside an allocation; the slot is not
            // touched before its event says that the transfer has ended.
            unsafe { driver!(cuMemcpyHtoDAsync_v2(to, source, piece.len(), shared.stream())) }?;
            self.mark(slot, shared.stream())?;
        }
        shared.note_filled()
    }

    fn download(&mut self, shared: &Shared, address: u64, to: &mut [u8]) -> DriverResult {
        let (slot_bytes, stream) = (self.slot_bytes, shared.downloads()?);
        let mut travelling: VecDeque<(usize, &mut [u8])> = VecDeque::new();
        for (index, piece) in to.chunks_mut(slot_bytes).enumerate() {
            if travelling.len() == self.used.len() {
                self.arrive(travelling.pop_front())?;
            }
            let slot = self.turn()?;
            let from = address + (index * slot_bytes) as u64;
            // SAFETY: by the caller's promise the range is inside an allocation; the slot is not
            // touched before its event says that the transfer has ended.
            unsafe { driver!(cuMemcpyDtoHAsync_v2(self.memory(slot).cast(), from, piece.len(), stream)) }?;
            self.mark(slot, stream)?;
            travelling.push_back((slot, piece));
        }
        while !travelling.is_empty() {
            self.arrive(travelling.pop_front())?;
        }
        Ok(())
    }

    fn arrive(&self, oldest: Option<(usize, &mut [u8])>) -> DriverResult {
        let Some((slot, piece)) = oldest else { return Ok(()) };
        self.wait(slot)?;
        // SAFETY: the transfer into the slot has ended, and the piece is no longer than it.
        unsafe { std::ptr::copy_nonoverlapping(self.memory(slot), piece.as_mut_ptr(), piece.len()) };
        Ok(())
    }

    /// # Safety
    /// The context is current, and no transfer uses the memory.
    unsafe fn free(self) {
        // SAFETY: the caller's promise; each is freed once.
        unsafe {
            let events = self.used.iter().map(|event| driver!(cuEventDestroy_v2(event.handle())));
            let memory = driver!(cuMemFreeHost(self.start.as_ptr().cast()));
            for error in events.chain([memory]).filter_map(std::result::Result::err) {
                tracing::debug!(%error, "freeing staging memory");
            }
        }
    }
}

/// The staging memory of a device.
#[derive(Debug)]
pub(super) struct Staging {
    small: Ring,
    large: Option<Ring>,
}

impl Staging {
    /// # Safety
    /// As [`Ring::free`].
    pub(super) unsafe fn free(self) {
        for ring in [Some(self.small), self.large].into_iter().flatten() {
            // SAFETY: the caller's promise.
            unsafe { ring.free() };
        }
    }

    /// The ring for a transfer of `byte_len` bytes.
    fn ring<'a>(slot: &'a mut Option<Staging>, shared: &Shared, byte_len: usize) -> DriverResult<&'a mut Ring> {
        let staging = match slot {
            Some(staging) => staging,
            none => none.insert(Staging { small: Ring::new(shared, SMALL, SMALL_SLOTS)?, large: None }),
        };
        if byte_len <= SMALL {
            return Ok(&mut staging.small);
        }
        Ok(match &mut staging.large {
            Some(large) => large,
            none => none.insert(Ring::new(shared, LARGE, LARGE_SLOTS)?),
        })
    }
}

/// Copies `from` to device memory, ordered on the stream; `from` may be reused on return.
///
/// The caller has checked that the range is inside an allocation of the device.
pub(super) fn upload(shared: &Shared, address: u64, from: &[u8]) -> Result<()> {
    shared.check_alive()?;
    let _current = shared.enter()?;
    let mut staging = lock(&shared.staging);
    let ring = Staging::ring(&mut staging, shared, from.len());
    ring.and_then(|ring| ring.upload(shared, address, from)).map_err(|error| shared.fail(error))
}

/// Copies device memory to `to`, beside whatever the stream works on.
///
/// The caller has checked that the range is inside an allocation of the device; by the contract of [`crate::backend`] no
/// unfinished submission writes it.
pub(super) fn download(shared: &Shared, address: u64, to: &mut [u8]) -> Result<()> {
    shared.check_alive()?;
    let _current = shared.enter()?;
    let mut staging = lock(&shared.staging);
    let ring = Staging::ring(&mut staging, shared, to.len());
    ring.and_then(|ring| ring.download(shared, address, to)).map_err(|error| shared.fail(error))
}
