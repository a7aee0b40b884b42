//! The emulating device.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use super::{Emulator, Encoder, Watcher, compiler::Compiler, runner::Runner, watch::Watchers};
use crate::{
    HalError, Result,
    backend::{BackendKind, Device as DeviceTrait, DeviceInfo, ForeignMemory, KernelSource, NativeTexts, StorageMode},
    cpu::{self, CpuKernel, CpuOptions},
};

/// What watches the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sanitizer {
    /// Only the emulator itself: divergent barriers, alignment, threadgroup memory.
    #[default]
    None,
    /// AddressSanitizer and UndefinedBehaviorSanitizer: accesses outside a binding or a threadgroup
    /// array.
    Address,
    /// ThreadSanitizer: missing barriers and races between threadgroups. Needs clang 18 or newer.
    Thread,
}

impl Sanitizer {
    /// `plain`, `address` or `thread`.
    pub const fn name(self) -> &'static str {
        match self {
            Sanitizer::None => "plain",
            Sanitizer::Address => "address",
            Sanitizer::Thread => "thread",
        }
    }
}

/// In which order the threads of a group run between two meetings. Results must not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// Ascending.
    #[default]
    Forward,
    /// Descending.
    Reverse,
    /// Another order after each meeting, from this seed.
    Shuffled(u64),
}

/// How to open the emulating device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmulatorOptions {
    /// Folder in which compiled kernels are kept.
    pub cache: PathBuf,
    /// What watches the kernels.
    pub sanitizer: Sanitizer,
    /// In which order threads run.
    pub schedule: Schedule,
    /// The C++ compiler; `None`: the first that is found among the usual names.
    pub compiler: Option<PathBuf>,
    /// Takes texts in Metal's own language as well: the dialect's header brings as much of it as ours use.
    pub metal: bool,
    /// A launch that takes longer counts as endless and fails.
    pub time_limit: Duration,
    /// Under these, too, the first launches of each kernel in this process are carried out; a few thousand threads of
    /// each kernel, its first launch in any case unless it is a very large one.
    pub watchers: Vec<Watcher>,
    /// A file to which the name of a kernel is appended when a launch of it has passed all watchers.
    pub watch_log: Option<PathBuf>,
}

impl EmulatorOptions {
    /// Plain, in ascending order, with any compiler and five minutes for each launch.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            sanitizer: Sanitizer::None,
            schedule: Schedule::Forward,
            compiler: None,
            metal: false,
            time_limit: Duration::from_secs(300),
            watchers: Vec::new(),
            watch_log: None,
        }
    }
}

/// The emulating device.
#[derive(Debug)]
pub struct Device {
    inner: cpu::Device,
    options: EmulatorOptions,
    compiler: Compiler,
    watchers: Option<Arc<Watchers>>,
}

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    /// `DeviceNotFound` without a fitting C++ compiler; as [`cpu::Device::open`].
    pub fn open(options: &EmulatorOptions) -> Result<Self> {
        let compiler = Compiler::find(options)?;
        let watchers = Watchers::new(options)?;
        let cpu = CpuOptions { threads: Some(1), ..CpuOptions::default() };
        Ok(Self { inner: cpu::Device::open(&cpu)?, options: options.clone(), compiler, watchers })
    }
}

impl DeviceTrait for Device {
    type B = Emulator;

    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            backend: BackendKind::Emulator,
            name: format!("emulator ({})", self.options.sanitizer.name()),
            features: vec![self.compiler.version().to_owned()],
            native: if self.options.metal { NativeTexts::Metal } else { NativeTexts::None },
            ..self.inner.info()
        }
    }

    fn allocate(&self, byte_len: u64, mode: StorageMode) -> Result<cpu::Buffer> {
        self.inner.allocate(byte_len, mode)
    }

    fn map_file(&self, file: &File, offset: u64, byte_len: u64) -> Result<cpu::Buffer> {
        self.inner.map_file(file, offset, byte_len)
    }

    unsafe fn import(&self, memory: ForeignMemory) -> Result<cpu::Buffer> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.import(memory) }
    }

    fn compile(&self, source: &KernelSource<'_>) -> Result<CpuKernel> {
        if !source.has_gpu_text() {
            let log = "the kernel has no text for GPUs".to_owned();
            return Err(HalError::CompileFailed { name: source.name.to_owned(), log });
        }
        let program = self.compiler.compile(source)?;
        let runner = Runner::new(source.name, program.clone(), self.options.schedule, self.options.time_limit);
        let watched = self.watchers.as_ref().map(|watchers| watchers.watch(source, program));
        Ok(CpuKernel::whole(move |arguments| match &watched {
            Some(watched) => watched.run(arguments, |arguments| runner.run(arguments)),
            None => runner.run(arguments),
        }))
    }

    fn encoder(&self) -> Result<Encoder> {
        Ok(Encoder(self.inner.encoder()?))
    }

    fn submit(&self, encoder: Encoder, label: &str) -> Result<cpu::Pending> {
        self.inner.submit(encoder.0, label)
    }

    fn instantiate(&self, encoder: Encoder, label: &str) -> Result<cpu::Program> {
        self.inner.instantiate(encoder.0, label)
    }

    fn replay(&self, graph: &Arc<cpu::Program>) -> Result<cpu::Pending> {
        self.inner.replay(graph)
    }

    fn download(&self, buffer: &cpu::Buffer, offset: u64, to: &mut [u8]) -> Result<()> {
        self.inner.download(buffer, offset, to)
    }

    fn upload(&self, buffer: &cpu::Buffer, offset: u64, from: &[u8]) -> Result<()> {
        self.inner.upload(buffer, offset, from)
    }

    fn has_residency_sets(&self) -> bool {
        self.inner.has_residency_sets()
    }

    fn residency_add(&self, buffer: &cpu::Buffer) -> Result<()> {
        self.inner.residency_add(buffer)
    }

    fn residency_remove(&self, buffer: &cpu::Buffer) -> Result<()> {
        self.inner.residency_remove(buffer)
    }

    fn residency_commit(&self) -> Result<()> {
        self.inner.residency_commit()
    }

    fn on_own_thread(&self) -> bool {
        self.inner.on_own_thread()
    }

    fn fail_next_submission(&self, message: &str) -> bool {
        self.inner.fail_next_submission(message)
    }
}
