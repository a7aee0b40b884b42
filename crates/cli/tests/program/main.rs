//! The program as a user runs it.

mod bad_input;
mod quantize;
mod real_model;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Runs `anymlx` with an environment of its own.
fn anymlx<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anymlx"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["ANYMLX_DEVICE", "ANYMLX_LOG", "ANYMLX_CPU"] {
        command.env_remove(name);
    }
    command
}

fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    anymlx(arguments).output().expect("the program starts")
}

/// Standard output of a run that must succeed.
fn succeeds<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are text")
}

/// The one line of a run that must fail cleanly: exit status 1, nothing on standard output.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("messages are text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty(), "results on standard output: {}", String::from_utf8_lossy(&output.stdout));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].starts_with("error: "), "{text}");
    lines[0].to_owned()
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anymlx-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("a file for the test");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the test made this folder");
    }
}

/// A committed tiny model without a tokenizer.
fn tiny_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lm/tests/goldens/models/gemma3.gguf")
}
