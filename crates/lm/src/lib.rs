//! Language models on anymlx.
//!
//! * [`Model`] loads a file: weights, tokenizer, chat template.
//! * [`Session`] is a context: it reads tokens and draws tokens.
//! * [`generate`] and [`perplexity`] are the two loops over a session.

pub mod architecture;
mod cache;
pub mod chat;
mod checkpoint;
mod config;
mod error;
pub mod export;
mod forward;
mod generate;
pub mod import;
mod model;
mod perplexity;
mod placement;
pub mod quantize;
mod session;
mod synthetic;
mod taps;
pub mod tokenizer;
mod weights;
mod workspace;

pub use cache::CacheType;
pub use checkpoint::{Checkpoint, StoredTensor};
pub use config::{LayerAttention, ModelConfig, RopeConfig};
pub use error::{LmError, Result};
pub use generate::{GenerateOptions, StopReason, Summary, Token, generate};
pub use model::Model;
pub use perplexity::{ChunkPerplexity, perplexity};
pub use session::{Session, SessionOptions};
pub use synthetic::{SyntheticShape, SyntheticWeights};
pub use workspace::ActivationPrecision;
