//! Submissions in order: numbering, completion, what a failure does to the buffers.

use std::collections::VecDeque;

use crate::{
    HalError, Result, any,
    backend::{Pending as _, Timing},
    memory::Memory,
    sync::{Arc, AtomicU64, Mutex, Ordering, lock},
    usage::{Entered, Footprint},
};

/// Submissions that may be unfinished at a time; one more waits for the oldest.
const MAX_IN_FLIGHT: usize = 64;

/// One storage and what a submission does to it.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) memory: Arc<Memory>,
    pub(crate) footprint: Footprint,
}

type Outcome = std::sync::OnceLock<Result<Timing>>;

#[derive(Debug)]
struct InFlight {
    id: u64,
    label: Arc<str>,
    uses: Arc<[Use]>,
    pending: Arc<any::Pending>,
    outcome: Arc<Outcome>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    in_flight: VecDeque<InFlight>,
    lost: Option<String>,
}

/// The order of submissions on one device.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    completed: AtomicU64,
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
        if self.completed.load(Ordering::Acquire) < self.last() {
            self.reap();
        }
        self.completed.load(Ordering::Acquire)
    }

    fn last(&self) -> u64 {
        lock(&self.state).last
    }

    /// Settles every submission that has ended, in order.
    pub(crate) fn reap(&self) {
        let mut finished = Vec::new();
        {
            let mut state = lock(&self.state);
            while let Some(outcome) = state.in_flight.front().and_then(|front| front.pending.poll()) {
                let Some(done) = state.in_flight.pop_front() else { break };
                if let Err(HalError::DeviceLost { message }) = &outcome {
                    state.lost = Some(message.clone());
                }
                self.settle(&done, outcome);
                finished.push(done);
            }
        }
        // Memory that only submissions kept is freed here, outside the lock.
        drop(finished);
    }

    fn settle(&self, done: &InFlight, outcome: Result<Timing>) {
        let poisoned = || done.uses.iter().find_map(|used| used.memory.usage.poisoned_reads(&used.footprint));
        let outcome = outcome.and_then(|timing| match poisoned() {
            None => Ok(timing),
            Some(cause) => Err(HalError::SubmissionFailed {
                label: done.label.to_string(),
                message: format!("it read bytes that earlier work failed to write ({cause})"),
            }),
        });
        match &outcome {
            Ok(_) => done.uses.iter().for_each(|used| used.memory.usage.heal_writes(&used.footprint)),
            Err(error) => {
                let cause = error.to_string();
                tracing::error!(label = &*done.label, %error, "submission failed");
                done.uses.iter().for_each(|used| used.memory.usage.poison(&used.footprint, &cause));
            }
        }
        done.outcome.set(outcome).expect("a submission is settled once");
        self.completed.store(done.id, Ordering::Release);
    }

    /// Numbers a submission and hands it over through `submit`.
    pub(crate) fn submit(
        &self,
        device: &any::Device,
        label: &Arc<str>,
        uses: &Arc<[Use]>,
        submit: impl FnOnce() -> Result<any::Pending>,
    ) -> Result<Ticket> {
        loop {
            self.reap();
            let oldest = {
                let state = lock(&self.state);
                if state.in_flight.len() < MAX_IN_FLIGHT {
                    None
                } else {
                    state.in_flight.front().map(|f| f.pending.clone())
                }
            };
            // The outcome is settled by the next reap; here only the time matters.
            match oldest {
                Some(oldest) => drop(oldest.wait()),
                None => break,
            }
        }
        let mut state = lock(&self.state);
        if let Some(message) = &state.lost {
            return Err(HalError::DeviceLost { message: message.clone() });
        }
        let id = state.last + 1;
        let mut entered: Vec<Entered> = Vec::with_capacity(uses.len());
        let result = (|| {
            for used in uses.iter() {
                entered.push(used.memory.usage.enter(id, &used.footprint)?);
            }
            uses.iter().try_for_each(|used| used.memory.flush_host(device))?;
            submit()
        })();
        let pending = match result {
            Ok(pending) => Arc::new(pending),
            Err(error) => {
                uses.iter().zip(entered).for_each(|(used, before)| used.memory.usage.leave(before));
                return Err(error);
            }
        };
        uses.iter().for_each(|used| used.memory.note_device_writes(&used.footprint));
        state.last = id;
        let outcome = Arc::new(Outcome::new());
        let ticket = Ticket { id, pending: pending.clone(), outcome: outcome.clone() };
        state.in_flight.push_back(InFlight { id, label: label.clone(), uses: uses.clone(), pending, outcome });
        Ok(ticket)
    }

    /// Blocks until the submission has completed and says how it went.
    pub(crate) fn wait(&self, ticket: &Ticket) -> Result<Timing> {
        loop {
            // Earlier submissions end before this one, but their settling may be another thread's
            // work in progress: the outcome below is what counts.
            drop(ticket.pending.wait());
            self.reap();
            if let Some(outcome) = ticket.outcome.get() {
                return outcome.clone();
            }
        }
    }

    /// True when the submission has completed.
    pub(crate) fn is_done(&self, ticket: &Ticket) -> bool {
        self.reap();
        ticket.outcome.get().is_some()
    }

    /// Blocks until everything submitted so far has completed.
    pub(crate) fn drain(&self) {
        while let Some(newest) = { lock(&self.state).in_flight.back().map(|newest| newest.pending.clone()) } {
            drop(newest.wait());
            self.reap();
        }
    }
}
