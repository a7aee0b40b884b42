//! Llama 2 and 3 (Touvron et al. 2023, <https://arxiv.org/abs/2307.09288>), and what is built like them.

use anymlx::ops::{Activation, RopeLayout};

use super::Reader;
use crate::{
    Result,
    config::{LayerAttention, ModelConfig},
};

/// The converter permutes query and key rows, so that neighbours are rotated together.
pub(super) fn configure(reader: &Reader<'_>) -> Result<ModelConfig> {
    plain(reader, RopeLayout::Interleaved)
}

/// What Llama and Qwen 2 share.
pub(super) fn plain(reader: &Reader<'_>, rope_layout: RopeLayout) -> Result<ModelConfig> {
    let hidden = reader.require_size("embedding_length")?;
    let heads = reader.require_size("attention.head_count")?;
    let head_dim = reader.head_dim(hidden, heads)?;
    let rotary_dims = reader.size("rope.dimension_count")?.unwrap_or(head_dim);
    let rope = reader.rope(rotary_dims)?;
    Ok(ModelConfig {
        architecture: reader.architecture,
        vocabulary: reader.vocabulary()?,
        hidden,
        heads,
        kv_heads: reader.size("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        feed_forward: reader.require_size("feed_forward_length")?,
        context_length: reader.require_size("context_length")?,
        norm_epsilon: reader.number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
        norm_weight_offset: 0.0,
        embedding_scale: 1.0,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        attention_softcap: None,
        final_softcap: None,
        activation: Activation::Silu,
        rope_layout,
        rotary_dims,
        rope_windowed: rope.clone(),
        rope_global: rope,
        layers: vec![LayerAttention::Global; reader.block_count()?],
        query_key_norm: false,
        post_norms: false,
        requires_qkv_bias: false,
    })
}
