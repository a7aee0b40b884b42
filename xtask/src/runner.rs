//! Runs steps in order, stops at the first that fails, and sums up.

use std::{process::ExitCode, time::Instant};

use crate::{process::Outcome, report::Report, workspace::Workspace};

/// One thing to check.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    pub run: fn(&Workspace) -> Outcome,
}

/// The steps of these names, in their own order; all for no names.
///
/// # Errors
/// When a name is no step's.
pub fn select(steps: Vec<Step>, names: &[String]) -> Result<Vec<Step>, String> {
    if let Some(name) = names.iter().find(|name| !steps.iter().any(|step| step.name == **name)) {
        let known: Vec<_> = steps.iter().map(|step| step.name).collect();
        return Err(format!("no step `{name}`; steps: {}", known.join(", ")));
    }
    Ok(steps.into_iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.name)).collect())
}

/// Runs the steps. The last line printed is `N passed, N failed[, N skipped]`: tests, and steps that failed other than by
/// a failed test.
pub fn run(workspace: &Workspace, steps: &[Step]) -> ExitCode {
    let start = Instant::now();
    let mut total = Report::default();
    let mut failure = None;
    for (index, step) in steps.iter().enumerate() {
        println!("== {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)(workspace);
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(report) => {
                println!("== {}: ok, {seconds:.1} s", step.name);
                total.merge(report);
            }
            Err(failed) => {
                println!("== {}: FAILED, {seconds:.1} s", step.name);
                total.merge(failed.report);
                if total.failed() == 0 {
                    total.fail();
                }
                failure = Some((step.name, failed.reason, &steps[index + 1..]));
                break;
            }
        }
    }
    println!("== summary: {:.1} s", start.elapsed().as_secs_f64());
    for skip in total.skips() {
        println!("skipped: {skip}");
    }
    let ended_well = failure.is_none();
    if let Some((name, reason, rest)) = failure {
        println!("failed: {name}: {reason}");
        if !rest.is_empty() {
            println!("not run: {}", rest.iter().map(|step| step.name).collect::<Vec<_>>().join(", "));
        }
    }
    println!("{total}");
    if ended_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str) -> Step {
        Step { name, run: |_| Ok(Report::default()) }
    }

    #[test]
    fn steps_keep_their_order() {
        let chosen = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let steps = select(vec![step("a"), step("b"), step("c")], &names);
            steps.map(|steps| steps.iter().map(|step| step.name).collect::<String>())
        };
        assert_eq!(chosen(&[]).unwrap(), "abc");
        assert_eq!(chosen(&["c", "a"]).unwrap(), "ac");
        assert_eq!(chosen(&["d"]).unwrap_err(), "no step `d`; steps: a, b, c");
    }

    #[test]
    fn the_first_failure_ends_the_run() {
        let failing = Step { name: "b", run: |_| Err("broken".to_owned().into()) };
        let unreached = Step { name: "c", run: |_| panic!("c ran after b had failed") };
        let code = run(&Workspace::here(), &[step("a"), failing, unreached]);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
        let code = run(&Workspace::here(), &[step("a")]);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    }
}
