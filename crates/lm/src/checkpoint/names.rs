//! What tensors are called.

/// A tensor of a model, by what it is for. Its matrix, or vector of factors, is `NAME.weight`; its bias `NAME.bias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Token embeddings.
    Embedding,
    /// The norm in front of the output head.
    OutputNorm,
    /// The output head.
    Output,
    /// A part of the layer with this number.
    Layer(usize, LayerPart),
}

/// A tensor of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerPart {
    AttentionNorm,
    Query,
    Key,
    Value,
    QueryNorm,
    KeyNorm,
    AttentionOutput,
    AttentionPostNorm,
    FeedForwardNorm,
    Gate,
    Up,
    Down,
    FeedForwardPostNorm,
}

/// A way of naming tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// As llama.cpp's converter names them.
    Gguf,
    /// As Hugging Face `transformers` and MLX name them.
    HuggingFace {
        /// In front of `embed_tokens`, `layers` and `norm`.
        prefix: &'static str,
        /// The output head.
        head: &'static str,
        /// Outputs of attention and feed-forward are normed too, which renames the norm between them.
        post_norms: bool,
    },
}

impl Names {
    /// The name without `.weight` or `.bias`.
    pub(crate) fn of(self, part: Part) -> String {
        match self {
            Names::Gguf => gguf(part),
            Names::HuggingFace { prefix, head, post_norms } => match part {
                Part::Embedding => format!("{prefix}embed_tokens"),
                Part::OutputNorm => format!("{prefix}norm"),
                Part::Output => head.to_owned(),
                Part::Layer(index, part) => format!("{prefix}layers.{index}.{}", hugging_face(part, post_norms)),
            },
        }
    }
}

fn gguf(part: Part) -> String {
    let (index, part) = match part {
        Part::Embedding => return "token_embd".to_owned(),
        Part::OutputNorm => return "output_norm".to_owned(),
        Part::Output => return "output".to_owned(),
        Part::Layer(index, part) => (index, part),
    };
    let name = match part {
        LayerPart::AttentionNorm => "attn_norm",
        LayerPart::Query => "attn_q",
        LayerPart::Key => "attn_k",
        LayerPart::Value => "attn_v",
        LayerPart::QueryNorm => "attn_q_norm",
        LayerPart::KeyNorm => "attn_k_norm",
        LayerPart::AttentionOutput => "attn_output",
        LayerPart::AttentionPostNorm => "post_attention_norm",
        LayerPart::FeedForwardNorm => "ffn_norm",
        LayerPart::Gate => "ffn_gate",
        LayerPart::Up => "ffn_up",
        LayerPart::Down => "ffn_down",
        LayerPart::FeedForwardPostNorm => "post_ffw_norm",
    };
    format!("blk.{index}.{name}")
}

fn hugging_face(part: LayerPart, post_norms: bool) -> &'static str {
    match part {
        LayerPart::AttentionNorm => "input_layernorm",
        LayerPart::Query => "self_attn.q_proj",
        LayerPart::Key => "self_attn.k_proj",
        LayerPart::Value => "self_attn.v_proj",
        LayerPart::QueryNorm => "self_attn.q_norm",
        LayerPart::KeyNorm => "self_attn.k_norm",
        LayerPart::AttentionOutput => "self_attn.o_proj",
        LayerPart::AttentionPostNorm => "post_attention_layernorm",
        LayerPart::FeedForwardNorm if post_norms => "pre_feedforward_layernorm",
        LayerPart::FeedForwardNorm => "post_attention_layernorm",
        LayerPart::Gate => "mlp.gate_proj",
        LayerPart::Up => "mlp.up_proj",
        LayerPart::Down => "mlp.down_proj",
        LayerPart::FeedForwardPostNorm => "post_feedforward_layernorm",
    }
}
