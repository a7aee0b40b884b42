//! The devices under test.

use anymlx::{
    BackendKind, Completion, CpuDeviceOptions, CudaOptions, MetalOptions, MlxDevice, RecorderOptions, Run, TraceOptions,
};

/// A device under test, and how to open more of its kind.
pub struct Subject {
    pub device: MlxDevice,
    open: fn(Option<u64>) -> MlxDevice,
}

impl Subject {
    fn new(open: fn(Option<u64>) -> MlxDevice) -> Option<Self> {
        Some(Self { device: open(None), open })
    }

    /// Another device of the same kind.
    pub fn another(&self) -> MlxDevice {
        (self.open)(None)
    }

    /// Another device of the same kind that grants at most `bytes`.
    pub fn with_memory_limit(&self, bytes: u64) -> MlxDevice {
        (self.open)(Some(bytes))
    }

    /// Host and device share memory.
    pub fn is_unified(&self) -> bool {
        self.device.info().unified
    }

    /// Kernels run from their texts for GPUs, not as the Rust functions that a test gives.
    pub fn is_gpu(&self) -> bool {
        is_gpu(&self.device)
    }
}

/// See [`Subject::is_gpu`].
pub fn is_gpu(device: &MlxDevice) -> bool {
    matches!(device.info().backend, BackendKind::Cuda | BackendKind::Metal)
}

/// What a test gives as a Rust function runs as that, though the device may take itself for a GPU.
pub fn runs_rust(device: &MlxDevice) -> bool {
    !is_gpu(device) || device.recorder().is_some()
}

fn cpu(threads: usize, memory_limit: Option<u64>) -> MlxDevice {
    let options = CpuDeviceOptions { threads: Some(threads), memory_limit, ..CpuDeviceOptions::default() };
    MlxDevice::cpu_with(&options).expect("the processor opens")
}

fn trace(unified: bool, memory_limit: Option<u64>) -> MlxDevice {
    let mut options = TraceOptions { unified, ..TraceOptions::default() };
    options.cpu.memory_limit = memory_limit;
    MlxDevice::trace(&options).expect("the recording backend opens")
}

pub fn cpu_one_thread() -> Option<Subject> {
    Subject::new(|limit| cpu(1, limit))
}

pub fn cpu_threads() -> Option<Subject> {
    Subject::new(|limit| cpu(3, limit))
}

/// Host and device share memory, as on Apple's GPUs.
pub fn trace_unified() -> Option<Subject> {
    Subject::new(|limit| trace(true, limit))
}

/// Host and device have memory of their own, as with NVIDIA's GPUs.
pub fn trace_apart() -> Option<Subject> {
    Subject::new(|limit| trace(false, limit))
}

/// The Metal backend over a record of its calls, which another thread carries out.
pub fn metal_recorder() -> Option<Subject> {
    Subject::new(|memory_limit| {
        let recorder =
            RecorderOptions { completion: Completion::Background, run: Run::Host, ..RecorderOptions::default() };
        let metal = MetalOptions { memory_limit, ..MetalOptions::default() };
        MlxDevice::metal_recorder(&recorder, &metal).expect("the recorder opens")
    })
}

fn open_cuda(memory_limit: Option<u64>) -> anymlx::Result<MlxDevice> {
    let cache_folder = Some(std::env::temp_dir().join("anymlx-conformance-kernels"));
    MlxDevice::cuda_with(&CudaOptions { memory_limit, cache_folder, ..CudaOptions::default() })
}

/// The first GPU of NVIDIA's, each device in a context of its own.
pub fn cuda() -> Option<Subject> {
    match open_cuda(None) {
        Ok(_) => Subject::new(|limit| open_cuda(limit).expect("it opened before")),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// The default Apple GPU.
pub fn metal() -> Option<Subject> {
    match MlxDevice::metal() {
        Ok(_) => Subject::new(open_metal),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

#[cfg(target_vendor = "apple")]
fn open_metal(memory_limit: Option<u64>) -> MlxDevice {
    MlxDevice::metal_with(&MetalOptions { memory_limit, ..MetalOptions::default() }).expect("it opened before")
}

#[cfg(not(target_vendor = "apple"))]
fn open_metal(_: Option<u64>) -> MlxDevice {
    unreachable!("there is no Metal device")
}
