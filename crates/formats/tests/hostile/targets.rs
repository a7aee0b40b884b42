//! What is done with hostile input, here and in the fuzzer: read it with bounded memory, and if it is accepted, check that what it
//! says is consistent.

use anymlx_formats::FormatError;
use anymlx_formats::gguf::{Gguf, GgufWriter, SplitGguf, SplitPart};
use anymlx_formats::mlx::QuantizationConfig;
use anymlx_formats::safetensors::{Safetensors, ShardIndex, ShardedSafetensors};

use crate::allocation::{Budget, bounded};

/// What became of an input.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    pub accepted: bool,
    /// Peak of memory per byte of input.
    pub peak: f64,
}

/// A check of one input.
pub type Target = fn(&[u8]) -> Verdict;

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("gguf", gguf),
    ("gguf_split", gguf_split),
    ("safetensors", safetensors),
    ("safetensors_shards", safetensors_shards),
    ("safetensors_index", safetensors_index),
    ("mlx_config", mlx_config),
];

fn judge<T>(input_len: usize, read: impl FnOnce() -> Result<T, FormatError>, check: impl FnOnce(&T)) -> Verdict {
    let (result, peak) = bounded(Budget::HEADER, input_len, read);
    match &result {
        Ok(accepted) => check(accepted),
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && !message.contains('\n'), "the message is one line: {message}");
        }
    }
    Verdict { accepted: result.is_ok(), peak }
}

/// A whole GGUF file.
pub fn gguf(file: &[u8]) -> Verdict {
    judge(
        file.len(),
        || Gguf::parse(file),
        |gguf| {
            let once = rewrite(gguf, file);
            let again = Gguf::parse(&once).expect("what was written is read");
            // Metadata is compared as bytes: it may hold NaN.
            assert_eq!(rewrite(&again, &once), once);
            for tensor in &gguf.tensors {
                let found = again.require_tensor(&tensor.name).expect("the tensor was written");
                assert_eq!((&found.shape, found.tensor_type), (&tensor.shape, tensor.tensor_type));
                assert_eq!(found.data(&once).unwrap(), tensor.data(file).unwrap());
                assert_eq!(tensor.element_count(), tensor.row_len() * tensor.rows());
            }
        },
    )
}

fn rewrite(gguf: &Gguf, file: &[u8]) -> Vec<u8> {
    let mut writer = GgufWriter::new().metadata_from(&gguf.metadata);
    for tensor in &gguf.tensors {
        let data = tensor.data(file).expect("tensors lie in the file");
        writer = writer.tensor(tensor.name.as_str(), &tensor.shape, tensor.tensor_type, data);
    }
    let mut out = Vec::new();
    writer.write_to(&mut out).expect("what was read can be written");
    out
}

/// Several inputs in one: a count of at most four, that many lengths of 16 bits, the inputs.
fn several(input: &[u8]) -> Vec<&[u8]> {
    let Some((&count, mut rest)) = input.split_first() else { return Vec::new() };
    let mut lengths = Vec::new();
    for _ in 0..count.min(4) {
        let Some((length, after)) = rest.split_first_chunk() else { break };
        lengths.push(usize::from(u16::from_le_bytes(*length)));
        rest = after;
    }
    let mut inputs = Vec::new();
    for length in lengths {
        let (input, after) = rest.split_at(length.min(rest.len()));
        inputs.push(input);
        rest = after;
    }
    inputs
}

/// The parts of one model, see [`several`].
pub fn gguf_split(input: &[u8]) -> Verdict {
    let files = several(input);
    judge(
        input.len(),
        || SplitGguf::parse(&files),
        |model| {
            assert_eq!(model.file_count(), files.len());
            for tensor in &model.tensors {
                assert_eq!(model.require_tensor(&tensor.info.name), Ok(tensor));
                tensor.info.data(files[tensor.file]).expect("tensors lie in their file");
            }
            for (index, file) in files.iter().enumerate() {
                let part = SplitPart::of(&Gguf::parse(file).unwrap().metadata).unwrap();
                assert!(part.is_none_or(|part| (part.number, part.count) == (index, files.len())));
            }
        },
    )
}

/// A safetensors file. An even first byte is followed by the whole file; an odd one by the length of the data and the JSON of the
/// header, so that a fuzzer need not keep the header's length right.
pub fn safetensors(input: &[u8]) -> Verdict {
    let assembled;
    let file = match input {
        [mode, rest @ ..] if mode % 2 == 0 => rest,
        [_, data, json @ ..] => {
            let data = vec![0; usize::from(*data)];
            assembled = [&(json.len() as u64).to_le_bytes(), json, &data].concat();
            &assembled
        }
        rest => rest,
    };
    judge(file.len(), || Safetensors::parse(file), |parsed| check_safetensors(parsed, file))
}

fn check_safetensors(parsed: &Safetensors, file: &[u8]) {
    let mut bytes = 0;
    for tensor in &parsed.tensors {
        assert_eq!(parsed.require_tensor(&tensor.name), Ok(tensor));
        let data = tensor.data(file).expect("tensors lie in the file");
        assert_eq!(tensor.stored.byte_len(tensor.element_count()), Some(data.len() as u64));
        bytes += data.len();
    }
    let header = u64::from_le_bytes(*file.first_chunk().expect("a file has a length"));
    assert_eq!(8 + header + bytes as u64, file.len() as u64, "tensors cover the data");
}

/// An index and its shards, see [`several`].
pub fn safetensors_shards(input: &[u8]) -> Verdict {
    let inputs = several(input);
    let read = || {
        let Some((index, files)) = inputs.split_first() else { return ShardIndex::parse(&[]).map(|_| None) };
        let index = ShardIndex::parse(index)?;
        let shards = files.iter().map(|file| Safetensors::parse(file)).collect::<Result<Vec<_>, _>>()?;
        ShardedSafetensors::join(&index, &shards).map(|joined| Some((index, joined)))
    };
    judge(input.len(), read, |joined| {
        let (index, joined) = joined.as_ref().expect("an empty index is no index");
        assert_eq!((joined.tensors.len(), joined.file_count()), (index.tensors.len(), index.files.len()));
        for tensor in &joined.tensors {
            assert_eq!(joined.require_tensor(&tensor.info.name), Ok(tensor));
            tensor.info.data(inputs[1 + tensor.file]).expect("tensors lie in their shard");
        }
    })
}

/// An index.
pub fn safetensors_index(input: &[u8]) -> Verdict {
    judge(
        input.len(),
        || ShardIndex::parse(input),
        |index| {
            assert!(index.files.iter().all(|file| std::path::Path::new(file).file_name() == Some(file.as_ref())));
            assert!(index.files.is_sorted_by(|a, b| a < b));
            assert!(index.tensors.is_sorted_by(|a, b| a.0 < b.0));
            assert!(index.tensors.iter().all(|(_, file)| *file < index.files.len()));
        },
    )
}

/// A `config.json`.
pub fn mlx_config(input: &[u8]) -> Verdict {
    judge(
        input.len(),
        || QuantizationConfig::parse(input),
        |config| {
            let Some(config) = config else { return };
            for (layer, layout) in config.overrides() {
                assert_eq!(config.layer(layer), layout);
            }
            let columns = u64::from(config.default.group_size());
            assert_eq!(config.default.columns(config.default.packed_words(columns).unwrap()), Ok(columns));
        },
    )
}
