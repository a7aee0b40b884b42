//! One item is one id.

use anymlx_formats::quant::{self, TensorType};

use super::Block;
use crate::{CpuKernel, Invocation, KernelFault, KernelResult};

// SAFETY: item `i` writes elements `i * columns .. (i + 1) * columns` of binding 2 and nothing else.
pub(super) const KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run) };

fn run(invocation: &Invocation<'_>) -> KernelResult {
    let block: Block = invocation.params();
    let columns = block.columns as usize;
    let encoding =
        TensorType::from_ggml_id(block.encoding).ok_or_else(|| format!("encoding {} is unknown", block.encoding))?;
    let row_bytes = columns / encoding.block_len() * encoding.block_bytes();
    let table = invocation.input::<u8>(0);
    let ids = invocation.input::<u32>(1);
    for item in invocation.items() {
        let id = ids[item];
        if id >= block.table_rows {
            return Err(KernelFault(format!("ids[{item}] is {id}, the table has {} rows", block.table_rows)));
        }
        // SAFETY: the elements of this item.
        let output = unsafe { invocation.output::<f32>(2, item * columns..(item + 1) * columns) };
        let start = id as usize * row_bytes;
        quant::dequantize(encoding, &table[start..start + row_bytes], output)?;
        if block.factor != 1.0 {
            output.iter_mut().for_each(|value| *value *= block.factor);
        }
    }
    Ok(())
}
