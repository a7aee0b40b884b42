//! Activations rounded to 8 bits in two steps, for about 15 bits in all.

use super::{
    Block, GPU, check_quantized, cpu,
    layout::{GROUP, QuantizedLayout},
};
use crate::{
    CommandEncoder, DType, Invocation, KernelResult, MlxBuffer, Result,
    ops::{
        check::Check,
        lanes::{LaneKernel, Lanes},
        launch::{self, LIGHT_CHUNK},
    },
    read, write,
};

/// As [`quantize_activations`](super::quantize_activations), with two rows of output for each row of input: the 8-bit
/// form, and the 8-bit form of what it leaves over. Products that are given both add them up, and are as good as exact.
/// On CPUs the scales of the second row are those of the first divided by 256.
///
/// Where memory sets the pace, as with a token at a time, the second product costs little.
///
/// # Errors
/// As [`quantize_activations`](super::quantize_activations), with `output` of twice as many rows.
pub fn quantize_activations_refined(encoder: &mut CommandEncoder, input: &MlxBuffer, output: &MlxBuffer) -> Result<()> {
    const OPERATION: &str = "quantize_activations_refined";
    let check = Check::new(OPERATION);
    check.dtype("input", input, &[DType::F32])?;
    let (rows, columns) = check.rows("input", input)?;
    let layout = check_quantized(check, "output", output, rows.saturating_mul(2), columns)?;
    let block = Block::new(check, layout, input)?;
    let kernel = launch::kernel::<Refined>(encoder, OPERATION, DType::F32, GPU)?;
    let launch = launch::rows(check, rows, columns, LIGHT_CHUNK / 2)?;
    encoder.dispatch(&kernel, &[read(input), write(output)], &block, launch)
}

struct Refined;

// SAFETY: item `r` writes the bytes of rows `2 r` and `2 r + 1` of binding 1 and nothing else.
unsafe impl LaneKernel for Refined {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let columns = invocation.params::<Block>().columns as usize;
        let layout = QuantizedLayout::new(columns).ok_or("columns are no multiple of 32")?;
        let input = invocation.input::<f32>(0);
        for row in invocation.items() {
            let bytes = 2 * row * layout.row_bytes..2 * (row + 1) * layout.row_bytes;
            // SAFETY: the bytes of this item.
            let (first, second) = unsafe { invocation.output::<u8>(1, bytes) }.split_at_mut(layout.row_bytes);
            let mut first = layout.split_mut(first);
            let mut second = layout.split_mut(second);
            let (groups, _) = input[row * columns..(row + 1) * columns].as_chunks::<GROUP>();
            for (group, values) in groups.iter().enumerate() {
                let scale = cpu::quantize_group::<L>(values, group, &mut first);
                let mut left = [0.0_f32; GROUP];
                for ((left, value), quant) in left.iter_mut().zip(values).zip(&first.quants[group * GROUP..]) {
                    *left = value - scale * f32::from(*quant);
                }
                cpu::quantize_rest::<L>(&left, scale, group, &mut second);
            }
            for row in [&mut first, &mut second] {
                cpu::clear_surplus(groups.len(), row);
            }
        }
        Ok(())
    }
}
