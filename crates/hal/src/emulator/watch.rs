//! Sanitizers for the first launches of each kernel.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::File,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{EmulatorOptions, Sanitizer, Schedule, compiler::Compiler, runner::Runner};
use crate::{HalError, KernelFault, KernelResult, KernelSource, Result, WholeArguments};

/// A build of kernels under which their first launches are carried out as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watcher {
    /// What watches.
    pub sanitizer: Sanitizer,
    /// In which order threads run: results must be those of the launch itself, bit by bit.
    pub schedule: Schedule,
}

/// Threads of a kernel's launches that are watched, the first launch not counted.
const THREADS: u64 = 2048;
/// Threads of the largest launch that is watched.
const LARGEST: u64 = 64 * 1024;

/// The watchers of a device.
#[derive(Debug)]
pub(super) struct Watchers {
    watchers: Vec<(Watcher, Compiler)>,
    options: EmulatorOptions,
}

/// One kernel with its watchers.
#[derive(Debug)]
pub(super) struct Watched {
    watchers: Arc<Watchers>,
    kernel: String,
    text: String,
    /// Of all programs in this process, the kernel's own.
    program: PathBuf,
    runners: OnceLock<Result<Vec<Runner>>>,
}

/// Threads that may still be watched, by program and kernel.
fn left() -> &'static Mutex<HashMap<(PathBuf, String), u64>> {
    static LEFT: OnceLock<Mutex<HashMap<(PathBuf, String), u64>>> = OnceLock::new();
    LEFT.get_or_init(Mutex::default)
}

impl Watchers {
    /// # Errors
    /// As [`Compiler::find`].
    pub(super) fn new(options: &EmulatorOptions) -> Result<Option<Arc<Self>>> {
        let compiler = |watcher: &Watcher| {
            let options = EmulatorOptions { sanitizer: watcher.sanitizer, ..options.clone() };
            Ok((*watcher, Compiler::find(&options)?.unoptimised()))
        };
        let watchers = options.watchers.iter().map(compiler).collect::<Result<Vec<_>>>()?;
        Ok((!watchers.is_empty()).then(|| Arc::new(Self { watchers, options: options.clone() })))
    }

    pub(super) fn watch(self: &Arc<Self>, source: &KernelSource<'_>, program: PathBuf) -> Watched {
        Watched {
            watchers: Arc::clone(self),
            kernel: source.name.to_owned(),
            text: source.gpu.to_owned(),
            program,
            runners: OnceLock::new(),
        }
    }
}

impl Watched {
    /// Carries the launch out by `run`, and before, if it is one of the first, under each watcher.
    pub(super) fn run(
        &self,
        arguments: &mut WholeArguments<'_>,
        run: impl FnOnce(&mut WholeArguments<'_>) -> KernelResult,
    ) -> KernelResult {
        if !self.admits(arguments) {
            return run(arguments);
        }
        let runners = self.runners.get_or_init(|| self.compile()).as_ref();
        let runners = runners.map_err(|error| KernelFault(error.to_string()))?;
        let mut results = Vec::with_capacity(runners.len());
        for runner in runners {
            results.push(runner.results(arguments)?);
        }
        run(arguments)?;
        for ((watcher, _), written) in self.watchers.watchers.iter().zip(results) {
            for (index, bytes) in written {
                if arguments.input::<u8>(index) != bytes {
                    let Watcher { sanitizer, schedule } = watcher;
                    return Err(KernelFault(format!(
                        "`{}` writes other bytes to binding {index} when threads run {schedule:?} ({})",
                        self.kernel,
                        sanitizer.name()
                    )));
                }
            }
        }
        self.note().map_err(|error| KernelFault(format!("note that `{}` was watched: {error}", self.kernel)))
    }

    fn compile(&self) -> Result<Vec<Runner>> {
        let source = KernelSource { name: &self.kernel, gpu: &self.text, cpu: None };
        let compile = |(watcher, compiler): &(Watcher, Compiler)| {
            let program = compiler.compile(&source)?;
            Ok::<_, HalError>(Runner::new(&self.kernel, program, watcher.schedule, self.watchers.options.time_limit))
        };
        self.watchers.watchers.iter().map(compile).collect()
    }

    /// True for a launch that shall be watched, which is then counted.
    fn admits(&self, arguments: &WholeArguments<'_>) -> bool {
        let launch = arguments.launch();
        let groups: u64 = launch.groups.iter().map(|count| u64::from(*count)).product();
        let threads = groups.saturating_mul(launch.threads_per_group.into());
        if threads > LARGEST {
            return false;
        }
        let mut left = left().lock().unwrap_or_else(PoisonError::into_inner);
        match left.entry((self.program.clone(), self.kernel.clone())) {
            Entry::Vacant(entry) => {
                entry.insert(THREADS);
                true
            }
            Entry::Occupied(mut entry) => match entry.get().checked_sub(threads) {
                Some(rest) => {
                    entry.insert(rest);
                    true
                }
                None => false,
            },
        }
    }

    fn note(&self) -> std::io::Result<()> {
        let Some(log) = &self.watchers.options.watch_log else { return Ok(()) };
        File::options().append(true).create(true).open(log)?.write_all(format!("{}\n", self.kernel).as_bytes())
    }
}
