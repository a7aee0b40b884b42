//! The GPU kernels' texts on the emulator: every test of an operation, the first launches of each kernel under sanitizers
//! too; and every launch in other orders of threads, under AddressSanitizer with
//! UndefinedBehaviorSanitizer, and under ThreadSanitizer. What the sanitizers must find is planted in
//! `crates/anymlx/tests/emulator.rs`.

use std::{collections::BTreeSet, fs, process::Command};

use crate::{
    process::{self, Failure, Outcome},
    report::Report,
    runner::Step,
    steps::{PROFILE, gpu_texts},
    tools,
    workspace::Workspace,
};

/// Every kernel of every text, in bounded time.
pub const WATCHED: Step = Step { name: "sanitize-watched", run: watched };

pub const ORDERS: Step = Step {
    name: "sanitize-orders",
    run: |workspace| {
        if let Err(reason) = tools::CPP.ensure() {
            return Ok(Report::skipped("kernels in other orders", reason));
        }
        let mut report = every_launch(workspace, "plain", "reverse")?;
        report.merge(every_launch(workspace, "plain", "20240229")?);
        Ok(report)
    },
};

pub const ADDRESS: Step = Step {
    name: "sanitize-address",
    run: |workspace| match tools::CPP.ensure() {
        Ok(()) => every_launch(workspace, "address", "forward"),
        Err(reason) => Ok(Report::skipped("kernels under AddressSanitizer", reason)),
    },
};

pub const THREAD: Step = Step {
    name: "sanitize-thread",
    run: |workspace| match tools::CLANG.ensure().and_then(|()| tools::CLANG_RUNTIMES.ensure()) {
        Ok(()) => every_launch(workspace, "thread", "forward"),
        Err(reason) => Ok(Report::skipped("kernels under ThreadSanitizer", reason)),
    },
};

fn every_launch(workspace: &Workspace, emulator: &str, schedule: &str) -> Outcome {
    let mut command = operations(workspace);
    run(command.env("ANYMLX_EMULATOR", emulator).env("ANYMLX_EMULATOR_SCHEDULE", schedule))
}

/// The tests of all operations: of all packages, so that what the step `tests` has built fits.
fn operations(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo(["test", "--workspace", "--profile", PROFILE, "--lib"]);
    command.args(["--no-fail-fast", "--", "ops::", "bandwidth::"]);
    command
}

fn run(command: &mut Command) -> Outcome {
    let report = process::run_tests(command)?;
    if report.passed() == 0 {
        return Err(Failure { report, reason: "no test of an operation ran".to_owned() });
    }
    Ok(report)
}

fn watched(workspace: &Workspace) -> Outcome {
    if let Err(reason) = tools::CPP.ensure() {
        return Ok(Report::skipped("kernels under sanitizers", reason));
    }
    let thread = tools::CLANG.ensure().and_then(|()| tools::CLANG_RUNTIMES.ensure());
    let folder = workspace.root().join("target/sanitize");
    let log = folder.join("watched.txt");
    let failed = |error: std::io::Error| format!("{}: {error}", log.display());
    fs::create_dir_all(&folder).and_then(|()| fs::write(&log, "")).map_err(failed)?;
    let mut report = run(operations(workspace).env("ANYMLX_EMULATOR", "watched").env("ANYMLX_EMULATOR_LOG", &log))?;
    if let Err(reason) = thread {
        report.skip("kernels under ThreadSanitizer", reason);
    }
    let seen = fs::read_to_string(&log).map_err(failed)?;
    let seen: BTreeSet<&str> = seen.lines().collect();
    let all = gpu_texts::kernel_names(workspace, &folder)?;
    let missed: Vec<&str> = all.iter().map(String::as_str).filter(|name| !seen.contains(name)).collect();
    println!("{} of {} kernels were watched", all.len() - missed.len(), all.len());
    if missed.is_empty() {
        return Ok(report);
    }
    Err(Failure { report, reason: format!("no launch of these kernels was watched: {}", missed.join(", ")) })
}
