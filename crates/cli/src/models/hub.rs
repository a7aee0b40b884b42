//! `hf:ORG/REPO/FILE`: files of model repositories on the Hugging Face Hub.

use std::{fs, path::PathBuf};

use anymlx::env;
use hf_hub::{Repo, RepoType, api::sync::ApiBuilder};

use super::{ModelError, cache::Cache, fetch};

const PREFIX: &str = "hf:";
const ENDPOINT: &str = "https://huggingface.co";

/// True for names that only the Hub can answer.
pub fn is_hub_name(spec: &str) -> bool {
    spec.starts_with(PREFIX)
}

/// One file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// `ORG/REPO`.
    repository: String,
    /// Path in the repository.
    file: String,
}

impl HubFile {
    /// Reads `hf:ORG/REPO/FILE`; FILE may lie in folders.
    ///
    /// # Errors
    /// `HubName` when a part is missing or could lead out of the cache folder.
    pub fn parse(spec: &str) -> Result<Self, ModelError> {
        let bad = |reason| ModelError::HubName { spec: spec.to_owned(), reason };
        let rest = spec.strip_prefix(PREFIX).ok_or_else(|| bad("does not begin with hf:"))?;
        let parts: Vec<&str> = rest.split('/').collect();
        let usual = |c: char| c.is_ascii_alphanumeric() || "-_.+=@()[],~ ".contains(c);
        for part in &parts {
            match *part {
                "" => return Err(bad("a part is empty")),
                "." | ".." => return Err(bad("a part is `.` or `..`")),
                part if !part.chars().all(usual) => {
                    return Err(bad("a part holds a character that file names there lack"));
                }
                _ => {}
            }
        }
        match parts.as_slice() {
            [organisation, repository, file @ ..] if !file.is_empty() => {
                Ok(Self { repository: format!("{organisation}/{repository}"), file: file.join("/") })
            }
            _ => Err(bad("too few parts")),
        }
    }

    fn spec(&self) -> String {
        format!("{PREFIX}{}/{}", self.repository, self.file)
    }
}

/// A hub and the right to use it.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Without a slash at its end.
    pub endpoint: String,
    /// Access token.
    pub token: Option<String>,
}

impl Hub {
    /// The hub of `HF_ENDPOINT`, with the token of `HF_TOKEN`.
    ///
    /// # Errors
    /// `Environment`.
    pub fn from_environment() -> Result<Self, ModelError> {
        let endpoint = env::hub_endpoint()?.unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Self { endpoint, token: env::hub_token()? })
    }

    /// The file in the cache; fetched first when it is not there. A file that is there is used as it is: no network.
    ///
    /// # Errors
    /// `CacheUnwritable`, `Hub`, `WrongBytes` (large files carry their SHA-256), `Io`.
    pub fn fetch(&self, file: &HubFile, cache: &Cache) -> Result<PathBuf, ModelError> {
        let kept = hf_hub::Cache::new(cache.hub());
        let repository = Repo::new(file.repository.clone(), RepoType::Model);
        if let Some(path) = kept.repo(repository.clone()).get(&file.file) {
            return Ok(path);
        }
        let _lock = cache.lock(&format!("hf--{}", file.repository.replace('/', "--")))?;
        if let Some(path) = kept.repo(repository.clone()).get(&file.file) {
            return Ok(path);
        }
        let failed = |error: hf_hub::api::sync::ApiError| ModelError::Hub {
            file: file.spec(),
            message: format!("{error}; check the name, and set HF_TOKEN if the model is gated"),
        };
        let api = ApiBuilder::from_cache(kept)
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(true)
            .build()
            .map_err(failed)?;
        let path = api.repo(repository).download(&file.file).map_err(failed)?;
        verify(file, path)
    }
}

/// Checks files whose content address in the cache is a SHA-256, which is so for all large ones.
fn verify(file: &HubFile, path: PathBuf) -> Result<PathBuf, ModelError> {
    let blob = fs::canonicalize(&path).map_err(ModelError::io("find", &path))?;
    let name = blob.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(path);
    }
    let found = fetch::sha256_of(&blob)?;
    if found == name.to_ascii_lowercase() {
        return Ok(path);
    }
    for wrong in [&path, &blob] {
        fs::remove_file(wrong).map_err(ModelError::io("remove", wrong))?;
    }
    Err(ModelError::WrongBytes {
        file: file.spec(),
        found: format!("sha256 {found}"),
        needed: format!("sha256 {name}"),
    })
}
