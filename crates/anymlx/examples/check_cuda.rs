//! Compiles every GPU text of the library with NVRTC, for machines without a GPU: portable ones for Ampere and the newest
//! architecture, those of one architecture for it. A warning fails.
//!
//! `cargo run --example check_cuda -- PATH_OF_LIBNVRTC`

use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anymlx::ops::gpu::{self, TextLanguage};
use anymlx_hal::cuda::{Compiled, Compiler, Target};

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: check_cuda PATH_OF_LIBNVRTC");
        return ExitCode::FAILURE;
    };
    match check(Path::new(&path)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Ampere, Hopper with what no other has, and the newest that the compiler knows.
fn targets(compiler: &Compiler) -> Vec<Target> {
    let newest = compiler.architectures().last().copied();
    let mut architectures: Vec<u32> = [80, 90].into_iter().chain(newest).collect();
    architectures.dedup();
    architectures.into_iter().filter_map(|architecture| compiler.target(architecture)).collect()
}

/// Whether a text is meant for a target.
fn is_for(language: TextLanguage, target: Target) -> bool {
    let (Target::Machine(architecture) | Target::Ptx(architecture)) = target;
    match language {
        // Ampere and the newest have every branch of those: deep streams, and kernels that start early.
        TextLanguage::Portable => architecture != 90,
        TextLanguage::CudaFrom(first) => architecture >= first,
        TextLanguage::CudaExactly(only) => target == Target::Machine(only),
        _ => false,
    }
}

/// Compiles each text for each target and prints how it went; counts the failures.
fn check(path: &Path) -> Result<usize, anymlx_hal::HalError> {
    let compiler = Compiler::load(path)?;
    let (texts, targets) = (gpu::texts(), targets(&compiler));
    println!("{compiler:?}, {} texts, {targets:?}", texts.len());
    let all = texts.iter().flat_map(|text| targets.iter().map(move |target| (text, *target)));
    let work: Vec<_> = all.filter(|(text, target)| is_for(text.language, *target)).collect();
    let (next, failed, output) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(()));
    let run = || {
        while let Some((text, target)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let (outcome, log) = match compiler.compile(&text.name, &text.text, *target) {
                Ok(Compiled { image, log }) if log.is_empty() => (format!("{} bytes", image.len()), log),
                Ok(Compiled { log, .. }) => ("WARNED".to_owned(), log),
                Err(error) => ("FAILED".to_owned(), error.to_string()),
            };
            failed.fetch_add(usize::from(!log.is_empty()), Ordering::Relaxed);
            let _one_at_a_time = output.lock().unwrap_or_else(PoisonError::into_inner);
            println!("{:<28} {target:?}: {outcome}, {} ms", text.name, started.elapsed().as_millis());
            if !log.is_empty() {
                println!("{log}");
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
    let failed = failed.into_inner();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {failed} failed", work.len() - failed);
    Ok(failed)
}
