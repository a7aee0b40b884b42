//! What a step found: counts of tests, reasons of skips.

use std::{collections::BTreeSet, fmt};

/// Sums over tests, and each reason for which something did not run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    passed: u64,
    failed: u64,
    ignored: u64,
    skips: BTreeSet<String>,
}

impl Report {
    /// A report of one skip.
    pub fn skipped(what: &str, reason: impl fmt::Display) -> Self {
        let mut report = Self::default();
        report.skip(what, reason);
        report
    }

    /// Adds a skip and prints it.
    pub fn skip(&mut self, what: &str, reason: impl fmt::Display) {
        let line = format!("{what}: {reason}");
        println!("skipped: {line}");
        self.skips.insert(line);
    }

    /// Counts one success more.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// Counts one failure more.
    pub fn fail(&mut self) {
        self.failed += 1;
    }

    /// Tests that passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Tests that failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Takes in one line of the output of `cargo test`: a result, a skip, or anything else.
    pub fn read_line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(skip) = line.strip_prefix("skipped: ") {
            self.skips.insert(skip.to_owned());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
            for count in counts.split("; ") {
                match count.split_once(' ').map(|(number, kind)| (number.parse::<u64>(), kind)) {
                    Some((Ok(number), "passed")) => self.passed += number,
                    Some((Ok(number), "failed")) => self.failed += number,
                    Some((Ok(number), "ignored")) => self.ignored += number,
                    _ => {}
                }
            }
        }
    }

    /// Adds another report to this one.
    pub fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skips.extend(other.skips);
    }

    /// Each reason once, in alphabetical order.
    pub fn skips(&self) -> impl Iterator<Item = &str> {
        self.skips.iter().map(String::as_str)
    }
}

/// `N passed, N failed`, and `, N skipped` where something was.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.ignored + self.skips.len() as u64 {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Report {
        let mut report = Report::default();
        lines.iter().for_each(|line| report.read_line(line));
        report
    }

    #[test]
    fn results_of_several_binaries_are_added() {
        let report = read(&[
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s\n",
        ]);
        assert_eq!(report.to_string(), "7 passed, 2 failed, 1 skipped");
        assert_eq!(report.failed(), 2);
    }

    #[test]
    fn a_skip_counts_once_however_often_it_is_printed() {
        let mut report =
            read(&["skipped: cuda: no driver\n", "  skipped: cuda: no driver", "skipped: metal: not macOS"]);
        report.merge(read(&["skipped: cuda: no driver"]));
        assert_eq!(report.skips().collect::<Vec<_>>(), ["cuda: no driver", "metal: not macOS"]);
        assert_eq!(report.to_string(), "0 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn other_lines_count_nothing() {
        let report =
            read(&["", "test result:", "test result: ok", "test result: ok. x passed; failed", "it skipped: no"]);
        assert_eq!(report, Report::default());
        assert_eq!(report.to_string(), "0 passed, 0 failed");
    }
}
