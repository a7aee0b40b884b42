//! `cargo xtask fuzz`: libFuzzer on the readers of files. Needs a C++ compiler and no nightly toolchain.

use std::{fs, path::Path, process::Command};

use crate::{process, workspace::Workspace};

/// What cargo-fuzz passes, without a sanitizer: what is fuzzed has no unsafe code of its own.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cdebug-assertions -Coverflow-checks";
/// Tells the fuzzer what values are compared with, which finds constants and costs several times the speed.
const COMPARISONS: &str = " -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Targets, by the names of the folders in `fuzz/corpus`; all without one
    targets: Vec<String>,
    /// Executions of each target
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Watch comparisons: slower, but constants are found
    #[arg(long)]
    comparisons: bool,
    /// Longest input in bytes
    #[arg(long, default_value_t = 2048)]
    max_len: u32,
}

/// Builds the targets and runs each: what is found goes to `target/fuzz`.
///
/// # Errors
/// When something cannot be built, and for a crash, an input that takes longer than ten seconds, or memory over the bounds.
pub fn run(workspace: &Workspace, options: &Options) -> Result<(), String> {
    let fuzz = workspace.root().join("fuzz");
    let targets = match options.targets.as_slice() {
        [] => all(&fuzz.join("corpus"))?,
        some => some.to_vec(),
    };
    let host = host()?;
    let mut build = workspace.cargo(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host]);
    let flags = format!("{FLAGS}{}", if options.comparisons { COMPARISONS } else { "" });
    process::run(build.env("RUSTFLAGS", flags)).map_err(|failure| failure.reason)?;
    for target in &targets {
        let found = workspace.root().join("target/fuzz").join(target);
        fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
        let mut command = Command::new(fuzz.join("target").join(&host).join("release").join(target));
        command.arg(&found).arg(fuzz.join("corpus").join(target)).args([
            format!("-runs={}", options.runs),
            format!("-max_len={}", options.max_len),
            format!("-artifact_prefix={}/", found.display()),
            "-timeout=10".to_owned(),
            "-rss_limit_mb=2048".to_owned(),
            "-print_final_stats=1".to_owned(),
        ]);
        println!("fuzzing {target}: {} executions", options.runs);
        process::run(&mut command).map_err(|failure| format!("{target}: {}", failure.reason))?;
    }
    Ok(())
}

/// The targets that have a corpus, sorted.
fn all(corpus: &Path) -> Result<Vec<String>, String> {
    let failed = |error| format!("{}: {error}", corpus.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The triple of this machine: with `--target`, build scripts are built without the flags.
fn host() -> Result<String, String> {
    let version = process::output(Command::new("rustc").arg("-vV"))?;
    let version = String::from_utf8_lossy(&version);
    let triple = version.lines().find_map(|line| line.strip_prefix("host: "));
    triple.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned())
}
