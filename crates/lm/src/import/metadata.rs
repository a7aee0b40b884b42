//! Hyper-parameters under the keys of GGUF: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use anymlx::ops::{Activation, RopeScaling};
use anymlx_formats::gguf::{Array, Metadata, Value};

use super::OPERATION;
use crate::{
    LmError, Result, architecture,
    config::{LayerAttention, ModelConfig},
};

/// Base of the rotation in windowed layers that readers of GGUF take for granted.
const WINDOWED_BASE: f32 = 10_000.0;

fn inexpressible(what: impl std::fmt::Display) -> LmError {
    LmError::invalid(OPERATION, format!("{what}, which GGUF has no key for"))
}

/// Everything but the vocabulary. `file_type` names the type of most matrices.
pub(super) fn of(config: &ModelConfig, name: &str, file_type: u32) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", config.architecture);
    metadata.insert("general.type", "model");
    metadata.insert("general.name", name);
    metadata.insert("general.file_type", file_type);
    let key = |name: &str| format!("{}.{name}", config.architecture);
    for (name, value) in [
        ("block_count", config.layers.len()),
        ("context_length", config.context_length),
        ("embedding_length", config.hidden),
        ("feed_forward_length", config.feed_forward),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.rotary_dims),
        ("vocab_size", config.vocabulary),
    ] {
        metadata.insert(key(name), u32::try_from(value).map_err(|_| inexpressible(format!("{name} is {value}")))?);
    }
    metadata.insert(key("attention.layer_norm_rms_epsilon"), config.norm_epsilon);
    metadata.insert(key("rope.freq_base"), config.rope_global.base);
    scaling(config, &mut metadata)?;

    let gemma = config.architecture == "gemma3";
    let activation = if gemma { Activation::GeluTanh } else { Activation::Silu };
    if config.activation != activation {
        return Err(inexpressible(format!("the activation of `{}` is {:?}", config.architecture, config.activation)));
    }
    let scale = architecture::attention_scale_of_gguf(config);
    if (config.attention_scale - scale).abs() > 1e-6 * scale {
        return Err(inexpressible(format!(
            "attention scores are multiplied with {}, in GGUF models of this shape with {scale}",
            config.attention_scale
        )));
    }
    if gemma {
        windows(config, &mut metadata)?;
        for (name, cap) in
            [("attn_logit_softcapping", config.attention_softcap), ("final_logit_softcapping", config.final_softcap)]
        {
            if let Some(cap) = cap {
                metadata.insert(key(name), cap);
            }
        }
    }
    Ok(metadata)
}

fn windows(config: &ModelConfig, metadata: &mut Metadata) -> Result<()> {
    let key = |name: &str| format!("{}.{name}", config.architecture);
    if config.rope_windowed.scaling != RopeScaling::None {
        return Err(inexpressible("the rotation of windowed layers is scaled"));
    }
    if config.rope_windowed.base != WINDOWED_BASE {
        metadata.insert(key("rope.freq_base_swa"), config.rope_windowed.base);
    }
    let window = |layer: &LayerAttention| match layer {
        LayerAttention::Window(window) => Some(*window),
        LayerAttention::Global => None,
    };
    let Some(width) = config.layers.iter().find_map(window) else { return Ok(()) };
    let width = u32::try_from(width).map_err(|_| inexpressible(format!("a window of {width}")))?;
    metadata.insert(key("attention.sliding_window"), width);
    let flags: Vec<bool> = config.layers.iter().map(|layer| window(layer).is_some()).collect();
    metadata.insert(key("attention.sliding_window_pattern"), Value::Array(Array::Bool(flags)));
    Ok(())
}

/// Factors become the tensor `rope_freqs.weight`.
fn scaling(config: &ModelConfig, metadata: &mut Metadata) -> Result<()> {
    let key = |name: &str| format!("{}.rope.scaling.{name}", config.architecture);
    match &config.rope_global.scaling {
        RopeScaling::None | RopeScaling::Factors(_) => {}
        RopeScaling::Linear { factor } => {
            metadata.insert(key("type"), "linear");
            metadata.insert(key("factor"), *factor);
        }
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, extrapolation, attention_factor } => {
            metadata.insert(key("type"), "yarn");
            metadata.insert(key("factor"), *factor);
            let original = u32::try_from(*original_context);
            let original = original.map_err(|_| inexpressible(format!("a context of {original_context}")))?;
            metadata.insert(key("original_context_length"), original);
            metadata.insert(key("yarn_beta_fast"), *beta_fast);
            metadata.insert(key("yarn_beta_slow"), *beta_slow);
            metadata.insert(key("yarn_ext_factor"), *extrapolation);
            if let Some(own) = attention_factor {
                metadata.insert(key("attn_factor"), own / architecture::yarn_attention_factor(*factor));
            }
        }
    }
    Ok(())
}
