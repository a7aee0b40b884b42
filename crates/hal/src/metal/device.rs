//! An Apple GPU as a device.

use std::{
    fs::File,
    path::PathBuf,
    ptr::NonNull,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    Api, Buffer, Encoder, Facts, Graph, Kernel, Metal, Pending, encoder::Commands, faults::Faults, lock,
    residency::Residency, shared::Shared,
};
use crate::{
    Access, HalError, Result,
    backend::{
        BackendKind, Bound, Buffer as _, Device as DeviceTrait, DeviceInfo, Encoder as _, ForeignMemory, KernelSource,
        NativeTexts, Pending as _, StorageMode,
    },
    system,
};

/// The first family with what the dialect uses: simdgroups of 32 with reductions, simdgroup matrices.
const FIRST_FAMILY: u32 = 7;
/// Bytes that travel through a staging buffer at a time.
const STAGING_BYTES: usize = 64 << 20;
/// Submissions that a capture shows.
const CAPTURED: usize = 32;

/// How to open an Apple GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetalOptions {
    /// Where the machine code of kernels is kept (`MTLBinaryArchive`); `None`: nowhere.
    pub cache_folder: Option<PathBuf>,
    /// Bytes that may be allocated in all; `None`: what the GPU can use without a loss of speed.
    pub memory_limit: Option<u64>,
    /// Long-lived buffers join no residency set.
    pub without_residency_set: bool,
    /// A `.gputrace` document of the first submissions, with every command named. Metal also asks for
    /// `METAL_CAPTURE_ENABLED=1` in the environment.
    pub capture: Option<PathBuf>,
}

/// An Apple GPU.
#[derive(Debug)]
pub struct Device<A: Api> {
    shared: Arc<Shared<A>>,
    residency: Option<Residency<A>>,
    injected: Mutex<Option<String>>,
    /// Submissions that the running capture still takes.
    captured: AtomicUsize,
}

impl<A: Api> Device<A> {
    /// Opens the device behind `api`.
    ///
    /// # Errors
    /// `DeviceNotFound` for a GPU that is not Apple's, or too old.
    pub fn with_api(api: A, options: &MetalOptions) -> Result<Self> {
        let facts = api.facts();
        check(&facts)?;
        let captured = match &options.capture {
            None => 0,
            Some(file) => match api.autorelease(|| api.start_capture(file)) {
                Ok(()) => CAPTURED,
                Err(reason) => {
                    tracing::warn!(file = %file.display(), %reason, "no capture; is METAL_CAPTURE_ENABLED=1 set?");
                    0
                }
            },
        };
        let shared = Arc::new(Shared {
            memory_limit: options.memory_limit.unwrap_or(facts.working_set_bytes),
            facts,
            in_use: AtomicU64::new(0),
            faults: Faults::default(),
            libraries: Mutex::default(),
            transfers: OnceLock::new(),
            archives: options.cache_folder.clone(),
            labels: options.capture.is_some(),
            api,
        });
        let residency = if options.without_residency_set { None } else { Residency::new(&shared) };
        Ok(Self { shared, residency, injected: Mutex::default(), captured: AtomicUsize::new(captured) })
    }

    /// What the backend calls.
    pub fn api(&self) -> &A {
        &self.shared.api
    }

    /// A buffer of Metal that someone else made, as one of this device.
    ///
    /// # Errors
    /// `InvalidUse` for a buffer of another device, or one whose hazard tracking is off.
    ///
    /// # Safety
    /// * Nobody else accesses the buffer in conflict with the commands that use it.
    pub unsafe fn adopt(&self, buffer: A::Buffer) -> Result<Buffer<A>> {
        Buffer::adopt(&self.shared, buffer)
    }

    fn run(&self, commands: Arc<Commands<A>>, label: Arc<str>) -> Result<Pending<A>> {
        let injected = lock(&self.injected).take();
        let pending = Pending::submit(&self.shared, commands, label, injected)?;
        let left = self.captured.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left == Ok(1) {
            self.shared.api.stop_capture();
        }
        Ok(pending)
    }

    /// Copies between private memory and a buffer that the host sees, and waits.
    fn stage(&self, from: Bound<'_, Metal<A>>, to: Bound<'_, Metal<A>>) -> Result<()> {
        let mut encoder = Encoder::new(&self.shared);
        encoder.copy(from, to)?;
        Pending::submit(&self.shared, encoder.finish(), "transfer".into(), None)?.wait().map(drop)
    }

    /// Parts of at most `STAGING_BYTES`, with a buffer for one of them.
    fn staging(&self, byte_len: usize) -> Result<Buffer<A>> {
        Buffer::allocate(&self.shared, byte_len.min(STAGING_BYTES) as u64, StorageMode::Shared)
    }

    fn check_range(operation: &'static str, buffer: &Buffer<A>, offset: u64, len: usize) -> Result<()> {
        if offset.checked_add(len as u64).is_some_and(|end| end <= buffer.byte_len()) {
            return Ok(());
        }
        let message = format!("{len} bytes at {offset} of a buffer of {} bytes", buffer.byte_len());
        Err(HalError::InvalidUse { operation, message })
    }
}

pub(super) fn check(facts: &Facts) -> Result<()> {
    let refused = |reason: String| Err(HalError::DeviceNotFound { backend: "metal", reason });
    let Facts { name, apple_family, unified, .. } = facts;
    if *apple_family < FIRST_FAMILY || !unified {
        return refused(format!("{name} is no Apple GPU of family {FIRST_FAMILY} (M1) or later"));
    }
    Ok(())
}

/// The number of a GPU's cores, which Metal does not tell: about as many as the smallest of its line has. It
/// decides how work is spread, not what comes out.
fn cores(name: &str) -> usize {
    match name.rsplit(' ').next() {
        Some("Ultra") => 64,
        Some("Max") => 32,
        Some("Pro") => 16,
        _ => 8,
    }
}

fn bound<A: Api>(buffer: &Buffer<A>, offset: u64, byte_len: usize, access: Access) -> Bound<'_, Metal<A>> {
    Bound { buffer, offset, byte_len: byte_len as u64, access }
}

impl<A: Api> Drop for Device<A> {
    fn drop(&mut self) {
        if self.captured.load(Ordering::Relaxed) > 0 {
            self.shared.api.stop_capture();
        }
    }
}

impl<A: Api> DeviceTrait for Device<A> {
    type B = Metal<A>;

    fn info(&self) -> DeviceInfo {
        let facts = &self.shared.facts;
        let mut features = vec![format!("Apple family {}", facts.apple_family), facts.system.clone()];
        if self.residency.is_some() {
            features.push("residency set".into());
        }
        let total = facts.working_set_bytes;
        DeviceInfo {
            backend: BackendKind::Metal,
            index: 0,
            name: facts.name.clone(),
            memory_total: total,
            memory_free: total.saturating_sub(self.shared.api.allocated()),
            memory_in_use: self.shared.in_use.load(Ordering::Relaxed),
            max_buffer_bytes: facts.max_buffer_bytes.min(self.shared.memory_limit),
            unified: true,
            compute_units: cores(&facts.name),
            features,
            native: NativeTexts::Metal,
        }
    }

    fn allocate(&self, byte_len: u64, mode: StorageMode) -> Result<Buffer<A>> {
        let buffer = Buffer::allocate(&self.shared, byte_len, mode)?;
        if buffer.host_pointer().is_none() {
            let mut encoder = Encoder::new(&self.shared);
            encoder.fill(Bound { buffer: &buffer, offset: 0, byte_len, access: Access::Write }, 0)?;
            Pending::submit(&self.shared, encoder.finish(), "zeros".into(), None)?.wait()?;
        }
        Ok(buffer)
    }

    fn map_file(&self, file: &File, offset: u64, byte_len: u64) -> Result<Buffer<A>> {
        let error = |message: String| HalError::Io { operation: "map file".into(), message };
        let len = usize::try_from(byte_len).map_err(|_| error(format!("{byte_len} bytes do not fit")))?;
        let size = file.metadata().map_err(|io| error(io.to_string()))?.len();
        if offset.checked_add(byte_len).is_none_or(|end| end > size) {
            return Err(error(format!("bytes {offset}+{byte_len} of a file of {size} bytes")));
        }
        let page = system::page_bytes() as u64;
        if !offset.is_multiple_of(page) {
            return Err(error(format!("offset {offset}, needed a multiple of the page size {page}")));
        }
        // SAFETY: no rule of Metal's: the mapping is read-only. That nobody shortens or rewrites the file while it is
        // read is asked of the user, as with every program that maps its models.
        let pages = unsafe { memmap2::MmapOptions::new().offset(offset).len(len).map(file) };
        let pages = pages.map_err(|io| error(io.to_string()))?;
        let start = NonNull::new(pages.as_ptr().cast_mut()).expect("a mapping is never at address 0");
        // SAFETY: newBufferWithBytesNoCopy: the mapping begins with a page and ends with one (the rest of the
        // last reads as zeros), and belongs to the deallocator, so that it outlives the MTLBuffer.
        unsafe { Buffer::wrap_host(&self.shared, start, len, Some(Box::new(pages)), true) }
    }

    unsafe fn import(&self, memory: ForeignMemory) -> Result<Buffer<A>> {
        // SAFETY: newBufferWithBytesNoCopy: the caller's promise that the bytes stay mapped until the owner is dropped.
        unsafe { Buffer::import(&self.shared, memory) }
    }

    fn compile(&self, source: &KernelSource<'_>) -> Result<Kernel<A>> {
        Kernel::compile(&self.shared, source)
    }

    fn encoder(&self) -> Result<Encoder<A>> {
        Ok(Encoder::new(&self.shared))
    }

    fn submit(&self, encoder: Encoder<A>, label: &str) -> Result<Pending<A>> {
        self.run(encoder.finish(), label.into())
    }

    fn instantiate(&self, encoder: Encoder<A>, label: &str) -> Result<Graph<A>> {
        Ok(Graph { commands: encoder.finish(), label: label.into() })
    }

    fn replay(&self, graph: &Arc<Graph<A>>) -> Result<Pending<A>> {
        self.run(Arc::clone(&graph.commands), Arc::clone(&graph.label))
    }

    fn download(&self, buffer: &Buffer<A>, offset: u64, to: &mut [u8]) -> Result<()> {
        Self::check_range("download", buffer, offset, to.len())?;
        if to.is_empty() {
            return Ok(());
        }
        let staging = self.staging(to.len())?;
        let mut offset = offset;
        for part in to.chunks_mut(STAGING_BYTES) {
            self.stage(bound(buffer, offset, part.len(), Access::Read), bound(&staging, 0, part.len(), Access::Write))?;
            let start = staging.host_pointer().ok_or(HalError::NotHostVisible { operation: "download" })?;
            // SAFETY: `contents` of a shared MTLBuffer of at least this length; its writer has completed.
            unsafe { start.as_ptr().copy_to_nonoverlapping(part.as_mut_ptr(), part.len()) };
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn upload(&self, buffer: &Buffer<A>, offset: u64, from: &[u8]) -> Result<()> {
        Self::check_range("upload", buffer, offset, from.len())?;
        if from.is_empty() {
            return Ok(());
        }
        let staging = self.staging(from.len())?;
        let mut offset = offset;
        for part in from.chunks(STAGING_BYTES) {
            let start = staging.host_pointer().ok_or(HalError::NotHostVisible { operation: "upload" })?;
            // SAFETY: `contents` of a shared MTLBuffer of at least this length; the reader of the part before
            // has completed.
            unsafe { start.as_ptr().copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            self.stage(bound(&staging, 0, part.len(), Access::Read), bound(buffer, offset, part.len(), Access::Write))?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn has_residency_sets(&self) -> bool {
        self.residency.is_some()
    }

    fn residency_add(&self, buffer: &Buffer<A>) -> Result<()> {
        self.residency.iter().for_each(|set| set.add(buffer.metal()));
        Ok(())
    }

    fn residency_remove(&self, buffer: &Buffer<A>) -> Result<()> {
        self.residency.iter().for_each(|set| set.remove(buffer.metal()));
        Ok(())
    }

    fn residency_commit(&self) -> Result<()> {
        self.residency.iter().for_each(Residency::commit);
        Ok(())
    }

    fn on_own_thread(&self) -> bool {
        self.shared.api.on_own_thread()
    }

    fn fail_next_submission(&self, message: &str) -> bool {
        if !self.shared.api.fail_next(message) {
            *lock(&self.injected) = Some(message.to_owned());
        }
        true
    }
}
