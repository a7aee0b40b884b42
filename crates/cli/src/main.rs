//! The `anymlx` program: results on stdout, everything else on stderr.

mod arguments;
mod commands;
mod failure;
mod models;
mod open;
mod partial;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use failure::{Failure, Outcome};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start_log(arguments.verbose).and_then(|()| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(verbose: u8) -> Outcome {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = anymlx::env::log_filter()?.unwrap_or_else(|| format!("off,anymlx={level}"));
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .map_err(|error| Failure::message(format!("log filter `{filter}`: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    anymlx::env::warn_unknown();
    Ok(())
}

fn run(arguments: &Arguments) -> Outcome {
    let shared = &arguments.shared;
    match &arguments.command {
        Command::Generate(options) => commands::generate::run(shared, options),
        Command::Perplexity(options) => commands::perplexity::run(shared, options),
        Command::Tokenize(options) => commands::tokenize::run(shared, options),
        Command::Inspect(options) => commands::inspect::run(shared, options),
        Command::Devices => commands::devices::run(),
        Command::Pull(options) => commands::pull::run(options),
        Command::Bench(options) => commands::bench::run(shared, options),
        Command::Convert(options) => commands::convert::run(shared, options),
        Command::Imatrix(options) => commands::imatrix::run(shared, options),
        Command::Quantize(options) => commands::quantize::run(shared, options),
    }
}
