//! What the operating system and the processor tell about themselves.

/// Bytes of main memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SystemMemory {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

/// Memory of the machine; where the system does not tell, all that can be addressed.
pub(crate) fn memory() -> SystemMemory {
    #[cfg(target_os = "linux")]
    if let Ok(text) = std::fs::read_to_string("/proc/meminfo") {
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
        };
        if let (Some(total), Some(available)) = (field("MemTotal:"), field("MemAvailable:")) {
            return SystemMemory { total, available };
        }
    }
    #[cfg(unix)]
    {
        // SAFETY: sysconf only reads its argument.
        let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
        if let (Ok(pages), Ok(page)) = (u64::try_from(pages), u64::try_from(page)) {
            let total = pages.saturating_mul(page);
            return SystemMemory { total, available: total };
        }
    }
    SystemMemory { total: isize::MAX as u64, available: isize::MAX as u64 }
}

/// Bytes of a page.
pub(crate) fn page_bytes() -> usize {
    /// What every system's pages are parts of, where the system does not tell.
    const LARGE: usize = 64 * 1024;
    // SAFETY: sysconf only reads its argument.
    #[cfg(unix)]
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok();
    #[cfg(not(unix))]
    let page = None;
    page.filter(|page| page.is_power_of_two()).unwrap_or(LARGE)
}

/// Model name of the processor.
pub(crate) fn processor_name() -> String {
    #[cfg(target_os = "linux")]
    if let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") {
        let line = text.lines().find(|line| line.starts_with("model name"));
        if let Some((_, name)) = line.and_then(|line| line.split_once(':')) {
            return name.trim().to_owned();
        }
    }
    std::env::consts::ARCH.to_owned()
}

/// Instruction sets that matter to our kernels.
pub(crate) fn processor_features() -> Vec<String> {
    #[allow(unused_mut)]
    let mut features: Vec<&str> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt),*) => {$(if std::arch::is_x86_feature_detected!($name) { features.push($name); })*};
        }
        detect!("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vnni", "avx512bf16", "avxvnni");
    }
    #[cfg(target_arch = "aarch64")]
    features.push("neon");
    features.into_iter().map(str::to_owned).collect()
}

/// Asks the system to keep pages in memory; a refusal (limits) is logged and otherwise harmless.
pub(crate) fn lock_memory(start: *mut u8, byte_len: usize) {
    // SAFETY: mlock changes no bytes, and refuses what is not mapped.
    #[cfg(unix)]
    if unsafe { libc::mlock(start.cast(), byte_len) } != 0 {
        tracing::warn!(byte_len, error = %std::io::Error::last_os_error(), "memory could not be locked");
    }
    #[cfg(not(unix))]
    tracing::warn!(byte_len, ?start, "memory locking is not supported on this system");
}

/// Takes back [`lock_memory`].
pub(crate) fn unlock_memory(start: *mut u8, byte_len: usize) {
    // SAFETY: as in `lock_memory`.
    #[cfg(unix)]
    if unsafe { libc::munlock(start.cast(), byte_len) } != 0 {
        tracing::debug!(byte_len, error = %std::io::Error::last_os_error(), "memory was not locked");
    }
    #[cfg(not(unix))]
    let _ = (start, byte_len);
}
