//! Models in several files: `name-00001-of-00003.gguf` and its siblings.
//!
//! Every part is a whole GGUF file with the keys `split.no` (counted from 0), `split.count` and `split.tensors.count`. The
//! first holds the metadata, each holds some of the tensors. Source: `llama_split_path` in
//! <https://github.com/ggml-org/llama.cpp/blob/master/src/llama.cpp> and `tools/gguf-split`.

use std::path::{Path, PathBuf};

use super::cursor::{malformed, within};
use super::{Gguf, Metadata, TensorInfo};
use crate::{FormatError, nearest};

const NUMBER_KEY: &str = "split.no";

const COUNT_KEY: &str = "split.count";

const TENSORS_KEY: &str = "split.tensors.count";

/// Digits of both numbers in a file name.
const DIGITS: usize = 5;

/// Files in one model: ggml keeps the count in 16 bits.
const MAX_PARTS: u64 = u16::MAX as u64;

/// What one file says about the model that it is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitPart {
    /// Place of this file, counted from 0, below `count`.
    pub number: usize,
    /// Files of the model, at least 1.
    pub count: usize,
    /// Tensors in all files together, where the file tells.
    pub tensors: Option<u64>,
}

impl SplitPart {
    /// Reads the `split.*` keys; `None` for a file that is a model by itself.
    ///
    /// # Errors
    /// When a key has another type than an integer, `split.count` passes 65535, `split.no` is not below it or one of the
    /// two comes without the other. As in llama.cpp, a count of 0 means that the file is not split.
    pub fn of(metadata: &Metadata) -> Result<Option<SplitPart>, FormatError> {
        let count = match (metadata.u64(NUMBER_KEY)?, metadata.u64(COUNT_KEY)?) {
            (_, Some(0)) | (None, None) => return Ok(None),
            (Some(_), None) => return Err(malformed(format!("`{NUMBER_KEY}` comes without `{COUNT_KEY}`"))),
            (None, Some(_)) => return Err(malformed(format!("`{COUNT_KEY}` comes without `{NUMBER_KEY}`"))),
            (Some(number), Some(count)) if count <= MAX_PARTS && number < count => count as usize,
            (Some(number), Some(count)) => {
                return Err(malformed(format!(
                    "`{NUMBER_KEY}` is {number} and `{COUNT_KEY}` is {count}, a number below the count and a count of at most \
                     {MAX_PARTS} are needed"
                )));
            }
        };
        let number = metadata.require_u64(NUMBER_KEY)? as usize;
        Ok(Some(SplitPart { number, count, tensors: metadata.u64(TENSORS_KEY)? }))
    }
}

/// All files of the model that `path` belongs to, in order; `path` itself where its name is not that of a part.
///
/// The name of any part will do. Nothing is opened: the files may or may not be there.
///
/// ```
/// let files = anymlx_formats::gguf::sibling_paths("models/big-00001-of-00002.gguf".as_ref());
/// assert_eq!(files[1].to_str(), Some("models/big-00002-of-00002.gguf"));
/// ```
pub fn sibling_paths(path: &Path) -> Vec<PathBuf> {
    match path.file_name().and_then(|name| name.to_str()).and_then(parse_name) {
        Some((prefix, count)) => (1..=count)
            .map(|number| path.with_file_name(format!("{prefix}-{number:0DIGITS$}-of-{count:0DIGITS$}.gguf")))
            .collect(),
        None => vec![path.to_owned()],
    }
}

/// Prefix and count of `{prefix}-{number}-of-{count}.gguf`.
fn parse_name(name: &str) -> Option<(&str, u64)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let number_of = |digits: &str| {
        (digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
    };
    let (number, count): (u64, u64) = (number_of(number)?, number_of(count)?);
    ((1..=count).contains(&number) && count <= MAX_PARTS).then_some((prefix, count))
}

/// A tensor and the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitTensor {
    /// Index of the file in the order of the parts.
    pub file: usize,
    /// Description; its offset counts from the beginning of that file.
    pub info: TensorInfo,
}

/// One model over one or several files.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitGguf {
    /// Key-value pairs of the first file.
    pub metadata: Metadata,
    /// Tensors of all files, in order of file and place in it.
    pub tensors: Vec<SplitTensor>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<usize>,
    files: usize,
}

impl SplitGguf {
    /// Reads the headers of all parts of a model, or of a single file that is not split.
    ///
    /// `files` are whole files in the order of the parts, as [`sibling_paths`] gives them.
    ///
    /// # Errors
    /// As [`Gguf::parse`] and [`Self::merge`]; the message names the part.
    pub fn parse(files: &[&[u8]]) -> Result<SplitGguf, FormatError> {
        let parse = |(index, bytes): (usize, &&[u8])| {
            Gguf::parse(bytes).map_err(|error| match files.len() {
                1 => error,
                count => within(error, &part_name(index, count)),
            })
        };
        Self::merge(files.iter().enumerate().map(parse).collect::<Result<_, _>>()?)
    }

    /// Joins the descriptions of all parts, in order.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] when the number of files is not `split.count`, a part has no `split.*` keys, another number,
    /// count or tensor count than its place needs, a tensor appears twice, or the tensors are not as many as
    /// `split.tensors.count`.
    pub fn merge(files: Vec<Gguf>) -> Result<SplitGguf, FormatError> {
        let Some(first) = files.first() else {
            return Err(FormatError::InvalidArgument {
                operation: "gguf: join parts",
                message: "no file given, at least one is needed".to_owned(),
            });
        };
        let expected = match SplitPart::of(&first.metadata)? {
            Some(part) => SplitPart { number: 0, ..part },
            None => SplitPart { number: 0, count: 1, tensors: None },
        };
        if files.len() != expected.count {
            return Err(malformed(format!(
                "{} files given of a model in {}, all are needed",
                files.len(),
                expected.count
            )));
        }
        for (index, file) in files.iter().enumerate() {
            check_part(SplitPart::of(&file.metadata)?, SplitPart { number: index, ..expected })
                .map_err(|message| malformed(format!("{}: {message}", part_name(index, files.len()))))?;
        }
        let count = files.len();
        let mut metadata = Metadata::new();
        let mut tensors = Vec::new();
        for (index, file) in files.into_iter().enumerate() {
            if index == 0 {
                metadata = file.metadata;
            }
            tensors.reserve(file.tensors.len());
            tensors.extend(file.tensors.into_iter().map(|info| SplitTensor { file: index, info }));
        }
        if let Some(announced) = expected.tensors
            && announced != tensors.len() as u64
        {
            return Err(malformed(format!(
                "`{TENSORS_KEY}` is {announced}, the {count} files hold {} tensors",
                tensors.len()
            )));
        }
        let mut by_name: Vec<usize> = (0..tensors.len()).collect();
        by_name.sort_unstable_by(|&a, &b| tensors[a].info.name.cmp(&tensors[b].info.name));
        for pair in by_name.windows(2) {
            let [a, b] = [&tensors[pair[0]], &tensors[pair[1]]];
            if a.info.name == b.info.name {
                let (low, high) = (a.file.min(b.file) + 1, a.file.max(b.file) + 1);
                return Err(malformed(format!("tensor `{}` appears in parts {low} and {high}", a.info.name)));
            }
        }
        Ok(SplitGguf { metadata, tensors, by_name, files: count })
    }

    /// Number of files.
    pub fn file_count(&self) -> usize {
        self.files
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&SplitTensor> {
        let found = self.by_name.binary_search_by(|&index| self.tensors[index].info.name.as_str().cmp(name)).ok()?;
        self.tensors.get(self.by_name[found])
    }

    /// As [`Self::tensor`]; absence is an error.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`] with the nearest name that is there.
    pub fn require_tensor(&self, name: &str) -> Result<&SplitTensor, FormatError> {
        self.tensor(name).ok_or_else(|| FormatError::MissingTensor {
            format: "gguf",
            name: name.to_owned(),
            hint: nearest::hint(name, self.tensors.iter().map(|tensor| tensor.info.name.as_str())),
        })
    }
}

/// `Err` is the rest of a sentence that begins with the part's name.
fn check_part(found: Option<SplitPart>, needed: SplitPart) -> Result<(), String> {
    match found {
        None if needed.count == 1 => Ok(()),
        None => Err(format!("has no `{COUNT_KEY}`, it is a model by itself")),
        Some(found) if found.count != needed.count => {
            Err(format!("`{COUNT_KEY}` is {}, that of the first part is {}", found.count, needed.count))
        }
        Some(found) if found.number != needed.number => {
            Err(format!("`{NUMBER_KEY}` is {}, {} is needed in its place", found.number, needed.number))
        }
        Some(found) if found.tensors != needed.tensors => {
            let show = |tensors: Option<u64>| tensors.map_or("absent".to_owned(), |count| count.to_string());
            Err(format!(
                "`{TENSORS_KEY}` is {}, that of the first part is {}",
                show(found.tensors),
                show(needed.tensors)
            ))
        }
        Some(_) => Ok(()),
    }
}

fn part_name(index: usize, count: usize) -> String {
    format!("part {} of {count}", index + 1)
}
