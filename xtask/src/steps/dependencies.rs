//! `docs/dependencies.md` has a line for each dependency in use, and for no other.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{process, report::Report, runner::Step};

const DOCUMENT: &str = "docs/dependencies.md";

pub const STEP: Step = Step {
    name: "dependencies",
    run: |workspace| {
        let mut command = workspace.cargo(["metadata", "--no-deps", "--format-version", "1"]);
        let metadata: Value = serde_json::from_slice(&process::output(&mut command)?)
            .map_err(|error| format!("cargo metadata: {error}"))?;
        let document =
            fs::read_to_string(workspace.root().join(DOCUMENT)).map_err(|error| format!("{DOCUMENT}: {error}"))?;
        let problems = compare(&in_use(&metadata), &documented(&document));
        if problems.is_empty() { Ok(Report::default()) } else { Err(problems.join("; ").into()) }
    },
};

/// Names of the crates that any of our crates names, our own left out.
fn in_use(metadata: &Value) -> BTreeSet<String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    list(metadata, "packages")
        .iter()
        .flat_map(|package| list(package, "dependencies"))
        .filter(|dependency| dependency["path"].is_null())
        .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
        .collect()
}

/// First cells of table rows of the form ``| `name` | ..``.
fn documented(document: &str) -> BTreeSet<String> {
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once("` |")?.0.to_owned());
    document.lines().filter_map(name).collect()
}

fn compare(in_use: &BTreeSet<String>, documented: &BTreeSet<String>) -> Vec<String> {
    let absent = in_use.difference(documented).map(|name| format!("`{name}` is in use and has no line in {DOCUMENT}"));
    let stale =
        documented.difference(in_use).map(|name| format!("`{name}` has a line in {DOCUMENT} and is not in use"));
    absent.chain(stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_and_what_is_stale_is_named() {
        let metadata = serde_json::json!({"packages": [
            {"dependencies": [{"name": "half"}, {"name": "anymlx", "path": "/crates/anymlx"}]},
            {"dependencies": [{"name": "loom", "path": null}]},
        ]});
        let document = "# Title\n| crate | what |\n|---|---|\n| `half` | halves |\n| `rayon` | old |\n";
        let problems = compare(&in_use(&metadata), &documented(document));
        assert_eq!(problems.len(), 2);
        assert!(
            problems[0].starts_with("`loom` is in use") && problems[1].starts_with("`rayon` has a line"),
            "{problems:?}"
        );
    }
}
