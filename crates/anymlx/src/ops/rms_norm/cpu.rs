//! One item is one row.

use super::Block;
use crate::{CpuKernel, Invocation, KernelResult};

// SAFETY: item `r` writes elements `r * columns .. (r + 1) * columns` of binding 2 and nothing else.
pub(super) const KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run) };

// SAFETY: item `r` reads and writes elements `r * columns .. (r + 1) * columns` of binding 0.
pub(super) const IN_PLACE: CpuKernel = unsafe { CpuKernel::partitioned(run_in_place) };

fn run(invocation: &Invocation<'_>) -> KernelResult {
    let block: Block = invocation.params();
    let columns = block.columns as usize;
    let input = invocation.input::<f32>(0);
    let weight = invocation.input::<f32>(1);
    for row in invocation.items() {
        let elements = row * columns..(row + 1) * columns;
        // SAFETY: the elements of this item.
        let output = unsafe { invocation.output::<f32>(2, elements.clone()) };
        normalize(&input[elements], weight, output, &block);
    }
    Ok(())
}

fn run_in_place(invocation: &Invocation<'_>) -> KernelResult {
    let block: Block = invocation.params();
    let columns = block.columns as usize;
    let weight = invocation.input::<f32>(1);
    for row in invocation.items() {
        // SAFETY: the elements of this item.
        let values = unsafe { invocation.output::<f32>(0, row * columns..(row + 1) * columns) };
        let factor = inverse_root_mean_square(values, &block);
        for (value, &weight) in values.iter_mut().zip(weight) {
            *value = *value * factor * (weight + block.weight_offset);
        }
    }
    Ok(())
}

fn inverse_root_mean_square(values: &[f32], block: &Block) -> f32 {
    1.0 / (sum_of_squares(values) / values.len() as f32 + block.epsilon).sqrt()
}

fn normalize(input: &[f32], weight: &[f32], output: &mut [f32], block: &Block) {
    let factor = inverse_root_mean_square(input, block);
    for ((output, &input), &weight) in output.iter_mut().zip(input).zip(weight) {
        *output = input * factor * (weight + block.weight_offset);
    }
}

/// Eight sums side by side vectorise and keep rounding errors small.
fn sum_of_squares(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * value;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}
