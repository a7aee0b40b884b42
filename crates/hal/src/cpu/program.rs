//! Recorded commands in the form in which the team runs them.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{
    kernel::{CpuKernel, HostRange, Invocation},
    team::{Barrier, Task},
};
use crate::Launch;

/// What one command does.
#[derive(Debug)]
pub(crate) enum Action {
    Kernel { kernel: CpuKernel, bindings: Box<[HostRange]>, params: Box<[u8]>, launch: Launch },
    Copy { from: HostRange, to: HostRange },
    Fill { to: HostRange, value: u8 },
}

/// One command and its partition.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) label: Box<str>,
    pub(crate) action: Action,
    pub(crate) items: usize,
    pub(crate) items_per_chunk: usize,
    /// Thread time spent, while profiling.
    pub(crate) nanoseconds: AtomicU64,
}

impl Command {
    fn chunks(&self) -> usize {
        self.items.div_ceil(self.items_per_chunk)
    }

    /// Work, where 1 is what is worth handing to a thread.
    fn work(&self) -> f64 {
        self.items as f64 / self.items_per_chunk as f64
    }

    fn run_chunk(&self, chunk: usize) -> Result<(), String> {
        let start = chunk * self.items_per_chunk;
        let items = start..start.saturating_add(self.items_per_chunk).min(self.items);
        match &self.action {
            Action::Kernel { kernel, bindings, params, launch } => {
                let invocation = Invocation { bindings, params, items, total_items: self.items, launch: *launch };
                match catch_unwind(AssertUnwindSafe(|| kernel.run(&invocation))) {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(fault)) => Err(format!("kernel `{}`: {}", self.label, fault.0)),
                    Err(panic) => {
                        let message = format!("kernel `{}` panicked: {}", self.label, panic_text(&*panic));
                        drop_quietly(panic);
                        Err(message)
                    }
                }
            }
            // SAFETY: both ranges are valid for the submission and disjoint, and the items of a copy
            // are its bytes.
            Action::Copy { from, to } => unsafe {
                std::ptr::copy_nonoverlapping(from.start.add(items.start), to.start.add(items.start), items.len());
                Ok(())
            },
            // SAFETY: as above.
            Action::Fill { to, value } => unsafe {
                std::ptr::write_bytes(to.start.add(items.start), *value, items.len());
                Ok(())
            },
        }
    }
}

/// Drops a value of the user's; a panic of its own must not end a thread of the team.
pub(super) fn drop_quietly<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::error!(panic = panic_text(&*panic), "a destructor panicked");
        std::mem::forget(panic);
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

/// How many chunks of a member's share have been taken. Alone in its cache line: members count in it all the time.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cursor {
    taken: AtomicUsize,
}

/// The part of `chunks` chunks that member number `member` of `members` begins with.
fn share(chunks: usize, members: usize, member: usize) -> Range<usize> {
    let start = |member: usize| chunks / members * member + member.min(chunks % members);
    start(member)..start(member + 1)
}

/// Commands between two meetings of the team.
///
/// Each member works through neighbouring chunks, and then helps the others: what is prefetched beyond a chunk's end is
/// then what the same member reads next.
#[derive(Debug)]
struct Segment {
    first: usize,
    last: usize,
    chunks: usize,
    /// One thread runs all commands in order: together they are too small to share.
    serial: bool,
    /// One for each member's share.
    cursors: Box<[Cursor]>,
}

/// A list of commands, ready to run any number of times.
#[derive(Debug)]
pub struct Program {
    pub(crate) label: Box<str>,
    pub(crate) commands: Vec<Command>,
    segments: Vec<Segment>,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
    profiling: AtomicBool,
}

impl Program {
    /// Cuts `commands` at `barriers` (indices of the first command after each barrier), for a team of `members`.
    pub(crate) fn new(label: &str, commands: Vec<Command>, barriers: &[usize], members: usize) -> Self {
        let mut segments: Vec<Segment> = Vec::new();
        let mut first = 0;
        for last in barriers.iter().copied().chain([commands.len()]) {
            if last == first {
                continue;
            }
            let group = &commands[first..last];
            let chunks = group.iter().fold(0_usize, |sum, command| sum.saturating_add(command.chunks()));
            let serial = chunks <= 1 || group.iter().map(Command::work).sum::<f64>() <= 1.0;
            match segments.last_mut() {
                Some(previous) if serial && previous.serial => previous.last = last,
                _ => {
                    let cursors = (0..members).map(|_| Cursor::default()).collect();
                    segments.push(Segment { first, last, chunks, serial, cursors });
                }
            }
            first = last;
        }
        Self {
            label: label.into(),
            commands,
            segments,
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            profiling: AtomicBool::new(false),
        }
    }

    /// Forgets the outcome of the last run.
    pub(crate) fn prepare(&self, profiling: bool) {
        self.profiling.store(profiling, Ordering::Relaxed);
        self.failed.store(false, Ordering::Relaxed);
        *self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }

    /// The first failure of the last run.
    pub(crate) fn take_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    fn run_chunk(&self, command: &Command, chunk: usize) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let started = self.profiling.load(Ordering::Relaxed).then(Instant::now);
        if let Err(message) = command.run_chunk(chunk) {
            self.failed.store(true, Ordering::Relaxed);
            self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(message);
        }
        if let Some(started) = started {
            command.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    }

    fn run_segment(&self, segment: &Segment, member: usize) {
        let commands = &self.commands[segment.first..segment.last];
        if segment.serial {
            if segment.cursors[0].taken.fetch_add(1, Ordering::Relaxed) == 0 {
                for command in commands {
                    (0..command.chunks()).for_each(|chunk| self.run_chunk(command, chunk));
                }
            }
            return;
        }
        let members = segment.cursors.len();
        for owner in (member..members).chain(0..member) {
            let share = share(segment.chunks, members, owner);
            let taken = &segment.cursors[owner].taken;
            // Most shares are found empty: those are looked at, not written.
            while taken.load(Ordering::Relaxed) < share.len() {
                let mut chunk = match taken.fetch_add(1, Ordering::Relaxed) {
                    index if index < share.len() => share.start + index,
                    _ => break,
                };
                for command in commands {
                    let chunks = command.chunks();
                    if chunk < chunks {
                        self.run_chunk(command, chunk);
                        break;
                    }
                    chunk -= chunks;
                }
            }
        }
    }
}

impl Task for Program {
    fn work(&self, member: usize, barrier: &Barrier) {
        for segment in &self.segments {
            self.run_segment(segment, member);
            barrier.wait();
            if member == 0 {
                // Everyone has left the segment; the next run finds it fresh.
                segment.cursors.iter().for_each(|cursor| cursor.taken.store(0, Ordering::Relaxed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_neighbours_that_cover_all_chunks() {
        for (chunks, members) in [(0, 3), (1, 64), (7, 2), (64, 64), (1000, 7), (usize::MAX, 5)] {
            let shares: Vec<_> = (0..members).map(|member| share(chunks, members, member)).collect();
            assert_eq!((shares[0].start, shares[members - 1].end), (0, chunks));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].len() >= pair[1].len()));
            assert!(shares[0].len() - shares[members - 1].len() <= 1);
        }
    }
}
