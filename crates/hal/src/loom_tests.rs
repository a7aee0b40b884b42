//! Model checks of what threads do to each other: every interleaving (up to a bound on preemptions
//! where said), with the code that ships.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p anymlx-hal --release --lib loom
//! ```

use std::{ops::Range, sync::OnceLock};

use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::{
    HalError, Result,
    backend::{Pending, Timing},
    cpu::{
        latch::Latch,
        program::Program,
        queue::Queue,
        team::{Barrier, Task, Team},
    },
    order::{Order, Settle},
    sync::Arc,
    usage::{Footprint, HostAccess, Usage},
};

/// Checks all interleavings with at most `preemptions` forced switches.
fn bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A place whose unordered accesses the model checker reports.
#[derive(Debug)]
struct Place(UnsafeCell<usize>);

// SAFETY: loom checks that accesses are ordered; that is what the tests are about.
unsafe impl Sync for Place {}
// SAFETY: a number belongs to no thread.
unsafe impl Send for Place {}

impl Place {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn get(&self) -> usize {
        // SAFETY: loom checks that no write is concurrent.
        self.0.with(|place| unsafe { *place })
    }

    fn set(&self, value: usize) {
        // SAFETY: loom checks that no other access is concurrent.
        self.0.with_mut(|place| unsafe { *place = value });
    }
}

#[test]
fn a_latch_wakes_who_waits_and_then_is_set() {
    loom::model(|| {
        let latch = Arc::new(Latch::new());
        let place = Arc::new(Place::new());
        let setter = {
            let (latch, place) = (latch.clone(), place.clone());
            thread::spawn(move || {
                place.set(7);
                latch.set(1);
            })
        };
        if latch.is_set() {
            assert_eq!(place.get(), 7);
        }
        assert_eq!(latch.wait(), 1);
        assert!(latch.is_set(), "submissions are settled by polling after the wait");
        assert_eq!(place.get(), 7);
        setter.join().unwrap();
    });
}

/// Every member writes its place, meets the others, reads all places, and meets them again.
fn meet(barrier: &Barrier, places: &[Place], member: usize, rounds: Range<usize>) {
    for round in rounds {
        places[member].set(round);
        barrier.wait();
        places.iter().for_each(|place| assert_eq!(place.get(), round));
        barrier.wait();
    }
}

fn barrier_model(members: usize, rounds: usize) {
    let barrier = Arc::new(Barrier::new(members));
    let places: Arc<Vec<Place>> = Arc::new((0..members).map(|_| Place::new()).collect());
    let others: Vec<_> = (1..members)
        .map(|member| {
            let (barrier, places) = (barrier.clone(), places.clone());
            thread::spawn(move || meet(&barrier, &places, member, 1..rounds + 1))
        })
        .collect();
    meet(&barrier, &places, 0, 1..rounds + 1);
    others.into_iter().for_each(|other| other.join().unwrap());
}

#[test]
fn a_barrier_of_two_orders_everything_and_loses_no_one() {
    bounded(5, || barrier_model(2, 2));
}

#[test]
fn a_barrier_of_three_orders_everything_and_loses_no_one() {
    bounded(3, || barrier_model(3, 1));
}

#[derive(Debug)]
struct Work {
    places: Vec<Place>,
    calls: AtomicUsize,
}

impl Task for Work {
    fn work(&self, member: usize, barrier: &Barrier) {
        self.places[member].set(self.places[member].get() + 1);
        barrier.wait();
        let runs = self.places[member].get();
        self.places.iter().for_each(|place| assert_eq!(place.get(), runs));
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

fn team_model(members: usize, runs: usize) {
    let team: Team<Work> = Team::new(members).unwrap();
    let places = (0..members).map(|_| Place::new()).collect();
    let mut work = Arc::new(Work { places, calls: AtomicUsize::new(0) });
    for run in 1..=runs {
        team.run(&work);
        let own = Arc::get_mut(&mut work).expect("members let go of the task before the run ends");
        assert_eq!(own.calls.load(Ordering::Relaxed), members * run, "everyone has run the task once");
        own.places.iter().for_each(|place| assert_eq!(place.get(), run));
    }
    drop(team);
}

#[test]
fn a_team_of_two_runs_each_task_once_and_stops() {
    bounded(3, || team_model(2, 2));
}

#[test]
fn a_team_of_three_runs_each_task_once_and_stops() {
    bounded(2, || team_model(3, 1));
}

const OPERATION: &str = "test";

fn footprint(access: HostAccess, range: Range<u64>) -> Footprint {
    let mut footprint = Footprint::default();
    match access {
        HostAccess::Read => footprint.read(range),
        HostAccess::Write => footprint.write(range),
    }
    footprint
}

/// One guard and one submission on the same bytes, of which at least one writes.
fn guard_against_submission(guard: HostAccess, submission: HostAccess) {
    let usage = Arc::new(Usage::default());
    let place = Arc::new(Place::new());
    let submitter = {
        let (usage, place) = (usage.clone(), place.clone());
        thread::spawn(move || {
            let entered = usage.enter(1, &footprint(submission, 0..8));
            // The work is never said to have completed: no guard may follow it either.
            match (&entered, submission) {
                (Ok(_), HostAccess::Write) => place.set(1),
                (Ok(_), HostAccess::Read) => drop(place.get()),
                (Err(error), _) => assert!(matches!(error, HalError::Locked { .. }), "{error}"),
            }
            entered.is_ok()
        })
    };
    let locked = usage.lock_host(OPERATION, &(4..12), guard, 0);
    match (&locked, guard) {
        (Ok(()), HostAccess::Write) => place.set(2),
        (Ok(()), HostAccess::Read) => drop(place.get()),
        (Err(error), _) => assert!(matches!(error, HalError::InFlight { .. }), "{error}"),
    }
    let locked = locked.is_ok();
    let submitted = submitter.join().unwrap();
    assert!(locked != submitted, "guard {locked}, submission {submitted}: exactly one succeeds");
}

#[test]
fn a_guard_and_a_conflicting_submission_never_both_succeed() {
    use HostAccess::{Read, Write};
    for (guard, submission) in [(Read, Write), (Write, Read), (Write, Write)] {
        loom::model(move || guard_against_submission(guard, submission));
    }
}

#[test]
fn a_released_guard_lets_the_submission_see_what_it_wrote() {
    loom::model(|| {
        let usage = Arc::new(Usage::default());
        let place = Arc::new(Place::new());
        let host = {
            let (usage, place) = (usage.clone(), place.clone());
            thread::spawn(move || {
                let locked = usage.lock_host(OPERATION, &(0..8), HostAccess::Write, 0);
                if locked.is_ok() {
                    place.set(2);
                    usage.unlock_host(&(0..8), HostAccess::Write);
                }
                locked.is_ok()
            })
        };
        let seen = usage.enter(1, &footprint(HostAccess::Read, 0..8)).is_ok().then(|| place.get());
        let wrote = host.join().unwrap();
        match seen {
            Some(0) => assert!(!wrote, "the guard came after the submission"),
            Some(2) => assert!(wrote),
            Some(other) => panic!("{other} was never written"),
            None => assert!(wrote, "only the guard can have refused the submission"),
        }
    });
}

#[test]
fn two_guards_on_the_same_bytes_never_both_write() {
    loom::model(|| {
        let usage = Arc::new(Usage::default());
        let place = Arc::new(Place::new());
        let write = |usage: &Usage, place: &Place| {
            if usage.lock_host(OPERATION, &(0..8), HostAccess::Write, 0).is_ok() {
                place.set(place.get() + 1);
                usage.unlock_host(&(0..8), HostAccess::Write);
            }
        };
        let other = {
            let (usage, place) = (usage.clone(), place.clone());
            thread::spawn(move || write(&usage, &place))
        };
        write(&usage, &place);
        other.join().unwrap();
    });
}

/// Submitted work that ends when its latch is set.
#[derive(Debug, Clone)]
struct Device(Arc<Latch<Result<Timing>>>);

impl Device {
    fn new() -> Self {
        Self(Arc::new(Latch::new()))
    }

    fn end(&self, outcome: Result<Timing>) {
        self.0.set(outcome);
    }
}

impl Pending for Device {
    fn poll(&self) -> Option<Result<Timing>> {
        self.0.is_set().then(|| self.0.wait())
    }

    fn wait(&self) -> Result<Timing> {
        self.0.wait()
    }
}

/// What settling does, as in the ledger.
#[derive(Debug)]
struct Uses {
    usage: Arc<Usage>,
    footprint: Footprint,
    outcome: Arc<OnceLock<bool>>,
}

impl Settle for Uses {
    fn settle(&self, outcome: Result<Timing>) {
        match &outcome {
            Ok(_) => self.usage.heal_writes(&self.footprint),
            Err(error) => self.usage.poison(&self.footprint, &error.to_string()),
        }
        self.outcome.set(outcome.is_ok()).expect("settled once");
    }
}

type TestOrder = Order<Device, Uses>;

fn submit(
    order: &TestOrder,
    usage: &Arc<Usage>,
    footprint: &Footprint,
    device: &Device,
) -> Result<(u64, Arc<OnceLock<bool>>)> {
    let outcome = Arc::new(OnceLock::new());
    let (id, _) = order.submit(&mut |id| {
        usage.enter(id, footprint)?;
        let uses = Uses { usage: usage.clone(), footprint: footprint.clone(), outcome: outcome.clone() };
        Ok((device.clone(), uses))
    })?;
    Ok((id, outcome))
}

#[test]
fn a_guard_that_is_granted_sees_what_completed_work_wrote() {
    bounded(5, || {
        let (order, usage, place) =
            (Arc::new(TestOrder::default()), Arc::new(Usage::default()), Arc::new(Place::new()));
        let device = Device::new();
        submit(&order, &usage, &footprint(HostAccess::Write, 0..8), &device).unwrap();
        let running = {
            let (device, place) = (device.clone(), place.clone());
            thread::spawn(move || {
                place.set(1);
                device.end(Ok(Timing::default()));
            })
        };
        let reaper = {
            let order = order.clone();
            thread::spawn(move || order.reap())
        };
        match usage.lock_host(OPERATION, &(0..8), HostAccess::Read, order.completed()) {
            Ok(()) => assert_eq!(place.get(), 1),
            Err(error) => assert!(matches!(error, HalError::InFlight { .. }), "{error}"),
        }
        running.join().unwrap();
        reaper.join().unwrap();
        assert_eq!(order.completed(), 1);
        usage.check_host(OPERATION, &(0..8), HostAccess::Read, order.completed()).unwrap();
    });
}

#[test]
fn completed_work_that_failed_has_poisoned_its_buffers() {
    bounded(5, || {
        let (order, usage) = (Arc::new(TestOrder::default()), Arc::new(Usage::default()));
        let device = Device::new();
        let (_, outcome) = submit(&order, &usage, &footprint(HostAccess::Write, 0..8), &device).unwrap();
        let running = {
            let device = device.clone();
            let message = "injected".to_owned();
            let failure = HalError::SubmissionFailed { label: "model".into(), message };
            thread::spawn(move || device.end(Err(failure)))
        };
        let reaper = {
            let order = order.clone();
            thread::spawn(move || order.reap())
        };
        match usage.lock_host(OPERATION, &(0..8), HostAccess::Read, order.completed()) {
            Ok(()) => panic!("bytes that failed work would have written were handed out"),
            Err(HalError::Poisoned { .. }) => assert_eq!(outcome.get(), Some(&false)),
            Err(error) => assert!(matches!(error, HalError::InFlight { .. }), "{error}"),
        }
        running.join().unwrap();
        reaper.join().unwrap();
        let late = submit(&order, &usage, &footprint(HostAccess::Read, 0..8), &Device::new());
        assert!(matches!(late, Err(HalError::Poisoned { .. })), "{late:?}");
    });
}

/// Under the model checker one submission may be unfinished at a time, so the second submitter
/// waits for the first one's work.
#[test]
fn submitters_get_different_numbers_and_wait_for_room() {
    bounded(4, || {
        let (order, usage) = (Arc::new(TestOrder::default()), Arc::new(Usage::default()));
        let submitter = |order: Arc<TestOrder>, usage: Arc<Usage>, at: u64| {
            let device = Device::new();
            let (id, _) = submit(&order, &usage, &footprint(HostAccess::Write, at..at + 1), &device).unwrap();
            device.end(Ok(Timing::default()));
            id
        };
        let other = {
            let (order, usage) = (order.clone(), usage.clone());
            thread::spawn(move || submitter(order, usage, 0))
        };
        let mut ids = [submitter(order.clone(), usage.clone(), 1), other.join().unwrap()];
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
        order.drain();
        assert_eq!(order.completed(), 2);
    });
}

#[test]
fn a_queue_runs_what_it_was_given_and_stops() {
    bounded(3, || {
        let queue = Queue::new(1).unwrap();
        let program = || Arc::new(Program::new("model", Vec::new(), &[], 2));
        let first = queue.push(program(), None);
        let second = queue.push(program(), Some("injected".into()));
        assert!(second.wait().is_err());
        assert!(first.poll().is_some_and(|outcome| outcome.is_ok()), "submissions end in order");
        let last = queue.push(program(), None);
        drop(queue);
        assert!(last.poll().is_some_and(|outcome| outcome.is_ok()), "what was submitted runs before the end");
    });
}
