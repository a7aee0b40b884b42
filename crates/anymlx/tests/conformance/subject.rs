//! The devices under test.

use anymlx::{CpuDeviceOptions, MlxDevice, TraceOptions};

/// A device under test, and how to open more of its kind.
pub struct Subject {
    pub device: MlxDevice,
    open: fn(Option<u64>) -> MlxDevice,
}

impl Subject {
    fn new(open: fn(Option<u64>) -> MlxDevice) -> Self {
        Self { device: open(None), open }
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

pub fn cpu_one_thread() -> Subject {
    Subject::new(|limit| cpu(1, limit))
}

pub fn cpu_threads() -> Subject {
    Subject::new(|limit| cpu(3, limit))
}

/// Host and device share memory, as on Apple's GPUs.
pub fn trace_unified() -> Subject {
    Subject::new(|limit| trace(true, limit))
}

/// Host and device have memory of their own, as with NVIDIA's GPUs.
pub fn trace_apart() -> Subject {
    Subject::new(|limit| trace(false, limit))
}
