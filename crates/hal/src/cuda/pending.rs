//! Submitted work: putting it on the stream in order, and telling how it ended.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use cudarc::driver::sys;

use super::{
    Encoder, Graph, Kernel,
    context::{Event, Shared},
    driver::{DriverError, DriverResult, driver},
    lock,
};
use crate::{
    HalError, Result,
    backend::{Pending as PendingTrait, Timing},
    dialect,
};

/// How old the link between the device's clock and the host's may get before an idle device renews
/// it: the driver gives differences of the device's clock as `f32` milliseconds.
const MAX_BASE_AGE: Duration = Duration::from_secs(10);

/// A moment on both clocks.
#[derive(Debug)]
struct Base {
    device: Event,
    host: Instant,
}

/// What is numbered and ordered under one lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Number of the last submission; it may wrap, unfinished ones are few.
    last: u32,
    base: Option<Base>,
}

impl Queue {
    pub(super) fn take_base(&mut self) -> Option<Event> {
        self.base.take().map(|base| base.device)
    }

    /// Renews the moment on both clocks if it is old and nothing runs.
    fn renew_base(&mut self, shared: &Shared) -> DriverResult {
        let idle = shared.board.ended() == self.last;
        if !idle || self.base.as_ref().is_some_and(|base| base.host.elapsed() < MAX_BASE_AGE) {
            return Ok(());
        }
        let device = match self.take_base() {
            Some(event) => event,
            None => shared.take_event()?,
        };
        // SAFETY: event and stream live.
        unsafe {
            driver!(cuEventRecord(device.handle(), shared.stream()))?;
            driver!(cuEventSynchronize(device.handle()))?;
        }
        self.base = Some(Base { device, host: Instant::now() });
        Ok(())
    }
}

/// What a submission runs, and keeps until it has ended.
#[derive(Debug)]
pub(super) enum Work {
    Commands(Encoder),
    Graph(Arc<Graph>),
    /// Nothing: it fails with this message.
    Injected(String),
}

/// Keeps the code that runs loaded.
#[derive(Debug)]
enum Keep {
    Kernels { _kernels: Vec<Kernel> },
    Graph { _graph: Arc<Graph> },
    Nothing,
}

/// Submitted work.
#[derive(Debug)]
pub struct Pending {
    number: u32,
    label: Arc<str>,
    /// Known at submission: what the device did is of no account then.
    failure: Option<String>,
    /// Taken when dropped.
    events: Option<[Event; 2]>,
    /// From the base on both clocks to the submission.
    submitted: Duration,
    outcome: OnceLock<Result<Timing>>,
    _keep: Keep,
    shared: Arc<Shared>,
}

/// Puts work on the stream.
pub(super) fn submit(shared: &Arc<Shared>, work: Work, label: Arc<str>) -> Result<Pending> {
    shared.check_alive()?;
    let _current = shared.enter()?;
    let mut queue = lock(&shared.queue);
    let submitted = Instant::now();
    let failed = |error| shared.fail(error);
    queue.renew_base(shared).map_err(failed)?;
    let submitted = queue.base.as_ref().map_or(Duration::ZERO, |base| submitted.saturating_duration_since(base.host));
    let number = queue.last.wrapping_add(1);
    let [start, end] = [shared.take_event().map_err(failed)?, shared.take_event().map_err(failed)?];
    let stream = shared.stream();
    // SAFETY: event and stream live.
    unsafe { driver!(cuEventRecord(start.handle(), stream)) }.map_err(failed)?;
    let mut failure = run(shared, &work)?;
    // SAFETY: the board's word is mapped for the device; event and stream live.
    let closed = unsafe {
        driver!(cuStreamWriteValue32_v2(stream, shared.board.address(), number, 0))
            .and_then(|()| driver!(cuEventRecord(end.handle(), stream)))
    };
    queue.last = number;
    if let Err(error) = closed {
        // Work runs that nobody can wait for by its event: it ends here, and so does the device.
        // SAFETY: the stream lives.
        let ended = unsafe { driver!(cuStreamSynchronize(stream)) };
        shared.lose(ended.err().unwrap_or(error).to_string());
        failure = failure.or(Some(error.to_string()));
    }
    let keep = match work {
        Work::Commands(encoder) => Keep::Kernels { _kernels: encoder.kernels() },
        Work::Graph(graph) => Keep::Graph { _graph: graph },
        Work::Injected(_) => Keep::Nothing,
    };
    let (events, shared) = (Some([start, end]), Arc::clone(shared));
    Ok(Pending { number, label, failure, events, submitted, outcome: OnceLock::new(), _keep: keep, shared })
}

/// Puts the commands on the stream; the message is of a command that could not be launched after
/// others were.
fn run(shared: &Shared, work: &Work) -> Result<Option<String>> {
    match work {
        Work::Injected(message) => Ok(Some(message.clone())),
        Work::Graph(graph) => match graph.launch() {
            Ok(()) => Ok(None),
            Err(error) => Err(shared.fail(error)),
        },
        Work::Commands(encoder) => {
            for (index, command) in encoder.commands.iter().enumerate() {
                let Err(error) = command.launch(shared.stream()) else { continue };
                shared.note(error);
                let message = format!("command `{}`: {error}", command.label);
                return match shared.lost() {
                    // Earlier work failed: it is not this submission's commands that did.
                    Some(message) if index == 0 => Err(HalError::DeviceLost { message: message.to_owned() }),
                    _ => Ok(Some(message)),
                };
            }
            Ok(None)
        }
    }
}

impl Pending {
    fn events(&self) -> &[Event; 2] {
        self.events.as_ref().expect("taken only when dropped")
    }

    fn settle(&self, ended: DriverResult) -> Result<Timing> {
        self.outcome.get_or_init(|| self.outcome_of(ended)).clone()
    }

    fn outcome_of(&self, ended: DriverResult) -> Result<Timing> {
        let failed = |message: String| Err(HalError::SubmissionFailed { label: self.label.to_string(), message });
        let board = &self.shared.board;
        if let Err(error) = ended {
            self.shared.note(error);
            let behind = self.number.wrapping_sub(board.ended()).cast_signed();
            match (behind, self.shared.lost()) {
                // Ended before another submission failed; when it ran can no longer be asked.
                (..=0, _) => {}
                (2.., Some(message)) => return Err(HalError::DeviceLost { message: message.to_owned() }),
                _ => return failed(error.explain()),
            }
        }
        if let Some(message) = &self.failure {
            return failed(message.clone());
        }
        match board.take_fault(self.number) {
            None => Ok(self.timing().unwrap_or_default()),
            Some(record) => failed(dialect::fault_message(record)),
        }
    }

    /// When the work ran, by the device's clock.
    fn timing(&self) -> Option<Timing> {
        let [start, end] = self.events();
        let execution = self.elapsed(start, end)?;
        let queue = lock(&self.shared.queue);
        let started = queue.base.as_ref().and_then(|base| self.elapsed(&base.device, start));
        let queued = started.map_or(Duration::ZERO, |started| started.saturating_sub(self.submitted));
        Some(Timing { execution, queued })
    }

    /// The context is current.
    fn elapsed(&self, from: &Event, to: &Event) -> Option<Duration> {
        let mut milliseconds = 0.0_f32;
        // SAFETY: both events have been recorded in this context.
        unsafe { driver!(cuEventElapsedTime(&mut milliseconds, from.handle(), to.handle())) }.ok()?;
        Duration::try_from_secs_f64(f64::from(milliseconds) / 1e3).ok()
    }
}

impl PendingTrait for Pending {
    fn poll(&self) -> Option<Result<Timing>> {
        if let Some(outcome) = self.outcome.get() {
            return Some(outcome.clone());
        }
        let _current = match self.shared.enter() {
            Ok(current) => current,
            Err(error) => return Some(Err(error)),
        };
        // SAFETY: the event was recorded at submission.
        match unsafe { driver!(cuEventQuery(self.events()[1].handle())) } {
            Err(DriverError { code: sys::CUresult::CUDA_ERROR_NOT_READY, .. }) => None,
            ended => Some(self.settle(ended)),
        }
    }

    fn wait(&self) -> Result<Timing> {
        if let Some(outcome) = self.outcome.get() {
            return outcome.clone();
        }
        let _current = self.shared.enter()?;
        // SAFETY: the event was recorded at submission.
        self.settle(unsafe { driver!(cuEventSynchronize(self.events()[1].handle())) })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // What the work runs is given up after this: it must have ended.
        if self.outcome.get().is_none()
            && let Err(error) = self.wait()
        {
            tracing::debug!(%error, "a submission failed that nobody waits for");
        }
        for event in self.events.take().into_iter().flatten() {
            self.shared.give_event(event);
        }
    }
}
