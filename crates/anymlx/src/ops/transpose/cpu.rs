//! One item is one row of the output. Rows of a chunk are filled tile by tile.

use bytemuck::Pod;

use super::Block;
use crate::{CpuKernel, Invocation, KernelResult};

pub(super) const TILE: usize = 32;

/// The kernel for elements of `bytes` bytes, and its variant.
pub(super) fn kernel(bytes: usize) -> Option<(CpuKernel, &'static str)> {
    type Function = fn(&Invocation<'_>) -> KernelResult;
    let (function, variant): (Function, _) = match bytes {
        1 => (run::<u8>, "bytes1"),
        2 => (run::<u16>, "bytes2"),
        4 => (run::<u32>, "bytes4"),
        8 => (run::<u64>, "bytes8"),
        _ => return None,
    };
    // SAFETY: item `c` writes row `c` of binding 1.
    Some((unsafe { CpuKernel::partitioned(function) }, variant))
}

fn run<T: Pod>(invocation: &Invocation<'_>) -> KernelResult {
    let block: Block = invocation.params();
    let (rows, columns) = (block.rows as usize, block.columns as usize);
    let input = invocation.input::<T>(0);
    let items = invocation.items();
    for first in items.clone().step_by(TILE) {
        let tile_columns = first..(first + TILE).min(items.end);
        // SAFETY: the rows of these items.
        let output = unsafe { invocation.output::<T>(1, first * rows..tile_columns.end * rows) };
        for first_row in (0..rows).step_by(TILE) {
            for row in first_row..(first_row + TILE).min(rows) {
                let values = &input[row * columns..][tile_columns.clone()];
                for (index, &value) in values.iter().enumerate() {
                    output[index * rows + row] = value;
                }
            }
        }
    }
    Ok(())
}
