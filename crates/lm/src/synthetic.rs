//! Models of a given shape with meaningless weights: to measure speed without a file.

use std::{cell::RefCell, collections::HashMap, rc::Rc, str::FromStr};

use anymlx::{
    DType, MlxBuffer, MlxDevice, QuantType, StorageMode, TensorType, Weight,
    ops::{Activation, RopeLayout, RopeScaling},
};
use anymlx_formats::{gguf::Metadata, quant};

use crate::{
    LmError, Model, Result,
    config::{LayerAttention, ModelConfig, RopeConfig},
    tokenizer::Tokenizer,
    weights::{LayerWeights, ModelWeights},
};

/// The shape of a published model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyntheticShape {
    /// Llama 3 8B: 32 layers of 4096, 32 heads over 8, feed-forward 14336.
    Llama8b,
    /// Llama 3.2 1B with an output matrix of its own: 16 layers of 2048, 32 heads over 8, feed-forward 8192.
    Llama1b,
}

/// How the weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyntheticWeights {
    /// The mix of llama.cpp: Q6_K for the output matrix and, in half of the layers, for values and the way down; Q4_K
    /// for the rest.
    Q4KM,
    /// All matrices of one type.
    Uniform(TensorType),
}

impl FromStr for SyntheticShape {
    type Err = LmError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "llama-8b" => Ok(Self::Llama8b),
            "llama-1b" => Ok(Self::Llama1b),
            other => Err(LmError::invalid("shape", format!("`{other}` is not known, needed llama-8b or llama-1b"))),
        }
    }
}

impl FromStr for SyntheticWeights {
    type Err = LmError;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        if lower == "q4_k_m" {
            return Ok(Self::Q4KM);
        }
        let dense = [DType::F32, DType::F16, DType::BF16].map(TensorType::Dense);
        let types = dense.into_iter().chain(QuantType::ALL.iter().copied().map(TensorType::Quantized));
        let found = types.into_iter().find(|candidate| candidate.name().eq_ignore_ascii_case(&lower));
        found.map(Self::Uniform).ok_or_else(|| {
            LmError::invalid("weights", format!("`{text}` is not known, needed q4_k_m or a type such as q8_0 or bf16"))
        })
    }
}

impl SyntheticShape {
    fn config(self) -> ModelConfig {
        let (hidden, layers, head_dim, feed_forward) = match self {
            Self::Llama8b => (4096, 32, 128, 14_336),
            Self::Llama1b => (2048, 16, 64, 8192),
        };
        let rope = RopeConfig { base: 500_000.0, scaling: RopeScaling::None };
        ModelConfig {
            architecture: "llama",
            vocabulary: 128_256,
            hidden,
            heads: 32,
            kv_heads: 8,
            head_dim,
            feed_forward,
            context_length: 131_072,
            norm_epsilon: 1e-5,
            norm_weight_offset: 0.0,
            embedding_scale: 1.0,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            attention_softcap: None,
            final_softcap: None,
            activation: Activation::Silu,
            rope_layout: RopeLayout::Interleaved,
            rotary_dims: head_dim,
            rope_global: rope.clone(),
            rope_windowed: rope,
            layers: vec![LayerAttention::Global; layers],
            query_key_norm: false,
            post_norms: false,
            requires_qkv_bias: false,
        }
    }
}

/// Weights that are made at random; matrices repeat them.
const PATTERN: usize = 1 << 20;

type Patterns = HashMap<(TensorType, usize), Rc<[u8]>>;

struct Maker<'a> {
    device: &'a MlxDevice,
    values: Vec<f32>,
    /// Quantised patterns by encoding and the number of columns, which sets their scale.
    patterns: RefCell<Patterns>,
}

impl Maker<'_> {
    fn new(device: &MlxDevice) -> Maker<'_> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
        };
        // Nearly normal, of variance 1/3.
        let values = (0..PATTERN).map(|_| uniform() + uniform() + uniform() + uniform()).collect();
        Maker { device, values, patterns: RefCell::default() }
    }

    fn pattern(&self, encoding: TensorType, columns: usize, count: usize) -> Result<Rc<[u8]>> {
        if let Some(pattern) = self.patterns.borrow().get(&(encoding, columns)) {
            return Ok(Rc::clone(pattern));
        }
        let scale = 1.0 / (columns as f32).sqrt();
        let values: Vec<f32> = self.values[..count].iter().map(|value| value * scale).collect();
        let mut pattern = vec![0; encoding.byte_len(count as u64)? as usize];
        quant::quantize(encoding, &values, &mut pattern)?;
        let pattern: Rc<[u8]> = pattern.into();
        if count == PATTERN {
            self.patterns.borrow_mut().insert((encoding, columns), Rc::clone(&pattern));
        }
        Ok(pattern)
    }

    fn matrix(&self, encoding: TensorType, rows: usize, columns: usize) -> Result<Weight> {
        let count = (rows * columns).min(PATTERN);
        let pattern = self.pattern(encoding, columns, count)?;
        let bytes = encoding.byte_len((rows * columns) as u64)? as usize;
        let (dtype, shape) = match encoding {
            TensorType::Dense(dtype) => (dtype, vec![rows, columns]),
            _ => (DType::U8, vec![bytes]),
        };
        let data = self.device.alloc_buffer_with(bytes, dtype, shape, StorageMode::Private)?;
        let part = |offset: usize, len: usize| data.view_as(offset as u64, len, DType::U8, vec![len]);
        part(0, pattern.len())?.copy_from_slice(&pattern)?;
        let mut encoder = self.device.command_encoder_labeled("synthetic weights")?;
        let mut done = pattern.len();
        while done < bytes {
            // What is there already, doubled.
            let len = done.min(bytes - done);
            encoder.copy_bytes(&part(0, len)?, &part(done, len)?)?;
            done += len;
        }
        encoder.commit_and_wait()?;
        Ok(Weight::new(data, encoding, rows, columns)?)
    }

    fn ones(&self, len: usize) -> Result<MlxBuffer> {
        Ok(self.device.buffer_from_slice(&vec![1.0_f32; len], DType::F32, [len])?)
    }

    fn layer(&self, config: &ModelConfig, [plain, finer]: [TensorType; 2]) -> Result<LayerWeights> {
        let (hidden, feed_forward) = (config.hidden, config.feed_forward);
        let (query, key_value) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        Ok(LayerWeights {
            attention_norm: self.ones(hidden)?,
            query: self.matrix(plain, query, hidden)?,
            key: self.matrix(plain, key_value, hidden)?,
            value: self.matrix(finer, key_value, hidden)?,
            query_bias: None,
            key_bias: None,
            value_bias: None,
            query_norm: None,
            key_norm: None,
            attention_output: self.matrix(plain, hidden, query)?,
            attention_output_bias: None,
            attention_post_norm: None,
            feed_forward_norm: self.ones(hidden)?,
            gate: self.matrix(plain, feed_forward, hidden)?,
            up: self.matrix(plain, feed_forward, hidden)?,
            down: self.matrix(finer, hidden, feed_forward)?,
            feed_forward_post_norm: None,
        })
    }
}

/// Layers that llama.cpp's mix stores finer: the first and last eighth, and every third between.
fn is_finer(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

impl Model {
    /// A model of a published shape with random weights and no vocabulary: its speed is that of the real one.
    ///
    /// # Errors
    /// `BufferAllocationError` when the device has no room for the weights; a type of weights that cannot be made.
    pub fn synthetic(device: &MlxDevice, shape: SyntheticShape, weights: SyntheticWeights) -> Result<Self> {
        let config = shape.config();
        let maker = Maker::new(device);
        let [q4, q6] = [QuantType::Q4_K, QuantType::Q6_K].map(TensorType::Quantized);
        let (plain, finer) = match weights {
            SyntheticWeights::Q4KM => (q4, q6),
            SyntheticWeights::Uniform(encoding) => (encoding, encoding),
        };
        let count = config.layers.len();
        let layers = (0..count)
            .map(|layer| maker.layer(&config, [plain, if is_finer(layer, count) { finer } else { plain }]))
            .collect::<Result<_>>()?;
        let weights = ModelWeights {
            embedding: maker.matrix(plain, config.vocabulary, config.hidden)?,
            layers,
            output_norm: maker.ones(config.hidden)?,
            output: maker.matrix(finer, config.vocabulary, config.hidden)?,
        };
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.model", "no_vocab");
        metadata.insert("llama.vocab_size", config.vocabulary as u32);
        metadata.insert("general.architecture", "llama");
        let tokenizer = Tokenizer::from_gguf(&metadata)?;
        Self::assemble(device, config, weights, tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_layers_are_finer() {
        assert_eq!((0..32).filter(|&layer| is_finer(layer, 32)).count(), 16);
        assert_eq!((0..16).filter(|&layer| is_finer(layer, 16)).count(), 8);
    }

    #[test]
    fn names_are_read_and_others_refused() {
        assert_eq!("llama-1b".parse::<SyntheticShape>().unwrap(), SyntheticShape::Llama1b);
        assert_eq!("Q4_K_M".parse::<SyntheticWeights>().unwrap(), SyntheticWeights::Q4KM);
        let uniform = SyntheticWeights::Uniform(QuantType::Q8_0.into());
        assert_eq!("q8_0".parse::<SyntheticWeights>().unwrap(), uniform);
        assert!("llama-9b".parse::<SyntheticShape>().is_err() && "q9".parse::<SyntheticWeights>().is_err());
    }

    #[test]
    fn matrices_repeat_one_pattern() {
        let device = MlxDevice::cpu().unwrap();
        let weight = Maker::new(&device).matrix(QuantType::Q8_0.into(), 3 * 1024 + 1, 512).unwrap();
        let bytes = weight.data().to_vec::<u8>().unwrap();
        let pattern = PATTERN / 32 * 34;
        assert_eq!(bytes[..bytes.len() - pattern], bytes[pattern..]);
        assert!(bytes.iter().any(|&byte| byte != 0));
    }
}
