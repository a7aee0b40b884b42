//! Kernel texts to runners, kept on disk.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::{EmulatorOptions, Sanitizer};
use crate::{HalError, KernelSource, Result, dialect};

const EMULATOR_HEADER: &str = include_str!("../../gpu/host/emulator.h");
const RUNNER_HEADER: &str = include_str!("../../gpu/host/runner.h");
const RUNTIME: [(&str, &str); 2] =
    [("emulator", include_str!("../../gpu/host/emulator.cpp")), ("runner", include_str!("../../gpu/host/runner.cpp"))];
/// What a warning is about is refused: NVRTC and Metal may refuse it.
const FLAGS: &[&str] = &[
    "-std=c++14",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-unknown-pragmas",
    "-Werror",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-g1",
];
/// For what launches many threads, and the runtime; watched are few, and compiling takes most of the time.
const OPTIMISED: &str = "-O1";
const UNOPTIMISED: &str = "-O0";
/// Compiled kernels that are kept; the oldest go first.
const KEPT: usize = 2048;

/// A C++ compiler and the folder for what it makes.
#[derive(Debug)]
pub(super) struct Compiler {
    command: PathBuf,
    version: String,
    sanitizer: Sanitizer,
    level: &'static str,
    cache: PathBuf,
}

/// The first line that `command --version` prints.
fn version(command: &Path) -> Option<String> {
    let output = Command::new(command).arg("--version").output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// The number behind the word `version`, or the last word that begins with a digit.
fn major_version(version: &str) -> Option<u32> {
    let mut words = version.split_whitespace();
    let named = words.find(|word| *word == "version").and_then(|_| words.next());
    let last = || version.split_whitespace().rfind(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    named.or_else(last)?.split('.').next()?.parse().ok()
}

impl Compiler {
    /// # Errors
    /// `DeviceNotFound` naming what was looked for.
    pub(super) fn find(options: &EmulatorOptions) -> Result<Self> {
        let newest = ["clang++-22", "clang++-21", "clang++-20", "clang++-19", "clang++-18", "clang++"];
        let candidates: Vec<PathBuf> = match (&options.compiler, options.sanitizer) {
            (Some(named), _) => vec![named.clone()],
            (None, Sanitizer::Thread) => newest.iter().map(PathBuf::from).collect(),
            (None, _) => ["g++", "c++"].iter().chain(&newest).map(PathBuf::from).collect(),
        };
        for command in &candidates {
            let Some(version) = version(command) else { continue };
            let old = version.contains("clang") && major_version(&version).is_none_or(|major| major < 18);
            if options.sanitizer == Sanitizer::Thread && old {
                continue;
            }
            let (command, cache) = (command.clone(), options.cache.clone());
            return Ok(Self { command, version, sanitizer: options.sanitizer, level: OPTIMISED, cache });
        }
        let names: Vec<_> = candidates.iter().map(|command| command.display().to_string()).collect();
        let hint = match options.sanitizer {
            Sanitizer::Thread => "the thread sanitizer needs clang 18 or newer",
            _ => "install g++ or clang++",
        };
        let reason = format!("no C++ compiler among {}; {hint}", names.join(", "));
        Err(HalError::DeviceNotFound { backend: "emulator", reason })
    }

    /// Has a linker that is several times faster than the usual one used, where there is one.
    fn linker(&self) -> Option<&'static str> {
        static FASTER: OnceLock<Mutex<HashMap<PathBuf, Option<&'static str>>>> = OnceLock::new();
        let mut faster = FASTER.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *faster.entry(self.command.clone()).or_insert_with(|| {
            let links = |flag: &&str| {
                let output = Command::new(&self.command).args([*flag, "-Wl,--version"]).output();
                output.is_ok_and(|output| output.status.success())
            };
            ["-fuse-ld=gold", "-fuse-ld=lld"].into_iter().find(links)
        })
    }

    /// Compiles quickly what runs slowly.
    pub(super) fn unoptimised(self) -> Self {
        Self { level: UNOPTIMISED, ..self }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    fn sanitizer_flags(&self) -> &'static [&'static str] {
        match self.sanitizer {
            Sanitizer::None => &[],
            Sanitizer::Address => &["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
            Sanitizer::Thread => &["-fsanitize=thread"],
        }
    }

    /// The runner for the text, from the folder or newly compiled.
    ///
    /// # Errors
    /// `CompileFailed` with the compiler's log; `Io`.
    pub(super) fn compile(&self, source: &KernelSource<'_>) -> Result<PathBuf> {
        let text = dialect::whole_text(source.gpu);
        let mut parts = vec![&*self.version, self.sanitizer.name(), self.level, EMULATOR_HEADER, RUNNER_HEADER, &*text];
        parts.extend(RUNTIME.iter().map(|(_, text)| *text));
        parts.extend(FLAGS);
        let runner = self.cache.join(format!("{:032x}", hash(parts)));
        // One thread compiles, the others wait for what it makes.
        let lock = lock_for(&runner);
        let _guard = lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if runner.is_file() {
            return Ok(runner);
        }
        let work = WorkFolder::new(&self.cache)?;
        for (name, text) in [("gpu.h", dialect::GPU_HEADER), ("host/emulator.h", EMULATOR_HEADER)] {
            work.write(name, text)?;
        }
        work.write("host/runner.h", RUNNER_HEADER)?;
        work.write("kernel.cpp", &text)?;
        let failed = |log: String| HalError::CompileFailed { name: source.name.to_owned(), log };
        let include = format!("-I{}", work.path.join("host").display());
        let mut link = vec![work.path.join("kernel.cpp").into_os_string()];
        for (name, text) in RUNTIME {
            link.push(self.runtime(&work, &include, name, text, source.name)?.into_os_string());
        }
        link.extend(self.linker().map(Into::into));
        let made = work.path.join("runner");
        link.extend(["-o".into(), made.clone().into_os_string()]);
        self.run(&include, self.level, self.sanitizer_flags(), &link).map_err(failed)?;
        fs::rename(&made, &runner).map_err(io("keep a compiled kernel"))?;
        prune(&self.cache);
        Ok(runner)
    }

    /// An object file of the runtime, which all kernels share.
    fn runtime(&self, work: &WorkFolder, include: &str, name: &str, text: &str, kernel: &str) -> Result<PathBuf> {
        let parts = [&*self.version, OPTIMISED, dialect::GPU_HEADER, EMULATOR_HEADER, RUNNER_HEADER, name, text];
        let object = self.cache.join(format!("{:032x}.o", hash(parts.into_iter().chain(FLAGS.iter().copied()))));
        let lock = lock_for(&object);
        let _guard = lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if object.is_file() {
            return Ok(object);
        }
        let file = format!("host/{name}.cpp");
        work.write(&file, text)?;
        let made = work.path.join(format!("{name}.o"));
        let arguments =
            [work.path.join(file).into_os_string(), "-c".into(), "-o".into(), made.clone().into_os_string()];
        let failed = |log| HalError::CompileFailed { name: kernel.to_owned(), log };
        self.run(include, OPTIMISED, &[], &arguments).map_err(failed)?;
        fs::rename(&made, &object).map_err(io("keep a part of the emulator"))?;
        Ok(object)
    }

    /// The log where the compiler fails.
    fn run(&self, include: &str, level: &str, flags: &[&str], arguments: &[std::ffi::OsString]) -> Result<(), String> {
        let mut command = Command::new(&self.command);
        command.args(FLAGS).args([level, include]).args(flags).args(arguments);
        let output = command.output().map_err(|error| format!("{}: {error}", self.command.display()))?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

fn io(operation: &'static str) -> impl Fn(std::io::Error) -> HalError {
    move |error| HalError::Io { operation: operation.into(), message: error.to_string() }
}

/// FNV-1a over the parts, each with its length (<http://www.isthe.com/chongo/tech/comp/fnv/>).
fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> u128 {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let mut take = |byte: u8| hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    for part in parts {
        (part.len() as u64).to_le_bytes().into_iter().for_each(&mut take);
        part.bytes().for_each(&mut take);
    }
    hash
}

fn lock_for(runner: &Path) -> Arc<Mutex<()>> {
    static LOCKS: OnceLock<Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>> = OnceLock::new();
    let mut locks = LOCKS.get_or_init(Mutex::default).lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    locks.retain(|_, lock| Arc::strong_count(lock) > 1);
    Arc::clone(locks.entry(runner.to_owned()).or_default())
}

/// A folder for intermediate files, deleted when dropped. It lies inside the cache, so that the
/// result can be renamed into place.
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    fn new(cache: &Path) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = cache.join(format!("work-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("host")).map_err(io("make a folder for compiled kernels"))?;
        Ok(Self { path })
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.path.join(name), text).map_err(io("write a kernel's text"))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, folder = %self.path.display(), "a folder of intermediate files stays");
        }
    }
}

/// Deletes the oldest runners over the limit. Whoever runs one keeps it open. Objects of the runtime stay.
fn prune(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    let mut runners: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let (path, metadata) = (entry.path(), entry.metadata().ok().filter(fs::Metadata::is_file)?);
            path.extension().is_none().then_some((metadata.modified().ok()?, path))
        })
        .collect();
    runners.sort();
    let over = runners.len().saturating_sub(KEPT);
    for (_, runner) in &runners[..over] {
        if let Err(error) = fs::remove_file(runner) {
            tracing::warn!(%error, file = %runner.display(), "an old compiled kernel stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_knows_where_parts_end() {
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
        assert_eq!(hash(["ab", "c"]), hash(["ab", "c"]));
    }

    #[test]
    fn versions_of_compilers() {
        assert_eq!(major_version("Debian clang version 19.1.7 (3~deb12u1)"), Some(19));
        assert_eq!(major_version("Apple clang version 16.0.0 (clang-1600.0.26.6)"), Some(16));
        assert_eq!(major_version("g++ (Debian 12.2.0-14+deb12u1) 12.2.0"), Some(12));
        assert_eq!(major_version("unknown"), None);
    }
}
