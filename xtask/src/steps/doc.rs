//! The documentation builds, with every link in it whole.

use crate::{process, runner::Step};

pub const STEP: Step = Step {
    name: "doc",
    run: |workspace| {
        let mut command = workspace.cargo(["doc", "--workspace", "--no-deps", "--quiet"]);
        process::run(command.env("RUSTDOCFLAGS", "-D warnings"))
    },
};
