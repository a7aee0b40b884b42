//! Kernels and shorthands of the tests.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anymlx::{
    Binding, CommandEncoder, CpuKernel, DType, Kernel, KernelSource, Launch, MlxBuffer, MlxDevice, MlxError,
    Submission, read, write,
};

use crate::{gpu, subject::runs_rust};

/// Longer than anything here takes, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn launch(items: usize) -> Launch {
    Launch { groups: [items as u32, 1, 1], threads_per_group: 32, items, items_per_chunk: 1 }
}

pub fn u32s(device: &MlxDevice, values: &[u32]) -> MlxBuffer {
    device.buffer_from_slice(values, DType::U32, [values.len()]).expect("allocates")
}

pub fn values(buffer: &MlxBuffer) -> Vec<u32> {
    buffer.to_vec::<u32>().expect("readable")
}

/// Registers and compiles a kernel of the test's own; on a GPU it is the one of that name in [`gpu`].
pub fn kernel(device: &MlxDevice, name: &str, cpu: CpuKernel) -> Kernel {
    device.kernels().register(KernelSource { name, gpu: &gpu::text(), cpu: Some(cpu) }).expect("a new name");
    device.kernels().get(name).expect("compiles")
}

/// Binding 1 becomes binding 0 plus 1.
pub fn add_one(device: &MlxDevice) -> Kernel {
    fn run(invocation: &anymlx::Invocation<'_>) -> anymlx::KernelResult {
        let input = invocation.input::<u32>(0);
        // SAFETY: item `i` is element `i`.
        let output = unsafe { invocation.output::<u32>(1, invocation.items()) };
        for (output, item) in output.iter_mut().zip(invocation.items()) {
            *output = input[item] + 1;
        }
        Ok(())
    }
    // SAFETY: each item writes its own element of binding 1.
    let cpu = unsafe { CpuKernel::partitioned(run) };
    match device.kernels().get("add_one") {
        Ok(kernel) => kernel,
        Err(_) => kernel(device, "add_one", cpu),
    }
}

pub fn dispatch(encoder: &mut CommandEncoder, kernel: &Kernel, bindings: &[Binding<'_>], items: usize) {
    encoder.dispatch(kernel, bindings, &(), launch(items)).expect("dispatches");
}

pub fn submit(device: &MlxDevice, kernel: &Kernel, bindings: &[Binding<'_>], items: usize) -> Submission {
    let mut encoder = device.command_encoder().expect("an encoder");
    dispatch(&mut encoder, kernel, bindings, items);
    encoder.commit().expect("commits")
}

/// `to = from + 1`, submitted.
pub fn submit_add_one(device: &MlxDevice, from: &MlxBuffer, to: &MlxBuffer) -> anymlx::Result<Submission> {
    let mut encoder = device.command_encoder()?;
    encoder.dispatch(&add_one(device), &[read(from), write(to)], &(), launch(from.element_count()))?;
    encoder.commit()
}

#[derive(Debug, Default)]
struct GateState {
    entered: bool,
    open: bool,
}

type Shared = Arc<(Mutex<GateState>, Condvar)>;

/// A kernel that stays on the device until the test lets it go; on a GPU for a fixed time. One to a device.
#[derive(Debug)]
pub struct Gate {
    shared: Shared,
    /// By the number of bindings.
    kernels: [Kernel; 3],
}

fn locked(shared: &Shared) -> MutexGuard<'_, GateState> {
    shared.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn wait_for(shared: &Shared, met: impl Fn(&GateState) -> bool) -> bool {
    let (_state, timeout) = shared
        .1
        .wait_timeout_while(locked(shared), PATIENCE, |state| !met(state))
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    !timeout.timed_out()
}

impl Gate {
    pub fn new(device: &MlxDevice) -> Self {
        let shared = Shared::default();
        let kernels = std::array::from_fn(|bindings| {
            let inside = Arc::clone(&shared);
            let cpu = CpuKernel::whole(move |_| {
                locked(&inside).entered = true;
                inside.1.notify_all();
                if wait_for(&inside, |state| state.open) { Ok(()) } else { Err("nobody opened the gate".into()) }
            });
            kernel(device, &format!("gate_{bindings}"), cpu)
        });
        Self { shared, kernels }
    }

    /// The kernel for a number of bindings.
    pub fn kernel(&self, bindings: usize) -> &Kernel {
        &self.kernels[bindings]
    }

    /// Submits the kernel with `bindings` and returns once it runs, or on a GPU is about to.
    pub fn enter(&self, device: &MlxDevice, bindings: &[Binding<'_>]) -> Submission {
        let submission = submit(device, self.kernel(bindings.len()), bindings, 1);
        let entered = !runs_rust(device) || wait_for(&self.shared, |state| state.entered);
        assert!(entered, "the gate kernel has not started");
        submission
    }

    pub fn open(&self) {
        locked(&self.shared).open = true;
        self.shared.1.notify_all();
    }
}

impl Drop for Gate {
    /// A failed test must not wait for its own kernel.
    fn drop(&mut self) {
        self.open();
    }
}

/// Waits until `met` holds.
pub fn eventually(what: &str, met: impl Fn() -> bool) {
    let start = Instant::now();
    while !met() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The error is of the kind, and its message has all the parts.
#[track_caller]
pub fn assert_error<T: std::fmt::Debug>(result: anymlx::Result<T>, kind: fn(&MlxError) -> bool, parts: &[&str]) {
    let error = result.expect_err("an error");
    assert!(kind(&error), "{error:?}");
    let text = error.to_string();
    parts.iter().for_each(|part| assert!(text.contains(part), "`{part}` is not in `{text}`"));
}

macro_rules! kinds {
    ($($name:ident: $pattern:pat),* $(,)?) => {
        $(pub fn $name(error: &MlxError) -> bool {
            matches!(error, $pattern)
        })*
    };
}

kinds! {
    invalid: MlxError::InvalidArgument(_),
    in_flight: MlxError::InFlight(_),
    held: MlxError::Locked(_),
    poisoned: MlxError::Poisoned(_),
    read_only: MlxError::ReadOnly(_),
    not_visible: MlxError::NotHostVisible(_),
    failed: MlxError::CommandBufferError(_),
    no_memory: MlxError::BufferAllocationError { .. },
    absent: MlxError::DeviceNotFound(_),
}
