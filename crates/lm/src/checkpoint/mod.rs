//! The files of a model: headers read, tensors found by name, bytes left where they are.

mod folder;
mod names;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use anymlx::{HostFile, MappedFile, MlxDevice, TensorType};
use anymlx_formats::{
    FormatError,
    gguf::{SplitGguf, sibling_paths},
};

use crate::{LmError, Result, chat::ChatTemplate, tokenizer::Tokenizer};
pub(crate) use folder::{Folder, json_of};
pub(crate) use names::{LayerPart, Names, Part};

/// A model's files, opened: one GGUF file, several parts of one, or a folder of safetensors.
///
/// Opening reads headers only; the tensors' bytes are not touched.
pub struct Checkpoint {
    paths: Vec<PathBuf>,
    hosts: Vec<HostFile>,
    contents: Contents,
}

enum Contents {
    Gguf(Box<SplitGguf>),
    Folder(Box<Folder>),
}

/// What a file says about one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name in the file.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// Type of the elements as the file names it.
    pub type_name: String,
    /// Encoding; `None` for a type that no buffer can hold.
    pub encoding: Option<TensorType>,
    /// Which of the files.
    pub file: usize,
    /// First byte, from the beginning of that file.
    pub offset: u64,
    /// Bytes.
    pub byte_len: u64,
}

impl StoredTensor {
    /// The encoding, or an error with the type's name.
    pub(crate) fn require_encoding(&self) -> Result<TensorType> {
        self.encoding.ok_or_else(|| {
            LmError::InvalidModel(format!("tensor `{}` is {}, a type that is not supported", self.name, self.type_name))
        })
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens a GGUF file (any part of a split one opens all of them), or a folder with `config.json` and
    /// `*.safetensors`, as Hugging Face and MLX write them; a `.safetensors` file stands for its folder.
    ///
    /// # Errors
    /// Files that are missing or break their format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Self::open_folder(path);
        }
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            return Self::open_folder(path.parent().unwrap_or(Path::new("")));
        }
        let paths = sibling_paths(path);
        let hosts = paths.iter().map(HostFile::open).collect::<anymlx::Result<Vec<_>>>()?;
        let bytes: Vec<&[u8]> = hosts.iter().map(HostFile::bytes).collect();
        let contents = Contents::Gguf(Box::new(SplitGguf::parse(&bytes)?));
        Ok(Self { paths, hosts, contents })
    }

    fn open_folder(path: &Path) -> Result<Self> {
        let (folder, paths, hosts) = Folder::open(path)?;
        Ok(Self { paths, hosts, contents: Contents::Folder(Box::new(folder)) })
    }

    /// The files that hold tensors.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Bytes of the files that hold tensors.
    pub fn byte_len(&self) -> u64 {
        self.hosts.iter().map(|host| host.bytes().len() as u64).sum()
    }

    /// The GGUF description, if that is what was opened.
    pub fn gguf(&self) -> Option<&SplitGguf> {
        match &self.contents {
            Contents::Gguf(gguf) => Some(gguf),
            Contents::Folder(_) => None,
        }
    }

    pub(crate) fn folder(&self) -> Option<&Folder> {
        match &self.contents {
            Contents::Gguf(_) => None,
            Contents::Folder(folder) => Some(folder),
        }
    }

    /// The vocabulary.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.contents {
            Contents::Gguf(gguf) => Ok(Tokenizer::from_gguf(&gguf.metadata)?),
            Contents::Folder(folder) => folder.tokenizer(),
        }
    }

    /// How conversations are written for the model, if the files say.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        match &self.contents {
            Contents::Gguf(gguf) => Ok(ChatTemplate::from_gguf(&gguf.metadata)?),
            Contents::Folder(folder) => folder.chat_template(),
        }
    }

    /// Every tensor, in the order of the files.
    pub fn tensors(&self) -> Vec<StoredTensor> {
        match &self.contents {
            Contents::Gguf(gguf) => gguf.tensors.iter().map(from_gguf).collect(),
            Contents::Folder(folder) => folder.tensors.tensors.iter().map(from_safetensors).collect(),
        }
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<StoredTensor> {
        match &self.contents {
            Contents::Gguf(gguf) => gguf.tensor(name).map(from_gguf),
            Contents::Folder(folder) => folder.tensors.tensor(name).map(from_safetensors),
        }
    }

    /// As [`Self::tensor`]; absence is an error.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`] with the nearest name that is there.
    pub fn require_tensor(&self, name: &str) -> Result<StoredTensor> {
        match &self.contents {
            Contents::Gguf(gguf) => Ok(from_gguf(gguf.require_tensor(name)?)),
            Contents::Folder(folder) => Ok(from_safetensors(folder.tensors.require_tensor(name)?)),
        }
    }

    /// The tensor's bytes in the mapped file.
    ///
    /// # Errors
    /// A tensor that is not of these files.
    pub fn data(&self, tensor: &StoredTensor) -> Result<&[u8]> {
        let (host, range) = self.place(tensor)?;
        Ok(&host.bytes()[range])
    }

    /// As [`Self::data`], for a small tensor among large ones that are not read now.
    pub(crate) fn lone_data(&self, tensor: &StoredTensor) -> Result<&[u8]> {
        let (host, range) = self.place(tensor)?;
        host.expect_lone_read(range.clone());
        Ok(&host.bytes()[range])
    }

    fn place(&self, tensor: &StoredTensor) -> Result<(&HostFile, Range<usize>)> {
        let range = usize::try_from(tensor.offset).ok().zip(usize::try_from(tensor.byte_len).ok());
        let range = range.and_then(|(start, len)| Some(start..start.checked_add(len)?));
        let place = self.hosts.get(tensor.file).zip(range).filter(|(host, range)| range.end <= host.bytes().len());
        let outside = || FormatError::InvalidArgument {
            operation: "tensor data",
            message: format!("tensor `{}` lies outside its file", tensor.name),
        };
        Ok(place.ok_or_else(outside)?)
    }

    /// The files as the device sees them: mapped where it shares the host's memory, in parts where it has no buffer
    /// for all of a file.
    pub(crate) fn map(&self, device: &MlxDevice) -> Result<Vec<MappedFile>> {
        let mut largest = vec![0; self.paths.len()];
        for tensor in self.tensors() {
            largest[tensor.file] = tensor.byte_len.max(largest[tensor.file]);
        }
        let files = self.paths.iter().zip(largest);
        Ok(files.map(|(path, largest)| device.map_file_in_parts(path, largest)).collect::<anymlx::Result<_>>()?)
    }
}

fn from_gguf(tensor: &anymlx_formats::gguf::SplitTensor) -> StoredTensor {
    let info = &tensor.info;
    StoredTensor {
        name: info.name.clone(),
        shape: info.shape_row_major(),
        type_name: info.tensor_type.to_string(),
        encoding: Some(info.tensor_type),
        file: tensor.file,
        offset: info.offset,
        byte_len: info.byte_len,
    }
}

fn from_safetensors(tensor: &anymlx_formats::safetensors::ShardedTensor) -> StoredTensor {
    let info = &tensor.info;
    StoredTensor {
        name: info.name.clone(),
        shape: info.shape.clone(),
        type_name: info.stored.to_string(),
        encoding: info.stored.dtype().map(TensorType::Dense),
        file: tensor.file,
        offset: info.offset,
        byte_len: info.byte_len,
    }
}
