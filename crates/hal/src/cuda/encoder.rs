//! Recording commands for the stream or a graph.

use std::ffi::c_void;

use super::{
    Cuda, Kernel,
    driver::{DriverResult, driver},
};
use crate::{
    Launch, Result,
    backend::{Bound, Buffer as _, Encoder as EncoderTrait},
};
use cudarc::driver::sys;

/// What one command does.
#[derive(Debug)]
pub(super) enum Action {
    Kernel { kernel: Kernel, addresses: Box<[u64]>, params: Box<[u8]>, groups: [u32; 3], threads: u32 },
    Copy { from: u64, to: u64, byte_len: usize },
    Fill { to: u64, byte_len: usize, value: u8 },
}

/// One command and its place in the groups of labels.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) label: Box<str>,
    pub(super) action: Action,
}

/// Commands being recorded.
#[derive(Debug, Default)]
pub struct Encoder {
    pub(super) commands: Vec<Command>,
    /// Indices of the first command after each barrier.
    barriers: Vec<usize>,
    groups: Vec<String>,
}

impl Encoder {
    fn push(&mut self, label: &str, action: Action) {
        let label = match self.groups.last() {
            Some(group) => format!("{group}/{label}").into(),
            None => label.into(),
        };
        self.commands.push(Command { label, action });
    }

    /// The commands between barriers: those of one part do not depend on each other.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[Command]> {
        let ends = self.barriers.iter().copied().chain([self.commands.len()]);
        let starts = std::iter::once(0).chain(self.barriers.iter().copied());
        starts.zip(ends).map(|(start, end)| &self.commands[start..end]).filter(|part| !part.is_empty())
    }

    /// The kernels that the commands need.
    pub(super) fn kernels(&self) -> Vec<Kernel> {
        let kernel = |command: &Command| match &command.action {
            Action::Kernel { kernel, .. } => Some(kernel.clone()),
            Action::Copy { .. } | Action::Fill { .. } => None,
        };
        self.commands.iter().filter_map(kernel).collect()
    }
}

/// Pointers to a kernel's arguments: the addresses, then the parameter block if there is one.
pub(super) fn argument_pointers(addresses: &[u64], params: &[u8]) -> Vec<*mut c_void> {
    let addresses = addresses.iter().map(|address| std::ptr::from_ref(address).cast_mut().cast());
    addresses.chain((!params.is_empty()).then(|| params.as_ptr().cast_mut().cast())).collect()
}

impl Command {
    /// Puts the command on the stream. The context is current.
    pub(super) fn launch(&self, stream: sys::CUstream) -> DriverResult {
        match &self.action {
            Action::Kernel { kernel, addresses, params, groups: [x, y, z], threads } => {
                let mut arguments = argument_pointers(addresses, params);
                let (function, shared, none) = (kernel.function(), kernel.dynamic_shared(), std::ptr::null_mut());
                let pointers = arguments.as_mut_ptr();
                // SAFETY: the arguments have the number and sizes that the kernel takes (checked
                // when it was recorded, where the driver tells them), and are copied by the call.
                unsafe { driver!(cuLaunchKernel(function, *x, *y, *z, *threads, 1, 1, shared, stream, pointers, none)) }
            }
            // SAFETY: both ranges are valid until the submission has ended.
            Action::Copy { from, to, byte_len } => unsafe {
                driver!(cuMemcpyDtoDAsync_v2(*to, *from, *byte_len, stream))
            },
            // SAFETY: as above.
            Action::Fill { to, byte_len, value } => unsafe { driver!(cuMemsetD8Async(*to, *value, *byte_len, stream)) },
        }
    }
}

fn address(bound: &Bound<'_, Cuda>) -> u64 {
    bound.buffer.address() + bound.offset
}

impl EncoderTrait for Encoder {
    type B = Cuda;

    fn dispatch<'a>(
        &mut self,
        kernel: &Kernel,
        bindings: &[Bound<'a, Cuda>],
        params: &[u8],
        launch: Launch,
        label: &str,
    ) -> Result<()> {
        kernel.check_launch(bindings.len(), params.len(), &launch)?;
        let action = Action::Kernel {
            kernel: kernel.clone(),
            addresses: bindings.iter().map(address).collect(),
            params: params.into(),
            groups: launch.groups,
            threads: launch.threads_per_group,
        };
        self.push(label, action);
        Ok(())
    }

    fn copy(&mut self, from: Bound<'_, Cuda>, to: Bound<'_, Cuda>) -> Result<()> {
        let byte_len = byte_len(&to);
        self.push("copy", Action::Copy { from: address(&from), to: address(&to), byte_len });
        Ok(())
    }

    fn fill(&mut self, to: Bound<'_, Cuda>, value: u8) -> Result<()> {
        let byte_len = byte_len(&to);
        self.push("fill", Action::Fill { to: address(&to), byte_len, value });
        Ok(())
    }

    fn barrier(&mut self) {
        self.barriers.push(self.commands.len());
    }

    fn push_label(&mut self, label: &str) {
        let full = match self.groups.last() {
            Some(group) => format!("{group}/{label}"),
            None => label.to_owned(),
        };
        self.groups.push(full);
    }

    fn pop_label(&mut self) {
        self.groups.pop();
    }
}

/// Allocations were made with lengths of `usize`, so their parts fit.
fn byte_len(bound: &Bound<'_, Cuda>) -> usize {
    bound.byte_len as usize
}
