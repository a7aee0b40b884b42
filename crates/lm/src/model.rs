//! A loaded model.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use anymlx::{DType, MlxBuffer, MlxDevice, Weight, ops};

use crate::{
    LmError, Result, architecture,
    chat::ChatTemplate,
    checkpoint::Checkpoint,
    config::{LayerAttention, ModelConfig, RopeConfig},
    placement::Placement,
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
    placement: Placement,
    rotation_global: Rotation,
    rotation_windowed: Rotation,
    /// Built when first asked for where that takes long.
    tokenizer: OnceLock<Result<Tokenizer>>,
    chat_template: Option<ChatTemplate>,
    /// The files, if there were any.
    checkpoint: Option<Checkpoint>,
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
    /// Loads a GGUF file, all files of a split one, or a folder of safetensors as Hugging Face and MLX write
    /// them: see [`Checkpoint::open`]. Weights are mapped, not copied, where the device shares the host's memory
    /// and has kernels for their types; others are converted to `f32` once, with a warning.
    ///
    /// # Errors
    /// What is wrong with the file, in front of it its path.
    pub fn open(path: impl AsRef<Path>, device: &MlxDevice) -> Result<Self> {
        let path = path.as_ref();
        Self::load(path, device).map_err(|error| error.context(format!("load `{}`", path.display())))
    }

    fn load(path: &Path, device: &MlxDevice) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let config = architecture::configure(&checkpoint)?;
        let tokenizer = OnceLock::new();
        match checkpoint.folder() {
            Some(folder) => folder.check_tokenizer()?,
            None => {
                let built = checkpoint.tokenizer()?;
                if built.vocab_size() > config.vocabulary {
                    return Err(LmError::InvalidModel(too_many(&built, &config)));
                }
                tokenizer.get_or_init(|| Ok(built));
            }
        }
        let chat_template = checkpoint.chat_template()?;
        let weights = Loader::new(device, &checkpoint, &config)?.model(&config)?;
        Self::with_source(device, config, weights, tokenizer, (chat_template, Some(checkpoint)))
    }

    /// A model of parts that come from no file.
    pub(crate) fn assemble(
        device: &MlxDevice,
        config: ModelConfig,
        weights: ModelWeights,
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        Self::with_source(device, config, weights, OnceLock::from(Ok(tokenizer)), (None, None))
    }

    fn with_source(
        device: &MlxDevice,
        config: ModelConfig,
        weights: ModelWeights,
        tokenizer: OnceLock<Result<Tokenizer>>,
        (chat_template, checkpoint): (Option<ChatTemplate>, Option<Checkpoint>),
    ) -> Result<Self> {
        let rotation_global = rotation(device, &config, &config.rope_global)?;
        let rotation_windowed = rotation(device, &config, &config.rope_windowed)?;
        let device = device.clone();
        let inner = Inner {
            device,
            config,
            weights,
            placement: Placement::new(),
            rotation_global,
            rotation_windowed,
            tokenizer,
            chat_template,
            checkpoint,
        };
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

    /// The vocabulary. That of a folder is built by the first call: parsing its `tokenizer.json` takes far longer than
    /// opening the rest.
    ///
    /// # Errors
    /// What is wrong with a folder's `tokenizer.json`, in front of it the folder's path.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let built = self.inner.tokenizer.get_or_init(|| match &self.inner.checkpoint {
            Some(checkpoint) => build_tokenizer(checkpoint, &self.inner.config),
            None => Err(LmError::InvalidModel("the model has no vocabulary".into())),
        });
        built.as_ref().map_err(Clone::clone)
    }

    /// How conversations are written for this model, if the file says.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.inner.chat_template.as_ref()
    }

    /// The files that the model was loaded from; `None` for a synthetic one.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.inner.checkpoint.as_ref()
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
        self.matrices().map(Weight::byte_len).sum()
    }

    /// Matrices that one decoded token reads, in order.
    fn matrices(&self) -> impl Iterator<Item = &Weight> {
        let weights = self.weights();
        let layers = weights.layers.iter();
        let layers = layers.flat_map(|l| [&l.query, &l.key, &l.value, &l.attention_output, &l.gate, &l.up, &l.down]);
        layers.chain([&weights.output])
    }

    /// Called with each decoded token: weights move, a few with each, to where they are read fastest.
    pub(crate) fn place_weights(&self) {
        self.inner.placement.advance(&self.inner.device, || self.matrices());
    }
}

fn build_tokenizer(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Tokenizer> {
    let tokenizer = checkpoint.tokenizer().map_err(|error| match checkpoint.folder() {
        Some(folder) => error.context(format!("load `{}`", folder.path().display())),
        None => error,
    })?;
    // Folders often share the tokenizer of a model that sees images: its further tokens are refused when used.
    if tokenizer.vocab_size() > config.vocabulary {
        tracing::debug!("{}", too_many(&tokenizer, config));
    }
    Ok(tokenizer)
}

fn too_many(tokenizer: &Tokenizer, config: &ModelConfig) -> String {
    format!("the tokenizer has {} entries, the embedding table {}", tokenizer.vocab_size(), config.vocabulary)
}

fn rotation(device: &MlxDevice, config: &ModelConfig, rope: &RopeConfig) -> Result<Rotation> {
    let frequencies = ops::rope::frequencies(rope.base, config.rotary_dims, &rope.scaling);
    let shape = vec![frequencies.len()];
    Ok(Rotation {
        frequencies: device.buffer_from_slice(&frequencies, DType::F32, shape)?,
        magnitude: ops::rope::magnitude(&rope.scaling),
    })
}
