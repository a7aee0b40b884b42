//! From metadata to a configuration: one file for each architecture, holding only what is its own, and one for
//! the `config.json` of all of them.

mod gemma3;
mod hugging_face;
mod llama;
mod qwen2;

use anymlx::{DType, TensorType, ops::RopeScaling};
use anymlx_formats::gguf::SplitGguf;

use crate::{
    LmError, Result,
    checkpoint::Checkpoint,
    config::{ModelConfig, RopeConfig},
};

type Configure = fn(&Reader<'_>) -> Result<ModelConfig>;

/// The architectures that are implemented.
const ARCHITECTURES: [(&str, Configure); 3] =
    [("gemma3", gemma3::configure), ("llama", llama::configure), ("qwen2", qwen2::configure)];

/// Names of the architectures that are implemented.
pub fn supported() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect()
}

/// The configuration that a checkpoint describes.
///
/// # Errors
/// `UnknownArchitecture`; metadata that are missing, of the wrong type, or contradict themselves.
pub fn configure(checkpoint: &Checkpoint) -> Result<ModelConfig> {
    let config = match (checkpoint.gguf(), checkpoint.folder()) {
        (Some(gguf), _) => {
            let name = gguf.metadata.require_string("general.architecture")?;
            let Some((name, configure)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(name));
            };
            configure(&Reader { checkpoint, gguf, architecture: name })?
        }
        (None, Some(folder)) => hugging_face::configure(folder)?,
        (None, None) => return Err(LmError::InvalidModel("the files hold no model".into())),
    };
    check(&config)?;
    Ok(config)
}

/// The factor on attention scores that readers of GGUF take for granted.
pub(crate) fn attention_scale_of_gguf(config: &ModelConfig) -> f32 {
    match config.architecture {
        "gemma3" => gemma3::attention_scale(config),
        _ => 1.0 / (config.head_dim as f32).sqrt(),
    }
}

/// What YaRN multiplies attention with where a file has no factor of its own
/// (Peng et al. 2023, <https://arxiv.org/abs/2309.00071>, equation 22).
pub(crate) fn yarn_attention_factor(factor: f32) -> f32 {
    0.1 * factor.max(1.0).ln() + 1.0
}

fn unknown(name: &str) -> LmError {
    // Whatever a file says stays on the message's line.
    let name = name.chars().take(200).flat_map(char::escape_debug).collect();
    LmError::UnknownArchitecture { name, supported: supported().join(", ") }
}

/// More of anything than this is not a model.
const MAX_EXTENT: usize = 1 << 24;
pub(super) const MAX_LAYERS: usize = 4096;

fn check(config: &ModelConfig) -> Result<()> {
    let invalid = |message: String| Err(LmError::InvalidModel(message));
    for (name, value) in [
        ("embedding_length", config.hidden),
        ("head_count", config.heads),
        ("head_count_kv", config.kv_heads),
        ("key_length", config.head_dim),
        ("feed_forward_length", config.feed_forward),
        ("context_length", config.context_length),
        ("vocabulary", config.vocabulary),
    ] {
        if value == 0 || value > MAX_EXTENT {
            return invalid(format!("{name} is {value}, needed 1..={MAX_EXTENT}"));
        }
    }
    if config.layers.is_empty() || config.layers.len() > MAX_LAYERS {
        return invalid(format!("block_count is {}, needed 1..={MAX_LAYERS}", config.layers.len()));
    }
    if !config.heads.is_multiple_of(config.kv_heads) {
        return invalid(format!("{} heads cannot share {} key-value heads", config.heads, config.kv_heads));
    }
    if !config.rotary_dims.is_multiple_of(2) || config.rotary_dims > config.head_dim {
        return invalid(format!("{} rotary dimensions in heads of {}", config.rotary_dims, config.head_dim));
    }
    if config.layers.iter().any(|layer| matches!(layer, crate::config::LayerAttention::Window(0))) {
        return invalid("the sliding window is 0 positions, needed at least 1".into());
    }
    for (name, value) in [("layer_norm_rms_epsilon", config.norm_epsilon), ("freq_base", config.rope_global.base)] {
        if !(value.is_finite() && value > 0.0) {
            return invalid(format!("{name} is {value}, needed a positive number"));
        }
    }
    Ok(())
}

/// Metadata of one architecture.
pub(crate) struct Reader<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) gguf: &'a SplitGguf,
    pub(crate) architecture: &'static str,
}

impl Reader<'_> {
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(crate) fn size(&self, name: &str) -> Result<Option<usize>> {
        let key = self.key(name);
        let too_large = |value| LmError::InvalidModel(format!("`{key}` is {value}"));
        let value = self.gguf.metadata.u64(&key)?;
        value.map(|value| usize::try_from(value).map_err(|_| too_large(value))).transpose()
    }

    pub(crate) fn require_size(&self, name: &str) -> Result<usize> {
        match self.size(name)? {
            Some(value) => Ok(value),
            None => Ok(self.gguf.metadata.require_u64(&self.key(name)).map(|value| value as usize)?),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.gguf.metadata.f32(&self.key(name))?)
    }

    /// Blocks, refused before anything is sized by it.
    pub(crate) fn block_count(&self) -> Result<usize> {
        let count = self.require_size("block_count")?;
        if count == 0 || count > MAX_LAYERS {
            return Err(LmError::InvalidModel(format!("block_count is {count}, needed 1..={MAX_LAYERS}")));
        }
        Ok(count)
    }

    /// Rows of the embedding table.
    pub(crate) fn vocabulary(&self) -> Result<usize> {
        let embedding = &self.gguf.require_tensor("token_embd.weight")?.info;
        Ok(usize::try_from(embedding.rows()).unwrap_or(usize::MAX))
    }

    /// Width of a head: keys and values must agree.
    pub(crate) fn head_dim(&self, hidden: usize, heads: usize) -> Result<usize> {
        let key = self.size("attention.key_length")?;
        let value = self.size("attention.value_length")?;
        let head_dim = match key {
            Some(key) => key,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(LmError::InvalidModel(format!(
                    "an embedding of {hidden} does not divide by {heads} heads"
                )));
            }
        };
        match value {
            Some(value) if value != head_dim => Err(LmError::InvalidModel(format!(
                "keys of {head_dim} and values of {value} dimensions are not supported"
            ))),
            _ => Ok(head_dim),
        }
    }

    /// `rope_freqs.weight`: divisors of the rotary frequencies, as Llama 3 stores its scaling.
    fn frequency_factors(&self) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.checkpoint.tensor("rope_freqs.weight") else { return Ok(None) };
        if tensor.encoding != Some(TensorType::Dense(DType::F32)) {
            let message = format!("tensor `{}` is {}, needed F32", tensor.name, tensor.type_name);
            return Err(LmError::InvalidModel(message));
        }
        let (values, _) = self.checkpoint.data(&tensor)?.as_chunks::<4>();
        Ok(Some(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }

    /// `rope.freq_base`, `rope.scaling.*` and `rope_freqs.weight`.
    pub(crate) fn rope(&self, rotary_dims: usize) -> Result<RopeConfig> {
        let factors = self.frequency_factors()?;
        let base = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        let factor = match self.number("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.number("rope.scale_linear")?,
        };
        let kind = self.gguf.metadata.string(&self.key("rope.scaling.type"))?;
        if let Some(factor) = factor
            && !(factor.is_finite() && factor >= 0.0)
        {
            return Err(LmError::InvalidModel(format!("rope.scaling.factor is {factor}, needed a positive number")));
        }
        // llama.cpp writes a factor of 0 for `no scaling`.
        let factor = factor.filter(|factor| *factor != 0.0);
        let scaling = match (kind, factor, factors) {
            (_, _, Some(factors)) if factors.len() == rotary_dims / 2 => RopeScaling::Factors(factors),
            (_, _, Some(factors)) => {
                let message = format!("rope_freqs.weight has {} factors, needed {}", factors.len(), rotary_dims / 2);
                return Err(LmError::InvalidModel(message));
            }
            (Some("none"), _, None) | (_, None, None) => RopeScaling::None,
            (Some("linear") | None, Some(factor), None) => RopeScaling::Linear { factor },
            (Some("yarn"), Some(factor), None) => {
                let own = self.number("rope.scaling.attn_factor")?;
                RopeScaling::Yarn {
                    factor,
                    original_context: self.require_size("rope.scaling.original_context_length")?,
                    beta_fast: self.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    extrapolation: self.number("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                    // llama.cpp multiplies the file's factor with the paper's.
                    attention_factor: own.map(|own| own * yarn_attention_factor(factor)),
                }
            }
            (Some(other), Some(_), None) => {
                let message = format!("rope scaling `{other}` is not supported; supported are none, linear and yarn");
                return Err(LmError::InvalidModel(message));
            }
        };
        Ok(RopeConfig { base, scaling })
    }
}
