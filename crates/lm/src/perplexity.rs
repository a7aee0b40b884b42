//! Perplexity of a text.

use crate::{LmError, Result, Session};

/// The running value after a chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkPerplexity {
    /// Chunks scored so far.
    pub chunks: usize,
    /// Chunks in all.
    pub total: usize,
    /// `exp` of the mean negative log likelihood over all positions scored so far.
    pub perplexity: f64,
}

/// Perplexity of `ids`, cut into chunks of `context` tokens; an incomplete last chunk is left out.
///
/// `bos`, if given, takes the place of each chunk's first token. Only the second half of a chunk is
/// scored: the prediction of tokens `context / 2 + 1 ..` from positions `context / 2 ..`, so that
/// every scored token has at least half a chunk before it. This is the method of llama.cpp's
/// `llama-perplexity`.
///
/// # Errors
/// `InvalidArgument` for a context below 4 or beyond the session's, or fewer tokens than one chunk.
pub fn perplexity(
    session: &mut Session,
    ids: &[u32],
    context: usize,
    bos: Option<u32>,
    mut each: impl FnMut(ChunkPerplexity),
) -> Result<ChunkPerplexity> {
    const OPERATION: &str = "perplexity";
    if context < 4 || context > session.capacity() {
        let message = format!("a context of {context} tokens given, needed 4..={}", session.capacity());
        return Err(LmError::invalid(OPERATION, message));
    }
    let total = ids.len() / context;
    if total == 0 {
        let message = format!("the text has {} tokens, needed at least one chunk of {context}", ids.len());
        return Err(LmError::invalid(OPERATION, message));
    }
    let (mut sum, mut scored) = (0.0, 0_usize);
    let mut result = ChunkPerplexity { chunks: 0, total, perplexity: f64::NAN };
    for chunk in ids.chunks_exact(context) {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        session.truncate(0)?;
        session.logits_from(&chunk[..context - 1], context / 2, |position, logits| {
            sum += negative_log_likelihood(logits, chunk[position + 1] as usize);
            scored += 1;
            Ok(())
        })?;
        result = ChunkPerplexity { chunks: result.chunks + 1, perplexity: (sum / scored as f64).exp(), ..result };
        each(result);
    }
    Ok(result)
}

/// `-log softmax(logits)[target]`.
fn negative_log_likelihood(logits: &[f32], target: usize) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - top).exp())).sum();
    sum.ln() - f64::from(logits[target] - top)
}
