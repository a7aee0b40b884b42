//! Recording and submitting commands.

use std::time::Duration;

use anymlx_hal::{Access, Graph as HalGraph, Launch, Lease, Recorder, Submission as HalSubmission, Timing, any::Graph};
use bytemuck::Pod;

use crate::{DType, Kernel, MlxBuffer, MlxBufferPool, MlxDevice, MlxError, Result};

/// A buffer bound to a kernel argument, with how the kernel uses it.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    buffer: &'a MlxBuffer,
    access: Access,
}

/// The command only reads the handle's bytes.
pub fn read(buffer: &MlxBuffer) -> Binding<'_> {
    Binding { buffer, access: Access::Read }
}

/// The command writes the handle's bytes and reads none of their earlier contents.
pub fn write(buffer: &MlxBuffer) -> Binding<'_> {
    Binding { buffer, access: Access::Write }
}

/// The command reads and writes the handle's bytes.
pub fn read_write(buffer: &MlxBuffer) -> Binding<'_> {
    Binding { buffer, access: Access::ReadWrite }
}

impl Binding<'_> {
    /// Devices fault on elements that are not where their size puts them.
    fn check_aligned(&self, kernel: &Kernel, index: usize) -> Result<()> {
        let (start, size) = (self.buffer.byte_offset(), self.buffer.dtype().size_of() as u64);
        if start.is_multiple_of(size) {
            return Ok(());
        }
        let message = format_args!(
            "binding {index} of `{}` starts at byte {start} of its allocation, needed a multiple of {size} for {}",
            kernel.name(),
            self.buffer.dtype()
        );
        Err(MlxError::invalid("dispatch", message))
    }

    fn lower(&self) -> anymlx_hal::Binding<'_> {
        let range = self.buffer.range();
        anymlx_hal::Binding {
            storage: self.buffer.storage(),
            offset: range.start,
            byte_len: range.end - range.start,
            access: self.access,
        }
    }
}

/// Records dispatches, copies and fills; nothing runs before commit.
///
/// Order follows from the bindings: a command that reads what an earlier one writes, or writes what
/// an earlier one uses, waits for it; all others may run at the same time. Dropping an uncommitted
/// encoder abandons its commands.
#[derive(Debug)]
pub struct CommandEncoder {
    device: MlxDevice,
    recorder: Recorder,
    scratch: Vec<MlxBuffer>,
}

impl CommandEncoder {
    pub(crate) fn new(device: &MlxDevice, label: &str) -> Result<Self> {
        Ok(Self { device: device.clone(), recorder: device.context().recorder(label)?, scratch: Vec::new() })
    }

    /// The device.
    pub fn device(&self) -> &MlxDevice {
        &self.device
    }

    /// Runs a kernel over `bindings`, in the order of its parameters; `params` is its constant block.
    ///
    /// A launch of 0 items (and 0 groups) does nothing.
    ///
    /// # Errors
    /// `InvalidArgument` after commit, for a kernel or buffer of another device, for a view that does
    /// not start at a multiple of its element size, or when a written buffer overlaps another binding
    /// of the same command; `ReadOnly`.
    pub fn dispatch<P: Pod>(
        &mut self,
        kernel: &Kernel,
        bindings: &[Binding<'_>],
        params: &P,
        launch: Launch,
    ) -> Result<()> {
        bindings.iter().enumerate().try_for_each(|(index, binding)| binding.check_aligned(kernel, index))?;
        let lowered: Vec<_> = bindings.iter().map(Binding::lower).collect();
        Ok(self.recorder.dispatch(kernel, &lowered, bytemuck::bytes_of(params), launch, kernel.name())?)
    }

    /// Copies the bytes of `from` to `to`; both have the same length and do not overlap.
    ///
    /// # Errors
    /// As [`Self::dispatch`].
    pub fn copy_bytes(&mut self, from: &MlxBuffer, to: &MlxBuffer) -> Result<()> {
        Ok(self.recorder.copy(read(from).lower(), write(to).lower())?)
    }

    /// Sets every byte of `to`.
    ///
    /// # Errors
    /// As [`Self::dispatch`].
    pub fn fill_bytes(&mut self, to: &MlxBuffer, value: u8) -> Result<()> {
        Ok(self.recorder.fill(write(to).lower(), value)?)
    }

    /// Orders everything that follows after everything before.
    ///
    /// # Errors
    /// `InvalidArgument` after commit.
    pub fn barrier(&mut self) -> Result<()> {
        Ok(self.recorder.barrier()?)
    }

    /// Opens a named group of commands, for captures and profiles.
    ///
    /// # Errors
    /// `InvalidArgument` after commit.
    pub fn push_label(&mut self, label: &str) -> Result<()> {
        Ok(self.recorder.push_label(label)?)
    }

    /// Closes the innermost named group.
    ///
    /// # Errors
    /// `InvalidArgument` after commit or when no group is open.
    pub fn pop_label(&mut self) -> Result<()> {
        Ok(self.recorder.pop_label()?)
    }

    /// A buffer for intermediate results of this encoder's commands. It comes from `pool` and goes
    /// back by itself once the commands are committed (or the graph that they became is dropped) and
    /// the caller's handles are gone; the pool hands it out again only after the commands have
    /// completed.
    ///
    /// # Errors
    /// As [`MlxBufferPool::alloc`].
    pub fn scratch(&mut self, pool: &mut MlxBufferPool, dtype: DType, shape: &[usize]) -> Result<MlxBuffer> {
        let bytes = crate::buffer::count_bytes(shape, dtype).and_then(|bytes| usize::try_from(bytes).ok());
        let Some(bytes) = bytes else {
            return Err(MlxError::invalid("scratch", format_args!("the shape {shape:?} is too large")));
        };
        let buffer = pool.lease(&self.device, bytes, dtype, shape.to_vec(), Lease::UntilDropped)?;
        self.scratch.push(buffer.clone());
        Ok(buffer)
    }

    /// Hands the commands to the device and returns at once.
    ///
    /// # Errors
    /// `InvalidArgument` after commit; `Locked` when a host guard conflicts; `Poisoned` when the
    /// work reads what earlier work failed to write; `CommandBufferError` when the device is lost.
    /// The commands are abandoned on an error.
    pub fn commit(&mut self) -> Result<Submission> {
        let submission = self.recorder.commit();
        self.scratch.clear();
        Ok(Submission { inner: submission? })
    }

    /// As [`Self::commit`], under another label.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn commit_labeled(&mut self, label: &str) -> Result<Submission> {
        self.recorder.set_label(label);
        self.commit()
    }

    /// Hands the commands to the device and blocks until they have completed.
    ///
    /// # Errors
    /// As [`Self::commit`] and [`Submission::wait`].
    pub fn commit_and_wait(&mut self) -> Result<()> {
        self.commit()?.wait().map(|_| ())
    }

    /// As [`Self::commit_and_wait`], under another label.
    ///
    /// # Errors
    /// As [`Self::commit_and_wait`].
    pub fn commit_and_wait_labeled(&mut self, label: &str) -> Result<()> {
        self.commit_labeled(label)?.wait().map(|_| ())
    }

    /// Prepares the commands to run many times; see [`MlxDevice::record`].
    ///
    /// # Errors
    /// `InvalidArgument` after commit; what the backend reports.
    pub fn into_graph(mut self) -> Result<CommandGraph> {
        let graph = self.recorder.finish()?;
        Ok(CommandGraph { device: self.device.clone(), graph, _scratch: std::mem::take(&mut self.scratch) })
    }
}

/// Submitted work. Dropping it does not stop the work.
#[derive(Debug, Clone)]
pub struct Submission {
    inner: HalSubmission,
}

impl Submission {
    /// Blocks until the work has ended.
    ///
    /// # Errors
    /// `CommandBufferError` with the label when the work failed, or read what earlier work failed to
    /// write. Every buffer that it would have written is then poisoned: reading it is an error until
    /// it is written again.
    pub fn wait(&self) -> Result<Timing> {
        Ok(self.inner.wait()?)
    }

    /// True when the work has ended, well or not. Never blocks.
    pub fn is_done(&self) -> bool {
        self.inner.is_done()
    }

    /// The encoder's label.
    pub fn label(&self) -> &str {
        self.inner.label()
    }

    /// Number of the submission on its device, from 1.
    pub fn id(&self) -> u64 {
        self.inner.id()
    }
}

/// Time spent in the commands of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileEntry {
    /// Kernel name, after the names of the groups that it was recorded in.
    pub label: String,
    /// Recorded commands with this label.
    pub commands: usize,
    /// Time summed over threads and runs.
    pub thread_time: Duration,
}

/// Commands recorded once, to run many times. What changes from run to run lives in buffers.
///
/// A replay derives nothing anew. The graph keeps every buffer that it uses.
#[derive(Debug)]
pub struct CommandGraph {
    device: MlxDevice,
    graph: HalGraph,
    _scratch: Vec<MlxBuffer>,
}

impl CommandGraph {
    /// Runs the commands once; returns at once.
    ///
    /// # Errors
    /// As [`CommandEncoder::commit`]; the graph stays usable.
    pub fn replay(&self) -> Result<Submission> {
        Ok(Submission { inner: self.device.context().replay(&self.graph)? })
    }

    /// The recording's label.
    pub fn label(&self) -> &str {
        self.graph.label()
    }

    /// Time spent in the graph's kernels while the device was profiling, since the last call:
    /// summed by label, longest first. Empty on devices that do not profile.
    pub fn take_profile(&self) -> Vec<ProfileEntry> {
        let Graph::Cpu(program) = self.graph.backend_graph() else { return Vec::new() };
        let mut entries: Vec<ProfileEntry> = Vec::new();
        for command in program.take_profile() {
            match entries.iter_mut().find(|entry| entry.label == command.label) {
                Some(entry) => {
                    entry.commands += 1;
                    entry.thread_time += command.thread_time;
                }
                None => {
                    entries.push(ProfileEntry { label: command.label, commands: 1, thread_time: command.thread_time })
                }
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.thread_time));
        entries
    }
}
