//! Submissions on one device: what they use, and what a failure does to the buffers.

use crate::{
    HalError, Result, any,
    backend::{Pending as _, Timing},
    memory::Memory,
    order::{Order, Settle},
    sync::Arc,
    usage::{Entered, Footprint},
};

/// One storage and what a submission does to it.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) memory: Arc<Memory>,
    pub(crate) footprint: Footprint,
}

type Outcome = std::sync::OnceLock<Result<Timing>>;

/// What a submission keeps until it has completed.
#[derive(Debug)]
struct Work {
    label: Arc<str>,
    uses: Arc<[Use]>,
    outcome: Arc<Outcome>,
}

impl Settle for Work {
    fn settle(&self, outcome: Result<Timing>) {
        let poisoned = || self.uses.iter().find_map(|used| used.memory.usage.poisoned_reads(&used.footprint));
        let outcome = outcome.and_then(|timing| match poisoned() {
            None => Ok(timing),
            Some(cause) => Err(HalError::SubmissionFailed {
                label: self.label.to_string(),
                message: format!("it read bytes that earlier work failed to write ({cause})"),
            }),
        });
        match &outcome {
            Ok(_) => self.uses.iter().for_each(|used| used.memory.usage.heal_writes(&used.footprint)),
            Err(error) => {
                let cause = error.to_string();
                tracing::error!(label = &*self.label, %error, "submission failed");
                self.uses.iter().for_each(|used| used.memory.usage.poison(&used.footprint, &cause));
            }
        }
        self.outcome.set(outcome).expect("a submission is settled once");
    }
}

/// The order of submissions on one device.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    order: Order<any::Pending, Work>,
}

/// A submission's place in the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) id: u64,
    pending: Arc<any::Pending>,
    outcome: Arc<Outcome>,
}

impl Ledger {
    /// The last submission that has completed, after looking.
    pub(crate) fn completed(&self) -> u64 {
        self.order.completed()
    }

    /// Numbers a submission and hands it over through `submit`.
    pub(crate) fn submit(
        &self,
        device: &any::Device,
        label: &Arc<str>,
        uses: &Arc<[Use]>,
        submit: impl FnOnce() -> Result<any::Pending>,
    ) -> Result<Ticket> {
        let outcome = Arc::new(Outcome::new());
        // Not moved into `begin`, which runs under a lock: dropping commands is the user's code.
        let mut submit = Some(submit);
        let mut begin = |id: u64| {
            let pending = enter(id, device, uses, &mut submit)?;
            uses.iter().for_each(|used| used.memory.note_device_writes(&used.footprint));
            let work = Work { label: Arc::clone(label), uses: Arc::clone(uses), outcome: Arc::clone(&outcome) };
            Ok((pending, work))
        };
        let (id, pending) = self.order.submit(&mut begin)?;
        Ok(Ticket { id, pending, outcome })
    }

    /// Blocks until the submission has completed and says how it went.
    pub(crate) fn wait(&self, ticket: &Ticket) -> Result<Timing> {
        loop {
            // Earlier submissions end before this one, but their settling may be another thread's
            // work in progress: the outcome below is what counts.
            drop(ticket.pending.wait());
            self.order.reap();
            if let Some(outcome) = ticket.outcome.get() {
                return outcome.clone();
            }
        }
    }

    /// True when the submission has completed.
    pub(crate) fn is_done(&self, ticket: &Ticket) -> bool {
        self.order.reap();
        ticket.outcome.get().is_some()
    }

    /// Blocks until everything submitted so far has completed.
    pub(crate) fn drain(&self) {
        self.order.drain();
    }
}

/// Marks all storages as used and hands the work over, or neither.
fn enter(
    id: u64,
    device: &any::Device,
    uses: &[Use],
    submit: &mut Option<impl FnOnce() -> Result<any::Pending>>,
) -> Result<any::Pending> {
    let mut entered: Vec<Entered> = Vec::with_capacity(uses.len());
    let result = (|| {
        for used in uses {
            entered.push(used.memory.usage.enter(id, &used.footprint)?);
        }
        uses.iter().try_for_each(|used| used.memory.flush_host(device))?;
        match submit.take() {
            Some(submit) => submit(),
            None => Err(HalError::InvalidUse { operation: "submit", message: "submitted already".into() }),
        }
    })();
    result.inspect_err(|_| uses.iter().zip(entered).for_each(|(used, before)| used.memory.usage.leave(before)))
}
