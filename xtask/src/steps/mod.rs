//! The steps. A new one is a file here and a line in the lists below.

mod check_cuda;
mod check_metal;
mod clippy;
mod dependencies;
mod doc;
mod environment;
mod fmt;
mod gpu_texts;
mod loom;
mod model;
mod sanitize;
mod tests;

use crate::runner::Step;

/// Profile that everything which runs is built with: optimised, with all checks on.
const PROFILE: &str = "testing";

/// What needs no test to run.
pub fn lint() -> Vec<Step> {
    vec![fmt::STEP, dependencies::STEP, environment::STEP, clippy::STEP, doc::STEP]
}

/// Everything.
pub fn test() -> Vec<Step> {
    let mut steps = lint();
    steps.extend([model::STEP, tests::STEP]);
    steps.extend(check_cuda());
    steps.push(loom::STEP);
    steps.extend(metal());
    steps.push(sanitize::WATCHED);
    steps
}

/// What `cargo xtask test` checks of Metal: the twins under sanitizers take minutes and are left to `check-metal`.
fn metal() -> Vec<Step> {
    vec![check_metal::PLANTED, check_metal::KERNELS, check_metal::HOST, check_metal::DOC]
}

/// The Metal backend, as far as it can be checked without Metal.
pub fn check_metal() -> Vec<Step> {
    metal().into_iter().chain([check_metal::TWINS]).collect()
}

/// GPU kernels through NVIDIA's compiler.
pub fn check_cuda() -> Vec<Step> {
    vec![check_cuda::STEP]
}

/// GPU kernels on the host under sanitizers: the first launches of each kernel, as in `cargo xtask test`, then all.
pub fn sanitize() -> Vec<Step> {
    vec![sanitize::WATCHED, sanitize::ORDERS, sanitize::ADDRESS, sanitize::THREAD]
}

#[cfg(test)]
mod names {
    use std::collections::BTreeSet;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let steps = super::test();
        let names: BTreeSet<_> = steps.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), steps.len());
    }
}
