//! One item is one row.

use super::Block;
use super::layout::{GROUP, QuantizedLayout, QuantizedRowMut, STEP_RATIO};
use crate::{
    Invocation, KernelResult,
    ops::lanes::{LaneKernel, Lanes},
};

/// Below this largest magnitude a group counts as zero: `127 / amax` must be finite.
const SMALLEST: f32 = 1e-36;

pub(super) struct QuantizeActivations;

// SAFETY: item `r` writes the bytes of row `r` of binding 1 and nothing else.
unsafe impl LaneKernel for QuantizeActivations {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        let columns = invocation.params::<Block>().columns as usize;
        let layout = QuantizedLayout::new(columns).ok_or("columns are no multiple of 32")?;
        let input = invocation.input::<f32>(0);
        for row in invocation.items() {
            // SAFETY: the bytes of this item.
            let output = unsafe { invocation.output::<u8>(1, row * layout.row_bytes..(row + 1) * layout.row_bytes) };
            quantize_row::<L>(&input[row * columns..(row + 1) * columns], layout.split_mut(output));
        }
        Ok(())
    }
}

/// Quantises one row.
#[inline(always)]
fn quantize_row<L: Lanes>(input: &[f32], output: QuantizedRowMut<'_>) {
    let mut output = output;
    let (groups, _) = input.as_chunks::<GROUP>();
    for (group, values) in groups.iter().enumerate() {
        quantize_group::<L>(values, group, &mut output);
    }
    clear_surplus(groups.len(), &mut output);
}

/// Quantises the values of one group of a row. Returns the scale: NaN when a value is not finite, so that it shows in
/// every result.
#[inline(always)]
pub(super) fn quantize_group<L: Lanes>(values: &[f32; GROUP], group: usize, row: &mut QuantizedRowMut<'_>) -> f32 {
    let zero = L::splat(0.0);
    let (mut maxima, mut taint) = (zero, zero);
    for chunk in values.chunks_exact(L::WIDTH) {
        let chunk = L::load(chunk);
        maxima = chunk.abs().max(maxima);
        taint = chunk.mul_add(zero, taint);
    }
    let largest = maxima.largest();
    let (scale, inverse) = if largest > SMALLEST { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
    let scale = scale + taint.sum();
    store_group::<L>(values, scale, inverse, group, row);
    scale
}

/// Quantises what the first step, of scale `scale`, has left of the values of one group.
#[inline(always)]
pub(super) fn quantize_rest<L: Lanes>(values: &[f32; GROUP], scale: f32, group: usize, row: &mut QuantizedRowMut<'_>) {
    let scale = scale / STEP_RATIO as f32;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    // What lies half a step away would round to 128, and becomes 127.
    store_group::<L>(values, scale, inverse, group, row);
}

#[inline(always)]
fn store_group<L: Lanes>(values: &[f32; GROUP], scale: f32, inverse: f32, group: usize, row: &mut QuantizedRowMut<'_>) {
    let [first, second] = L::round_to_bytes(values, inverse, &mut row.quants.as_chunks_mut::<GROUP>().0[group]);
    row.scales[group] = scale;
    row.sums[2 * group] = first;
    row.sums[2 * group + 1] = second;
}

/// Zeroes what follows the groups of a row.
#[inline(always)]
pub(super) fn clear_surplus(groups: usize, row: &mut QuantizedRowMut<'_>) {
    row.scales[groups..].fill(0.0);
    row.sums[2 * groups..].fill(0);
    row.padding.fill(0);
}
