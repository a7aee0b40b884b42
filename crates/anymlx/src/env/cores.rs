//! How many processor cores the process may use.

use std::{collections::BTreeSet, path::Path};

/// Physical cores available to the process, at least 1: threads that share a core count once; affinity and (through the
/// standard library) control-group quotas are respected. Where the system does not tell cores apart, logical processors.
pub(super) fn available() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    if !cfg!(target_os = "linux") {
        return logical;
    }
    let allowed = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:").map(str::to_owned)))
        .and_then(|list| parse_cpu_list(&list));
    let siblings = |cpu: usize| {
        let cpu = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        parse_cpu_list(&std::fs::read_to_string(Path::new(&cpu)).ok()?)
    };
    allowed.and_then(|allowed| physical(&allowed, siblings)).map_or(logical, |cores| cores.min(logical))
}

/// Distinct cores among `allowed` logical processors, each core known by its lowest sibling; `None` when one is unknown.
fn physical(allowed: &BTreeSet<usize>, siblings: impl Fn(usize) -> Option<BTreeSet<usize>>) -> Option<usize> {
    let cores: Option<BTreeSet<usize>> = allowed.iter().map(|&cpu| siblings(cpu)?.first().copied()).collect();
    cores.map(|cores| cores.len()).filter(|&cores| cores > 0)
}

/// The kernel's list format: `0-3,8,10-11`. `None` for anything else, and for numbers past what Linux numbers (8192).
fn parse_cpu_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= 8192 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_the_kernel_writes_them() {
        assert_eq!(parse_cpu_list("\t0-2,8\n"), Some(BTreeSet::from([0, 1, 2, 8])));
        for bad in ["", "a", "3-1", "0-99999999999", "0,,1"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn threads_of_one_core_count_once() {
        let pairs = |cpu: usize| Some(BTreeSet::from([cpu % 4, cpu % 4 + 4]));
        assert_eq!(physical(&(0..8).collect(), pairs), Some(4));
        assert_eq!(physical(&BTreeSet::from([1, 5]), pairs), Some(1));
        assert_eq!(physical(&BTreeSet::from([1, 2]), |_| None), None);
    }

    #[test]
    fn this_machine_has_at_least_one_and_no_more_than_its_logical_processors() {
        let logical = std::thread::available_parallelism().unwrap().get();
        assert!((1..=logical).contains(&available()));
    }
}
