//! A loaded model.

use std::{path::Path, sync::Arc};

use anymlx::{DType, HostFile, MlxBuffer, MlxDevice, ops};
use anymlx_formats::gguf::Gguf;

use crate::{
    LmError, Result, architecture,
    chat::ChatTemplate,
    config::{LayerAttention, ModelConfig, RopeConfig},
    tokenizer::Tokenizer,
    weights::{Loader, ModelWeights},
};

/// Rotation tables of one kind of layer.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) frequencies: MlxBuffer,
    pub(crate) magnitude: f32,
}

struct Inner {
    device: MlxDevice,
    config: ModelConfig,
    weights: ModelWeights,
    rotation_global: Rotation,
    rotation_windowed: Rotation,
    tokenizer: Tokenizer,
    chat_template: Option<ChatTemplate>,
    /// The header of the file, if there was one.
    gguf: Option<Gguf>,
}

/// A model on a device: weights, tokenizer, chat template. Clones are handles.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("device", &self.inner.device).field("config", &self.inner.config).finish()
    }
}

impl Model {
    /// Loads a GGUF file. Weights are mapped, not copied, where the device shares the host's memory.
    ///
    /// # Errors
    /// What is wrong with the file, in front of it its path.
    pub fn open(path: impl AsRef<Path>, device: &MlxDevice) -> Result<Self> {
        let path = path.as_ref();
        Self::load(path, device).map_err(|error| error.context(format!("load `{}`", path.display())))
    }

    fn load(path: &Path, device: &MlxDevice) -> Result<Self> {
        let host = HostFile::open(path)?;
        let gguf = Gguf::parse(host.bytes())?;
        let config = architecture::configure(&gguf, host.bytes())?;
        let tokenizer = Tokenizer::from_gguf(&gguf.metadata)?;
        let chat_template = ChatTemplate::from_gguf(&gguf.metadata)?;
        let file = device.map_file(path)?;
        let weights = Loader { device, gguf: &gguf, file: &file }.model(&config)?;
        if tokenizer.vocab_size() > config.vocabulary {
            let message = format!(
                "the tokenizer has {} entries, the embedding table {}",
                tokenizer.vocab_size(),
                config.vocabulary
            );
            return Err(LmError::InvalidModel(message));
        }
        Self::with_source(device, config, weights, tokenizer, (chat_template, Some(gguf)))
    }

    /// A model of parts that come from no file.
    pub(crate) fn assemble(
        device: &MlxDevice,
        config: ModelConfig,
        weights: ModelWeights,
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        Self::with_source(device, config, weights, tokenizer, (None, None))
    }

    fn with_source(
        device: &MlxDevice,
        config: ModelConfig,
        weights: ModelWeights,
        tokenizer: Tokenizer,
        (chat_template, gguf): (Option<ChatTemplate>, Option<Gguf>),
    ) -> Result<Self> {
        let rotation_global = rotation(device, &config, &config.rope_global)?;
        let rotation_windowed = rotation(device, &config, &config.rope_windowed)?;
        let device = device.clone();
        let inner =
            Inner { device, config, weights, rotation_global, rotation_windowed, tokenizer, chat_template, gguf };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The device.
    pub fn device(&self) -> &MlxDevice {
        &self.inner.device
    }

    /// What sets this transformer apart.
    pub fn config(&self) -> &ModelConfig {
        &self.inner.config
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// How conversations are written for this model, if the file says.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.inner.chat_template.as_ref()
    }

    /// The file's header; `None` for a synthetic model.
    pub fn gguf(&self) -> Option<&Gguf> {
        self.inner.gguf.as_ref()
    }

    pub(crate) fn weights(&self) -> &ModelWeights {
        &self.inner.weights
    }

    pub(crate) fn rotation(&self, layer: LayerAttention) -> &Rotation {
        match layer {
            LayerAttention::Global => &self.inner.rotation_global,
            LayerAttention::Window(_) => &self.inner.rotation_windowed,
        }
    }

    /// Bytes of weights that one decoded token reads.
    pub fn bytes_per_token(&self) -> u64 {
        let weights = self.weights();
        let matrix = |weight: &anymlx::Weight| weight.data().data_byte_len() as u64;
        let layers: u64 = weights
            .layers
            .iter()
            .flat_map(|l| [&l.query, &l.key, &l.value, &l.attention_output, &l.gate, &l.up, &l.down])
            .map(matrix)
            .sum();
        layers + matrix(&weights.output)
    }
}

fn rotation(device: &MlxDevice, config: &ModelConfig, rope: &RopeConfig) -> Result<Rotation> {
    let frequencies = ops::rope::frequencies(rope.base, config.rotary_dims, &rope.scaling);
    let shape = vec![frequencies.len()];
    Ok(Rotation {
        frequencies: device.buffer_from_slice(&frequencies, DType::F32, shape)?,
        magnitude: ops::rope::magnitude(&rope.scaling),
    })
}
