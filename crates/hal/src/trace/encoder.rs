//! Recording of recording.

use std::fmt::Write;

use super::{Trace, TraceLog};
use crate::{
    Launch, Result,
    backend::{Bound, Encoder as EncoderTrait},
    cpu::{self, Cpu, CpuKernel},
};

/// Commands being recorded, and their text.
#[derive(Debug)]
pub struct Encoder {
    pub(super) inner: cpu::Encoder,
    pub(super) log: TraceLog,
}

fn narrow<'a>(bound: &Bound<'a, Trace>) -> Bound<'a, Cpu> {
    Bound { buffer: &bound.buffer.inner, offset: bound.offset, byte_len: bound.byte_len, access: bound.access }
}

fn name(bound: &Bound<'_, Trace>) -> String {
    format!("b{}[{}..{}]", bound.buffer.number, bound.offset, bound.offset + bound.byte_len)
}

impl EncoderTrait for Encoder {
    type B = Trace;

    fn dispatch<'a>(
        &mut self,
        kernel: &CpuKernel,
        bindings: &[Bound<'a, Trace>],
        params: &[u8],
        launch: Launch,
        label: &str,
    ) -> Result<()> {
        let mut line = format!("dispatch {label}");
        for bound in bindings {
            line.push(' ');
            line.push_str(&name(bound));
        }
        let ([x, y, z], threads) = (launch.groups, launch.threads_per_group);
        write!(line, " items={} grid={x}x{y}x{z}x{threads}", launch.items).expect("writing to a string");
        self.log.line(format_args!("{line}"));
        let bindings: Vec<_> = bindings.iter().map(narrow).collect();
        self.inner.dispatch(kernel, &bindings, params, launch, label)
    }

    fn copy(&mut self, from: Bound<'_, Trace>, to: Bound<'_, Trace>) -> Result<()> {
        self.log.line(format_args!("copy {} {}", name(&from), name(&to)));
        self.inner.copy(narrow(&from), narrow(&to))
    }

    fn fill(&mut self, to: Bound<'_, Trace>, value: u8) -> Result<()> {
        self.log.line(format_args!("fill {} {value}", name(&to)));
        self.inner.fill(narrow(&to), value)
    }

    fn barrier(&mut self) {
        self.log.line(format_args!("barrier"));
        self.inner.barrier();
    }

    fn push_label(&mut self, label: &str) {
        self.log.line(format_args!("push {label:?}"));
        self.inner.push_label(label);
    }

    fn pop_label(&mut self) {
        self.log.line(format_args!("pop"));
        self.inner.pop_label();
    }
}
