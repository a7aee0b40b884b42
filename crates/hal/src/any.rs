//! The closed set of backends as one: where a backend is registered, and nowhere else.

use std::{fs::File, ops::Range, ptr::NonNull, sync::Arc};

use crate::{
    HalError, Result,
    backend::{
        Backend, BackendKind, Bound, Buffer as BufferTrait, Device as DeviceTrait, DeviceInfo, Encoder as EncoderTrait,
        ForeignMemory, KernelSource, Launch, Pending as PendingTrait, StorageMode, Timing,
    },
    cpu, cuda, emulator, metal, trace,
};

/// Any of the backends of this build.
#[derive(Debug)]
pub struct Any;

impl Backend for Any {
    const KIND: BackendKind = BackendKind::Cpu;
    type Device = Device;
    type Buffer = Buffer;
    type Kernel = Kernel;
    type Encoder = Encoder;
    type Graph = Graph;
    type Pending = Pending;
}

fn mismatch(operation: &'static str) -> HalError {
    HalError::InvalidUse { operation, message: "the object belongs to a device of another backend".into() }
}

/// The same range, of the backend's own buffer.
fn narrow<'a, B: Backend>(bound: &Bound<'_, Any>, buffer: &'a B::Buffer) -> Bound<'a, B> {
    Bound { buffer, offset: bound.offset, byte_len: bound.byte_len, access: bound.access }
}

macro_rules! backends {
    ($($variant:ident: $backend:ty),* $(,)?) => {
        /// A device of any backend.
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub enum Device { $($variant(<$backend as Backend>::Device)),* }

        /// A buffer of any backend.
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub enum Buffer { $($variant(<$backend as Backend>::Buffer)),* }

        /// A kernel of any backend.
        #[derive(Debug, Clone)]
        #[allow(missing_docs)]
        pub enum Kernel { $($variant(<$backend as Backend>::Kernel)),* }

        /// An encoder of any backend.
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub enum Encoder { $($variant(<$backend as Backend>::Encoder)),* }

        /// A graph of any backend.
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub enum Graph { $($variant(Arc<<$backend as Backend>::Graph>)),* }

        /// Submitted work of any backend.
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub enum Pending { $($variant(<$backend as Backend>::Pending)),* }

        impl DeviceTrait for Device {
            type B = Any;

            fn info(&self) -> DeviceInfo {
                match self { $(Device::$variant(device) => device.info()),* }
            }

            fn allocate(&self, byte_len: u64, mode: StorageMode) -> Result<Buffer> {
                match self { $(Device::$variant(device) => device.allocate(byte_len, mode).map(Buffer::$variant)),* }
            }

            fn map_file(&self, file: &File, offset: u64, byte_len: u64) -> Result<Buffer> {
                match self { $(Device::$variant(device) => device.map_file(file, offset, byte_len).map(Buffer::$variant)),* }
            }

            unsafe fn import(&self, memory: ForeignMemory) -> Result<Buffer> {
                match self {
                    // SAFETY: the caller's promise, passed on.
                    $(Device::$variant(device) => unsafe { device.import(memory) }.map(Buffer::$variant)),*
                }
            }

            fn compile(&self, source: &KernelSource<'_>) -> Result<Kernel> {
                match self { $(Device::$variant(device) => device.compile(source).map(Kernel::$variant)),* }
            }

            fn encoder(&self) -> Result<Encoder> {
                match self { $(Device::$variant(device) => device.encoder().map(Encoder::$variant)),* }
            }

            fn submit(&self, encoder: Encoder, label: &str) -> Result<Pending> {
                match (self, encoder) {
                    $((Device::$variant(device), Encoder::$variant(encoder)) => device.submit(encoder, label).map(Pending::$variant),)*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("submit")),
                }
            }

            fn instantiate(&self, encoder: Encoder, label: &str) -> Result<Graph> {
                match (self, encoder) {
                    $((Device::$variant(device), Encoder::$variant(encoder)) => {
                        device.instantiate(encoder, label).map(|graph| Graph::$variant(Arc::new(graph)))
                    })*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("instantiate")),
                }
            }

            fn replay(&self, graph: &Arc<Graph>) -> Result<Pending> {
                match (self, &**graph) {
                    $((Device::$variant(device), Graph::$variant(graph)) => device.replay(graph).map(Pending::$variant),)*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("replay")),
                }
            }

            fn download(&self, buffer: &Buffer, offset: u64, to: &mut [u8]) -> Result<()> {
                match (self, buffer) {
                    $((Device::$variant(device), Buffer::$variant(buffer)) => device.download(buffer, offset, to),)*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("download")),
                }
            }

            fn upload(&self, buffer: &Buffer, offset: u64, from: &[u8]) -> Result<()> {
                match (self, buffer) {
                    $((Device::$variant(device), Buffer::$variant(buffer)) => device.upload(buffer, offset, from),)*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("upload")),
                }
            }

            fn has_residency_sets(&self) -> bool {
                match self { $(Device::$variant(device) => device.has_residency_sets()),* }
            }

            fn move_to_huge_pages(&self, buffer: &Buffer, range: &Range<u64>) -> Result<u64> {
                match (self, buffer) {
                    $((Device::$variant(device), Buffer::$variant(buffer)) => device.move_to_huge_pages(buffer, range),)*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("move_to_huge_pages")),
                }
            }

            fn residency_add(&self, buffer: &Buffer) -> Result<()> {
                match (self, buffer) {
                    $((Device::$variant(device), Buffer::$variant(buffer)) => device.residency_add(buffer),)*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("residency_add")),
                }
            }

            fn residency_remove(&self, buffer: &Buffer) -> Result<()> {
                match (self, buffer) {
                    $((Device::$variant(device), Buffer::$variant(buffer)) => device.residency_remove(buffer),)*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("residency_remove")),
                }
            }

            fn residency_commit(&self) -> Result<()> {
                match self { $(Device::$variant(device) => device.residency_commit()),* }
            }

            fn on_own_thread(&self) -> bool {
                match self { $(Device::$variant(device) => device.on_own_thread()),* }
            }

            fn fail_next_submission(&self, message: &str) -> bool {
                match self { $(Device::$variant(device) => device.fail_next_submission(message)),* }
            }
        }

        impl BufferTrait for Buffer {
            fn byte_len(&self) -> u64 {
                match self { $(Buffer::$variant(buffer) => buffer.byte_len()),* }
            }

            fn address(&self) -> u64 {
                match self { $(Buffer::$variant(buffer) => buffer.address()),* }
            }

            fn host_pointer(&self) -> Option<NonNull<u8>> {
                match self { $(Buffer::$variant(buffer) => buffer.host_pointer()),* }
            }

            fn read_only(&self) -> bool {
                match self { $(Buffer::$variant(buffer) => buffer.read_only()),* }
            }
        }

        impl EncoderTrait for Encoder {
            type B = Any;

            fn dispatch<'a>(
                &mut self,
                kernel: &Kernel,
                bindings: &[Bound<'a, Any>],
                params: &[u8],
                launch: Launch,
                label: &str,
            ) -> Result<()> {
                match (self, kernel) {
                    $((Encoder::$variant(encoder), Kernel::$variant(kernel)) => {
                        let narrowed = |bound: &Bound<'a, Any>| match bound.buffer {
                            Buffer::$variant(buffer) => {
                                Ok(narrow(bound, buffer))
                            }
                            #[allow(unreachable_patterns)]
                            _ => Err(mismatch("dispatch")),
                        };
                        let narrowed = bindings.iter().map(narrowed).collect::<Result<Vec<Bound<'a, $backend>>>>()?;
                        encoder.dispatch(kernel, &narrowed, params, launch, label)
                    })*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("dispatch")),
                }
            }

            fn copy(&mut self, from: Bound<'_, Any>, to: Bound<'_, Any>) -> Result<()> {
                match (self, from.buffer, to.buffer) {
                    $((Encoder::$variant(encoder), Buffer::$variant(source), Buffer::$variant(target)) => encoder.copy(
                        narrow(&from, source),
                        narrow(&to, target),
                    ),)*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("copy")),
                }
            }

            fn fill(&mut self, to: Bound<'_, Any>, value: u8) -> Result<()> {
                match (self, to.buffer) {
                    $((Encoder::$variant(encoder), Buffer::$variant(buffer)) => {
                        encoder.fill(narrow(&to, buffer), value)
                    })*
                    #[allow(unreachable_patterns)]
                    _ => Err(mismatch("fill")),
                }
            }

            fn barrier(&mut self) {
                match self { $(Encoder::$variant(encoder) => encoder.barrier()),* }
            }

            fn push_label(&mut self, label: &str) {
                match self { $(Encoder::$variant(encoder) => encoder.push_label(label)),* }
            }

            fn pop_label(&mut self) {
                match self { $(Encoder::$variant(encoder) => encoder.pop_label()),* }
            }
        }

        impl PendingTrait for Pending {
            fn poll(&self) -> Option<Result<Timing>> {
                match self { $(Pending::$variant(pending) => pending.poll()),* }
            }

            fn wait(&self) -> Result<Timing> {
                match self { $(Pending::$variant(pending) => pending.wait()),* }
            }
        }
    };
}

#[cfg(not(any(target_vendor = "apple", anymlx_check_metal)))]
backends! {
    Cpu: cpu::Cpu,
    Cuda: cuda::Cuda,
    MetalRecorder: metal::Metal<metal::MetalRecorder>,
    Trace: trace::Trace,
    Emulator: emulator::Emulator,
}

#[cfg(any(target_vendor = "apple", anymlx_check_metal))]
backends! {
    Cpu: cpu::Cpu,
    Cuda: cuda::Cuda,
    Metal: metal::Metal<metal::Apple>,
    MetalRecorder: metal::Metal<metal::MetalRecorder>,
    Trace: trace::Trace,
    Emulator: emulator::Emulator,
}
