//! Gemma 3 (Gemma Team 2025, <https://arxiv.org/abs/2503.19786>).

use anymlx::ops::{Activation, RopeLayout, RopeScaling};
use anymlx_formats::gguf::{Array, Value};

use super::{Reader, llama};
use crate::{
    LmError, Result,
    config::{LayerAttention, ModelConfig, RopeConfig},
};

/// Every n-th layer is global where the file does not say.
const DEFAULT_PATTERN: usize = 6;

/// Layers of the 27B model, which alone scales scores by the embedding's share of a head.
const LAYERS_OF_27B: usize = 62;

pub(super) fn configure(reader: &Reader<'_>) -> Result<ModelConfig> {
    let plain = llama::plain(reader, RopeLayout::NeoX)?;
    let attention_scale = attention_scale(&plain);
    let windowed_base = reader.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
    Ok(ModelConfig {
        norm_epsilon: reader.number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6),
        embedding_scale: (plain.hidden as f32).sqrt(),
        attention_scale,
        attention_softcap: reader.number("attn_logit_softcapping")?,
        final_softcap: reader.number("final_logit_softcapping")?,
        activation: Activation::GeluTanh,
        // Longer contexts scale the global layers only.
        rope_windowed: RopeConfig { base: windowed_base, scaling: RopeScaling::None },
        layers: layers(reader, plain.layers.len())?,
        query_key_norm: true,
        post_norms: true,
        ..plain
    })
}

/// The factor on scores in GGUF models of this shape.
pub(super) fn attention_scale(config: &ModelConfig) -> f32 {
    if config.layers.len() == LAYERS_OF_27B {
        1.0 / (config.hidden as f32 / config.heads as f32).sqrt()
    } else {
        1.0 / (config.head_dim as f32).sqrt()
    }
}

fn layers(reader: &Reader<'_>, count: usize) -> Result<Vec<LayerAttention>> {
    let Some(window) = reader.size("attention.sliding_window")?.filter(|window| *window > 0) else {
        return Ok(vec![LayerAttention::Global; count]);
    };
    let kind = |windowed: bool| if windowed { LayerAttention::Window(window) } else { LayerAttention::Global };
    let key = "attention.sliding_window_pattern";
    let metadata = &reader.gguf.metadata;
    if let Some(Value::Array(Array::Bool(flags))) = metadata.get(&reader.key(key)) {
        if flags.len() != count {
            let message = format!("`{key}` has {} flags for {count} layers", flags.len());
            return Err(LmError::InvalidModel(message));
        }
        return Ok(flags.iter().map(|&windowed| kind(windowed)).collect());
    }
    match reader.size(key)?.unwrap_or(DEFAULT_PATTERN) {
        0 => Err(LmError::InvalidModel(format!("`{key}` is 0, needed at least 1"))),
        pattern => Ok((1..=count).map(|layer| kind(!layer.is_multiple_of(pattern))).collect()),
    }
}
