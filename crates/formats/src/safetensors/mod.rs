//! safetensors, the container of Hugging Face and MLX checkpoints, alone or in shards with an index.
//!
//! Specification: <https://huggingface.co/docs/safetensors/index#format>.

mod header;
mod index;
mod sharded;
mod stored_type;
mod unique_map;
mod writer;

pub use header::{Safetensors, TensorInfo};
pub use index::ShardIndex;
pub use sharded::{ShardedSafetensors, ShardedTensor};
pub use stored_type::StoredType;
pub use writer::SafetensorsWriter;

/// Name of the index beside the shards of a checkpoint.
pub const INDEX_FILE_NAME: &str = "model.safetensors.index.json";
