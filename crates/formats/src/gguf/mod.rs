//! GGUF, the container of llama.cpp and its relatives.
//!
//! Specification: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod metadata;
mod read_value;
mod reader;
mod split;
mod tensor_info;
mod value_types;
mod write_value;
mod writer;

pub use crate::stream::WriteError;
pub use metadata::{Array, Metadata, StringArray, Value};
pub use reader::Gguf;
pub use split::{SplitGguf, SplitPart, SplitTensor, sibling_paths};
pub use tensor_info::TensorInfo;
pub use writer::GgufWriter;

const MAGIC: &[u8; 4] = b"GGUF";

const ALIGNMENT_KEY: &str = "general.alignment";

const DEFAULT_ALIGNMENT: u64 = 32;

const MAX_DIMENSIONS: u32 = 4;
