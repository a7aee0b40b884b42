//! A file's tensors as buffers: mapped, checked against the configuration, never copied.

use anymlx::{DType, MlxBuffer, MlxDevice, TensorType, Weight, ops};
use anymlx_formats::gguf::{Gguf, TensorInfo};

use crate::{LmError, Result, config::ModelConfig};

/// One transformer layer.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    pub(crate) attention_norm: MlxBuffer,
    pub(crate) query: Weight,
    pub(crate) key: Weight,
    pub(crate) value: Weight,
    pub(crate) query_bias: Option<MlxBuffer>,
    pub(crate) key_bias: Option<MlxBuffer>,
    pub(crate) value_bias: Option<MlxBuffer>,
    pub(crate) query_norm: Option<MlxBuffer>,
    pub(crate) key_norm: Option<MlxBuffer>,
    pub(crate) attention_output: Weight,
    pub(crate) attention_output_bias: Option<MlxBuffer>,
    pub(crate) attention_post_norm: Option<MlxBuffer>,
    pub(crate) feed_forward_norm: MlxBuffer,
    pub(crate) gate: Weight,
    pub(crate) up: Weight,
    pub(crate) down: Weight,
    pub(crate) feed_forward_post_norm: Option<MlxBuffer>,
}

/// All of a model's tensors.
#[derive(Debug)]
pub(crate) struct ModelWeights {
    pub(crate) embedding: Weight,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) output_norm: MlxBuffer,
    pub(crate) output: Weight,
}

/// Reads tensors of one file.
pub(crate) struct Loader<'a> {
    pub(crate) device: &'a MlxDevice,
    pub(crate) gguf: &'a Gguf,
    pub(crate) file: &'a MlxBuffer,
}

impl Loader<'_> {
    fn shape(info: &TensorInfo, needed: &[usize]) -> Result<()> {
        let found = info.shape_row_major();
        let needed: Vec<u64> = needed.iter().map(|&extent| extent as u64).collect();
        // A matrix of one row may be stored as a vector.
        let same = |a: &[u64], b: &[u64]| a.iter().skip_while(|e| **e == 1).eq(b.iter().skip_while(|e| **e == 1));
        if same(&found, &needed) {
            return Ok(());
        }
        Err(LmError::WrongShape { name: info.name.clone(), found, needed })
    }

    fn view(&self, info: &TensorInfo, dtype: DType, shape: Vec<usize>) -> Result<MlxBuffer> {
        Ok(self.file.view_as(info.offset, info.byte_len as usize, dtype, shape)?)
    }

    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Weight> {
        let info = self.gguf.require_tensor(name)?;
        Self::shape(info, &[rows, columns])?;
        if !ops::can_multiply(info.tensor_type) {
            let message = format!("tensor `{name}` is {}, for which there is no kernel yet", info.tensor_type);
            return Err(LmError::InvalidModel(message));
        }
        let data = match info.tensor_type {
            TensorType::Dense(dtype) => self.view(info, dtype, vec![rows, columns])?,
            TensorType::Quantized(_) => self.view(info, DType::U8, vec![info.byte_len as usize])?,
        };
        let weight = Weight::new(data, info.tensor_type, rows, columns);
        Ok(weight.map_err(|error| error.context(format!("loading `{name}`")))?)
    }

    /// A vector in `f32`. The few that are stored in 16 bits are converted.
    fn vector(&self, name: &str, len: usize) -> Result<MlxBuffer> {
        let info = self.gguf.require_tensor(name)?;
        Self::shape(info, &[len])?;
        match info.tensor_type {
            TensorType::Dense(DType::F32) => self.view(info, DType::F32, vec![len]),
            TensorType::Dense(dtype @ (DType::F16 | DType::BF16)) => {
                let halves: Vec<u16> = self.view(info, dtype, vec![len])?.to_vec()?;
                let wide: Vec<f32> = match dtype {
                    DType::F16 => halves.iter().map(|&bits| half::f16::from_bits(bits).to_f32()).collect(),
                    _ => halves.iter().map(|&bits| half::bf16::from_bits(bits).to_f32()).collect(),
                };
                Ok(self.device.buffer_from_slice(&wide, DType::F32, vec![len])?)
            }
            other => Err(LmError::InvalidModel(format!("tensor `{name}` is {other}, needed F32, F16 or BF16"))),
        }
    }

    fn optional_vector(&self, name: &str, len: usize) -> Result<Option<MlxBuffer>> {
        if self.gguf.tensor(name).is_none() {
            return Ok(None);
        }
        self.vector(name, len).map(Some)
    }

    fn vector_if(&self, wanted: bool, name: &str, len: usize) -> Result<Option<MlxBuffer>> {
        wanted.then(|| self.vector(name, len)).transpose()
    }

    fn layer(&self, config: &ModelConfig, index: usize) -> Result<LayerWeights> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (hidden, head_dim, feed_forward) = (config.hidden, config.head_dim, config.feed_forward);
        let (query, key_value) = (config.heads * head_dim, config.kv_heads * head_dim);
        let bias = |part: &str, len: usize| {
            if config.requires_qkv_bias {
                self.vector(&name(part), len).map(Some)
            } else {
                self.optional_vector(&name(part), len)
            }
        };
        Ok(LayerWeights {
            attention_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            query: self.matrix(&name("attn_q.weight"), query, hidden)?,
            key: self.matrix(&name("attn_k.weight"), key_value, hidden)?,
            value: self.matrix(&name("attn_v.weight"), key_value, hidden)?,
            query_bias: bias("attn_q.bias", query)?,
            key_bias: bias("attn_k.bias", key_value)?,
            value_bias: bias("attn_v.bias", key_value)?,
            query_norm: self.vector_if(config.query_key_norm, &name("attn_q_norm.weight"), head_dim)?,
            key_norm: self.vector_if(config.query_key_norm, &name("attn_k_norm.weight"), head_dim)?,
            attention_output: self.matrix(&name("attn_output.weight"), hidden, query)?,
            attention_output_bias: self.optional_vector(&name("attn_output.bias"), hidden)?,
            attention_post_norm: self.vector_if(config.post_norms, &name("post_attention_norm.weight"), hidden)?,
            feed_forward_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            gate: self.matrix(&name("ffn_gate.weight"), feed_forward, hidden)?,
            up: self.matrix(&name("ffn_up.weight"), feed_forward, hidden)?,
            down: self.matrix(&name("ffn_down.weight"), hidden, feed_forward)?,
            feed_forward_post_norm: self.vector_if(config.post_norms, &name("post_ffw_norm.weight"), hidden)?,
        })
    }

    pub(crate) fn model(&self, config: &ModelConfig) -> Result<ModelWeights> {
        let embedding = self.matrix("token_embd.weight", config.vocabulary, config.hidden)?;
        let layers = (0..config.layers.len()).map(|index| self.layer(config, index)).collect::<Result<_>>()?;
        let output = match self.gguf.tensor("output.weight") {
            Some(_) => self.matrix("output.weight", config.vocabulary, config.hidden)?,
            None => embedding.clone(),
        };
        Ok(ModelWeights { embedding, layers, output_norm: self.vector("output_norm.weight", config.hidden)?, output })
    }
}
