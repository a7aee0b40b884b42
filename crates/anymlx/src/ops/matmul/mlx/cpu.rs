//! One item is [`ROWS`] weight rows times a block of tokens.

use anymlx_formats::{DType, quant::TensorType};
use bytemuck::{Pod, Zeroable};

use super::{LayoutNumbers, unpack::Source};
use crate::{
    CpuLevel, Invocation, KernelResult,
    ops::{
        lanes::{LaneKernel, Lanes},
        matmul::{
            cpu::add_terms,
            dense,
            part::{Part, QuantizedTokens, ROWS, Sums},
            quantized::{plain_method, unpacked},
            select::{MAX_TERMS, MAX_TOKEN_BLOCK},
        },
        quantize_activations::QuantizedLayout,
    },
};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Block {
    pub(super) tokens: u32,
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) layout: LayoutNumbers,
    pub(super) quantized_input: u32,
    /// Rows of 8-bit activations that make one token.
    pub(super) terms: u32,
    pub(super) level: u32,
    pub(super) tiled: u32,
    pub(super) token_block: u32,
}

pub(super) struct MlxMatmul;

// SAFETY: item `i` writes, of the output binding, the elements whose row is in the item's token block and whose column
// is among the item's weight rows. Items do not share such pairs.
unsafe impl LaneKernel for MlxMatmul {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let block: Block = invocation.params();
        let (tokens, rows, columns) = (block.tokens as usize, block.rows as usize, block.columns as usize);
        let level = CpuLevel::ALL.into_iter().find(|level| *level as u32 == block.level).ok_or("unknown level")?;
        let matrix = block.layout.layout()?;
        let source = Source {
            packed: invocation.input(1),
            scales: invocation.input(2),
            biases: invocation.input(3),
            scale_type: matrix.scales(),
            mode: matrix.quantization().mode(),
            bits: matrix.quantization().bits() as usize,
            group: matrix.group_len(),
            columns,
        };
        let bias = if invocation.binding_count() > 5 { Some(invocation.input::<f32>(5)) } else { None };
        let tiled = block.tiled != 0;
        let terms = (block.terms as usize).clamp(1, MAX_TERMS);
        let token_block = (block.token_block as usize).clamp(1, MAX_TOKEN_BLOCK / terms);
        let batches = rows.div_ceil(ROWS);
        let mut sums = [[0.0; ROWS]; MAX_TOKEN_BLOCK];
        for item in invocation.items() {
            let first_row = item % batches * ROWS;
            let item_rows = first_row..(first_row + ROWS).min(rows);
            let first_token = item / batches * token_block;
            let item_tokens = first_token..(first_token + token_block).min(tokens);
            let sums = &mut sums[..terms * item_tokens.len()];
            sums.fill([0.0; ROWS]);
            if block.quantized_input == 0 {
                let values = &invocation.input::<f32>(0)[item_tokens.start * columns..item_tokens.end * columns];
                let multiply = dense::method(TensorType::Dense(DType::F32), level, tiled)?;
                unpacked::with_scratch(item_rows.len() * columns, |scratch: &mut [f32]| {
                    for (row, values) in item_rows.clone().zip(scratch.chunks_exact_mut(columns)) {
                        source.values(row, values);
                    }
                    let part = Part { weights: bytemuck::cast_slice(scratch), row_bytes: 4 * columns, columns };
                    // SAFETY: the method was chosen for the device's level, which the processor has.
                    unsafe { multiply(&part, values, sums) };
                });
            } else {
                let layout = QuantizedLayout::new(columns).ok_or("columns are no multiple of 32")?;
                let token_bytes = layout.row_bytes * terms;
                let bytes = &invocation.input::<u8>(0)[item_tokens.start * token_bytes..item_tokens.end * token_bytes];
                // Rows that make one token are multiplied apart and added below.
                let tokens = QuantizedTokens { bytes, layout, terms: 1 };
                // SAFETY: the method was chosen for the device's level, which the processor has.
                unsafe { multiply_integers(&source, (first_row, item_rows.len()), (level, tiled), &tokens, sums) };
            }
            if terms > 1 {
                add_terms(sums, terms);
            }
            for (token, sums) in item_tokens.zip(sums.iter()) {
                let start = token * rows;
                // SAFETY: elements of this item.
                let results = unsafe { invocation.output::<f32>(4, start + item_rows.start..start + item_rows.end) };
                let sums = &sums[..results.len()];
                match bias {
                    None => results.copy_from_slice(sums),
                    Some(bias) => {
                        for ((result, sum), bias) in results.iter_mut().zip(sums).zip(&bias[item_rows.clone()]) {
                            *result = sum + bias;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Products with 8-bit activations.
///
/// # Safety
/// The processor has the level.
#[inline(always)]
unsafe fn multiply_integers(
    source: &Source<'_>,
    (first_row, rows): (usize, usize),
    (level, tiled): (CpuLevel, bool),
    tokens: &QuantizedTokens<'_>,
    sums: &mut [Sums],
) {
    // SAFETY: as the caller vouches.
    unsafe {
        if source.group == 16 {
            let fill = |row, unpacked: &mut [_]| source.integers::<2>(first_row + row, unpacked);
            unpacked::multiply_rows::<2>(
                rows,
                source.columns,
                tiled,
                plain_method::<2>(level, tiled),
                tokens,
                sums,
                fill,
            );
        } else {
            let fill = |row, unpacked: &mut [_]| source.integers::<1>(first_row + row, unpacked);
            unpacked::multiply_rows::<1>(
                rows,
                source.columns,
                tiled,
                plain_method::<1>(level, tiled),
                tokens,
                sums,
                fill,
            );
        }
    }
}
