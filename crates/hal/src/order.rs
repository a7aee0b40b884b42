//! The order of submissions: numbers, completion, a bound on what is unfinished.
//!
//! Generic over what is submitted, so that the model checker runs this very code without a device.

use std::{collections::VecDeque, fmt::Debug};

use crate::{
    HalError, Result,
    backend::{Pending, Timing},
    sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, lock},
};

/// Submissions that may be unfinished at a time; one more waits for the oldest.
pub(crate) const MAX_IN_FLIGHT: usize = if cfg!(loom) { 1 } else { 64 };

/// What the end of a submission changes.
pub(crate) trait Settle: Debug {
    /// Called once, in the order of submission, before the submission counts as completed.
    fn settle(&self, outcome: Result<Timing>);
}

#[derive(Debug)]
struct Unfinished<P, W> {
    id: u64,
    pending: Arc<P>,
    work: W,
}

#[derive(Debug)]
struct State<P, W> {
    last: u64,
    unfinished: VecDeque<Unfinished<P, W>>,
    lost: Option<String>,
}

/// Submissions in order, with what each keeps until it has completed.
#[derive(Debug)]
pub(crate) struct Order<P, W> {
    state: Mutex<State<P, W>>,
    completed: AtomicU64,
}

impl<P, W> Default for Order<P, W> {
    fn default() -> Self {
        let state = State { last: 0, unfinished: VecDeque::new(), lost: None };
        Self { state: Mutex::new(state), completed: AtomicU64::new(0) }
    }
}

impl<P: Pending, W: Settle> Order<P, W> {
    /// The last submission that has completed, after looking. It has been settled.
    pub(crate) fn completed(&self) -> u64 {
        let completed = self.completed.load(Ordering::Acquire);
        if completed == lock(&self.state).last {
            return completed;
        }
        self.reap();
        self.completed.load(Ordering::Acquire)
    }

    /// Settles every submission that has ended, in order.
    pub(crate) fn reap(&self) {
        let mut finished = Vec::new();
        {
            let mut state = lock(&self.state);
            while let Some(outcome) = state.unfinished.front().and_then(|front| front.pending.poll()) {
                let Some(done) = state.unfinished.pop_front() else { break };
                if let Err(HalError::DeviceLost { message }) = &outcome {
                    state.lost = Some(message.clone());
                }
                done.work.settle(outcome);
                self.completed.store(done.id, Ordering::Release);
                finished.push(done);
            }
        }
        // What only submissions kept is dropped here, outside the lock: it may be the user's.
        drop(finished);
    }

    /// Numbers a submission. `begin` gets the number and hands the work over; on its error the
    /// number is given to the next one.
    pub(crate) fn submit(&self, begin: &mut dyn FnMut(u64) -> Result<(P, W)>) -> Result<(u64, Arc<P>)> {
        let mut state = self.with_room();
        if let Some(message) = &state.lost {
            return Err(HalError::DeviceLost { message: message.clone() });
        }
        let id = state.last + 1;
        let (pending, work) = begin(id)?;
        let pending = Arc::new(pending);
        state.last = id;
        state.unfinished.push_back(Unfinished { id, pending: Arc::clone(&pending), work });
        Ok((id, pending))
    }

    fn with_room(&self) -> MutexGuard<'_, State<P, W>> {
        loop {
            self.reap();
            let oldest = {
                let state = lock(&self.state);
                match state.unfinished.front() {
                    Some(front) if state.unfinished.len() >= MAX_IN_FLIGHT => Arc::clone(&front.pending),
                    _ => return state,
                }
            };
            // How it went is settled by the next reap; here only the time matters.
            drop(oldest.wait());
        }
    }

    /// Blocks until everything submitted so far has completed.
    pub(crate) fn drain(&self) {
        while let Some(newest) = self.newest() {
            drop(newest.wait());
            self.reap();
        }
    }

    fn newest(&self) -> Option<Arc<P>> {
        lock(&self.state).unfinished.back().map(|newest| Arc::clone(&newest.pending))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;

    /// Work that ends as the test says.
    #[derive(Debug, Clone, Default)]
    struct Manual(Arc<StdMutex<Option<Result<Timing>>>>);

    impl Manual {
        fn end(&self, outcome: Result<Timing>) {
            *self.0.lock().expect("no test panics here") = Some(outcome);
        }
    }

    impl Pending for Manual {
        fn poll(&self) -> Option<Result<Timing>> {
            self.0.lock().expect("no test panics here").clone()
        }

        fn wait(&self) -> Result<Timing> {
            self.poll().expect("tests wait only for what has ended")
        }
    }

    /// Notes which work was settled, and how.
    #[derive(Debug, Clone)]
    struct Note(u64, Arc<StdMutex<Vec<(u64, bool)>>>);

    impl Settle for Note {
        fn settle(&self, outcome: Result<Timing>) {
            self.1.lock().expect("no test panics here").push((self.0, outcome.is_ok()));
        }
    }

    type Notes = Arc<StdMutex<Vec<(u64, bool)>>>;

    fn submit(order: &Order<Manual, Note>, notes: &Notes) -> Result<(u64, Manual)> {
        let (id, pending) = order.submit(&mut |id| Ok((Manual::default(), Note(id, Arc::clone(notes)))))?;
        Ok((id, (*pending).clone()))
    }

    fn settled(notes: &Notes) -> Vec<(u64, bool)> {
        notes.lock().expect("no test panics here").clone()
    }

    #[test]
    fn settles_in_order_and_only_once() {
        let (order, notes) = (Order::default(), Notes::default());
        let [first, second, third] = [1, 2, 3].map(|number| {
            let (id, pending) = submit(&order, &notes).expect("submits");
            assert_eq!(id, number);
            pending
        });
        second.end(Ok(Timing::default()));
        assert_eq!((order.completed(), settled(&notes)), (0, vec![]), "the first has not ended");
        let failure = HalError::SubmissionFailed { label: "first".into(), message: "as asked".into() };
        first.end(Err(failure));
        assert_eq!((order.completed(), settled(&notes)), (2, vec![(1, false), (2, true)]));
        order.reap();
        third.end(Ok(Timing::default()));
        order.drain();
        assert_eq!((order.completed(), settled(&notes)), (3, vec![(1, false), (2, true), (3, true)]));
    }

    #[test]
    fn refused_work_has_no_number() {
        let (order, notes) = (Order::default(), Notes::default());
        let refused = order.submit(&mut |_| Err(HalError::ReadOnly { operation: "test" }));
        assert!(matches!(refused, Err(HalError::ReadOnly { .. })));
        assert_eq!(submit(&order, &notes).expect("submits").0, 1);
    }

    #[test]
    fn a_lost_device_takes_no_more_work() {
        let (order, notes) = (Order::default(), Notes::default());
        let (_, first) = submit(&order, &notes).expect("submits");
        let (_, second) = submit(&order, &notes).expect("the loss is not known yet");
        first.end(Err(HalError::DeviceLost { message: "unplugged".into() }));
        let late = submit(&order, &notes);
        assert!(matches!(&late, Err(HalError::DeviceLost { message }) if message == "unplugged"), "{late:?}");
        second.end(Err(HalError::DeviceLost { message: "unplugged".into() }));
        order.drain();
        assert_eq!((order.completed(), settled(&notes)), (2, vec![(1, false), (2, false)]));
    }
}
