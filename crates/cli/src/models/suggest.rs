//! Names near to what the user typed.

use std::path::Path;

use super::{ModelError, catalogue};

/// Neither a file nor a catalogue name.
pub fn unknown(spec: &str) -> ModelError {
    let path = Path::new(spec);
    if path.is_dir() {
        let files = files_in(path);
        let hint = list("; files in it: ", files.into_iter().filter(|name| is_model(name)).take(5));
        return ModelError::Unknown {
            spec: spec.to_owned(),
            reason: "is a folder without a `config.json`, needed a file",
            hint,
        };
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let wanted = path.file_name().map_or(spec.into(), |name| name.to_string_lossy());
    let present = files_in(folder);
    let files = nearest(&wanted, present.iter().map(String::as_str));
    let files = files.iter().map(|name| {
        if folder == Path::new(".") { (*name).to_owned() } else { folder.join(name).display().to_string() }
    });
    let hint = catalogue_hint(spec) + &list("; nearest files: ", files);
    ModelError::Unknown { spec: spec.to_owned(), reason: "no such file, and no model of that name", hint }
}

/// Not a catalogue name, where only a name will do.
pub fn unknown_name(spec: &str) -> ModelError {
    ModelError::Unknown { spec: spec.to_owned(), reason: "no model of that name", hint: catalogue_hint(spec) }
}

/// The nearest names, or all of them when none is near.
fn catalogue_hint(spec: &str) -> String {
    let names = || catalogue::ENTRIES.iter().map(|entry| entry.name);
    let near = nearest(spec, names());
    if near.is_empty() {
        list("; known models: ", names().map(str::to_owned))
    } else {
        list("; nearest models: ", near.into_iter().map(str::to_owned))
    }
}

/// At most three of `names`, nearest first, each within half of the longer name.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = wanted.to_lowercase();
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let distance = strsim::damerau_levenshtein(&lower, &name.to_lowercase());
            let longer = wanted.chars().count().max(name.chars().count());
            (distance * 2 <= longer).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// File names of a folder, sorted; none when it cannot be read, for they are only a hint.
fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

fn is_model(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn list(before: &str, names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { String::new() } else { format!("{before}{}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_first_and_nothing_far() {
        let names = ["gemma-3-270m.gguf", "gemma-3-1b.gguf", "notes.txt"];
        assert_eq!(nearest("gema-3-270m.gguf", names.into_iter()), ["gemma-3-270m.gguf", "gemma-3-1b.gguf"]);
        assert!(nearest("zzzzzz", names.into_iter()).is_empty());
        assert!(nearest("", names.into_iter()).is_empty());
    }
}
