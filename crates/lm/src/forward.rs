//! One pass of tokens through the transformer, as commands.

use anymlx::{
    CommandEncoder, MlxBuffer,
    ops::{
        self, AttentionParams, FeedForward, HeadNorms, LayerInput, MatmulInput, PostNorm, Projection, RmsNormParams,
        RopeParams, RotateAndCache,
    },
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

/// Rows that a projection reads, and the place for their 8-bit form.
fn rows_of(rows: &Rows) -> MatmulInput<'_> {
    MatmulInput { values: &rows.values, quantized: rows.quantized.as_ref() }
}

/// A matrix seen as `[tokens, heads, head_dim]`.
fn heads(buffer: &MlxBuffer, tokens: usize, heads: usize, head_dim: usize) -> Result<MlxBuffer> {
    Ok(buffer.with_shape([tokens, heads, head_dim])?)
}

fn norm_params(config: &ModelConfig) -> RmsNormParams {
    RmsNormParams { epsilon: config.norm_epsilon, weight_offset: config.norm_weight_offset }
}

/// `rows` normed, with places for what that makes.
fn normed_input<'a>(
    config: &ModelConfig,
    rows: &'a MlxBuffer,
    weight: &'a MlxBuffer,
    normed: &'a Rows,
) -> LayerInput<'a> {
    LayerInput::Normed { rows, weight, params: norm_params(config), normed: rows_of(normed) }
}

/// The norm of what joins the residual stream, where the model has one.
fn post_norm<'a>(config: &ModelConfig, weight: Option<&'a MlxBuffer>, normed: &'a Rows) -> Option<PostNorm<'a>> {
    weight.map(|weight| PostNorm { weight, params: norm_params(config), normed: &normed.values })
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
        let input = normed_input(config, &residual, &weights.output_norm, &normed);
        let logits = take(&self.workspace.logits, 0, rows)?;
        ops::project(encoder, input, &[Projection { weight: &weights.output, bias: None, output: &logits }])?;
        if let Some(cap) = config.final_softcap {
            ops::softcap(encoder, &logits, cap)?;
        }
        Ok(())
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
        let normed = self.workspace.normed.rows(tokens)?;
        let input = normed_input(config, step.residual, &layer.attention_norm, &normed);
        let queries = take(&self.workspace.queries, 0, tokens)?;
        let keys = take(&self.workspace.keys, 0, tokens)?;
        let values = take(&self.workspace.values, 0, tokens)?;
        let projections = [
            Projection { weight: &layer.query, bias: layer.query_bias.as_ref(), output: &queries },
            Projection { weight: &layer.key, bias: layer.key_bias.as_ref(), output: &keys },
            Projection { weight: &layer.value, bias: layer.value_bias.as_ref(), output: &values },
        ];
        ops::project(encoder, input, &projections)?;

        let queries = heads(&queries, tokens, config.heads, config.head_dim)?;
        let keys = heads(&keys, tokens, config.kv_heads, config.head_dim)?;
        let values = heads(&values, tokens, config.kv_heads, config.head_dim)?;
        let rotation = self.model.rotation(kind);
        let norms = layer.query_norm.as_ref().zip(layer.key_norm.as_ref());
        let operands = RotateAndCache {
            queries: &queries,
            keys: &keys,
            values: &values,
            norms: norms.map(|(query, key)| HeadNorms { query, key, params: norm_params(config) }),
            positions,
            frequencies: &rotation.frequencies,
            rope: RopeParams {
                layout: config.rope_layout,
                rotary_dims: config.rotary_dims,
                magnitude: rotation.magnitude,
            },
            key_cache: &cache.keys,
            value_cache: &cache.values,
        };
        ops::rotate_and_cache(encoder, operands)?;

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
        let projected = take(&self.workspace.projected, 0, tokens)?;
        let (weight, bias) = (&layer.attention_output, layer.attention_output_bias.as_ref());
        let projection = Projection { weight, bias, output: &projected };
        let post_norm = post_norm(config, layer.attention_post_norm.as_ref(), &normed);
        Ok(ops::project_add(encoder, LayerInput::Rows(rows_of(&attended)), projection, post_norm, step.residual)?)
    }

    fn feed_forward(&self, encoder: &mut CommandEncoder, step: &Step<'_>, layer: &LayerWeights) -> Result<()> {
        let normed = self.workspace.normed.rows(step.tokens)?;
        let input = normed_input(step.config, step.residual, &layer.feed_forward_norm, &normed);
        let gated = self.workspace.gated.rows(step.tokens)?;
        let projected = take(&self.workspace.projected, 0, step.tokens)?;
        let post_normed = self.workspace.normed.rows(step.tokens)?;
        let operands = FeedForward {
            input,
            gate: &layer.gate,
            up: &layer.up,
            activation: step.config.activation,
            gated: rows_of(&gated),
            down: Projection { weight: &layer.down, bias: None, output: &projected },
            post_norm: post_norm(step.config, layer.feed_forward_post_norm.as_ref(), &post_normed),
            residual: step.residual,
        };
        Ok(ops::feed_forward(encoder, operands)?)
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
