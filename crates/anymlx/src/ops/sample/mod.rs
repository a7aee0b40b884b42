//! Draws the next token.

mod cpu;
mod philox;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{argmax, check::Check, launch};
use crate::{CommandEncoder, DType, Launch, MlxBuffer, Result, read, write};

pub(super) const GPU: &str = gpu_text!("sample.gpu.cpp");

/// Parameters of [`sample`]. Filters apply in the order of the fields, as in Hugging Face
/// `transformers`: each sees what the one before it has left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleParams {
    /// Divides the logits; 0 takes the most likely token and ignores all other fields.
    pub temperature: f32,
    /// Keeps tokens whose logit is at least the `top_k`-th largest: more than `top_k` when several
    /// equal it. 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most likely tokens whose probabilities sum to at least this, and
    /// always the most likely one; of equally likely ones those with the lower ids. 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one. 0 keeps all.
    pub min_p: f32,
    /// Chooses the stream of random numbers.
    pub seed: u64,
}

impl Default for SampleParams {
    /// The most likely token; with a temperature set, no filter.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    inverse_temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    seed: [u32; 2],
    count: u32,
    /// Lower and upper half of the least weight that `min_p` keeps.
    least: [u32; 2],
    /// `top_p` is `mantissa / 2^shift`.
    top_p_mantissa: u32,
    top_p_shift: u32,
}

/// `value`, in 0..=1, as a whole number below 2^24 and the power of two that divides it.
fn as_fraction(value: f32) -> (u32, u32) {
    let (exponent, mantissa) = (value.to_bits() >> 23, value.to_bits() & 0x7f_ffff);
    if exponent == 0 { (mantissa, 149) } else { (mantissa | 0x80_0000, 150 - exponent) }
}

/// The least weight that `min_p` keeps, of weights up to 2^40.
fn least_weight(min_p: f32) -> u64 {
    // Exact: 24 bits times a power of two.
    ((f64::from(min_p) * (1_u64 << 40) as f64).ceil() as u64).max(1)
}

/// The most logits that one draw can take: their weights, of up to 2^40, must sum to less than 2^63.
const MAX_LOGITS: usize = 1 << 23;

/// Draws one index of `logits` with the probabilities that softmax gives after the filters.
///
/// `logits` is `f32` `[1, n]`, `step` is `U32` `[1]`, the number of the draw, `output` is `U32` `[1]`.
/// The random number is a function of seed and step alone (Philox 4x32-10), and probabilities are
/// whole multiples of 2^-40 of the largest one, so that their sums are exact in any order: the same
/// logits, seed and step give the same token on every device and for every thread count. Tokens less
/// likely than that are never drawn. NaN counts as minus infinity.
///
/// # Errors
/// `InvalidArgument` for shapes or dtypes that do not fit, a temperature that is negative or not
/// finite, `top_p` or `min_p` outside 0..=1, more than 2^23 logits, or when `output` overlaps an input.
/// Logits without any finite value fail the submission.
pub fn sample(
    encoder: &mut CommandEncoder,
    logits: &MlxBuffer,
    step: &MlxBuffer,
    output: &MlxBuffer,
    params: SampleParams,
) -> Result<()> {
    const OPERATION: &str = "sample";
    let check = Check::new(OPERATION);
    check.dtype("logits", logits, &[DType::F32])?;
    check.dtype("step", step, &[DType::U32])?;
    check.dtype("output", output, &[DType::U32])?;
    let (rows, columns) = check.rows("logits", logits)?;
    check.that(rows == 1, format_args!("logits is {:?}, needed [1, n]", logits.shape()))?;
    check.that(columns <= MAX_LOGITS, format_args!("{columns} logits, at most {MAX_LOGITS} are possible"))?;
    check.shape("step", step, &[1])?;
    check.shape("output", output, &[1])?;
    let SampleParams { temperature, top_k, top_p, min_p, seed } = params;
    check.that(
        temperature >= 0.0 && temperature.is_finite(),
        format_args!("the temperature is {temperature}, needed 0 or more"),
    )?;
    for (name, share) in [("top_p", top_p), ("min_p", min_p)] {
        check.that((0.0..=1.0).contains(&share), format_args!("{name} is {share}, needed 0 to 1"))?;
    }
    let inverse_temperature = 1.0 / temperature;
    if !inverse_temperature.is_finite() {
        return argmax(encoder, logits, output);
    }
    let (top_p_mantissa, top_p_shift) = as_fraction(top_p);
    let least = least_weight(min_p);
    let block = Block {
        inverse_temperature,
        top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
        top_p,
        min_p,
        seed: [seed as u32, (seed >> 32) as u32],
        count: check.u32("logits", columns)?,
        least: [least as u32, (least >> 32) as u32],
        top_p_mantissa,
        top_p_shift,
    };
    let kernel = launch::kernel::<cpu::Sample>(encoder, OPERATION, DType::F32, GPU)?;
    let launch = Launch { groups: [1; 3], threads_per_group: 1024, items: 1, items_per_chunk: 1 };
    encoder.dispatch(&kernel, &[read(logits), read(step), write(output)], &block, launch)
}
