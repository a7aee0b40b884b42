//! Folders of safetensors with a `config.json`: checkpoints of Hugging Face and of MLX.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anymlx::HostFile;
use anymlx_formats::{
    mlx::QuantizationConfig,
    safetensors::{INDEX_FILE_NAME, Safetensors, ShardIndex, ShardedSafetensors},
};
use serde::Deserialize;
use serde_json::Value;

use super::Names;
use crate::{
    LmError, Result,
    chat::{ChatTemplate, SpecialTexts},
    tokenizer::{JsonOptions, Tokenizer},
};

/// The longest text file that is read: tokenizers of 262,144 entries take some 35 MB.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// What a folder holds beside the bytes of tensors.
pub(crate) struct Folder {
    path: PathBuf,
    /// `config.json`.
    pub(crate) config: Vec<u8>,
    /// How MLX packed the matrices; `None` where it did not.
    pub(crate) quantization: Option<QuantizationConfig>,
    pub(crate) tensors: ShardedSafetensors,
}

/// The prefixes under which text models are found, and the names of their heads: plain models, those inside
/// a model that sees images as MLX and as older and newer versions of `transformers` write them.
const PLACES: [(&str, &str); 4] = [
    ("model.", "lm_head"),
    ("language_model.model.", "language_model.lm_head"),
    ("model.language_model.", "lm_head"),
    ("", "lm_head"),
];

impl Folder {
    /// Reads headers and configuration: the folder, the files with tensors, and these files mapped.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<PathBuf>, Vec<HostFile>)> {
        let config = read(&path.join("config.json"))?.ok_or_else(|| {
            LmError::InvalidModel("the folder has no `config.json`, needed beside the `.safetensors` files".into())
        })?;
        let quantization = QuantizationConfig::parse(&config)?;
        refuse_foreign_quantization(&config, quantization.is_some())?;
        let index = read(&path.join(INDEX_FILE_NAME))?.map(|bytes| ShardIndex::parse(&bytes)).transpose()?;
        let paths: Vec<PathBuf> = match &index {
            Some(index) => index.files.iter().map(|name| path.join(name)).collect(),
            None => vec![only_safetensors(path)?],
        };
        let hosts = paths.iter().map(HostFile::open).collect::<anymlx::Result<Vec<_>>>()?;
        let mut headers = Vec::with_capacity(hosts.len());
        for (path, host) in paths.iter().zip(&hosts) {
            let header = Safetensors::parse(host.bytes());
            headers.push(header.map_err(|error| LmError::from(error).context(format!("`{}`", path.display())))?);
        }
        let tensors = match (&index, headers.pop()) {
            (None, Some(only)) => ShardedSafetensors::from(only),
            (Some(index), Some(last)) => {
                headers.push(last);
                ShardedSafetensors::join(index, &headers)?
            }
            (_, None) => return Err(LmError::InvalidModel(format!("`{INDEX_FILE_NAME}` names no files"))),
        };
        Ok((Self { path: path.to_owned(), config, quantization, tensors }, paths, hosts))
    }

    /// How tensors are named here.
    pub(crate) fn names(&self, post_norms: bool) -> Names {
        let has = |prefix: &str| self.tensors.tensor(&format!("{prefix}embed_tokens.weight")).is_some();
        let (prefix, head) = PLACES.into_iter().find(|(prefix, _)| has(prefix)).unwrap_or(PLACES[0]);
        Names::HuggingFace { prefix, head, post_norms }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What can be found wrong with the vocabulary without parsing it.
    pub(crate) fn check_tokenizer(&self) -> Result<()> {
        if !self.path.join("tokenizer.json").is_file() {
            return Err(no_tokenizer());
        }
        self.special().map(drop)
    }

    /// `tokenizer.json`.
    pub(crate) fn tokenizer_json(&self) -> Result<Vec<u8>> {
        read(&self.path.join("tokenizer.json"))?.ok_or_else(no_tokenizer)
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        let json = self.tokenizer_json()?;
        let special = self.special()?;
        let mut end_of_generation = Vec::new();
        for name in ["generation_config.json", "config.json"] {
            if let Some(bytes) = read(&self.path.join(name))? {
                let ids: EndIds = json_of(name, &bytes)?;
                end_of_generation.extend(ids.all());
            }
        }
        let options = JsonOptions {
            bos_token: special.bos.as_deref(),
            eos_token: special.eos.as_deref(),
            unknown_token: special.unknown.as_deref(),
            padding_token: special.padding.as_deref(),
            end_of_generation: &end_of_generation,
        };
        Ok(Tokenizer::from_json(&json, &options)?)
    }

    pub(crate) fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        let source = self.chat_template_source()?;
        let special = self.special()?;
        let texts = SpecialTexts {
            bos_token: special.bos.as_deref().unwrap_or_default(),
            eos_token: special.eos.as_deref().unwrap_or_default(),
        };
        Ok(source.map(|source| ChatTemplate::new(&source, texts)).transpose()?)
    }

    /// The text of the chat template.
    pub(crate) fn chat_template_source(&self) -> Result<Option<String>> {
        match read(&self.path.join("chat_template.jinja"))? {
            Some(bytes) => String::from_utf8(bytes)
                .map(Some)
                .map_err(|_| LmError::InvalidModel("`chat_template.jinja` is not UTF-8".into())),
            None => Ok(self.special()?.template),
        }
    }

    fn special(&self) -> Result<Special> {
        let name = "tokenizer_config.json";
        let Some(bytes) = read(&self.path.join(name))? else { return Ok(Special::default()) };
        let config: TokenizerConfig = json_of(name, &bytes)?;
        Ok(Special {
            bos: token_text(config.bos_token),
            eos: token_text(config.eos_token),
            unknown: token_text(config.unk_token),
            padding: token_text(config.pad_token),
            template: template_source(config.chat_template),
        })
    }
}

fn no_tokenizer() -> LmError {
    LmError::InvalidModel("the folder has no `tokenizer.json`".into())
}

/// Special tokens by their texts, and the chat template.
#[derive(Default)]
struct Special {
    bos: Option<String>,
    eos: Option<String>,
    unknown: Option<String>,
    padding: Option<String>,
    template: Option<String>,
}

#[derive(Deserialize)]
struct TokenizerConfig {
    bos_token: Option<Value>,
    eos_token: Option<Value>,
    unk_token: Option<Value>,
    pad_token: Option<Value>,
    chat_template: Option<Value>,
}

/// A token's text: it comes alone or in an object.
fn token_text(token: Option<Value>) -> Option<String> {
    let token = token?;
    let text = token.get("content").unwrap_or(&token);
    text.as_str().map(str::to_owned)
}

/// The template, or the one of several that is called `default`.
fn template_source(template: Option<Value>) -> Option<String> {
    match template? {
        Value::String(source) => Some(source),
        Value::Array(list) => {
            let named = list.iter().find(|entry| entry["name"] == "default")?;
            named["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// `eos_token_id`: nothing, one id or several.
#[derive(Deserialize)]
struct EndIds {
    eos_token_id: Option<Value>,
}

impl EndIds {
    fn all(&self) -> Vec<u32> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match &self.eos_token_id {
            Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
            Some(value) => id(value).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

/// Layouts of other programs are named, not guessed.
fn refuse_foreign_quantization(config: &[u8], is_mlx: bool) -> Result<()> {
    #[derive(Deserialize)]
    struct Config {
        quantization_config: Option<Value>,
    }
    let config: Config = json_of("config.json", config)?;
    match config.quantization_config.as_ref().and_then(|section| section.get("quant_method")).and_then(Value::as_str) {
        Some(method) if !is_mlx => Err(LmError::InvalidModel(format!(
            "the checkpoint is quantised by `{method}`, which is not supported; supported are unquantised checkpoints \
             and those of MLX"
        ))),
        _ => Ok(()),
    }
}

pub(crate) fn json_of<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| LmError::InvalidModel(format!("`{name}`: {error}")))
}

/// A whole small file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed =
        |error: std::io::Error| LmError::from(anymlx::MlxError::IoError(format!("read `{}`: {error}", path.display())));
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(metadata) if metadata.len() > MAX_TEXT_BYTES => Err(LmError::InvalidModel(format!(
            "`{}` has {} bytes, at most {MAX_TEXT_BYTES} are read",
            path.display(),
            metadata.len()
        ))),
        Ok(_) => fs::read(path).map(Some).map_err(failed),
    }
}

/// The file of a checkpoint without an index: `model.safetensors`, or the only one there is.
fn only_safetensors(folder: &Path) -> Result<PathBuf> {
    let usual = folder.join("model.safetensors");
    if usual.is_file() {
        return Ok(usual);
    }
    let failed = |error: std::io::Error| {
        LmError::from(anymlx::MlxError::IoError(format!("list `{}`: {error}", folder.display())))
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(path);
        }
    }
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(LmError::InvalidModel("the folder has no `.safetensors` file".into())),
        (Some(_), others) => Err(LmError::InvalidModel(format!(
            "the folder has {} `.safetensors` files, neither `model.safetensors` nor `{INDEX_FILE_NAME}` is there",
            others + 1
        ))),
    }
}
