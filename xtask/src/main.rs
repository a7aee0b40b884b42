//! Development tasks: `cargo xtask test` is everything that has to hold before a change is merged, `cargo xtask lint` the part
//! that needs no test to run.

mod bench_peer;
mod first_mac;
mod fuzz;
mod process;
mod report;
mod runner;
mod steps;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Formatting, lints, documentation, the model, all tests, model checks of threads
    Test(Selection),
    /// Formatting, lints, documentation
    Lint(Selection),
    /// GPU kernels on the host: in several orders of threads, under AddressSanitizer and ThreadSanitizer
    Sanitize(Selection),
    /// Kernels and host code for Metal, checked without a Mac; mistakes that must be refused
    CheckMetal(Selection),
    /// What the owner of the first Mac runs, into one report
    FirstMac(first_mac::Options),
    /// GPU kernels through NVIDIA's compiler, which needs no GPU
    CheckCuda(Selection),
    /// Measures beside llama.cpp, in turn; builds it if need be
    BenchPeer(bench_peer::Options),
    /// Readers of files under libFuzzer
    Fuzz(fuzz::Options),
}

#[derive(Debug, clap::Args)]
struct Selection {
    /// Runs only this step; may be given more than once
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
}

fn main() -> ExitCode {
    let workspace = Workspace::here();
    let (steps, selection) = match Arguments::parse().task {
        Task::Test(selection) => (steps::test(), selection),
        Task::Lint(selection) => (steps::lint(), selection),
        Task::Sanitize(selection) => (steps::sanitize(), selection),
        Task::CheckMetal(selection) => (steps::check_metal(), selection),
        Task::BenchPeer(options) => return ended(bench_peer::run(&workspace, &options)),
        Task::FirstMac(options) => return ended(first_mac::run(&workspace, &options)),
        Task::CheckCuda(selection) => (steps::check_cuda(), selection),
        Task::Fuzz(options) => return ended(fuzz::run(&workspace, &options)),
    };
    match runner::select(steps, &selection.only) {
        Ok(steps) => runner::run(&workspace, &steps),
        Err(message) => ended(Err(message)),
    }
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
