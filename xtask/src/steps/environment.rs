//! Only `crates/anymlx/src/env.rs` reads environment variables.

use std::{fs, path::Path};

use crate::{report::Report, runner::Step};

const READER: &str = "crates/anymlx/src/env.rs";

/// Not written out, or this file would be found.
const CALLS: [&str; 3] = [concat!("env::", "var("), concat!("env::", "var_os("), concat!("env::", "vars")];

pub const STEP: Step = Step {
    name: "environment",
    run: |workspace| {
        let mut found = Vec::new();
        for folder in ["crates", "xtask"] {
            search(workspace.root(), Path::new(folder), &mut found)?;
        }
        if found.is_empty() {
            return Ok(Report::default());
        }
        Err(format!("only {READER} may read the environment: {}", found.join(", ")).into())
    },
};

fn search(root: &Path, folder: &Path, found: &mut Vec<String>) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(root.join(folder)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = folder.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            search(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && path != Path::new(READER) {
            let text = fs::read_to_string(entry.path()).map_err(failed)?;
            found.extend(readings(&text).map(|line| format!("{}:{line}", path.display())));
        }
    }
    Ok(())
}

/// Numbers of the lines that read the environment.
fn readings(text: &str) -> impl Iterator<Item = usize> {
    let reads = |line: &str| CALLS.iter().any(|call| line.contains(call));
    text.lines().enumerate().filter(move |(_, line)| reads(line)).map(|(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_found_by_line() {
        let text = format!("let x = 1;\nlet home = std::{}\"HOME\");\nstd::env::temp_dir();\n", CALLS[1]);
        assert_eq!(readings(&text).collect::<Vec<_>>(), [2]);
    }
}
