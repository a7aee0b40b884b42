//! Runs other programs, their output passing through as it comes.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Command, ExitStatus, Stdio},
};

use crate::report::Report;

/// Why a step failed, with what it had counted until then.
#[derive(Debug, Default)]
pub struct Failure {
    pub report: Report,
    pub reason: String,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { report: Report::default(), reason }
    }
}

/// Result of a step.
pub type Outcome = Result<Report, Failure>;

/// Runs the command to its end.
///
/// # Errors
/// When it cannot be started or does not end well.
pub fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| format!("{}: {error}", text(command)))?;
    match well(command, status) {
        Ok(()) => Ok(Report::default()),
        Err(reason) => Err(reason.into()),
    }
}

/// Runs `cargo test` or what prints as it does, and counts.
///
/// # Errors
/// When it cannot be started, does not end well, or counts a failure.
pub fn run_tests(command: &mut Command) -> Outcome {
    run_tests_into(&mut io::stdout(), command)
}

fn run_tests_into(output: &mut impl Write, command: &mut Command) -> Outcome {
    let mut report = Report::default();
    let ended = stream(command, output, |line| report.read_line(line)).and_then(|status| well(command, status));
    match ended {
        Ok(()) if report.failed() == 0 => Ok(report),
        Ok(()) => Err(Failure { reason: format!("{}: {report}", text(command)), report }),
        Err(reason) => Err(Failure { report, reason }),
    }
}

/// Runs the command and returns its standard output.
///
/// # Errors
/// When it cannot be started or does not end well.
pub fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("{}: {error}", text(command)))?;
    well(command, output.status).map(|()| output.stdout)
}

/// True when the command starts and ends well; what it prints is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Copies each line of standard output as it comes, and shows it to `see`.
fn stream(command: &mut Command, output: &mut impl Write, mut see: impl FnMut(&str)) -> Result<ExitStatus, String> {
    let failed = |error: io::Error| error.to_string();
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("{}: {error}", text(command)))?;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).map_err(failed)? > 0 {
            output.write_all(&line).map_err(failed)?;
            see(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    child.wait().map_err(failed)
}

fn well(command: &Command, status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", text(command))) }
}

fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn counts_are_kept_when_the_program_fails() {
        let failure = run_tests_into(
            &mut io::sink(),
            &mut shell("echo 'test result: ok. 5 passed; 0 failed; 0 ignored'; exit 3"),
        )
        .unwrap_err();
        assert_eq!(failure.report.to_string(), "5 passed, 0 failed");
        assert!(failure.reason.contains("exit status: 3"), "{}", failure.reason);
    }

    #[test]
    fn a_counted_failure_fails_even_if_the_program_does_not() {
        let mut command = shell("echo 'test result: FAILED. 5 passed; 1 failed; 0 ignored'");
        assert_eq!(run_tests_into(&mut io::sink(), &mut command).unwrap_err().report.failed(), 1);
    }

    #[test]
    fn output_that_is_not_text_passes_through() {
        let mut seen = Vec::new();
        let mut command = shell(r"printf '\377\n'; printf 'test result: ok. 1 passed; 0 failed'");
        let report = run_tests_into(&mut seen, &mut command).unwrap();
        assert_eq!(seen, b"\xff\ntest result: ok. 1 passed; 0 failed");
        assert_eq!(report.to_string(), "1 passed, 0 failed");
    }

    #[test]
    fn programs_that_do_not_exist_are_named() {
        let mut absent = Command::new("no-such-program-anywhere");
        assert!(run(&mut absent).unwrap_err().reason.starts_with("no-such-program-anywhere: "));
        assert!(!succeeds(&mut absent));
        assert!(output(&mut shell("exit 1")).is_err());
    }
}
