//! One item is one row.

use super::Block;
use super::layout::{GROUP, QuantizedLayout, QuantizedRowMut, SUM_GROUP};
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
    let (groups, _) = input.as_chunks::<GROUP>();
    let (quants, _) = output.quants.as_chunks_mut::<GROUP>();
    let (sums, _) = output.sums.as_chunks_mut::<2>();
    for (((values, quants), scale), sums) in groups.iter().zip(quants).zip(output.scales.iter_mut()).zip(sums) {
        *scale = quantize_group(values, quants);
        *sums = [sum(&quants[..SUM_GROUP]), sum(&quants[SUM_GROUP..])];
    }
    output.scales[groups.len()..].fill(0.0);
    output.sums[2 * groups.len()..].fill(0);
    output.padding.fill(0);
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
