//! Recording commands as a list, and encoding the list into a command buffer.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::{Api, Argument, Kernel, Metal, kernel::FAULT_INDEX, shared::Shared};
use crate::{
    Launch, Result,
    backend::{Bound, Encoder as EncoderTrait},
};

/// Threads of a group that copies or fills.
const THREADS: u32 = 256;
/// Elements of one dispatch of a copy or fill.
const MAX_ELEMENTS: u64 = 1 << 30;
/// Bytes that `copy_vectors` takes at a time.
const VECTOR: u64 = 16;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TransferBlock {
    count: u32,
    value: u32,
}

#[derive(Debug)]
struct Dispatch<A: Api> {
    /// Which of the recording's kernels.
    kernel: usize,
    arguments: Box<[Argument<A>]>,
    block: Box<[u8]>,
    groups: [u32; 3],
    threads: u32,
    label: Box<str>,
}

#[derive(Debug)]
enum Command<A: Api> {
    Dispatch(Dispatch<A>),
    Barrier,
    Push(Box<str>),
    Pop,
}

/// Commands being recorded.
#[derive(Debug)]
pub struct Encoder<A: Api> {
    commands: Vec<Command<A>>,
    kernels: Vec<Kernel<A>>,
    shared: Arc<Shared<A>>,
}

/// Commands prepared to run many times.
#[derive(Debug)]
pub struct Graph<A: Api> {
    pub(super) commands: Arc<Commands<A>>,
    pub(super) label: Arc<str>,
}

/// Commands that will not change, apart from the kernels that they run: what those hold may be the user's.
#[derive(Debug)]
pub(super) struct Commands<A: Api> {
    list: Vec<Command<A>>,
    kernels: Vec<Kernel<A>>,
}

impl<A: Api> Encoder<A> {
    pub(super) fn new(shared: &Arc<Shared<A>>) -> Self {
        Self { commands: Vec::new(), kernels: Vec::new(), shared: Arc::clone(shared) }
    }

    pub(super) fn finish(self) -> Arc<Commands<A>> {
        Arc::new(Commands { list: self.commands, kernels: self.kernels })
    }

    fn push(
        &mut self,
        kernel: &Kernel<A>,
        arguments: Box<[Argument<A>]>,
        block: &[u8],
        launch: Launch,
        label: &str,
    ) -> Result<()> {
        kernel.check_launch(arguments.len(), block.len(), &launch)?;
        let known = self.kernels.iter().rposition(|known| known.is_same(kernel));
        let kernel = known.unwrap_or_else(|| {
            self.kernels.push(kernel.clone());
            self.kernels.len() - 1
        });
        self.commands.push(Command::Dispatch(Dispatch {
            kernel,
            arguments,
            block: block.into(),
            groups: launch.groups,
            threads: launch.threads_per_group,
            label: label.into(),
        }));
        Ok(())
    }

    /// Dispatches that together take `byte_len` bytes, `width` at a time.
    fn transfer(
        &mut self,
        kernel: &Kernel<A>,
        label: &str,
        ranges: &[Bound<'_, Metal<A>>],
        width: u64,
        value: u8,
    ) -> Result<()> {
        let byte_len = ranges.first().map_or(0, |range| range.byte_len);
        let step = MAX_ELEMENTS * width;
        for start in (0..byte_len).step_by(step as usize) {
            let len = step.min(byte_len - start);
            let count = (len / width) as u32;
            let arguments =
                ranges.iter().map(|range| range.buffer.argument(range.offset + start, len, range.access)).collect();
            let block = TransferBlock { count, value: u32::from(value) };
            let groups = [count.div_ceil(THREADS), 1, 1];
            let launch = Launch { groups, threads_per_group: THREADS, ..Launch::default() };
            self.push(kernel, arguments, bytemuck::bytes_of(&block), launch, label)?;
        }
        Ok(())
    }
}

impl<A: Api> EncoderTrait for Encoder<A> {
    type B = Metal<A>;

    fn dispatch<'a>(
        &mut self,
        kernel: &Kernel<A>,
        bindings: &[Bound<'a, Metal<A>>],
        params: &[u8],
        launch: Launch,
        label: &str,
    ) -> Result<()> {
        let argument = |bound: &Bound<'a, Metal<A>>| bound.buffer.argument(bound.offset, bound.byte_len, bound.access);
        self.push(kernel, bindings.iter().map(argument).collect(), params, launch, label)
    }

    fn copy(&mut self, from: Bound<'_, Metal<A>>, to: Bound<'_, Metal<A>>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let transfers = shared.transfers()?;
        let place = |bound: &Bound<'_, Metal<A>>| bound.buffer.metal_offset() + bound.offset;
        if [place(&from), place(&to), to.byte_len].iter().all(|value| value.is_multiple_of(VECTOR)) {
            return self.transfer(&transfers.copy_vectors, "copy", &[from, to], VECTOR, 0);
        }
        self.transfer(&transfers.copy_bytes, "copy", &[from, to], 1, 0)
    }

    fn fill(&mut self, to: Bound<'_, Metal<A>>, value: u8) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.transfer(&shared.transfers()?.fill_bytes, "fill", &[to], 1, value)
    }

    fn barrier(&mut self) {
        self.commands.push(Command::Barrier);
    }

    fn push_label(&mut self, label: &str) {
        self.commands.push(Command::Push(label.into()));
    }

    fn pop_label(&mut self) {
        self.commands.push(Command::Pop);
    }
}

impl<A: Api> Commands<A> {
    pub(super) fn is_empty(&self) -> bool {
        !self.list.iter().any(|command| matches!(command, Command::Dispatch(_)))
    }

    /// Gives up what the commands are bound to, and hands out their kernels.
    pub(super) fn into_kernels(self) -> Vec<Kernel<A>> {
        self.kernels
    }

    /// Encodes every command. What is set already is not set again.
    pub(super) fn encode(&self, shared: &Shared<A>, encoder: &A::Encoder, fault: &Argument<A>) {
        let (api, labels) = (&shared.api, shared.labels);
        // SAFETY: setBuffer:offset:atIndex: needs an offset inside the buffer, and index 30 is the last; the words
        // belong to this submission alone.
        unsafe { api.set_buffer(encoder, fault, FAULT_INDEX) };
        let mut current = None;
        for command in &self.list {
            match command {
                Command::Barrier => api.barrier(encoder),
                Command::Push(label) if labels => api.push_group(encoder, label),
                Command::Pop if labels => api.pop_group(encoder),
                Command::Push(_) | Command::Pop => {}
                Command::Dispatch(dispatch) => {
                    if labels {
                        api.push_group(encoder, &dispatch.label);
                    }
                    if current != Some(dispatch.kernel) {
                        api.set_pipeline(encoder, self.kernels[dispatch.kernel].pipeline());
                        current = Some(dispatch.kernel);
                    }
                    dispatch.encode(api, encoder);
                    if labels {
                        api.pop_group(encoder);
                    }
                }
            }
        }
    }
}

impl<A: Api> Dispatch<A> {
    fn encode(&self, api: &A, encoder: &A::Encoder) {
        for (index, argument) in self.arguments.iter().enumerate() {
            // SAFETY: setBuffer:offset:atIndex: needs an offset inside the buffer, which the common layer has
            // checked, and a buffer that lives until the end of the command buffer, which it sees to.
            unsafe { api.set_buffer(encoder, argument, index) };
        }
        if !self.block.is_empty() {
            api.set_bytes(encoder, &self.block, self.arguments.len());
        }
        // SAFETY: dispatchThreadgroups: needs every argument set, as above, and groups within the pipeline's
        // maxTotalThreadsPerThreadgroup, as `check_launch` saw to.
        unsafe { api.dispatch(encoder, self.groups, self.threads) };
    }
}
