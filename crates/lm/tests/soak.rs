//! Long generation: memory stays what it was, and threads sleep when there is nothing to do.
//!
//! One test, for the counters are those of the whole process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anymlx::{CpuDeviceOptions, MlxDevice, ops::SampleParams};
use anymlx_lm::{Model, Session, SessionOptions};
use anymlx_testing::golden::Golden;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to `System`; the counters do not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(1, Ordering::Relaxed);
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations alive, their bytes, allocations ever made, and pages of the process in memory.
#[derive(Debug, Clone, Copy)]
struct Memory {
    live: usize,
    bytes: usize,
    allocated: usize,
    resident_pages: Option<usize>,
}

fn memory() -> Memory {
    let resident = fs::read_to_string("/proc/self/statm").ok();
    let resident = resident.and_then(|text| text.split_whitespace().nth(1)?.parse().ok());
    Memory {
        live: LIVE.load(Ordering::Relaxed),
        bytes: LIVE_BYTES.load(Ordering::Relaxed),
        allocated: ALLOCATED.load(Ordering::Relaxed),
        resident_pages: resident,
    }
}

/// Name, state and processor time in ticks of every thread of the device.
fn device_threads() -> Vec<(String, char, u64)> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let stat = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("stat")).ok()?;
        let (start, end) = (text.find('(')?, text.rfind(')')?);
        let fields: Vec<&str> = text[end + 1..].split_whitespace().collect();
        let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
        Some((text[start + 1..end].to_owned(), fields.first()?.chars().next()?, ticks(11)? + ticks(12)?))
    };
    tasks.flatten().filter_map(stat).filter(|(name, ..)| name.starts_with("anymlx-")).collect()
}

/// Draws tokens to the end of the context, and begins again, until there are `tokens`.
fn draw(session: &mut Session, prompt: &[u32], tokens: usize) {
    let mut drawn = 0;
    while drawn < tokens {
        session.truncate(0).unwrap();
        session.feed(prompt).unwrap();
        session.first(SampleParams { temperature: 1.0, seed: 3, ..SampleParams::default() }).unwrap();
        let count = (session.capacity() - session.used()).min(tokens - drawn);
        for _ in 0..count {
            session.decode().unwrap();
        }
        drawn += count;
    }
}

#[test]
fn ten_thousand_tokens_leave_no_trace_and_idle_threads_sleep() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/models");
    let golden = Golden::load_all(&directory).unwrap().into_iter().next().unwrap();
    let device = MlxDevice::cpu_with(&CpuDeviceOptions { threads: Some(3), ..Default::default() }).unwrap();
    let model = Model::open(&golden.model, &device).unwrap();
    let mut session = Session::new(&model, SessionOptions::default()).unwrap();
    let prompt = &golden.tokens[..4];
    draw(&mut session, prompt, 1000);

    let start = memory();
    draw(&mut session, prompt, 1000);
    let early = memory();
    draw(&mut session, prompt, 8000);
    let end = memory();
    println!("after 1,000 tokens {start:?}, 2,000 {early:?}, 10,000 {end:?}");
    // Queues may have grown to their greatest length meanwhile, no more than that.
    assert!(end.live <= start.live + 8, "{start:?} {end:?}");
    assert!(end.bytes <= start.bytes + 4096, "{start:?} {end:?}");
    let (first, rest) = (early.allocated - start.allocated, end.allocated - early.allocated);
    assert!(rest <= 8 * first + first / 2, "{first} allocations in 1,000 tokens, then {rest} in 8,000");
    if let (Some(start), Some(end)) = (start.resident_pages, end.resident_pages) {
        // 1 MiB: stacks that were not touched before.
        assert!(end <= start + 256, "{start} resident pages, then {end}");
    }

    if device_threads().is_empty() {
        println!("skipped: idle threads: no /proc/self/task here");
        return;
    }
    let asleep = (0..1000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        device_threads().iter().all(|(_, state, _)| *state == 'S')
    });
    let before = device_threads();
    assert!(asleep, "threads that do not sleep: {before:?}");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(device_threads(), before, "idle threads took processor time");
}
