//! One item is one row.

use super::Block;
use super::layout::{GROUP, QuantizedLayout, QuantizedRowMut, STEP_RATIO, SUM_GROUP};
use crate::{
    Invocation, KernelResult,
    ops::lanes::{LaneKernel, Lanes},
};

/// Below this largest magnitude a group counts as zero: `127 / amax` must be finite.
const SMALLEST: f32 = 1e-36;
/// Added to a number of magnitude up to 2^22, leaves it rounded to the nearest whole number, ties to even, in the low
/// bits.
const ROUNDING: f32 = 12_582_912.0;

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
            quantize_row(&input[row * columns..(row + 1) * columns], layout.split_mut(output));
        }
        Ok(())
    }
}

/// Quantises one row.
#[inline(always)]
pub(in crate::ops) fn quantize_row(input: &[f32], output: QuantizedRowMut<'_>) {
    let mut output = output;
    let (groups, _) = input.as_chunks::<GROUP>();
    for (group, values) in groups.iter().enumerate() {
        quantize_group_of(values, group, &mut output);
    }
    clear_surplus(groups.len(), &mut output);
}

/// Quantises the values of one group of a row. Returns the scale.
#[inline(always)]
pub(super) fn quantize_group_of(values: &[f32; GROUP], group: usize, row: &mut QuantizedRowMut<'_>) -> f32 {
    let quants = &mut row.quants.as_chunks_mut::<GROUP>().0[group];
    let scale = quantize_group(values, quants);
    row.scales[group] = scale;
    row.sums[2 * group] = sum(&quants[..SUM_GROUP]);
    row.sums[2 * group + 1] = sum(&quants[SUM_GROUP..]);
    scale
}

/// Quantises what the first step, of scale `scale`, has left of the values of one group.
#[inline(always)]
pub(super) fn quantize_rest_of(values: &[f32; GROUP], scale: f32, group: usize, row: &mut QuantizedRowMut<'_>) {
    let scale = scale / STEP_RATIO as f32;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let quants = &mut row.quants.as_chunks_mut::<GROUP>().0[group];
    for (quant, value) in quants.iter_mut().zip(values) {
        // What lies half a step away would round to 128.
        *quant = ((value * inverse).clamp(-127.0, 127.0) + ROUNDING).to_bits() as i8;
    }
    row.scales[group] = scale;
    row.sums[2 * group] = sum(&quants[..SUM_GROUP]);
    row.sums[2 * group + 1] = sum(&quants[SUM_GROUP..]);
}

/// Zeroes what follows the groups of a row.
#[inline(always)]
pub(super) fn clear_surplus(groups: usize, row: &mut QuantizedRowMut<'_>) {
    row.scales[groups..].fill(0.0);
    row.sums[2 * groups..].fill(0);
    row.padding.fill(0);
}

/// Returns the scale: NaN when a value is not finite, so that it shows in every result.
#[inline(always)]
fn quantize_group(values: &[f32; GROUP], quants: &mut [i8; GROUP]) -> f32 {
    let mut maxima = [0.0_f32; 8];
    let mut taint = [0.0_f32; 8];
    for chunk in values.as_chunks::<8>().0 {
        for ((max, taint), value) in maxima.iter_mut().zip(&mut taint).zip(chunk) {
            let magnitude = value.abs();
            *max = if magnitude > *max { magnitude } else { *max };
            *taint += value * 0.0;
        }
    }
    let largest = maxima.iter().fold(0.0_f32, |most, &max| if max > most { max } else { most });
    let taint: f32 = taint.iter().sum();
    let inverse = if largest > SMALLEST { 127.0 / largest } else { 0.0 };
    for (quant, value) in quants.iter_mut().zip(values) {
        *quant = (value * inverse + ROUNDING).to_bits() as i8;
    }
    let scale = if largest > SMALLEST { largest / 127.0 } else { 0.0 };
    scale + taint
}

#[inline(always)]
fn sum(quants: &[i8]) -> i16 {
    quants.iter().map(|&quant| i16::from(quant)).sum()
}
