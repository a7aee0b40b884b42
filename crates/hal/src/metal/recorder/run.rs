//! Command buffers carried out on the host.

use std::sync::Arc;

use super::{
    MetalRecorder,
    objects::{RecordedCommands, Step},
};
use crate::{
    HalError, KernelFault, KernelResult, KernelSource, Launch, Result, WholeArguments,
    backend::{Bound, Device as _, Encoder as _, Pending as _},
    cpu::{Cpu, CpuKernel},
    dialect,
    metal::{Api, Ending, lock},
};

impl MetalRecorder {
    /// What runs `function` of the text; `None` where nothing does.
    pub(super) fn kernel(&self, text: &str, function: &str) -> std::result::Result<Option<CpuKernel>, String> {
        match function {
            "copy_bytes" => return Ok(Some(CpuKernel::whole(|arguments| copy(arguments, 1)))),
            "copy_vectors" => return Ok(Some(CpuKernel::whole(|arguments| copy(arguments, 16)))),
            "fill_bytes" => return Ok(Some(CpuKernel::whole(fill))),
            _ => {}
        }
        let Some(emulator) = &self.emulator else { return Ok(None) };
        let gpu = text.strip_prefix(dialect::GPU_HEADER).unwrap_or(text);
        match emulator.compile(&KernelSource { name: function, gpu, cpu: None }) {
            Ok(kernel) => Ok(Some(kernel)),
            Err(HalError::CompileFailed { log, .. }) => Err(log),
            Err(other) => Err(other.to_string()),
        }
    }

    /// Carries out everything up to these commands.
    pub(super) fn finish_through(&self, last: &Arc<RecordedCommands>) {
        while last.is_unfinished() || lock(&self.queue).iter().any(|queued| Arc::ptr_eq(queued, last)) {
            match self.take_first() {
                Some(commands) => self.carry_out(&commands),
                // Another thread has taken it and is at it.
                None => std::thread::yield_now(),
            }
        }
    }

    pub(super) fn carry_out(&self, commands: &RecordedCommands) {
        let start = self.now();
        let steps = std::mem::take(&mut lock(&commands.state).steps);
        let failed = self.run(&steps, &commands.label).err();
        let mut state = lock(&commands.state);
        let ending = match failed {
            None => Ending::Completed { start, end: self.now() },
            Some(HalError::SubmissionFailed { message, .. }) => Ending::Failed(message),
            Some(other) => Ending::Failed(other.to_string()),
        };
        state.ending.get_or_insert(ending);
        let handlers = std::mem::take(&mut state.handlers);
        drop(state);
        handlers.iter().for_each(|handler| handler());
    }

    fn run(&self, steps: &[Step], label: &str) -> Result<()> {
        let mut encoder = self.cpu.encoder()?;
        for step in steps {
            match step {
                Step::Barrier => encoder.barrier(),
                Step::Dispatch { kernel: None, .. } => {}
                Step::Dispatch { kernel: Some(kernel), arguments, block, groups, threads } => {
                    let bindings: Vec<Bound<'_, Cpu>> = arguments
                        .iter()
                        .map(|bound| Bound {
                            buffer: &*bound.memory,
                            offset: bound.offset,
                            byte_len: bound.byte_len,
                            access: bound.access,
                        })
                        .collect();
                    let launch = Launch { groups: *groups, threads_per_group: *threads, items: 1, items_per_chunk: 1 };
                    encoder.dispatch(kernel, &bindings, block, launch, "kernel")?;
                }
            }
        }
        self.cpu.submit(encoder, label)?.wait().map(drop)
    }
}

/// `gpu/transfer.gpu.cpp` in Rust: the recorder copies without a compiler.
fn copy(arguments: &mut WholeArguments<'_>, width: usize) -> KernelResult {
    let [count, _] = arguments.params::<[u32; 2]>();
    let from = arguments.to_vec::<u8>(0);
    let len = count as usize * width;
    match (from.get(..len), arguments.output::<u8>(1).get_mut(..len)) {
        (Some(from), Some(to)) => to.copy_from_slice(from),
        _ => return Err(KernelFault(format!("a copy of {len} bytes leaves its bindings"))),
    }
    Ok(())
}

fn fill(arguments: &mut WholeArguments<'_>) -> KernelResult {
    let [count, value] = arguments.params::<[u32; 2]>();
    match arguments.output::<u8>(0).get_mut(..count as usize) {
        Some(to) => to.fill(value as u8),
        None => return Err(KernelFault(format!("a fill of {count} bytes leaves its binding"))),
    }
    Ok(())
}
