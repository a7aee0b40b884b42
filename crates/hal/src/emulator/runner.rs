//! The other side of `gpu/host/runner.cpp`, which describes the messages.

use std::{
    io::{Read, Seek, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use super::Schedule;
use crate::{KernelFault, KernelResult, WholeArguments, dialect};

/// What a message shows of a report.
const REPORT_CHARS: usize = 6000;

/// Bindings by index, and what a launch wrote to them.
pub(super) type Written = Vec<(usize, Vec<u8>)>;

/// One kernel of a compiled text, and the process that runs it.
#[derive(Debug)]
pub(super) struct Runner {
    kernel: String,
    program: PathBuf,
    schedule: Schedule,
    time_limit: Duration,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    requests: Option<ChildStdin>,
    answers: ChildStdout,
    reports: std::fs::File,
}

impl Process {
    fn start(program: &PathBuf, time_limit: Duration) -> std::io::Result<Self> {
        let reports = unnamed_file(program)?;
        let mut child = Command::new(program)
            .arg(time_limit.as_secs().max(1).to_string())
            .env("ASAN_OPTIONS", "exitcode=66:detect_leaks=0")
            .env("UBSAN_OPTIONS", "exitcode=66:halt_on_error=1")
            .env("TSAN_OPTIONS", "exitcode=66:halt_on_error=1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(reports.try_clone()?)
            .spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => Ok(Self { child, requests: Some(requests), answers, reports }),
            _ => Err(std::io::Error::other("the runner has no pipes")),
        }
    }

    /// What the process left behind.
    fn autopsy(mut self) -> String {
        self.requests = None;
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let mut report = Vec::new();
        let read = self.reports.rewind().and_then(|()| self.reports.read_to_end(&mut report));
        match read {
            Ok(_) => describe(&status, &String::from_utf8_lossy(&report)),
            Err(error) => format!("{status}; its report cannot be read: {error}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its requests ends the runner.
        self.requests = None;
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "a kernel's runner was not waited for");
        }
    }
}

/// A file that is gone when it is closed.
fn unnamed_file(beside: &std::path::Path) -> std::io::Result<std::fs::File> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = beside.with_extension(format!("report-{}-{number}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The end of a runner in words.
fn describe(status: &str, report: &str) -> String {
    if let Some(record) = report.lines().find_map(fault) {
        return dialect::fault_message(record);
    }
    let shown: String = report.trim().chars().take(REPORT_CHARS).collect();
    if shown.is_empty() { status.to_owned() } else { format!("{status}\n{shown}") }
}

/// The record of a line that ends with `fault CODE A B C`.
fn fault(line: &str) -> Option<[u32; 4]> {
    let mut numbers = line.rsplit_once(": fault ")?.1.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?, next()?])
}

impl Runner {
    pub(super) fn new(kernel: &str, program: PathBuf, schedule: Schedule, time_limit: Duration) -> Self {
        Self { kernel: kernel.to_owned(), program, schedule, time_limit, process: Mutex::new(None) }
    }

    /// Runs one dispatch.
    pub(super) fn run(&self, arguments: &mut WholeArguments<'_>) -> KernelResult {
        for (index, bytes) in self.results(arguments)? {
            arguments.output::<u8>(index).copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// What one dispatch would write, by binding.
    pub(super) fn results(&self, arguments: &WholeArguments<'_>) -> Result<Written, KernelFault> {
        let mut slot = self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut process = match slot.take() {
            Some(process) => process,
            None => Process::start(&self.program, self.time_limit)
                .map_err(|error| format!("start {}: {error}", self.program.display()))?,
        };
        // A pipe breaks when the runner ends: its report tells why.
        let sent = self.send(&mut process, arguments);
        match sent.and_then(|()| receive(&mut process.answers, arguments)) {
            Ok(outcome) => {
                *slot = Some(process);
                outcome
            }
            Err(_) => Err(KernelFault(process.autopsy())),
        }
    }

    fn send(&self, process: &mut Process, arguments: &WholeArguments<'_>) -> std::io::Result<()> {
        let Some(requests) = &mut process.requests else { return Err(std::io::ErrorKind::BrokenPipe.into()) };
        let mut request = vec![b'R'];
        let word = |request: &mut Vec<u8>, value: u32| request.extend(value.to_le_bytes());
        let long = |request: &mut Vec<u8>, value: u64| request.extend(value.to_le_bytes());
        word(&mut request, self.kernel.len() as u32);
        request.extend(self.kernel.as_bytes());
        let launch = arguments.launch();
        for count in launch.groups {
            word(&mut request, count);
        }
        word(&mut request, launch.threads_per_group);
        let (order, seed) = match self.schedule {
            Schedule::Forward => (0, 0),
            Schedule::Reverse => (1, 0),
            Schedule::Shuffled(seed) => (2, seed),
        };
        word(&mut request, order);
        long(&mut request, seed);
        word(&mut request, arguments.binding_count() as u32);
        for index in 0..arguments.binding_count() {
            let bytes = arguments.input::<u8>(index);
            word(&mut request, u32::from(arguments.access(index).writes()));
            word(&mut request, (bytes.as_ptr() as usize % 256) as u32);
            long(&mut request, bytes.len() as u64);
            requests.write_all(&request)?;
            requests.write_all(bytes)?;
            request.clear();
        }
        let params = arguments.param_bytes();
        long(&mut request, params.len() as u64);
        request.extend(params);
        requests.write_all(&request)?;
        requests.flush()
    }
}

/// `Err` when the runner has ended; otherwise what it says of the launch.
fn receive(answers: &mut ChildStdout, arguments: &WholeArguments<'_>) -> std::io::Result<Result<Written, KernelFault>> {
    let mut length = [0; 4];
    answers.read_exact(&mut length)?;
    let mut message = vec![0; u32::from_le_bytes(length) as usize];
    answers.read_exact(&mut message)?;
    if !message.is_empty() {
        return Ok(Err(KernelFault(String::from_utf8_lossy(&message).into_owned())));
    }
    let mut written = Vec::new();
    for index in 0..arguments.binding_count() {
        if arguments.access(index).writes() {
            let mut bytes = vec![0; arguments.input::<u8>(index).len()];
            answers.read_exact(&mut bytes)?;
            written.push((index, bytes));
        }
    }
    Ok(Ok(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_become_messages() {
        let fault = "emulator: gather_rows_f32, threadgroup (0,0,0): fault 2 1 7 7\n";
        assert_eq!(describe("exit status: 70", fault), "ids[1] is 7, the table has 7 rows");
        assert_eq!(describe("signal: 14 (SIGALRM)", " \n"), "signal: 14 (SIGALRM)");
        let long = "é".repeat(REPORT_CHARS);
        assert!(describe("exit status: 66", &long).chars().count() < REPORT_CHARS + 100);
    }
}
