//! An NVIDIA GPU as a device.

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering},
};

use cudarc::driver::sys;

use super::{
    Buffer, Compiler, Cuda, Encoder, Graph, GraphEdges, Kernel, Pending,
    context::Shared,
    driver::{Properties, driver, not_found},
    kernel::Kernels,
    lock,
    pending::{self, Work},
    staging,
};
use crate::{
    HalError, Result,
    backend::{Buffer as _, Device as DeviceTrait, DeviceInfo, ForeignMemory, KernelSource, NativeTexts, StorageMode},
};

/// Which context of the driver a device uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CudaContext {
    /// One of its own, which goes with the device.
    #[default]
    Own,
    /// The one that the CUDA runtime and most libraries use: their memory can be imported.
    Primary,
}

/// How to open a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// Number of the GPU, as the driver counts.
    pub index: usize,
    /// Where compiled kernels are kept; `None`: nowhere.
    pub cache_folder: Option<PathBuf>,
    /// The NVRTC library; `None`: looked for in the usual places.
    pub nvrtc: Option<PathBuf>,
    /// Bytes that may be allocated in all; `None`: the GPU's memory.
    pub memory_limit: Option<u64>,
    /// The driver's context.
    pub context: CudaContext,
    /// Which commands of a graph wait for which.
    pub graph_edges: GraphEdges,
}

/// An NVIDIA GPU.
#[derive(Debug)]
pub struct Device {
    shared: Arc<Shared>,
    kernels: Kernels,
    graph_edges: GraphEdges,
    injected: Mutex<Option<String>>,
    features: Vec<String>,
}

impl Device {
    /// Opens a GPU.
    ///
    /// # Errors
    /// `DeviceNotFound` with the reason: no driver, no such GPU, no NVRTC, or one of them too old.
    pub fn open(options: &CudaOptions) -> Result<Self> {
        let properties = Properties::query(options.index)?;
        let compiler = match &options.nvrtc {
            Some(path) => Compiler::load(path)?,
            None => Compiler::shared()?,
        };
        let (major, minor) = compiler.version();
        let target = compiler.target(properties.architecture()).ok_or_else(|| {
            not_found(format!(
                "NVRTC {major}.{minor} compiles for sm_{} and later, GPU {} is sm_{}",
                compiler.architectures().first().copied().unwrap_or_default(),
                options.index,
                properties.architecture()
            ))
        })?;
        let mut features = properties.info().features;
        features.push(format!("NVRTC {major}.{minor}"));
        let memory_limit = options.memory_limit.unwrap_or(properties.memory_total);
        let shared = Shared::open(properties, options.context, memory_limit)?;
        let kernels = Kernels::new(compiler, target, options.cache_folder.clone());
        Ok(Self { shared, kernels, graph_edges: options.graph_edges, injected: Mutex::default(), features })
    }

    /// Why the device can do no more work, once it cannot.
    pub fn lost(&self) -> Option<&str> {
        self.shared.lost()
    }

    fn submit_work(&self, work: Work, label: Arc<str>) -> Result<Pending> {
        let injected = lock(&self.injected).take();
        pending::submit(&self.shared, injected.map_or(work, Work::Injected), label)
    }

    fn address(operation: &'static str, buffer: &Buffer, offset: u64, len: usize) -> Result<u64> {
        if offset.checked_add(len as u64).is_some_and(|end| end <= buffer.byte_len()) {
            return Ok(buffer.address() + offset);
        }
        let message = format!("{len} bytes at {offset} of a buffer of {} bytes", buffer.byte_len());
        Err(HalError::InvalidUse { operation, message })
    }

    /// Copies between two GPUs, directly where they are linked and through the host where not.
    /// Returns when done.
    ///
    /// By the contract of [`crate::backend`] no unfinished submission of either device uses the bytes.
    pub(crate) fn copy_from_peer(
        &self,
        to: (&Buffer, u64),
        from_device: &Device,
        from: (&Buffer, u64),
        byte_len: usize,
    ) -> Result<()> {
        const OPERATION: &str = "copy between devices";
        let target = Self::address(OPERATION, to.0, to.1, byte_len)?;
        let source = Self::address(OPERATION, from.0, from.1, byte_len)?;
        let (own, peer) = (&self.shared, &from_device.shared);
        own.check_alive()?;
        peer.check_alive()?;
        {
            // What was uploaded to the source lies on its own stream.
            let _current = peer.enter()?;
            // SAFETY: the stream lives.
            unsafe { driver!(cuStreamSynchronize(peer.stream())) }.map_err(|error| peer.fail(error))?;
        }
        let _current = own.enter()?;
        let (own_context, peer_context) = (own.context(), peer.context());
        // SAFETY: both ranges are inside their allocations, which outlive the wait.
        unsafe {
            driver!(cuMemcpyPeerAsync(target, own_context, source, peer_context, byte_len, own.stream()))
                .and_then(|()| driver!(cuStreamSynchronize(own.stream())))
        }
        .map_err(|error| own.fail(error))
    }

    /// Makes memory of another context reachable, or says why it is not.
    fn check_pointer(&self, memory: &ForeignMemory) -> Result<()> {
        use sys::CUpointer_attribute::*;
        let invalid = |message: String| HalError::InvalidUse { operation: "import memory", message };
        let _current = self.shared.enter()?;
        let mut owner: sys::CUcontext = std::ptr::null_mut();
        let mut kind: std::ffi::c_uint = 0;
        let (mut start, mut byte_len): (sys::CUdeviceptr, usize) = (0, 0);
        let address = memory.address;
        // SAFETY: each attribute is stored in a variable of its type; any address may be asked about.
        let known = unsafe {
            driver!(cuPointerGetAttribute((&raw mut owner).cast(), CU_POINTER_ATTRIBUTE_CONTEXT, address))
                .and_then(|()| {
                    driver!(cuPointerGetAttribute((&raw mut kind).cast(), CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address))
                })
                .and_then(|()| driver!(cuMemGetAddressRange_v2(&mut start, &mut byte_len, address)))
        };
        known.map_err(|error| {
            self.shared.note(error);
            invalid(format!("{address:#x} is not an address of CUDA memory: {}", error.explain()))
        })?;
        if kind != sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as std::ffi::c_uint {
            return Err(invalid(format!("{address:#x} is host memory, needed memory of the GPU")));
        }
        let end = memory.address.checked_add(memory.byte_len);
        if end.is_none_or(|end| end > start.saturating_add(byte_len as u64)) {
            let message = format!(
                "{} bytes at {address:#x} leave their allocation of {byte_len} bytes at {start:#x}",
                memory.byte_len
            );
            return Err(invalid(message));
        }
        if owner == self.shared.context() || owner.is_null() {
            return Ok(());
        }
        // SAFETY: both contexts live; the memory's owner keeps its context.
        match unsafe { driver!(cuCtxEnablePeerAccess(owner, 0)) } {
            Err(error) if error.code != sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => {
                self.shared.note(error);
                Err(invalid(format!(
                    "{address:#x} belongs to another context of the driver ({}); \
                     open the device with the primary context to use memory of other libraries",
                    error.explain()
                )))
            }
            _ => Ok(()),
        }
    }
}

impl DeviceTrait for Device {
    type B = Cuda;

    fn info(&self) -> DeviceInfo {
        let known = self.shared.properties.info();
        let free = self.shared.enter().ok().and_then(|_current| self.shared.memory().ok());
        DeviceInfo {
            memory_free: free.map_or(0, |(free, _)| free),
            memory_in_use: self.shared.in_use.load(Ordering::Relaxed),
            max_buffer_bytes: known.max_buffer_bytes.min(self.shared.memory_limit),
            features: self.features.clone(),
            native: NativeTexts::Cuda(self.kernels.target()),
            ..known
        }
    }

    fn allocate(&self, byte_len: u64, _mode: StorageMode) -> Result<Buffer> {
        Buffer::allocate(&self.shared, byte_len)
    }

    fn map_file(&self, file: &File, offset: u64, byte_len: u64) -> Result<Buffer> {
        let error = |message: String| HalError::Io { operation: "map file".into(), message };
        let len = usize::try_from(byte_len).map_err(|_| error(format!("{byte_len} bytes do not fit")))?;
        let size = file.metadata().map_err(|io| error(io.to_string()))?.len();
        if offset.checked_add(byte_len).is_none_or(|end| end > size) {
            return Err(error(format!("bytes {offset}+{byte_len} of a file of {size} bytes")));
        }
        // SAFETY: the mapping is read-only. That nobody shortens or rewrites the file while it is
        // read is asked of the user, as with every program that maps its models.
        let pages = unsafe { memmap2::MmapOptions::new().offset(offset).len(len).map(file) };
        let pages = pages.map_err(|io| error(io.to_string()))?;
        #[cfg(unix)]
        if let Err(error) = pages.advise(memmap2::Advice::Sequential) {
            tracing::debug!(%error, "the system takes no advice on a mapping");
        }
        let buffer = Buffer::allocate(&self.shared, byte_len)?;
        staging::upload(&self.shared, buffer.address(), &pages)?;
        Ok(buffer.into_read_only())
    }

    unsafe fn import(&self, memory: ForeignMemory) -> Result<Buffer> {
        if memory.address == 0 || memory.byte_len == 0 {
            let message = format!("{} bytes at address {:#x}", memory.byte_len, memory.address);
            return Err(HalError::InvalidUse { operation: "import memory", message });
        }
        self.check_pointer(&memory)?;
        Ok(Buffer::foreign(&self.shared, memory))
    }

    fn compile(&self, source: &KernelSource<'_>) -> Result<Kernel> {
        self.kernels.compile(&self.shared, source)
    }

    fn encoder(&self) -> Result<Encoder> {
        self.shared.check_alive()?;
        Ok(Encoder::default())
    }

    fn submit(&self, encoder: Encoder, label: &str) -> Result<Pending> {
        self.submit_work(Work::Commands(encoder), label.into())
    }

    fn instantiate(&self, encoder: Encoder, label: &str) -> Result<Graph> {
        Graph::new(&self.shared, &encoder, self.graph_edges, label)
    }

    fn replay(&self, graph: &Arc<Graph>) -> Result<Pending> {
        self.submit_work(Work::Graph(Arc::clone(graph)), Arc::clone(&graph.label))
    }

    fn download(&self, buffer: &Buffer, offset: u64, to: &mut [u8]) -> Result<()> {
        let address = Self::address("download", buffer, offset, to.len())?;
        staging::download(&self.shared, address, to)
    }

    fn upload(&self, buffer: &Buffer, offset: u64, from: &[u8]) -> Result<()> {
        let address = Self::address("upload", buffer, offset, from.len())?;
        staging::upload(&self.shared, address, from)
    }

    /// A GPU's own memory is always resident.
    fn has_residency_sets(&self) -> bool {
        false
    }

    fn residency_add(&self, _: &Buffer) -> Result<()> {
        Ok(())
    }

    fn residency_remove(&self, _: &Buffer) -> Result<()> {
        Ok(())
    }

    fn residency_commit(&self) -> Result<()> {
        Ok(())
    }

    fn fail_next_submission(&self, message: &str) -> bool {
        *lock(&self.injected) = Some(message.to_owned());
        true
    }
}
