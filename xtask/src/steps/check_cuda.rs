//! Every GPU text through NVIDIA's own compiler, which needs no GPU: for Ampere and the newest architecture that it knows, or
//! for Hopper alone where the text is. A warning fails.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{process, report::Report, runner::Step, steps::PROFILE, tools, workspace::Workspace};

/// NVRTC, as NVIDIA packages it for PyPI.
const PACKAGE: &str = "nvidia-cuda-nvrtc";

pub const STEP: Step = Step {
    name: "check-cuda",
    run: |workspace| {
        let library = match tools::PIP.ensure().and_then(|()| nvrtc(workspace)) {
            Ok(library) => library,
            Err(reason) => return Ok(Report::skipped("kernels through NVRTC", reason)),
        };
        let mut command = workspace.cargo(["run", "--profile", PROFILE, "--package", "anymlx", "--quiet"]);
        process::run_tests(command.args(["--example", "check_cuda", "--"]).arg(library))
    },
};

/// The library, fetched once into the target folder.
fn nvrtc(workspace: &Workspace) -> Result<PathBuf, String> {
    let folder = workspace.root().join("target/nvrtc");
    if let Some(library) = find(&folder)? {
        return Ok(library);
    }
    let mut install = workspace.command("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    install.args(["--only-binary=:all:", "--upgrade", "--target"]).arg(&folder).arg(PACKAGE);
    process::run(&mut install).map_err(|failure| format!("{PACKAGE} could not be fetched ({})", failure.reason))?;
    find(&folder)?.ok_or_else(|| format!("{PACKAGE} has no libnvrtc"))
}

/// `libnvrtc.so.*` anywhere below the folder, whose layout differs between versions of the package.
fn find(folder: &Path) -> Result<Option<PathBuf>, String> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", folder.display())),
    };
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            if let Some(found) = find(&path)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc.so")) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_at_any_depth() {
        let folder = std::env::temp_dir().join(format!("anymlx-nvrtc-{}", std::process::id()));
        assert_eq!(find(&folder), Ok(None), "no folder yet");
        let deep = folder.join("nvidia/cu13/lib");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("libnvrtc-builtins.so.13.2"), "").unwrap();
        assert_eq!(find(&folder), Ok(None), "the builtins are not the compiler");
        fs::write(deep.join("libnvrtc.so.13"), "").unwrap();
        assert_eq!(find(&folder), Ok(Some(deep.join("libnvrtc.so.13"))));
        fs::remove_dir_all(&folder).unwrap();
    }
}
