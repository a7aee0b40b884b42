//! Activations between operations, allocated once for a session.

use anymlx::{DType, MlxBuffer, MlxDevice, Weight, ops};

use crate::{Model, Result};

/// How projections see their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationPrecision {
    /// Inputs of quantised projections are quantised to 8 bits per block of 32, of a few tokens at a time in two steps: fast.
    /// On tensor cores, inputs of many tokens are rounded to `bf16` instead, those of 16-bit matrices too.
    #[default]
    EightBit,
    /// Inputs stay `f32`: slower, and free of that rounding.
    Full,
}

/// A matrix of activations with room for its 8-bit form.
#[derive(Debug)]
pub(crate) struct Activations {
    values: MlxBuffer,
    quantized: Option<MlxBuffer>,
}

/// Rows up to which activations are quantised in two steps: weights are read once for all of them, so that memory sets
/// the pace and the second step costs little.
const REFINED_ROWS: usize = 8;

/// The first rows of [`Activations`].
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) values: MlxBuffer,
    pub(crate) quantized: Option<MlxBuffer>,
}

impl Activations {
    fn new(
        device: &MlxDevice,
        rows: usize,
        columns: usize,
        readers: &[&Weight],
        precision: ActivationPrecision,
    ) -> Result<Self> {
        let values = device.zeros(DType::F32, [rows, columns])?;
        let wanted = precision == ActivationPrecision::EightBit
            && readers.iter().any(|weight| ops::rounds_activations(device, weight.encoding()));
        let bytes = ops::quantized_activation_bytes(1, columns).filter(|_| wanted);
        let quantized_rows = rows.max(2 * rows.min(REFINED_ROWS));
        let quantized = bytes.map(|bytes| device.zeros(DType::U8, [quantized_rows, bytes])).transpose()?;
        Ok(Self { values, quantized })
    }

    pub(crate) fn rows(&self, rows: usize) -> Result<Rows> {
        let quantized_rows = if rows <= REFINED_ROWS { 2 * rows } else { rows };
        let quantized = self.quantized.as_ref().map(|buffer| take(buffer, 0, quantized_rows)).transpose()?;
        Ok(Rows { values: take(&self.values, 0, rows)?, quantized })
    }
}

/// Rows `first .. first + rows` of a matrix.
pub(crate) fn take(buffer: &MlxBuffer, first: usize, rows: usize) -> Result<MlxBuffer> {
    let columns: usize = buffer.shape()[1..].iter().product();
    let offset = (first * columns * buffer.dtype().size_of()) as u64;
    Ok(buffer.try_slice_view(offset, rows * columns)?.with_shape([rows, columns])?)
}

/// Buffers for up to `tokens` tokens at a time.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) tokens: usize,
    pub(crate) ids: MlxBuffer,
    pub(crate) positions: MlxBuffer,
    /// The residual stream.
    pub(crate) residual: MlxBuffer,
    pub(crate) normed: Activations,
    pub(crate) queries: MlxBuffer,
    pub(crate) keys: MlxBuffer,
    pub(crate) values: MlxBuffer,
    pub(crate) attended: Activations,
    pub(crate) projected: MlxBuffer,
    pub(crate) gated: Activations,
    /// Normed rows of the output head.
    pub(crate) head_input: Activations,
    pub(crate) logits: MlxBuffer,
}

/// Rows of logits that are computed together.
pub(crate) const LOGIT_ROWS: usize = REFINED_ROWS;

impl Workspace {
    pub(crate) fn new(model: &Model, tokens: usize, precision: ActivationPrecision) -> Result<Self> {
        let (config, weights, device) = (model.config(), model.weights(), model.device());
        let (query, key_value) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let matrix = |columns: usize| device.zeros(DType::F32, [tokens, columns]);
        let layers = &weights.layers;
        let reading_normed: Vec<&Weight> =
            layers.iter().flat_map(|l| [&l.query, &l.key, &l.value, &l.gate, &l.up]).collect();
        let reading_attended: Vec<&Weight> = layers.iter().map(|l| &l.attention_output).collect();
        let reading_gated: Vec<&Weight> = layers.iter().map(|l| &l.down).collect();
        let activations = |rows: usize, columns: usize, readers: &[&Weight]| {
            Activations::new(device, rows, columns, readers, precision)
        };
        let logit_rows = LOGIT_ROWS.min(tokens);
        Ok(Self {
            tokens,
            ids: device.zeros(DType::U32, [tokens])?,
            positions: device.zeros(DType::U32, [tokens])?,
            residual: matrix(config.hidden)?,
            normed: activations(tokens, config.hidden, &reading_normed)?,
            queries: matrix(query)?,
            keys: matrix(key_value)?,
            values: matrix(key_value)?,
            attended: activations(tokens, query, &reading_attended)?,
            projected: matrix(config.hidden)?,
            gated: activations(tokens, config.feed_forward, &reading_gated)?,
            head_input: activations(logit_rows, config.hidden, &[&weights.output])?,
            logits: device.zeros(DType::F32, [logit_rows, config.vocabulary])?,
        })
    }
}
