//! The one module that reads the environment.
//!
//! [`VARIABLES`] lists every variable with its values, default and meaning; `docs/env.md` shows the same table. Values are
//! read at each call and never kept. A variable that is set to the empty string counts as unset.

mod cores;

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write,
    path::PathBuf,
    str::FromStr,
};

use anymlx_hal::emulator::{Sanitizer, Schedule};

use crate::{CpuLevel, DeviceSelector, MlxError, Result};

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it may be set to.
    pub values: &'static str,
    /// What holds when it is unset.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Every variable that anymlx reads, its own first.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "ANYMLX_DEVICE",
        values: "`cpu`, `cuda:N`, `metal`, `trace`",
        default: "the best device present",
        meaning: "Device opened when none is asked for by name. A device that is absent is an error, never replaced by another.",
    },
    Variable {
        name: "ANYMLX_THREADS",
        values: "1 to 1024",
        default: "physical cores available to the process",
        meaning: "Threads of the CPU device.",
    },
    Variable {
        name: "ANYMLX_CPU",
        values: "`scalar`, `avx2`, `avx512`",
        default: "the best that the processor has",
        meaning: "Instruction sets that CPU kernels use.",
    },
    Variable {
        name: "ANYMLX_CACHE",
        values: "a folder",
        default: "`anymlx` in the user's cache folder: `$XDG_CACHE_HOME` or `~/.cache` (Linux), `~/Library/Caches` (macOS), `%LOCALAPPDATA%` (Windows)",
        meaning: "Where fetched models and compiled kernels are kept.",
    },
    Variable {
        name: "ANYMLX_LOG",
        values: "a `tracing` filter such as `info` or `anymlx=debug`",
        default: "`warn`",
        meaning: "Which log lines the program writes to stderr.",
    },
    Variable {
        name: "ANYMLX_LOCK_MEMORY",
        values: "`1`, `true`, `on`, `0`, `false`, `off`",
        default: "`off`",
        meaning: "Locks the CPU device's resident buffers into main memory, as far as the system's limit (`ulimit -l`) allows.",
    },
    Variable {
        name: "ANYMLX_HUGE_PAGES",
        values: "`1`, `true`, `on`, `0`, `false`, `off`",
        default: "`on`",
        meaning: "Copies mapped weights into huge pages while the first tokens are generated, where Linux has them and twice the weights' memory is free; `off` leaves them in the file's pages, which other programs share.",
    },
    Variable {
        name: "ANYMLX_RESIDENCY_SET",
        values: "`1`, `true`, `on`, `0`, `false`, `off`",
        default: "`on`",
        meaning: "Keeps the long-lived buffers of an Apple GPU in an `MTLResidencySet`, where the system has them (macOS 15).",
    },
    Variable {
        name: "ANYMLX_METAL_CAPTURE",
        values: "a path that ends in `.gputrace` and does not exist",
        default: "none",
        meaning: "Captures the first 32 submissions to an Apple GPU for Xcode; Metal asks for `METAL_CAPTURE_ENABLED=1` as well.",
    },
    Variable {
        name: "ANYMLX_EMULATOR",
        values: "`plain`, `address`, `thread`, `watched`, `off`",
        default: "`off`",
        meaning: "How the tests run GPU kernels on the host: with which sanitizer, or not at all; `watched`: no other device; plain, and the first launches of each kernel under both sanitizers, in other orders of threads, as well.",
    },
    Variable {
        name: "ANYMLX_EMULATOR_SCHEDULE",
        values: "`forward`, `reverse` or a number",
        default: "`forward`",
        meaning: "In which order the emulator runs the threads of a group between two meetings; a number seeds a new order each time.",
    },
    Variable {
        name: "ANYMLX_EMULATOR_LOG",
        values: "a file",
        default: "none",
        meaning: "Where `ANYMLX_EMULATOR=watched` appends the names of kernels that have passed.",
    },
    Variable {
        name: "HF_TOKEN",
        values: "an access token",
        default: "none",
        meaning: "Sent to the Hugging Face Hub when a model named `hf:ORG/REPO/FILE` is fetched; gated models need it.",
    },
    Variable {
        name: "HF_ENDPOINT",
        values: "a URL",
        default: "`https://huggingface.co`",
        meaning: "Hub that `hf:` models are fetched from.",
    },
];

const PREFIX: &str = "ANYMLX_";
const MAX_THREADS: usize = 1024;

/// `ANYMLX_DEVICE`: text that parses as a [`DeviceSelector`], or `None` when unset.
///
/// # Errors
/// `InvalidArgument` with name, value and what is allowed.
pub fn device() -> Result<Option<String>> {
    parse_device(&from_process)
}

/// `ANYMLX_THREADS`, or the physical cores available to the process when unset; always `Some`, as the options of the CPU
/// device take it.
///
/// # Errors
/// `InvalidArgument` with name, value and what is allowed.
pub fn threads() -> Result<Option<usize>> {
    Ok(Some(parse_threads(&from_process)?.unwrap_or_else(cores::available)))
}

/// `ANYMLX_CPU`, or `None` when unset.
///
/// # Errors
/// `InvalidArgument` with name, value and what is allowed.
pub fn cpu_level() -> Result<Option<CpuLevel>> {
    parse_cpu_level(&from_process)
}

/// `ANYMLX_LOCK_MEMORY`; false when unset.
///
/// # Errors
/// `InvalidArgument` with name, value and what is allowed.
pub fn lock_memory() -> Result<bool> {
    parse_lock_memory(&from_process)
}

/// `ANYMLX_HUGE_PAGES`; true when unset.
///
/// # Errors
/// `InvalidArgument` with name, value and what is allowed.
pub fn huge_pages() -> Result<bool> {
    parse_switch(&from_process, "ANYMLX_HUGE_PAGES", true)
}

/// `ANYMLX_RESIDENCY_SET`; true when unset.
///
/// # Errors
/// `InvalidArgument` with name, value and what is allowed.
pub fn residency_set() -> Result<bool> {
    parse_switch(&from_process, "ANYMLX_RESIDENCY_SET", true)
}

/// `ANYMLX_METAL_CAPTURE`, or `None` when unset.
pub fn metal_capture() -> Option<PathBuf> {
    path(&from_process, "ANYMLX_METAL_CAPTURE")
}

/// How tests run emulated kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmulatorMode {
    /// All launches with this sanitizer.
    Every(Sanitizer),
    /// All launches plain, the first of each kernel under every sanitizer as well.
    Watched,
}

/// `ANYMLX_EMULATOR`: how emulated kernels run in tests, or `None` for `off`.
///
/// # Errors
/// `InvalidArgument` with name, value and what is allowed.
pub fn emulator() -> Result<Option<EmulatorMode>> {
    parse_emulator(&from_process)
}

/// `ANYMLX_EMULATOR_LOG`, or `None` when unset.
pub fn emulator_log() -> Option<PathBuf> {
    from_process("ANYMLX_EMULATOR_LOG").map(PathBuf::from)
}

/// `ANYMLX_EMULATOR_SCHEDULE`.
///
/// # Errors
/// `InvalidArgument` with name, value and what is allowed.
pub fn emulator_schedule() -> Result<Schedule> {
    parse_emulator_schedule(&from_process)
}

/// `ANYMLX_LOG`, or `None` when unset. Whoever installs the subscriber checks the filter.
///
/// # Errors
/// `InvalidArgument` when it is not text.
pub fn log_filter() -> Result<Option<String>> {
    text(&from_process, "ANYMLX_LOG")
}

/// Folder for fetched models and compiled kernels: `ANYMLX_CACHE`, or `anymlx` in the user's cache folder. The folder
/// need not exist.
///
/// # Errors
/// `InvalidArgument` when neither `ANYMLX_CACHE` nor the user's home folder is known.
pub fn cache_dir() -> Result<PathBuf> {
    parse_cache_dir(&from_process, Platform::current())
}

/// `HF_TOKEN`, or `None` when unset.
///
/// # Errors
/// `InvalidArgument` when it is not text.
pub fn hub_token() -> Result<Option<String>> {
    text(&from_process, "HF_TOKEN")
}

/// `HF_ENDPOINT`, or `None` when unset.
///
/// # Errors
/// `InvalidArgument` when it is not an `http://` or `https://` URL.
pub fn hub_endpoint() -> Result<Option<String>> {
    parse_hub_endpoint(&from_process)
}

/// Emits one `tracing` warning for each `ANYMLX_*` variable in the environment that nothing reads, with the nearest name.
pub fn warn_unknown() {
    for (name, nearest) in unknown(env::vars_os().map(|(name, _)| name)) {
        match nearest {
            Some(nearest) => tracing::warn!("environment variable {name} is unknown; did you mean {nearest}?"),
            None => tracing::warn!("environment variable {name} is unknown"),
        }
    }
}

/// [`VARIABLES`] as a Markdown table.
pub fn markdown_table() -> String {
    let mut table = String::from("| variable | values | default | meaning |\n|---|---|---|---|\n");
    for Variable { name, values, default, meaning } in VARIABLES {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{name}` | {values} | {default} | {meaning} |");
    }
    table
}

/// Where values come from: the process, or a test's own table.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn from_process(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// Families of systems by where they keep a user's cached files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Platform {
    Xdg,
    MacOs,
    Windows,
}

impl Platform {
    const fn current() -> Self {
        if cfg!(target_os = "macos") {
            Platform::MacOs
        } else if cfg!(windows) {
            Platform::Windows
        } else {
            Platform::Xdg
        }
    }
}

fn invalid(name: &str, value: impl std::fmt::Display, needed: &str) -> MlxError {
    MlxError::invalid("environment", format_args!("{name} is `{value}`, needed {needed}"))
}

fn path(lookup: Lookup, name: &str) -> Option<PathBuf> {
    lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn text(lookup: Lookup, name: &str) -> Result<Option<String>> {
    match lookup(name).filter(|value| !value.is_empty()).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(value)) => Err(invalid(name, value.display(), "text in UTF-8")),
    }
}

fn parse_device(lookup: Lookup) -> Result<Option<String>> {
    let value = text(lookup, "ANYMLX_DEVICE")?;
    match &value {
        Some(name) if DeviceSelector::from_str(name).is_err() => {
            Err(invalid("ANYMLX_DEVICE", name, "cpu, cuda:N, metal or trace"))
        }
        _ => Ok(value),
    }
}

fn parse_threads(lookup: Lookup) -> Result<Option<usize>> {
    let Some(value) = text(lookup, "ANYMLX_THREADS")? else { return Ok(None) };
    match value.trim().parse() {
        Ok(threads) if (1..=MAX_THREADS).contains(&threads) => Ok(Some(threads)),
        _ => Err(invalid("ANYMLX_THREADS", value, "a number from 1 to 1024")),
    }
}

fn parse_cpu_level(lookup: Lookup) -> Result<Option<CpuLevel>> {
    let Some(value) = text(lookup, "ANYMLX_CPU")? else { return Ok(None) };
    value.parse().map(Some).map_err(|_| invalid("ANYMLX_CPU", value, "scalar, avx2 or avx512"))
}

fn parse_lock_memory(lookup: Lookup) -> Result<bool> {
    parse_switch(lookup, "ANYMLX_LOCK_MEMORY", false)
}

fn parse_switch(lookup: Lookup, name: &str, default: bool) -> Result<bool> {
    let Some(value) = text(lookup, name)? else { return Ok(default) };
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" => Ok(true),
        "0" | "false" | "off" => Ok(false),
        _ => Err(invalid(name, value, "1, true, on, 0, false or off")),
    }
}

fn parse_emulator(lookup: Lookup) -> Result<Option<EmulatorMode>> {
    match text(lookup, "ANYMLX_EMULATOR")?.as_deref() {
        Some("plain") => Ok(Some(EmulatorMode::Every(Sanitizer::None))),
        Some("address") => Ok(Some(EmulatorMode::Every(Sanitizer::Address))),
        Some("thread") => Ok(Some(EmulatorMode::Every(Sanitizer::Thread))),
        Some("watched") => Ok(Some(EmulatorMode::Watched)),
        None | Some("off") => Ok(None),
        Some(value) => Err(invalid("ANYMLX_EMULATOR", value, "plain, address, thread, watched or off")),
    }
}

fn parse_emulator_schedule(lookup: Lookup) -> Result<Schedule> {
    match text(lookup, "ANYMLX_EMULATOR_SCHEDULE")?.as_deref() {
        None | Some("forward") => Ok(Schedule::Forward),
        Some("reverse") => Ok(Schedule::Reverse),
        Some(value) => match value.parse() {
            Ok(seed) => Ok(Schedule::Shuffled(seed)),
            Err(_) => Err(invalid("ANYMLX_EMULATOR_SCHEDULE", value, "forward, reverse or a number")),
        },
    }
}

fn parse_hub_endpoint(lookup: Lookup) -> Result<Option<String>> {
    let Some(value) = text(lookup, "HF_ENDPOINT")? else { return Ok(None) };
    if value.starts_with("http://") || value.starts_with("https://") {
        Ok(Some(value.trim_end_matches('/').to_owned()))
    } else {
        Err(invalid("HF_ENDPOINT", value, "a URL such as https://huggingface.co"))
    }
}

fn parse_cache_dir(lookup: Lookup, platform: Platform) -> Result<PathBuf> {
    if let Some(folder) = path(lookup, "ANYMLX_CACHE") {
        return Ok(folder);
    }
    let parent = match platform {
        // The XDG base directory specification says that a relative path is to be ignored.
        Platform::Xdg => path(lookup, "XDG_CACHE_HOME")
            .filter(|folder| folder.is_absolute())
            .or_else(|| path(lookup, "HOME").map(|home| home.join(".cache"))),
        Platform::MacOs => path(lookup, "HOME").map(|home| home.join("Library").join("Caches")),
        Platform::Windows => path(lookup, "LOCALAPPDATA"),
    };
    parent.map(|folder| folder.join("anymlx")).ok_or_else(|| {
        MlxError::invalid("environment", "no cache folder: the home folder is unknown; set ANYMLX_CACHE to a folder")
    })
}

/// Names with our prefix that are not in the table, sorted, each with the nearest name that is.
fn unknown(names: impl Iterator<Item = OsString>) -> Vec<(String, Option<&'static str>)> {
    let known = || VARIABLES.iter().map(|variable| variable.name);
    let mut found: Vec<_> = names
        .map(|name| OsStr::to_string_lossy(&name).into_owned())
        .filter(|name| name.starts_with(PREFIX) && !known().any(|other| other == name))
        .map(|name| {
            let nearest = known()
                .filter(|other| other.starts_with(PREFIX))
                .map(|other| (strsim::damerau_levenshtein(&name[PREFIX.len()..], &other[PREFIX.len()..]), other))
                .min()
                .filter(|(distance, other)| *distance <= (other.len() - PREFIX.len()) / 2)
                .map(|(_, other)| other);
            (name, nearest)
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests;
