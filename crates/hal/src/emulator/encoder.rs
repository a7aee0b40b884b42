//! Commands as those of the CPU backend.

use super::Emulator;
use crate::{
    HalError, Launch, Result,
    backend::{Bound, Encoder as EncoderTrait},
    cpu::{self, Cpu, CpuKernel},
};

/// Commands being recorded.
#[derive(Debug)]
pub struct Encoder(pub(super) cpu::Encoder);

fn narrow<'a>(bound: &Bound<'a, Emulator>) -> Bound<'a, Cpu> {
    Bound { buffer: bound.buffer, offset: bound.offset, byte_len: bound.byte_len, access: bound.access }
}

impl EncoderTrait for Encoder {
    type B = Emulator;

    fn dispatch<'a>(
        &mut self,
        kernel: &CpuKernel,
        bindings: &[Bound<'a, Emulator>],
        params: &[u8],
        launch: Launch,
        label: &str,
    ) -> Result<()> {
        if launch.groups.contains(&0) || launch.threads_per_group == 0 {
            let message = format!(
                "`{label}` was launched over groups {:?} of {} threads: the launch has no half for GPUs",
                launch.groups, launch.threads_per_group
            );
            return Err(HalError::InvalidUse { operation: "dispatch", message });
        }
        let bindings: Vec<_> = bindings.iter().map(narrow).collect();
        // One work item: the runner takes the whole dispatch.
        self.0.dispatch(kernel, &bindings, params, Launch { items: 1, items_per_chunk: 1, ..launch }, label)
    }

    fn copy(&mut self, from: Bound<'_, Emulator>, to: Bound<'_, Emulator>) -> Result<()> {
        self.0.copy(narrow(&from), narrow(&to))
    }

    fn fill(&mut self, to: Bound<'_, Emulator>, value: u8) -> Result<()> {
        self.0.fill(narrow(&to), value)
    }

    fn barrier(&mut self) {
        self.0.barrier();
    }

    fn push_label(&mut self, label: &str) {
        self.0.push_label(label);
    }

    fn pop_label(&mut self) {
        self.0.pop_label();
    }
}
