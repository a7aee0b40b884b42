//! Command buffers carried out on the host.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Engine, MetalRecorder, Queue, Run,
    objects::{RecordedCommands, Step},
};
use crate::{
    HalError, KernelFault, KernelResult, KernelSource, Launch, Result, WholeArguments,
    backend::{Bound, Device as _, Encoder as _, Pending as _},
    cpu::{Cpu, CpuKernel},
    dialect,
    metal::{Ending, lock},
};

impl MetalRecorder {
    /// What does the work of `function` of the text; `None` where nothing does.
    pub(super) fn kernel(
        &self,
        text: &str,
        function: &str,
        host: Option<&CpuKernel>,
    ) -> std::result::Result<Option<CpuKernel>, String> {
        let Some(emulator) = &self.emulator else {
            return Ok(match function {
                "copy_bytes" => Some(CpuKernel::whole(|arguments| copy(arguments, 1))),
                "copy_vectors" => Some(CpuKernel::whole(|arguments| copy(arguments, 16))),
                "fill_bytes" => Some(CpuKernel::whole(fill)),
                _ if self.options.run == Run::Host => host.cloned(),
                _ => None,
            });
        };
        let gpu = text.strip_prefix(dialect::GPU_HEADER).unwrap_or(text);
        match emulator.compile(&KernelSource { name: function, gpu, cpu: None }) {
            Ok(kernel) => Ok(Some(kernel)),
            Err(HalError::CompileFailed { log, .. }) => Err(log),
            Err(other) => Err(other.to_string()),
        }
    }
}

impl Engine {
    /// Carries out what is committed until it is told to stop, and then what is left.
    pub(super) fn work(&self) {
        loop {
            let waiting = |queue: &mut Queue| queue.committed.is_empty() && !queue.stop;
            let guard = self.available.wait_while(lock(&self.queue), waiting);
            let first = guard.unwrap_or_else(|poisoned| poisoned.into_inner()).committed.pop_front();
            match first {
                Some(commands) => self.carry_out(&commands),
                None => return,
            }
        }
    }

    pub(super) fn take_first(&self) -> Option<Arc<RecordedCommands>> {
        lock(&self.queue).committed.pop_front()
    }

    /// Carries out everything up to these commands.
    pub(super) fn finish_through(&self, last: &RecordedCommands) {
        while last.is_unfinished() {
            match self.take_first() {
                Some(commands) => self.carry_out(&commands),
                // Another thread has taken it and is at it.
                None => last.wait(),
            }
        }
    }

    pub(super) fn carry_out(&self, commands: &RecordedCommands) {
        let (steps, failure) = {
            let mut state = lock(&commands.state);
            (std::mem::take(&mut state.steps), state.failure.take())
        };
        let start = now();
        let result = match failure {
            Some(message) => Err(HalError::SubmissionFailed { label: commands.label.clone(), message }),
            None => self.run(steps, &commands.label),
        };
        let ending = match result {
            Ok(()) => Ending::Completed { start, end: now() },
            Err(HalError::SubmissionFailed { message, .. }) => Ending::Failed(message),
            Err(other) => Ending::Failed(other.to_string()),
        };
        // Handlers run before those who wait go on.
        let handlers = std::mem::take(&mut lock(&commands.state).handlers);
        lock(&commands.state).ending = Some(ending);
        handlers.iter().for_each(|handler| handler());
        drop(handlers);
        commands.ended.notify_all();
    }

    fn run(&self, steps: Vec<Step>, label: &str) -> Result<()> {
        let mut encoder = self.cpu.encoder()?;
        for step in &steps {
            match step {
                Step::Barrier => encoder.barrier(),
                Step::Dispatch { kernel: None, .. } => {}
                Step::Dispatch { name, kernel: Some(kernel), arguments, block, groups, threads } => {
                    let bindings: Vec<Bound<'_, Cpu>> = arguments
                        .iter()
                        .map(|bound| Bound {
                            buffer: &*bound.memory,
                            offset: bound.offset,
                            byte_len: bound.byte_len,
                            access: bound.access,
                        })
                        .collect();
                    let items = groups.iter().map(|&count| count as usize).product();
                    let launch = Launch { groups: *groups, threads_per_group: *threads, items, items_per_chunk: 1 };
                    encoder.dispatch(kernel, &bindings, block, launch, name)?;
                }
            }
        }
        self.cpu.submit(encoder, label)?.wait().map(drop)
    }
}

/// Seconds of the clock in which the recorder's command buffers tell when they ran.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
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
