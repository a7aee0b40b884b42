//! No lint of rustc or clippy fires anywhere.

use crate::{process, report::Report, runner::Step, tools};

pub const STEP: Step = Step {
    name: "clippy",
    run: |workspace| match tools::CLIPPY.ensure() {
        Ok(()) => process::run(&mut workspace.cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])),
        Err(reason) => Ok(Report::skipped("clippy", reason)),
    },
};
