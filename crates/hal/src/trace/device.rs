//! The recording device.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Buffer, Encoder, Trace, TraceLog};
use crate::{
    HalError, Result,
    backend::{
        BackendKind, Buffer as _, Device as DeviceTrait, DeviceInfo, ForeignMemory, KernelSource,
        Pending as PendingTrait, StorageMode, Timing,
    },
    cpu::{self, CpuKernel, CpuOptions},
};

/// How to open the trace device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceOptions {
    /// The processors that compute.
    pub cpu: CpuOptions,
    /// Host and device share memory, as on Apple's GPUs.
    pub unified: bool,
    /// Number of the device, for tests of several devices.
    pub index: usize,
    /// Bytes of the largest buffer; `None`: as much as the machine has.
    pub max_buffer_bytes: Option<u64>,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            cpu: CpuOptions { threads: Some(1), ..CpuOptions::default() },
            unified: true,
            index: 0,
            max_buffer_bytes: None,
        }
    }
}

/// The recording device.
#[derive(Debug)]
pub struct Device {
    inner: cpu::Device,
    options: TraceOptions,
    log: TraceLog,
    buffers: AtomicUsize,
    graphs: AtomicUsize,
}

/// A prepared program with a number.
#[derive(Debug)]
pub struct Graph {
    inner: Arc<cpu::Program>,
    number: usize,
    label: String,
}

/// Submitted work whose wait is recorded.
#[derive(Debug)]
pub struct Pending {
    inner: cpu::Pending,
    label: String,
    log: TraceLog,
}

impl PendingTrait for Pending {
    fn poll(&self) -> Option<Result<Timing>> {
        self.inner.poll()
    }

    fn wait(&self) -> Result<Timing> {
        self.log.line(format_args!("wait {:?}", self.label));
        self.inner.wait()
    }
}

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    /// As [`cpu::Device::open`].
    pub fn open(options: &TraceOptions) -> Result<Self> {
        Ok(Self {
            inner: cpu::Device::open(&options.cpu)?,
            options: options.clone(),
            log: TraceLog::default(),
            buffers: AtomicUsize::new(0),
            graphs: AtomicUsize::new(0),
        })
    }

    /// The record.
    pub fn log(&self) -> TraceLog {
        self.log.clone()
    }

    fn number(&self, inner: cpu::Buffer, unified: bool) -> Buffer {
        let number = self.buffers.fetch_add(1, Ordering::Relaxed) + 1;
        Buffer { inner, number, unified, log: self.log.clone() }
    }

    fn check_length(&self, byte_len: u64) -> Result<()> {
        match self.options.max_buffer_bytes.filter(|limit| byte_len > *limit) {
            Some(limit) => Err(HalError::OutOfMemory {
                asked: byte_len,
                in_use: self.inner.info().memory_in_use,
                limit,
                reason: "larger than any buffer of the device can be".to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn bytes(buffer: &Buffer, offset: u64, len: usize) -> Result<*mut u8> {
        let fits = usize::try_from(offset).ok().filter(|&at| at as u64 + len as u64 <= buffer.byte_len());
        match (fits, buffer.inner.host_pointer()) {
            // SAFETY: inside the buffer.
            (Some(at), Some(start)) => Ok(unsafe { start.as_ptr().add(at) }),
            _ => Err(HalError::InvalidUse { operation: "transfer", message: format!("bytes {offset}+{len}") }),
        }
    }
}

impl DeviceTrait for Device {
    type B = Trace;

    fn info(&self) -> DeviceInfo {
        let inner = self.inner.info();
        DeviceInfo {
            backend: BackendKind::Trace,
            index: self.options.index,
            name: "trace".into(),
            unified: self.options.unified,
            max_buffer_bytes: self.options.max_buffer_bytes.unwrap_or(inner.max_buffer_bytes),
            ..inner
        }
    }

    fn allocate(&self, byte_len: u64, mode: StorageMode) -> Result<Buffer> {
        self.check_length(byte_len)?;
        let buffer = self.number(self.inner.allocate(byte_len, mode)?, self.options.unified);
        let mode = match mode {
            StorageMode::Shared => "shared",
            StorageMode::Private => "private",
        };
        self.log.line(format_args!("alloc b{} {byte_len} {mode}", buffer.number));
        Ok(buffer)
    }

    fn map_file(&self, file: &File, offset: u64, byte_len: u64) -> Result<Buffer> {
        self.check_length(byte_len)?;
        // A file is host memory in any case; a device of its own would hold a copy.
        let buffer = self.number(self.inner.map_file(file, offset, byte_len)?, true);
        self.log.line(format_args!("map b{} {byte_len}", buffer.number));
        Ok(buffer)
    }

    unsafe fn import(&self, memory: ForeignMemory) -> Result<Buffer> {
        // SAFETY: the caller's promise, passed on.
        let inner = unsafe { self.inner.import(memory) }?;
        let buffer = self.number(inner, true);
        self.log.line(format_args!("import b{} {}", buffer.number, buffer.byte_len()));
        Ok(buffer)
    }

    fn compile(&self, source: &KernelSource<'_>) -> Result<CpuKernel> {
        self.log.line(format_args!("compile {}", source.name));
        self.inner.compile(source)
    }

    fn encoder(&self) -> Result<Encoder> {
        self.log.line(format_args!("encode"));
        Ok(Encoder { inner: self.inner.encoder()?, log: self.log.clone() })
    }

    fn submit(&self, encoder: Encoder, label: &str) -> Result<Pending> {
        self.log.line(format_args!("submit {label:?}"));
        let inner = self.inner.submit(encoder.inner, label)?;
        Ok(Pending { inner, label: label.to_owned(), log: self.log.clone() })
    }

    fn instantiate(&self, encoder: Encoder, label: &str) -> Result<Graph> {
        let number = self.graphs.fetch_add(1, Ordering::Relaxed) + 1;
        self.log.line(format_args!("graph g{number} {label:?}"));
        Ok(Graph { inner: Arc::new(self.inner.instantiate(encoder.inner, label)?), number, label: label.to_owned() })
    }

    fn replay(&self, graph: &Arc<Graph>) -> Result<Pending> {
        self.log.line(format_args!("replay g{}", graph.number));
        let inner = self.inner.replay(&graph.inner)?;
        Ok(Pending { inner, label: graph.label.clone(), log: self.log.clone() })
    }

    fn download(&self, buffer: &Buffer, offset: u64, to: &mut [u8]) -> Result<()> {
        self.log.line(format_args!("download b{}[{offset}..{}]", buffer.number, offset + to.len() as u64));
        let from = Self::bytes(buffer, offset, to.len())?;
        // SAFETY: the range is inside the buffer, and by the contract no command writes it now.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn upload(&self, buffer: &Buffer, offset: u64, from: &[u8]) -> Result<()> {
        self.log.line(format_args!("upload b{}[{offset}..{}]", buffer.number, offset + from.len() as u64));
        let to = Self::bytes(buffer, offset, from.len())?;
        // SAFETY: the range is inside the buffer, and by the contract no command uses it now.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    fn has_residency_sets(&self) -> bool {
        true
    }

    fn residency_add(&self, buffer: &Buffer) -> Result<()> {
        self.log.line(format_args!("resident+ b{}", buffer.number));
        Ok(())
    }

    fn residency_remove(&self, buffer: &Buffer) -> Result<()> {
        self.log.line(format_args!("resident- b{}", buffer.number));
        Ok(())
    }

    fn residency_commit(&self) -> Result<()> {
        self.log.line(format_args!("resident commit"));
        Ok(())
    }

    fn on_own_thread(&self) -> bool {
        self.inner.on_own_thread()
    }

    fn fail_next_submission(&self, message: &str) -> bool {
        self.inner.fail_next_submission(message)
    }
}
