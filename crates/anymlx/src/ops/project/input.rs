//! What projections read, and the buffers for its intermediate forms.

use crate::{
    CommandEncoder, MlxBuffer, Result, Weight,
    ops::{
        MatmulInput, RmsNormParams, quantize_activations, quantize_activations_refined, reads_8_bit_activations,
        rms_norm,
    },
};

/// The input of one or more projections.
///
/// [`MatmulInput::quantized`] is here a place for the 8-bit form, which the operation makes when it needs it: with as
/// many rows as there are values in one step, with twice as many in two ([`quantize_activations_refined`]). That
/// there is one says that the input may be rounded, also to other forms: see
/// [`rounds_activations`](crate::ops::rounds_activations). What intermediate buffers hold afterwards is not
/// specified: kernels that norm and quantise what they read leave them alone.
#[derive(Debug, Clone, Copy)]
pub enum LayerInput<'a> {
    /// The rows as they are.
    Rows(MatmulInput<'a>),
    /// [`rms_norm()`] of rows.
    Normed {
        /// `f32` `[.., columns]`.
        rows: &'a MlxBuffer,
        /// `f32` `[columns]`.
        weight: &'a MlxBuffer,
        /// Of the norm.
        params: RmsNormParams,
        /// Places for the normed rows and their 8-bit form.
        normed: MatmulInput<'a>,
    },
}

impl<'a> LayerInput<'a> {
    /// The rows that are multiplied, or the places for them.
    pub(in crate::ops) fn rows(&self) -> MatmulInput<'a> {
        match *self {
            LayerInput::Rows(rows) | LayerInput::Normed { normed: rows, .. } => rows,
        }
    }

    /// The input as [`matmul`](crate::ops::matmul()) takes it for `weights`, made by plain operations.
    pub(in crate::ops) fn prepare(self, encoder: &mut CommandEncoder, weights: &[&Weight]) -> Result<MatmulInput<'a>> {
        let input = match self {
            LayerInput::Rows(input) => input,
            LayerInput::Normed { rows, weight, params, normed } => {
                rms_norm(encoder, rows, weight, normed.values, params)?;
                normed
            }
        };
        let is_read = weights.iter().any(|weight| reads_8_bit_activations(weight.encoding()));
        let input = MatmulInput { quantized: input.quantized.filter(|_| is_read), ..input };
        if let Some(quantized) = input.quantized {
            if quantized.shape().first() == input.values.shape().first() {
                quantize_activations(encoder, input.values, quantized)?;
            } else {
                quantize_activations_refined(encoder, input.values, quantized)?;
            }
        }
        Ok(input)
    }
}
