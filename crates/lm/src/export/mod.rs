//! GGUF models as folders in the manner of Hugging Face and MLX: `config.json`, `model.safetensors`, tokenizer files.
//!
//! Tensors get the names and the order of rows that `transformers` and `mlx-lm` expect: query and key rows of `llama` are
//! permuted back, norm weights of `gemma3` lose the one that GGUF files have added.

mod config;
mod tensors;
mod tokenizer;

use std::io::Write;

use anymlx_formats::{
    DType, TensorType, WriteError, gguf::Metadata, mlx::Quantization, safetensors::SafetensorsWriter,
};
use serde_json::{Value, json};

use crate::{Checkpoint, LmError, Result, architecture, config::ModelConfig, tokenizer::Tokenizer};
use tensors::{Change, Converted};

/// What matrices become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportWeights {
    /// Every element as it is stored; quantised tensors are refused.
    Lossless,
    /// Matrices packed as MLX packs them, with 16-bit scales; vectors in 16 bits.
    Packed(Quantization),
}

/// What a folder will hold.
#[derive(Debug)]
pub struct ExportPlan<'a> {
    tensors: Vec<Converted<'a>>,
    files: Vec<(&'static str, Value)>,
    source_bytes: u64,
}

/// Name of the file with the tensors.
pub const TENSORS_FILE: &str = "model.safetensors";

impl<'a> ExportPlan<'a> {
    /// Reads a GGUF model.
    ///
    /// # Errors
    /// For a checkpoint that is no GGUF file, for architectures and vocabularies that are not known, tensors without a name in
    /// the new folder, quantised tensors where the export is to be lossless, and rows that are no multiple of the group.
    pub fn new(checkpoint: &'a Checkpoint, weights: ExportWeights) -> Result<Self> {
        let Some(gguf) = checkpoint.gguf() else {
            return Err(LmError::invalid("convert", "a folder of safetensors given, needed a GGUF file"));
        };
        let config = architecture::configure(checkpoint)?;
        let tokenizer = Tokenizer::from_gguf(&gguf.metadata)?;
        let tied = gguf.tensor("output.weight").is_none();
        let files = json_files(&gguf.metadata, &config, &tokenizer, tied, weights)?;
        let mut tensors = Vec::with_capacity(gguf.tensors.len());
        for info in gguf.tensors.iter().map(|tensor| &tensor.info) {
            let Some(name) = tensors::name(&info.name, config.post_norms) else {
                let message = format!("tensor `{}` has no name among those of `{}`", info.name, config.architecture);
                return Err(LmError::InvalidModel(message));
            };
            let matrix = info.shape.len() > 1;
            let (to, packing) = match (weights, info.tensor_type) {
                (ExportWeights::Lossless, TensorType::Dense(dtype)) => (dtype, None),
                (ExportWeights::Lossless, quant) => {
                    return Err(LmError::invalid(
                        "convert",
                        format!("tensor `{}` is {quant}, which safetensors cannot hold without loss", info.name),
                    ));
                }
                (ExportWeights::Packed(quantization), _) if matrix => {
                    quantization.groups(info.row_len())?;
                    (DType::BF16, Some(quantization))
                }
                (ExportWeights::Packed(_), _) => (DType::BF16, None),
            };
            tensors.push(Converted {
                name,
                source: info.name.clone(),
                from: info.tensor_type,
                rows: info.rows() as usize,
                columns: info.row_len() as usize,
                matrix,
                data: checkpoint.data(&checkpoint.require_tensor(&info.name)?)?,
                change: Change::of(&config, &info.name),
                to,
                packing,
            });
        }
        let source_bytes = gguf.tensors.iter().map(|tensor| tensor.info.byte_len).sum();
        Ok(Self { tensors, files, source_bytes })
    }

    /// Names and contents of the files beside the tensors.
    ///
    /// # Errors
    /// When a value cannot be written as JSON.
    pub fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let bytes = |(name, value): &(&'static str, Value)| {
            let text = serde_json::to_vec_pretty(value).map_err(|error| LmError::invalid("export", error))?;
            Ok((*name, text))
        };
        self.files.iter().map(bytes).collect()
    }

    /// Bytes of all tensors of the source.
    pub fn source_bytes(&self) -> u64 {
        self.source_bytes
    }

    /// Writes [`TENSORS_FILE`] without its first `present` bytes, which an interrupted run of the same plan has left; returns
    /// the length of the whole file. `done` hears how many bytes of the source have been used up since the last time.
    ///
    /// # Errors
    /// When `out` fails; for values that 16-bit scales cannot hold.
    pub fn write_tensors(
        &self,
        out: impl Write,
        present: u64,
        threads: usize,
        done: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, WriteError> {
        let mut writer = SafetensorsWriter::new().metadata("format", "mlx");
        for tensor in &self.tensors {
            writer = tensor.add_to(writer, threads, done);
        }
        writer.write_rest(out, present)
    }
}

fn json_files(
    metadata: &Metadata,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    tied: bool,
    weights: ExportWeights,
) -> Result<Vec<(&'static str, Value)>> {
    let mut config_json = config::config(config, tokenizer, tied, "bfloat16")?;
    if let ExportWeights::Packed(quantization) = weights {
        let section = json!({
            "group_size": quantization.group_size(), "bits": quantization.bits(), "mode": quantization.mode().name(),
        });
        config_json["quantization"] = section.clone();
        config_json["quantization_config"] = section;
    }
    let texts = tokenizer::files(metadata)?;
    let generation = json!({
        "bos_token_id": tokenizer.bos(), "eos_token_id": tokenizer.end_of_generation(), "pad_token_id": tokenizer.padding(),
    });
    Ok(vec![
        ("config.json", config_json),
        ("generation_config.json", generation),
        ("tokenizer.json", texts.tokenizer),
        ("tokenizer_config.json", texts.config),
    ])
}
