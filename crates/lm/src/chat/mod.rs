//! The chat template of a model file: messages to the prompt that the model was trained on.
//!
//! A template is Jinja, as Hugging Face's `apply_chat_template` renders it: `trim_blocks`,
//! `lstrip_blocks`, Python's string and list methods, `raise_exception`, `loopcontrols`; variables are
//! `messages`, `add_generation_prompt`, `bos_token`, `eos_token` and `tools` (none). Templates come with
//! files from anywhere, so the work of a rendering, the memory it takes and the text it makes are bounded.

use std::fmt;

use anymlx_formats::FormatError;
use anymlx_formats::gguf::Metadata;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

mod program;
mod sandbox;
mod weigh;

const NAME: &str = "chat template";
/// Longest template that is compiled, in bytes.
const MAX_SOURCE: usize = 1 << 20;
/// Steps of a rendering: so many, and more for each message and its bytes. A step is an instruction
/// or [`STEP_BYTES`] of data, so this bounds time and memory.
const FUEL: u64 = 100_000;
const FUEL_PER_MESSAGE: u64 = 1_000;
const BYTES_PER_FUEL: u64 = 8;
/// Bytes that count as one step; the rate of `minijinja`.
const STEP_BYTES: usize = 64;
/// Bytes that a rendering may make beyond [`OUTPUT_PER_INPUT`] for each byte of the messages.
const MAX_OVERHEAD: usize = 1 << 20;
const OUTPUT_PER_INPUT: usize = 4;

/// A template that cannot be used, or messages that it refuses.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A metadata key has another type than needed.
    #[error("chat template: {0}")]
    Metadata(#[from] FormatError),
    /// The template is not Jinja, or uses something that does not exist.
    #[error("chat template{}: {message}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Template {
        /// Line of the template, where it is known.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
    /// The template refused the messages (`raise_exception`).
    #[error("chat template refused the messages: {message}")]
    Refused {
        /// What the template says.
        message: String,
    },
    /// The template is longer, takes more work or makes more text than is allowed.
    #[error("chat template: {what} is over the limit of {limit}")]
    OverLimit {
        /// What is limited.
        what: &'static str,
        /// The limit and its unit.
        limit: String,
    },
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message of `content` by `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// How messages are rendered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenderOptions {
    /// End with the begin of the model's answer.
    pub add_generation_prompt: bool,
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    syntax: SyntaxConfig,
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// The template under `tokenizer.chat_template`, or `None` where the file has none.
    ///
    /// # Errors
    /// A value that is no string, or a template that does not compile.
    pub fn from_gguf(metadata: &Metadata) -> Result<Option<Self>, ChatError> {
        let Some(source) = metadata.string("tokenizer.chat_template")? else { return Ok(None) };
        let bos_token = token_text(metadata, "tokenizer.ggml.bos_token_id")?;
        let eos_token = token_text(metadata, "tokenizer.ggml.eos_token_id")?;
        Self::new(source, SpecialTexts { bos_token: &bos_token, eos_token: &eos_token }).map(Some)
    }

    /// Compiles `source`.
    ///
    /// # Errors
    /// A template that is too long or does not compile.
    pub fn new(source: &str, texts: SpecialTexts<'_>) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE {
            return Err(ChatError::OverLimit { what: "its length", limit: format!("{MAX_SOURCE} bytes") });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(explain)?;
        environment.set_unknown_method_callback(sandbox::python_method);
        environment.add_filter("tojson", sandbox::to_json);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
        });
        program::prepare(&mut environment);
        program::compile(NAME, source, &syntax).map_err(explain)?;
        let (bos_token, eos_token) = (texts.bos_token.to_owned(), texts.eos_token.to_owned());
        Ok(Self { environment, syntax, source: source.to_owned(), bos_token, eos_token })
    }

    /// The prompt for `messages`. It holds control tokens and, with most templates, the
    /// begin-of-text token: encode it with `parse_special` and without adding that token again.
    ///
    /// # Errors
    /// What the template refuses, what it gets wrong, and work or text over the limit.
    pub fn render(&self, messages: &[Message], options: RenderOptions) -> Result<String, ChatError> {
        let input: usize = messages
            .iter()
            .map(|message| message.role.len().saturating_add(message.content.len()))
            .fold(0, usize::saturating_add);
        let limit = input.saturating_mul(OUTPUT_PER_INPUT).saturating_add(MAX_OVERHEAD);
        let fuel = FUEL
            .saturating_add(FUEL_PER_MESSAGE.saturating_mul(messages.len() as u64))
            .saturating_add(input as u64 / BYTES_PER_FUEL);

        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        let turns: Value = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        let variables = context! {
            messages => turns,
            add_generation_prompt => options.add_generation_prompt,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            tools => Value::from(()),
        };
        let instructions = program::compile(NAME, &self.source, &self.syntax).map_err(explain)?;
        match on_own_stack(|| program::run(&environment, &instructions, variables))? {
            Ok(text) if text.len() > limit => {
                Err(ChatError::OverLimit { what: "the text it makes", limit: format!("{limit} bytes") })
            }
            Ok(text) => Ok(text),
            Err(error) if error.kind() == ErrorKind::OutOfFuel => {
                Err(ChatError::OverLimit { what: "the work it takes", limit: format!("{fuel} steps") })
            }
            Err(error) => Err(explain(error)),
        }
    }
}

/// Runs `work` on a thread of its own: macros that call each other, and values inside values, take more stack than a caller's
/// thread may have. `minijinja` limits the former, [`weigh`] the latter.
fn on_own_stack<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, ChatError> {
    const STACK: usize = 16 << 20;
    let failed = |message: String| ChatError::Template { line: None, message };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("chat template".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| failed(format!("no thread with a stack of {STACK} bytes: {error}")))?;
        thread.join().map_err(|_| failed("the rendering panicked".to_owned()))
    })
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("bos_token", &self.bos_token)
            .field("eos_token", &self.eos_token)
            .finish_non_exhaustive()
    }
}

/// The texts of special tokens that templates write themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialTexts<'a> {
    /// Begin of text.
    pub bos_token: &'a str,
    /// End of text.
    pub eos_token: &'a str,
}

/// The text of the token whose id is under `key`; empty where there is none.
fn token_text(metadata: &Metadata, key: &str) -> Result<String, ChatError> {
    let (Some(id), Some(texts)) = (metadata.u64(key)?, metadata.strings("tokenizer.ggml.tokens")?) else {
        return Ok(String::new());
    };
    Ok(usize::try_from(id).ok().and_then(|id| texts.get(id)).unwrap_or_default().to_owned())
}

/// Marks the errors that a template raises on purpose.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn explain(error: Error) -> ChatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(refusal) = current.downcast_ref::<Refusal>() {
            return ChatError::Refused { message: refusal.0.clone() };
        }
        cause = current.source();
    }
    let message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    ChatError::Template { line: error.line(), message }
}

#[cfg(test)]
mod tests;
