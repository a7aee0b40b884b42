//! A context of the driver with its streams: what everything of an opened device shares.

use std::{
    fmt,
    marker::PhantomData,
    ptr::NonNull,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use cudarc::driver::sys;

use super::{
    CudaContext,
    driver::{DriverError, DriverResult, Properties, driver},
    lock,
    pending::Queue,
    staging::Staging,
};
use crate::{HalError, Result, order::MAX_IN_FLIGHT};

/// What helps after a fatal failure.
const RUINED: &str = "drop all handles of CUDA devices before opening one anew, or restart the program";

/// Events kept for reuse: two for each submission that may be unfinished, and some.
const MAX_SPARE_EVENTS: usize = 4 * MAX_IN_FLIGHT;

/// An event of the driver. Belongs to the context of the [`Shared`] that made it.
#[derive(Debug)]
pub(super) struct Event(sys::CUevent);

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    pub(super) fn handle(&self) -> sys::CUevent {
        self.0
    }
}

/// Host memory that the device writes: how many submissions have ended, and the faults that kernels
/// report.
///
/// Word 0 is set to a submission's number by the stream after the submission's last command, so it
/// tells after a failure which submission was the first that did not end. The four words from
/// `4 + 4 * (n % 64)` take the code and the numbers of a fault in submission `n`: kernels find their
/// submission's number in word 0.
#[derive(Debug)]
pub(super) struct Board {
    words: NonNull<AtomicU32>,
    address: sys::CUdeviceptr,
}

/// Fault records of a board: as many as submissions may be unfinished.
const FAULT_RECORDS: u32 = 64;
/// Words of a record, and words before the first one.
const RECORD_WORDS: u32 = 4;
const BOARD_WORDS: u32 = RECORD_WORDS * (1 + FAULT_RECORDS);
const _: () = assert!(MAX_IN_FLIGHT <= FAULT_RECORDS as usize);

impl Board {
    fn word(&self, index: u32) -> &AtomicU32 {
        debug_assert!(index < BOARD_WORDS);
        // SAFETY: inside the allocation, which lives as long as the board; the device writes aligned
        // words as the host's atomics do.
        unsafe { self.words.add(index as usize).as_ref() }
    }

    /// The last submission that has ended.
    pub(super) fn ended(&self) -> u32 {
        self.word(0).load(Ordering::Acquire)
    }

    /// The fault that a kernel of submission `number` reported, once it has ended.
    pub(super) fn take_fault(&self, number: u32) -> Option<[u32; 4]> {
        let first = RECORD_WORDS * (1 + number % FAULT_RECORDS);
        let code = self.word(first).swap(0, Ordering::AcqRel);
        let number = |index| self.word(first + index).load(Ordering::Relaxed);
        (code != 0).then(|| [code, number(1), number(2), number(3)])
    }

    /// Where kernels find the words.
    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }
}

/// A context with its stream and what belongs to it. Everything that refers to the context holds
/// this, so the context goes last.
pub(super) struct Shared {
    pub(super) properties: Properties,
    kind: CudaContext,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Brings bytes to the host that no unfinished submission writes, while submissions run.
    downloads: sys::CUstream,
    /// On `stream`, after the last bytes that were put into memory other than by submissions.
    filled: Event,
    pub(super) board: Board,
    pub(super) in_use: AtomicU64,
    /// Bytes that may be allocated in all.
    pub(super) memory_limit: u64,
    lost: OnceLock<String>,
    spare_events: Mutex<Vec<Event>>,
    pub(super) queue: Mutex<Queue>,
    pub(super) staging: Mutex<Option<Staging>>,
}

// SAFETY: contexts and streams may be used from any thread; the rest is synchronised.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} ({:?})", self.properties.index, self.kind)
    }
}

/// The context is this thread's current one as long as this lives.
#[derive(Debug)]
pub(super) struct Current<'a> {
    shared: &'a Shared,
    /// Being current is a property of the thread.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut context = std::ptr::null_mut();
        // SAFETY: pops what `Shared::enter` pushed on this thread.
        if let Err(error) = unsafe { driver!(cuCtxPopCurrent_v2(&mut context)) } {
            self.shared.note(error);
        }
    }
}

impl Shared {
    pub(super) fn open(properties: Properties, kind: CudaContext, memory_limit: u64) -> Result<Arc<Self>> {
        let absent = |error: DriverError| match error.is_fatal() {
            true => super::driver::not_found(format!("{error}; {RUINED}")),
            false => super::driver::not_found(error.to_string()),
        };
        let mut context = std::ptr::null_mut();
        // SAFETY: the device exists; the calls store the new context.
        unsafe {
            match kind {
                CudaContext::Own => driver!(cuCtxCreate_v2(&mut context, 0, properties.handle)).and_then(|()| {
                    // Creating makes it current as well; entering is done call by call here.
                    let mut created = std::ptr::null_mut();
                    driver!(cuCtxPopCurrent_v2(&mut created))
                }),
                CudaContext::Primary => driver!(cuDevicePrimaryCtxRetain(&mut context, properties.handle)),
            }
        }
        .map_err(absent)?;
        let (stream, downloads, filled, board) = Self::fill(context).map_err(|error| {
            // SAFETY: nothing else refers to the context yet.
            unsafe { close_context(context, kind, properties.handle) };
            absent(error)
        })?;
        Ok(Arc::new(Self {
            properties,
            kind,
            context,
            stream,
            downloads,
            filled,
            board,
            in_use: AtomicU64::new(0),
            memory_limit,
            lost: OnceLock::new(),
            spare_events: Mutex::default(),
            queue: Mutex::default(),
            staging: Mutex::default(),
        }))
    }

    fn fill(context: sys::CUcontext) -> DriverResult<(sys::CUstream, sys::CUstream, Event, Board)> {
        let byte_len = BOARD_WORDS as usize * size_of::<u32>();
        let mut stream = std::ptr::null_mut();
        let mut downloads = std::ptr::null_mut();
        let mut filled = std::ptr::null_mut();
        let mut words = std::ptr::null_mut();
        let mut address = 0;
        // SAFETY: the context was just made; the calls store what they make, and the memory is of
        // the length that is zeroed.
        unsafe {
            driver!(cuCtxPushCurrent_v2(context))?;
            let made = (|| {
                let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
                driver!(cuStreamCreate(&mut stream, flags))?;
                driver!(cuStreamCreate(&mut downloads, flags))?;
                driver!(cuEventCreate(&mut filled, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32))?;
                driver!(cuMemHostAlloc(&mut words, byte_len, sys::CU_MEMHOSTALLOC_DEVICEMAP))?;
                std::ptr::write_bytes(words.cast::<u8>(), 0, byte_len);
                driver!(cuMemHostGetDevicePointer_v2(&mut address, words, 0))?;
                // Submissions count on it: better refused here than there.
                driver!(cuStreamWriteValue32_v2(stream, address, 0, 0))?;
                driver!(cuStreamSynchronize(stream))
            })();
            let mut popped = std::ptr::null_mut();
            let popped = driver!(cuCtxPopCurrent_v2(&mut popped));
            made.and(popped)?;
        }
        let words = NonNull::new(words.cast())
            .ok_or(DriverError { call: "cuMemHostAlloc", code: sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY })?;
        Ok((stream, downloads, Event(filled), Board { words, address }))
    }

    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Notes that bytes were put into memory by what was put on the stream last, and not by a submission. The context is
    /// current.
    pub(super) fn note_filled(&self) -> DriverResult {
        // SAFETY: event and stream live.
        unsafe { driver!(cuEventRecord(self.filled.handle(), self.stream)) }
    }

    /// The stream for downloads, where what follows sees all bytes that were put into memory other than by submissions.
    /// The context is current.
    pub(super) fn downloads(&self) -> DriverResult<sys::CUstream> {
        // SAFETY: event and stream live; an event that was never recorded counts as ended.
        unsafe { driver!(cuStreamWaitEvent(self.downloads, self.filled.handle(), 0)) }?;
        Ok(self.downloads)
    }

    pub(super) fn context(&self) -> sys::CUcontext {
        self.context
    }

    /// Makes the context this thread's current one.
    pub(super) fn enter(&self) -> Result<Current<'_>> {
        // SAFETY: the context lives as long as `self`.
        unsafe { driver!(cuCtxPushCurrent_v2(self.context)) }.map_err(|error| self.fail(error))?;
        Ok(Current { shared: self, _not_send: PhantomData })
    }

    /// Why the device can do no more work, once it cannot.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    pub(super) fn check_alive(&self) -> Result<()> {
        match self.lost() {
            None => Ok(()),
            Some(message) => Err(HalError::DeviceLost { message: message.to_owned() }),
        }
    }

    /// Remembers an error after which nothing works any more.
    pub(super) fn note(&self, error: DriverError) {
        if error.is_fatal() {
            self.lose(error.to_string());
        }
    }

    pub(super) fn lose(&self, message: String) {
        self.lost.get_or_init(|| {
            tracing::error!(device = self.properties.index, message, "the CUDA device is lost");
            format!("cuda:{}: {message}; {RUINED}", self.properties.index)
        });
    }

    /// The error of a call that is not itself submitted work.
    pub(super) fn fail(&self, error: DriverError) -> HalError {
        self.note(error);
        if let Some(message) = self.lost() {
            return HalError::DeviceLost { message: message.to_owned() };
        }
        if error.is_out_of_memory() {
            return self.out_of_memory(0, error.to_string());
        }
        HalError::Io { operation: format!("cuda:{}: {}", self.properties.index, error.call), message: error.explain() }
    }

    pub(super) fn out_of_memory(&self, asked: u64, reason: String) -> HalError {
        let in_use = self.in_use.load(Ordering::Relaxed);
        HalError::OutOfMemory { asked, in_use, limit: self.memory_limit, reason }
    }

    /// Free and total bytes of the device. The context is current.
    pub(super) fn memory(&self) -> DriverResult<(u64, u64)> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers.
        unsafe { driver!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok((free as u64, total as u64))
    }

    /// An event, perhaps a used one. The context is current.
    pub(super) fn take_event(&self) -> DriverResult<Event> {
        if let Some(event) = lock(&self.spare_events).pop() {
            return Ok(event);
        }
        let mut event = std::ptr::null_mut();
        // SAFETY: stores the new event.
        unsafe { driver!(cuEventCreate(&mut event, sys::CUevent_flags::CU_EVENT_DEFAULT as u32)) }?;
        Ok(Event(event))
    }

    /// Takes back an event; whoever waits for it does so no more.
    pub(super) fn give_event(&self, event: Event) {
        {
            let mut spare = lock(&self.spare_events);
            if spare.len() < MAX_SPARE_EVENTS {
                return spare.push(event);
            }
        }
        // SAFETY: the event is this context's, and destroyed once.
        let result = self.enter().map(|_current| unsafe { driver!(cuEventDestroy_v2(event.0)) });
        tracing::trace!(?result, "event over the limit");
    }
}

/// # Safety
/// Nothing uses the context any more.
unsafe fn close_context(context: sys::CUcontext, kind: CudaContext, device: sys::CUdevice) {
    // SAFETY: the caller's promise.
    let closed = unsafe {
        match kind {
            CudaContext::Own => driver!(cuCtxDestroy_v2(context)),
            CudaContext::Primary => driver!(cuDevicePrimaryCtxRelease_v2(device)),
        }
    };
    if let Err(error) = closed {
        tracing::debug!(%error, "closing a context");
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let (events, staging) = (std::mem::take(&mut *lock(&self.spare_events)), lock(&self.staging).take());
        let base = lock(&self.queue).take_base();
        // After a fatal error every call fails; destroying the context frees everything then.
        // SAFETY: all that refers to the context held this object, so these are the last uses; the
        // memory of board and staging is freed after the stream has ended.
        unsafe {
            let results = [
                driver!(cuCtxPushCurrent_v2(self.context)),
                driver!(cuStreamSynchronize(self.stream)),
                driver!(cuStreamDestroy_v2(self.stream)),
                driver!(cuStreamDestroy_v2(self.downloads)),
                driver!(cuEventDestroy_v2(self.filled.handle())),
                driver!(cuMemFreeHost(self.board.words.as_ptr().cast())),
            ];
            let events = events.iter().chain(base.iter()).map(|event| driver!(cuEventDestroy_v2(event.0)));
            for error in results.into_iter().chain(events).filter_map(std::result::Result::err) {
                tracing::debug!(%error, "closing a device");
            }
            if let Some(staging) = staging {
                staging.free();
            }
            let mut context = std::ptr::null_mut();
            if let Err(error) = driver!(cuCtxPopCurrent_v2(&mut context)) {
                tracing::debug!(%error, "closing a device");
            }
            close_context(self.context, self.kind, self.properties.handle);
        }
    }
}
