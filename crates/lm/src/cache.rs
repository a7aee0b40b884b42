//! Keys and values of the positions seen so far.

use std::{fmt, str::FromStr};

use anymlx::{DType, MlxBuffer, QuantType, ops};

use crate::{LmError, Model, Result};

/// Keys and values of one layer, each `[kv_heads, capacity, head_dim]`, or `[kv_heads, capacity, bytes]` where they are quantised.
#[derive(Debug)]
pub(crate) struct LayerCache {
    pub(crate) keys: MlxBuffer,
    pub(crate) values: MlxBuffer,
}

/// Element type of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CacheType {
    /// Half precision.
    #[default]
    F16,
    /// Single precision.
    F32,
    /// 8 bits, scale per 32: a little over half the memory of half precision.
    Q8_0,
    /// 4 bits, scale per 32: a little over a quarter.
    Q4_0,
}

impl CacheType {
    /// Every type.
    pub const ALL: [CacheType; 4] = [CacheType::F16, CacheType::F32, CacheType::Q8_0, CacheType::Q4_0];

    /// Name in lower case: `q8_0`, ..
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::F16 => "f16",
            CacheType::F32 => "f32",
            CacheType::Q8_0 => "q8_0",
            CacheType::Q4_0 => "q4_0",
        }
    }

    fn quantized(self) -> Option<QuantType> {
        match self {
            CacheType::F16 | CacheType::F32 => None,
            CacheType::Q8_0 => Some(QuantType::Q8_0),
            CacheType::Q4_0 => Some(QuantType::Q4_0),
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CacheType {
    type Err = LmError;

    fn from_str(name: &str) -> Result<Self> {
        CacheType::ALL.into_iter().find(|cache_type| cache_type.name() == name.to_ascii_lowercase()).ok_or_else(|| {
            let names = CacheType::ALL.map(CacheType::name).join(", ");
            LmError::invalid("session", format!("cache type `{name}` given, needed one of {names}"))
        })
    }
}

/// One layer's worth of rows in half precision: what attention reads where the cache itself is quantised.
#[derive(Debug)]
pub(crate) struct Expanded {
    pub(crate) encoding: QuantType,
    pub(crate) rows: LayerCache,
}

/// Keys and values of all layers.
#[derive(Debug)]
pub(crate) struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) capacity: usize,
    pub(crate) expanded: Option<Expanded>,
}

impl KvCache {
    pub(crate) fn new(model: &Model, capacity: usize, cache_type: CacheType) -> Result<Self> {
        let config = model.config();
        if capacity == 0 || u32::try_from(capacity).is_err() {
            let message = format!("a context of {capacity} tokens asked for, needed at least 1");
            return Err(LmError::invalid("session", message));
        }
        let layer = |dtype: DType, row: usize| -> Result<LayerCache, anymlx::MlxError> {
            let buffer = || model.device().zeros(dtype, [config.kv_heads, capacity, row]);
            Ok(LayerCache { keys: buffer()?, values: buffer()? })
        };
        let (dtype, row) = match cache_type.quantized() {
            None if cache_type == CacheType::F32 => (DType::F32, config.head_dim),
            None => (DType::F16, config.head_dim),
            Some(encoding) => match ops::quantized_cache_row_bytes(encoding, config.head_dim) {
                Some(bytes) => (DType::U8, bytes),
                None => {
                    let message = format!(
                        "a {cache_type} cache asked for, the model has heads of {} dimensions, needed a multiple of 32",
                        config.head_dim
                    );
                    return Err(LmError::invalid("session", message));
                }
            },
        };
        let in_context =
            |error| LmError::from(error).context(format!("key-value cache for {capacity} tokens in {cache_type}"));
        let layers = config.layers.iter().map(|_| layer(dtype, row)).collect::<Result<_, _>>().map_err(in_context)?;
        let expanded = match cache_type.quantized() {
            None => None,
            Some(encoding) => {
                Some(Expanded { encoding, rows: layer(DType::F16, config.head_dim).map_err(in_context)? })
            }
        };
        Ok(Self { layers, capacity, expanded })
    }
}
