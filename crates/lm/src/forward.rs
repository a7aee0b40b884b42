//! One pass of tokens through the transformer, as commands.

use anymlx::{
    CommandEncoder, MlxBuffer,
    ops::{self, AttentionParams, MatmulInput, RmsNormParams, RopeParams},
};

use crate::{
    Model, Result,
    cache::{KvCache, LayerCache},
    config::{LayerAttention, ModelConfig},
    weights::LayerWeights,
    workspace::{Rows, Workspace, take},
};

/// What a pass uses.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    pub(crate) cache: &'a KvCache,
    pub(crate) workspace: &'a Workspace,
}

fn input(rows: &Rows) -> MatmulInput<'_> {
    MatmulInput { values: &rows.values, quantized: rows.quantized.as_ref() }
}

/// Makes the 8-bit form of rows that were just written, where readers want it.
fn quantize(encoder: &mut CommandEncoder, rows: &Rows) -> Result<()> {
    match &rows.quantized {
        None => Ok(()),
        Some(quantized) if quantized.shape()[0] == rows.values.shape()[0] => {
            Ok(ops::quantize_activations(encoder, &rows.values, quantized)?)
        }
        Some(quantized) => Ok(ops::quantize_activations_refined(encoder, &rows.values, quantized)?),
    }
}

/// A matrix seen as `[tokens, heads, head_dim]`.
fn heads(buffer: &MlxBuffer, tokens: usize, heads: usize, head_dim: usize) -> Result<MlxBuffer> {
    Ok(buffer.with_shape([tokens, heads, head_dim])?)
}

fn norm_params(config: &ModelConfig) -> RmsNormParams {
    RmsNormParams { epsilon: config.norm_epsilon, weight_offset: config.norm_weight_offset }
}

impl Pass<'_> {
    /// Runs the first `tokens` ids of the workspace at its positions through all layers: keys and
    /// values join the cache, and the residual stream holds the last layer's output.
    pub(crate) fn layers(&self, encoder: &mut CommandEncoder, tokens: usize) -> Result<()> {
        let (config, weights) = (self.model.config(), self.model.weights());
        let ids = take_vector(&self.workspace.ids, tokens)?;
        let positions = take_vector(&self.workspace.positions, tokens)?;
        let residual = take(&self.workspace.residual, 0, tokens)?;
        ops::gather_rows(encoder, &weights.embedding, &ids, &residual, config.embedding_scale)?;
        for ((layer, kind), cache) in weights.layers.iter().zip(&config.layers).zip(&self.cache.layers) {
            let step = Step { config, tokens, positions: &positions, residual: &residual };
            self.attention(encoder, &step, layer, *kind, cache)?;
            self.feed_forward(encoder, &step, layer)?;
        }
        Ok(())
    }

    /// Logits of rows `first .. first + rows` of the residual stream, in the workspace's first rows.
    pub(crate) fn head(&self, encoder: &mut CommandEncoder, first: usize, rows: usize) -> Result<()> {
        let (config, weights) = (self.model.config(), self.model.weights());
        let residual = take(&self.workspace.residual, first, rows)?;
        let normed = self.workspace.head_input.rows(rows)?;
        ops::rms_norm(encoder, &residual, &weights.output_norm, &normed.values, norm_params(config))?;
        quantize(encoder, &normed)?;
        let logits = take(&self.workspace.logits, 0, rows)?;
        ops::matmul(encoder, input(&normed), &weights.output, &logits, None)?;
        if let Some(cap) = config.final_softcap {
            ops::softcap(encoder, &logits, cap)?;
        }
        Ok(())
    }

    fn normed(&self, encoder: &mut CommandEncoder, step: &Step<'_>, weight: &MlxBuffer) -> Result<Rows> {
        let normed = self.workspace.normed.rows(step.tokens)?;
        ops::rms_norm(encoder, step.residual, weight, &normed.values, norm_params(step.config))?;
        quantize(encoder, &normed)?;
        Ok(normed)
    }

    /// Adds `self.workspace.projected`, normed where the model norms it, to the residual stream.
    fn join(&self, encoder: &mut CommandEncoder, step: &Step<'_>, post_norm: Option<&MlxBuffer>) -> Result<()> {
        let projected = take(&self.workspace.projected, 0, step.tokens)?;
        let Some(weight) = post_norm else {
            return Ok(ops::add_in_place(encoder, step.residual, &projected)?);
        };
        let normed = self.workspace.normed.rows(step.tokens)?;
        ops::rms_norm(encoder, &projected, weight, &normed.values, norm_params(step.config))?;
        Ok(ops::add_in_place(encoder, step.residual, &normed.values)?)
    }

    fn attention(
        &self,
        encoder: &mut CommandEncoder,
        step: &Step<'_>,
        layer: &LayerWeights,
        kind: LayerAttention,
        cache: &LayerCache,
    ) -> Result<()> {
        let Step { config, tokens, positions, .. } = *step;
        let normed = self.normed(encoder, step, &layer.attention_norm)?;
        let queries = take(&self.workspace.queries, 0, tokens)?;
        let keys = take(&self.workspace.keys, 0, tokens)?;
        let values = take(&self.workspace.values, 0, tokens)?;
        ops::matmul(encoder, input(&normed), &layer.query, &queries, layer.query_bias.as_ref())?;
        ops::matmul(encoder, input(&normed), &layer.key, &keys, layer.key_bias.as_ref())?;
        ops::matmul(encoder, input(&normed), &layer.value, &values, layer.value_bias.as_ref())?;

        let queries = heads(&queries, tokens, config.heads, config.head_dim)?;
        let keys = heads(&keys, tokens, config.kv_heads, config.head_dim)?;
        let values = heads(&values, tokens, config.kv_heads, config.head_dim)?;
        let rotation = self.model.rotation(kind);
        let rope =
            RopeParams { layout: config.rope_layout, rotary_dims: config.rotary_dims, magnitude: rotation.magnitude };
        for (rows, norm) in [(&queries, &layer.query_norm), (&keys, &layer.key_norm)] {
            if let Some(norm) = norm {
                ops::rms_norm_in_place(encoder, rows, norm, norm_params(config))?;
            }
            ops::rope(encoder, rows, positions, &rotation.frequencies, rope)?;
        }
        ops::kv_cache_write(encoder, &keys, &cache.keys, positions)?;
        ops::kv_cache_write(encoder, &values, &cache.values, positions)?;

        let attended = self.workspace.attended.rows(tokens)?;
        let params = AttentionParams {
            scale: config.attention_scale,
            window: match kind {
                LayerAttention::Global => None,
                LayerAttention::Window(window) => Some(window),
            },
            softcap: config.attention_softcap,
        };
        ops::attention(encoder, &queries, &cache.keys, &cache.values, positions, &attended.values, params)?;
        quantize(encoder, &attended)?;
        let projected = take(&self.workspace.projected, 0, tokens)?;
        let bias = layer.attention_output_bias.as_ref();
        ops::matmul(encoder, input(&attended), &layer.attention_output, &projected, bias)?;
        self.join(encoder, step, layer.attention_post_norm.as_ref())
    }

    fn feed_forward(&self, encoder: &mut CommandEncoder, step: &Step<'_>, layer: &LayerWeights) -> Result<()> {
        let normed = self.normed(encoder, step, &layer.feed_forward_norm)?;
        let gated = self.workspace.gated.rows(step.tokens)?;
        let activation = step.config.activation;
        ops::gated_matmul(encoder, input(&normed), &layer.gate, &layer.up, &gated.values, activation)?;
        quantize(encoder, &gated)?;
        let projected = take(&self.workspace.projected, 0, step.tokens)?;
        ops::matmul(encoder, input(&gated), &layer.down, &projected, None)?;
        self.join(encoder, step, layer.feed_forward_post_norm.as_ref())
    }
}

/// What the layers of one pass share.
#[derive(Clone, Copy)]
struct Step<'a> {
    config: &'a ModelConfig,
    tokens: usize,
    positions: &'a MlxBuffer,
    residual: &'a MlxBuffer,
}

fn take_vector(buffer: &MlxBuffer, len: usize) -> Result<MlxBuffer> {
    Ok(buffer.try_slice_view(0, len)?)
}
