//! One pass of tokens through the transformer, as commands.

use anymlx::{
    CommandEncoder, MlxBuffer,
    ops::{
        self, AttentionParams, FeedForward, HeadNorms, LayerInput, MatmulInput, PostNorm, ProjectAndCache, Projection,
        RmsNormParams, RopeParams, RotateAndCache,
    },
};

use crate::{
    Model, Result,
    cache::{KvCache, LayerCache},
    config::{LayerAttention, ModelConfig},
    taps::{LayerTaps, Taps},
    weights::LayerWeights,
    workspace::{Rows, Workspace, take},
};

/// What a pass uses.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    pub(crate) cache: &'a KvCache,
    pub(crate) workspace: &'a Workspace,
    /// Where inputs of the matrices are kept, if somebody wants them.
    pub(crate) taps: Option<&'a Taps>,
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

fn window_of(kind: LayerAttention) -> Option<usize> {
    match kind {
        LayerAttention::Global => None,
        LayerAttention::Window(window) => Some(window),
    }
}

impl Pass<'_> {
    /// Runs the first `tokens` ids of the workspace at its positions through all layers: keys and
    /// values join the cache, and the last `wanted` rows of the residual stream hold the last layer's output.
    pub(crate) fn layers(&self, encoder: &mut CommandEncoder, tokens: usize, wanted: usize) -> Result<()> {
        let (config, weights) = (self.model.config(), self.model.weights());
        let ids = take_vector(&self.workspace.ids, tokens)?;
        let positions = take_vector(&self.workspace.positions, tokens)?;
        let residual = take(&self.workspace.residual, 0, tokens)?;
        ops::gather_rows(encoder, &weights.embedding, &ids, &residual, config.embedding_scale)?;
        let layers = weights.layers.iter().zip(&config.layers).zip(&self.cache.layers);
        for (index, ((layer, kind), cache)) in layers.enumerate() {
            let taps = self.taps.map(|taps| &taps.layers[index]);
            let mut step = Step { config, first: 0, tokens, positions: &positions, residual: &residual, taps };
            self.project(encoder, &step, layer, *kind, cache)?;
            // Nothing reads the other rows of the last layer.
            let (positions, residual);
            if index + 1 == weights.layers.len() && wanted < tokens {
                if wanted == 0 {
                    break;
                }
                step.first = tokens - wanted;
                step.tokens = wanted;
                positions = step.positions.try_slice_view((4 * step.first) as u64, wanted)?;
                residual = take(step.residual, step.first, wanted)?;
                (step.positions, step.residual) = (&positions, &residual);
            }
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

    /// Queries of all tokens, and their keys and values in the cache.
    fn project(
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
        step.tap_normed(encoder, &layer.attention_norm, |taps| &taps.attention)?;
        let query_rows = take(&self.workspace.queries, 0, tokens)?;
        let key_rows = take(&self.workspace.keys, 0, tokens)?;
        let value_rows = take(&self.workspace.values, 0, tokens)?;
        let projections = [
            Projection { weight: &layer.query, bias: layer.query_bias.as_ref(), output: &query_rows },
            Projection { weight: &layer.key, bias: layer.key_bias.as_ref(), output: &key_rows },
            Projection { weight: &layer.value, bias: layer.value_bias.as_ref(), output: &value_rows },
        ];
        let queries = heads(&query_rows, tokens, config.heads, config.head_dim)?;
        let keys = heads(&key_rows, tokens, config.kv_heads, config.head_dim)?;
        let values = heads(&value_rows, tokens, config.kv_heads, config.head_dim)?;
        let rotation = self.model.rotation(kind);
        let norms = layer.query_norm.as_ref().zip(layer.key_norm.as_ref());
        let rows = self.cache_rows(cache);
        if let Some(expanded) = &self.cache.expanded {
            ops::kv_cache_expand(encoder, &cache.keys, &rows.keys, expanded.encoding, positions, window_of(kind))?;
            ops::kv_cache_expand(encoder, &cache.values, &rows.values, expanded.encoding, positions, window_of(kind))?;
        }
        let rotate = RotateAndCache {
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
            key_cache: &rows.keys,
            value_cache: &rows.values,
        };
        ops::project_and_cache(encoder, ProjectAndCache { input, projections, rotate })?;
        if let Some(expanded) = &self.cache.expanded {
            ops::kv_cache_quantize(encoder, &rows.keys, &cache.keys, expanded.encoding, positions)?;
            ops::kv_cache_quantize(encoder, &rows.values, &cache.values, expanded.encoding, positions)?;
        }
        Ok(())
    }

    /// The rows that attention reads: of a quantised cache, they are in half precision, and layers share them.
    fn cache_rows<'a>(&'a self, cache: &'a LayerCache) -> &'a LayerCache {
        self.cache.expanded.as_ref().map_or(cache, |expanded| &expanded.rows)
    }

    /// What the step's tokens attend to joins their rows of the residual stream.
    fn attention(
        &self,
        encoder: &mut CommandEncoder,
        step: &Step<'_>,
        layer: &LayerWeights,
        kind: LayerAttention,
        cache: &LayerCache,
    ) -> Result<()> {
        let Step { config, tokens, positions, .. } = *step;
        let rows = self.cache_rows(cache);
        let normed = self.workspace.normed.rows(tokens)?;
        let query_rows = take(&self.workspace.queries, step.first, tokens)?;
        let queries = heads(&query_rows, tokens, config.heads, config.head_dim)?;
        let attended = self.workspace.attended.rows(tokens)?;
        let params = AttentionParams {
            scale: config.attention_scale,
            window: window_of(kind),
            softcap: config.attention_softcap,
        };
        ops::attention(encoder, &queries, &rows.keys, &rows.values, positions, &attended.values, params)?;
        step.tap(encoder, &attended, |taps| &taps.attended)?;
        let projected = take(&self.workspace.projected, 0, tokens)?;
        let (weight, bias) = (&layer.attention_output, layer.attention_output_bias.as_ref());
        let projection = Projection { weight, bias, output: &projected };
        let post_norm = post_norm(config, layer.attention_post_norm.as_ref(), &normed);
        Ok(ops::project_add(encoder, LayerInput::Rows(rows_of(&attended)), projection, post_norm, step.residual)?)
    }

    fn feed_forward(&self, encoder: &mut CommandEncoder, step: &Step<'_>, layer: &LayerWeights) -> Result<()> {
        let normed = self.workspace.normed.rows(step.tokens)?;
        let input = normed_input(step.config, step.residual, &layer.feed_forward_norm, &normed);
        step.tap_normed(encoder, &layer.feed_forward_norm, |taps| &taps.feed_forward)?;
        let gated = self.workspace.gated.rows(step.tokens)?;
        let projected = take(&self.workspace.projected, 0, step.tokens)?;
        let post_normed = self.workspace.normed.rows(step.tokens)?;
        let down = Projection { weight: &layer.down, bias: None, output: &projected };
        let post_norm = post_norm(step.config, layer.feed_forward_post_norm.as_ref(), &post_normed);
        if step.taps.is_some() {
            // The fused operation may leave no trace of what it multiplies with `down`.
            ops::gated_projection(encoder, input, &layer.gate, &layer.up, &gated.values, step.config.activation)?;
            step.tap(encoder, &gated, |taps| &taps.gated)?;
            return Ok(ops::project_add(encoder, LayerInput::Rows(rows_of(&gated)), down, post_norm, step.residual)?);
        }
        let operands = FeedForward {
            input,
            gate: &layer.gate,
            up: &layer.up,
            activation: step.config.activation,
            gated: rows_of(&gated),
            down,
            post_norm,
            residual: step.residual,
        };
        Ok(ops::feed_forward(encoder, operands)?)
    }
}

/// What the layers of one pass share.
#[derive(Clone, Copy)]
struct Step<'a> {
    config: &'a ModelConfig,
    /// Place of the first token among those of the pass.
    first: usize,
    tokens: usize,
    positions: &'a MlxBuffer,
    residual: &'a MlxBuffer,
    taps: Option<&'a LayerTaps>,
}

impl Step<'_> {
    /// Keeps `rows`, if somebody wants them.
    fn tap(&self, encoder: &mut CommandEncoder, rows: &Rows, place: fn(&LayerTaps) -> &MlxBuffer) -> Result<()> {
        match self.taps {
            Some(taps) => Ok(encoder.copy_bytes(&rows.values, &take(place(taps), 0, self.tokens)?)?),
            None => Ok(()),
        }
    }

    /// Keeps the normed residual stream, which a fused projection may never write.
    fn tap_normed(
        &self,
        encoder: &mut CommandEncoder,
        weight: &MlxBuffer,
        place: fn(&LayerTaps) -> &MlxBuffer,
    ) -> Result<()> {
        let Some(taps) = self.taps else { return Ok(()) };
        let kept = take(place(taps), 0, self.tokens)?;
        Ok(ops::rms_norm(encoder, self.residual, weight, &kept, norm_params(self.config))?)
    }
}

fn take_vector(buffer: &MlxBuffer, len: usize) -> Result<MlxBuffer> {
    Ok(buffer.try_slice_view(0, len)?)
}
