//! Every test and every example in the documentation.

use crate::{
    process::{self, Failure},
    runner::Step,
    steps::PROFILE,
    tools,
};

pub const STEP: Step = Step {
    name: "tests",
    run: |workspace| {
        let compiler = tools::CPP.ensure();
        let mut command = workspace.cargo(["test", "--workspace", "--profile", PROFILE, "--no-fail-fast"]);
        // With the output of tests that pass, for in it are margins, and skips with their reasons.
        let mut outcome = process::run_tests(command.args(["--", "--show-output"]));
        if let (Ok(report) | Err(Failure { report, .. }), Err(reason)) = (&mut outcome, compiler) {
            report.skip("emulator", reason);
        }
        outcome
    },
};
