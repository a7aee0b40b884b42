//! The index that says which shard holds which tensor.

use serde::Deserialize;

use super::unique_map::UniqueMap;
use crate::FormatError;

/// The contents of `model.safetensors.index.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIndex {
    /// Names of the shards, sorted; plain file names beside the index.
    pub files: Vec<String>,
    /// Every tensor with the index of its shard in `files`, sorted by name.
    pub tensors: Vec<(String, usize)>,
}

#[derive(Deserialize)]
struct File {
    weight_map: UniqueMap<String>,
}

impl ShardIndex {
    /// Reads an index. All but its `weight_map` is ignored.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] for broken JSON, a missing `weight_map`, a tensor that appears twice, and a shard that is
    /// not a plain file name: an index cannot point out of its folder.
    pub fn parse(bytes: &[u8]) -> Result<ShardIndex, FormatError> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        let map = file.weight_map.0;
        let mut names: Vec<&str> = map.iter().map(|(_, file)| file.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in &names {
            if !is_plain_file_name(name) {
                return Err(malformed(format!("shard `{name}` is no plain file name")));
            }
        }
        let files: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let place = |file: String| files.binary_search(&file).expect("the names are those of the map");
        let tensors = map.into_iter().map(|(tensor, file)| (tensor, place(file))).collect();
        Ok(ShardIndex { files, tensors })
    }
}

/// True for a name that stays in its folder on every operating system.
fn is_plain_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':']) && !name.contains(char::is_control)
}

pub(super) fn malformed(message: String) -> FormatError {
    FormatError::Malformed { format: "safetensors index", message }
}
