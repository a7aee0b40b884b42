//! A configuration as the `config.json` of Hugging Face `transformers` and MLX.

use anymlx::ops::RopeScaling;
use serde_json::{Value, json};

use crate::{
    LmError, Result,
    config::{LayerAttention, ModelConfig, RopeConfig},
    tokenizer::Tokenizer,
};

/// The fields that `transformers` and `mlx-lm` read. `tied`: the embedding table is the output matrix as well.
///
/// # Errors
/// For rotary scaling that only GGUF can express.
pub(super) fn config(model: &ModelConfig, tokenizer: &Tokenizer, tied: bool, dtype: &str) -> Result<Value> {
    let (architecture, model_type) = match model.architecture {
        "gemma3" => ("Gemma3ForCausalLM", "gemma3_text"),
        "qwen2" => ("Qwen2ForCausalLM", "qwen2"),
        "llama" => ("LlamaForCausalLM", "llama"),
        other => return Err(LmError::InvalidModel(format!("architecture `{other}` has no config.json here"))),
    };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": model.vocabulary,
        "hidden_size": model.hidden,
        "intermediate_size": model.feed_forward,
        "num_hidden_layers": model.layers.len(),
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": model.context_length,
        "rms_norm_eps": shortest(model.norm_epsilon),
        "rope_theta": shortest(model.rope_global.base),
        "tie_word_embeddings": tied,
        "attention_bias": model.requires_qkv_bias,
        "torch_dtype": dtype,
        "bos_token_id": tokenizer.bos(),
        "eos_token_id": tokenizer.end_of_generation(),
        "pad_token_id": tokenizer.padding(),
    });
    if let Some(scaling) = scaling(&model.rope_global)? {
        config["rope_scaling"] = scaling;
    }
    match model.architecture {
        "gemma3" => gemma3(model, &mut config),
        _ => config["hidden_act"] = "silu".into(),
    }
    Ok(config)
}

fn gemma3(model: &ModelConfig, config: &mut Value) {
    config["hidden_activation"] = "gelu_pytorch_tanh".into();
    let scalar = 1.0 / model.attention_scale.powi(2);
    // The scale is the inverse root of a whole number.
    let whole = scalar.round();
    config["query_pre_attn_scalar"] = shortest(if (scalar - whole).abs() < 1e-3 { whole } else { scalar });
    config["rope_local_base_freq"] = shortest(model.rope_windowed.base);
    config["attn_logit_softcapping"] = model.attention_softcap.map_or(Value::Null, shortest);
    config["final_logit_softcapping"] = model.final_softcap.map_or(Value::Null, shortest);
    let windowed = |layer: &LayerAttention| match layer {
        LayerAttention::Global => "full_attention",
        LayerAttention::Window(_) => "sliding_attention",
    };
    config["layer_types"] = model.layers.iter().map(windowed).collect();
    let window = model.layers.iter().find_map(|layer| match layer {
        LayerAttention::Global => None,
        LayerAttention::Window(window) => Some(*window),
    });
    // A window that no layer reaches stands for none.
    config["sliding_window"] = window.unwrap_or(model.context_length).into();
    let global = model.layers.iter().position(|layer| *layer == LayerAttention::Global);
    config["sliding_window_pattern"] = global.map_or(model.layers.len() + 1, |first| first + 1).into();
}

fn scaling(rope: &RopeConfig) -> Result<Option<Value>> {
    Ok(match &rope.scaling {
        RopeScaling::None => None,
        RopeScaling::Linear { factor } => Some(json!({"rope_type": "linear", "factor": shortest(*factor)})),
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, .. } => Some(json!({
            "rope_type": "yarn",
            "factor": shortest(*factor),
            "original_max_position_embeddings": original_context,
            "beta_fast": shortest(*beta_fast),
            "beta_slow": shortest(*beta_slow),
        })),
        _ => {
            let message = "rotary frequencies are scaled by a table, which config.json cannot express";
            return Err(LmError::InvalidModel(message.to_owned()));
        }
    })
}

/// The number with the fewest digits that is this `f32`: 1e-6, not 9.999999974752427e-7. Whole numbers are integers.
fn shortest(number: f32) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e9 {
        return (number as i64).into();
    }
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
