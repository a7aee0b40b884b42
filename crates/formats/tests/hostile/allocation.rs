//! Counts the memory in use: that of each thread by itself, and that of the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

struct Counting;

thread_local! {
    /// Bytes allocated less bytes freed by this thread, which may free what another allocated.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

static PROCESS_LIVE: AtomicIsize = AtomicIsize::new(0);
static PROCESS_PEAK: AtomicIsize = AtomicIsize::new(0);

fn add(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
    let live = PROCESS_LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PROCESS_PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is passed on to `System`; the counters do not touch the memory, and being constant at first and without
// destructors they neither allocate nor end before their thread. `realloc` is the provided method, so
// old and new block count together while both exist.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory that may be in use while an input is read.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes whatever the input.
    pub constant: usize,
    /// Bytes for each byte of input besides.
    pub multiple: usize,
}

impl Budget {
    /// For readers of headers: the constant is for error messages.
    pub const HEADER: Budget = Budget { constant: 4096, multiple: 20 };
}

/// Runs `work` on an input of `input_len` bytes and gives its result with the peak of memory per byte beyond the constant.
/// Only the calling thread is counted, so that other tests and what runs them do not matter; `work` must start no threads.
///
/// # Panics
/// When the peak passes the budget.
#[track_caller]
pub fn bounded<R>(budget: Budget, input_len: usize, work: impl FnOnce() -> R) -> (R, f64) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, within(budget, input_len, PEAK.get() - before))
}

/// As [`bounded`] for work that starts threads: the whole process is counted, so that nothing else should run beside it, and the
/// budget's constant must hold what the runner of tests allocates meanwhile.
#[track_caller]
pub fn bounded_process<R>(budget: Budget, input_len: usize, work: impl FnOnce() -> R) -> R {
    let before = PROCESS_LIVE.load(Ordering::Relaxed);
    PROCESS_PEAK.store(before, Ordering::Relaxed);
    let result = work();
    within(budget, input_len, PROCESS_PEAK.load(Ordering::Relaxed) - before);
    result
}

#[track_caller]
fn within(budget: Budget, input_len: usize, peak: isize) -> f64 {
    let peak = peak.max(0).unsigned_abs();
    let allowed = budget.constant + budget.multiple * input_len;
    assert!(peak <= allowed, "{peak} bytes of memory for an input of {input_len} bytes, {allowed} are allowed");
    peak.saturating_sub(budget.constant) as f64 / input_len.max(1) as f64
}
