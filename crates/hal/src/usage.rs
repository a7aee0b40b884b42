//! Who uses a storage right now: host guards, submitted commands, failed commands.
//!
//! The one rule: a host guard and a submission that conflict never exist at the same time. Both
//! sides check and enter under the storage's own lock, so whichever comes second is refused.

use std::ops::Range;

use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::{HalError, RangeSet, Result};

/// Kind of a host guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAccess {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
}

impl HostAccess {
    fn name(self) -> &'static str {
        match self {
            HostAccess::Read => "read",
            HostAccess::Write => "write",
        }
    }
}

/// What one submission does to one storage.
#[derive(Debug, Clone, Default)]
pub struct Footprint {
    /// Bytes read before the submission itself writes them.
    pub reads: RangeSet,
    /// Bytes written.
    pub writes: RangeSet,
}

impl Footprint {
    /// Notes a read that follows everything noted so far.
    pub fn read(&mut self, range: Range<u64>) {
        for part in self.writes.missing(range).iter() {
            self.reads.insert(part);
        }
    }

    /// Notes a write.
    pub fn write(&mut self, range: Range<u64>) {
        self.writes.insert(range);
    }
}

#[derive(Debug)]
struct Poison {
    range: Range<u64>,
    cause: String,
}

#[derive(Debug, Default)]
struct Users {
    guards: Vec<(Range<u64>, HostAccess)>,
    poison: Vec<Poison>,
}

/// Use of one storage by the host and by submissions.
#[derive(Debug)]
pub struct Usage {
    users: Mutex<Users>,
    last_read: AtomicU64,
    last_write: AtomicU64,
}

/// What [`Usage::enter`] replaced, for [`Usage::leave`].
#[derive(Debug)]
pub struct Entered {
    last_read: u64,
    last_write: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { users: Mutex::new(Users::default()), last_read: AtomicU64::new(0), last_write: AtomicU64::new(0) }
    }
}

impl Usage {
    /// The last submission that uses the storage in any way; 0 for none.
    pub fn last_use(&self) -> u64 {
        self.last_read.load(Ordering::Acquire).max(self.last_write.load(Ordering::Acquire))
    }

    /// The last submission that writes the storage; 0 for none.
    pub fn last_write(&self) -> u64 {
        self.last_write.load(Ordering::Acquire)
    }

    fn check_in_flight(&self, operation: &'static str, kind: HostAccess, completed: u64) -> Result<()> {
        let submission = match kind {
            HostAccess::Read => self.last_write(),
            HostAccess::Write => self.last_use(),
        };
        if submission > completed { Err(HalError::InFlight { operation, submission }) } else { Ok(()) }
    }

    /// Checks that the host may touch `range` now, without holding it.
    ///
    /// # Errors
    /// `InFlight`, `Locked` by a conflicting guard, `Poisoned` (reading only).
    pub fn check_host(
        &self,
        operation: &'static str,
        range: &Range<u64>,
        kind: HostAccess,
        completed: u64,
    ) -> Result<()> {
        let users = lock(&self.users);
        self.check_in_flight(operation, kind, completed)?;
        users.check_guards(operation, range, kind)?;
        if kind == HostAccess::Read { users.check_poison(operation, range) } else { Ok(()) }
    }

    /// Takes a host guard over `range`, to be given back with [`Self::unlock`].
    ///
    /// # Errors
    /// As [`Self::check_host`].
    pub fn lock_host(
        &self,
        operation: &'static str,
        range: &Range<u64>,
        kind: HostAccess,
        completed: u64,
    ) -> Result<()> {
        let mut users = lock(&self.users);
        self.check_in_flight(operation, kind, completed)?;
        users.check_guards(operation, range, kind)?;
        if kind == HostAccess::Read {
            users.check_poison(operation, range)?;
        }
        users.guards.push((range.clone(), kind));
        Ok(())
    }

    /// Gives back a guard taken by [`Self::lock_host`].
    pub fn unlock_host(&self, range: &Range<u64>, kind: HostAccess) {
        let mut users = lock(&self.users);
        if let Some(at) = users.guards.iter().position(|guard| guard.0 == *range && guard.1 == kind) {
            users.guards.swap_remove(at);
        }
    }

    /// Marks the storage as used by submission `id`. Submissions enter one at a time, in order.
    ///
    /// # Errors
    /// `Locked` when a guard conflicts; `Poisoned` when the submission reads poisoned bytes. On an
    /// error nothing is marked.
    pub fn enter(&self, id: u64, footprint: &Footprint) -> Result<Entered> {
        const OPERATION: &str = "submit";
        let users = lock(&self.users);
        for range in footprint.reads.iter() {
            users.check_guards(OPERATION, &range, HostAccess::Read)?;
            users.check_poison(OPERATION, &range)?;
        }
        for range in footprint.writes.iter() {
            users.check_guards(OPERATION, &range, HostAccess::Write)?;
        }
        let before = Entered {
            last_read: self.last_read.load(Ordering::Relaxed),
            last_write: self.last_write.load(Ordering::Relaxed),
        };
        if !footprint.reads.is_empty() {
            self.last_read.store(id, Ordering::Release);
        }
        if !footprint.writes.is_empty() {
            self.last_write.store(id, Ordering::Release);
        }
        Ok(before)
    }

    /// Takes back the newest [`Self::enter`], whose submission did not happen.
    pub fn leave(&self, before: Entered) {
        let _users = lock(&self.users);
        self.last_read.store(before.last_read, Ordering::Release);
        self.last_write.store(before.last_write, Ordering::Release);
    }

    /// The cause, when a completed submission with this footprint has read poisoned bytes.
    pub fn poisoned_reads(&self, footprint: &Footprint) -> Option<String> {
        let users = lock(&self.users);
        footprint.reads.iter().find_map(|range| users.poison_in(&range).map(|poison| poison.cause.clone()))
    }

    /// Poisons the bytes that a failed submission would have written.
    pub fn poison(&self, footprint: &Footprint, cause: &str) {
        let mut users = lock(&self.users);
        for range in footprint.writes.iter() {
            users.heal(&range);
            users.poison.push(Poison { range, cause: cause.to_owned() });
        }
    }

    /// Takes the poison from bytes that were written again.
    pub fn heal(&self, range: &Range<u64>) {
        lock(&self.users).heal(range);
    }

    /// Takes the poison from everything that a successful submission wrote.
    pub fn heal_writes(&self, footprint: &Footprint) {
        let mut users = lock(&self.users);
        if !users.poison.is_empty() {
            footprint.writes.iter().for_each(|range| users.heal(&range));
        }
    }
}

/// An empty range overlaps nothing.
fn overlaps(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

impl Users {
    fn check_guards(&self, operation: &'static str, range: &Range<u64>, kind: HostAccess) -> Result<()> {
        let conflict = self.guards.iter().find(|(held, held_kind)| {
            (kind == HostAccess::Write || *held_kind == HostAccess::Write) && overlaps(held, range)
        });
        match conflict {
            None => Ok(()),
            Some((held, held_kind)) => {
                Err(HalError::Locked { operation, held: held_kind.name(), start: held.start, end: held.end })
            }
        }
    }

    fn poison_in(&self, range: &Range<u64>) -> Option<&Poison> {
        self.poison.iter().find(|poison| overlaps(&poison.range, range))
    }

    fn check_poison(&self, operation: &'static str, range: &Range<u64>) -> Result<()> {
        match self.poison_in(range) {
            None => Ok(()),
            Some(poison) => Err(HalError::Poisoned {
                operation,
                start: poison.range.start,
                end: poison.range.end,
                cause: poison.cause.clone(),
            }),
        }
    }

    fn heal(&mut self, range: &Range<u64>) {
        if self.poison.iter().any(|poison| overlaps(&poison.range, range)) {
            let old = std::mem::take(&mut self.poison);
            for poison in old {
                let mut rest = RangeSet::new();
                rest.insert(poison.range);
                rest.remove(range);
                self.poison.extend(rest.iter().map(|range| Poison { range, cause: poison.cause.clone() }));
            }
        }
    }
}
