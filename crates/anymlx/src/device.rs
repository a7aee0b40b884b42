//! Devices.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use anymlx_hal::{
    Context, DeviceInfo, HalError, NativeTexts, Residency, ResidencyStats, StorageMode, any,
    cpu::{self, CpuOptions},
    cuda::{self, CudaOptions},
    emulator::{self, EmulatorOptions},
    metal::{self as hal_metal, MetalOptions, MetalRecorder, RecorderOptions},
    trace::{self, TraceLog, TraceOptions},
};

use crate::{
    CommandEncoder, CommandGraph, CpuLevel, DType, KernelRegistry, MlxBuffer, MlxError, RawBuffer, Result,
    buffer::count_bytes, env, metal, scratch::SharedScratch,
};

struct Inner {
    context: Context,
    kernels: KernelRegistry,
    cpu_level: CpuLevel,
    native_texts: NativeTexts,
    compute_units: usize,
    scratch: SharedScratch,
    trace: Option<TraceLog>,
}

/// A device that runs kernels: a cheap handle.
///
/// ```
/// use anymlx::{DType, MlxDevice};
/// # fn main() -> anymlx::Result<()> {
/// let device = MlxDevice::cpu()?;
/// let buffer = device.alloc_buffer(7 * 33 * 4, DType::F32, vec![7, 33])?;
/// assert_eq!(buffer.element_count(), 231);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MlxDevice {
    inner: Arc<Inner>,
}

impl fmt::Debug for MlxDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MlxDevice").field(&self.name()).finish()
    }
}

/// How to open a CPU device of one's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuDeviceOptions {
    /// Threads that run kernels; `None`: one for each processor available to the process.
    pub threads: Option<usize>,
    /// Bytes that may be allocated in all; `None`: the machine's memory.
    pub memory_limit: Option<u64>,
    /// Instruction sets that kernels may use; `None`: the best that the processor has.
    pub level: Option<CpuLevel>,
    /// Keep resident allocations from being paged out, as far as the system's limits allow.
    pub lock_memory: bool,
    /// Leave the bytes of mapped files where they are: [`MlxBuffer::move_to_huge_pages`] does nothing.
    pub keep_files_mapped: bool,
}

/// Which device to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSelector {
    /// The processors of this machine.
    Cpu,
    /// An NVIDIA GPU, by number.
    Cuda(usize),
    /// The default Apple GPU.
    Metal,
    /// The recording backend, for tests.
    Trace,
}

impl std::str::FromStr for DeviceSelector {
    type Err = MlxError;

    /// `cpu`, `cuda`, `cuda:N`, `metal` or `trace`.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(DeviceSelector::Cpu),
            None if text == "cuda" => Ok(DeviceSelector::Cuda(0)),
            None if text == "metal" => Ok(DeviceSelector::Metal),
            None if text == "trace" => Ok(DeviceSelector::Trace),
            Some(("cuda", number)) if number.parse::<usize>().is_ok() => {
                Ok(DeviceSelector::Cuda(number.parse().unwrap_or_default()))
            }
            _ => Err(MlxError::invalid("device", format_args!("`{text}` given, needed cpu, cuda:N or metal"))),
        }
    }
}

impl MlxDevice {
    pub(crate) fn from_backend(device: any::Device, cpu_level: CpuLevel, trace: Option<TraceLog>) -> Self {
        let context = Context::new(device);
        let kernels = KernelRegistry::new(context.clone());
        let DeviceInfo { native: native_texts, compute_units, .. } = context.info();
        let scratch = SharedScratch::default();
        let inner = Inner { context, kernels, cpu_level, native_texts, compute_units, scratch, trace };
        Self { inner: Arc::new(inner) }
    }

    /// The best device present: Metal, then CUDA, then CPU; or the one that `ANYMLX_DEVICE` names.
    ///
    /// # Errors
    /// `DeviceNotFound` when the named device is absent: there is no silent fallback.
    pub fn new() -> Result<Self> {
        match env::device()? {
            Some(named) => Self::open(named.parse()?),
            None => Self::best(),
        }
    }

    fn best() -> Result<Self> {
        match Self::metal() {
            Ok(device) => return Ok(device),
            Err(error) => tracing::debug!(%error, "no Metal device"),
        }
        if cuda::list().is_ok_and(|gpus| !gpus.is_empty()) {
            match Self::cuda(0) {
                Ok(device) => return Ok(device),
                Err(error) => tracing::warn!(%error, "the GPU cannot be opened, the CPU is used"),
            }
        }
        Self::cpu()
    }

    /// Opens the device that a selector names.
    ///
    /// # Errors
    /// `DeviceNotFound`.
    pub fn open(selector: DeviceSelector) -> Result<Self> {
        match selector {
            DeviceSelector::Cpu => Self::cpu(),
            DeviceSelector::Cuda(index) => Self::cuda(index),
            DeviceSelector::Metal => Self::metal(),
            DeviceSelector::Trace => Ok(Self::trace(&TraceOptions::default())?),
        }
    }

    /// The processors of this machine. All calls share one device; [`Self::cpu_with`] opens another.
    ///
    /// # Errors
    /// `InvalidArgument` for values of environment variables that make no sense; `IoError` when
    /// threads cannot be started.
    pub fn cpu() -> Result<Self> {
        static SHARED: OnceLock<MlxDevice> = OnceLock::new();
        if let Some(device) = SHARED.get() {
            return Ok(device.clone());
        }
        let options = CpuDeviceOptions {
            threads: env::threads()?,
            level: env::cpu_level()?,
            lock_memory: env::lock_memory()?,
            keep_files_mapped: !env::huge_pages()?,
            ..CpuDeviceOptions::default()
        };
        let device = Self::cpu_with(&options)?;
        Ok(SHARED.get_or_init(|| device).clone())
    }

    /// A CPU device of one's own, with its own threads.
    ///
    /// # Errors
    /// `InvalidArgument` for 0 or too many threads or a level that the processor lacks; `IoError`.
    pub fn cpu_with(options: &CpuDeviceOptions) -> Result<Self> {
        let level = match options.level {
            Some(level) => level.check()?,
            None => CpuLevel::best(),
        };
        let device = cpu::Device::open(&CpuOptions {
            threads: options.threads,
            memory_limit: options.memory_limit,
            lock_memory: options.lock_memory,
            keep_files_mapped: options.keep_files_mapped,
        })?;
        Ok(Self::from_backend(any::Device::Cpu(device), level, None))
    }

    /// An NVIDIA GPU, by the driver's number. As long as a handle lives and the device is not lost,
    /// all calls share one device; [`Self::cuda_with`] opens another.
    ///
    /// # Errors
    /// `DeviceNotFound` with the reason.
    pub fn cuda(index: usize) -> Result<Self> {
        static SHARED: Mutex<Vec<(usize, Weak<Inner>)>> = Mutex::new(Vec::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(_, device)| device.strong_count() > 0);
        let known = shared.iter().filter(|(known, _)| *known == index).filter_map(|(_, device)| device.upgrade());
        if let Some(device) = known.map(|inner| Self { inner }).find(|device| !device.is_lost()) {
            return Ok(device);
        }
        let cache = env::cache_dir().inspect_err(|error| tracing::warn!(%error, "compiled kernels are not kept"));
        let cache_folder = cache.ok().map(|folder| folder.join("kernels"));
        let device = Self::cuda_with(&CudaOptions { index, cache_folder, ..CudaOptions::default() })?;
        shared.push((index, Arc::downgrade(&device.inner)));
        Ok(device)
    }

    /// An NVIDIA GPU in a context of one's own.
    ///
    /// # Errors
    /// `DeviceNotFound` with the reason.
    pub fn cuda_with(options: &CudaOptions) -> Result<Self> {
        let device = cuda::Device::open(options).map_err(|error| match error {
            HalError::DeviceNotFound { reason, .. } => {
                MlxError::DeviceNotFound(format!("cuda:{}: {reason}", options.index))
            }
            other => other.into(),
        })?;
        Ok(Self::from_backend(any::Device::Cuda(device), CpuLevel::Scalar, None))
    }

    /// True when the device can do no more work, because work on it failed in a way that ruined it.
    /// Other devices of the same driver in this process are then ruined as well.
    pub fn is_lost(&self) -> bool {
        match self.context().device() {
            any::Device::Cuda(device) => device.lost().is_some(),
            _ => false,
        }
    }

    /// The default Apple GPU. All calls share one device.
    ///
    /// # Errors
    /// `DeviceNotFound` with the reason.
    pub fn metal() -> Result<Self> {
        metal::default_device()
    }

    /// The Metal backend over a record of its calls, which the host carries out: for tests where there is no
    /// Metal. [`Self::trace_log`] is the record.
    ///
    /// # Errors
    /// `DeviceNotFound` without what is to run the kernels; as [`Self::cpu_with`].
    pub fn metal_recorder(recorder: &RecorderOptions, metal: &MetalOptions) -> Result<Self> {
        let recorder = MetalRecorder::new(recorder)?;
        let log = recorder.log();
        let device = hal_metal::Device::with_api(recorder, metal)?;
        Ok(Self::from_backend(any::Device::MetalRecorder(device), CpuLevel::best(), Some(log)))
    }

    /// A device that records every call as text and computes on the host.
    ///
    /// # Errors
    /// As [`Self::cpu_with`].
    pub fn trace(options: &TraceOptions) -> Result<Self> {
        let device = trace::Device::open(options)?;
        let log = device.log();
        Ok(Self::from_backend(any::Device::Trace(device), CpuLevel::best(), Some(log)))
    }

    /// A device that runs the GPU kernels' own texts on the host, for tests; see
    /// [`anymlx_hal::emulator`].
    ///
    /// # Errors
    /// `DeviceNotFound` without a C++ compiler that fits; as [`Self::cpu_with`].
    pub fn emulator(options: &EmulatorOptions) -> Result<Self> {
        let device = emulator::Device::open(options)?;
        Ok(Self::from_backend(any::Device::Emulator(device), CpuLevel::Scalar, None))
    }

    /// What [`Self::metal_recorder`] records with.
    pub fn recorder(&self) -> Option<&MetalRecorder> {
        match self.context().device() {
            any::Device::MetalRecorder(device) => Some(device.api()),
            _ => None,
        }
    }

    /// The record of a device that has one.
    pub fn trace_log(&self) -> Option<&TraceLog> {
        self.inner.trace.as_ref()
    }

    /// The devices that can be opened on this machine, best first.
    pub fn available() -> Vec<DeviceInfo> {
        let gpus = cuda::list().inspect_err(|error| tracing::debug!(%error, "no CUDA devices"));
        metal::list()
            .into_iter()
            .chain(gpus.unwrap_or_default())
            .chain(Self::cpu().map(|device| device.info()))
            .collect()
    }

    /// Model name.
    pub fn name(&self) -> String {
        self.info().name
    }

    /// What the device is; memory figures are current.
    pub fn info(&self) -> DeviceInfo {
        self.inner.context.info()
    }

    /// Instruction sets that CPU kernels use on this device.
    pub fn cpu_level(&self) -> CpuLevel {
        self.inner.cpu_level
    }

    /// Mechanism under this device.
    pub(crate) fn context(&self) -> &Context {
        &self.inner.context
    }

    /// What kernels may be written in beside the portable dialect. Unlike [`Self::info`] it asks nobody.
    pub fn native_texts(&self) -> NativeTexts {
        self.inner.native_texts
    }

    /// Processors that run kernels, as [`Self::info`] tells.
    pub(crate) fn compute_units(&self) -> usize {
        self.inner.compute_units
    }

    /// `byte_len` bytes that all operations of this purpose share; see [`SharedScratch`].
    pub(crate) fn shared_scratch(&self, purpose: &'static str, byte_len: usize) -> Result<MlxBuffer> {
        self.inner.scratch.take(self, purpose, byte_len)
    }

    /// True when kernels run from their texts for GPUs, false when their functions for CPUs run.
    pub(crate) fn runs_gpu_kernels(&self) -> bool {
        !matches!(self.context().device(), any::Device::Cpu(_) | any::Device::Trace(_))
    }

    /// True when both are handles of the same opened device.
    pub fn same_device(&self, other: &MlxDevice) -> bool {
        self.context().same_device(other.context())
    }

    /// The kernels of this device.
    pub fn kernels(&self) -> &KernelRegistry {
        &self.inner.kernels
    }

    /// Allocates exactly `byte_len` zero-filled bytes that host and device see, and stages them for
    /// the device's residency set.
    ///
    /// # Errors
    /// `InvalidArgument` for 0 bytes or when shape times dtype needs more; `BufferAllocationError`
    /// past the device's limit or when memory is exhausted (with what was asked and what is in use).
    pub fn alloc_buffer(&self, byte_len: usize, dtype: DType, shape: Vec<usize>) -> Result<MlxBuffer> {
        self.alloc_buffer_with(byte_len, dtype, shape, StorageMode::Shared)
    }

    /// As [`Self::alloc_buffer`], in storage of the given mode.
    ///
    /// # Errors
    /// As [`Self::alloc_buffer`].
    pub fn alloc_buffer_with(
        &self,
        byte_len: usize,
        dtype: DType,
        shape: Vec<usize>,
        mode: StorageMode,
    ) -> Result<MlxBuffer> {
        check_shape("alloc_buffer", byte_len, dtype, &shape)?;
        let storage = self.context().allocate(byte_len as u64, mode, Residency::Join)?;
        Ok(MlxBuffer::new(RawBuffer { storage }, dtype, shape, 0, byte_len as u64))
    }

    /// A zero-filled buffer of exactly the bytes that the shape needs.
    ///
    /// # Errors
    /// As [`Self::alloc_buffer`].
    pub fn zeros(&self, dtype: DType, shape: impl Into<Vec<usize>>) -> Result<MlxBuffer> {
        let shape = shape.into();
        let bytes = count_bytes(&shape, dtype).and_then(|bytes| usize::try_from(bytes).ok());
        let Some(bytes) = bytes else {
            return Err(MlxError::invalid("zeros", format_args!("the shape {shape:?} is too large")));
        };
        self.alloc_buffer(bytes, dtype, shape)
    }

    /// A buffer with a copy of `values`.
    ///
    /// # Errors
    /// As [`Self::alloc_buffer`], and `InvalidArgument` unless the shape has exactly their bytes.
    pub fn buffer_from_slice<T: bytemuck::Pod>(
        &self,
        values: &[T],
        dtype: DType,
        shape: impl Into<Vec<usize>>,
    ) -> Result<MlxBuffer> {
        let shape = shape.into();
        let given = size_of_val(values);
        if count_bytes(&shape, dtype) != Some(given as u64) {
            let message = format_args!("{given} bytes given for the shape {shape:?} of {dtype}");
            return Err(MlxError::invalid("buffer_from_slice", message));
        }
        let buffer = self.alloc_buffer(given, dtype, shape)?;
        buffer.copy_from_slice(values)?;
        Ok(buffer)
    }

    /// An encoder with the label `commands`.
    ///
    /// # Errors
    /// What the backend reports.
    pub fn command_encoder(&self) -> Result<CommandEncoder> {
        self.command_encoder_labeled("commands")
    }

    /// An encoder whose label appears in failures, captures and profiles.
    ///
    /// # Errors
    /// What the backend reports.
    pub fn command_encoder_labeled(&self, label: &str) -> Result<CommandEncoder> {
        CommandEncoder::new(self, label)
    }

    /// Records commands once, to be replayed many times.
    ///
    /// # Errors
    /// What `commands` returns or the backend reports.
    pub fn record(&self, commands: impl FnOnce(&mut CommandEncoder) -> Result<()>) -> Result<CommandGraph> {
        self.record_labeled("graph", commands)
    }

    /// As [`Self::record`], with a label.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_labeled(
        &self,
        label: &str,
        commands: impl FnOnce(&mut CommandEncoder) -> Result<()>,
    ) -> Result<CommandGraph> {
        let mut encoder = self.command_encoder_labeled(label)?;
        commands(&mut encoder)?;
        encoder.into_graph()
    }

    /// Blocks until everything submitted so far has completed.
    pub fn synchronize(&self) {
        self.context().synchronize();
    }

    /// Starts or stops to measure the time of each kernel of graphs that are replayed from now on;
    /// see [`CommandGraph::take_profile`]. Only the CPU device profiles.
    pub fn set_profiling(&self, on: bool) {
        if let any::Device::Cpu(device) = self.context().device() {
            device.set_profiling(on);
        }
    }

    /// True when the system keeps allocations resident on request.
    pub fn residency_sets_enabled(&self) -> bool {
        self.context().residency_sets_enabled()
    }

    /// Counters of the residency set.
    pub fn residency_stats(&self) -> ResidencyStats {
        self.context().residency_stats()
    }

    /// Makes the next submission fail with `message` in place of running, to test what depends on
    /// failures.
    ///
    /// # Errors
    /// `InvalidArgument` on a backend that cannot.
    pub fn fail_next_submission(&self, message: &str) -> Result<()> {
        if self.context().fail_next_submission(message) {
            return Ok(());
        }
        Err(MlxError::invalid("fail_next_submission", "this backend cannot inject failures"))
    }
}

pub(crate) fn check_shape(operation: &str, byte_len: usize, dtype: DType, shape: &[usize]) -> Result<()> {
    if byte_len == 0 {
        return Err(MlxError::invalid(operation, "0 bytes asked for, needed at least 1"));
    }
    if shape.is_empty() {
        return Ok(());
    }
    match count_bytes(shape, dtype) {
        Some(needed) if needed <= byte_len as u64 => Ok(()),
        needed => {
            let needed = needed.map_or("more than 2^64".to_owned(), |needed| needed.to_string());
            let message = format_args!("the shape {shape:?} of {dtype} needs {needed} bytes, {byte_len} asked for");
            Err(MlxError::invalid(operation, message))
        }
    }
}
