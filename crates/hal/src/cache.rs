//! Compiled kernels on disk.
//!
//! A file holds a header with the digest of what follows, so that a broken file is noticed and made
//! again. Files appear by a rename: other processes see a whole file or none.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"anymlx-1";
const HEADER: usize = MAGIC.len() + 32;
/// What a process that died may leave behind is removed after this time.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Names a cached file by everything that its contents depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey([u8; 32]);

impl CacheKey {
    /// The digest of the parts, each with its length.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }

    /// The digest in hexadecimal.
    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn file_name(&self) -> String {
        self.hex() + ".kernel"
    }
}

/// A folder of files up to a total size; the least recently written go first.
#[derive(Debug, Clone)]
pub(crate) struct FileCache {
    folder: PathBuf,
    limit: u64,
}

impl FileCache {
    pub(crate) fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit }
    }

    /// The bytes under `key`, if they are there and whole.
    pub(crate) fn get(&self, key: &CacheKey) -> Option<Vec<u8>> {
        let path = self.folder.join(key.file_name());
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a cached kernel cannot be read");
                return None;
            }
        };
        let whole = bytes.len() > HEADER
            && bytes.starts_with(MAGIC)
            && bytes[MAGIC.len()..HEADER] == Sha256::digest(&bytes[HEADER..])[..];
        if !whole {
            tracing::warn!(path = %path.display(), "a cached kernel is broken and is made again");
            self.remove(key);
            return None;
        }
        bytes.drain(..HEADER);
        Some(bytes)
    }

    /// Keeps `bytes` under `key`, and gives up the oldest files over the limit.
    pub(crate) fn put(&self, key: &CacheKey, bytes: &[u8]) -> io::Result<()> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.folder)?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.folder.join(format!("{}.{}-{serial}.tmp", key.file_name(), std::process::id()));
        let contents = [MAGIC, &Sha256::digest(bytes)[..], bytes].concat();
        let written =
            fs::write(&unfinished, contents).and_then(|()| fs::rename(&unfinished, self.folder.join(key.file_name())));
        if let Err(error) = written {
            remove_file(&unfinished);
            return Err(error);
        }
        self.trim()
    }

    /// Forgets what is under `key`.
    pub(crate) fn remove(&self, key: &CacheKey) {
        remove_file(&self.folder.join(key.file_name()));
    }

    fn trim(&self) -> io::Result<()> {
        let now = SystemTime::now();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            // Another process may have removed it since.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let age = metadata.modified().ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
            match extension {
                Some("tmp") if age > ABANDONED => remove_file(&path),
                Some("kernel") => files.push((age, metadata.len(), path)),
                _ => {}
            }
        }
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort();
        while total > self.limit
            && files.len() > 1
            && let Some((_, bytes, path)) = files.pop()
        {
            remove_file(&path);
            total -= bytes;
        }
        Ok(())
    }
}

fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a cached kernel cannot be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("anymlx-cache-{name}-{}", std::process::id()));
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the test's folder");
        }
    }

    fn key(text: &str) -> CacheKey {
        CacheKey::of([text.as_bytes()])
    }

    #[test]
    fn what_was_put_is_found_under_its_own_key_only() {
        let folder = Folder::new("put");
        let cache = FileCache::new(folder.0.clone(), 1 << 20);
        assert_eq!(cache.get(&key("a")), None);
        cache.put(&key("a"), b"code").expect("put");
        assert_eq!(cache.get(&key("a")).as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.get(&key("b")), None);
        assert_ne!(CacheKey::of([&b"ab"[..], b"c"]), CacheKey::of([&b"a"[..], b"bc"]));
    }

    #[test]
    fn a_broken_file_is_not_believed() {
        let folder = Folder::new("broken");
        let cache = FileCache::new(folder.0.clone(), 1 << 20);
        let path = folder.0.join(key("a").file_name());
        for damage in ["flip", "cut", "empty", "foreign"] {
            cache.put(&key("a"), b"code of a kernel").expect("put");
            let mut bytes = fs::read(&path).expect("written");
            match damage {
                "flip" => *bytes.last_mut().expect("not empty") ^= 1,
                "cut" => bytes.truncate(bytes.len() - 1),
                "empty" => bytes.clear(),
                _ => bytes[0] ^= 1,
            }
            fs::write(&path, bytes).expect("damaged");
            assert_eq!(cache.get(&key("a")), None, "{damage}");
            assert!(!path.exists(), "{damage}: the broken file is gone");
        }
    }

    #[test]
    fn the_oldest_files_make_room() {
        let folder = Folder::new("room");
        let cache = FileCache::new(folder.0.clone(), 3 * (1000 + HEADER as u64));
        for (age, name) in [(40, "a"), (30, "b"), (20, "c")] {
            cache.put(&key(name), &[7; 1000]).expect("put");
            let file = fs::File::options().write(true).open(folder.0.join(key(name).file_name())).expect("open");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("set time");
        }
        cache.put(&key("d"), &[7; 1000]).expect("put");
        let held = ["a", "b", "c", "d"].map(|name| cache.get(&key(name)).is_some());
        assert_eq!(held, [false, true, true, true]);
    }

    #[test]
    fn nothing_unfinished_is_left() {
        let folder = Folder::new("unfinished");
        let cache = FileCache::new(folder.0.clone(), 1 << 20);
        cache.put(&key("a"), b"code").expect("put");
        let names: Vec<_> =
            fs::read_dir(&folder.0).expect("folder").map(|entry| entry.expect("entry").path()).collect();
        assert_eq!(names, [folder.0.join(key("a").file_name())]);
    }
}
