//! The texts of the library's GPU kernels, written to files by an example of the library.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{process, steps::PROFILE, workspace::Workspace};

/// Writes all texts into `folder/texts`, and returns their files in order.
///
/// # Errors
/// What cannot be run or written.
pub fn write(workspace: &Workspace, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let folder = folder.join("texts");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    let mut write = workspace.cargo(["run", "--quiet", "--profile", PROFILE, "--package", "anymlx"]);
    write.args(["--example", "gpu_texts", "--"]).arg(&folder);
    process::run(&mut write).map_err(|failure| failure.reason)?;
    let entries = fs::read_dir(&folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    if paths.is_empty() { Err(format!("no text in {}", folder.display())) } else { Ok(paths) }
}

/// Names of all kernels in the texts that the emulator takes, as the preprocessor of C++ leaves them.
///
/// # Errors
/// What cannot be run, read or written.
pub fn kernel_names(workspace: &Workspace, folder: &Path) -> Result<BTreeSet<String>, String> {
    let headers = workspace.root().join("crates/hal/gpu");
    let mut names = BTreeSet::new();
    for path in write(workspace, folder)? {
        if path.extension().is_some_and(|extension| extension == "cu") {
            continue;
        }
        let mut command = workspace.command("c++");
        command.args(["-E", "-P", "-x", "c++", "-I"]).arg(headers.join("host")).arg(&path);
        names.extend(entries(&String::from_utf8_lossy(&process::output(&mut command)?)));
    }
    Ok(names)
}

/// Names that a text registers: `static gpu_entry NAME_entry("NAME", ..)`.
fn entries(text: &str) -> impl Iterator<Item = String> {
    text.split("static gpu_entry ").skip(1).filter_map(|rest| {
        let (variable, arguments) = rest.split_once('(')?;
        let (name, _) = arguments.strip_prefix('"')?.split_once('"')?;
        (variable.strip_suffix("_entry")? == name).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_of_registrations() {
        let text =
            r#"struct gpu_entry { int a; }; static gpu_entry add_f32_entry("add_f32", add_f32, 1024, 0, 3); f("x")"#;
        assert_eq!(super::entries(text).collect::<Vec<_>>(), ["add_f32"]);
    }
}
