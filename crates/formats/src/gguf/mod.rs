//! GGUF, the container of llama.cpp and its relatives.
//!
//! Specification: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod metadata;

pub use metadata::{Array, Metadata, StringArray, Value};
