//! `config.json`, as Hugging Face `transformers` and MLX write it.
//!
//! Names and defaults are those of `transformers`; rotary settings are read from `rope_theta` and `rope_scaling`, and from
//! `rope_parameters`, which version 5 writes in their place.

use anymlx::{
    DType, TensorType,
    ops::{Activation, RopeLayout, RopeScaling},
};
use serde::Deserialize;
use serde_json::Value;

use super::{MAX_LAYERS, unknown};
use crate::{
    LmError, Result,
    checkpoint::{Folder, Part, json_of},
    config::{LayerAttention, ModelConfig, RopeConfig},
};

/// Every n-th layer of Gemma 3 is global where the file does not say.
const GEMMA3_PATTERN: usize = 6;

#[derive(Deserialize)]
struct Config {
    model_type: Option<String>,
    /// The text part of a model that sees images.
    text_config: Option<Value>,
}

#[derive(Deserialize)]
struct TextConfig {
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    num_hidden_layers: Option<usize>,
    intermediate_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    rope_theta: Option<f32>,
    rope_local_base_freq: Option<f32>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<RopeParameters>,
    rope_traditional: Option<bool>,
    query_pre_attn_scalar: Option<f32>,
    sliding_window: Option<usize>,
    sliding_window_pattern: Option<usize>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
}

/// One rotation for all layers, or one for each kind.
#[derive(Deserialize)]
#[serde(untagged)]
enum RopeParameters {
    Kinds { full_attention: Rope, sliding_attention: Option<Rope> },
    All(Rope),
}

#[derive(Deserialize, Clone, Default)]
struct Rope {
    rope_theta: Option<f32>,
    /// In files of before 2024 only `type`.
    rope_type: Option<String>,
    #[serde(rename = "type")]
    old_type: Option<String>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<usize>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    attention_factor: Option<f32>,
}

/// The configuration of the checkpoint in `folder`.
pub(super) fn configure(folder: &Folder) -> Result<ModelConfig> {
    let config: Config = json_of("config.json", &folder.config)?;
    let (text, model_type): (TextConfig, _) = match config.text_config {
        Some(section) => {
            let named: Config = read(&section)?;
            (read(&section)?, named.model_type.or(config.model_type))
        }
        None => (json_of("config.json", &folder.config)?, config.model_type),
    };
    let text = Text { config: text, folder };
    match model_type.as_deref() {
        Some("llama") => text.plain("llama", 10_000.0),
        Some("qwen2") => text.qwen2(),
        Some("gemma3_text" | "gemma3") => text.gemma3(),
        other => Err(unknown(other.unwrap_or("(no `model_type`)"))),
    }
}

fn read<T: serde::de::DeserializeOwned>(section: &Value) -> Result<T> {
    T::deserialize(section).map_err(|error| LmError::InvalidModel(format!("`config.json`: text_config: {error}")))
}

struct Text<'a> {
    config: TextConfig,
    folder: &'a Folder,
}

impl Text<'_> {
    fn required(name: &str, value: Option<usize>) -> Result<usize> {
        value.ok_or_else(|| LmError::InvalidModel(format!("`config.json` has no `{name}`")))
    }

    /// What all architectures share: Llama, but for the base of its rotation.
    fn plain(&self, architecture: &'static str, default_base: f32) -> Result<ModelConfig> {
        let config = &self.config;
        let hidden = Self::required("hidden_size", config.hidden_size)?;
        let heads = Self::required("num_attention_heads", config.num_attention_heads)?;
        let count = Self::required("num_hidden_layers", config.num_hidden_layers)?;
        if count == 0 || count > MAX_LAYERS {
            return Err(LmError::InvalidModel(format!("num_hidden_layers is {count}, needed 1..={MAX_LAYERS}")));
        }
        let head_dim = match config.head_dim {
            Some(head_dim) => head_dim,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let message = format!("a hidden_size of {hidden} does not divide by {heads} heads");
                return Err(LmError::InvalidModel(message));
            }
        };
        let rope_global = self.rope(head_dim, self.global_rope(), config.rope_theta, default_base)?;
        let traditional = config.rope_traditional == Some(true);
        Ok(ModelConfig {
            architecture,
            vocabulary: self.vocabulary()?,
            hidden,
            heads,
            kv_heads: config.num_key_value_heads.unwrap_or(heads),
            head_dim,
            feed_forward: Self::required("intermediate_size", config.intermediate_size)?,
            context_length: Self::required("max_position_embeddings", config.max_position_embeddings)?,
            norm_epsilon: config.rms_norm_eps.unwrap_or(1e-6),
            norm_weight_offset: 0.0,
            embedding_scale: 1.0,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            attention_softcap: None,
            final_softcap: None,
            activation: self.activation()?,
            rope_layout: if traditional { RopeLayout::Interleaved } else { RopeLayout::NeoX },
            rotary_dims: head_dim,
            rope_windowed: rope_global.clone(),
            rope_global,
            layers: vec![LayerAttention::Global; count],
            query_key_norm: false,
            post_norms: false,
            requires_qkv_bias: false,
        })
    }

    fn qwen2(&self) -> Result<ModelConfig> {
        if self.config.use_sliding_window == Some(true) {
            return Err(LmError::InvalidModel("`use_sliding_window` is not supported for qwen2".into()));
        }
        Ok(ModelConfig { requires_qkv_bias: true, ..self.plain("qwen2", 10_000.0)? })
    }

    fn gemma3(&self) -> Result<ModelConfig> {
        let config = &self.config;
        let plain = self.plain("gemma3", 1_000_000.0)?;
        let own = match &config.rope_parameters {
            Some(RopeParameters::Kinds { sliding_attention, .. }) => sliding_attention.clone(),
            _ => None,
        };
        let rope_windowed =
            self.rope(plain.head_dim, own.unwrap_or_default(), config.rope_local_base_freq, 10_000.0)?;
        let embedding_scale = (plain.hidden as f32).sqrt();
        Ok(ModelConfig {
            // Weights are stored less one.
            norm_weight_offset: 1.0,
            // Published models were trained with the factor in their own type.
            embedding_scale: if self.is_single_precision()? {
                embedding_scale
            } else {
                half::bf16::from_f32(embedding_scale).to_f32()
            },
            attention_scale: config.query_pre_attn_scalar.map_or(plain.attention_scale, |scalar| 1.0 / scalar.sqrt()),
            attention_softcap: config.attn_logit_softcapping,
            final_softcap: config.final_logit_softcapping,
            rope_windowed,
            layers: self.windows(plain.layers.len())?,
            query_key_norm: true,
            post_norms: true,
            ..plain
        })
    }

    fn windows(&self, count: usize) -> Result<Vec<LayerAttention>> {
        let config = &self.config;
        let window = config.sliding_window.unwrap_or(4096);
        if let Some(types) = &config.layer_types {
            if types.len() != count {
                let message = format!("`layer_types` has {} entries for {count} layers", types.len());
                return Err(LmError::InvalidModel(message));
            }
            let kind = |name: &String| match name.as_str() {
                "full_attention" => Ok(LayerAttention::Global),
                "sliding_attention" => Ok(LayerAttention::Window(window)),
                other => Err(LmError::InvalidModel(format!("layer type `{other}` is not supported"))),
            };
            return types.iter().map(kind).collect();
        }
        match config.sliding_window_pattern.unwrap_or(GEMMA3_PATTERN) {
            0 => Err(LmError::InvalidModel("`sliding_window_pattern` is 0, needed at least 1".into())),
            pattern => {
                let kind = |layer: usize| {
                    if layer.is_multiple_of(pattern) { LayerAttention::Global } else { LayerAttention::Window(window) }
                };
                Ok((1..=count).map(kind).collect())
            }
        }
    }

    fn embedding(&self) -> Result<&anymlx_formats::safetensors::TensorInfo> {
        let name = self.folder.names(false).of(Part::Embedding);
        Ok(&self.folder.tensors.require_tensor(&format!("{name}.weight"))?.info)
    }

    /// Rows of the embedding table, which may be more than `vocab_size`.
    fn vocabulary(&self) -> Result<usize> {
        let rows = self.embedding()?.shape.first().copied().unwrap_or(0);
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }

    fn is_single_precision(&self) -> Result<bool> {
        let encoding = self.embedding()?.stored.dtype().map(TensorType::Dense);
        Ok(self.folder.quantization.is_none() && encoding == Some(TensorType::Dense(DType::F32)))
    }

    fn activation(&self) -> Result<Activation> {
        let config = &self.config;
        match config.hidden_activation.as_deref().or(config.hidden_act.as_deref()) {
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
            None if config.query_pre_attn_scalar.is_some() => Ok(Activation::GeluTanh),
            None => Ok(Activation::Silu),
            Some(other) => Err(LmError::InvalidModel(format!(
                "activation `{other}` is not supported; supported are silu and gelu_pytorch_tanh"
            ))),
        }
    }

    fn global_rope(&self) -> Rope {
        let config = &self.config;
        match &config.rope_parameters {
            Some(RopeParameters::Kinds { full_attention, .. }) => full_attention.clone(),
            Some(RopeParameters::All(rope)) => rope.clone(),
            None => config.rope_scaling.clone().unwrap_or_default(),
        }
    }

    fn rope(&self, rotary_dims: usize, rope: Rope, theta: Option<f32>, default_base: f32) -> Result<RopeConfig> {
        let base = rope.rope_theta.or(theta).unwrap_or(default_base);
        let factor = rope.factor.unwrap_or(1.0);
        if !(factor.is_finite() && factor > 0.0) {
            return Err(LmError::InvalidModel(format!("rope: factor is {factor}, needed a positive number")));
        }
        let original = rope.original_max_position_embeddings.or(self.config.max_position_embeddings);
        let scaling = match rope.rope_type.as_deref().or(rope.old_type.as_deref()) {
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor },
            Some("yarn") => RopeScaling::Yarn {
                factor,
                original_context: Self::required("original_max_position_embeddings", original)?,
                beta_fast: rope.beta_fast.unwrap_or(32.0),
                beta_slow: rope.beta_slow.unwrap_or(1.0),
                extrapolation: 1.0,
                attention_factor: rope.attention_factor,
            },
            Some("llama3") => {
                let original = rope.original_max_position_embeddings.unwrap_or(8192);
                let bounds = (rope.low_freq_factor.unwrap_or(1.0), rope.high_freq_factor.unwrap_or(4.0));
                RopeScaling::Factors(llama3_factors(base, rotary_dims, factor, original, bounds))
            }
            Some(other) => {
                return Err(LmError::InvalidModel(format!(
                    "rope scaling `{other}` is not supported; supported are default, linear, yarn and llama3"
                )));
            }
        };
        Ok(RopeConfig { base, scaling })
    }
}

/// Divisors of the frequencies by Llama 3.1's rule: waves that fit into the original context more than `high` times keep
/// their frequency, those that fit less than `low` times are divided by `factor`, and between them the frequency is
/// interpolated. Source: `_compute_llama3_parameters` of `transformers`.
fn llama3_factors(base: f32, rotary_dims: usize, factor: f32, original: usize, (low, high): (f32, f32)) -> Vec<f32> {
    let (low, high, factor) = (f64::from(low), f64::from(high), f64::from(factor));
    let divisor = |pair: usize| {
        let wavelength = std::f64::consts::TAU * f64::from(base).powf(2.0 * pair as f64 / rotary_dims as f64);
        let turns = original as f64 / wavelength;
        if turns > high {
            1.0
        } else if turns < low {
            factor
        } else {
            let share = (turns - low) / (high - low);
            1.0 / ((1.0 - share) / factor + share)
        }
    };
    (0..rotary_dims / 2).map(|pair| divisor(pair) as f32).collect()
}
