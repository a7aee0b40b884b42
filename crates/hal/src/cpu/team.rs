//! A persistent team of threads that work through one task at a time.
//!
//! The leader (the queue thread) is member 0. Inside a task the members meet at a [`Barrier`];
//! they spin briefly and then sleep, so that short gaps cost no system call and idle costs nothing.

use crate::sync::{
    Arc, AtomicBool, AtomicU32, AtomicUsize, Condvar, JoinHandle, Mutex, Ordering, SPINS, fence, lock, spawn,
    spin_loop, yield_now,
};

/// Spins, yields, then says that it is time to sleep.
fn spin_until(mut ready: impl FnMut() -> bool, yields: u32) -> bool {
    for _ in 0..SPINS {
        if ready() {
            return true;
        }
        spin_loop();
    }
    for _ in 0..yields {
        if ready() {
            return true;
        }
        yield_now();
    }
    ready()
}

/// A meeting point for all members, usable again at once.
#[derive(Debug)]
pub(crate) struct Barrier {
    members: usize,
    arrived: AtomicUsize,
    generation: AtomicU32,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Barrier {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            members,
            arrived: AtomicUsize::new(0),
            generation: AtomicU32::new(0),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Blocks until all members have called this; everything before is seen by everyone after.
    pub(crate) fn wait(&self) {
        if self.members == 1 {
            return;
        }
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation.wrapping_add(1), Ordering::Release);
            // Either this sees the sleeper, or the sleeper sees the new generation.
            fence(Ordering::SeqCst);
            if self.sleepers.load(Ordering::Relaxed) > 0 {
                let _guard = lock(&self.lock);
                self.wake.notify_all();
            }
            return;
        }
        let passed = || self.generation.load(Ordering::Acquire) != generation;
        if spin_until(passed, if cfg!(loom) { 0 } else { 64 }) {
            return;
        }
        let mut guard = lock(&self.lock);
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while !passed() {
            guard = self.wake.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Work for the whole team.
pub(crate) trait Task: Send + Sync + 'static {
    /// Runs on every member at the same time. Members may meet at `barrier`, all of them as often.
    fn work(&self, member: usize, barrier: &Barrier);
}

#[derive(Debug)]
struct Shared<T> {
    barrier: Barrier,
    generation: AtomicU32,
    stop: AtomicBool,
    task: Mutex<Option<Arc<T>>>,
    wake: Condvar,
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Team<T: Task> {
    shared: Arc<Shared<T>>,
    members: Vec<JoinHandle<()>>,
}

impl<T: Task> Team<T> {
    /// A team of `members` threads, of which the caller of [`Self::run`] is one.
    pub(crate) fn new(members: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            barrier: Barrier::new(members),
            generation: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            task: Mutex::new(None),
            wake: Condvar::new(),
        });
        let mut team = Self { shared, members: Vec::new() };
        for member in 1..members {
            let shared = Arc::clone(&team.shared);
            team.members.push(spawn(&format!("anymlx-{member}"), move || follow(&shared, member))?);
        }
        Ok(team)
    }

    /// Runs `task` on all members and returns when every member has finished.
    pub(crate) fn run(&self, task: &Arc<T>) {
        if !self.members.is_empty() {
            {
                let mut slot = lock(&self.shared.task);
                *slot = Some(Arc::clone(task));
                self.shared.generation.fetch_add(1, Ordering::Release);
            }
            self.shared.wake.notify_all();
        }
        task.work(0, &self.shared.barrier);
        self.shared.barrier.wait();
        if !self.members.is_empty() {
            *lock(&self.shared.task) = None;
        }
    }
}

impl<T: Task> Drop for Team<T> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        {
            let _task = lock(&self.shared.task);
            self.shared.generation.fetch_add(1, Ordering::Release);
        }
        self.shared.wake.notify_all();
        for member in self.members.drain(..) {
            if member.join().is_err() {
                tracing::error!("a worker thread panicked outside a kernel");
            }
        }
    }
}

fn follow<T: Task>(shared: &Shared<T>, member: usize) {
    let mut seen = 0;
    loop {
        let changed = || shared.generation.load(Ordering::Acquire) != seen;
        spin_until(changed, 0);
        let task = {
            let mut task = lock(&shared.task);
            while !changed() {
                task = shared.wake.wait(task).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            task.clone()
        };
        // The leader starts no new generation before this member has met it at the last barrier.
        seen = shared.generation.load(Ordering::Acquire);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        if let Some(task) = task {
            task.work(member, &shared.barrier);
            drop(task);
            shared.barrier.wait();
        }
    }
}
