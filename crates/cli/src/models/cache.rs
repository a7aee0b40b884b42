//! The cache folder: finished models, and the places where unfinished ones are made.
//!
//! ```text
//! <cache>/models/gemma3-270m/            a finished model: its file, its terms
//! <cache>/models/.gemma3-270m.partial/   being fetched; renamed to the folder above when complete
//! <cache>/models/.gemma3-270m.lock       held by whoever fetches; empty
//! <cache>/hub/                           files of the Hugging Face Hub, in that library's own layout
//! ```

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{ModelError, catalogue::Entry};

/// The cache folder. Nothing is created before something is fetched.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Folder of files of the Hugging Face Hub.
    pub fn hub(&self) -> PathBuf {
        self.folder.join("hub")
    }

    /// The finished file of a model, if it is there. Its bytes are not read.
    pub fn model(&self, entry: &Entry) -> Option<PathBuf> {
        let file = self.models().join(entry.name).join(entry.file);
        let finished = file.metadata().is_ok_and(|found| found.is_file() && found.len() == entry.bytes);
        finished.then_some(file)
    }

    /// Waits until no one else makes what is called `name`, in this process or another.
    pub fn lock(&self, name: &str) -> Result<Lock, ModelError> {
        let path = self.models().join(format!(".{name}.lock"));
        fs::create_dir_all(self.models()).map_err(self.unwritable())?;
        let file = File::options().create(true).append(true).open(&path).map_err(self.unwritable())?;
        // Not the method of the same name of newer standard libraries, which our rust-version lacks.
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(fs4::TryLockError::WouldBlock) => {
                tracing::info!("{name} is being fetched by someone else; waiting");
                fs4::FileExt::lock(&file).map_err(ModelError::io("lock", &path))?;
            }
            Err(fs4::TryLockError::Error(source)) => return Err(ModelError::io("lock", &path)(source)),
        }
        Ok(Lock { file, path })
    }

    /// An empty folder to make a model in. What an interrupted run left there is removed.
    pub fn start(&self, entry: &Entry, _held: &Lock) -> Result<Partial, ModelError> {
        let folder = self.models().join(format!(".{}.partial", entry.name));
        remove_folder(&folder).map_err(self.unwritable())?;
        fs::create_dir(&folder).map_err(self.unwritable())?;
        Ok(Partial { folder, finished: self.models().join(entry.name) })
    }

    fn models(&self) -> PathBuf {
        self.folder.join("models")
    }

    fn unwritable(&self) -> impl FnOnce(io::Error) -> ModelError {
        let folder = self.folder.clone();
        move |source| ModelError::CacheUnwritable { folder, source }
    }
}

/// The right to make one model; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs4::FileExt::unlock(&self.file) {
            tracing::warn!("unlock `{}`: {error}", self.path.display());
        }
    }
}

/// A model in the making; dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Partial {
    folder: PathBuf,
    finished: PathBuf,
}

impl Partial {
    /// The folder that will be the model's.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes everything visible at once under the model's name, in place of what was there.
    pub fn publish(self) -> Result<PathBuf, ModelError> {
        remove_folder(&self.finished).map_err(ModelError::io("remove", &self.finished))?;
        fs::rename(&self.folder, &self.finished).map_err(ModelError::io("rename to", &self.finished))?;
        Ok(self.finished.clone())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.folder) {
            tracing::warn!("remove `{}`: {error}", self.folder.display());
        }
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
