//! Qwen 2 and 2.5 (Yang et al. 2024, <https://arxiv.org/abs/2407.10671>): Llama with biases on
//! queries, keys and values.

use anymlx::ops::RopeLayout;

use super::{Reader, llama};
use crate::{Result, config::ModelConfig};

pub(super) fn configure(reader: &Reader<'_>) -> Result<ModelConfig> {
    Ok(ModelConfig { requires_qkv_bias: true, ..llama::plain(reader, RopeLayout::NeoX)? })
}
