//! Which commands must wait for which: derived from byte ranges.
//!
//! Addresses are absolute in the device's address space, so two handles over the same foreign
//! memory are seen to overlap as well.

use std::ops::Range;

use crate::RangeSet;

/// How a command uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads only.
    Read,
    /// Writes every byte it is responsible for; earlier contents are not read.
    Write,
    /// Reads and writes.
    ReadWrite,
}

impl Access {
    /// True for [`Access::Read`] and [`Access::ReadWrite`].
    pub fn reads(self) -> bool {
        matches!(self, Access::Read | Access::ReadWrite)
    }

    /// True for [`Access::Write`] and [`Access::ReadWrite`].
    pub fn writes(self) -> bool {
        matches!(self, Access::Write | Access::ReadWrite)
    }
}

/// Watches commands in order and says before which of them a barrier is needed: read after write,
/// write after write and write after read, by exact byte extents.
#[derive(Debug, Default)]
pub struct HazardTracker {
    read: RangeSet,
    written: RangeSet,
}

impl HazardTracker {
    /// A tracker that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the accesses of one command. Returns true when a barrier must come before it.
    pub fn access(&mut self, accesses: &[(Range<u64>, Access)]) -> bool {
        let conflict = accesses.iter().any(|(range, access)| {
            self.written.overlap(range).is_some() || (access.writes() && self.read.overlap(range).is_some())
        });
        if conflict {
            self.barrier();
        }
        for (range, access) in accesses {
            if access.reads() {
                self.read.insert(range.clone());
            }
            if access.writes() {
                self.written.insert(range.clone());
            }
        }
        conflict
    }

    /// Notes that a barrier was placed: nothing before it needs watching.
    pub fn barrier(&mut self) {
        self.read.clear();
        self.written.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_true_hazards_need_a_barrier() {
        use Access::{Read, ReadWrite, Write};
        type Side = (Access, Range<u64>);
        let cases: [(&str, Side, Side, bool); 8] = [
            ("read after read", (Read, 0..8), (Read, 0..8), false),
            ("read after write", (Write, 0..8), (Read, 4..12), true),
            ("write after write", (Write, 0..8), (Write, 7..8), true),
            ("write after read", (Read, 0..8), (Write, 0..1), true),
            ("disjoint slices", (Write, 0..8), (Write, 8..16), false),
            ("touching slices", (Write, 0..8), (Read, 8..9), false),
            ("update after read", (Read, 0..8), (ReadWrite, 0..8), true),
            ("read after update", (ReadWrite, 0..8), (Read, 0..8), true),
        ];
        for (name, (first, first_range), (second, second_range), needed) in cases {
            let mut tracker = HazardTracker::new();
            assert!(!tracker.access(&[(first_range, first)]), "{name}: first command");
            assert_eq!(tracker.access(&[(second_range, second)]), needed, "{name}");
        }
    }

    #[test]
    fn a_barrier_forgets_what_came_before() {
        let mut tracker = HazardTracker::new();
        tracker.access(&[(0..8, Access::Write)]);
        tracker.barrier();
        assert!(!tracker.access(&[(0..8, Access::Read)]));
        assert!(tracker.access(&[(0..8, Access::Write)]), "the read after the barrier is still watched");
    }
}
