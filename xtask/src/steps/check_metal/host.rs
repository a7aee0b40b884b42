//! The host's code against the real bindings, on a system without Metal.
//!
//! `objc2` and its family compile elsewhere with their `gnustep-2-1` features. `objc2-metal` does once its one line that
//! names the framework to link is gone: a copy without it takes its place, in a workspace of links to this one, whose
//! lock file may then differ.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{folder, read, write};
use crate::{
    process::{self, Outcome},
    report::Report,
    workspace::Workspace,
};

const CONFIGURATION: &str = "--cfg anymlx_check_metal";
const BINDINGS: &str = "objc2-metal";
const LINK: &str = "#[link(name = \"Metal\", kind = \"framework\")]";
/// Pages of the documentation for Apple targets, and what the buffer contract promises there.
const PROMISED: &[(&str, &str)] = &[
    ("struct.MlxBuffer.html", "method.metal_buffer"),
    ("struct.MlxBuffer.html", "method.from_raw"),
    ("struct.RawBuffer.html", "impl-From%3CMetalBuffer%3E-for-RawBuffer"),
    ("struct.MlxDevice.html", "method.metal_with"),
    ("struct.MetalBuffer.html", "struct.MetalBuffer"),
];

/// `cargo clippy` over the crates that know Metal.
pub(super) fn check(workspace: &Workspace) -> Outcome {
    if cfg!(target_vendor = "apple") {
        return Ok(Report::skipped(
            "type check of the Metal backend",
            "this is an Apple system: every build checks it",
        ));
    }
    let mut command = cargo(workspace, &["clippy", "--package", "anymlx-hal", "--package", "anymlx", "--quiet"])?;
    command.args(["--", "-D", "warnings"]);
    process::run(&mut command)?;
    let mut report = Report::default();
    report.pass();
    Ok(report)
}

/// `cargo doc` lists what is promised on Apple targets only.
pub(super) fn document(workspace: &Workspace) -> Outcome {
    let mut report = Report::default();
    let pages = if cfg!(target_vendor = "apple") {
        process::run(&mut workspace.cargo(["doc", "--package", "anymlx", "--no-deps", "--quiet"]))?;
        workspace.root().join("target/doc/anymlx")
    } else {
        let mut command = cargo(workspace, &["doc", "--package", "anymlx", "--no-deps", "--quiet"])?;
        // Links are the step `doc`'s affair.
        process::run(command.env("RUSTDOCFLAGS", CONFIGURATION))?;
        folder(workspace).join("host/doc/anymlx")
    };
    for (page, anchor) in PROMISED {
        if read(&pages.join(page))?.contains(&format!("id=\"{anchor}\"")) || page.contains(anchor) {
            report.pass();
        } else {
            println!("{page} has no {anchor}");
            report.fail();
        }
    }
    super::outcome(report, "a promise for Apple targets is not documented")
}

/// `cargo` in the workspace of links.
fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<Command, String> {
    let links = folder(workspace).join("workspace");
    link(workspace.root(), &links)?;
    let bindings = bindings(workspace)?;
    let mut command = Command::new("cargo");
    command.current_dir(&links).args(arguments);
    command.args(["--target-dir", &folder(workspace).join("host").to_string_lossy()]);
    command.args(["--config", &format!("patch.crates-io.{BINDINGS}.path={:?}", bindings.display().to_string())]);
    command.env("RUSTFLAGS", CONFIGURATION);
    Ok(command)
}

/// Links to everything that a build needs, and a lock file of its own.
fn link(root: &Path, links: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", links.display());
    if links.exists() {
        fs::remove_dir_all(links).map_err(failed)?;
    }
    fs::create_dir_all(links).map_err(failed)?;
    for name in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(root.join(name), links.join(name)).map_err(failed)?;
    }
    for name in ["crates", "xtask", "README.md", "docs"] {
        symlink(&root.join(name), &links.join(name)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_dir(target, link)
}

/// A copy of `objc2-metal` that links no framework.
fn bindings(workspace: &Workspace) -> Result<PathBuf, String> {
    let mut command = workspace.cargo(["metadata", "--format-version", "1"]);
    let metadata: Value =
        serde_json::from_slice(&process::output(&mut command)?).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let package = packages.iter().find(|package| package["name"] == BINDINGS);
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let source = manifest.and_then(|manifest| Path::new(manifest).parent());
    let source = source.ok_or_else(|| format!("{BINDINGS} is not among the dependencies"))?;
    // Named with its version, and made once: what does not change is not built anew.
    let copy = folder(workspace).join(source.file_name().unwrap_or_default());
    let module = copy.join("src/generated/mod.rs");
    if read(&module).is_ok_and(|text| !text.contains(LINK)) {
        return Ok(copy);
    }
    copy_folder(source, &copy)?;
    let text = read(&module)?;
    if !text.contains(LINK) {
        return Err(format!("{} does not have the line `{LINK}`", module.display()));
    }
    write(&module, &text.replace(LINK, ""))?;
    Ok(copy)
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", from.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}
