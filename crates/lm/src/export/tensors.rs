//! Tensors under their new names, in their new order and types.

use std::{
    cell::RefCell,
    io::{self, Write},
    rc::Rc,
};

use anymlx::ops::RopeLayout;
use anymlx_formats::{
    DType, FormatError, TensorType,
    mlx::{self, PackedBytes, Quantization},
    quant,
    safetensors::SafetensorsWriter,
};

use crate::config::ModelConfig;

/// What is done to the elements besides their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Neighbouring rows of a head become its two halves.
    Unpermute {
        head_dim: usize,
    },
    /// GGUF stores norm weights of this architecture with one added.
    MinusOne,
}

impl Change {
    pub(super) fn of(config: &ModelConfig, name: &str) -> Self {
        let rotated = ["attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"];
        if config.rope_layout == RopeLayout::Interleaved && rotated.iter().any(|part| name.ends_with(part)) {
            return Change::Unpermute { head_dim: config.head_dim };
        }
        if config.architecture == "gemma3" && name.ends_with("norm.weight") { Change::MinusOne } else { Change::None }
    }

    /// Row of the source that becomes row `row`.
    fn source_row(self, row: usize) -> usize {
        match self {
            Change::Unpermute { head_dim } => {
                let (head, within, half) = (row / head_dim * head_dim, row % head_dim, head_dim / 2);
                head + within % half * 2 + within / half
            }
            Change::None | Change::MinusOne => row,
        }
    }
}

/// The new name of a tensor of a GGUF file.
pub(super) fn name(gguf: &str, post_norms: bool) -> Option<String> {
    let (stem, kind) = gguf.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    let plain = match stem {
        "token_embd" => Some("model.embed_tokens"),
        "output_norm" => Some("model.norm"),
        "output" => Some("lm_head"),
        _ => None,
    };
    if let Some(plain) = plain {
        return Some(format!("{plain}.{kind}"));
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "post_attention_norm" => "post_attention_layernorm",
        "ffn_norm" if post_norms => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "post_ffw_norm" => "post_feedforward_layernorm",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

/// One tensor on its way.
#[derive(Debug, Clone)]
pub(super) struct Converted<'a> {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) from: TensorType,
    /// Rows and columns; a vector is one row, or one element for each row where rows change their order.
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) matrix: bool,
    pub(super) data: &'a [u8],
    pub(super) change: Change,
    /// Type of the elements, or of scales and biases.
    pub(super) to: DType,
    pub(super) packing: Option<Quantization>,
}

impl Converted<'_> {
    /// Adds what the tensor becomes: itself, or codes, scales and biases.
    pub(super) fn add_to<'w>(
        &'w self,
        writer: SafetensorsWriter<'w>,
        threads: usize,
        done: &'w (dyn Fn(u64) + Sync),
    ) -> SafetensorsWriter<'w> {
        let shape = if self.matrix { vec![self.rows as u64, self.columns as u64] } else { vec![self.columns as u64] };
        let Some(quantization) = self.packing else {
            return writer.tensor_with(self.name.as_str(), &shape, self.to, move |out| {
                out.write_all(&self.dense().map_err(io::Error::other)?)?;
                done(self.data.len() as u64);
                Ok(())
            });
        };
        let rows = self.rows as u64;
        // The plan has checked that rows are whole groups.
        let words = quantization.packed_words(self.columns as u64).unwrap_or_default();
        let groups = quantization.groups(self.columns as u64).unwrap_or_default();
        let stem = self.name.strip_suffix(".weight").unwrap_or(&self.name);
        // Packed once, by whichever of the three is written first.
        let packed: Rc<RefCell<Option<PackedBytes>>> = Rc::default();
        let part = move |packed: Rc<RefCell<Option<PackedBytes>>>, pick: fn(&PackedBytes) -> &[u8]| {
            move |out: &mut dyn Write| {
                let mut packed = packed.borrow_mut();
                if packed.is_none() {
                    *packed = Some(self.pack(quantization, threads).map_err(io::Error::other)?);
                    done(self.data.len() as u64);
                }
                out.write_all(packed.as_ref().map(pick).unwrap_or_default())
            }
        };
        writer
            .tensor_with(self.name.as_str(), &[rows, words], DType::U32, part(packed.clone(), |bytes| &bytes.packed))
            .tensor_with(
                format!("{stem}.scales"),
                &[rows, groups],
                self.to,
                part(packed.clone(), |bytes| &bytes.scales),
            )
            .tensor_with(format!("{stem}.biases"), &[rows, groups], self.to, part(packed, |bytes| &bytes.biases))
    }

    /// All elements in the new type.
    fn dense(&self) -> Result<Vec<u8>, FormatError> {
        let (rows, columns) = if self.matrix { (self.rows, self.columns) } else { (self.columns, 1) };
        if self.from == TensorType::Dense(self.to) && self.change != Change::MinusOne {
            let row = columns * self.to.size_of();
            let order = (0..rows).map(|row| self.change.source_row(row));
            return Ok(order.flat_map(|at| &self.data[at * row..(at + 1) * row]).copied().collect());
        }
        let mut values = vec![0.0; rows * columns];
        quant::dequantize(self.from, self.data, &mut values)?;
        if self.change == Change::MinusOne {
            values.iter_mut().for_each(|value| *value -= 1.0);
        }
        let values: Vec<f32> =
            (0..rows).flat_map(|row| &values[self.change.source_row(row) * columns..][..columns]).copied().collect();
        let mut bytes = vec![0; values.len() * self.to.size_of()];
        quant::quantize(self.to, &values, &mut bytes)?;
        Ok(bytes)
    }

    fn pack(&self, quantization: Quantization, threads: usize) -> Result<PackedBytes, FormatError> {
        let part_rows = self.rows.div_ceil(threads.max(1)).max(1);
        let pack = |first: usize| -> Result<PackedBytes, FormatError> {
            let row_bytes = self.data.len() / self.rows;
            let mut values = vec![0.0; self.columns];
            let mut packed = PackedBytes::default();
            for row in first..(first + part_rows).min(self.rows) {
                let source = &self.data[self.change.source_row(row) * row_bytes..][..row_bytes];
                quant::dequantize(self.from, source, &mut values)?;
                mlx::quantize(quantization, self.columns, self.to, &values, &mut packed).map_err(|error| {
                    FormatError::InvalidArgument {
                        operation: "mlx quantise",
                        message: format!("tensor `{}`, row {row}: {error}", self.source),
                    }
                })?;
            }
            Ok(packed)
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.rows).step_by(part_rows).map(|first| scope.spawn(move || pack(first))).collect();
            let mut whole = PackedBytes::default();
            for worker in workers {
                let part = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                whole.packed.extend(part.packed);
                whole.scales.extend(part.scales);
                whole.biases.extend(part.biases);
            }
            Ok(whole)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_head_become_two_halves() {
        let change = Change::Unpermute { head_dim: 6 };
        let order: Vec<usize> = (0..12).map(|row| change.source_row(row)).collect();
        assert_eq!(order, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn names_are_those_of_transformers() {
        for (gguf, post_norms, expected) in [
            ("token_embd.weight", false, "model.embed_tokens.weight"),
            ("blk.11.attn_q.bias", false, "model.layers.11.self_attn.q_proj.bias"),
            ("blk.3.ffn_norm.weight", false, "model.layers.3.post_attention_layernorm.weight"),
            ("blk.3.ffn_norm.weight", true, "model.layers.3.pre_feedforward_layernorm.weight"),
        ] {
            assert_eq!(name(gguf, post_norms).as_deref(), Some(expected));
        }
        assert_eq!(name("rope_freqs.weight", false), None);
        assert_eq!(name("blk.x.attn_q.weight", false), None);
    }
}
