//! One item is [`ROWS`] weight rows times a block of tokens.

use std::ops::Range;

use anymlx_formats::quant::TensorType;
use bytemuck::{Pod, Zeroable};

use super::{
    dense,
    part::{MultiplyQuantized, MultiplyValues, Part, QuantizedTokens, ROWS, Sums, Tokens},
    quantized,
    select::{MAX_TERMS, MAX_TOKEN_BLOCK},
};
use crate::{
    CpuLevel, Invocation, KernelFault, KernelResult,
    ops::{
        Activation,
        gated_activation::cpu as gated_activation,
        lanes::{LaneKernel, Lanes},
        quantize_activations::QuantizedLayout,
    },
};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(in crate::ops) struct Block {
    pub(super) tokens: u32,
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) encodings: [u32; 2],
    pub(super) quantized_input: u32,
    /// Rows of 8-bit activations that make one token.
    pub(super) terms: u32,
    pub(super) level: u32,
    pub(super) tiled: u32,
    pub(super) token_block: u32,
    pub(super) epilogue: u32,
}

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Epilogue {
    /// One matrix; the fourth binding, if there is one, is added.
    Bias,
    /// Two matrices: `activation(first) * second`.
    Gate(Activation),
}

impl Epilogue {
    pub(super) fn number(self) -> u32 {
        match self {
            Epilogue::Bias => 0,
            Epilogue::Gate(activation) => 1 + activation as u32,
        }
    }

    fn from_number(number: u32) -> Result<Self, KernelFault> {
        match number.checked_sub(1) {
            None => Ok(Epilogue::Bias),
            Some(activation) => Ok(Epilogue::Gate(gated_activation::activation(activation)?)),
        }
    }
}

/// How the sums of one matrix are computed.
#[derive(Clone, Copy)]
enum Method {
    Quantized(MultiplyQuantized),
    Values(MultiplyValues),
}

/// One weight matrix.
struct Matrix<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    columns: usize,
    method: Method,
}

impl<'a> Matrix<'a> {
    fn new(bytes: &'a [u8], encoding: u32, block: &Block) -> Result<Self, KernelFault> {
        let encoding = TensorType::from_ggml_id(encoding).ok_or_else(|| format!("encoding {encoding} is unknown"))?;
        let level = CpuLevel::ALL.into_iter().find(|level| *level as u32 == block.level).ok_or("unknown level")?;
        let tiled = block.tiled != 0;
        let method = match encoding {
            TensorType::Quantized(quant) if block.quantized_input != 0 => {
                Method::Quantized(quantized::method(quant, level, tiled)?)
            }
            _ => Method::Values(dense::method(encoding, level, tiled)?),
        };
        let columns = block.columns as usize;
        Ok(Self { bytes, row_bytes: columns / encoding.block_len() * encoding.block_bytes(), columns, method })
    }

    fn multiply(&self, rows: Range<usize>, tokens: Tokens<'a>, sums: &mut [Sums]) {
        let part = Part {
            weights: &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes],
            row_bytes: self.row_bytes,
            columns: self.columns,
        };
        sums.fill([0.0; ROWS]);
        // SAFETY: the method was chosen for the device's level, which the processor has.
        unsafe {
            match (self.method, tokens) {
                (Method::Quantized(multiply), Tokens::Quantized(tokens)) => multiply(&part, &tokens, sums),
                (Method::Values(multiply), Tokens::Values(values)) => multiply(&part, values, sums),
                _ => unreachable!("methods and tokens both follow from `quantized_input`"),
            }
        }
    }
}

pub(super) struct Matmul;

// SAFETY: item `i` writes, of the output binding, the elements whose row is in the item's token block and whose column
// is among the item's weight rows. Items do not share such pairs.
unsafe impl LaneKernel for Matmul {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        // Clearing room for many tokens takes longer than multiplying one.
        if block.token_block.saturating_mul(block.terms) <= FEW_TOKENS as u32 {
            run_items::<L, FEW_TOKENS>(invocation, &block)
        } else {
            run_items::<L, MAX_TOKEN_BLOCK>(invocation, &block)
        }
    }
}

/// Tokens whose sums are kept in less room.
const FEW_TOKENS: usize = 8;

/// `N` is at least the tokens of an item, times their terms.
#[inline(always)]
fn run_items<L: Lanes, const N: usize>(invocation: &Invocation<'_>, block: &Block) -> KernelResult {
    let epilogue = Epilogue::from_number(block.epilogue)?;
    let first = Matrix::new(invocation.input(1), block.encodings[0], block)?;
    let (second, output) = match epilogue {
        Epilogue::Bias => (None, 2),
        Epilogue::Gate(_) => (Some(Matrix::new(invocation.input(2), block.encodings[1], block)?), 3),
    };
    let bias = match epilogue {
        Epilogue::Bias if invocation.binding_count() > 3 => Some(invocation.input::<f32>(3)),
        _ => None,
    };
    let (tokens, rows) = (block.tokens as usize, block.rows as usize);
    let (results, len) = invocation.output_pointer::<f32>(output);
    assert!(tokens.checked_mul(rows).is_some_and(|needed| needed <= len), "{tokens} x {rows} results of {len}");
    let terms = (block.terms as usize).clamp(1, MAX_TERMS);
    let token_block = (block.token_block as usize).clamp(1, MAX_TOKEN_BLOCK / terms);
    let batches = rows.div_ceil(ROWS);
    let mut sums = [[0.0; ROWS]; N];
    let mut second_sums = [[0.0; ROWS]; N];
    for item in invocation.items() {
        let first_row = item % batches * ROWS;
        let item_rows = first_row..(first_row + ROWS).min(rows);
        let first_token = item / batches * token_block;
        let item_tokens = first_token..(first_token + token_block).min(tokens);
        let input = input_rows(invocation, block, item_tokens.clone())?;
        let sums = &mut sums[..terms * item_tokens.len()];
        first.multiply(item_rows.clone(), input, sums);
        let second_sums = &mut second_sums[..terms * item_tokens.len()];
        if let Some(second) = &second {
            second.multiply(item_rows.clone(), input, second_sums);
        }
        if terms > 1 {
            add_terms(sums, terms);
            add_terms(second_sums, terms);
        }
        for ((token, sums), second_sums) in item_tokens.zip(sums).zip(second_sums) {
            // SAFETY: elements of this item, within the binding, as its tokens and rows are.
            let results =
                unsafe { std::slice::from_raw_parts_mut(results.add(token * rows + item_rows.start), item_rows.len()) };
            let sums = &sums[..results.len()];
            match (epilogue, bias) {
                // Of a length known here: a few instructions in place of a call.
                (Epilogue::Bias, None) if results.len() == ROWS => results[..ROWS].copy_from_slice(&sums[..ROWS]),
                (Epilogue::Bias, None) => results.copy_from_slice(sums),
                (Epilogue::Bias, Some(bias)) => {
                    for ((result, sum), bias) in results.iter_mut().zip(sums).zip(&bias[item_rows.clone()]) {
                        *result = sum + bias;
                    }
                }
                (Epilogue::Gate(activation), _) => {
                    gated_activation::apply::<L>(activation, sums, &second_sums[..results.len()], results);
                }
            }
        }
    }
    Ok(())
}

/// Adds up the products of each token's rows, in its own place.
#[inline(always)]
pub(super) fn add_terms(sums: &mut [Sums], terms: usize) {
    for token in 0..sums.len() / terms {
        let mut total = sums[token * terms];
        for term in &sums[token * terms + 1..(token + 1) * terms] {
            total.iter_mut().zip(term).for_each(|(total, term)| *total += term);
        }
        sums[token] = total;
    }
}

/// The input of a block of tokens.
#[inline(always)]
fn input_rows<'a>(invocation: &Invocation<'a>, block: &Block, tokens: Range<usize>) -> Result<Tokens<'a>, KernelFault> {
    let columns = block.columns as usize;
    if block.quantized_input == 0 {
        let values = invocation.input::<f32>(0);
        return Ok(Tokens::Values(&values[tokens.start * columns..tokens.end * columns]));
    }
    let layout = QuantizedLayout::new(columns).ok_or("columns are no multiple of 32")?;
    let bytes = invocation.input::<u8>(0);
    let terms = (block.terms as usize).clamp(1, MAX_TERMS);
    let token_bytes = layout.row_bytes * terms;
    let bytes = &bytes[tokens.start * token_bytes..tokens.end * token_bytes];
    Ok(Tokens::Quantized(QuantizedTokens { bytes, layout, terms }))
}
