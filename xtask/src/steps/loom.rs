//! Model checks: every interleaving of the parts that use no lock. Built apart, for `--cfg loom` changes every crate.

use crate::{process, runner::Step};

pub const STEP: Step = Step {
    name: "loom",
    run: |workspace| {
        let mut command = workspace.cargo(["test", "--package", "anymlx-hal", "--release", "--lib"]);
        command.args(["--target-dir", "target/loom", "loom"]).env("RUSTFLAGS", "--cfg loom");
        let report = process::run_tests(&mut command)?;
        if report.passed() == 0 {
            return Err(process::Failure { report, reason: "no model check ran".to_owned() });
        }
        Ok(report)
    },
};
