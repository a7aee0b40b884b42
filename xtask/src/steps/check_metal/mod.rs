//! What can be known about the Metal backend without a Mac: every kernel's text through clang with Metal's address spaces,
//! mistakes that must be refused, the host's code against the real bindings. `docs/metal.md` says what this cannot show.

mod call_graph;
mod clang;
mod host;
mod planted;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    process::{self, Failure, Outcome},
    report::Report,
    runner::Step,
    steps::{PROFILE, gpu_texts},
    tools,
    workspace::Workspace,
};

pub const KERNELS: Step = Step { name: "metal-kernels", run: kernels };
pub const PLANTED: Step = Step { name: "metal-planted", run: planted };
pub const HOST: Step = Step { name: "metal-host", run: host::check };
pub const DOC: Step = Step { name: "metal-doc", run: host::document };

/// Kernels in Metal's own language on the emulator, against references in f64: every launch under AddressSanitizer, the
/// first ones of each kernel under ThreadSanitizer too, where all would take hours.
pub const TWINS: Step = Step { name: "metal-twins", run: twins };

fn twins(workspace: &Workspace) -> Outcome {
    let mut report = Report::default();
    let clang = || tools::CLANG.ensure().and_then(|()| tools::CLANG_RUNTIMES.ensure());
    for (emulator, ready) in [("address", tools::CPP.ensure()), ("watched", clang())] {
        match ready {
            Ok(()) => {
                let mut command =
                    workspace.cargo(["test", "--package", "anymlx", "--profile", PROFILE, "--lib", "simdgroup"]);
                report.merge(process::run_tests(command.env("ANYMLX_EMULATOR", emulator))?);
            }
            Err(reason) => report.skip(&format!("Metal's own kernels on the emulator ({emulator})"), reason),
        }
    }
    Ok(report)
}

/// Everything that is made lies here.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("target/check-metal")
}

fn kernels(workspace: &Workspace) -> Outcome {
    with_clang("Metal kernels", || {
        let clang = clang::Clang::new(&folder(workspace))?;
        let texts = texts(workspace)?;
        let mut report = Report::default();
        for (name, problems) in clang.check_all(&texts)? {
            match problems.first() {
                None => report.pass(),
                Some(first) => {
                    println!("{name}:\n{first}");
                    report.fail();
                }
            }
        }
        outcome(report, "a text is no Metal")
    })
}

fn planted(workspace: &Workspace) -> Outcome {
    with_clang("mistakes planted in Metal kernels", || {
        let clang = clang::Clang::new(&folder(workspace))?;
        let header = read(&workspace.root().join("crates/hal/gpu/gpu.h"))?;
        let problems = clang.check(&planted::subject(&header))?;
        if let Some(problem) = problems.first() {
            return Err(format!("the text without mistakes was refused: {problem}").into());
        }
        let mut report = Report::default();
        for mistake in planted::MISTAKES {
            let wrong = mistake.plant(&header)?;
            let problems = clang.check(&wrong)?;
            if problems.iter().any(|problem| problem.contains(mistake.refused_with)) {
                report.pass();
            } else {
                println!("{}: not refused with `{}`: {problems:?}", mistake.what, mistake.refused_with);
                report.fail();
            }
        }
        outcome(report, "a planted mistake was not refused")
    })
}

fn with_clang(what: &str, run: impl FnOnce() -> Outcome) -> Outcome {
    match tools::CLANG.ensure() {
        Ok(()) => run(),
        Err(reason) => Ok(Report::skipped(what, reason)),
    }
}

fn outcome(report: Report, reason: &str) -> Outcome {
    println!("{report}");
    if report.failed() == 0 { Ok(report) } else { Err(Failure { report, reason: reason.to_owned() }) }
}

/// A text as Apple's compiler gets it.
#[derive(Debug, Clone)]
struct Text {
    name: String,
    text: String,
}

/// Every text of the library.
fn texts(workspace: &Workspace) -> Result<Vec<Text>, String> {
    let mut texts = Vec::new();
    for path in gpu_texts::write(workspace, &folder(workspace))? {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        if !name.ends_with(".cu") {
            texts.push(Text { name, text: read(&path)? });
        }
    }
    Ok(texts)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
    parent.and_then(|()| fs::write(path, text)).map_err(|error| format!("{}: {error}", path.display()))
}
