//! A checkpoint's tensors as buffers: checked against the configuration, and mapped wherever the device can work with
//! them as they are stored.

use std::cell::RefCell;

use anymlx::{BackendKind, DType, MappedFile, MlxBuffer, MlxDevice, MlxMatrix, TensorType, Weight, ops};
use anymlx_formats::quant;

use crate::{
    LmError, Result,
    checkpoint::{Checkpoint, LayerPart, Names, Part, StoredTensor},
    config::ModelConfig,
};

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

/// Reads the tensors of a checkpoint.
pub(crate) struct Loader<'a> {
    device: &'a MlxDevice,
    checkpoint: &'a Checkpoint,
    files: Vec<MappedFile>,
    names: Names,
    /// Kernels are functions for CPUs.
    on_host: bool,
    converted: RefCell<Vec<Converted>>,
}

/// Matrices of one type that were converted because the device has no kernel for it.
#[derive(Debug)]
struct Converted {
    from: String,
    first: String,
    count: usize,
    bytes: u64,
}

/// Addresses that GPU kernels take 16 bytes at a time from.
const GPU_ALIGNMENT: u64 = 16;

impl<'a> Loader<'a> {
    pub(crate) fn new(device: &'a MlxDevice, checkpoint: &'a Checkpoint, config: &ModelConfig) -> Result<Self> {
        let names = checkpoint.folder().map_or(Names::Gguf, |folder| folder.names(config.post_norms));
        let files = checkpoint.map(device)?;
        let on_host = matches!(device.info().backend, BackendKind::Cpu | BackendKind::Trace);
        Ok(Self { device, checkpoint, files, names, on_host, converted: RefCell::default() })
    }

    fn check_shape(tensor: &StoredTensor, needed: &[usize]) -> Result<()> {
        let needed: Vec<u64> = needed.iter().map(|&extent| extent as u64).collect();
        // A matrix of one row may be stored as a vector.
        let same = |a: &[u64], b: &[u64]| a.iter().skip_while(|e| **e == 1).eq(b.iter().skip_while(|e| **e == 1));
        if same(&tensor.shape, &needed) {
            return Ok(());
        }
        Err(LmError::WrongShape { name: tensor.name.clone(), found: tensor.shape.clone(), needed })
    }

    /// The tensor's bytes as a buffer: a view of the mapped file, or a copy where they lie at an address that kernels
    /// cannot read from.
    fn view(&self, tensor: &StoredTensor, dtype: DType, shape: Vec<usize>) -> Result<MlxBuffer> {
        let alignment = if self.on_host { dtype.size_of() as u64 } else { GPU_ALIGNMENT };
        if tensor.offset.is_multiple_of(alignment) {
            return Ok(self.files[tensor.file].view_as(tensor.offset, tensor.byte_len as usize, dtype, shape)?);
        }
        tracing::debug!("tensor `{}` lies at byte {}, copied to an aligned place", tensor.name, tensor.offset);
        Ok(self.device.buffer_from_slice(self.checkpoint.data(tensor)?, dtype, shape)?)
    }

    fn matrix(&self, part: Part, rows: usize, columns: usize) -> Result<Weight> {
        let path = self.names.of(part);
        let name = format!("{path}.weight");
        let tensor = self.checkpoint.require_tensor(&name)?;
        let scales = self.checkpoint.folder().and_then(|_| self.checkpoint.tensor(&format!("{path}.scales")));
        let weight = match scales {
            Some(scales) => self.mlx_matrix(&path, &tensor, &scales, rows, columns)?,
            None => self.plain_matrix(&tensor, rows, columns)?,
        };
        if ops::can_multiply(weight.encoding()) { Ok(weight) } else { self.converted(&tensor, &weight) }
    }

    fn plain_matrix(&self, tensor: &StoredTensor, rows: usize, columns: usize) -> Result<Weight> {
        Self::check_shape(tensor, &[rows, columns])?;
        let encoding = tensor.require_encoding()?;
        let data = match encoding {
            TensorType::Dense(dtype) => self.view(tensor, dtype, vec![rows, columns])?,
            _ => self.view(tensor, DType::U8, vec![tensor.byte_len as usize])?,
        };
        let weight = Weight::new(data, encoding, rows, columns);
        Ok(weight.map_err(|error| error.context(format!("loading `{}`", tensor.name)))?)
    }

    fn mlx_matrix(
        &self,
        path: &str,
        tensor: &StoredTensor,
        scales: &StoredTensor,
        rows: usize,
        columns: usize,
    ) -> Result<Weight> {
        let section = self.checkpoint.folder().and_then(|folder| folder.quantization.as_ref());
        let Some(quantization) = section.and_then(|section| section.layer(path)) else {
            let message = format!("tensor `{}` has scales, `config.json` says nothing about its packing", tensor.name);
            return Err(LmError::InvalidModel(message));
        };
        let words = usize::try_from(quantization.packed_words(columns as u64)?).unwrap_or(usize::MAX);
        Self::check_shape(tensor, &[rows, words])?;
        let groups = columns / quantization.group_size() as usize;
        let factors = |stored: &StoredTensor| {
            Self::check_shape(stored, &[rows, groups])?;
            match stored.require_encoding()? {
                TensorType::Dense(dtype) => self.view(stored, dtype, vec![rows, groups]),
                other => Err(LmError::InvalidModel(format!("tensor `{}` is {other}", stored.name))),
            }
        };
        if tensor.require_encoding()? != TensorType::Dense(DType::U32) {
            let message = format!("tensor `{}` is {}, packed words are U32", tensor.name, tensor.type_name);
            return Err(LmError::InvalidModel(message));
        }
        let biases = match self.checkpoint.tensor(&format!("{path}.biases")) {
            Some(biases) => Some(factors(&biases)?),
            None => None,
        };
        let matrix = MlxMatrix {
            packed: self.view(tensor, DType::U32, vec![rows, words])?,
            scales: factors(scales)?,
            biases,
            quantization,
        };
        let weight = Weight::mlx(matrix, rows, columns);
        Ok(weight.map_err(|error| error.context(format!("loading `{}`", tensor.name)))?)
    }

    /// The matrix in `f32`, for which every device has kernels; refused where memory does not suffice.
    fn converted(&self, tensor: &StoredTensor, weight: &Weight) -> Result<Weight> {
        let (rows, columns, from) = (weight.rows(), weight.columns(), weight.encoding());
        let bytes = (rows as u64).saturating_mul(columns as u64).saturating_mul(size_of::<f32>() as u64);
        let info = self.device.info();
        if bytes > info.memory_free {
            return Err(LmError::InvalidModel(format!(
                "tensor `{}` is {from}, for which {} has no kernel; in f32 it takes {bytes} bytes, {} are free",
                tensor.name, info.name, info.memory_free
            )));
        }
        let data = self.device.zeros(DType::F32, [rows, columns])?;
        {
            let mut values = data.write::<f32>()?;
            quant::dequantize(from, self.checkpoint.data(tensor)?, &mut values)?;
        }
        let mut converted = self.converted.borrow_mut();
        let from = from.to_string();
        match converted.iter_mut().find(|entry| entry.from == from) {
            Some(entry) => {
                entry.count += 1;
                entry.bytes += bytes;
            }
            None => converted.push(Converted { from, first: tensor.name.clone(), count: 1, bytes }),
        }
        Ok(Weight::new(data, TensorType::Dense(DType::F32), rows, columns)?)
    }

    /// A vector in `f32`. The few that are stored in 16 bits are converted.
    fn vector(&self, name: &str, len: usize) -> Result<MlxBuffer> {
        let tensor = self.checkpoint.require_tensor(name)?;
        Self::check_shape(&tensor, &[len])?;
        match tensor.require_encoding()? {
            TensorType::Dense(DType::F32) => self.view(&tensor, DType::F32, vec![len]),
            encoding @ TensorType::Dense(DType::F16 | DType::BF16) => {
                let mut values = vec![0.0_f32; len];
                quant::dequantize(encoding, self.checkpoint.lone_data(&tensor)?, &mut values)?;
                Ok(self.device.buffer_from_slice(&values, DType::F32, vec![len])?)
            }
            other => Err(LmError::InvalidModel(format!("tensor `{name}` is {other}, needed F32, F16 or BF16"))),
        }
    }

    fn norm(&self, part: Part, len: usize) -> Result<MlxBuffer> {
        self.vector(&format!("{}.weight", self.names.of(part)), len)
    }

    fn norm_if(&self, wanted: bool, part: Part, len: usize) -> Result<Option<MlxBuffer>> {
        wanted.then(|| self.norm(part, len)).transpose()
    }

    /// A bias, where it is needed or there.
    fn bias(&self, needed: bool, part: Part, len: usize) -> Result<Option<MlxBuffer>> {
        let name = format!("{}.bias", self.names.of(part));
        if !needed && self.checkpoint.tensor(&name).is_none() {
            return Ok(None);
        }
        self.vector(&name, len).map(Some)
    }

    fn layer(&self, config: &ModelConfig, index: usize) -> Result<LayerWeights> {
        let part = |part: LayerPart| Part::Layer(index, part);
        let (hidden, head_dim, feed_forward) = (config.hidden, config.head_dim, config.feed_forward);
        let (query, key_value) = (config.heads * head_dim, config.kv_heads * head_dim);
        let biased = config.requires_qkv_bias;
        for unsupported in [LayerPart::Gate, LayerPart::Up, LayerPart::Down] {
            let name = format!("{}.bias", self.names.of(part(unsupported)));
            if self.checkpoint.tensor(&name).is_some() {
                return Err(LmError::InvalidModel(format!(
                    "tensor `{name}`: biases of feed-forward layers are not supported"
                )));
            }
        }
        Ok(LayerWeights {
            attention_norm: self.norm(part(LayerPart::AttentionNorm), hidden)?,
            query: self.matrix(part(LayerPart::Query), query, hidden)?,
            key: self.matrix(part(LayerPart::Key), key_value, hidden)?,
            value: self.matrix(part(LayerPart::Value), key_value, hidden)?,
            query_bias: self.bias(biased, part(LayerPart::Query), query)?,
            key_bias: self.bias(biased, part(LayerPart::Key), key_value)?,
            value_bias: self.bias(biased, part(LayerPart::Value), key_value)?,
            query_norm: self.norm_if(config.query_key_norm, part(LayerPart::QueryNorm), head_dim)?,
            key_norm: self.norm_if(config.query_key_norm, part(LayerPart::KeyNorm), head_dim)?,
            attention_output: self.matrix(part(LayerPart::AttentionOutput), hidden, query)?,
            attention_output_bias: self.bias(false, part(LayerPart::AttentionOutput), hidden)?,
            attention_post_norm: self.norm_if(config.post_norms, part(LayerPart::AttentionPostNorm), hidden)?,
            feed_forward_norm: self.norm(part(LayerPart::FeedForwardNorm), hidden)?,
            gate: self.matrix(part(LayerPart::Gate), feed_forward, hidden)?,
            up: self.matrix(part(LayerPart::Up), feed_forward, hidden)?,
            down: self.matrix(part(LayerPart::Down), hidden, feed_forward)?,
            feed_forward_post_norm: self.norm_if(config.post_norms, part(LayerPart::FeedForwardPostNorm), hidden)?,
        })
    }

    pub(crate) fn model(&self, config: &ModelConfig) -> Result<ModelWeights> {
        let embedding = self.matrix(Part::Embedding, config.vocabulary, config.hidden)?;
        let layers = (0..config.layers.len()).map(|index| self.layer(config, index)).collect::<Result<_>>()?;
        let output = match self.checkpoint.tensor(&format!("{}.weight", self.names.of(Part::Output))) {
            Some(_) => self.matrix(Part::Output, config.vocabulary, config.hidden)?,
            None => embedding.clone(),
        };
        let output_norm = self.norm(Part::OutputNorm, config.hidden)?;
        for Converted { from, first, count, bytes } in self.converted.borrow().iter() {
            tracing::warn!(
                "{count} matrices of type {from} (the first is `{first}`) have no kernel on {}: converted to f32, {} MB",
                self.device.name(),
                bytes.div_ceil(1_000_000)
            );
        }
        Ok(ModelWeights { embedding, layers, output_norm, output })
    }
}
