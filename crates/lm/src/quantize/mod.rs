//! Model files with weights of another type.
//!
//! [`QuantizePlan::new`] decides what becomes of each tensor, [`QuantizePlan::write`] streams the new file out. The same
//! input and plan give the same bytes, whatever the machine and the number of threads.

mod collect;
mod importance;
mod recipe;
mod rows;

pub use collect::importance_matrix;
pub use importance::ImportanceMatrix;
pub use recipe::{Mixing, Recipe};

use std::io::Write;

use anymlx_formats::{
    DType, TensorType,
    gguf::{GgufWriter, Metadata, TensorInfo, WriteError},
};

use crate::{LmError, Result};
use recipe::ModelFacts;
use rows::Conversion;

const OPERATION: &str = "quantize";

/// Version of the layouts of quantised types, under `general.quantization_version`.
const QUANTIZATION_VERSION: u32 = 2;

/// How a file is quantised.
#[derive(Debug, Clone, Copy)]
pub struct QuantizeOptions<'a> {
    /// The types.
    pub recipe: Recipe,
    /// Whether some tensors get other types than most.
    pub mixing: Mixing,
    /// How much columns matter, where that is known.
    pub importance: Option<&'a ImportanceMatrix>,
}

/// A tensor of the source, with its bytes.
#[derive(Debug, Clone, Copy)]
pub struct SourceTensor<'a> {
    /// Description; its offset is not looked at.
    pub info: &'a TensorInfo,
    /// Bytes.
    pub data: &'a [u8],
}

/// What becomes of one tensor.
#[derive(Debug, Clone)]
pub struct PlannedTensor<'a> {
    /// The tensor as it is.
    pub source: SourceTensor<'a>,
    /// Its type in the new file.
    pub to: TensorType,
    /// How much columns matter; empty where nothing is known.
    importance: Vec<f32>,
}

impl PlannedTensor<'_> {
    /// Bytes in the new file.
    ///
    /// # Errors
    /// When rows are no multiple of the type's block length.
    pub fn byte_len(&self) -> Result<u64> {
        Ok(self.to.byte_len(self.source.info.element_count())?)
    }
}

/// What becomes of a file.
#[derive(Debug, Clone)]
pub struct QuantizePlan<'a> {
    metadata: Metadata,
    tensors: Vec<PlannedTensor<'a>>,
}

impl<'a> QuantizePlan<'a> {
    /// Chooses a type for every tensor.
    ///
    /// Matrices get the types of the recipe. Vectors, norms and a few small matrices stay as they are, as does what is no
    /// floating-point or quantised type. A matrix whose rows are no multiple of a type's block length gets the nearest type
    /// that fits: `Q5_0` for `Q4_K`, `Q5_1` for `Q5_K`, `Q8_0` for `Q6_K`, `IQ4_NL` for `IQ4_XS`, otherwise `Q4_0`.
    ///
    /// # Errors
    /// For a file without tensors, metadata of wrong types, and an importance matrix of another model.
    pub fn new(metadata: &Metadata, tensors: Vec<SourceTensor<'a>>, options: &QuantizeOptions<'_>) -> Result<Self> {
        if tensors.is_empty() {
            return Err(LmError::invalid(OPERATION, "the file has no tensors"));
        }
        let facts = facts(metadata, &tensors, options.importance.is_some())?;
        let plan = |source: SourceTensor<'a>| -> Result<PlannedTensor<'a>> {
            let info = source.info;
            let convertible = match info.tensor_type {
                TensorType::Dense(dtype) => matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64),
                TensorType::Quantized(_) => true,
                TensorType::Mlx(_) => false,
            };
            let to = if !convertible || recipe::is_kept(&info.name, &info.shape) {
                info.tensor_type
            } else {
                recipe::choose(options.recipe, options.mixing, &facts, &info.name, info.row_len())
            };
            let columns = info.row_len() as usize;
            let importance = match (options.importance, to) {
                (Some(matrix), TensorType::Quantized(_)) if to != info.tensor_type => {
                    matrix.weights(&info.name, columns)?
                }
                _ => None,
            };
            let importance = importance.unwrap_or_default();
            let sets = (importance.len() / columns.max(1)).max(1) as u64;
            if !info.rows().is_multiple_of(sets) {
                let message =
                    format!("importance of {sets} experts for `{}`, which has {} rows", info.name, info.rows());
                return Err(LmError::invalid(OPERATION, message));
            }
            Ok(PlannedTensor { source, to, importance })
        };
        let mut metadata = metadata.clone();
        metadata.insert("general.file_type", options.recipe.file_type());
        metadata.insert("general.quantization_version", QUANTIZATION_VERSION);
        for key in ["split.no", "split.count", "split.tensors.count"] {
            metadata.remove(key);
        }
        Ok(Self { metadata, tensors: tensors.into_iter().map(plan).collect::<Result<_>>()? })
    }

    /// What becomes of each tensor, in file order.
    pub fn tensors(&self) -> &[PlannedTensor<'a>] {
        &self.tensors
    }

    /// Bytes of all tensors of the source.
    pub fn source_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.source.info.byte_len).sum()
    }

    /// Writes the new file without its first `present` bytes, which an interrupted run of the same plan has left; returns
    /// the length of the whole file. `done` hears how many bytes of the source have been used up since the last time.
    ///
    /// # Errors
    /// When `out` fails; for values that the new type cannot hold.
    pub fn write(
        &self,
        out: impl Write,
        present: u64,
        threads: usize,
        done: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, WriteError> {
        let mut writer = GgufWriter::new().metadata_from(&self.metadata);
        for PlannedTensor { source, to, importance } in &self.tensors {
            let info = source.info;
            let conversion = Conversion {
                name: &info.name,
                from: info.tensor_type,
                to: *to,
                columns: info.row_len() as usize,
                data: source.data,
                importance,
            };
            writer = writer
                .tensor_with(info.name.as_str(), &info.shape, *to, move |out| conversion.write(threads, out, done));
        }
        writer.write_rest(out, present)
    }
}

fn facts(metadata: &Metadata, tensors: &[SourceTensor<'_>], weighted: bool) -> Result<ModelFacts> {
    let architecture = metadata.string("general.architecture")?.unwrap_or_default();
    let number = |key: &str| -> Option<usize> {
        let value = metadata.u64(&format!("{architecture}.{key}")).ok().flatten()?;
        usize::try_from(value).ok()
    };
    let heads = number("attention.head_count").unwrap_or(1);
    let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
    Ok(ModelFacts {
        layers: number("block_count").unwrap_or(0),
        heads_per_kv_head: heads.checked_div(kv_heads).unwrap_or(1),
        experts: number("expert_count").unwrap_or(0),
        tied: !tensors.iter().any(|tensor| tensor.info.name == "output.weight"),
        weighted,
    })
}
