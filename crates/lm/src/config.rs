//! What sets one transformer apart from another.

use anymlx::ops::{Activation, RopeLayout, RopeScaling};

/// Rotary position embedding of a kind of layer.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of frequencies.
    pub base: f32,
    /// Adjustment of the frequencies to longer contexts.
    pub scaling: RopeScaling,
}

/// What a layer's attention sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerAttention {
    /// All earlier positions.
    Global,
    /// The last positions of a window, the token's own included.
    Window(usize),
}

/// A decoder-only transformer with gated feed-forward layers and root-mean-square norms.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `general.architecture` of the file.
    pub architecture: &'static str,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layers.
    pub feed_forward: usize,
    /// Positions that the model was trained for.
    pub context_length: usize,
    /// Added to the mean square in norms.
    pub norm_epsilon: f32,
    /// Added to norm weights; 0 where the file stores them whole.
    pub norm_weight_offset: f32,
    /// Factor on embeddings.
    pub embedding_scale: f32,
    /// Factor on attention scores.
    pub attention_scale: f32,
    /// Soft bound on attention scores.
    pub attention_softcap: Option<f32>,
    /// Soft bound on logits.
    pub final_softcap: Option<f32>,
    /// Activation of the feed-forward gate.
    pub activation: Activation,
    /// Which dimensions of a head are rotated together.
    pub rope_layout: RopeLayout,
    /// Dimensions of a head that are rotated.
    pub rotary_dims: usize,
    /// Rotation in layers that see everything.
    pub rope_global: RopeConfig,
    /// Rotation in windowed layers.
    pub rope_windowed: RopeConfig,
    /// One entry for each layer.
    pub layers: Vec<LayerAttention>,
    /// Queries and keys are normed per head.
    pub query_key_norm: bool,
    /// The outputs of attention and feed-forward are normed before they join the residual stream.
    pub post_norms: bool,
    /// Queries, keys and values must have biases; otherwise they are used where present.
    pub requires_qkv_bias: bool,
}
