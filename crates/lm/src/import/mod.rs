//! Folders of safetensors in the manner of Hugging Face as GGUF models, the way back of [`export`](crate::export).
//!
//! Every matrix keeps its type and its elements. Tensors get the names and the order of rows that GGUF files have: query and key
//! rows of `llama` are permuted, norm weights of `gemma3` gain one. Vectors become `F32`, as llama.cpp's operations need.
//! What a GGUF file cannot say is refused, with one exception: its readers multiply Gemma's embeddings with the exact root of
//! the width, where `transformers` rounds it to BF16.

mod metadata;
mod tensors;
mod tokenizer;

use std::io::Write;

use anymlx_formats::gguf::{GgufWriter, Metadata, WriteError};

use crate::{Checkpoint, LmError, Result, architecture};
use tensors::Imported;

const OPERATION: &str = "convert";

/// What a GGUF file will hold.
#[derive(Debug)]
pub struct ImportPlan<'a> {
    metadata: Metadata,
    tensors: Vec<Imported<'a>>,
}

impl<'a> ImportPlan<'a> {
    /// Reads a folder; `name` is what the model is called.
    ///
    /// # Errors
    /// For a checkpoint that is no folder, packed matrices, architectures that are not known, tensors without a name in GGUF,
    /// vocabularies and hyper-parameters that GGUF cannot express.
    pub fn new(checkpoint: &'a Checkpoint, name: &str) -> Result<Self> {
        let Some(folder) = checkpoint.folder() else {
            return Err(LmError::invalid(OPERATION, "a GGUF file given, needed a folder of safetensors"));
        };
        if folder.quantization.is_some() {
            return Err(LmError::invalid(
                OPERATION,
                "the folder's matrices are packed by MLX, which GGUF cannot hold without loss",
            ));
        }
        let config = architecture::configure(checkpoint)?;
        let tensors = tensors::imported(checkpoint, folder, &config)?;
        let mut metadata = metadata::of(&config, name, tensors::file_type(&tensors))?;
        tokenizer::describe(folder, config.vocabulary, &mut metadata)?;
        Ok(Self { metadata, tensors })
    }

    /// Bytes of all tensors of the source.
    pub fn source_bytes(&self) -> u64 {
        self.tensors.iter().map(Imported::source_bytes).sum()
    }

    /// Writes the file without its first `present` bytes, which an interrupted run of the same plan has left; returns the
    /// length of the whole file. `done` hears how many bytes of the source have been used up since the last time.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&self, out: impl Write, present: u64, done: &(dyn Fn(u64) + Sync)) -> Result<u64, WriteError> {
        let mut writer = GgufWriter::new().metadata_from(&self.metadata);
        for tensor in &self.tensors {
            writer = writer.tensor_with(tensor.name.as_str(), &tensor.shape, tensor.to, move |out| {
                out.write_all(&tensor.bytes()?)?;
                done(tensor.source_bytes());
                Ok(())
            });
        }
        writer.write_rest(out, present)
    }
}
