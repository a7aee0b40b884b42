//! Keys and values of the positions seen so far.

use anymlx::{DType, MlxBuffer};

use crate::{LmError, Model, Result};

/// Keys and values of one layer, each `[kv_heads, capacity, head_dim]`.
#[derive(Debug)]
pub(crate) struct LayerCache {
    pub(crate) keys: MlxBuffer,
    pub(crate) values: MlxBuffer,
}

/// Element type of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// Half precision.
    #[default]
    F16,
    /// Single precision.
    F32,
}

/// Keys and values of all layers.
#[derive(Debug)]
pub(crate) struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) capacity: usize,
}

impl KvCache {
    pub(crate) fn new(model: &Model, capacity: usize, cache_type: CacheType) -> Result<Self> {
        let config = model.config();
        if capacity == 0 || u32::try_from(capacity).is_err() {
            let message = format!("a context of {capacity} tokens asked for, needed at least 1");
            return Err(LmError::invalid("session", message));
        }
        let dtype = match cache_type {
            CacheType::F16 => DType::F16,
            CacheType::F32 => DType::F32,
        };
        let shape = [config.kv_heads, capacity, config.head_dim];
        let buffer = || model.device().zeros(dtype, shape);
        let layers = config
            .layers
            .iter()
            .map(|_| Ok(LayerCache { keys: buffer()?, values: buffer()? }))
            .collect::<Result<_, anymlx::MlxError>>()
            .map_err(|error| LmError::from(error).context(format!("key-value cache for {capacity} tokens")))?;
        Ok(Self { layers, capacity })
    }
}
