//! Generation of text.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anymlx::ops::SampleParams;

use crate::{Model, Result, Session, tokenizer::DecodeOptions};

/// When and how generation goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Tokens to draw at most.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub sampling: SampleParams,
    /// Go on after tokens that end a text.
    pub ignore_end: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_tokens: 128, sampling: SampleParams::default(), ignore_end: false }
    }
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model drew a token that ends the text.
    EndOfText,
    /// As many tokens as asked for.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The callback said so.
    Callback,
}

/// A drawn token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Text that it completes; empty while a character is incomplete.
    pub text: String,
}

/// What generation did.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Tokens drawn, without the one that ends the text.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: StopReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Time to read the prompt and draw the first token.
    pub prompt_time: Duration,
    /// Time for the tokens after the first.
    pub decode_time: Duration,
    /// Tokens drawn in that time, the one that ends the text included.
    pub decoded: usize,
}

/// Reads `prompt` into the session and draws tokens until a reason to stop, calling `each` with
/// every one. Text that is held back for an incomplete character comes with the last call.
///
/// # Errors
/// `ContextExceeded` when the prompt does not fit; what the session reports.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut each: impl FnMut(&Token) -> ControlFlow<()>,
) -> Result<Summary> {
    let started = Instant::now();
    let model: Model = session.model().clone();
    let tokenizer = model.tokenizer()?;
    let continuation = DecodeOptions { continuation: true, ..DecodeOptions::default() };
    let mut stream = tokenizer.stream_decoder(continuation);
    let mut tokens = Vec::new();
    let mut decoded = 0;
    session.feed(prompt)?;
    let mut stop = StopReason::MaxTokens;
    let mut prompt_time = started.elapsed();
    let mut decode_started = Instant::now();
    while tokens.len() < options.max_tokens {
        let id = if tokens.is_empty() {
            let id = session.first(options.sampling)?;
            prompt_time = started.elapsed();
            decode_started = Instant::now();
            id
        } else if session.used() == session.capacity() {
            stop = StopReason::ContextFull;
            break;
        } else {
            decoded += 1;
            session.decode()?
        };
        if tokenizer.is_end_of_generation(id) && !options.ignore_end {
            stop = StopReason::EndOfText;
            break;
        }
        tokens.push(id);
        let text = if (id as usize) < tokenizer.vocab_size() { stream.push(id)? } else { String::new() };
        if each(&Token { id, text }).is_break() {
            stop = StopReason::Callback;
            break;
        }
    }
    let decode_time = decode_started.elapsed();
    let rest = stream.finish();
    if let (false, Some(&id)) = (rest.is_empty(), tokens.last()) {
        // Nothing follows this call, so its answer does not matter.
        let _: ControlFlow<()> = each(&Token { id, text: rest });
    }
    Ok(Summary { tokens, stop, prompt_tokens: prompt.len(), prompt_time, decode_time, decoded })
}
