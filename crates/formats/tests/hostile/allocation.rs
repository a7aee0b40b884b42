//! Counts the memory that is in use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is passed on to `System`; the counters do not touch the memory. `realloc` is the provided method, so
// old and new block count together while both exist.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
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
///
/// # Panics
/// When the peak passes the budget. The counters are those of the whole process: one thread at a time.
#[track_caller]
pub fn bounded<R>(budget: Budget, input_len: usize, work: impl FnOnce() -> R) -> (R, f64) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    let peak = PEAK.load(Ordering::Relaxed) - before;
    let allowed = budget.constant + budget.multiple * input_len;
    assert!(peak <= allowed, "{peak} bytes of memory for an input of {input_len} bytes, {allowed} are allowed");
    (result, peak.saturating_sub(budget.constant) as f64 / input_len.max(1) as f64)
}
