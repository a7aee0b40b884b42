//! One thread that runs submissions in order, leading the team.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    latch::Latch,
    program::{Program, drop_quietly},
    team::Team,
};
use crate::{
    HalError, Result,
    backend::{Pending as PendingTrait, Timing},
    sync::{
        Arc, AtomicBool, AtomicUsize, Condvar, JoinHandle, Mutex, Ordering, SPINS, current, lock, spawn, spin_loop,
    },
};

type Outcome = Result<Timing>;

/// Submitted work.
#[derive(Debug, Clone)]
pub struct Pending {
    latch: Arc<Latch<Outcome>>,
}

impl PendingTrait for Pending {
    fn poll(&self) -> Option<Outcome> {
        self.latch.is_set().then(|| self.latch.wait())
    }

    fn wait(&self) -> Outcome {
        self.latch.wait()
    }
}

#[derive(Debug)]
struct Job {
    program: Arc<Program>,
    /// Fail with this message in place of running.
    injected: Option<String>,
    submitted: Instant,
    outcome: Arc<Latch<Outcome>>,
}

#[derive(Debug, Default)]
struct Shared {
    jobs: Mutex<VecDeque<Job>>,
    available: Condvar,
    waiting: AtomicUsize,
    stop: AtomicBool,
    profiling: AtomicBool,
    /// Time from start to end of all programs run while profiling.
    profiled_nanoseconds: AtomicUsize,
}

/// The queue and its thread.
#[derive(Debug)]
pub(crate) struct Queue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let team = Team::new(threads)?;
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            spawn("anymlx-0", move || serve(&shared, &team))?
        };
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn push(&self, program: Arc<Program>, injected: Option<String>) -> Pending {
        let outcome = Arc::new(Latch::new());
        let pending = Pending { latch: Arc::clone(&outcome) };
        {
            let mut jobs = lock(&self.shared.jobs);
            jobs.push_back(Job { program, injected, submitted: Instant::now(), outcome });
            self.shared.waiting.fetch_add(1, Ordering::Release);
        }
        self.shared.available.notify_one();
        pending
    }

    /// True on the thread that runs the jobs.
    pub(crate) fn is_current_thread(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == current().id())
    }

    pub(crate) fn set_profiling(&self, on: bool) {
        self.shared.profiling.store(on, Ordering::Relaxed);
    }

    pub(crate) fn profiled_time(&self) -> Duration {
        Duration::from_nanos(self.shared.profiled_nanoseconds.swap(0, Ordering::Relaxed) as u64)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        {
            let _jobs = lock(&self.shared.jobs);
            self.shared.stop.store(true, Ordering::Release);
        }
        self.shared.available.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the queue thread panicked outside a kernel");
        }
    }
}

/// The next job; `None` when the queue has stopped and is empty.
fn next_job(shared: &Shared) -> Option<Job> {
    for _ in 0..SPINS {
        if shared.waiting.load(Ordering::Acquire) > 0 || shared.stop.load(Ordering::Acquire) {
            break;
        }
        spin_loop();
    }
    let mut jobs = lock(&shared.jobs);
    loop {
        if let Some(job) = jobs.pop_front() {
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Some(job);
        }
        if shared.stop.load(Ordering::Acquire) {
            return None;
        }
        jobs = shared.available.wait(jobs).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
}

fn serve(shared: &Shared, team: &Team<Program>) {
    while let Some(job) = next_job(shared) {
        let Job { program, injected, submitted, outcome } = job;
        let started = Instant::now();
        let failure = match injected {
            Some(message) => Some(message),
            None => {
                let profiling = shared.profiling.load(Ordering::Relaxed);
                program.prepare(profiling);
                team.run(&program);
                if profiling {
                    let nanoseconds = started.elapsed().as_nanos() as usize;
                    shared.profiled_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
                }
                program.take_failure()
            }
        };
        let timing = Timing { execution: started.elapsed(), queued: started - submitted };
        let label = program.label.to_string();
        // Whoever has waited finds what the kernels hold given back.
        drop_quietly(program);
        outcome.set(match failure {
            None => Ok(timing),
            Some(message) => Err(HalError::SubmissionFailed { label, message }),
        });
    }
}
