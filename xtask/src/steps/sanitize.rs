//! The GPU kernels' texts on the emulator: every test of an operation in other orders of threads, under AddressSanitizer
//! with UndefinedBehaviorSanitizer, and under ThreadSanitizer. (The step `tests` runs them in ascending order; what the
//! sanitizers must find is planted in `crates/anymlx/tests/emulator.rs`.)

use crate::{
    process::{self, Outcome},
    report::Report,
    runner::Step,
    steps::PROFILE,
    tools,
    workspace::Workspace,
};

pub const ORDERS: Step = Step {
    name: "sanitize-orders",
    run: |workspace| {
        if let Err(reason) = tools::CPP.ensure() {
            return Ok(Report::skipped("kernels in other orders", reason));
        }
        let mut report = kernels(workspace, "plain", "reverse")?;
        report.merge(kernels(workspace, "plain", "20240229")?);
        Ok(report)
    },
};

pub const ADDRESS: Step = Step {
    name: "sanitize-address",
    run: |workspace| match tools::CPP.ensure() {
        Ok(()) => kernels(workspace, "address", "forward"),
        Err(reason) => Ok(Report::skipped("kernels under AddressSanitizer", reason)),
    },
};

pub const THREAD: Step = Step {
    name: "sanitize-thread",
    run: |workspace| match tools::CLANG.ensure().and_then(|()| tools::CLANG_RUNTIMES.ensure()) {
        Ok(()) => kernels(workspace, "thread", "forward"),
        Err(reason) => Ok(Report::skipped("kernels under ThreadSanitizer", reason)),
    },
};

fn kernels(workspace: &Workspace, emulator: &str, schedule: &str) -> Outcome {
    let mut command = workspace.cargo(["test", "--package", "anymlx", "--profile", PROFILE, "--lib"]);
    command.args(["--no-fail-fast", "ops::"]);
    command.env("ANYMLX_EMULATOR", emulator).env("ANYMLX_EMULATOR_SCHEDULE", schedule);
    let report = process::run_tests(&mut command)?;
    if report.passed() == 0 {
        return Err(process::Failure { report, reason: "no test of an operation ran".to_owned() });
    }
    Ok(report)
}
