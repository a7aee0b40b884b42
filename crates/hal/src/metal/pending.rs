//! Submitted work.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Api, Ending, Kernel, encoder::Commands, faults::FaultRecord, lock, shared::Shared};
use crate::{
    HalError, Result,
    backend::{Pending as PendingTrait, Timing},
    dialect,
};

/// Submitted work: a command buffer and what must outlive it.
#[derive(Debug)]
pub struct Pending<A: Api> {
    shared: Arc<Shared<A>>,
    label: Arc<str>,
    commands: A::CommandBuffer,
    /// Set by the completion handler.
    completed: Arc<AtomicBool>,
    fault: FaultRecord<A>,
    /// Fail with this message, however the command buffer ends.
    injected: Option<String>,
    /// Seconds of Metal's clock.
    submitted: f64,
    outcome: OnceLock<Result<Timing>>,
    /// The command buffer holds no references: this keeps what it uses.
    uses: Mutex<Uses<A>>,
}

#[derive(Debug)]
enum Uses<A: Api> {
    /// Until the command buffer has ended.
    All(Arc<Commands<A>>),
    /// Afterwards, until somebody waits: what they hold may be the user's, and `poll` is called under a lock.
    Kernels(Vec<Kernel<A>>),
}

fn refused(label: &str, what: &str) -> HalError {
    HalError::Io { operation: format!("submit `{label}`"), message: format!("Metal made no {what}") }
}

impl<A: Api> Pending<A> {
    /// Encodes the commands into a command buffer of their own and commits it.
    pub(super) fn submit(
        shared: &Arc<Shared<A>>,
        commands: Arc<Commands<A>>,
        label: Arc<str>,
        injected: Option<String>,
    ) -> Result<Self> {
        let api = &shared.api;
        api.autorelease(|| {
            let fault = shared.faults.take(api).ok_or_else(|| refused(&label, "fault record"))?;
            // SAFETY: commandBufferWithUnretainedReferences needs all that it uses to live until it has ended:
            // this object keeps kernels and record until then, also when dropped; the common layer buffers.
            let buffer = unsafe { api.new_command_buffer(&label) }.ok_or_else(|| refused(&label, "command buffer"))?;
            if injected.is_none() && !commands.is_empty() {
                let encoder = api.new_encoder(&buffer).ok_or_else(|| refused(&label, "compute encoder"))?;
                commands.encode(shared, &encoder, fault.argument());
                api.end_encoding(encoder);
            }
            let completed = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&completed);
            // Handlers must be added before the commit.
            api.on_completed(&buffer, Box::new(move || flag.store(true, Ordering::Release)));
            let submitted = api.now();
            api.commit(&buffer);
            Ok(Self {
                shared: Arc::clone(shared),
                label,
                commands: buffer,
                completed,
                fault,
                injected,
                submitted,
                outcome: OnceLock::new(),
                uses: Mutex::new(Uses::All(commands)),
            })
        })
    }

    /// The command buffer has ended.
    fn settle(&self) -> Result<Timing> {
        let outcome = self.outcome.get_or_init(|| self.shared.api.autorelease(|| self.outcome_now())).clone();
        let mut uses = lock(&self.uses);
        if let Uses::All(commands) = std::mem::replace(&mut *uses, Uses::Kernels(Vec::new())) {
            // Nothing when a graph holds the commands as well.
            *uses = Uses::Kernels(Arc::into_inner(commands).map(Commands::into_kernels).unwrap_or_default());
        }
        outcome
    }

    /// Gives up the kernels. No lock is held.
    fn forget_kernels(&self) {
        let forgotten = match &mut *lock(&self.uses) {
            Uses::All(_) => Vec::new(),
            Uses::Kernels(kernels) => std::mem::take(kernels),
        };
        drop(forgotten);
    }

    fn outcome_now(&self) -> Result<Timing> {
        let failed = |message: String| Err(HalError::SubmissionFailed { label: self.label.to_string(), message });
        let (start, end) = match self.shared.api.ending(&self.commands) {
            Ending::Completed { start, end } => (start, end),
            Ending::Failed(message) => return failed(message),
            Ending::Unfinished => return failed("Metal says that it has ended, and that it has not".into()),
        };
        if let Some(message) = &self.injected {
            return failed(message.clone());
        }
        match self.fault.read(&self.shared.api) {
            Some(record) => failed(dialect::fault_message(record)),
            None => {
                let seconds = |value: f64| Duration::try_from_secs_f64(value.max(0.0)).unwrap_or_default();
                Ok(Timing { execution: seconds(end - start), queued: seconds(start - self.submitted) })
            }
        }
    }
}

impl<A: Api> PendingTrait for Pending<A> {
    fn poll(&self) -> Option<Result<Timing>> {
        if let Some(outcome) = self.outcome.get() {
            return Some(outcome.clone());
        }
        self.completed.load(Ordering::Acquire).then(|| self.settle())
    }

    fn wait(&self) -> Result<Timing> {
        if self.outcome.get().is_none() {
            self.shared.api.autorelease(|| self.shared.api.wait(&self.commands));
        }
        let outcome = self.settle();
        self.forget_kernels();
        outcome
    }
}

impl<A: Api> Drop for Pending<A> {
    fn drop(&mut self) {
        // What the command buffer uses is given up after this: it must have ended.
        if self.outcome.get().is_none()
            && let Err(error) = self.wait()
        {
            tracing::debug!(%error, "a submission failed that nobody waits for");
        }
    }
}
