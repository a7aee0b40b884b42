//! Sets of byte ranges.

use std::ops::Range;

/// A set of bytes as sorted, disjoint, non-adjacent ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range<u64>>,
}

impl RangeSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// True when no byte is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// Index of the first range that ends after `at`.
    fn first_ending_after(&self, at: u64) -> usize {
        self.ranges.partition_point(|range| range.end <= at)
    }

    /// Adds the bytes of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|existing| existing.end < range.start);
        let last = self.ranges.partition_point(|existing| existing.start <= range.end);
        if first == last {
            self.ranges.insert(first, range);
            return;
        }
        let merged = range.start.min(self.ranges[first].start)..range.end.max(self.ranges[last - 1].end);
        self.ranges[first] = merged;
        self.ranges.drain(first + 1..last);
    }

    /// Removes the bytes of `range`.
    pub fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.first_ending_after(range.start);
        let last = self.ranges.partition_point(|existing| existing.start < range.end);
        if first >= last {
            return;
        }
        let left = self.ranges[first].start..range.start;
        let right = range.end..self.ranges[last - 1].end;
        self.ranges.splice(first..last, [left, right].into_iter().filter(|part| !part.is_empty()));
    }

    /// The first overlap of the set with `range`.
    pub fn overlap(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let found = self.ranges.get(self.first_ending_after(range.start))?;
        let overlap = found.start.max(range.start)..found.end.min(range.end);
        (!overlap.is_empty()).then_some(overlap)
    }

    /// The parts of `range` that are not in the set.
    pub fn missing(&self, range: Range<u64>) -> RangeSet {
        let mut rest = RangeSet::new();
        rest.insert(range);
        self.ranges.iter().for_each(|existing| rest.remove(existing));
        rest
    }

    /// The parts of `range` that are in the set.
    pub fn intersection(&self, range: &Range<u64>) -> RangeSet {
        let first = self.first_ending_after(range.start);
        let ranges = self.ranges[first..]
            .iter()
            .map(|existing| existing.start.max(range.start)..existing.end.min(range.end))
            .take_while(|part| !part.is_empty())
            .collect();
        RangeSet { ranges }
    }

    /// Removes every byte.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[Range<u64>]) -> RangeSet {
        let mut set = RangeSet::new();
        ranges.iter().cloned().for_each(|range| set.insert(range));
        set
    }

    #[test]
    fn behaves_as_a_set_of_bytes() {
        let mut state = 12345_u64;
        let mut next = move |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let mut ranges = RangeSet::new();
            let mut bytes = [false; 40];
            for _ in 0..20 {
                let start = next(40);
                let range = start..start + next(41 - start);
                let added = next(3) > 0;
                if added {
                    ranges.insert(range.clone());
                } else {
                    ranges.remove(&range);
                }
                range.for_each(|byte| bytes[byte as usize] = added);
                let listed: Vec<u64> = ranges.iter().flatten().collect();
                let expected: Vec<u64> = (0..40).filter(|&byte| bytes[byte as usize]).collect();
                assert_eq!(listed, expected);
                assert!(ranges.ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
                let from = next(40);
                let probe = from..from + next(41 - from);
                let inside: Vec<u64> = ranges.intersection(&probe).iter().flatten().collect();
                let outside: Vec<u64> = ranges.missing(probe.clone()).iter().flatten().collect();
                assert_eq!(inside, probe.clone().filter(|&b| bytes[b as usize]).collect::<Vec<_>>());
                assert_eq!(outside, probe.clone().filter(|&b| !bytes[b as usize]).collect::<Vec<_>>());
                assert_eq!(ranges.overlap(&probe).is_some(), !inside.is_empty());
            }
        }
    }

    #[test]
    fn merges_neighbours() {
        assert_eq!(set(&[0..4, 8..12, 4..8]), set(std::slice::from_ref(&(0..12))));
    }
}
