//! One checkpoint over one or several files.

use super::header::{Safetensors, TensorInfo, missing};
use super::index::{ShardIndex, malformed};
use crate::FormatError;

/// A tensor and the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardedTensor {
    /// Index of the file.
    pub file: usize,
    /// Description; its offset counts from the beginning of that file.
    pub info: TensorInfo,
}

/// The tensors of one checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardedSafetensors {
    /// Tensors of all files, sorted by name.
    pub tensors: Vec<ShardedTensor>,
    files: usize,
}

impl From<Safetensors> for ShardedSafetensors {
    /// A checkpoint in a single file.
    fn from(file: Safetensors) -> Self {
        Self { tensors: file.tensors.into_iter().map(|info| ShardedTensor { file: 0, info }).collect(), files: 1 }
    }
}

impl ShardedSafetensors {
    /// Joins shards by their index. Tensors that the index does not name are no part of the checkpoint.
    ///
    /// `shards` are in the order of [`ShardIndex::files`].
    ///
    /// # Errors
    /// [`FormatError::Malformed`] when a tensor is not in the file that the index names; [`FormatError::InvalidArgument`] when
    /// the number of shards is not that of the index.
    pub fn join(index: &ShardIndex, shards: &[Safetensors]) -> Result<ShardedSafetensors, FormatError> {
        if shards.len() != index.files.len() {
            return Err(FormatError::InvalidArgument {
                operation: "safetensors: join shards",
                message: format!("{} shards given, the index names {}", shards.len(), index.files.len()),
            });
        }
        let find = |(name, file): &(String, usize)| match shards[*file].tensor(name) {
            Some(info) => Ok(ShardedTensor { file: *file, info: info.clone() }),
            None => Err(malformed(format!("tensor `{name}` is not in `{}`", index.files[*file]))),
        };
        Ok(Self { tensors: index.tensors.iter().map(find).collect::<Result<_, _>>()?, files: shards.len() })
    }

    /// Number of files.
    pub fn file_count(&self) -> usize {
        self.files
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&ShardedTensor> {
        let found = self.tensors.binary_search_by(|tensor| tensor.info.name.as_str().cmp(name)).ok()?;
        self.tensors.get(found)
    }

    /// As [`Self::tensor`]; absence is an error.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`] with the nearest name that is there.
    pub fn require_tensor(&self, name: &str) -> Result<&ShardedTensor, FormatError> {
        self.tensor(name).ok_or_else(|| missing(name, self.tensors.iter().map(|tensor| tensor.info.name.as_str())))
    }
}
