//! Inputs of a pass's matrices, kept for whoever wants to look at them.

use anymlx::{DType, MlxBuffer};

use crate::{Model, Result, workspace::take};

/// Inputs of one layer's matrices, each `[tokens, columns]` in `f32`.
#[derive(Debug)]
pub(crate) struct LayerTaps {
    /// Of queries, keys and values.
    pub(crate) attention: MlxBuffer,
    /// Of the attention's output matrix.
    pub(crate) attended: MlxBuffer,
    /// Of gate and up.
    pub(crate) feed_forward: MlxBuffer,
    /// Of down.
    pub(crate) gated: MlxBuffer,
}

/// Inputs of all layers' matrices.
#[derive(Debug)]
pub(crate) struct Taps {
    pub(crate) layers: Vec<LayerTaps>,
}

impl Taps {
    /// Room for passes of up to `tokens` tokens.
    pub(crate) fn new(model: &Model, tokens: usize) -> Result<Self> {
        let config = model.config();
        let buffer = |columns: usize| model.device().zeros(DType::F32, [tokens, columns]);
        let layer = |_: &_| -> Result<LayerTaps> {
            Ok(LayerTaps {
                attention: buffer(config.hidden)?,
                attended: buffer(config.heads * config.head_dim)?,
                feed_forward: buffer(config.hidden)?,
                gated: buffer(config.feed_forward)?,
            })
        };
        Ok(Self { layers: config.layers.iter().map(layer).collect::<Result<_>>()? })
    }

    /// Gives `each` the name of every matrix with its input of the last pass, which had `tokens` tokens.
    pub(crate) fn read(&self, tokens: usize, mut each: impl FnMut(String, usize, &[f32])) -> Result<()> {
        for (index, layer) in self.layers.iter().enumerate() {
            for (buffer, matrices) in [
                (&layer.attention, ["attn_q", "attn_k", "attn_v"].as_slice()),
                (&layer.attended, &["attn_output"]),
                (&layer.feed_forward, &["ffn_gate", "ffn_up"]),
                (&layer.gated, &["ffn_down"]),
            ] {
                let columns = buffer.shape()[1];
                let inputs: Vec<f32> = take(buffer, 0, tokens)?.to_vec()?;
                for matrix in matrices {
                    each(format!("blk.{index}.{matrix}.weight"), columns, &inputs);
                }
            }
        }
        Ok(())
    }
}
