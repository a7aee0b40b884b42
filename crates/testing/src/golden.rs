//! Recorded results of other implementations.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::tolerance::{Limits, Tolerance};

/// What a reference implementation computed for one model file.
///
/// On disk a case `NAME` is `NAME.json` (everything but the logits), `NAME.logits` (little-endian `f32`,
/// `[tokens, vocabulary]`) and `NAME.gguf` or the folder `NAME` (the model).
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// The case's name.
    pub name: String,
    /// What the case is there for.
    pub description: String,
    /// Architecture as GGUF names it.
    pub architecture: String,
    /// The model file or folder.
    pub model: PathBuf,
    /// Number of logits per position.
    pub vocabulary: usize,
    /// Input token ids.
    pub tokens: Vec<u32>,
    /// Logits after each input token, `[tokens, vocabulary]`.
    pub logits: Vec<f32>,
    /// Standard deviation of all logits: the scale on which differences are small or large.
    pub logits_deviation: f64,
    /// Largest difference between the recorded `f32` run and a run of the same implementation with `f64` parameters and
    /// activations: the rounding noise in the record itself.
    pub logits_noise: f64,
    /// Greedy continuation of the input.
    pub continuation: Vec<u32>,
    /// Smallest distance between the best and the second logit along the continuation: an implementation whose logits are
    /// off by less than half of it finds the same tokens.
    pub continuation_margin: f64,
    /// Versions of the programs that made the record, by name.
    pub versions: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    description: String,
    architecture: String,
    vocabulary: usize,
    tokens: Vec<u32>,
    logits_deviation: f64,
    logits_noise: f64,
    continuation: Vec<u32>,
    continuation_margin: f64,
    versions: std::collections::BTreeMap<String, String>,
}

/// Why a record could not be used.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A file could not be read.
    #[error("golden {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The description is not the JSON expected here.
    #[error("golden {path}: {source}")]
    Json {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The parts of the record contradict each other.
    #[error("golden {name}: {problem}")]
    Inconsistent {
        /// The case.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

impl Golden {
    /// Loads case `name` from `directory`.
    ///
    /// # Errors
    /// When a file is missing or malformed, or when the parts do not fit together.
    pub fn load(directory: &Path, name: &str) -> Result<Self, GoldenError> {
        let (json, logits, folder) =
            (file(directory, name, "json"), file(directory, name, "logits"), directory.join(name));
        let model = if folder.is_dir() { folder } else { file(directory, name, "gguf") };
        let record: Record = serde_json::from_slice(&read(&json)?)
            .map_err(|source| GoldenError::Json { path: json.display().to_string(), source })?;
        let bytes = read(&logits)?;
        if let Err(source) = std::fs::metadata(&model) {
            return Err(GoldenError::Io { path: model.display().to_string(), source });
        }
        let inconsistent = |problem: String| GoldenError::Inconsistent { name: name.to_owned(), problem };
        let needed = record.tokens.len() * record.vocabulary * size_of::<f32>();
        if bytes.len() != needed || needed == 0 {
            let (tokens, vocabulary) = (record.tokens.len(), record.vocabulary);
            return Err(inconsistent(format!(
                "{} bytes of logits for {tokens} tokens and {vocabulary} logits each: needs {needed}, and not 0",
                bytes.len()
            )));
        }
        if let Some(token) =
            record.tokens.iter().chain(&record.continuation).find(|&&token| token as usize >= record.vocabulary)
        {
            return Err(inconsistent(format!("token {token} is not in a vocabulary of {}", record.vocabulary)));
        }
        let logits: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if let Some(position) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(inconsistent(format!("logit {position} is {}", logits[position])));
        }
        Ok(Golden {
            name: name.to_owned(),
            description: record.description,
            architecture: record.architecture,
            model,
            vocabulary: record.vocabulary,
            tokens: record.tokens,
            logits,
            logits_deviation: record.logits_deviation,
            logits_noise: record.logits_noise,
            continuation: record.continuation,
            continuation_margin: record.continuation_margin,
            versions: record.versions.into_iter().collect(),
        })
    }

    /// Loads every case of `directory`, by name.
    ///
    /// # Errors
    /// As [`Golden::load`]; also when the directory cannot be read or holds no case.
    pub fn load_all(directory: &Path) -> Result<Vec<Self>, GoldenError> {
        let io = |source| GoldenError::Io { path: directory.display().to_string(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                names.push(name.to_owned());
            }
        }
        if names.is_empty() {
            let problem = format!("no .json file in {}", directory.display());
            return Err(GoldenError::Inconsistent { name: "*".to_owned(), problem });
        }
        names.sort();
        names.iter().map(|name| Self::load(directory, name)).collect()
    }

    /// The logits after input token `position`.
    ///
    /// # Panics
    /// When `position` is not below the number of tokens.
    pub fn logits_at(&self, position: usize) -> &[f32] {
        &self.logits[position * self.vocabulary..(position + 1) * self.vocabulary]
    }

    /// Allows a difference of `share` standard deviations of the logits: how far an implementation may be depends on how it
    /// rounds activations, which only the caller knows.
    pub fn tolerance(&self, share: f64) -> Tolerance {
        Tolerance::explicit(Limits { abs: share * self.logits_deviation, rel: 0.0 })
    }

    /// All logits as the reference side of a comparison.
    pub fn logits_f64(&self) -> Vec<f64> {
        self.logits.iter().map(|&logit| f64::from(logit)).collect()
    }
}

fn file(directory: &Path, name: &str, extension: &str) -> PathBuf {
    directory.join(format!("{name}.{extension}"))
}

fn read(path: &Path) -> Result<Vec<u8>, GoldenError> {
    std::fs::read(path).map_err(|source| GoldenError::Io { path: path.display().to_string(), source })
}
