//! A file in memory, whose bytes can be moved into huge pages.
//!
//! A pass over mapped weights meets a new page of 4 KiB every 4 KiB: prefetchers of processors stop there, and each
//! page costs a walk through page tables, through two sets of them under a hypervisor. Huge pages take that away.

use std::{
    io,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use memmap2::{Mmap, MmapMut};

use crate::RangeSet;

/// Bytes of a huge page of x86-64 and, with pages of 4 KiB, of aarch64.
pub(super) const HUGE: usize = 2 << 20;

/// Bytes that are copied before they take the place of the file's: what is in memory twice for a moment.
const STEP: usize = 16 * HUGE;

/// At least `byte_len` bytes of zeros, in huge pages where there is room for some.
pub(super) fn allocate(byte_len: usize) -> Option<MmapMut> {
    if byte_len < HUGE {
        return MmapMut::map_anon(byte_len).ok();
    }
    // The kernel puts whole huge pages at addresses where they can be some.
    let pages = MmapMut::map_anon(byte_len.checked_next_multiple_of(HUGE)?).ok()?;
    #[cfg(target_os = "linux")]
    if let Err(error) = pages.advise(memmap2::Advice::HugePage) {
        tracing::debug!(%error, "the system gives no huge pages");
    }
    Some(pages)
}

/// Pages of a file, read-only.
#[derive(Debug)]
pub(super) struct FileMapping {
    pages: Mmap,
    /// Addresses that hold copies.
    moved: Mutex<RangeSet>,
    moved_bytes: AtomicU64,
}

impl FileMapping {
    pub(super) fn new(pages: Mmap) -> Self {
        Self { pages, moved: Mutex::default(), moved_bytes: AtomicU64::new(0) }
    }

    pub(super) fn start(&self) -> *const u8 {
        self.pages.as_ptr()
    }

    /// Bytes of copies: memory of the process's own.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    /// Copies whole huge pages that `range` touches, and puts them in the place of the file's. Returns the bytes copied.
    pub(super) fn move_to_huge_pages(&self, range: &Range<u64>) -> io::Result<u64> {
        let start = self.pages.as_ptr() as usize;
        let (from, to) = (start + range.start as usize, start + range.end as usize);
        let first = (from / HUGE * HUGE).max(start.next_multiple_of(HUGE));
        let last = to.next_multiple_of(HUGE).min((start + self.pages.len()) / HUGE * HUGE);
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        for gap in moved.missing(first as u64..last.max(first) as u64).iter() {
            for step in (gap.start..gap.end).step_by(STEP) {
                let step = step..gap.end.min(step + STEP as u64);
                // SAFETY: whole huge pages inside the mapping, which lives as long as `self`; the file's bytes do not
                // change, which whoever mapped it has promised.
                unsafe { system::replace_by_copy(step.start as *mut u8, (step.end - step.start) as usize)? };
                bytes += step.end - step.start;
                moved.insert(step);
            }
        }
        self.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::{fs, io, ptr};

    use super::HUGE;

    /// True when the system gives huge pages to who asks for them.
    pub(in crate::cpu) fn has_huge_pages() -> bool {
        fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok_and(|modes| !modes.contains("[never]"))
    }

    /// Puts a copy of `len` bytes at `start`, in huge pages as far as there are any, in their place.
    ///
    /// # Safety
    /// * `start` and `len` are multiples of a huge page, inside one mapping of the caller's.
    /// * Nobody writes these bytes meanwhile. They may be read: the kernel exchanges mappings under the lock that page
    ///   faults take, and both hold the same bytes.
    pub(super) unsafe fn replace_by_copy(start: *mut u8, len: usize) -> io::Result<()> {
        let check = |failed: bool| if failed { Err(io::Error::last_os_error()) } else { Ok(()) };
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory at an address that the kernel chooses.
        let room = unsafe { libc::mmap(ptr::null_mut(), len + HUGE, access, kind, -1, 0) };
        check(room == libc::MAP_FAILED)?;
        let skipped = (room as usize).next_multiple_of(HUGE) - room as usize;
        // SAFETY: `skipped` is at most a huge page, which is what was asked for beyond `len`.
        let copy = unsafe { room.add(skipped) };
        let put = || {
            // SAFETY: advice about our own new memory.
            check(unsafe { libc::madvise(copy, len, libc::MADV_HUGEPAGE) } != 0)?;
            // SAFETY: both have `len` bytes; ours is new, so that they do not overlap.
            unsafe { ptr::copy_nonoverlapping(start, copy.cast(), len) };
            // SAFETY: our own memory, written for the last time.
            check(unsafe { libc::mprotect(copy, len, libc::PROT_READ) } != 0)?;
            let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            // SAFETY: the caller's pages are replaced by pages of the same bytes at the same address.
            check(unsafe { libc::mremap(copy, len, len, how, start) } == libc::MAP_FAILED)
        };
        let result = put();
        // SAFETY: what is left of our own memory: both ends, and the copy where it was not put in place.
        unsafe {
            match result {
                Ok(()) => {
                    libc::munmap(room, skipped);
                    libc::munmap(copy.add(len), HUGE - skipped);
                }
                Err(_) => {
                    libc::munmap(room, len + HUGE);
                }
            }
        }
        result
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(in crate::cpu) fn has_huge_pages() -> bool {
        false
    }

    /// # Safety
    /// None needed: does nothing.
    pub(super) unsafe fn replace_by_copy(_: *mut u8, _: usize) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

pub(super) use system::has_huge_pages;

#[cfg(all(test, target_os = "linux", not(loom)))]
mod tests {
    use std::{io::Write, sync::atomic::AtomicBool};

    use super::*;

    /// Bytes of huge pages that the process has to itself.
    fn huge_bytes() -> u64 {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn bytes_move_under_readers_and_stay_the_same() {
        const LEN: usize = 9 * HUGE + 12_345;
        let bytes: Vec<u8> = (0..LEN as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        // SAFETY: nobody else knows the file.
        let pages = unsafe { Mmap::map(file.as_file()) }.unwrap();
        let mapping = FileMapping::new(pages);
        let start = mapping.start();
        // SAFETY: the mapping's bytes, which are alive as long as it is.
        let seen = unsafe { std::slice::from_raw_parts(start, LEN) };
        let done = AtomicBool::new(false);
        let before = huge_bytes();
        let moved = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert!(seen == bytes);
                    }
                });
            }
            let one = mapping.move_to_huge_pages(&(3 * HUGE as u64 + 1..3 * HUGE as u64 + 2)).unwrap();
            assert_eq!(one, HUGE as u64);
            let moved = one + mapping.move_to_huge_pages(&(0..LEN as u64)).unwrap();
            assert_eq!(mapping.move_to_huge_pages(&(5..LEN as u64)).unwrap(), 0, "all of it has moved");
            done.store(true, Ordering::Relaxed);
            moved
        });
        assert!(moved >= 8 * HUGE as u64 && moved == mapping.moved_bytes(), "{moved}");
        assert!(seen == bytes && mapping.start() == start);
        if has_huge_pages() {
            // Under pressure the system may give small pages for some.
            println!("{moved} bytes moved, huge pages of {} bytes", huge_bytes().saturating_sub(before));
        }
        drop(mapping);
        assert!(std::fs::read(file.path()).unwrap() == bytes, "the file is as it was");
    }
}
