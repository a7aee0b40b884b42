//! The processors of this machine as a device.

use std::{
    fs::File,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Buffer, Cpu, CpuKernel, Encoder, Pending, Program,
    buffer::{Memory, PAGE},
    mapping::{self, FileMapping},
    queue::Queue,
};
use crate::{
    HalError, Result,
    backend::{BackendKind, Device as DeviceTrait, DeviceInfo, ForeignMemory, KernelSource, NativeTexts, StorageMode},
    system,
};

/// How to open the CPU device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that run kernels; `None`: one for each processor available to the process.
    pub threads: Option<usize>,
    /// Bytes that may be allocated in all; `None`: the machine's memory.
    pub memory_limit: Option<u64>,
    /// Keep resident allocations from being paged out, as far as the system's limits allow.
    pub lock_memory: bool,
    /// Leave the bytes of mapped files where they are: [`DeviceTrait::move_to_huge_pages`] does nothing.
    pub keep_files_mapped: bool,
}

/// The processors of this machine.
#[derive(Debug)]
pub struct Device {
    threads: usize,
    memory_total: u64,
    memory_limit: u64,
    lock_memory: bool,
    moves_files: bool,
    in_use: Arc<AtomicU64>,
    injected: Mutex<Option<String>>,
    queue: Queue,
}

/// Thread time of one command label, summed over a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileEntry {
    /// The command's label.
    pub label: String,
    /// Time spent in it, summed over threads.
    pub thread_time: Duration,
}

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    /// `InvalidUse` for 0 or more than 1024 threads, `Io` when threads cannot be started.
    pub fn open(options: &CpuOptions) -> Result<Self> {
        let threads = match options.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        if threads == 0 || threads > 1024 {
            return Err(HalError::InvalidUse {
                operation: "open cpu device",
                message: format!("{threads} threads asked for, needed 1..=1024"),
            });
        }
        let memory_total = system::memory().total;
        let queue = Queue::new(threads)
            .map_err(|error| HalError::Io { operation: "start cpu threads".into(), message: error.to_string() })?;
        Ok(Self {
            threads,
            memory_total,
            memory_limit: options.memory_limit.unwrap_or(memory_total),
            lock_memory: options.lock_memory,
            moves_files: !options.keep_files_mapped && mapping::has_huge_pages(),
            in_use: Arc::default(),
            injected: Mutex::new(None),
            queue,
        })
    }

    /// Starts or stops to measure the thread time of every command of programs that run from now on.
    pub fn set_profiling(&self, on: bool) {
        self.queue.set_profiling(on);
    }

    /// Time that profiled programs took from start to end, since the last call.
    pub fn profiled_time(&self) -> Duration {
        self.queue.profiled_time()
    }

    fn take_injected(&self) -> Option<String> {
        self.injected.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    fn out_of_memory(&self, asked: u64, reason: &str) -> HalError {
        let in_use = self.in_use.load(Ordering::Relaxed);
        HalError::OutOfMemory { asked, in_use, limit: self.memory_limit, reason: reason.to_owned() }
    }
}

impl Program {
    /// Thread time of each command since the last call, in order.
    pub fn take_profile(&self) -> Vec<ProfileEntry> {
        let entry = |command: &super::program::Command| ProfileEntry {
            label: command.label.to_string(),
            thread_time: Duration::from_nanos(command.nanoseconds.swap(0, Ordering::Relaxed)),
        };
        self.commands.iter().map(entry).collect()
    }
}

impl DeviceTrait for Device {
    type B = Cpu;

    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            backend: BackendKind::Cpu,
            index: 0,
            name: system::processor_name(),
            memory_total: self.memory_total,
            memory_free: system::memory().available,
            memory_in_use: self.in_use.load(Ordering::Relaxed),
            max_buffer_bytes: self.memory_limit.min(isize::MAX as u64),
            unified: true,
            compute_units: self.threads,
            features: system::processor_features(),
            native: NativeTexts::None,
        }
    }

    fn allocate(&self, byte_len: u64, _mode: StorageMode) -> Result<Buffer> {
        let limit = self.memory_limit.min(isize::MAX as u64);
        let sum = |in_use: u64| in_use.checked_add(byte_len).filter(|total| *total <= limit);
        if self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_err() {
            return Err(self.out_of_memory(byte_len, "over the device's limit"));
        }
        match usize::try_from(byte_len).ok().and_then(Memory::allocate) {
            Some(memory) => Ok(Buffer { memory, byte_len: byte_len as usize, in_use: Arc::clone(&self.in_use) }),
            None => {
                self.in_use.fetch_sub(byte_len, Ordering::Relaxed);
                Err(self.out_of_memory(byte_len, "the system refused"))
            }
        }
    }

    fn map_file(&self, file: &File, offset: u64, byte_len: u64) -> Result<Buffer> {
        let error = |message: String| HalError::Io { operation: "map file".into(), message };
        let len = usize::try_from(byte_len).map_err(|_| error(format!("{byte_len} bytes do not fit")))?;
        let size = file.metadata().map_err(|io| error(io.to_string()))?.len();
        if offset.checked_add(byte_len).is_none_or(|end| end > size) {
            return Err(error(format!("bytes {offset}+{byte_len} of a file of {size} bytes")));
        }
        // SAFETY: the mapping is read-only. That nobody shortens or rewrites the file while it is
        // used is asked of the user, as with every program that maps its models.
        let pages = unsafe { memmap2::MmapOptions::new().offset(offset).len(len).map(file) };
        let pages = pages.map_err(|io| error(io.to_string()))?;
        Ok(Buffer { memory: Memory::File(FileMapping::new(pages)), byte_len: len, in_use: Arc::clone(&self.in_use) })
    }

    unsafe fn import(&self, memory: ForeignMemory) -> Result<Buffer> {
        let byte_len = usize::try_from(memory.byte_len).unwrap_or(usize::MAX);
        if memory.address == 0 || byte_len > isize::MAX as usize {
            return Err(HalError::InvalidUse {
                operation: "import memory",
                message: format!("{byte_len} bytes at address {:#x}", memory.address),
            });
        }
        Ok(Buffer { memory: Memory::Foreign(memory), byte_len, in_use: Arc::clone(&self.in_use) })
    }

    fn compile(&self, source: &KernelSource<'_>) -> Result<CpuKernel> {
        source.cpu.clone().ok_or_else(|| HalError::CompileFailed {
            name: source.name.to_owned(),
            log: "the kernel has no CPU implementation".into(),
        })
    }

    fn encoder(&self) -> Result<Encoder> {
        Ok(Encoder::default())
    }

    fn submit(&self, encoder: Encoder, label: &str) -> Result<Pending> {
        Ok(self.queue.push(Arc::new(encoder.finish(label, self.threads)), self.take_injected()))
    }

    fn instantiate(&self, encoder: Encoder, label: &str) -> Result<Program> {
        Ok(encoder.finish(label, self.threads))
    }

    fn replay(&self, graph: &Arc<Program>) -> Result<Pending> {
        Ok(self.queue.push(Arc::clone(graph), self.take_injected()))
    }

    fn download(&self, _: &Buffer, _: u64, _: &mut [u8]) -> Result<()> {
        Err(unified("download"))
    }

    fn upload(&self, _: &Buffer, _: u64, _: &[u8]) -> Result<()> {
        Err(unified("upload"))
    }

    fn has_residency_sets(&self) -> bool {
        self.lock_memory
    }

    fn residency_add(&self, buffer: &Buffer) -> Result<()> {
        if self.lock_memory {
            system::lock_memory(buffer.start().as_ptr(), buffer.byte_len.next_multiple_of(PAGE));
        }
        Ok(())
    }

    fn residency_remove(&self, buffer: &Buffer) -> Result<()> {
        if self.lock_memory {
            system::unlock_memory(buffer.start().as_ptr(), buffer.byte_len.next_multiple_of(PAGE));
        }
        Ok(())
    }

    fn move_to_huge_pages(&self, buffer: &Buffer, range: &Range<u64>) -> Result<u64> {
        let Memory::File(mapping) = &buffer.memory else { return Ok(0) };
        if !self.moves_files {
            return Ok(0);
        }
        let moved = mapping.move_to_huge_pages(range).map_err(|error| HalError::Io {
            operation: "move a file's bytes to huge pages".into(),
            message: error.to_string(),
        })?;
        self.in_use.fetch_add(moved, Ordering::Relaxed);
        if moved > 0 {
            self.residency_add(buffer)?;
        }
        Ok(moved)
    }

    fn residency_commit(&self) -> Result<()> {
        Ok(())
    }

    fn on_own_thread(&self) -> bool {
        self.queue.is_current_thread()
    }

    fn fail_next_submission(&self, message: &str) -> bool {
        *self.injected.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(message.to_owned());
        true
    }
}

fn unified(operation: &'static str) -> HalError {
    HalError::InvalidUse { operation, message: "host and device share memory: nothing to copy".into() }
}
