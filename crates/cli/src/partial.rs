//! Files that appear whole or not at all, and whose making can be interrupted and gone on with.
//!
//! `OUT.partial` is the file under way; `OUT.partial.from` says what it is made from and how many of its bytes are safely on
//! the disk. Both are gone when `OUT` is there.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::failure::{Failure, Outcome};

/// Bytes after which the file is synchronised with the disk.
const SYNC_BYTES: u64 = 64 << 20;

/// A file under way.
#[derive(Debug)]
pub struct PartialFile {
    target: PathBuf,
    path: PathBuf,
    stamp_path: PathBuf,
    stamp: String,
    file: File,
    resumed: u64,
    written: u64,
    synced: u64,
}

impl PartialFile {
    /// Begins `target`, or goes on with it where an interrupted run with the same `stamp` has left a part.
    ///
    /// `stamp` says, in lines, everything that the file's bytes depend on.
    pub fn open(target: &Path, stamp: String) -> Outcome<Self> {
        let path = with_suffix(target, ".partial");
        let stamp_path = with_suffix(target, ".partial.from");
        let failed = |error: io::Error| Failure::message(format!("write `{}`: {error}", path.display()));
        let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(failed)?;
        // Not the method of the same name of newer standard libraries, which our rust-version lacks.
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(fs4::TryLockError::WouldBlock) => {
                return Err(Failure::message(format!("write `{}`: another run is writing it", path.display())));
            }
            Err(fs4::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let present = file.metadata().map_err(failed)?.len();
        let resumed = read_stamp(&stamp_path, &stamp).filter(|&synced| synced <= present).unwrap_or(0);
        file.set_len(resumed).map_err(failed)?;
        let mut partial = Self {
            target: target.to_owned(),
            path,
            stamp_path,
            stamp,
            file,
            resumed,
            written: resumed,
            synced: resumed,
        };
        partial.seek().map_err(|error| partial.failed(&error))?;
        Ok(partial)
    }

    /// Begins `target` anew.
    pub fn begin(target: &Path) -> Outcome<Self> {
        let mut partial = Self::open(target, String::new())?;
        let result = partial.file.set_len(0).and_then(|()| partial.file.rewind());
        result.map_err(|error| partial.failed(&error))?;
        (partial.resumed, partial.written, partial.synced) = (0, 0, 0);
        Ok(partial)
    }

    fn seek(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.resumed))?;
        self.write_stamp()
    }

    /// Bytes that an earlier run has left.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Gives the finished file its name, in place of what had it.
    pub fn publish(self) -> Outcome {
        let publish = || {
            self.file.sync_all()?;
            fs::rename(&self.path, &self.target)?;
            fs::remove_file(&self.stamp_path)
        };
        publish().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::message(format!("write `{}`: {error}", self.path.display()))
    }

    fn write_stamp(&self) -> io::Result<()> {
        let fresh = with_suffix(&self.stamp_path, ".new");
        fs::write(&fresh, format!("{}\nbytes on the disk: {}\n", self.stamp, self.synced))?;
        fs::rename(fresh, &self.stamp_path)
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.written;
            self.write_stamp()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Bytes on the disk according to a stamp that says what `stamp` says.
fn read_stamp(path: &Path, stamp: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.strip_prefix(stamp)?.strip_prefix("\nbytes on the disk: ")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(range: std::ops::Range<u64>) -> Vec<u8> {
        range.map(|at| (at * 31 % 251) as u8).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.gguf");
        let mut partial = PartialFile::open(&target, "one".to_owned()).unwrap();
        partial.write_all(b"content").unwrap();
        assert!(!target.exists());
        partial.publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"content");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_is_on_the_disk_is_gone_on_with_if_it_is_made_of_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.gguf");
        let mut partial = PartialFile::open(&target, "one".to_owned()).unwrap();
        let (first, rest) = (SYNC_BYTES + 5, 100);
        partial.write_all(&bytes(0..first)).unwrap();
        // After the synchronisation: not counted on.
        partial.write_all(b"lost").unwrap();
        drop(partial);

        let mut again = PartialFile::open(&target, "one".to_owned()).unwrap();
        assert_eq!(again.resumed(), first);
        again.write_all(&bytes(first..first + rest)).unwrap();
        again.publish().unwrap();
        assert!(fs::read(&target).unwrap() == bytes(0..first + rest));

        let mut other = PartialFile::open(&target, "one".to_owned()).unwrap();
        other.write_all(&bytes(0..first)).unwrap();
        drop(other);
        assert_eq!(PartialFile::open(&target, "two".to_owned()).unwrap().resumed(), 0);
    }

    #[test]
    fn two_runs_do_not_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.gguf");
        let first = PartialFile::open(&target, "one".to_owned()).unwrap();
        let error = PartialFile::open(&target, "one".to_owned()).unwrap_err().to_string();
        assert!(error.contains("another run"), "{error}");
        drop(first);
        PartialFile::open(&target, "one".to_owned()).unwrap();
    }
}
