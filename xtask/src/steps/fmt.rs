//! Formatting is what `rustfmt.toml` says.

use crate::{process, report::Report, runner::Step, tools};

pub const STEP: Step = Step {
    name: "fmt",
    run: |workspace| match tools::RUSTFMT.ensure() {
        Ok(()) => process::run(&mut workspace.cargo(["fmt", "--all", "--check"])),
        Err(reason) => Ok(Report::skipped("fmt", reason)),
    },
};
