//! The unit of work of every method.

use crate::ops::quantize_activations::{QuantizedLayout, QuantizedRow};

/// Weight rows of one part.
pub(super) const ROWS: usize = 16;

/// Results of one token.
pub(super) type Sums = [f32; ROWS];

/// Up to [`ROWS`] rows of a weight matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    /// The rows, one after the other: a whole number of rows, at least 1.
    pub(super) weights: &'a [u8],
    pub(super) row_bytes: usize,
    pub(super) columns: usize,
}

impl<'a> Part<'a> {
    pub(super) fn weight_rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.weights.chunks_exact(self.row_bytes)
    }
}

/// Activations of a block of tokens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tokens<'a> {
    /// Rows of `columns` values.
    Values(&'a [f32]),
    /// Rows in the 8-bit form.
    Quantized(QuantizedTokens<'a>),
}

/// Activations in the 8-bit form.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuantizedTokens<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) layout: QuantizedLayout,
    /// Rows that make one token: 2 where the form was made in two steps.
    pub(super) terms: usize,
}

impl<'a> QuantizedTokens<'a> {
    pub(super) fn rows(&self) -> impl Iterator<Item = QuantizedRow<'a>> + use<'a> {
        let layout = self.layout;
        self.bytes.chunks_exact(layout.row_bytes).map(move |row| layout.split(row))
    }
}

/// A method over quantised activations: adds the products of the part to `sums`, one entry for each token. Entries of
/// rows that the part lacks are left with any value.
///
/// # Safety
/// The processor has the instructions of the level that the function was chosen for.
pub(super) type MultiplyQuantized = unsafe fn(&Part<'_>, &QuantizedTokens<'_>, &mut [Sums]);

/// As [`MultiplyQuantized`], over `f32` activations.
///
/// # Safety
/// As there.
pub(super) type MultiplyValues = unsafe fn(&Part<'_>, &[f32], &mut [Sums]);
