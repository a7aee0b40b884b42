//! Recording commands for the team.

use std::sync::atomic::AtomicU64;

use super::{
    Cpu, CpuKernel,
    kernel::HostRange,
    program::{Action, Command, Program},
};
use crate::{
    HalError, Launch, Result,
    backend::{Bound, Buffer as _, Encoder as EncoderTrait},
};

/// Bytes of a copy or fill that are worth handing to a thread.
const BYTES_PER_CHUNK: usize = 256 * 1024;

/// Commands being recorded.
#[derive(Debug, Default)]
pub struct Encoder {
    commands: Vec<Command>,
    barriers: Vec<usize>,
    groups: Vec<String>,
}

impl Encoder {
    pub(super) fn finish(self, label: &str, members: usize) -> Program {
        Program::new(label, self.commands, &self.barriers, members)
    }

    fn push(&mut self, label: &str, action: Action, items: usize, items_per_chunk: usize) {
        let label = match self.groups.last() {
            Some(group) => format!("{group}/{label}").into(),
            None => label.into(),
        };
        let nanoseconds = AtomicU64::new(0);
        self.commands.push(Command { label, action, items, items_per_chunk, nanoseconds });
    }
}

fn host_range(bound: &Bound<'_, Cpu>) -> Result<HostRange> {
    let too_large = |_| HalError::InvalidUse {
        operation: "bind",
        message: format!("range of {} bytes at {} does not fit the address space", bound.byte_len, bound.offset),
    };
    let offset = usize::try_from(bound.offset).map_err(too_large)?;
    let byte_len = usize::try_from(bound.byte_len).map_err(too_large)?;
    // SAFETY: the common layer binds only ranges inside the buffer.
    let start = unsafe { bound.buffer.start().as_ptr().add(offset) };
    debug_assert!(bound.offset + bound.byte_len <= bound.buffer.byte_len());
    Ok(HostRange { start, byte_len, access: bound.access })
}

impl EncoderTrait for Encoder {
    type B = Cpu;

    fn dispatch<'a>(
        &mut self,
        kernel: &CpuKernel,
        bindings: &[Bound<'a, Cpu>],
        params: &[u8],
        launch: Launch,
        label: &str,
    ) -> Result<()> {
        if launch.items == 0 {
            let message = format!("`{label}` was launched over groups {:?} without work items", launch.groups);
            return Err(HalError::InvalidUse { operation: "dispatch", message });
        }
        let bindings = bindings.iter().map(host_range).collect::<Result<Box<[HostRange]>>>()?;
        let items_per_chunk = if kernel.is_whole() { launch.items } else { launch.items_per_chunk };
        let action = Action::Kernel { kernel: kernel.clone(), bindings, params: params.into(), launch };
        self.push(label, action, launch.items, items_per_chunk.max(1));
        Ok(())
    }

    fn copy(&mut self, from: Bound<'_, Cpu>, to: Bound<'_, Cpu>) -> Result<()> {
        let (from, to) = (host_range(&from)?, host_range(&to)?);
        self.push("copy", Action::Copy { from, to }, to.byte_len, BYTES_PER_CHUNK);
        Ok(())
    }

    fn fill(&mut self, to: Bound<'_, Cpu>, value: u8) -> Result<()> {
        let to = host_range(&to)?;
        self.push("fill", Action::Fill { to, value }, to.byte_len, BYTES_PER_CHUNK);
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
