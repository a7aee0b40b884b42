//! Counters that advance from replay to replay.

mod cpu;
#[cfg(test)]
mod tests;

use super::check::Check;
use crate::{CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, TensorType, read_write, registry::BuiltIn};

pub(super) const GPU: &str = gpu_text!("increment.gpu.cpp");

/// `values[i] += 1`, wrapping, for `U32` values of any shape.
///
/// # Errors
/// `InvalidArgument` for another dtype.
pub fn increment(encoder: &mut CommandEncoder, values: &MlxBuffer) -> Result<()> {
    let check = Check::new("increment");
    check.dtype("values", values, &[DType::U32])?;
    check.bytes("values", values)?;
    let count = check.u32("element count", values.element_count())?;
    let key = KernelKey { operation: "increment", element: TensorType::Dense(DType::U32), variant: "" };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: GPU, cpu: cpu::KERNEL })?;
    let launch = Launch {
        groups: [count.div_ceil(256), 1, 1],
        threads_per_group: 256,
        items: values.element_count(),
        items_per_chunk: 1 << 14,
    };
    encoder.dispatch(&kernel, &[read_write(values)], &count, launch)
}
