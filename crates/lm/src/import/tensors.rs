//! Tensors under the names, in the order of rows and in the types of GGUF files.

use std::{collections::HashSet, io};

use anymlx::ops::{RopeLayout, RopeScaling};
use anymlx_formats::{DType, TensorType, quant};

use super::OPERATION;
use crate::{
    Checkpoint, LmError, Result,
    checkpoint::{Folder, LayerPart, Names, Part, StoredTensor},
    config::ModelConfig,
    quantize::Recipe,
};

/// Parts of a layer in the order of files by llama.cpp's converter.
const LAYER_PARTS: [LayerPart; 13] = [
    LayerPart::AttentionNorm,
    LayerPart::Query,
    LayerPart::QueryNorm,
    LayerPart::Key,
    LayerPart::KeyNorm,
    LayerPart::Value,
    LayerPart::AttentionOutput,
    LayerPart::AttentionPostNorm,
    LayerPart::FeedForwardNorm,
    LayerPart::Gate,
    LayerPart::Up,
    LayerPart::Down,
    LayerPart::FeedForwardPostNorm,
];

/// One tensor on its way.
#[derive(Debug)]
pub(super) struct Imported<'a> {
    pub(super) name: String,
    /// Extents, innermost first.
    pub(super) shape: Vec<u64>,
    pub(super) to: DType,
    source: Source<'a>,
}

#[derive(Debug)]
enum Source<'a> {
    Stored {
        from: DType,
        data: &'a [u8],
        change: Change,
    },
    /// Values that the folder has in its configuration.
    Computed(Vec<f32>),
}

/// What is done to the elements besides their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// The two halves of a head become neighbouring rows.
    Permute {
        head_dim: usize,
    },
    /// `transformers` stores norm weights of this architecture less one.
    PlusOne,
}

impl Change {
    /// Row of the source that becomes row `row`.
    fn source_row(self, row: usize) -> usize {
        match self {
            Change::Permute { head_dim } => {
                let (head, within) = (row / head_dim * head_dim, row % head_dim);
                head + within % 2 * (head_dim / 2) + within / 2
            }
            Change::None | Change::PlusOne => row,
        }
    }
}

impl Imported<'_> {
    /// Bytes in the folder.
    pub(super) fn source_bytes(&self) -> u64 {
        match &self.source {
            Source::Stored { data, .. } => data.len() as u64,
            Source::Computed(_) => 0,
        }
    }

    /// The elements in the new order and type.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let (from, data, change) = match &self.source {
            Source::Stored { from, data, change } => (*from, *data, *change),
            Source::Computed(values) => return Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        };
        let rows = self.shape.last().map_or(1, |&rows| rows as usize).max(1);
        let ordered: Vec<u8> = match change {
            Change::Permute { .. } => {
                let row_bytes = data.len() / rows;
                let order = (0..rows).map(|row| change.source_row(row));
                order.flat_map(|row| &data[row * row_bytes..][..row_bytes]).copied().collect()
            }
            Change::None | Change::PlusOne => data.to_vec(),
        };
        if from == self.to && change != Change::PlusOne {
            return Ok(ordered);
        }
        let mut values = vec![0.0; ordered.len() / from.size_of()];
        quant::dequantize(TensorType::Dense(from), &ordered, &mut values).map_err(io::Error::other)?;
        if change == Change::PlusOne {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        let mut bytes = vec![0; values.len() * self.to.size_of()];
        quant::quantize(self.to, &values, &mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// All tensors of a folder.
pub(super) fn imported<'a>(
    checkpoint: &'a Checkpoint,
    folder: &Folder,
    config: &ModelConfig,
) -> Result<Vec<Imported<'a>>> {
    let names = folder.names(config.post_norms);
    let mut parts = vec![Part::Embedding, Part::OutputNorm, Part::Output];
    let has = |part: &LayerPart| match part {
        LayerPart::AttentionPostNorm | LayerPart::FeedForwardPostNorm => config.post_norms,
        LayerPart::QueryNorm | LayerPart::KeyNorm => config.query_key_norm,
        _ => true,
    };
    for layer in 0..config.layers.len() {
        parts.extend(LAYER_PARTS.into_iter().filter(has).map(|part| Part::Layer(layer, part)));
    }
    let mut used = HashSet::new();
    let mut tensors = Vec::new();
    for part in parts {
        for kind in ["weight", "bias"] {
            let Some(stored) = checkpoint.tensor(&format!("{}.{kind}", names.of(part))) else { continue };
            used.insert(stored.name.clone());
            let name = format!("{}.{kind}", Names::Gguf.of(part));
            tensors.push(stored_tensor(checkpoint, &stored, name, change_of(config, part, kind))?);
        }
    }
    if let RopeScaling::Factors(factors) = &config.rope_global.scaling {
        tensors.push(Imported {
            name: "rope_freqs.weight".to_owned(),
            shape: vec![factors.len() as u64],
            to: DType::F32,
            source: Source::Computed(factors.clone()),
        });
    }
    // Old files hold the frequencies, which follow from the configuration.
    let unknown =
        checkpoint.tensors().into_iter().find(|t| !used.contains(&t.name) && !t.name.ends_with("rotary_emb.inv_freq"));
    match unknown {
        Some(tensor) => Err(LmError::InvalidModel(format!(
            "tensor `{}` has no name among those of `{}` in GGUF",
            tensor.name, config.architecture
        ))),
        None => Ok(tensors),
    }
}

fn change_of(config: &ModelConfig, part: Part, kind: &str) -> Change {
    match part {
        Part::Layer(_, LayerPart::Query | LayerPart::Key)
            if config.architecture == "llama" && config.rope_layout == RopeLayout::NeoX =>
        {
            Change::Permute { head_dim: config.head_dim }
        }
        Part::OutputNorm
        | Part::Layer(
            _,
            LayerPart::AttentionNorm
            | LayerPart::QueryNorm
            | LayerPart::KeyNorm
            | LayerPart::AttentionPostNorm
            | LayerPart::FeedForwardNorm
            | LayerPart::FeedForwardPostNorm,
        ) if config.norm_weight_offset != 0.0 && kind == "weight" => Change::PlusOne,
        _ => Change::None,
    }
}

fn stored_tensor<'a>(
    checkpoint: &'a Checkpoint,
    stored: &StoredTensor,
    name: String,
    change: Change,
) -> Result<Imported<'a>> {
    let from = match stored.require_encoding()? {
        TensorType::Dense(dtype @ (DType::F32 | DType::F16 | DType::BF16)) => dtype,
        other => {
            let message = format!("tensor `{}` is {other}, needed F32, F16 or BF16", stored.name);
            return Err(LmError::invalid(OPERATION, message));
        }
    };
    let shape: Vec<u64> = stored.shape.iter().rev().copied().collect();
    if let Change::Permute { head_dim } = change
        && (head_dim == 0 || !stored.shape.first().is_some_and(|rows| rows.is_multiple_of(head_dim as u64)))
    {
        let message = format!("tensor `{}` is {:?}, needed whole heads of {head_dim} rows", stored.name, stored.shape);
        return Err(LmError::InvalidModel(message));
    }
    let to = if shape.len() > 1 { from } else { DType::F32 };
    Ok(Imported { name, shape, to, source: Source::Stored { from, data: checkpoint.data(stored)?, change } })
}

/// `general.file_type` after the type that most elements have.
pub(super) fn file_type(tensors: &[Imported<'_>]) -> u32 {
    let elements = |dtype: DType| {
        let of_type = tensors.iter().filter(|tensor| tensor.to == dtype);
        of_type.map(|tensor| tensor.shape.iter().product::<u64>()).sum::<u64>()
    };
    let types = [(DType::F32, Recipe::F32), (DType::F16, Recipe::F16), (DType::BF16, Recipe::BF16)];
    types.into_iter().max_by_key(|(dtype, _)| elements(*dtype)).map_or(0, |(_, recipe)| recipe.file_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_become_neighbours() {
        let change = Change::Permute { head_dim: 6 };
        let order: Vec<usize> = (0..12).map(|row| change.source_row(row)).collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
